//! What a tracee's descriptor stands for. Nothing here waits for a file system (hazard 12).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use crate::proc;

/// The socket of another process.
pub(super) fn socket(pid: i32, fd: i32) -> Option<OwnedFd> {
    // What is no socket is not touched: to close it again could wait for its file system.
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    link.to_str().filter(|name| name.starts_with("socket:"))?;
    crate::sys::pidfd_getfd(&proc::pidfd(pid).ok()?, fd).ok()
}

/// True for a socket of TCP: there MSG_TRUNC throws data away instead of moving it (tcp(7)).
pub(super) fn is_tcp(pid: i32, fd: i32) -> bool {
    let Some(socket) = socket(pid, fd) else { return false };
    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|addr| addr.family());
    matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6))
        && getsockopt(&socket, sockopt::SockType) == Ok(SockType::Stream)
}

/// True where the descriptor can be written: the link's own permissions tell (proc_pid_fd(5)).
pub(super) fn is_writable(tid: i32, fd: i32) -> bool {
    const WRITE: u32 = 0o200;
    fs::symlink_metadata(format!("/proc/{tid}/fd/{fd}"))
        .is_ok_and(|meta| meta.permissions().mode() & WRITE != 0)
}
