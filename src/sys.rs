//! System calls that no safe crate offers. One of the files where unsafe is allowed.

#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal};

/// pidfd_open(2).
pub(crate) fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers, touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Gives a signal its default action again, with signal(2).
pub(crate) fn default_action(signal: Signal) -> nix::Result<()> {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.map(drop)
}

/// Takes over a descriptor that was left open for this process by the one that started it.
///
/// # Errors
/// EBADF.
pub(crate) fn inherited(number: i32) -> nix::Result<OwnedFd> {
    // SAFETY: fcntl(2) takes a number and touches no memory.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: it is open, and meant for nobody else in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets the child of `command` get SIGTERM when this thread ends (PR_SET_PDEATHSIG), and begin with this signal mask.
pub(crate) fn end_with_parent(command: &mut Command, mask: SigSet) {
    let before_exec = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        mask.thread_set_mask()?;
        Ok(())
    };
    // SAFETY: two system calls; nothing is allocated, no lock is taken.
    unsafe { command.pre_exec(before_exec) };
}

/// A program with its arguments and environment, ready for execve(2) without another step.
pub(crate) struct Image {
    path: CString,
    // The pointers below point into these.
    _strings: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
}

impl Image {
    /// `None` where one of the strings has a NUL.
    pub(crate) fn new(
        path: Vec<u8>,
        args: impl Iterator<Item = Vec<u8>>,
        env: impl Iterator<Item = Vec<u8>>,
    ) -> Option<Image> {
        let path = CString::new(path).ok()?;
        let mut strings: Vec<CString> = args.map(|s| CString::new(s).ok()).collect::<Option<_>>()?;
        let argc = strings.len();
        for pair in env {
            strings.push(CString::new(pair).ok()?);
        }
        let pointers = |strings: &[CString]| {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let (argv, envp) = (pointers(&strings[..argc]), pointers(&strings[argc..]));
        Some(Image { path, _strings: strings, argv, envp })
    }

    /// execve(2), and nothing else. Comes back only with what went wrong.
    pub(crate) fn exec(&self) -> Errno {
        // SAFETY: both arrays end with a null pointer, and what they point to lives in `self`.
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        Errno::last()
    }
}

/// True where a file carries capabilities (getxattr(2), `security.capability`).
pub(crate) fn has_file_caps(path: &std::path::Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: two NUL-terminated strings, and a size of 0 that asks only whether there is a value.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}
