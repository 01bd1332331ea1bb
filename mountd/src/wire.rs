//! The messages of the FUSE protocol that the channel understands itself (linux/fuse.h), and its answers ([`reply`]):
//! everything else passes through unread.
//!
//! Numbers are in the byte order of the machine.

pub(crate) mod reply;

/// Set in the handle of every stream file: its reads and polls stay in the channel.
pub(crate) const STREAM: u64 = 1 << 63;

/// Length of a request's header in bytes.
pub(crate) const IN_HEADER: usize = 40;
/// Length of a reply's header in bytes.
pub(crate) const OUT_HEADER: usize = 16;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const POLL: u32 = 40;
const BATCH_FORGET: u32 = 42;

/// Lengths of a WRITE's fixed part (`fuse_write_in`) and of one of those that a BATCH_FORGET names (`fuse_forget_one`).
const WRITE_IN: usize = 40;
const FORGET_ONE: usize = 16;
/// Bytes from the start of an INIT reply to its `max_pages`, and the length of the reply.
const MAX_PAGES: usize = OUT_HEADER + 28;
const INIT_REPLY: usize = OUT_HEADER + 64;
/// `FATTR_MODE`, `FATTR_UID` and `FATTR_GID`.
const ATTR_MODE_OR_IDS: u32 = 7;
/// `FUSE_POLL_SCHEDULE_NOTIFY`.
const SCHEDULE_NOTIFY: u32 = 1;

/// What a request asks of the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request<'a> {
    /// Read from a stream file.
    Read(Read),
    /// poll(2) of a stream file.
    Poll {
        /// Identifies the request.
        unique: u64,
        /// The open file.
        fh: u64,
        /// What a notification names; `None` where none is wanted.
        notify: Option<u64>,
    },
    /// The last descriptor of a file was closed.
    Release {
        /// Identifies the request.
        unique: u64,
        /// The open file.
        fh: u64,
    },
    /// What concerns names and files that are no streams.
    File(Asker, FileRequest<'a>),
    /// The caller of a request got a signal, or was stopped by a tracer.
    Interrupt {
        /// Which request.
        of: u64,
    },
    /// Somebody else's.
    Other,
}

/// Who asks, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asker {
    /// Identifies the request.
    pub(crate) unique: u64,
    /// Inode number.
    pub(crate) ino: u64,
    /// File system uid.
    pub(crate) uid: u32,
    /// File system gid.
    pub(crate) gid: u32,
    /// The thread, 0 where it cannot be seen.
    pub(crate) tid: i32,
}

/// What `echo ... > ctl` needs, and stat(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileRequest<'a> {
    /// A name in a directory.
    Lookup(&'a [u8]),
    /// The kernel has forgotten a number so many times. Nobody waits for an answer.
    Forget(u64),
    /// The same of many numbers.
    ForgetMany(Forgotten<'a>),
    /// What stat(2) says.
    Getattr,
    /// A change of it: of the mode or the owner, or of something else.
    Setattr {
        /// Of the mode or the owner.
        mode_or_ids: bool,
    },
    /// open(2), with its flags.
    Open(i32),
    /// write(2).
    Write {
        /// The open file.
        fh: u64,
        /// What is written.
        data: &'a [u8],
    },
}

/// Inode numbers that the kernel has forgotten, and how many times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forgotten<'a>(&'a [u8]);

impl Forgotten<'_> {
    /// Number and times.
    pub(crate) fn all(self) -> impl Iterator<Item = (u64, u64)> {
        self.0.chunks_exact(FORGET_ONE).filter_map(|one| Some((u64_at(one, 0)?, u64_at(one, 8)?)))
    }
}

/// A read of a stream file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    /// Identifies the request.
    pub(crate) unique: u64,
    /// The open file.
    pub(crate) fh: u64,
    /// Room in the caller's buffer, bytes.
    pub(crate) size: usize,
    /// The thread that reads, 0 where it cannot be seen.
    pub(crate) tid: i32,
    /// O_NONBLOCK, as it is now.
    pub(crate) nonblock: bool,
}

impl Request<'_> {
    /// Reads what the kernel sent; `None` where it is shorter than it must be.
    pub(crate) fn parse(message: &[u8]) -> Option<Request<'_>> {
        let opcode = u32_at(message, 4)?;
        let unique = u64_at(message, 8)?;
        let tid = u32_at(message, 32)? as i32;
        let asker = Asker {
            unique,
            ino: u64_at(message, 16)?,
            uid: u32_at(message, 24)?,
            gid: u32_at(message, 28)?,
            tid,
        };
        let body = message.get(IN_HEADER..)?;
        let first = || u64_at(body, 0);
        let file = |it| Request::File(asker, it);
        Some(match opcode {
            INTERRUPT => Request::Interrupt { of: first()? },
            RELEASE => Request::Release { unique, fh: first()? },
            READ if first()? & STREAM != 0 => Request::Read(Read {
                unique,
                fh: first()?,
                size: u32_at(body, 16)? as usize,
                tid,
                nonblock: u32_at(body, 32)? & libc::O_NONBLOCK as u32 != 0,
            }),
            POLL if first()? & STREAM != 0 => Request::Poll {
                unique,
                fh: first()?,
                notify: (u32_at(body, 16)? & SCHEDULE_NOTIFY != 0).then_some(u64_at(body, 8)?),
            },
            LOOKUP => file(FileRequest::Lookup(body.strip_suffix(&[0])?)),
            FORGET => file(FileRequest::Forget(first()?)),
            BATCH_FORGET => {
                let len = (u32_at(body, 0)? as usize).checked_mul(FORGET_ONE)?;
                file(FileRequest::ForgetMany(Forgotten(body.get(8..)?.get(..len)?)))
            }
            GETATTR => file(FileRequest::Getattr),
            SETATTR => file(FileRequest::Setattr { mode_or_ids: u32_at(body, 0)? & ATTR_MODE_OR_IDS != 0 }),
            OPEN => file(FileRequest::Open(u32_at(body, 0)? as i32)),
            WRITE => {
                let len = u32_at(body, 16)? as usize;
                file(FileRequest::Write { fh: first()?, data: body.get(WRITE_IN..)?.get(..len)? })
            }
            _ => Request::Other,
        })
    }
}

/// Identifies a request that is to be answered, whatever else it says; `None` where it says too little, or the kernel waits for
/// nothing.
pub(crate) fn wants_answer(message: &[u8]) -> Option<u64> {
    match u32_at(message, 4)? {
        INTERRUPT | FORGET | BATCH_FORGET => None,
        _ => u64_at(message, 8),
    }
}

/// Raises the pages of one request in fuser's answer to INIT: that much fits one read. What is no such answer stays.
pub(crate) fn widen_init_reply(message: &mut [u8], pages: u16) {
    if message.len() >= INIT_REPLY && u32_at(message, 4) == Some(0) {
        message[MAX_PAGES..MAX_PAGES + 2].copy_from_slice(&pages.to_ne_bytes());
    }
}

/// The request that ends fuser's session, which the kernel itself sends to none but block device mounts.
pub(crate) fn destroy() -> [u8; IN_HEADER] {
    let mut message = [0; IN_HEADER];
    message[..4].copy_from_slice(&(IN_HEADER as u32).to_ne_bytes());
    message[4..8].copy_from_slice(&DESTROY.to_ne_bytes());
    message
}

/// Whether this is the answer to [`destroy`], which the kernel did not ask for.
pub(crate) fn answers_destroy(reply: &[u8]) -> bool {
    u64_at(reply, 8) == Some(0) && u32_at(reply, 4) == Some(0)
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    b.get(at..)?.first_chunk().map(|b| u64::from_ne_bytes(*b))
}

#[cfg(test)]
pub(crate) mod tests;
