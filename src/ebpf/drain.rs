//! The rings and who writes into them: makes, reads, grows and drops them, and keeps the kernel's maps as control wants them.
//! What an event means is in [`super::observe`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::Epoll;
use nix::time::ClockId;

use super::event;
use super::kernel::{Maps, SLOTS};
use super::load::{self, Programs};
use super::observe::{One, Out, STEP_MIN, Watched, is_hidden, nanoseconds, note_hidden, offset_now};
use super::places::Change;
use super::slot::{Rings, Slot};
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::hooks::{At, Recorder};
use crate::proc::{self, Auxv, Proc, ProcTable, Stat, Trace};
use crate::record::Stamp;
use crate::sink::Sink;

/// Events that are read of one sink before the others have their turn.
const TURN: usize = 16384;
/// Rings that nobody is left to write to are kept so long: a program that began before may be about to.
const GRACE: Duration = Duration::from_millis(200);
/// An event is written in microseconds, by a program that nothing interrupts for long.
const STUCK_MAX: Duration = Duration::from_secs(1);
/// How often it looks for processes whose end no ring had room to tell.
const LOOK: Duration = Duration::from_secs(1);

/// Rings that are being taken out of their slots, which are not used again before.
struct Leaving {
    slots: Vec<usize>,
    _rings: Vec<Rings>,
    change: Change,
}

/// All there is to be read, under one lock.
pub(super) struct Drain {
    procs: Arc<ProcTable>,
    programs: Programs,
    maps: Maps,
    slots: Vec<Option<Slot>>,
    leaving: Vec<Leaving>,
    /// Knows the descriptors of all rings.
    epoll: Arc<Epoll>,
    out: Out,
    attached: Option<Facs>,
    looked: Instant,
}

impl Drain {
    pub(super) fn new(procs: Arc<ProcTable>, programs: Programs, maps: Maps, epoll: Arc<Epoll>) -> Drain {
        let recorder = Recorder::new(Arc::clone(&procs));
        let (parts, left) = (HashMap::new(), HashMap::new());
        let out = Out { recorder, offset: offset_now(), parts, left, events: 0 };
        let slots = (0..SLOTS).map(|_| None).collect();
        Drain {
            procs,
            programs,
            maps,
            slots,
            leaving: Vec::new(),
            epoll,
            out,
            attached: None,
            looked: Instant::now(),
        }
    }

    /// Events read since the start.
    pub(super) fn events(&self) -> u64 {
        self.out.events
    }

    /// Brings what is traced of a process to this.
    ///
    /// # Errors
    /// ENOSPC; what cannot be attached.
    pub(super) fn apply(&mut self, proc: &Arc<Proc>, trace: &Arc<Trace>) -> Result<()> {
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
        let watched = Watched {
            proc: Some(Arc::clone(proc)),
            trace: Arc::clone(trace),
            abi: proc.abi(),
            hidden: false,
            held: Vec::new(),
        };
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
                let held = std::mem::take(&mut old.held);
                let watched = Watched { abi: old.abi, hidden: old.hidden, held, ..watched };
                *old = watched;
                self.applied(to, pid);
            }
            false => {
                if let Some(slot) = self.slot(to) {
                    slot.watched.insert(pid, watched);
                    slot.empty = None;
                }
                self.applied(to, pid);
                if let Err(error) = self.maps.trace(pid, trace, to as u32, hidden, before.is_some()) {
                    self.forget(to, pid);
                    return Err(match before {
                        Some(from) => self.ended(from, proc, error),
                        None => error,
                    });
                }
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
        self.maps.release(pid);
        if let Some(at) = self.find(pid) {
            self.settle_slot(at);
            self.forget(at, pid);
        }
    }

    /// What happened to it before is in its sink.
    pub(super) fn settle(&mut self, pid: i32) {
        match self.find(pid) {
            Some(at) => self.settle_slot(at),
            // Its birth is on its way.
            None if !self.is_idle() && self.maps.knows(pid) => {
                (0..self.slots.len()).for_each(|at| self.settle_slot(at));
            }
            None => {}
        }
    }

    /// Lets every process go.
    pub(super) fn release_all(&mut self) {
        let pids: Vec<i32> =
            self.slots.iter().flatten().flat_map(|slot| slot.watched.keys().copied()).collect();
        pids.into_iter().for_each(|pid| self.release(pid));
        let _ = self.attach(None);
    }

    /// The call this thread is in makes no record of its end.
    pub(super) fn excuse(&mut self, tid: i32) {
        self.maps.excuse(tid);
    }

    /// Reads what is there, of each sink at most a turn; gives how many events that were.
    pub(super) fn pass(&mut self) -> usize {
        let offset = offset_now();
        if (offset - self.out.offset).abs() > STEP_MIN {
            self.out.offset = offset;
        }
        let mut count = 0;
        for at in 0..self.slots.len() {
            let Some(slot) = &mut self.slots[at] else { continue };
            // Only here: whoever reads up to a place must not find other rings there.
            slot.tend(at, &mut self.maps, &self.epoll);
            count += self.read(at);
        }
        count
    }

    /// When there is nothing to be read: lets go of what nobody needs.
    pub(super) fn tidy(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.bury();
        }
        self.leaving.retain(|leaving| !leaving.change.is_done());
        let (mut live, mut leaving) = (false, Vec::new());
        for at in 0..self.slots.len() {
            let Some(slot) = &mut self.slots[at] else { continue };
            live = true;
            if !slot.watched.is_empty() {
                continue;
            }
            if slot.empty.get_or_insert_with(Instant::now).elapsed() > GRACE {
                self.maps.close(at as u32);
                if let Some(rings) = slot.leave(&self.epoll) {
                    leaving.push((at, rings));
                    self.slots[at] = None;
                }
            }
        }
        self.vacate(leaving);
        if !live {
            self.maps.forget_filters();
        }
        let wanted = self.wanted();
        if let Err(error) = self.attach(wanted) {
            log::warn!("eBPF: {error}");
        }
    }

    /// True while there is a ring.
    pub(super) fn is_idle(&self) -> bool {
        self.attached.is_none() && self.leaving.is_empty() && self.slots.iter().all(Option::is_none)
    }

    /// The kernel lets go of these rings; their memory is given back when it has.
    fn vacate(&mut self, rings: Vec<(usize, Rings)>) {
        if rings.is_empty() {
            return;
        }
        let counts: Vec<_> = rings.iter().map(|(at, rings)| (*at as u32, rings.count())).collect();
        match self.maps.vacate(&counts) {
            Ok(change) => {
                let (slots, _rings) = rings.into_iter().unzip();
                self.leaving.push(Leaving { slots, _rings, change });
            }
            // They stay where they are until others take their place.
            Err(error) => log::warn!("eBPF: {error}"),
        }
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
        all.map(|watched| watched.trace.facs).reduce(|all, facs| all | facs)
    }

    fn attach(&mut self, facs: Option<Facs>) -> Result<()> {
        if facs == self.attached {
            return Ok(());
        }
        self.programs.attach(facs).map_err(|error| Error::Unsupported { what: error.into() })?;
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
        let leaving = |at: &usize| self.leaving.iter().any(|leaving| leaving.slots.contains(at));
        let is_free = |at: &usize| self.slots[*at].is_none() && !leaving(at);
        let at = (0..self.slots.len()).find(is_free).ok_or_else(|| Error::NoSpace {
            what: format!("there are {SLOTS} trace files already").into(),
        })?;
        self.slots[at] = Some(Slot::open(at, sink, &mut self.maps, &self.epoll)?);
        Ok(at)
    }

    /// Takes a process out of a slot. What was lost is told before its sink may end.
    fn forget(&mut self, at: usize, pid: i32) -> Option<Watched> {
        let slot = self.slots[at].as_mut()?;
        let (records, bytes) = self.maps.take_lost(at as u32);
        if records > 0 {
            slot.sink.lose_many(records, bytes);
        }
        slot.watched.remove(&pid)
    }

    /// R31, and whether its memory may be shown.
    fn applied(&mut self, at: usize, pid: i32) {
        let Some(watched) = self.slots[at].as_mut().and_then(|slot| slot.watched.get_mut(&pid)) else {
            return;
        };
        let comm = Stat::of(pid).map(|stat| stat.comm).unwrap_or_default();
        let time = self.out.time(nanoseconds(ClockId::CLOCK_MONOTONIC) as u64);
        let stamp = Stamp { time, pid, tid: pid, comm };
        let trace = Arc::clone(&watched.trace);
        let to = At { trace: &trace, stamp: &stamp, abi: watched.abi };
        self.out.recorder.emul(to);
        let hidden = is_hidden(&trace, pid);
        note_hidden(&mut self.out.recorder, watched, to, hidden);
        if !trace.facs.contains(Facs::EMUL) {
            self.out.recorder.note(to, &format!("set {}", trace.facs));
        }
    }

    /// Reads until all that was in the rings before is in the sink.
    fn settle_slot(&mut self, at: usize) {
        let Some(slot) = &self.slots[at] else { return };
        let places = slot.produced();
        let begun = Instant::now();
        while self.slots[at].as_ref().is_some_and(|slot| !slot.has_read(&places)) {
            if self.read(at) == 0 {
                if begun.elapsed() > STUCK_MAX {
                    return log::error!("eBPF: an event in a ring is not finished");
                }
                // A program is in the midst of it, on another cpu.
                std::hint::spin_loop();
            }
        }
    }

    fn read(&mut self, at: usize) -> usize {
        let Drain { procs, maps, slots, out, .. } = self;
        let Some(slot) = slots[at].as_mut() else { return 0 };
        let count = slot.read(TURN, |sink, watched, bytes| {
            if let Some((head, event)) = event::parse(bytes) {
                let mut one = One { procs, maps, sink, watched, out, slot: at as u32 };
                one.event(&head, event);
            }
        });
        out.events += count as u64;
        if maps.is_dead(at as u32) && slot.is_read() {
            // R30.
            slot.sink.give_up(libc::EAGAIN);
        }
        count
    }
}
