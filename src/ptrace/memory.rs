//! Reading a tracee's memory: strings, buffers and vectors, as far as they are there (hazard 11).

use super::sys;
use crate::record::until_nul;
use crate::syscall::Abi;

/// `PATH_MAX`: the kernel takes no longer path.
const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;
/// Bytes of a `struct sockaddr_un`, of which the first two are the family.
const SOCKADDR_UN: u64 = 110;

/// The memory of one thread's process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    tid: i32,
    abi: Abi,
}

/// A piece of memory; as it lies in memory itself it is a `struct iovec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Span {
    pub(super) addr: u64,
    pub(super) len: u64,
}

impl Memory {
    /// `UIO_MAXIOV`: the kernel takes no more vectors, or messages, in a call.
    pub(super) const VECTORS_MAX: u64 = 1024;

    pub(super) fn of(tid: i32, abi: Abi) -> Memory {
        Memory { tid, abi }
    }

    /// Fills `out` from `addr`, as far as the memory can be read.
    pub(super) fn read<'a>(&self, addr: u64, out: &'a mut [u8]) -> &'a [u8] {
        let n = sys::read_memory(self.tid, addr, out).unwrap_or(0);
        &out[..n]
    }

    /// Fills `out` with all of these spans, which are as long together; false where not all of it can be read, or there are more
    /// than the kernel takes in a call.
    pub(super) fn read_all(&self, spans: &[Span], out: &mut [u8]) -> bool {
        sys::read_memory_of(self.tid, spans, out) == Ok(out.len())
    }

    /// A NUL-terminated string of at most `PATH_MAX` bytes into `out`, without its NUL; false where it faults first or
    /// has no end.
    pub(super) fn string(&self, addr: u64, out: &mut Vec<u8>) -> bool {
        out.clear();
        if addr == 0 {
            return false;
        }
        out.resize(PATH_MAX, 0);
        let mut len = 0;
        while len < PATH_MAX {
            let at = addr.wrapping_add(len as u64);
            // Most paths are short: the first look is small, and none crosses a page that may not be there.
            let want =
                ((PAGE - at % PAGE) as usize).min(if len == 0 { 256 } else { PATH_MAX }).min(PATH_MAX - len);
            let got = self.read(at, &mut out[len..len + want]).len();
            if let Some(nul) = out[len..len + got].iter().position(|&b| b == 0) {
                out.truncate(len + nul);
                return true;
            }
            len += got;
            if got < want {
                break;
            }
        }
        out.clear();
        false
    }

    /// The path in a `struct sockaddr_un` into `out`; false where there is none: another family, no name, an abstract one,
    /// or a length that the kernel refuses (unix(7)).
    pub(super) fn unix_path(&self, addr: u64, len: u64, out: &mut Vec<u8>) -> bool {
        out.clear();
        // A socklen_t has 32 bits.
        let len = len & 0xffff_ffff;
        if addr == 0 || !(3..=SOCKADDR_UN).contains(&len) {
            return false;
        }
        let mut sockaddr = [0; SOCKADDR_UN as usize];
        let sockaddr = &mut sockaddr[..len as usize];
        if self.read(addr, sockaddr).len() < sockaddr.len() {
            return false;
        }
        let (family, path) = sockaddr.split_at(2);
        out.extend_from_slice(until_nul(path));
        family == (libc::AF_UNIX as u16).to_ne_bytes() && !out.is_empty()
    }

    /// The 8 bytes at `addr`, a pointer in every ABI (`__aligned_u64`).
    pub(super) fn pointer(&self, addr: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(addr, &mut bytes).len() == 8).then(|| u64::from_ne_bytes(bytes))
    }

    /// The words (pointers, lengths) at `addr`.
    pub(super) fn words(&self, addr: u64, count: usize) -> Vec<u64> {
        let word = self.abi.word();
        let mut buf = vec![0; count * word];
        let read = self.read(addr, &mut buf);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        read.chunks_exact(word).map(number).collect()
    }

    /// `count` iovecs at `addr`.
    pub(super) fn iovecs(&self, addr: u64, count: u64) -> Vec<Span> {
        let words = self.words(addr, count.min(Memory::VECTORS_MAX) as usize * 2);
        words.chunks_exact(2).map(|w| Span { addr: w[0], len: w[1] }).collect()
    }

    /// The iovecs of the `struct msghdr` at `addr`.
    pub(super) fn message(&self, addr: u64) -> Vec<Span> {
        // msg_name, msg_namelen (and padding), msg_iov, msg_iovlen: one word each.
        match self.words(addr, 4)[..] {
            [_, _, iov, count] => self.iovecs(iov, count),
            _ => Vec::new(),
        }
    }

    /// Address and length of the name in the `struct msghdr` at `addr`.
    pub(super) fn message_name(&self, addr: u64) -> Option<(u64, u64)> {
        match self.words(addr, 2)[..] {
            [name, len] => Some((name, len)),
            _ => None,
        }
    }

    /// Where message `i` of the `struct mmsghdr` array at `addr` begins.
    pub(super) fn message_at(&self, addr: u64, i: u64) -> u64 {
        // A msghdr is seven words; msg_len and padding fill the eighth.
        addr.wrapping_add(i * 8 * self.abi.word() as u64)
    }

    /// The iovecs of message `i` of the `struct mmsghdr` array at `addr`, and how many bytes it moved.
    pub(super) fn message_of_many(&self, addr: u64, i: u64) -> (Vec<Span>, u64) {
        let at = self.message_at(addr, i);
        let len = self.words(at, 8).get(7).map_or(0, |len| len & 0xffff_ffff);
        (self.message(at), len)
    }
}
