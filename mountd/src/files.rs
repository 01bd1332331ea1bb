//! What `echo "set syscall" > /ktrace/<pid>/ctl` needs, answered where it comes: lookups, attributes, opens and writes.
//! By way of fuser each of them would take two wake-ups more (docs/decisions/own-channel.md).
//!
//! The channel's thread, which serves every reader, must not wait for what is asked about: what may goes to [`Work`].

use std::sync::Arc;

use ktrace::cred::Caller;
use nix::errno::Errno;

use crate::channel::Device;
use crate::fs::{Fs, Opened, Result, guarded};
use crate::parked::Streams;
use crate::wire::reply;
use crate::wire::{Asker, FileRequest};
use crate::work::Work;

/// Answers for the tree. A copy is the same.
#[derive(Clone)]
pub(crate) struct Files {
    device: Arc<Device>,
    fs: Arc<Fs>,
    streams: Arc<Streams>,
    /// For commands.
    commands: Arc<Work>,
    /// For opens of `trace` and `text`: whose commands wait for long keeps nobody's files shut.
    opens: Arc<Work>,
}

impl Files {
    /// Answers go to `device`, streams that are opened to `streams`.
    pub(crate) fn new(device: Arc<Device>, fs: Arc<Fs>, streams: Arc<Streams>, commands: Arc<Work>) -> Files {
        Files { device, fs, streams, commands, opens: Arc::new(Work::new("open")) }
    }

    /// Answers a request, now or by a thread of [`Work`].
    pub(crate) fn ask(&self, asker: &Asker, request: FileRequest<'_>) {
        let &Asker { unique, ino, uid, gid, tid } = asker;
        let caller = || Caller::new(uid, gid, tid);
        match request {
            FileRequest::Lookup(name) => self.answer(unique, || {
                let attr = self.fs.lookup(ino, name)?;
                Ok(reply::entry(unique, &attr, self.fs.mounted))
            }),
            FileRequest::Forget(lookups) => self.fs.forget(ino, lookups),
            FileRequest::ForgetMany(many) => {
                many.all().for_each(|(ino, lookups)| self.fs.forget(ino, lookups))
            }
            FileRequest::Getattr => self.attr(unique, ino),
            // Truncation is what every shell does before it writes; the rest follows the process.
            FileRequest::Setattr { mode_or_ids: false } => self.attr(unique, ino),
            FileRequest::Setattr { mode_or_ids: true } => self.device.reply(unique, libc::EPERM),
            FileRequest::Open(flags) if self.fs.is_stream(ino) => {
                let caller = caller();
                self.later(&self.opens, unique, move |files| {
                    files.answer(unique, || files.open(unique, &caller, ino, flags));
                });
            }
            FileRequest::Open(flags) => self.answer(unique, || self.open(unique, &caller(), ino, flags)),
            FileRequest::Write { fh, data } => {
                let (caller, data) = (caller(), data.to_vec());
                self.later(&self.commands, unique, move |files| {
                    let write = || files.fs.write(&caller, fh, &data).map(|len| reply::written(unique, len));
                    files.answer(unique, write);
                    files.fs.answered(&caller);
                });
            }
        }
    }

    /// The last descriptor of a file that is no stream was closed.
    pub(crate) fn release(&self, fh: u64) {
        self.fs.release(fh);
    }

    fn attr(&self, unique: u64, ino: u64) {
        self.answer(unique, || Ok(reply::attr(unique, &self.fs.attr(ino)?, self.fs.mounted)));
    }

    fn open(&self, unique: u64, caller: &Caller, ino: u64, flags: i32) -> Result<Vec<u8>> {
        Ok(match self.fs.open(caller, ino, flags)? {
            Opened::Plain(fh) => reply::opened(unique, fh, false),
            Opened::Stream(stream) => reply::opened(unique, self.streams.add(stream), true),
        })
    }

    /// The one place where an operation's result becomes its answer. A fault of ours is EIO, and the mount lives on.
    fn answer(&self, unique: u64, ask: impl FnOnce() -> Result<Vec<u8>>) {
        match guarded(ask) {
            Ok(message) => self.device.send(&message),
            Err(errno) => self.device.reply(unique, errno as i32),
        }
    }

    /// Has another thread answer; EAGAIN where too many wait for one already.
    fn later(&self, work: &Work, unique: u64, answer: impl FnOnce(&Files) + Send + 'static) {
        let files = self.clone();
        if !work.run(move || answer(&files)) {
            self.device.reply(unique, Errno::EAGAIN as i32);
        }
    }
}
