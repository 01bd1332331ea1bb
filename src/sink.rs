//! A sink: what ktrace calls the trace file. A bounded ring of whole records that many processes append to and many
//! readers read, each with a cursor of its own.
//!
//! Guards two invariants: a record is appended whole or counted as lost, and memory is bounded. Knows nothing of
//! processes: who appends, and what happens when an append fails, is decided in [`crate::hooks`].

mod allowance;
mod batch;
mod budget;
mod reader;
mod ring;
mod tally;
#[cfg(test)]
mod tests;
mod wakes;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::Result;
pub use crate::policy::Policy;
use crate::record::Stamp;
use crate::syscall::Abi;
pub use allowance::Allowance;
pub use batch::Batch;
use budget::Account;
pub use budget::{Budget, Room};
pub use reader::{Read, Reader};
use ring::{Mark, Ring};
use tally::{Tally, note};
pub use wakes::Kept;
use wakes::wake;

/// Least bytes of a ring: a few of the largest records.
pub const SIZE_MIN: usize = 16 << 10;
/// Default bytes of a ring.
pub const SIZE_DEFAULT: usize = 4 << 20;
/// To which a ring of the default size may grow where a reader is late (docs/decisions/late-readers.md).
pub const SIZE_GROWN: usize = 64 << 20;
/// Most bytes of a ring.
pub const SIZE_MAX: usize = 1 << 30;

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

/// Called when a reader that waits has something to read, by the thread that brought it about: it must not wait.
pub type Waker = Arc<dyn Fn(Held) + Send + Sync>;

/// What the caller of a [`Waker`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// No lock for which anybody waits but who changes what is traced of one and the same process: the reader may be served on
    /// the spot.
    Nothing,
    /// Locks of this library: no call into it, and nothing that may take long.
    Locks,
}

/// Which file a sink is written to (`fd=`): two descriptors of the same object are the same trace file (R21).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// The file that a sink is written to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Which.
    pub id: FileId,
    /// Its name when it was given to us.
    pub name: String,
}

/// A trace file.
pub struct Sink {
    id: u64,
    owner: u32,
    size: usize,
    file: OnceLock<File>,
    account: Account,
    given_up: Option<Sender<u64>>,
    state: Mutex<State>,
    room: Condvar,
}

struct State {
    ring: Ring,
    /// To which the ring may grow.
    most: usize,
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
    lost: Tally,
    /// A bounded wait for room ended in vain; nobody waits again until a reader moves.
    stalled: bool,
    /// How often something has happened that may have made room: a reader moved or left, the policy changed.
    moves: u64,
    /// `moves` when a record last had no room.
    full_at: u64,
    counts: Counts,
    /// The stamp of the newest event, for records about the stream.
    last: Stamp,
    /// The ABI of the newest record.
    last_abi: Abi,
    /// Up to where it is in its file; `None` where nobody writes it to one.
    written: Option<u64>,
}

/// One open's cursor.
struct Slot {
    pos: u64,
    /// What has been given to it, or let go before it came, since the start.
    met: Tally,
    /// The process that read last; 0 until the first read.
    pid: i32,
    /// Nothing is let go before it has read it.
    keeps: bool,
    /// Called once the ring's head has come so far.
    armed: Option<(u64, Waker)>,
}

/// How often a wait for room looks whether it is still worth it.
const TURN: Duration = Duration::from_millis(10);
/// Room kept for the record that says why tracing ended.
const RESERVE: usize = 256;

impl Sink {
    /// A sink of `size` bytes that belongs to the user `owner`. `given_up` is told its id when
    /// it is given up (R30).
    ///
    /// # Errors
    /// ENOSPC where `budget` has no room for its first pages, or none for this owner.
    pub fn new(
        size: usize,
        policy: Policy,
        owner: u32,
        budget: &Arc<Budget>,
        given_up: Option<Sender<u64>>,
    ) -> Result<Arc<Sink>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let size = size.clamp(SIZE_MIN, SIZE_MAX);
        let account = Account::new(budget, owner);
        let ring = Ring::new(size, &account)?;
        let state = State {
            ring,
            most: size,
            policy,
            writers: 0,
            end: None,
            slots: HashMap::new(),
            next_slot: 0,
            had_reader: false,
            read_out: false,
            lost: Tally::default(),
            stalled: false,
            moves: 1,
            full_at: 0,
            counts: Counts::default(),
            last: Stamp::default(),
            last_abi: Abi::Linux,
            written: None,
        };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = Mutex::new(state);
        let (file, room) = (OnceLock::new(), Condvar::new());
        Ok(Arc::new(Sink { id, owner, size, file, account, given_up, state, room }))
    }

    /// Lets its ring grow up to `most` bytes where under policy stop a record has no room though somebody reads.
    pub fn let_grow(&self, most: usize) {
        self.state.lock().most = most.clamp(self.size, SIZE_MAX);
    }

    /// A number that no other sink of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The uid of who made it.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// The file it is written to, `None` for one that is only read.
    pub fn file(&self) -> Option<&File> {
        self.file.get()
    }

    /// Says which file it is written to, once.
    pub fn set_file(&self, file: File) {
        // A second call would be a fault of ours; the first one holds.
        let _ = self.file.set(file);
    }

    /// What to do when it is full.
    pub fn policy(&self) -> Policy {
        self.state.lock().policy
    }

    /// Changes the policy at once.
    pub fn set_policy(&self, policy: Policy) {
        let mut st = self.state.lock();
        st.policy = policy;
        st.moved();
        self.room.notify_all();
    }

    /// Bytes of its ring as it was made: [`Counts::memory`] says what it has grown to.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The same, where it is all that its ring may ever have.
    pub fn exact_size(&self) -> Option<usize> {
        (self.state.lock().most == self.size).then_some(self.size)
    }

    /// Bytes that its ring could hold by the memory that is left now.
    pub fn attainable(&self) -> usize {
        self.state.lock().ring.attainable()
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

    /// Bytes that even the fastest of its readers has not read, or nobody.
    pub fn waiting(&self) -> usize {
        let st = self.state.lock();
        let fastest = st.slots.values().filter(|slot| slot.pid != 0).map(|slot| slot.pos).max();
        (st.ring.head() - fastest.unwrap_or(0).max(st.ring.tail())) as usize
    }

    /// True while somebody reads it.
    pub fn is_read(&self) -> bool {
        self.state.lock().readers() > 0
    }

    /// The processes whose opens read this sink.
    pub fn reader_pids(&self) -> Vec<i32> {
        self.state.lock().slots.values().map(|s| s.pid).filter(|&pid| pid != 0).collect()
    }

    /// Appends one whole record, made by [`record::encode`]. Never waits.
    ///
    /// `abi` is the door of the process at this record: each reader is told it before the first record of a process.
    pub fn append(&self, record: &[u8], stamp: &Stamp, abi: Abi) -> Appended {
        let Some(mut st) = self.admit() else { return Appended::Ended };
        let appended = st.append(record, stamp, abi);
        let wakers = st.wakers(appended);
        drop(st);
        wake(wakers);
        appended
    }

    /// The state, unless it has ended, or ends now because its readers have gone.
    fn admit(&self) -> Option<MutexGuard<'_, State>> {
        let mut st = self.state.lock();
        if st.end.is_some() {
            return None;
        }
        if st.had_reader && st.readers() == 0 && st.policy != Policy::Overwrite {
            self.end_locked(&mut st, End::GaveUp(libc::EPIPE));
            drop(st);
            self.tell_given_up();
            return None;
        }
        Some(st)
    }

    /// Counts a record as lost that found no room.
    pub fn lose(&self, bytes: usize) {
        self.state.lock().lose(bytes);
    }

    /// Counts records as lost that were lost before they came here.
    pub fn lose_many(&self, records: u64, bytes: u64) {
        self.state.lock().lose_many(Tally { records, bytes });
    }

    /// Tells what was lost, where there is room for that: who lost it may not come again for long.
    pub fn tell_lost(&self) {
        let mut st = self.state.lock();
        if st.end.is_some() || st.lost.records == 0 || !st.make_room(RESERVE * 2) {
            return;
        }
        st.tell_loss();
        let wakers = st.due();
        drop(st);
        wake(wakers);
    }

    /// The stream says something about itself, at the newest event's place; false where there is no room now.
    pub fn tell_of(&self, text: &str) -> bool {
        let mut st = self.state.lock();
        if st.end.is_some() || !st.make_room(RESERVE * 2) {
            return false;
        }
        st.tell(text);
        let wakers = st.due();
        drop(st);
        wake(wakers);
        true
    }

    /// True while less than a quarter of what all rings may use is used, but for what they have grown by.
    pub fn has_plenty(&self) -> bool {
        self.account.budget().used_at_first() < self.account.budget().limit() / 4
    }

    /// Memory of somebody else's that belongs to this sink and counts like its ring.
    ///
    /// # Errors
    /// ENOSPC where there is no more, or none for its owner.
    pub fn room(&self, bytes: usize) -> Result<Room> {
        Room::new(&self.account, bytes)
    }

    /// Waits until a reader has made room, the policy changed, or the sink ended; false where `until` came first, and
    /// at once where an earlier wait was in vain and no reader has moved since. `worth` is asked now and then whether to
    /// wait on; where it says no, the answer is false too, and the next wait is not the worse for it.
    pub fn wait_for_room(&self, until: Instant, worth: impl Fn() -> bool) -> bool {
        let mut st = self.state.lock();
        if st.stalled {
            return false;
        }
        let moved = |st: &State| !st.is_full() || st.end.is_some();
        while !moved(&st) && Instant::now() < until {
            // Asked without the lock: the answer may need locks under which somebody asks about this sink.
            if !MutexGuard::unlocked(&mut st, &worth) {
                return moved(&st);
            }
            if !moved(&st) {
                self.room.wait_until(&mut st, until.min(Instant::now() + TURN));
            }
        }
        st.stalled = !moved(&st);
        !st.stalled
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
        st.due().iter().for_each(|waker| waker(Held::Locks));
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
        let (pos, met) = (st.ring.tail(), st.ring.gone());
        st.slots.insert(slot, Slot { pos, met, pid: 0, keeps: false, armed: None });
        drop(st);
        Reader::new(Arc::clone(self), slot)
    }

    /// The cursor of the one who writes this sink to its file: nothing is let go that it has not read, however fast
    /// others are.
    pub fn drain(self: &Arc<Sink>) -> Reader {
        let reader = self.reader();
        let mut st = self.state.lock();
        st.written = Some(st.ring.tail());
        if let Some(slot) = st.slots.get_mut(&reader.slot()) {
            slot.keeps = true;
            // It is there for good: no other reader's end is the end of them all.
            slot.pid = std::process::id() as i32;
        }
        st.had_reader = true;
        drop(st);
        reader
    }

    /// What the drain has read so far is in the file.
    pub fn written(&self, drain: &Reader) {
        let mut st = self.state.lock();
        st.written = st.slots.get(&drain.slot()).map(|slot| slot.pos);
        self.room.notify_all();
    }

    /// Nothing more will be written to the file.
    pub fn drained(&self) {
        self.state.lock().written = None;
        self.room.notify_all();
    }

    /// Waits until all that is here now is in the file; false where `until` came first. At once where there is none.
    pub fn wait_written(&self, until: Instant) -> bool {
        let mut st = self.state.lock();
        let head = st.ring.head();
        while st.written.is_some_and(|pos| pos < head) {
            if self.room.wait_until(&mut st, until).timed_out() {
                return false;
            }
        }
        true
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.account.budget().remember(self.state.get_mut().counts);
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

    fn append(&mut self, record: &[u8], stamp: &Stamp, abi: Abi) -> Appended {
        self.last = *stamp;
        if !self.ever_fits(record.len()) {
            // It never will have room, whatever anybody waits for.
            self.lose(record.len());
            return Appended::Lost;
        }
        if self.lost.records > 0 && self.make_room(record.len() + RESERVE * 2) {
            let lost = std::mem::take(&mut self.lost);
            self.ring.push(&note(stamp, &lost.text()), Mark::note(abi));
        }
        if self.has_room(record.len()) {
            self.ring.push(record, Mark::record(abi));
            self.last_abi = abi;
            self.counts.records += 1;
            self.counts.bytes += record.len() as u64;
            return Appended::Whole;
        }
        self.full_at = self.moves;
        match self.policy {
            Policy::Stop | Policy::Block => Appended::Full,
            Policy::Drop | Policy::Overwrite => {
                self.lose(record.len());
                Appended::Lost
            }
        }
    }

    /// Whether a record of `len` bytes has room in the empty ring.
    fn ever_fits(&self, len: usize) -> bool {
        len + RESERVE * 2 <= self.ring.most()
    }

    /// Makes room for records of `len` bytes, where no loss is to be told before them.
    fn has_room(&mut self, len: usize) -> bool {
        self.lost.records == 0 && self.make_room(len + RESERVE)
    }

    /// Those to be called after this.
    fn wakers(&mut self, appended: Appended) -> Vec<Waker> {
        match appended {
            Appended::Whole => self.due(),
            // Whoever waits for more to gather waits no longer.
            _ => self.armed(),
        }
    }

    /// Makes `len` bytes free by letting go of what some reader has read, or of anything under policy overwrite.
    fn make_room(&mut self, len: usize) -> bool {
        if self.ring.free() >= len {
            return true;
        }
        let fastest = match self.slots.values().find(|s| s.keeps) {
            Some(drain) => Some(drain.pos),
            None => self.slots.values().filter(|s| s.pid != 0).map(|s| s.pos).max(),
        };
        let droppable = match self.policy {
            Policy::Overwrite => self.ring.head(),
            _ => fastest.unwrap_or(0),
        };
        while !self.ring.make_room(len, droppable) {
            if self.policy != Policy::Stop || self.readers() == 0 || !self.ring.grow(self.most) {
                return false;
            }
        }
        true
    }

    /// A record had no room, and nothing has happened since that may have made some.
    fn is_full(&self) -> bool {
        self.full_at == self.moves
    }

    /// There may be room now.
    fn moved(&mut self) {
        self.moves += 1;
        self.stalled = false;
    }

    /// Adds a record about the stream where the room kept for it is free, at the newest event's place.
    fn tell(&mut self, text: &str) {
        let record = note(&self.last, text);
        if self.ring.free() >= record.len() {
            self.ring.push(&record, Mark::note(self.last_abi));
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
        self.lose_many(Tally::one(bytes));
    }

    fn lose_many(&mut self, lost: Tally) {
        self.lost += lost;
        self.counts.lost += lost.records;
    }

    /// Takes the armed wakers that wait for what there is now; all of them at the end.
    fn due(&mut self) -> Vec<Waker> {
        self.armed_up_to(if self.end.is_some() { u64::MAX } else { self.ring.head() })
    }

    /// Takes all armed wakers.
    fn armed(&mut self) -> Vec<Waker> {
        self.armed_up_to(u64::MAX)
    }

    fn armed_up_to(&mut self, head: u64) -> Vec<Waker> {
        let due = self.slots.values_mut().filter_map(|slot| slot.armed.take_if(|(at, _)| *at <= head));
        due.map(|(_, waker)| waker).collect()
    }
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
