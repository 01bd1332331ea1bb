//! A sink: what ktrace calls the trace file. A bounded ring of whole records that many processes append to and many
//! readers read, each with a cursor of its own.
//!
//! Guards two invariants: a record is appended whole or counted as lost, and memory is bounded. Knows nothing of
//! processes: who appends, and what happens when an append fails, is decided in [`crate::hooks`].

mod ring;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
pub use crate::policy::Policy;
use crate::record::{self, Body, Stamp};
use crate::syscall::Abi;
use ring::Ring;

/// Least bytes of a ring: a few of the largest records.
pub const SIZE_MIN: usize = 16 << 10;
/// Default bytes of a ring.
pub const SIZE_DEFAULT: usize = 4 << 20;
/// Most bytes of a ring.
pub const SIZE_MAX: usize = 1 << 30;

/// The memory that all rings together may use. Rings take it as they fill, in steps.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    past: Mutex<Counts>,
}

impl Budget {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0), past: Mutex::default() })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes that can be in use.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What sinks that are gone have counted; they have no readers and no memory.
    pub fn past(&self) -> Counts {
        *self.past.lock()
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// How a sink ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// No process writes to it any more.
    Finished,
    /// It was given up with this errno (R30): EPIPE when its readers went, EAGAIN when it was full.
    GaveUp(i32),
}

/// What became of an appended record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Appended {
    /// It is in the ring.
    Whole,
    /// No room: lost and counted (policies drop and overwrite, or a record larger than the ring).
    Lost,
    /// No room now: try again, or [`Sink::give_up`], or [`Sink::lose`] (policies stop and block).
    Full,
    /// The sink has ended; nothing is recorded any more.
    Ended,
}

/// What a sink counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Records appended.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records lost for want of room, for all readers.
    pub lost: u64,
    /// Readers: opens that have read.
    pub readers: usize,
    /// Bytes of memory the ring uses.
    pub memory: usize,
}

/// Called when a reader that waits has something to read. It runs in the appending thread, under the sink's lock: it
/// must neither wait nor call into the sink.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// A trace file.
pub struct Sink {
    id: u64,
    owner: u32,
    budget: Arc<Budget>,
    given_up: Option<Sender<u64>>,
    state: Mutex<State>,
    room: Condvar,
}

struct State {
    ring: Ring,
    policy: Policy,
    writers: usize,
    end: Option<End>,
    slots: HashMap<u64, Slot>,
    next_slot: u64,
    /// True once somebody has read: from then on, no reader means EPIPE.
    had_reader: bool,
    /// True once a reader that came to the end has closed.
    read_out: bool,
    /// Records lost since the last append that fitted, to be told at this place of the stream.
    lost: Lost,
    /// A bounded wait for room ended in vain; nobody waits again until a reader moves.
    stalled: bool,
    waiting_for_room: usize,
    counts: Counts,
    /// The stamp of the newest event, for records about the stream.
    last: Stamp,
    /// The ABI of the newest record.
    last_abi: Abi,
}

#[derive(Clone, Copy, Default)]
struct Lost {
    records: u64,
    bytes: u64,
}

/// One open's cursor.
struct Slot {
    pos: u64,
    seq: u64,
    /// The process that read last; 0 until the first read.
    pid: i32,
    armed: Option<Waker>,
}

/// Room kept for the record that says why tracing ended.
const RESERVE: usize = 256;

impl Sink {
    /// A sink of `size` bytes that belongs to the user `owner`. `given_up` is told its id when
    /// it is given up (R30).
    ///
    /// # Errors
    /// ENOSPC where `budget` has no room for its first pages.
    pub fn new(
        size: usize,
        policy: Policy,
        owner: u32,
        budget: &Arc<Budget>,
        given_up: Option<Sender<u64>>,
    ) -> Result<Arc<Sink>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let size = size.clamp(SIZE_MIN, SIZE_MAX);
        let ring = Ring::new(size, budget).ok_or_else(|| Error::NoSpace {
            what: format!("the daemon's memory limit of {} bytes is reached (mem=)", budget.limit()).into(),
        })?;
        let state = State {
            ring,
            policy,
            writers: 0,
            end: None,
            slots: HashMap::new(),
            next_slot: 0,
            had_reader: false,
            read_out: false,
            lost: Lost::default(),
            stalled: false,
            waiting_for_room: 0,
            counts: Counts::default(),
            last: Stamp::default(),
            last_abi: Abi::Linux,
        };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let budget = Arc::clone(budget);
        Ok(Arc::new(Sink { id, owner, budget, given_up, state: Mutex::new(state), room: Condvar::new() }))
    }

    /// A number that no other sink of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The uid of who made it.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// What to do when it is full.
    pub fn policy(&self) -> Policy {
        self.state.lock().policy
    }

    /// Changes the policy at once.
    pub fn set_policy(&self, policy: Policy) {
        self.state.lock().policy = policy;
        self.room.notify_all();
    }

    /// Bytes of its ring.
    pub fn size(&self) -> usize {
        self.state.lock().ring.size()
    }

    /// How it ended, `None` while it lives.
    pub fn end(&self) -> Option<End> {
        self.state.lock().end
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        let st = self.state.lock();
        Counts { readers: st.readers(), memory: st.ring.memory(), ..st.counts }
    }

    /// True while it holds records and no reader that came to the end has closed.
    pub fn unread(&self) -> bool {
        let st = self.state.lock();
        !st.read_out && st.ring.head() > st.ring.tail()
    }

    /// The processes whose opens read this sink.
    pub fn reader_pids(&self) -> Vec<i32> {
        self.state.lock().slots.values().map(|s| s.pid).filter(|&pid| pid != 0).collect()
    }

    /// Appends one whole record, made by [`record::encode`]. Never waits.
    ///
    /// `abi` is the door of the process at this record: each reader is told it before the first record of a process.
    pub fn append(&self, record: &[u8], stamp: &Stamp, abi: Abi) -> Appended {
        let mut st = self.state.lock();
        if st.end.is_some() {
            return Appended::Ended;
        }
        if st.had_reader && st.readers() == 0 && st.policy != Policy::Overwrite {
            self.end_locked(&mut st, End::GaveUp(libc::EPIPE));
            drop(st);
            self.tell_given_up();
            return Appended::Ended;
        }
        st.last = *stamp;
        if record.len() + RESERVE * 2 > st.ring.most() {
            // It never will have room, whatever anybody waits for.
            st.lose(record.len());
            return Appended::Lost;
        }
        if st.lost.records > 0 && st.make_room(record.len() + RESERVE * 2) {
            let lost = std::mem::take(&mut st.lost);
            st.ring.push(&about(stamp, &lost.text()), abi);
        }
        if st.lost.records == 0 && st.make_room(record.len() + RESERVE) {
            st.ring.push(record, abi);
            st.last_abi = abi;
            st.counts.records += 1;
            st.counts.bytes += record.len() as u64;
            st.wake();
            return Appended::Whole;
        }
        match st.policy {
            Policy::Stop | Policy::Block => Appended::Full,
            Policy::Drop | Policy::Overwrite => {
                st.lose(record.len());
                Appended::Lost
            }
        }
    }

    /// Counts a record as lost that found no room.
    pub fn lose(&self, bytes: usize) {
        self.state.lock().lose(bytes);
    }

    /// Waits until a reader has made room, the policy changed, or the sink ended; false where `until` came first, and
    /// at once where an earlier wait was in vain and no reader has moved since.
    pub fn wait_for_room(&self, until: Instant) -> bool {
        let mut st = self.state.lock();
        if st.stalled {
            return false;
        }
        st.waiting_for_room += 1;
        let timed_out = st.end.is_none() && self.room.wait_until(&mut st, until).timed_out();
        st.waiting_for_room -= 1;
        st.stalled = timed_out;
        !timed_out
    }

    /// Gives the sink up (R30): a last record says why, readers may read what is there, then EOF.
    pub fn give_up(&self, errno: i32) {
        let mut st = self.state.lock();
        if st.end.is_some() {
            return;
        }
        let name = nix::errno::Errno::from_raw(errno);
        st.tell_loss();
        st.tell(&format!("stopped: errno {errno} ({name:?})"));
        self.end_locked(&mut st, End::GaveUp(errno));
        drop(st);
        self.tell_given_up();
    }

    fn end_locked(&self, st: &mut State, end: End) {
        st.end = Some(end);
        st.wake();
        self.room.notify_all();
    }

    fn tell_given_up(&self) {
        if let Some(tell) = &self.given_up {
            // The receiver is gone only when the daemon ends, and nobody needs to hear of it any more.
            let _ = tell.send(self.id);
        }
    }

    /// One more process (or set of processes) that writes; the sink finishes when the last [`Writer`] is dropped.
    pub fn writer(self: &Arc<Sink>) -> Writer {
        self.state.lock().writers += 1;
        Writer { sink: Arc::clone(self) }
    }

    /// A cursor of its own, at the oldest record held.
    pub fn reader(self: &Arc<Sink>) -> Reader {
        let mut st = self.state.lock();
        let slot = st.next_slot;
        st.next_slot += 1;
        let (pos, seq) = (st.ring.tail(), st.ring.tail_seq());
        st.slots.insert(slot, Slot { pos, seq, pid: 0, armed: None });
        drop(st);
        Reader { sink: Arc::clone(self), slot, met: HashSet::new(), rest: Vec::new(), cut: 0, at_end: false }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let counts = self.state.get_mut().counts;
        let mut past = self.budget.past.lock();
        past.records += counts.records;
        past.bytes += counts.bytes;
        past.lost += counts.lost;
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({})", self.id)
    }
}

impl State {
    fn readers(&self) -> usize {
        self.slots.values().filter(|s| s.pid != 0).count()
    }

    /// Makes `len` bytes free by letting go of what some reader has read, or of anything under policy overwrite.
    fn make_room(&mut self, len: usize) -> bool {
        if self.ring.free() >= len {
            return true;
        }
        let fastest = self.slots.values().filter(|s| s.pid != 0).map(|s| s.pos).max();
        let droppable = match self.policy {
            Policy::Overwrite => self.ring.head(),
            _ => fastest.unwrap_or(0),
        };
        self.ring.make_room(len, droppable)
    }

    /// Adds a record about the stream where the room kept for it is free, at the newest event's place.
    fn tell(&mut self, text: &str) {
        let record = about(&self.last, text);
        if self.ring.free() >= record.len() {
            self.ring.push(&record, self.last_abi);
        }
    }

    /// A loss at the very end has no later record to be told with.
    fn tell_loss(&mut self) {
        if self.lost.records > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.tell(&lost.text());
        }
    }

    fn lose(&mut self, bytes: usize) {
        self.lost.records += 1;
        self.lost.bytes += bytes as u64;
        self.counts.lost += 1;
    }

    /// Calls every armed waker once.
    fn wake(&mut self) {
        for slot in self.slots.values_mut() {
            if let Some(waker) = slot.armed.take() {
                waker();
            }
        }
    }
}

impl Lost {
    fn text(&self) -> String {
        format!("lost {} records, {} bytes", self.records, self.bytes)
    }
}

/// A USER record in which the stream speaks about itself.
fn about(stamp: &Stamp, text: &str) -> Vec<u8> {
    let mut record = Vec::new();
    record::encode(&mut record, stamp, &Body::User { id: record::STREAM_ID, data: text.as_bytes() });
    record
}

/// Keeps a sink alive as a trace file: dropped with the last reason to write to it.
#[derive(Debug)]
pub struct Writer {
    sink: Arc<Sink>,
}

impl Writer {
    /// The sink.
    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut st = self.sink.state.lock();
        st.writers -= 1;
        if st.writers == 0 && st.end.is_none() {
            st.tell_loss();
            self.sink.end_locked(&mut st, End::Finished);
        }
    }
}

/// What a read gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// Bytes were added to the buffer.
    Data,
    /// Nothing now.
    Empty,
    /// Nothing ever again.
    Eof,
}

/// One open of a trace file: a cursor, and what this stream has been told already.
#[derive(Debug)]
pub struct Reader {
    sink: Arc<Sink>,
    slot: u64,
    /// The processes whose emulation this stream knows.
    met: HashSet<i32>,
    /// Bytes taken from the ring that did not fit the buffer of the read before.
    rest: Vec<u8>,
    /// How many bytes at the start of `rest` are the end of a record whose start was given out.
    cut: usize,
    /// It came to the end.
    at_end: bool,
}

impl Reader {
    /// The sink it reads.
    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }

    /// Adds the next records, at most `max` bytes, to `out`: whole ones, unless `max` is less than one record; then
    /// the rest follows with the next read. `pid` is the reading process.
    pub fn read(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> Read {
        if max == 0 {
            return Read::Data;
        }
        if self.rest.is_empty() {
            let start = out.len();
            match self.fill(max, pid, out) {
                Read::Data => {}
                other => return other,
            }
            if out.len() - start <= max {
                return Read::Data;
            }
            self.rest = out.split_off(start);
        }
        let whole = whole_records(&self.rest[self.cut..], max - self.cut.min(max)).0;
        let n = match self.cut {
            0 if whole == 0 => max,
            0 => whole,
            cut => cut.min(max),
        };
        self.cut = match self.cut {
            0 if whole == 0 => first_len(&self.rest).unwrap_or(max) - max,
            0 => 0,
            cut => cut - n,
        };
        out.extend(self.rest.drain(..n));
        Read::Data
    }

    fn fill(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> Read {
        let start = out.len();
        let mut st = self.sink.state.lock();
        st.had_reader = true;
        let State { ring, slots, last, last_abi, .. } = &mut *st;
        let Some(slot) = slots.get_mut(&self.slot) else { return Read::Eof };
        slot.pid = pid.max(1);
        if slot.pos < ring.tail() {
            let lost = Lost { records: ring.tail_seq() - slot.seq, bytes: ring.tail() - slot.pos };
            (slot.pos, slot.seq) = (ring.tail(), ring.tail_seq());
            let (stamp, abi) = ring.oldest().unwrap_or((*last, *last_abi));
            let mut told = about(&stamp, &lost.text());
            Ring::put_mark(&mut told, abi);
            out.extend_from_slice(&told);
        }
        let (pos, seq) = (slot.pos, slot.seq);
        if pos == ring.head() {
            return match st.end {
                _ if out.len() > start => {
                    drop(st);
                    self.introduce(out, start);
                    Read::Data
                }
                Some(_) => {
                    self.at_end = true;
                    Read::Eof
                }
                None => Read::Empty,
            };
        }
        // Copied under the lock, looked at without it.
        let from = out.len();
        ring.copy(pos, max.max(record::HEADER_LEN), out);
        if whole_records(&out[from..], max).0 == 0 {
            out.truncate(from);
            ring.copy(pos, ring.record_len(pos), out);
        }
        drop(st);

        let (bytes, records) = whole_records(&out[from..], usize::MAX);
        out.truncate(from + bytes);
        self.introduce(out, start);

        let mut st = self.sink.state.lock();
        if let Some(slot) = st.slots.get_mut(&self.slot) {
            slot.pos = pos + bytes as u64;
            slot.seq = seq + records;
        }
        st.stalled = false;
        if st.waiting_for_room > 0 {
            self.sink.room.notify_all();
        }
        Read::Data
    }

    /// Puts an EMUL record before the first record of each process, and clears the ring's mark in all of them.
    fn introduce(&mut self, out: &mut Vec<u8>, from: usize) {
        let mut at = from;
        while let Some(header) = out.get(at..).and_then(|b| record::decode_header(b).ok().flatten()) {
            let abi = Ring::take_mark(&mut out[at..]);
            // A stamp of pid 0 belongs to a loss before any record was made.
            if self.met.insert(header.stamp.pid) && header.ktr_type != record::KTR_EMUL {
                let mut emul = Vec::new();
                record::encode(&mut emul, &header.stamp, &Body::Emul(abi.name().as_bytes()));
                out.splice(at..at, emul.iter().copied());
                at += emul.len();
            }
            at += record::HEADER_LEN + header.len;
        }
    }

    /// Registers `waker` to be called once, when there is something to read or the sink ends; false where that is so
    /// already, and `waker` is not kept.
    pub fn arm(&mut self, waker: Waker) -> bool {
        if !self.rest.is_empty() {
            return false;
        }
        let mut st = self.sink.state.lock();
        let head = st.ring.head();
        if st.end.is_some() {
            return false;
        }
        match st.slots.get_mut(&self.slot) {
            Some(slot) if slot.pos == head => {
                slot.armed = Some(waker);
                true
            }
            _ => false,
        }
    }

    /// Whether a read would give data now, and whether EOF is next.
    pub fn ready(&self) -> (bool, bool) {
        if !self.rest.is_empty() {
            return (true, false);
        }
        let st = self.sink.state.lock();
        let data = st.slots.get(&self.slot).is_some_and(|s| s.pos < st.ring.head());
        (data, !data && st.end.is_some())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut st = self.sink.state.lock();
        st.slots.remove(&self.slot);
        st.read_out |= self.at_end;
        // Nobody is left to wait for: the next append finds out.
        self.sink.room.notify_all();
    }
}

/// Bytes and number of the whole records at the start of `b`, within its first `max` bytes.
fn whole_records(b: &[u8], max: usize) -> (usize, u64) {
    let (mut at, mut records) = (0, 0);
    while let Some(len) = b.get(at..).and_then(first_len) {
        if at + len > b.len().min(max) {
            break;
        }
        (at, records) = (at + len, records + 1);
    }
    (at, records)
}

/// Length of the record at the start of `b`, header and body.
fn first_len(b: &[u8]) -> Option<usize> {
    b.first_chunk().map(|len| record::HEADER_LEN + u32::from_le_bytes(*len) as usize)
}
