//! One of the rings of a sink in the kernel (Documentation/bpf/ringbuf.rst), read by one thread at a time.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};

use aya::maps::MapData;

use super::event;
use super::merge::{Next, Source};
use super::sys::Shared;
use crate::error::{Error, Result};
use nix::errno::Errno;

/// `BPF_MAP_TYPE_RINGBUF` of the kernel's uapi/linux/bpf.h.
const RINGBUF: u32 = 27;
/// `BPF_RINGBUF_BUSY_BIT`, `BPF_RINGBUF_DISCARD_BIT` and `BPF_RINGBUF_HDR_SZ` there.
const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const HEADER: usize = 8;
const PAGE: usize = 4096;
/// What another cpu has written is on its way so many bytes before it is read. The mapping has the ring twice, one after the other.
const AHEAD: usize = 512;
/// Less than any event has, with its header.
const SHORT: u64 = 8;
/// Room is given back to the kernel after so many bytes at the latest.
const STEP: u64 = 32 << 10;

/// The map of a ring of `size` bytes, a power of two.
///
/// # Errors
/// ENOMEM.
pub(super) fn create(size: usize) -> Result<MapData> {
    let params = aya_obj::Map::new_from_params(RINGBUF, 0, 0, size as u32, 0);
    MapData::create(params, "ktrace", None)
        .map_err(|_| Error::sys("make a ring in the kernel", 0, Errno::ENOMEM))
}

/// A ring and where its reader stands.
#[derive(Debug)]
pub(super) struct Ring {
    map: MapData,
    consumer: Shared,
    producer: Shared,
    size: u64,
    at: u64,
    /// Bytes of the event there, once [`Source::next`] has found one.
    len: usize,
    /// How far the kernel knows of it.
    told: u64,
    /// Nobody is to be woken for what comes: the kernel does not hear that all has been read.
    hushed: bool,
}

impl Ring {
    /// A new one of `size` bytes, a power of two.
    ///
    /// # Errors
    /// ENOMEM and what else bpf(2) says.
    pub(super) fn new(size: usize) -> Result<Ring> {
        let map = create(size)?;
        let mapped = |error: std::io::Error| {
            Error::sys("map a ring", 0, Errno::from_raw(error.raw_os_error().unwrap_or(libc::ENOMEM)))
        };
        let fd = map.fd().as_fd();
        let consumer = Shared::of(fd, 0, PAGE, true).map_err(mapped)?;
        let producer = Shared::of(fd, PAGE as u64, PAGE + 2 * size, false).map_err(mapped)?;
        Ok(Ring { map, consumer, producer, size: size as u64, at: 0, len: 0, told: 0, hushed: false })
    }

    pub(super) fn map(&self) -> &MapData {
        &self.map
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// From now on nobody is woken for an event. The kernel wakes who reads where an event begins where he has come to: it is told of
    /// a place in the midst of the last one.
    pub(super) fn hush(&mut self) {
        self.hushed = true;
        self.tell();
    }

    /// From now on an event wakes who waits for it, but for one that is there already, which is to be read first: then this is
    /// false.
    pub(super) fn listen(&mut self) -> bool {
        self.hushed = false;
        loop {
            self.tell();
            // One that is not finished is seen to be told of when it is.
            if matches!(self.next(self.produced()), Next::At(_)) {
                return false;
            }
            // Behind what was discarded it wakes nobody until it is known that this has been passed over.
            if self.told == self.at {
                return true;
            }
        }
    }

    /// Where in the mapping the event is that the reader has come to, after its header.
    #[inline]
    fn place(&self) -> usize {
        PAGE + (self.at & (self.size - 1)) as usize + HEADER
    }

    #[inline]
    fn header(&self) -> u32 {
        self.producer.half(self.place() - HEADER).load(Ordering::Acquire)
    }

    #[inline]
    fn pass_over(&mut self, header: u32) {
        let len = u64::from(header & !(BUSY | DISCARD));
        self.at += (len + HEADER as u64).next_multiple_of(8);
    }
}

impl Source for Ring {
    #[inline]
    fn produced(&self) -> u64 {
        self.producer.word(0).load(Ordering::SeqCst)
    }

    #[inline]
    fn at(&self) -> u64 {
        self.at
    }

    #[inline]
    fn next(&mut self, end: u64) -> Next {
        while self.at < end {
            let header = self.header();
            if header & BUSY != 0 {
                return Next::Busy;
            }
            if header & DISCARD == 0 {
                self.len = header as usize;
                return Next::At(self.producer.word(self.place() + event::KTIME).load(Ordering::Relaxed));
            }
            self.pass_over(header);
        }
        Next::End
    }

    #[inline]
    fn take(&mut self, each: impl FnOnce(&[u8])) {
        self.producer.prefetch(self.place() + AHEAD);
        each(self.producer.bytes(self.place(), self.len));
        self.pass_over(self.len as u32);
        if self.at.wrapping_sub(self.told) >= STEP {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let place = if self.hushed { self.at.wrapping_sub(SHORT) } else { self.at };
        if self.told != place {
            self.told = place;
            self.consumer.word(0).store(place, Ordering::Release);
            fence(Ordering::SeqCst);
        }
    }
}
