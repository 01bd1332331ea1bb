//! Reading a tracee's memory: strings, buffers and vectors, as far as they are there (hazard 11).

use super::sys;
use crate::syscall::{self, Abi, Syscall};

/// `PATH_MAX`: the kernel takes no longer path.
const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;
/// `UIO_MAXIOV`: the kernel takes no more vectors in a call.
const IOV_MAX: u64 = 1024;

/// The memory of one thread's process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    tid: i32,
    abi: Abi,
}

/// A piece of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) addr: u64,
    pub(super) len: u64,
}

impl Memory {
    pub(super) fn of(tid: i32, abi: Abi) -> Memory {
        Memory { tid, abi }
    }

    /// Fills `out` from `addr`, as far as the memory can be read.
    pub(super) fn read<'a>(&self, addr: u64, out: &'a mut [u8]) -> &'a [u8] {
        let n = sys::read_memory(self.tid, addr, out).unwrap_or(0);
        &out[..n]
    }

    /// A NUL-terminated string of at most `PATH_MAX` bytes into `out`, without its NUL; false where it faults first or
    /// has no end.
    pub(super) fn string(&self, addr: u64, out: &mut Vec<u8>) -> bool {
        out.clear();
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

    /// The words (pointers, lengths) at `addr`.
    fn words(&self, addr: u64, count: usize) -> Vec<u64> {
        let word = self.abi.word();
        let mut buf = vec![0; count * word];
        let read = self.read(addr, &mut buf);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        read.chunks_exact(word).map(number).collect()
    }

    /// What a socketcall(2) of i386 is: its arguments are an array of words.
    pub(super) fn socketcall(&self, args: &[u64; 6]) -> (Option<&'static Syscall>, [u64; 6]) {
        /// `SYS_SEND` and others of linux/net.h, and the calls that do the same.
        const CALLS: [(u64, &str); 8] = [
            (9, "sendto"),
            (10, "recvfrom"),
            (11, "sendto"),
            (12, "recvfrom"),
            (16, "sendmsg"),
            (17, "recvmsg"),
            (19, "recvmmsg"),
            (20, "sendmmsg"),
        ];
        let name = CALLS.iter().find(|(number, _)| *number == args[0]).map(|(_, name)| *name);
        let known = name.and_then(|name| syscall::lookup(self.abi, syscall::by_name(self.abi, name)?));
        // Those that data is found by; a shorter array may end where the memory does.
        let mut inner = [0; 6];
        for (to, from) in inner.iter_mut().zip(self.words(args[1], 3)) {
            *to = from;
        }
        (known, inner)
    }

    /// `count` iovecs at `addr`.
    pub(super) fn iovecs(&self, addr: u64, count: u64) -> Vec<Span> {
        let words = self.words(addr, count.min(IOV_MAX) as usize * 2);
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

    /// The iovecs of message `i` of the `struct mmsghdr` array at `addr`, and how many bytes it moved.
    pub(super) fn message_of_many(&self, addr: u64, i: u64) -> (Vec<Span>, u64) {
        // A msghdr is seven words; msg_len and padding fill the eighth.
        let at = addr + i * 8 * self.abi.word() as u64;
        let len = self.words(at, 8).get(7).map_or(0, |len| len & 0xffff_ffff);
        (self.message(at), len)
    }
}
