//! fuser's requests, translated: each asks the tree or the streams, and replies.
//!
//! Those of [`crate::files`] and what concerns an open stream never come this far ([`crate::channel`]).

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{
    FileHandle, FileType, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyXattr, Request,
};
use ktrace::cred::Caller;

use crate::fs::{Entry, Fs, Kind, Result, guarded};
use crate::parked::Streams;
use crate::work::Work;

/// Most bytes of a listing's answer, so that it fits a socket's buffer.
const LISTING_MAX: usize = 64 << 10;

/// How long an fsync waits for a file that takes nothing.
const SYNC_MAX: Duration = Duration::from_secs(10);

/// The file system as fuser sees it.
pub(crate) struct Fuse {
    fs: Arc<Fs>,
    streams: Arc<Streams>,
    work: Arc<Work>,
    write_max: u32,
}

impl Fuse {
    /// `write_max`: most bytes of one write request.
    pub(crate) fn new(fs: Arc<Fs>, streams: Arc<Streams>, work: Arc<Work>, write_max: u32) -> Fuse {
        Fuse { fs, streams, work, write_max }
    }
}

/// Whatever has to be told an errno.
trait Refuse {
    fn refuse(self, err: fuser::Errno);
}

macro_rules! refuse {
    ($($reply:ty)*) => { $(impl Refuse for $reply {
        fn refuse(self, err: fuser::Errno) {
            self.error(err);
        }
    })* };
}
refuse!(ReplyData ReplyDirectory ReplyOpen);

/// The one place where an operation's result becomes its answer. A fault of ours is EIO, and the mount lives on.
fn answer<R: Refuse, T>(reply: R, ask: impl FnOnce() -> Result<T>, grant: impl FnOnce(R, T)) {
    match guarded(ask) {
        Ok(value) => grant(reply, value),
        Err(errno) => reply.refuse(fuser::Errno::from_i32(errno as i32)),
    }
}

fn caller(req: &Request) -> Caller {
    Caller::new(req.uid(), req.gid(), req.pid() as i32)
}

fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Link => FileType::Symlink,
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // One request less for each `echo ... > ctl`; a kernel without it sends setattr, which does nothing.
        let _ = config.add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC);
        config.set_max_write(self.write_max).map_err(|_| io::Error::other("max_write"))?;
        Ok(())
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        answer(reply, || self.fs.readlink(&caller(req), ino.0), |reply, to| reply.data(to.as_bytes()));
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let ask = || self.fs.read(&caller(req), fh.0, offset, size as usize, <[u8]>::to_vec);
        answer(reply, ask, |reply, bytes| reply.data(&bytes));
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // The kernel does not ask again.
        reply.error(fuser::Errno::ENOSYS);
    }

    /// Of `trace` and `text`: returns when what was recorded is in the file that `fd=` named.
    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let Some(sink) = self.streams.sink(fh.0) else { return reply.ok() };
        if !self.work.has_room() {
            return reply.error(fuser::Errno::EAGAIN);
        }
        let fs = Arc::clone(&self.fs);
        self.work.run(move || {
            fs.ktrace().catch_up(&sink);
            match sink.wait_written(Instant::now() + SYNC_MAX) {
                true => reply.ok(),
                false => reply.error(fuser::Errno::EAGAIN),
            }
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer(
            reply,
            || self.fs.opendir(ino.0),
            |reply, fh| {
                reply.opened(FileHandle(fh), FopenFlags::empty());
            },
        );
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut room = LISTING_MAX;
        let add = |next: u64, entry: &Entry| {
            // A directory entry's head is 24 bytes, its name padded to 8.
            let len = 24 + entry.name.len().next_multiple_of(8);
            let fits = len <= room && !reply.add(INodeNo(entry.ino), next, kind(entry.kind), &entry.name);
            room = room.saturating_sub(len);
            fits
        };
        let listed = guarded(|| self.fs.readdir(fh.0, offset, add));
        answer(reply, || listed, |reply, ()| reply.ok());
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.release(fh.0);
        reply.ok();
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Texts and commands never wait to be ready.
        let ready =
            PollEvents::POLLIN | PollEvents::POLLRDNORM | PollEvents::POLLOUT | PollEvents::POLLWRNORM;
        reply.poll(events & ready);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(fuser::Errno::EACCES);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(fuser::Errno::EACCES);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(fuser::Errno::EPERM);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(fuser::Errno::EPERM);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(fuser::Errno::EPERM);
    }

    fn symlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(fuser::Errno::EPERM);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::EPERM);
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _newparent: INodeNo, _newname: &OsStr, reply: ReplyEntry) {
        reply.error(fuser::Errno::EPERM);
    }
}
