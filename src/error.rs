//! The one error type and the one table of errnos (docs/ktracefs.md, "Errors").

use std::borrow::Cow;
use std::fmt;

/// Anything that can go wrong with a request. [`Error::errno`] is what the file operation returns; `Display` is the
/// reason in words that `error_log` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// EINVAL: the command is not in the grammar. `at` is the byte range of the offending word in the command.
    Invalid {
        /// What is wrong, quoting the offending text.
        what: String,
        /// Where: byte offset and length in the command's line.
        at: Option<(usize, usize)>,
    },
    /// ESRCH: the process is gone, or its number belongs to another one now.
    Gone {
        /// The process looked for.
        pid: i32,
    },
    /// EPERM: the caller may not.
    Denied {
        /// The process that was to be traced.
        pid: i32,
        /// Why not.
        why: Cow<'static, str>,
    },
    /// EBUSY: somebody or something else holds it.
    Busy {
        /// The process concerned.
        pid: i32,
        /// By whom, or by what.
        why: Cow<'static, str>,
    },
    /// EBADF: a descriptor that cannot be written.
    BadFd {
        /// The descriptor in the caller.
        fd: i32,
    },
    /// EACCES: a file that cannot serve as a trace file (R26), or a sink of another owner.
    Access {
        /// Why.
        why: Cow<'static, str>,
    },
    /// EOPNOTSUPP: this backend cannot give that.
    Unsupported {
        /// What was asked for, and of whom.
        what: Cow<'static, str>,
    },
    /// ENOSPC: the daemon's memory limit, or a record that is too long.
    NoSpace {
        /// What has no room.
        what: Cow<'static, str>,
    },
    /// A system call failed in a way that has no meaning of its own here.
    Sys {
        /// The operation.
        op: &'static str,
        /// The process it was about, 0 for none.
        pid: i32,
        /// The errno.
        errno: i32,
    },
}

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The errno a file operation returns for this, positive.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Invalid { .. } => libc::EINVAL,
            Error::Gone { .. } => libc::ESRCH,
            Error::Denied { .. } => libc::EPERM,
            Error::Busy { .. } => libc::EBUSY,
            Error::BadFd { .. } => libc::EBADF,
            Error::Access { .. } => libc::EACCES,
            Error::Unsupported { .. } => libc::EOPNOTSUPP,
            Error::NoSpace { .. } => libc::ENOSPC,
            Error::Sys { errno, .. } => *errno,
        }
    }

    /// An EINVAL without a place.
    pub fn invalid(what: impl Into<String>) -> Error {
        Error::Invalid { what: what.into(), at: None }
    }

    /// A failed system call; ESRCH becomes [`Error::Gone`], the one place where death is understood.
    pub fn sys(op: &'static str, pid: i32, errno: nix::errno::Errno) -> Error {
        match errno {
            nix::errno::Errno::ESRCH => Error::Gone { pid },
            _ => Error::Sys { op, pid, errno: errno as i32 },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid { what, .. } => write!(f, "{what}"),
            Error::Gone { pid } => write!(f, "process {pid} is gone"),
            Error::Denied { pid, why } => write!(f, "process {pid}: {why}"),
            Error::Busy { pid, why } => write!(f, "process {pid}: {why}"),
            Error::BadFd { fd } => write!(f, "descriptor {fd} is not open for writing"),
            Error::Access { why } => write!(f, "{why}"),
            Error::Unsupported { what } => write!(f, "{what}"),
            Error::NoSpace { what } => write!(f, "{what}"),
            Error::Sys { op, pid: 0, errno } => {
                write!(f, "{op}: {}", nix::errno::Errno::from_raw(*errno).desc())
            }
            Error::Sys { op, pid, errno } => {
                write!(f, "{op}, process {pid}: {}", nix::errno::Errno::from_raw(*errno).desc())
            }
        }
    }
}

impl std::error::Error for Error {}
