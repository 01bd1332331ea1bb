//! System calls that no safe crate offers. One of the files where unsafe is allowed.

#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal};

/// pidfd_open(2).
pub(crate) fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers, touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Gives the calling thread this nice value (setpriority(2)), where it may.
pub(crate) fn set_nice(nice: i32) {
    // SAFETY: takes three integers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
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

/// The parent of a user namespace, where it can be seen (ioctl_nsfs(2), `NS_GET_PARENT`).
pub(crate) fn parent_namespace(ns: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    const NS_GET_PARENT: libc::c_ulong = 0xb702;
    // SAFETY: the request takes no argument, so no memory of ours is touched.
    let fd = Errno::result(unsafe { libc::ioctl(ns.as_raw_fd(), NS_GET_PARENT) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `f` in a thread of its own that has these ids for files, these groups and no capability.
///
/// # Errors
/// What setfsuid(2), setfsgid(2) or capset(2) says; EPERM where the ids are not ours to take.
pub(crate) fn with_ids_only<T: Send>(
    uid: u32,
    gid: u32,
    groups: &[u32],
    f: impl FnOnce() -> T + Send,
) -> nix::Result<T> {
    let run = || {
        take_ids(uid, gid, groups)?;
        Ok(f())
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("permission".into()).spawn_scoped(scope, run);
        thread.map_err(|_| Errno::EAGAIN)?.join().unwrap_or(Err(Errno::EIO))
    })
}

/// Gives the calling thread these ids for files, these groups and no capability, for good.
///
/// Of this thread only: glibc's wrappers of setgroups(2) would change every thread of the process.
///
/// # Errors
/// What setgroups(2) or capset(2) says; EPERM where the ids are not ours to take.
pub(crate) fn take_ids(uid: u32, gid: u32, groups: &[u32]) -> nix::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    const NONE: u32 = u32::MAX;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // SAFETY: the kernel reads `groups.len()` ids from a slice of that length.
    let groups_taken =
        Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) });
    // SAFETY: these take an integer each and touch no memory of ours; with an id that is none they only tell.
    let (fsuid, fsgid) = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        (libc::syscall(libc::SYS_setfsuid, NONE), libc::syscall(libc::SYS_setfsgid, NONE))
    };
    if (fsuid as u32, fsgid as u32) != (uid, gid) {
        return Err(Errno::EPERM);
    }
    // A daemon without privilege keeps its own groups, and serves its own user only.
    if let Err(errno) = groups_taken
        && errno != Errno::EPERM
    {
        return Err(errno);
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = [0u32; 6];
    // SAFETY: version 3 makes the kernel read this header and two sets of three 32-bit words.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(done).map(drop)
}

/// Gives the calling thread a seccomp filter, for good, and the promise to gain no privilege that the kernel asks for
/// (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// What prctl(2) or seccomp(2) says.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> nix::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: these arguments are numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: the kernel reads `len` instructions, and no more than that many are there.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(done).map(drop)
}

/// pidfd_getfd(2): a descriptor of another process, as one of ours.
pub(crate) fn pidfd_getfd(pidfd: &OwnedFd, fd: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes three integers, touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The device number of the terminal that a descriptor stands for (`TIOCGDEV` of ioctl_tty(2)); `None` where it is none.
pub(crate) fn terminal(fd: &OwnedFd) -> Option<u64> {
    const TIOCGDEV: libc::c_ulong = 0x8004_5432;
    let mut device = 0u32;
    // SAFETY: the request writes one unsigned int.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), TIOCGDEV, &raw mut device) };
    (done == 0).then_some(u64::from(device))
}

/// What statx(2) says without asking a file system that is somewhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cached {
    /// Type and permission.
    pub(crate) mode: u16,
    /// Device number.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
}

/// Of an open file. It never waits for a file system that does not answer.
pub(crate) fn statx_cached(fd: &OwnedFd) -> nix::Result<Cached> {
    statx(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// The device of what is mounted at `path`. It never waits for that file system, which may be our own.
pub(crate) fn device_cached(path: &std::path::Path) -> nix::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    statx(libc::AT_FDCWD, &path, 0).map(|file| file.device)
}

fn statx(dir: i32, path: &std::ffi::CStr, flags: i32) -> nix::Result<Cached> {
    let mut out = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = flags | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_TYPE | libc::STATX_INO;
    // SAFETY: a NUL-terminated string, and room for the struct that the kernel fills.
    Errno::result(unsafe { libc::statx(dir, path.as_ptr(), flags, mask, out.as_mut_ptr()) })?;
    // SAFETY: zeroed before, and any bytes make one: it is plain integers.
    let out = unsafe { out.assume_init() };
    let device = u64::from(out.stx_dev_major) << 32 | u64::from(out.stx_dev_minor);
    Ok(Cached { mode: out.stx_mode, device, inode: out.stx_ino })
}
