//! fuser's requests, translated: each asks the tree or the streams, and replies.
//!
//! Stream files are opened here; their reads, polls and releases never come this far ([`crate::channel`]).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use ktrace::cred::Caller;
use nix::errno::Errno;

use crate::fs::{Attr, Entry, Fs, Kind, Opened, Result};
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
    work: Work,
    write_max: u32,
}

impl Fuse {
    /// `write_max`: most bytes of one write request.
    pub(crate) fn new(fs: Arc<Fs>, streams: Arc<Streams>, write_max: u32) -> Fuse {
        Fuse { fs, streams, work: Work::new(), write_max }
    }

    fn attr(&self, attr: Attr) -> FileAttr {
        let time = self.fs.mounted;
        FileAttr {
            ino: INodeNo(attr.ino),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: kind(attr.kind),
            perm: attr.mode,
            nlink: if attr.kind == Kind::Dir { 2 } else { 1 },
            uid: attr.uid,
            gid: attr.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
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
refuse!(ReplyAttr ReplyCreate ReplyData ReplyDirectory ReplyEmpty ReplyEntry ReplyOpen ReplyWrite);

/// The one place where an operation's result becomes its answer. A fault of ours is EIO, and the mount lives on.
fn answer<R: Refuse, T>(reply: R, ask: impl FnOnce() -> Result<T>, grant: impl FnOnce(R, T)) {
    let asked = catch_unwind(AssertUnwindSafe(ask)).unwrap_or(Err(Errno::EIO));
    match asked {
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

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer(
            reply,
            || self.fs.lookup(parent.0, name.as_bytes()),
            |reply, attr| {
                reply.entry_with_ttls(&attr.lasts, &attr.name_lasts, &self.attr(attr), Generation(0));
            },
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        answer(reply, || self.fs.attr(ino.0), |reply, attr| reply.attr(&attr.lasts, &self.attr(attr)));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Truncation is what every shell does before it writes; the rest follows the process.
        let changes = mode.is_some() || uid.is_some() || gid.is_some();
        let ask = || if changes { Err(Errno::EPERM) } else { self.fs.attr(ino.0) };
        answer(reply, ask, |reply, attr| reply.attr(&attr.lasts, &self.attr(attr)));
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        answer(reply, || self.fs.readlink(&caller(req), ino.0), |reply, to| reply.data(to.as_bytes()));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer(
            reply,
            || self.fs.open(&caller(req), ino.0, flags.0),
            |reply, opened| match opened {
                Opened::Plain(fh) => {
                    reply.opened(FileHandle(fh), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH)
                }
                Opened::Stream(stream) => {
                    let flags =
                        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_STREAM | FopenFlags::FOPEN_NOFLUSH;
                    reply.opened(FileHandle(self.streams.add(stream)), flags);
                }
            },
        );
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

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if !self.work.has_room() {
            return reply.error(fuser::Errno::EAGAIN);
        }
        let (fs, caller, data) = (Arc::clone(&self.fs), caller(req), data.to_vec());
        self.work.run(move || {
            answer(reply, || fs.write(&caller, fh.0, &data), |reply, len| reply.written(len as u32));
        });
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // The kernel does not ask again.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(fh.0);
        reply.ok();
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
        let listed = catch_unwind(AssertUnwindSafe(|| self.fs.readdir(fh.0, offset, add)));
        answer(reply, || listed.unwrap_or(Err(Errno::EIO)), |reply, ()| reply.ok());
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
