//! The tree as plain Rust: names, attributes and texts, with no type of fuser's.
//!
//! Decides nothing about tracing: it finds which process a name means, checks that it is still that one (invariant 6),
//! and asks the library.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ktrace::control::Ktrace;
use ktrace::cred::{Caller, Creds};
use ktrace::ctl;
use ktrace::error::Error;
use ktrace::proc::{self, Proc, ProcId};
use nix::errno::Errno;
use parking_lot::Mutex;

use crate::error_log::ErrorLog;
use crate::inode::{Inodes, Node, PID_FILES, PidFile, ROOT_FILES};
use crate::stat;
use crate::text::Stream;

/// A result whose error is what the file operation returns.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Asks; a fault of ours is EIO, and the mount lives on.
///
/// # Errors
/// Those of what is asked.
pub(crate) fn guarded<T>(ask: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(Err(Errno::EIO))
}

/// Most bytes of one answer.
pub(crate) const ANSWER_MAX: usize = 64 << 10;

/// For what never changes.
const FOREVER: Duration = Duration::from_secs(3600);
/// For what matters to nobody but whoever looks at it.
const SHOWN: Duration = Duration::from_secs(1);

/// What a node is, for stat(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attr {
    /// Inode number.
    pub(crate) ino: u64,
    /// File, directory or link.
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u16,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// How long its name surely means it.
    pub(crate) name_lasts: Duration,
    /// How long all the rest stays as it is.
    pub(crate) lasts: Duration,
}

/// Kinds of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
}

/// What an open gives.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A text that is made when it is read, or a file to write to: a handle of this tree.
    Plain(u64),
    /// `trace` or `text`.
    Stream(Stream),
}

/// One entry of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Inode number, or a stand-in where the kernel was told none yet.
    pub(crate) ino: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: String,
}

/// The tree.
pub(crate) struct Fs {
    ktrace: Arc<Ktrace>,
    /// Why there is no eBPF, where it was looked for.
    no_ebpf: Option<String>,
    inodes: Mutex<Inodes>,
    handles: Mutex<HashMap<u64, Arc<Mutex<Handle>>>>,
    next: AtomicU64,
    errors: ErrorLog,
    /// The time of every file.
    pub(crate) mounted: SystemTime,
}

#[derive(Debug)]
enum Handle {
    /// Who has opened it, and the text as it was when its start was last read.
    Text(Node, Caller, Option<String>),
    /// The entries as they were when the start of the directory was last read.
    Dir(Node, Option<Vec<Entry>>),
}

impl Fs {
    /// The tree of this daemon.
    pub(crate) fn new(ktrace: Arc<Ktrace>, no_ebpf: Option<String>) -> Fs {
        Fs {
            ktrace,
            no_ebpf,
            inodes: Mutex::default(),
            handles: Mutex::default(),
            next: AtomicU64::new(1),
            errors: ErrorLog::default(),
            mounted: SystemTime::now(),
        }
    }

    /// The facility behind the files.
    pub(crate) fn ktrace(&self) -> &Ktrace {
        &self.ktrace
    }

    /// Finds a name in a directory. The kernel is told the number: [`Fs::forget`] takes it back.
    ///
    /// # Errors
    /// ENOENT; ENOTDIR.
    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr> {
        let node = match self.node(parent)? {
            Node::Root => self.in_root(name)?,
            Node::Dir(id) => {
                let file = PID_FILES.iter().find(|(n, _)| n.as_bytes() == name);
                let (_, file) = file.ok_or(Errno::ENOENT)?;
                self.exists(id).map_err(|_| Errno::ENOENT)?;
                Node::File(id, *file)
            }
            _ => return Err(Errno::ENOTDIR),
        };
        let ino = self.inodes.lock().remember(node);
        Ok(self.attr_of(ino, node))
    }

    fn in_root(&self, name: &[u8]) -> Result<Node> {
        if let Some((_, node)) = ROOT_FILES.iter().find(|(n, _)| n.as_bytes() == name) {
            return Ok(*node);
        }
        let pid = pid_of_name(name).ok_or(Errno::ENOENT)?;
        let id = match ProcId::of(pid) {
            Ok(id) => id,
            Err(_) => self.ktrace.lingers(pid).ok_or(Errno::ENOENT)?,
        };
        Ok(Node::Dir(id))
    }

    /// The kernel has forgotten a number.
    pub(crate) fn forget(&self, ino: u64, lookups: u64) {
        self.inodes.lock().forget(ino, lookups);
    }

    /// What stat(2) says.
    ///
    /// # Errors
    /// ESRCH for what belongs to a process that is gone.
    pub(crate) fn attr(&self, ino: u64) -> Result<Attr> {
        let node = self.node(ino)?;
        match node {
            // Whoever has it open reads on to its end. By its name it is found only while it is there.
            Node::File(_, PidFile::Trace | PidFile::Text) => {}
            Node::Dir(id) | Node::File(id, _) => self.exists(id)?,
            _ => {}
        }
        Ok(self.attr_of(ino, node))
    }

    fn attr_of(&self, ino: u64, node: Node) -> Attr {
        let (kind, mode) = match node {
            Node::Root => (Kind::Dir, 0o555),
            Node::Readme | Node::Stat | Node::ErrorLog => (Kind::File, 0o444),
            Node::Ctl => (Kind::File, 0o222),
            Node::SelfLink => (Kind::Link, 0o777),
            Node::Dir(_) => (Kind::Dir, 0o555),
            Node::File(..) => (Kind::File, 0o600),
        };
        let (uid, gid) = match node {
            // A process writes its own records whoever traces it (R27).
            Node::File(id, PidFile::User) => Creds::of(id.pid).map_or((0, 0), |creds| creds.owner()),
            Node::Dir(id) | Node::File(id, _) => self.ktrace.owner(id),
            _ => (0, 0),
        };
        let (name_lasts, lasts) = match node {
            // A process id may mean another process the moment after. Whom its directory belongs to is only shown.
            Node::Dir(_) => (Duration::ZERO, SHOWN),
            // The owner, who alone may open it, changes with the ids of the process.
            Node::File(..) => (FOREVER, Duration::ZERO),
            // They never change, but a dead mount must not seem to live.
            _ => (SHOWN, SHOWN),
        };
        Attr { ino, kind, mode, uid, gid, name_lasts, lasts }
    }

    /// Where `self` leads: the caller's process.
    ///
    /// # Errors
    /// ENOENT where it cannot be seen from here; EINVAL for what is no link.
    pub(crate) fn readlink(&self, caller: &Caller, ino: u64) -> Result<String> {
        match self.node(ino)? {
            Node::SelfLink if caller.tid > 0 => {
                proc::tgid(caller.tid).map(|pid| pid.to_string()).map_err(|_| Errno::ENOENT)
            }
            Node::SelfLink => Err(Errno::ENOENT),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether this is `trace` or `text`. To open one may take as long as the process is in an execve(2): who may is
    /// asked of its memory.
    pub(crate) fn is_stream(&self, ino: u64) -> bool {
        matches!(self.node(ino), Ok(Node::File(_, PidFile::Trace | PidFile::Text)))
    }

    /// Opens a file.
    ///
    /// # Errors
    /// EISDIR; EACCES for writing where only reading makes sense; ESRCH; those of [`Ktrace::open`].
    pub(crate) fn open(&self, caller: &Caller, ino: u64, flags: i32) -> Result<Opened> {
        let node = self.node(ino)?;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        match node {
            Node::Root | Node::Dir(_) => return Err(Errno::EISDIR),
            Node::SelfLink => return Err(Errno::ELOOP),
            Node::Ctl | Node::File(_, PidFile::Ctl | PidFile::User) => {}
            _ if writes => return Err(Errno::EACCES),
            _ => {}
        }
        let opener = || if writes { caller.clone().looked_at() } else { caller.clone() };
        match node {
            Node::File(id, file @ (PidFile::Trace | PidFile::Text)) => {
                self.exists(id)?;
                let trace = self.ktrace.open(caller, id).map_err(errno)?;
                Ok(Opened::Stream(match file {
                    PidFile::Text => Stream::text(trace),
                    _ => Stream::Trace(trace),
                }))
            }
            Node::File(id, _) => {
                self.exists(id)?;
                Ok(Opened::Plain(self.add(Handle::Text(node, opener(), None))))
            }
            _ => Ok(Opened::Plain(self.add(Handle::Text(node, opener(), None)))),
        }
    }

    /// Closes what [`Fs::open`] or [`Fs::opendir`] gave.
    pub(crate) fn release(&self, fh: u64) {
        self.handles.lock().remove(&fh);
    }

    /// Reads a text. It is made anew when its start is read; `read` gets the bytes.
    ///
    /// # Errors
    /// EBADF; ESRCH.
    pub(crate) fn read<T>(
        &self,
        caller: &Caller,
        fh: u64,
        offset: u64,
        size: usize,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let handle = self.handle(fh)?;
        let mut handle = handle.lock();
        let Handle::Text(node, _, text) = &mut *handle else { return Err(Errno::EISDIR) };
        if let Node::File(id, _) = node {
            self.exists(*id)?;
        }
        if offset == 0 || text.is_none() {
            *text = Some(self.text_of(caller, *node)?);
        }
        let bytes = text.as_deref().unwrap_or_default().as_bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = bytes.len().min(from + size.min(ANSWER_MAX));
        Ok(read(&bytes[from..to]))
    }

    fn text_of(&self, caller: &Caller, node: Node) -> Result<String> {
        match node {
            Node::Readme => Ok(include_str!("README.txt").to_owned()),
            Node::Stat => {
                let no_ebpf = self.ktrace.fault().or_else(|| self.no_ebpf.clone());
                Ok(stat::text(&self.ktrace.totals(), &self.ktrace.backends(), no_ebpf.as_deref()))
            }
            Node::ErrorLog => Ok(self.errors.text(caller.uid)),
            Node::File(id, PidFile::Ctl) => self.ktrace.state(id).map_err(errno),
            Node::File(id, PidFile::Stat) => self.ktrace.proc_stat(id).map_err(errno),
            _ => Ok(String::new()),
        }
    }

    /// Writes: commands to a `ctl`, a record to `user`. May wait, within a bound. Gives how much was taken.
    ///
    /// # Errors
    /// EBADF; ESRCH also through a handle that was opened while the process lived; those of the command.
    pub(crate) fn write(&self, caller: &Caller, fh: u64, data: &[u8]) -> Result<usize> {
        let (node, opener) = match &*self.handle(fh)?.lock() {
            Handle::Text(node, opener, _) => (*node, opener.clone()),
            Handle::Dir(..) => return Err(Errno::EISDIR),
        };
        match node {
            Node::Ctl => self.commands(caller, &opener, None, data),
            Node::File(id, PidFile::Ctl) => self.commands(caller, &opener, Some(id), data),
            Node::File(id, PidFile::User) => {
                self.ktrace.user(caller, id, data).map_err(errno)?;
                Ok(data.len())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// To be said by the thread that has carried out a write, when the caller has its answer.
    pub(crate) fn answered(&self, caller: &Caller) {
        self.ktrace.answered(caller);
    }

    /// Carries out each line. A failure later than in the first ends the write before its line, so that the writer
    /// writes that line again and gets its errno.
    fn commands(
        &self,
        caller: &Caller,
        opener: &Caller,
        target: Option<ProcId>,
        data: &[u8],
    ) -> Result<usize> {
        let mut done = 0;
        let through = caller.through(opener);
        for line in data.split_inclusive(|b| *b == b'\n') {
            if let Err(err) = self.command(caller, through.as_ref(), target, line) {
                return if done == 0 { Err(errno(err)) } else { Ok(done) };
            }
            done += line.len();
        }
        Ok(done)
    }

    /// `through`: what the caller is with this open file.
    fn command(
        &self,
        caller: &Caller,
        through: std::result::Result<&Caller, &Error>,
        target: Option<ProcId>,
        line: &[u8],
    ) -> ktrace::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(line);
        let done = match std::str::from_utf8(line) {
            Ok(line) => ctl::parse(line).and_then(|command| {
                let caller = through.map_err(Clone::clone)?;
                self.ktrace.control(caller, target, &command)
            }),
            Err(err) => Err(Error::Invalid {
                what: "the command is not UTF-8".to_owned(),
                at: Some((err.valid_up_to(), err.error_len().unwrap_or(1))),
            }),
        };
        done.inspect_err(|err| {
            let file = target.map_or("ctl".to_owned(), |id| format!("{}/ctl", id.pid));
            self.errors.note(caller.uid, &file, &text, err);
        })
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// ENOTDIR; ESRCH.
    pub(crate) fn opendir(&self, ino: u64) -> Result<u64> {
        let node = self.node(ino)?;
        match node {
            Node::Root => {}
            Node::Dir(id) => self.exists(id)?,
            _ => return Err(Errno::ENOTDIR),
        }
        Ok(self.add(Handle::Dir(node, None)))
    }

    /// Gives the entries from number `offset` on to `take`, until it returns false. They are listed anew when the start
    /// is read.
    ///
    /// # Errors
    /// EBADF; ENOTDIR.
    pub(crate) fn readdir(
        &self,
        fh: u64,
        offset: u64,
        mut take: impl FnMut(u64, &Entry) -> bool,
    ) -> Result<()> {
        let handle = self.handle(fh)?;
        let mut handle = handle.lock();
        let Handle::Dir(node, entries) = &mut *handle else { return Err(Errno::ENOTDIR) };
        if offset == 0 || entries.is_none() {
            *entries = Some(self.list(*node));
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (entry, next) in entries.iter().flatten().skip(from).zip(offset + 1..) {
            if !take(next, entry) {
                break;
            }
        }
        Ok(())
    }

    fn list(&self, node: Node) -> Vec<Entry> {
        let dots = [".", ".."].map(|name| (name.to_owned(), node, Kind::Dir));
        let inodes = self.inodes.lock();
        let entry = |(name, node, kind): (String, Node, Kind)| Entry { ino: inodes.number(node), kind, name };
        let mut entries: Vec<Entry> = dots.into_iter().map(entry).collect();
        match node {
            Node::Dir(id) => {
                let files = PID_FILES.iter().map(|(n, f)| (n.to_string(), Node::File(id, *f), Kind::File));
                entries.extend(files.map(entry));
            }
            _ => {
                let kind = |node: Node| if node == Node::SelfLink { Kind::Link } else { Kind::File };
                entries.extend(ROOT_FILES.iter().map(|(n, node)| entry((n.to_string(), *node, kind(*node)))));
                drop(inodes);
                // Which process has the number now is asked at the lookup: here it would cost two files for each.
                let pid = |pid: i32| Entry { ino: stand_in(pid), kind: Kind::Dir, name: pid.to_string() };
                entries.extend(self.pids().into_iter().map(pid));
            }
        }
        entries
    }

    /// The living processes, and the dead ones with unread records.
    fn pids(&self) -> Vec<i32> {
        let mut pids = proc::pids().unwrap_or_default();
        pids.sort_unstable();
        // Where the number is a living process's again, the dead one is not to be found by it.
        let lingers = |p: &Arc<Proc>| {
            p.died().is_some() && pids.binary_search(&p.id.pid).is_err() && p.sink().is_some()
        };
        let dead: Vec<i32> =
            self.ktrace.procs().all().iter().filter(|p| lingers(p)).map(|p| p.id.pid).collect();
        pids.extend(dead);
        pids.sort_unstable();
        pids
    }

    fn node(&self, ino: u64) -> Result<Node> {
        self.inodes.lock().node(ino).ok_or(Errno::ESTALE)
    }

    fn add(&self, handle: Handle) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles.lock().insert(fh, Arc::new(Mutex::new(handle)));
        fh
    }

    fn handle(&self, fh: u64) -> Result<Arc<Mutex<Handle>>> {
        self.handles.lock().get(&fh).cloned().ok_or(Errno::EBADF)
    }

    /// That it is still this process, be it a zombie as in /proc, or that its records are still there.
    fn exists(&self, id: ProcId) -> Result<()> {
        match id.is_there() {
            Ok(()) => Ok(()),
            _ if self.ktrace.lingers(id.pid) == Some(id) => Ok(()),
            _ => Err(Errno::ESRCH),
        }
    }
}

fn errno(err: Error) -> Errno {
    Errno::from_raw(err.errno())
}

/// A process id as /proc writes it: no sign, no leading zero.
fn pid_of_name(name: &[u8]) -> Option<i32> {
    let digits = name.iter().all(u8::is_ascii_digit) && name.first() != Some(&b'0');
    std::str::from_utf8(name).ok().filter(|_| digits)?.parse().ok()
}

/// A listing must give some number where the kernel may have been told none: no node's.
fn stand_in(pid: i32) -> u64 {
    1 << 62 | u64::from(pid.unsigned_abs())
}

#[cfg(test)]
mod tests;
