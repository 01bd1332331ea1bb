//! The ring of one sink in the kernel (Documentation/bpf/ringbuf.rst), read by one thread at a time.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};

use aya::maps::MapData;

use super::sys::Shared;
use crate::error::{Error, Result};
use nix::errno::Errno;

/// `BPF_MAP_TYPE_RINGBUF` of the kernel's uapi/linux/bpf.h.
const RINGBUF: u32 = 27;
/// `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT` and `BPF_RINGBUF_HDR_SZ` there.
const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const HEADER: u64 = 8;
const PAGE: usize = 4096;
/// Room is given back to the kernel after so many bytes at the latest.
const STEP: u64 = 32 << 10;

/// A ring and where its reader stands.
#[derive(Debug)]
pub(super) struct Ring {
    map: MapData,
    consumer: Shared,
    producer: Shared,
    size: u64,
    at: u64,
}

impl Ring {
    /// A new one of `size` bytes, a power of two.
    ///
    /// # Errors
    /// ENOMEM and what else bpf(2) says.
    pub(super) fn new(size: usize) -> Result<Ring> {
        let failed = |_| Error::sys("make a ring in the kernel", 0, Errno::ENOMEM);
        let params = aya_obj::Map::new_from_params(RINGBUF, 0, 0, size as u32, 0);
        let map = MapData::create(params, "ktrace", None).map_err(failed)?;
        let mapped = |error: std::io::Error| {
            Error::sys("map a ring", 0, Errno::from_raw(error.raw_os_error().unwrap_or(libc::ENOMEM)))
        };
        let fd = map.fd().as_fd();
        let consumer = Shared::of(fd, 0, PAGE, true).map_err(mapped)?;
        let producer = Shared::of(fd, PAGE as u64, PAGE + 2 * size, false).map_err(mapped)?;
        Ok(Ring { map, consumer, producer, size: size as u64, at: 0 })
    }

    pub(super) fn map(&self) -> &MapData {
        &self.map
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// Where the kernel will write next: what comes before has begun already.
    pub(super) fn produced(&self) -> u64 {
        self.producer.word(0).load(Ordering::SeqCst)
    }

    /// Bytes that wait to be read.
    pub(super) fn unread(&self) -> usize {
        (self.produced() - self.at) as usize
    }

    /// True where all before that place has been read.
    pub(super) fn has_read(&self, place: u64) -> bool {
        self.at >= place
    }

    /// Gives up to `most` of the events that are there now to `each`; tells how many there were.
    ///
    /// What comes meanwhile waits for the next time: to run after the writer event by event would cost it a wake-up for
    /// each. The kernel wakes us for what it adds after it has seen that we have come to the end.
    pub(super) fn read(&mut self, most: usize, mut each: impl FnMut(&[u8])) -> usize {
        let (mut count, mut told) = (0, self.at);
        let end = self.produced();
        while count < most && self.at < end {
            let at = PAGE + (self.at & (self.size - 1)) as usize;
            let header = self.producer.half(at).load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let len = header & !(BUSY | DISCARD);
            if header & DISCARD == 0 {
                each(self.producer.bytes(at + HEADER as usize, len as usize));
                count += 1;
            }
            self.at += (u64::from(len) + HEADER).next_multiple_of(8);
            if self.at - told >= STEP {
                self.tell();
                told = self.at;
            }
        }
        self.tell();
        count
    }

    fn tell(&self) {
        self.consumer.word(0).store(self.at, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}
