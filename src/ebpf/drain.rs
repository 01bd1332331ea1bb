//! The rings and who writes into them: makes, reads, grows and drops them, and keeps the kernel's maps as control wants them.
//! What an event means is in [`super::observe`].

mod rescan;
mod round;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::Epoll;
use nix::time::ClockId;

use self::round::Turn;
use super::kernel::Maps;
use super::load::{self, Limits, Misses, Programs};
use super::observe::{One, Out, Watched, is_hidden, nanoseconds, note_hidden, offset_now};
use super::places::Change;
use super::slot::{Rings, Slot};
use crate::cred;
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::hooks::{At, Recorder};
use crate::pids::Pids;
use crate::proc::{self, Auxv, Proc, ProcId, ProcTable, Stat, Trace};
use crate::record::Stamp;
use crate::sink::Sink;

/// Rings that nobody is left to write to are kept so long: a program that began before may be about to.
const GRACE: Duration = Duration::from_millis(200);
/// How often it looks for processes whose end no ring had room to tell.
const LOOK: Duration = Duration::from_secs(1);
/// In one of so many looks it asks /proc for each: the kernel's side lets go of all whose end it sees.
const ASK: u32 = 16;

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
    turn: Turn,
    leaving: Vec<Leaving>,
    /// Knows the descriptors of all rings.
    epoll: Arc<Epoll>,
    out: Out,
    attached: Option<Facs>,
    /// Of whom it is seen only whether an exec gives them privilege, and what is to be traced of them.
    held: Pids<Facs>,
    looked: Instant,
    looks: u32,
    misses: Misses,
    /// Births, execs or deaths were missed since it was last looked for them.
    owes: bool,
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
        let out = Out { recorder, offset: offset_now(), events: 0, warned: None, knows_inodes: false };
        let slots = (0..limits.files).map(|_| None).collect();
        let (attached, held, looked) = (None, Pids::default(), Instant::now());
        let leaving = Vec::new();
        Drain {
            procs,
            programs,
            maps,
            slots,
            turn: Turn::default(),
            leaving,
            epoll,
            out,
            attached,
            held,
            looked,
            looks: 0,
            misses: Misses::default(),
            owes: false,
            limits,
        }
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
        let held = self.attach_more(trace.facs).and_then(|()| self.maps.hold(pid, trace, to as u32));
        if held.is_err() {
            self.release(pid);
        }
        held.map(|()| true)
    }

    /// Runs of our programs that the kernel has left out since the start.
    pub(super) fn misses(&mut self) -> u64 {
        let misses = self.programs.misses();
        let left_out = misses.all.saturating_sub(self.misses.all);
        if left_out > 0 {
            log::warn!("eBPF: {left_out} runs of a program were left out (recursion_misses)");
        }
        self.owes |= misses.lives > self.misses.lives;
        self.misses = misses;
        misses.all
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
        self.attach_more(trace.facs)?;
        let same = before == Some(to);
        if before.is_none() {
            proc.set_abi(Auxv::of(pid).abi);
        }
        let hidden = is_hidden(trace, pid);
        let had_calls = |slot: &Slot| {
            slot.watched.get(pid).is_some_and(|watched| watched.trace.facs.intersects(load::CALLS))
        };
        if !self.slots.iter().flatten().any(had_calls) {
            self.maps.forget_threads(&proc::threads(pid).unwrap_or_default());
        }
        let since = rescan::ticks_now();
        let watched =
            Watched { proc: Some(Arc::clone(proc)), since, ..Watched::new(Arc::clone(trace), proc.abi()) };
        match same {
            // What was taken under the old facilities is recorded under the old and the new.
            true => {
                if let Some(old) = self.slot(to).and_then(|slot| slot.watched.get_mut(pid)) {
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
                let Some(old) = self.slot(to).and_then(|slot| slot.watched.get_mut(pid)) else {
                    return Err(self.ended(to, proc, Error::Gone { pid }));
                };
                (old.proc, old.trace, old.since) = (watched.proc, watched.trace, since);
                let stamp = self.stamp(pid);
                self.applied(to, &stamp, false);
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
                self.applied(to, &stamp, before.is_none());
                if let Some(from) = before {
                    self.settle_slot(from);
                    self.forget(from, pid);
                }
            }
        }
        if proc.id.check().is_err() || proc::is_ending(pid) {
            // It may have ended before the kernel's side knew it: then nobody will tell.
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
        // Nobody is born any more.
        let _ = self.attach(None);
        let first = |slot: &Slot| slot.watched.iter().next().map(|(pid, _)| pid);
        while let Some(pid) = self.slots.iter().flatten().find_map(first) {
            self.release(pid);
        }
    }

    /// Nobody is traced any more, and each trace file says why; the keeper lets go of its processes.
    pub(super) fn give_up(&mut self) {
        let detached = self.attach(None);
        self.out.recorder.flush();
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

    /// True where [`Drain::tidy`] has not looked for long, whoever floods its ring.
    pub(super) fn is_due(&self) -> bool {
        self.looked.elapsed() >= LOOK
    }

    /// When there is nothing to be read: lets go of what nobody needs.
    pub(super) fn tidy(&mut self) {
        if self.is_due() {
            self.looked = Instant::now();
            self.looks = self.looks.wrapping_add(1);
            self.misses();
            let owes = std::mem::take(&mut self.owes);
            self.bury(owes || self.looks.is_multiple_of(ASK));
            if owes {
                self.rescan();
            }
            (0..self.slots.len()).for_each(|at| self.take_in(at));
        }
        self.leaving.retain(|leaving| !leaving.change.is_done());
        let mut leaving = Vec::new();
        for at in 0..self.slots.len() {
            if self.slots[at].as_ref().is_some_and(|slot| slot.is_read()) {
                self.account(at);
            }
            let Some(slot) = &mut self.slots[at] else { continue };
            slot.sink.tell_lost();
            if !slot.watched.is_empty() {
                continue;
            }
            if slot.empty.get_or_insert_with(Instant::now).elapsed() > GRACE
                && let Some(rings) = slot.leave(&self.epoll)
            {
                self.maps.close(at as u32);
                leaving.push((at, rings));
                self.slots[at] = None;
            }
        }
        self.vacate(leaving);
        let wanted = self.wanted();
        if let Err(error) = self.attach(wanted) {
            log::warn!("eBPF: {error}");
        }
    }

    /// True while there is no ring, and no program attached.
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

    /// Those that have ended without a word; `asks`: also where the kernel's side has not seen it.
    fn bury(&mut self, asks: bool) {
        let mut dead = Vec::new();
        for slot in self.slots.iter().flatten() {
            let is_dead = |&(pid, watched): &(i32, &Watched)| {
                let error = || match &watched.proc {
                    Some(proc) => proc.id.check().err(),
                    // Who was gone before anybody heard of it is nothing but a number.
                    None => ProcId::of(pid).err(),
                };
                // What cannot be looked at for want of descriptors is not gone.
                !self.maps.knows(pid) || (asks && matches!(error(), Some(Error::Gone { .. })))
            };
            dead.extend(slot.watched.iter().filter(is_dead).map(|(pid, _)| pid));
        }
        for pid in dead {
            // Where it is still known, somebody else may get its number.
            self.maps.release(pid);
            let Some(at) = self.find(pid) else { continue };
            self.settle_slot(at);
            let Some(Watched { proc: Some(proc), .. }) = self.forget(at, pid) else { continue };
            match proc.id.check() {
                Err(_) => self.procs.exit(&proc),
                // An exec has ended it (R23).
                Ok(_) => proc.set_trace(None),
            }
        }
    }

    /// What is wanted of anybody. More than is attached it never is, so nobody is asked when all of that has been found.
    fn wanted(&self) -> Option<Facs> {
        let watched = self.slots.iter().flatten().flat_map(|slot| slot.watched.iter());
        let mut all = None;
        for facs in watched.map(|(_, watched)| watched.trace.facs).chain(self.held.values().copied()) {
            all = Some(all.unwrap_or(Facs::empty()) | facs);
            if all == self.attached {
                break;
            }
        }
        all
    }

    /// Attaches what these facilities need too.
    fn attach_more(&mut self, facs: Facs) -> Result<()> {
        self.attach(Some(self.attached.unwrap_or(Facs::empty()) | facs))
    }

    fn attach(&mut self, facs: Option<Facs>) -> Result<()> {
        if facs == self.attached {
            return Ok(());
        }
        self.programs.attach(facs).map_err(|error| Error::Unsupported { what: error.into() })?;
        if facs.is_none() {
            // Nobody sees any more how their calls end, and nobody comes or goes.
            self.maps.forget_calls();
            self.maps.recount();
        }
        self.attached = facs;
        Ok(())
    }

    fn slot(&mut self, at: usize) -> Option<&mut Slot> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// The slot of a process.
    fn find(&self, pid: i32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.watched.contains(pid)))
    }

    /// The slot of a sink, made where it has none.
    fn slot_of(&mut self, sink: &Arc<Sink>) -> Result<usize> {
        let is_it = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| Arc::ptr_eq(&slot.sink, sink));
        if let Some(at) = self.slots.iter().position(is_it) {
            return Ok(at);
        }
        let owner = sink.owner();
        let leaving = |at: &usize| self.leaving.iter().any(|leaving| leaving.slots.contains(at));
        let free: Vec<usize> =
            (0..self.slots.len()).filter(|at| self.slots[*at].is_none() && !leaving(at)).collect();
        let own = self.slots.iter().flatten().filter(|slot| slot.sink.owner() == owner).count();
        let (most, used) = (self.slots.len(), self.slots.len() - free.len());
        let Some(&at) = free.first().filter(|_| cred::share_left(most, used, own, owner) > 0) else {
            let what = match free.is_empty() {
                true => format!("there are {most} trace files already"),
                false => format!(
                    "uid {owner} has {own} of {most} trace files, and may not have more than are free"
                ),
            };
            return Err(Error::NoSpace { what: what.into() });
        };
        self.slots[at] = Some(Slot::open(at, sink, &mut self.maps, &self.epoll)?);
        Ok(at)
    }

    /// Takes a process out of a slot. What was lost is told before its sink may end.
    fn forget(&mut self, at: usize, pid: i32) -> Option<Watched> {
        self.account(at);
        self.slots[at].as_mut()?.watched.remove(pid)
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

    /// R31, and whether its memory may be shown; `is_new` where nothing of it was traced before.
    fn applied(&mut self, at: usize, stamp: &Stamp, is_new: bool) {
        let pid = stamp.pid;
        let Some(watched) = self.slots[at].as_mut().and_then(|slot| slot.watched.get_mut(pid)) else {
            return;
        };
        let trace = Arc::clone(&watched.trace);
        let to = At { trace: &trace, stamp, abi: watched.abi };
        self.out.recorder.emul(to);
        let hidden = is_hidden(&trace, pid);
        note_hidden(&mut self.out.recorder, watched, to, hidden);
        if !is_new && !trace.facs.contains(Facs::EMUL) {
            self.out.recorder.note(to, &format!("set {}", trace.facs));
        }
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
}
