//! Open stream files, and the reads and polls of them that wait.
//!
//! The channel brings requests, the pump ([`crate::pump`]) completes those that had to wait. A waiting read is an entry
//! here and no thread: an INTERRUPT answers it at once, so that every signal ends a waiting reader.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use ktrace::proc::{self, ProcTable};
use ktrace::sink::{Allowance, Held, Read as Got, Sink, Waker};
use parking_lot::Mutex;

use crate::channel::Device;
use crate::pump::Bell;
use crate::text::Stream;
use crate::wire::{OUT_HEADER, Read, STREAM, reply};

const READABLE: u32 = (libc::POLLIN | libc::POLLRDNORM) as u32;
/// Room for an answer of a few records.
const SMALL: usize = 1024;
const HANGUP: u32 = libc::POLLHUP as u32;

/// All open stream files of the mount.
pub(crate) struct Streams {
    me: Weak<Streams>,
    device: Arc<Device>,
    procs: Arc<ProcTable>,
    bell: Arc<Bell>,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    /// Where each waiting read is, by the number of its request.
    waiting: Mutex<HashMap<u64, Arc<Open>>>,
    next: AtomicU64,
    /// What the last answer of [`Streams::serve`] was made in: to get and give back the memory of a large one costs the more, as all
    /// its pages are new.
    spare: Mutex<Vec<u8>>,
    /// Set once: whatever would wait gets EOF.
    closing: AtomicBool,
}

/// One open stream file.
struct Open {
    fh: u64,
    waker: Waker,
    state: Mutex<State>,
}

struct State {
    stream: Stream,
    /// Reads that wait, in the order they came.
    reads: VecDeque<Read>,
    /// What to name when readiness changes: kept from the first poll that asked until the release, for an
    /// edge-triggered epoll asks only once.
    notify: Option<u64>,
    /// Watches the process whose first sink is waited for.
    pidfd: Option<OwnedFd>,
    /// The thread that read last, and its process.
    reader: (i32, i32),
    allowance: Allowance,
    /// Since when it has been found empty, and nothing came yet.
    empty: Option<Instant>,
    /// A read that the thread that appended has answered, and that still stands among those that wait.
    served: Option<u64>,
}

/// What became of a read.
#[derive(PartialEq, Eq)]
enum Made {
    /// It waits.
    Nothing,
    /// An answer without data.
    Refusal,
    /// An answer.
    Answer,
}

impl State {
    /// Something came: for as long as it was waited for, the reader may have more at once.
    fn found(&mut self) {
        if let Some(since) = self.empty.take() {
            self.allowance.waited(since.elapsed());
        }
    }
}

impl Streams {
    /// None open yet.
    pub(crate) fn new(device: Arc<Device>, procs: Arc<ProcTable>, bell: Arc<Bell>) -> Arc<Streams> {
        Arc::new_cyclic(|me| Streams {
            me: Weak::clone(me),
            device,
            procs,
            bell,
            open: Mutex::default(),
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            spare: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// Takes an open stream in; gives the handle that requests name it by.
    pub(crate) fn add(&self, stream: Stream) -> u64 {
        let fh = STREAM | self.next.fetch_add(1, Ordering::Relaxed);
        let state = State {
            stream,
            reads: VecDeque::new(),
            notify: None,
            pidfd: None,
            reader: (0, 0),
            allowance: Allowance::new(Instant::now()),
            empty: None,
            served: None,
        };
        let (bell, me) = (Arc::clone(&self.bell), Weak::clone(&self.me));
        let open = Arc::new_cyclic(|open: &Weak<Open>| {
            let open = Weak::clone(open);
            let serve = move || me.upgrade()?.serve(&*open.upgrade()?);
            let waker: Waker = Arc::new(move |held| {
                if held != Held::Nothing || serve().is_none() {
                    bell.ring(fh);
                }
            });
            Open { fh, waker, state: Mutex::new(state) }
        });
        self.open.lock().insert(fh, open);
        fh
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// A read: answered now, or kept until there is something to answer. `buf` is room to work in.
    pub(crate) fn read(&self, read: Read, buf: &mut Vec<u8>) {
        let Some(open) = self.get(read.fh) else { return self.device.reply(read.unique, libc::EBADF) };
        let mut st = open.state.lock();
        self.forget_served(&mut st);
        if st.empty.is_some() && st.stream.unread() > 0 {
            st.found();
        }
        let mut its_turn = read.nonblock || st.reads.is_empty();
        if its_turn && !read.nonblock && self.gathers(&open, &mut st).is_some() {
            // It looks after the time.
            self.bell.ring(read.fh);
            its_turn = false;
        }
        if !(its_turn && self.answer(&open, &mut st, &read, buf)) {
            st.reads.push_back(read);
            self.waiting.lock().insert(read.unique, Arc::clone(&open));
        }
    }

    /// Whether the reader is to wait until more has gathered, and for how long at most; the pump is called when it is enough.
    fn gathers(&self, open: &Open, st: &mut State) -> Option<Instant> {
        let unread = st.stream.unread();
        let most = st.stream.sink()?.attainable();
        let due = st.allowance.turn(Instant::now(), unread, most)?;
        let waits = !self.closing.load(Ordering::SeqCst)
            && st.stream.arm(Arc::clone(&open.waker), Allowance::enough(most));
        waits.then_some(due)
    }

    /// Answers a read if that is possible now; if not, the pump will hear of it when it is.
    fn answer(&self, open: &Open, st: &mut State, read: &Read, buf: &mut Vec<u8>) -> bool {
        let made = self.make(open, st, read, buf);
        if made == Made::Nothing {
            return false;
        }
        self.device.send(buf);
        // What came while this read emptied the ring is an edge of its own.
        if made == Made::Answer && st.notify.is_some() && !self.arm(open, st) {
            self.notify(st);
        }
        true
    }

    /// Makes the answer to a read in `buf`, if that is possible now.
    fn make(&self, open: &Open, st: &mut State, read: &Read, buf: &mut Vec<u8>) -> Made {
        if st.reader.0 != read.tid {
            st.reader = (read.tid, proc::tgid(read.tid).unwrap_or(0));
        }
        loop {
            buf.clear();
            buf.resize(OUT_HEADER, 0);
            match guarded(|| st.stream.read(read.size, st.reader.1, buf)) {
                Ok(Got::Empty) if self.closing.load(Ordering::SeqCst) => buf.truncate(OUT_HEADER),
                Ok(Got::Empty) => {
                    if (!read.nonblock || st.notify.is_some()) && !self.arm(open, st) {
                        continue;
                    }
                    st.empty.get_or_insert_with(Instant::now);
                    if !read.nonblock {
                        return Made::Nothing;
                    }
                    reply::finish(buf, read.unique, libc::EAGAIN);
                    return Made::Refusal;
                }
                Ok(Got::Data | Got::Eof) => st.empty = None,
                Err(errno) => {
                    buf.truncate(OUT_HEADER);
                    reply::finish(buf, read.unique, errno);
                    return Made::Refusal;
                }
            }
            reply::finish(buf, read.unique, 0);
            st.allowance.answered(Instant::now(), buf.len() - OUT_HEADER);
            return Made::Answer;
        }
    }

    /// Has the pump called when the stream has something; false where it has already.
    fn arm(&self, open: &Open, st: &mut State) -> bool {
        if let Some(proc) = st.stream.waits_for().filter(|_| st.pidfd.is_none()) {
            match proc::pidfd(proc.id.pid) {
                // A pidfd is of whoever has the number now: only then is it looked at whether that is still the one.
                Ok(fd) if proc.id.check().is_ok() && self.bell.watch(&fd, open.fh) => st.pidfd = Some(fd),
                _ => self.procs.exit(&proc),
            }
        }
        st.stream.arm(Arc::clone(&open.waker), 1)
    }

    fn notify(&self, st: &State) {
        if let Some(notify) = st.notify {
            self.device.send(&reply::poll_notification(notify));
        }
    }

    /// poll(2): answered at once; `notify` is what to name when that changes.
    pub(crate) fn poll(&self, unique: u64, fh: u64, notify: Option<u64>) {
        let Some(open) = self.get(fh) else { return self.device.reply(unique, libc::EBADF) };
        let mut st = open.state.lock();
        st.notify = notify.or(st.notify);
        let revents = loop {
            match st.stream.ready() {
                _ if self.closing.load(Ordering::SeqCst) => break READABLE | HANGUP,
                (_, true) => break READABLE | HANGUP,
                (true, _) => {
                    st.found();
                    // A read that follows must not wait.
                    let unread = st.stream.unread();
                    st.allowance.admit(unread);
                    break READABLE;
                }
                (false, false) if st.notify.is_none() || self.arm(&open, &mut st) => {
                    st.empty.get_or_insert_with(Instant::now);
                    break 0;
                }
                (false, false) => {}
            }
        };
        self.device.send(&reply::poll(unique, revents));
    }

    /// The sink of an open stream, once it has one.
    pub(crate) fn sink(&self, fh: u64) -> Option<Arc<Sink>> {
        self.get(fh)?.state.lock().stream.sink()
    }

    /// The caller of a request got a signal. What is no waiting read is left to end by itself.
    pub(crate) fn interrupt(&self, unique: u64) {
        let Some(open) = self.waiting.lock().remove(&unique) else { return };
        let mut st = open.state.lock();
        let before = st.reads.len();
        st.reads.retain(|read| read.unique != unique);
        if st.reads.len() < before {
            self.device.reply(unique, libc::EINTR);
        }
    }

    /// The last descriptor was closed.
    pub(crate) fn release(&self, fh: u64) {
        let open = self.open.lock().remove(&fh);
        if let Some(open) = open {
            self.forget_served(&mut open.state.lock());
        }
        self.bell.ring(Bell::SWEEP);
    }

    /// A record was appended, and this is the thread that did: answers the one reader that waited for nothing else, or tells
    /// who polls, which saves the pump's wake-up, twice the price of an answer. `None` where that is not so simple, or would
    /// have to wait.
    ///
    /// The thread may give way to every other: so it holds this file's lock alone, and none while it wakes the reader.
    fn serve(&self, open: &Open) -> Option<()> {
        let mut st = open.state.try_lock()?;
        let simple = match st.notify {
            Some(_) => st.reads.is_empty(),
            None => st.reads.len() == 1,
        };
        if !simple || st.empty.is_none() || !matches!(st.stream, Stream::Trace(_)) {
            return None;
        }
        st.found();
        if self.gathers(open, &mut st).is_some() {
            return None;
        }
        if let Some(notify) = st.notify {
            drop(st);
            self.device.send(&reply::poll_notification(notify));
            return Some(());
        }
        let read = st.reads.pop_front()?;
        let mut buf = self.spare.try_lock().map(|mut spare| std::mem::take(&mut *spare)).unwrap_or_default();
        buf.clear();
        buf.reserve(SMALL);
        if self.make(open, &mut st, &read, &mut buf) == Made::Nothing {
            st.reads.push_front(read);
            return Some(());
        }
        st.served = Some(read.unique);
        drop(st);
        self.device.send(&buf);
        if let Some(mut spare) = self.spare.try_lock() {
            *spare = buf;
        }
        Some(())
    }

    /// What [`Streams::serve`] has left to others: to take an answered read from among those that wait.
    fn forget_served(&self, st: &mut State) {
        if let Some(unique) = st.served.take() {
            self.waiting.lock().remove(&unique);
        }
    }

    /// The stream has something, or ended: completes what waits for that. Where its readers were answered so often of late
    /// that it should gather first, it says when to call again at the latest.
    pub(crate) fn complete(&self, fh: u64, buf: &mut Vec<u8>) -> Option<Instant> {
        let open = self.get(fh)?;
        let mut st = open.state.lock();
        st.found();
        if let Some(due) = self.gathers(&open, &mut st) {
            return Some(due);
        }
        if st.stream.waits_for().is_none() {
            st.pidfd = None;
        }
        self.notify(&st);
        while let Some(read) = st.reads.pop_front() {
            if !self.answer(&open, &mut st, &read, buf) {
                st.reads.push_front(read);
                break;
            }
            self.waiting.lock().remove(&read.unique);
        }
        None
    }

    /// The process whose first sink this stream waits for is dead.
    pub(crate) fn died(&self, fh: u64) {
        let Some(open) = self.get(fh) else { return };
        let mut st = open.state.lock();
        st.pidfd = None;
        let proc = st.stream.waits_for();
        // What a backend traces it reports itself, when the last record is in.
        if let Some(proc) = proc.filter(|p| p.trace().is_none()) {
            self.procs.exit(&proc);
        }
    }

    /// From now on a read that would wait gets EOF, and so do those that wait.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let all: Vec<u64> = self.open.lock().keys().copied().collect();
        for fh in all {
            self.bell.ring(fh);
        }
    }

    fn get(&self, fh: u64) -> Option<Arc<Open>> {
        self.open.lock().get(&fh).cloned()
    }
}

/// A fault in reading one stream is that stream's, not the mount's.
fn guarded(read: impl FnOnce() -> ktrace::Result<Got>) -> Result<Got, i32> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(got) => got.map_err(|err| err.errno()),
        Err(_) => Err(libc::EIO),
    }
}

#[cfg(test)]
mod tests;
