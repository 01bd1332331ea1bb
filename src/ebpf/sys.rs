//! Memory that is shared with the kernel. One of the files where unsafe is allowed.

#![allow(unsafe_code, reason = "memory that the kernel changes under us")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

/// A mapped part of a BPF map.
#[derive(Debug)]
pub(super) struct Shared {
    map: MmapRaw,
}

impl Shared {
    /// Maps `len` bytes at `offset` of the map `fd`, for reading, or for both.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub(super) fn of(fd: BorrowedFd<'_>, offset: u64, len: usize, writes: bool) -> io::Result<Shared> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        let map = match writes {
            true => options.map_raw(fd.as_raw_fd()),
            false => options.map_raw_read_only(fd.as_raw_fd()),
        };
        map.map(|map| Shared { map })
    }

    #[inline]
    fn at<T>(&self, at: usize) -> *mut T {
        let fits = at.checked_add(size_of::<T>()).is_some_and(|end| end <= self.map.len());
        assert!(fits && at.is_multiple_of(align_of::<T>()), "{at} is not in the map");
        self.map.as_mut_ptr().wrapping_add(at).cast()
    }

    /// The 64 bits at this offset. They may be written where the map was made for that.
    #[inline]
    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: inside of the mapping and aligned, which `at` has checked; mapped as long as `self` lives.
        unsafe { AtomicU64::from_ptr(self.at(at)) }
    }

    /// The 32 bits at this offset.
    #[inline]
    pub(super) fn half(&self, at: usize) -> &AtomicU32 {
        // SAFETY: as for `word`.
        unsafe { AtomicU32::from_ptr(self.at(at)) }
    }

    /// Has the bytes at this offset brought into the cache; does nothing where there are none.
    #[inline]
    pub(super) fn prefetch(&self, at: usize) {
        if at < self.map.len() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: inside of the mapping; and it reads nothing that anybody could see.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.map.as_ptr().wrapping_add(at).cast());
            }
        }
    }

    /// Bytes that the kernel has handed over and will not touch before it is told that they are read.
    #[inline]
    pub(super) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.map.len());
        assert!(fits, "{len} bytes at {at} are not in the map");
        // SAFETY: inside of the mapping; a ring's record that is not busy is not written to until it is consumed, which
        // the one reader of the ring does after this borrow.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().wrapping_add(at), len) }
    }
}
