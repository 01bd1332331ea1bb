//! System calls that no safe crate offers. One of the files where unsafe is allowed.

#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// pidfd_open(2).
pub(crate) fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers, touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
