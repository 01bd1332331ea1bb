//! The rings and who writes into them: makes, reads, grows and drops them, and keeps the kernel's maps as control wants them.
//! What an event means is in [`super::observe`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::time::ClockId;

use super::event;
use super::kernel::{Maps, SLOTS};
use super::load::{self, Limits, Programs};
use super::observe::{One, Out, Pids, STEP_MIN, Watched, is_hidden, nanoseconds, note_hidden, offset_now};
use super::ring::Ring;
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::hooks::{At, Recorder};
use crate::proc::{self, Auxv, Proc, ProcTable, Stat, Trace};
use crate::record::Stamp;
use crate::sink::{Room, Sink};

/// Least and most bytes of a ring in the kernel. Its memory is all there from the start, so where there are many they begin
/// small and grow when they fill.
const RING_MIN: usize = 128 << 10;
const RING_MAX: usize = 16 << 20;
/// Of one that fills at least so much: some milliseconds of a busy thread.
const RING_FULL_MIN: usize = 512 << 10;
/// Which part of a small ring must be found full for a large one.
const GROW_AT: usize = 8;
/// Events that are read from one ring before the others have their turn.
const TURN: usize = 16384;
/// A ring that nobody is left to write to is kept so long: a program that began before may be about to.
const GRACE: Duration = Duration::from_millis(200);
/// An event is written in microseconds, by a program that nothing interrupts for long.
const STUCK_MAX: Duration = Duration::from_secs(1);
/// How often it looks for processes whose end the ring had no room to tell.
const LOOK: Duration = Duration::from_secs(1);

/// A sink and its ring.
struct Slot {
    sink: Arc<Sink>,
    ring: Ring,
    /// The ring is as large as it will be.
    grown: bool,
    watched: Pids<Watched>,
    /// Since when nobody writes to it.
    empty: Option<Instant>,
    room: Room,
}

/// All there is to be read, under one lock.
pub(super) struct Drain {
    procs: Arc<ProcTable>,
    programs: Programs,
    maps: Maps,
    slots: Vec<Option<Slot>>,
    /// Knows the descriptors of all rings.
    epoll: Arc<Epoll>,
    out: Out,
    attached: Option<Facs>,
    /// Of whom it is seen only whether an exec gives them privilege, and what is to be traced of them.
    held: Pids<Facs>,
    looked: Instant,
    missed: u64,
    limits: Limits,
}

impl Drain {
    pub(super) fn new(
        procs: Arc<ProcTable>,
        programs: Programs,
        maps: Maps,
        epoll: Arc<Epoll>,
        limits: Limits,
    ) -> Drain {
        let recorder = Recorder::new(Arc::clone(&procs));
        let out = Out { recorder, offset: offset_now(), events: 0, warned: None };
        let slots = (0..SLOTS).map(|_| None).collect();
        let (attached, held, looked) = (None, Pids::default(), Instant::now());
        Drain { procs, programs, maps, slots, epoll, out, attached, held, looked, missed: 0, limits }
    }

    /// Events read since the start.
    pub(super) fn events(&self) -> u64 {
        self.out.events
    }

    /// Lets the kernel's side see whether an exec gives privilege to a process, and nothing else of it; false where it does
    /// so already.
    ///
    /// # Errors
    /// As for [`Drain::set`].
    pub(super) fn hold(&mut self, pid: i32, trace: &Trace) -> Result<bool> {
        if self.find(pid).is_some() {
            return Ok(false);
        }
        let to = self.slot_of(trace.sink())?;
        self.held.insert(pid, trace.facs);
        let held = self.attach(self.wanted()).and_then(|()| self.maps.hold(pid, trace, to as u32));
        if held.is_err() {
            self.release(pid);
        }
        held.map(|()| true)
    }

    /// Runs of our programs that the kernel has left out since the start.
    pub(super) fn misses(&mut self) -> u64 {
        let misses = self.programs.misses();
        if misses > self.missed {
            log::warn!("eBPF: {} runs of a program were left out (recursion_misses)", misses - self.missed);
        }
        self.missed = misses;
        misses
    }

    /// Brings what is traced of a process to this.
    ///
    /// # Errors
    /// ENOSPC; what cannot be attached.
    pub(super) fn set(&mut self, proc: &Arc<Proc>, trace: &Arc<Trace>) -> Result<()> {
        let pid = proc.id.pid;
        let set = self.apply(proc, trace);
        if self.find(pid).is_none() {
            self.release(pid);
        }
        self.held.remove(&pid);
        set
    }

    fn apply(&mut self, proc: &Arc<Proc>, trace: &Arc<Trace>) -> Result<()> {
        let pid = proc.id.pid;
        if !proc.trace().is_some_and(|now| Arc::ptr_eq(&now, trace)) {
            // An exec has ended it since control has set it (R23).
            return Err(Error::Gone { pid });
        }
        let to = self.slot_of(trace.sink())?;
        let before = self.find(pid);
        self.maps.set_policy(to as u32, trace.sink().policy());
        let wanted = self.wanted().unwrap_or(Facs::empty()) | trace.facs;
        self.attach(Some(wanted))?;
        let same = before == Some(to);
        if before.is_none() {
            proc.set_abi(Auxv::of(pid).abi);
        }
        let hidden = is_hidden(trace, pid);
        let had_calls = |slot: &Slot| {
            slot.watched.get(&pid).is_some_and(|watched| watched.trace.facs.intersects(load::CALLS))
        };
        if !self.slots.iter().flatten().any(had_calls) {
            self.maps.forget_threads(&proc::threads(pid).unwrap_or_default());
        }
        let watched = Watched { proc: Some(Arc::clone(proc)), ..Watched::new(Arc::clone(trace), proc.abi()) };
        match same {
            // What was taken under the old facilities is recorded under the old and the new.
            true => {
                if let Some(old) = self.slot(to).and_then(|slot| slot.watched.get_mut(&pid)) {
                    let facs = old.trace.facs | trace.facs;
                    old.trace = Arc::new(Trace {
                        facs,
                        inherit: trace.inherit,
                        root: trace.root,
                        ..trace.inherited()
                    });
                }
                if let Err(error) = self.maps.trace(pid, trace, to as u32, hidden, true) {
                    return Err(self.ended(to, proc, error));
                }
                self.settle_slot(to);
                // It may have died meanwhile.
                let Some(old) = self.slot(to).and_then(|slot| slot.watched.get_mut(&pid)) else {
                    return Err(self.ended(to, proc, Error::Gone { pid }));
                };
                (old.proc, old.trace) = (watched.proc, watched.trace);
                let stamp = self.stamp(pid);
                self.applied(to, &stamp);
            }
            false => {
                if let Some(slot) = self.slot(to) {
                    slot.watched.insert(pid, watched);
                    slot.empty = None;
                }
                // Before the first of its events, and none where it is not traced.
                let stamp = self.stamp(pid);
                let known = before.is_some() || self.held.contains_key(&pid);
                if let Err(error) = self.maps.trace(pid, trace, to as u32, hidden, known) {
                    self.forget(to, pid);
                    return Err(match before {
                        Some(from) => self.ended(from, proc, error),
                        None => error,
                    });
                }
                self.applied(to, &stamp);
                if let Some(from) = before {
                    self.settle_slot(from);
                    self.forget(from, pid);
                }
            }
        }
        if proc.id.check().is_err() {
            // It may have died before the kernel's side knew it: then nobody will tell.
            self.release(pid);
            return Err(Error::Gone { pid });
        }
        Ok(())
    }

    /// A change has found that the kernel's side has let the process go, or could not be told: so do we, for good.
    fn ended(&mut self, at: usize, proc: &Proc, error: Error) -> Error {
        self.maps.release(proc.id.pid);
        self.settle_slot(at);
        self.forget(at, proc.id.pid);
        proc.set_trace(None);
        error
    }

    /// Nothing is traced of it any more; what it did before is in its sink.
    pub(super) fn release(&mut self, pid: i32) {
        self.held.remove(&pid);
        self.maps.release(pid);
        if let Some(at) = self.find(pid) {
            self.settle_slot(at);
            self.forget(at, pid);
        }
    }

    /// What happened to it before is in its sink.
    pub(super) fn settle(&mut self, pid: i32) {
        if let Some(at) = self.find(pid) {
            self.settle_slot(at);
        }
    }

    /// Lets every process go.
    pub(super) fn release_all(&mut self) {
        // Nobody is born any more.
        let _ = self.attach(None);
        let first = |slot: &Slot| slot.watched.keys().next().copied();
        while let Some(pid) = self.slots.iter().flatten().find_map(first) {
            self.release(pid);
        }
    }

    /// Nobody is traced any more, and each trace file says why; the keeper lets go of its processes.
    pub(super) fn give_up(&mut self) {
        let detached = self.attach(None);
        self.held.clear();
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            slot.sink.give_up(libc::EIO);
        }
        if let Err(error) = detached {
            log::error!("eBPF: {error}");
        }
    }

    /// The call this thread is in makes no record of its end.
    pub(super) fn excuse(&mut self, tid: i32, excused: bool) {
        match excused {
            true => self.maps.excuse(tid),
            false => self.maps.forget_call(tid, true),
        }
    }

    /// Reads what is there, of each ring at most a turn; gives how many events that were.
    pub(super) fn pass(&mut self) -> usize {
        let offset = offset_now();
        if (offset - self.out.offset).abs() > STEP_MIN {
            self.out.offset = offset;
        }
        let mut count = 0;
        for at in 0..self.slots.len() {
            let Some(slot) = &self.slots[at] else { continue };
            // Only here: whoever reads up to a place must not find another ring there.
            if !slot.grown && slot.ring.unread() > RING_MIN / GROW_AT {
                self.grow(at);
            }
            count += self.read(at);
        }
        count
    }

    /// True where [`Drain::tidy`] has not looked for long, whoever floods its ring.
    pub(super) fn is_due(&self) -> bool {
        self.looked.elapsed() >= LOOK
    }

    /// When there is nothing to be read: lets go of what nobody needs.
    pub(super) fn tidy(&mut self) {
        if self.is_due() {
            self.looked = Instant::now();
            self.bury();
            self.misses();
            (0..self.slots.len()).for_each(|at| self.take_in(at));
        }
        for at in 0..self.slots.len() {
            if self.slots[at].as_ref().is_some_and(|slot| slot.ring.unread() == 0) {
                self.account(at);
            }
            let Some(slot) = &mut self.slots[at] else { continue };
            slot.sink.tell_lost();
            if !slot.watched.is_empty() {
                continue;
            }
            if slot.empty.get_or_insert_with(Instant::now).elapsed() > GRACE && self.maps.close(at as u32) {
                self.slots[at] = None;
            }
        }
        let wanted = self.wanted();
        if let Err(error) = self.attach(wanted) {
            log::warn!("eBPF: {error}");
        }
    }

    /// True while there is a ring.
    pub(super) fn is_idle(&self) -> bool {
        self.attached.is_none() && self.slots.iter().all(Option::is_none)
    }

    /// Those that have ended without a word.
    fn bury(&mut self) {
        let mut dead = Vec::new();
        for slot in self.slots.iter().flatten() {
            dead.extend(slot.watched.keys().copied().filter(|&pid| !self.maps.knows(pid)));
        }
        for pid in dead {
            let Some(at) = self.find(pid) else { continue };
            self.settle_slot(at);
            if let Some(watched) = self.forget(at, pid)
                && let Some(proc) = watched.proc
                && proc.id.check().is_err()
            {
                self.procs.exit(&proc);
            }
        }
    }

    fn wanted(&self) -> Option<Facs> {
        let all = self.slots.iter().flatten().flat_map(|slot| slot.watched.values());
        all.map(|watched| watched.trace.facs)
            .chain(self.held.values().copied())
            .reduce(|all, facs| all | facs)
    }

    fn attach(&mut self, facs: Option<Facs>) -> Result<()> {
        if facs == self.attached {
            return Ok(());
        }
        self.programs.attach(facs).map_err(|error| Error::Unsupported { what: error.into() })?;
        if facs.is_none() {
            // Nobody sees any more how their calls end.
            self.maps.forget_calls();
        }
        self.attached = facs;
        Ok(())
    }

    fn slot(&mut self, at: usize) -> Option<&mut Slot> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// The slot of a process.
    fn find(&self, pid: i32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.watched.contains_key(&pid)))
    }

    /// The slot of a sink, made where it has none.
    fn slot_of(&mut self, sink: &Arc<Sink>) -> Result<usize> {
        let is_it = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| Arc::ptr_eq(&slot.sink, sink));
        if let Some(at) = self.slots.iter().position(is_it) {
            return Ok(at);
        }
        let mut free =
            (0..self.slots.len()).filter(|&at| self.slots[at].is_none() && self.maps.is_free(at as u32));
        let at = free.next().ok_or_else(|| Error::NoSpace {
            what: format!("there are {SLOTS} trace files already").into(),
        })?;
        let grown = sink.has_plenty();
        let size = if grown { full_size(sink) } else { RING_MIN };
        let (ring, room) = new_ring(sink, &self.epoll, size)?;
        self.maps.open(at as u32, &ring, sink.policy())?;
        let (sink, watched) = (Arc::clone(sink), Pids::default());
        self.slots[at] = Some(Slot { sink, ring, grown, watched, empty: None, room });
        Ok(at)
    }

    /// Puts a large ring in the place of one that fills.
    fn grow(&mut self, at: usize) {
        let Some(slot) = self.slots[at].as_mut() else { return };
        slot.grown = true;
        let size = full_size(&slot.sink);
        // Where there is no memory for it, the small one goes on.
        let Ok((ring, room)) = new_ring(&slot.sink, &self.epoll, size) else { return };
        if let Err(error) = self.maps.replace(at as u32, &ring) {
            return log::warn!("eBPF: {error}");
        }
        // No program writes into the old one any more: what is in it came before all that is in the new.
        self.settle_slot(at);
        if let Some(slot) = self.slots[at].as_mut() {
            let _ = self.epoll.delete(slot.ring.fd());
            (slot.ring, slot.room) = (ring, room);
        }
    }

    /// Takes a process out of a slot. What was lost is told before its sink may end.
    fn forget(&mut self, at: usize, pid: i32) -> Option<Watched> {
        self.account(at);
        self.slots[at].as_mut()?.watched.remove(&pid)
    }

    /// What the kernel's side has lost and no event has told of. To be asked where all before it has been read.
    fn account(&mut self, at: usize) {
        if let Some(mut one) = self.one(at) {
            one.account();
        }
    }

    fn stamp(&self, pid: i32) -> Stamp {
        let comm = Stat::of(pid).map(|stat| stat.comm).unwrap_or_default();
        Stamp { time: self.out.time(nanoseconds(ClockId::CLOCK_MONOTONIC) as u64), pid, tid: pid, comm }
    }

    /// R31, and whether its memory may be shown.
    fn applied(&mut self, at: usize, stamp: &Stamp) {
        let pid = stamp.pid;
        let Some(watched) = self.slots[at].as_mut().and_then(|slot| slot.watched.get_mut(&pid)) else {
            return;
        };
        let trace = Arc::clone(&watched.trace);
        let to = At { trace: &trace, stamp, abi: watched.abi };
        self.out.recorder.emul(to);
        let hidden = is_hidden(&trace, pid);
        note_hidden(&mut self.out.recorder, watched, to, hidden);
        if !trace.facs.contains(Facs::EMUL) {
            self.out.recorder.note(to, &format!("set {}", trace.facs));
        }
    }

    /// Reads until all that was in the ring before is in the sink.
    fn settle_slot(&mut self, at: usize) {
        let Some(slot) = &self.slots[at] else { return };
        let place = slot.ring.produced();
        let begun = Instant::now();
        while self.slots[at].as_ref().is_some_and(|slot| !slot.ring.has_read(place)) {
            if self.read(at) == 0 {
                if begun.elapsed() > STUCK_MAX {
                    return log::error!("eBPF: an event in the ring is not finished");
                }
                // A program is in the midst of it, on another cpu.
                std::hint::spin_loop();
            }
        }
        self.account(at);
        self.take_in(at);
    }

    /// Those that were born and of whom the ring has not told.
    fn take_in(&mut self, at: usize) {
        if let Some(mut one) = self.one(at) {
            one.take_in();
        }
    }

    fn one(&mut self, at: usize) -> Option<One<'_>> {
        let Drain { procs, maps, slots, out, .. } = self;
        let Slot { sink, watched, .. } = slots.get_mut(at)?.as_mut()?;
        Some(One { procs, maps, sink, watched, out, slot: at as u32 })
    }

    fn read(&mut self, at: usize) -> usize {
        let Drain { procs, maps, slots, out, limits, .. } = self;
        let Some(slot) = slots[at].as_mut() else { return 0 };
        let Slot { sink, ring, watched, .. } = slot;
        let count = ring.read(TURN, |bytes| {
            if let Some((head, event)) = event::parse(bytes) {
                let mut one = One { procs, maps, sink, watched, out, slot: at as u32 };
                one.event(&head, event);
            }
        });
        out.events += count as u64;
        assert!(out.events <= limits.events, "more events than a test allows");
        if maps.is_dead(at as u32) && ring.has_read(ring.produced()) {
            // R30.
            sink.give_up(libc::EAGAIN);
        }
        count
    }
}

/// Bytes of the ring of a sink that fills.
fn full_size(sink: &Sink) -> usize {
    sink.size().next_power_of_two().clamp(RING_FULL_MIN, RING_MAX)
}

/// A ring for a sink, which counts against the memory limit.
fn new_ring(sink: &Sink, epoll: &Epoll, size: usize) -> Result<(Ring, Room)> {
    let full = || Error::NoSpace { what: "the daemon's memory limit is reached (mem=)".into() };
    let room = sink.room(size).ok_or_else(full)?;
    let ring = Ring::new(size)?;
    let failed = |errno| Error::sys("epoll_ctl", 0, errno);
    epoll.add(ring.fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
    Ok((ring, room))
}
