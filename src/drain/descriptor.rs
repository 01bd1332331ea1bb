//! A descriptor of the caller's: taken, known again, and written to without waiting.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockType, getsockopt, send, sockopt};
use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::unistd::{Whence, ftruncate, lseek, write};

use crate::cred::Caller;
use crate::error::{Error, Result};
use crate::proc;
use crate::record;
use crate::sink::FileId;
use crate::sys;

/// The major of Unix98 slaves, and the device of all their masters (the kernel's admin-guide/devices.txt).
const PTS: u64 = 136;
const PTMX: (u64, u64) = (5, 2);
/// `PIPE_BUF` of limits.h: a pipe that is writable takes at least so much without waiting.
const PIPE_BUF: usize = 4096;

/// A descriptor to write records to.
#[derive(Debug)]
pub struct Descriptor {
    fd: OwnedFd,
    id: FileId,
    name: String,
    how: How,
    is_device: bool,
}

/// How it is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// A regular file: a write takes as long as the disk does.
    File,
    /// Opened anew by us, not to wait.
    Unwaiting,
    /// What could not be opened anew: only after poll(2) says that it takes some, and no more than that.
    Polled,
    /// A socket, as a stream of bytes.
    Socket,
    /// A socket that keeps messages apart: one record each.
    Messages,
}

/// Takes descriptor `number` of the caller's process. `mountpoint` is ours.
///
/// # Errors
/// EBADF where it is not open for writing; EINVAL where it is a file on our own mount; ESRCH; EPERM where the kernel
/// does not let us take it.
pub fn take(caller: &Caller, number: i32, mountpoint: Option<&Path>) -> Result<Descriptor> {
    let pid = proc::tgid(caller.tid)?;
    let pidfd = proc::pidfd(pid)?;
    let fd = sys::pidfd_getfd(&pidfd, number).map_err(|errno| match errno {
        Errno::EBADF => Error::BadFd { fd: number },
        errno => Error::sys("pidfd_getfd", pid, errno),
    })?;
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(|errno| Error::sys("fcntl", pid, errno))?;
    let flags = OFlag::from_bits_retain(flags);
    if flags.contains(OFlag::O_PATH) || flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Err(Error::BadFd { fd: number });
    }
    let file = sys::statx_cached(&fd).map_err(|errno| Error::sys("statx", pid, errno))?;
    let own = mountpoint.and_then(|point| sys::device_cached(point).ok());
    if own == Some(file.device) {
        return Err(Error::invalid(format!("fd={number} is a file of this mount")));
    }
    let kind = SFlag::from_bits_truncate(u32::from(file.mode)) & SFlag::S_IFMT;
    let (fd, how) = match kind {
        SFlag::S_IFREG | SFlag::S_IFBLK => (fd, How::File),
        SFlag::S_IFSOCK => match getsockopt(&fd, sockopt::SockType) {
            Ok(SockType::Stream) => (fd, How::Socket),
            _ => (fd, How::Messages),
        },
        SFlag::S_IFCHR => (device(caller, pid, fd)?, How::Unwaiting),
        _ => pipe(fd)?,
    };
    // /dev/tty has become the terminal that it stood for.
    let file = sys::statx_cached(&fd).map_err(|errno| Error::sys("statx", pid, errno))?;
    let id = FileId { device: file.device, inode: file.inode };
    let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let name = name.map_or_else(|_| "?".to_owned(), |path| path.to_string_lossy().escape_debug().to_string());
    Ok(Descriptor { fd, id, name, how, is_device: kind == SFlag::S_IFCHR })
}

/// Opens a path of our own making to write without waiting.
fn open(path: &str) -> nix::Result<OwnedFd> {
    let open = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    open.map(OwnedFd::from).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// A pipe as an open file of our own: its flags are not the caller's.
fn pipe(fd: OwnedFd) -> Result<(OwnedFd, How)> {
    match open(&format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Ok(anew) => Ok((anew, How::Unwaiting)),
        // Nobody reads it any more: the first write will say so. Or it is somebody else's that the caller was given: what it
        // may do by the descriptor, it may not by the name.
        Err(Errno::ENXIO | Errno::EACCES) => Ok((fd, How::Polled)),
        Err(errno) => Err(Error::sys("open the pipe anew", 0, errno)),
    }
}

/// A terminal, or another character device, as an open file of our own. A terminal that has only a write(2) that waits is
/// refused.
fn device(caller: &Caller, pid: i32, fd: OwnedFd) -> Result<OwnedFd> {
    let refused = |why: &str| Error::invalid(format!("fd= is a terminal that {why}"));
    let stat = fstat(&fd).map_err(|errno| Error::sys("fstat", pid, errno))?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match sys::terminal(&fd) {
        Some(terminal) if terminal != stat.st_rdev => {
            if (major(stat.st_rdev), minor(stat.st_rdev)) == PTMX {
                return Err(refused("is driven by it: to open it again would make another one"));
            }
            // /dev/tty: the caller's own, by its name there.
            let name = match major(terminal) {
                PTS => format!("pts/{}", minor(terminal)),
                _ => format!("tty{}", minor(terminal)),
            };
            let anew = open(&format!("/proc/{pid}/root/dev/{name}"))
                .map_err(|_| refused("cannot be opened anew"))?;
            let found = fstat(&anew).map_err(|errno| Error::sys("fstat", pid, errno))?;
            let is_it = found.st_rdev == terminal
                && SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
            match is_it && (found.st_uid == caller.uid || caller.uid == 0) {
                true => Ok(anew),
                false => Err(refused("is not the caller's under its name")),
            }
        }
        _ => open(&path).map_err(|errno| Error::sys("open the device anew", 0, errno)),
    }
}

impl Descriptor {
    /// Which file it is: two with the same are the same trace file (R21).
    pub fn id(&self) -> FileId {
        self.id
    }

    /// True for what keeps what is written: a regular file, or a disk.
    pub(super) fn is_file(&self) -> bool {
        self.how == How::File
    }

    /// True for a character device: what goes into it does not stay there, so each user's is a file of its own.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// Its name as /proc shows it, without control characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes some of these records.
    ///
    /// # Errors
    /// EAGAIN where it takes none now; else those of write(2) or send(2).
    pub(super) fn write(&self, records: &[u8]) -> nix::Result<usize> {
        let unwaiting = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match self.how {
            How::File | How::Unwaiting => write(&self.fd, records),
            How::Polled => match self.wait(Duration::ZERO) {
                true => write(&self.fd, &records[..records.len().min(PIPE_BUF)]),
                false => Err(Errno::EAGAIN),
            },
            How::Socket => send(self.fd.as_raw_fd(), records, unwaiting),
            How::Messages => {
                let len = record::decode_header(records).ok().flatten().map(|h| record::HEADER_LEN + h.len);
                send(self.fd.as_raw_fd(), &records[..len.unwrap_or(records.len())], unwaiting)
            }
        }
    }

    /// Waits until it may take something, or its reader is gone; false where neither came in time.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        poll(&mut fds, timeout).is_ok_and(|n| n > 0)
    }

    /// The file ends with `part` bytes of a record that cannot be finished: they are cut off, if it still ends there.
    pub(super) fn take_back(&self, part: usize) {
        if part == 0 || self.how != How::File {
            return;
        }
        let part = part as i64;
        let (Ok(at), Ok(stat)) = (lseek(&self.fd, 0, Whence::SeekCur), fstat(&self.fd)) else { return };
        if at == stat.st_size && ftruncate(&self.fd, at - part).is_ok() {
            let _ = lseek(&self.fd, -part, Whence::SeekCur);
        }
    }
}
