//! From the kernel's events to the hooks: reads the rings and knows whose trace each process's events belong to.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::time::{ClockId, clock_gettime};

use super::event::{self, Event, Head};
use super::kernel::{Maps, SLOTS};
use super::load::{self, Programs};
use super::ring::Ring;
use crate::cred;
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::hooks::{self, At, Recorder};
use crate::proc::{self, Auxv, Proc, ProcId, ProcTable, Stat, Trace};
use crate::record::{self, Psig, Stamp, Time};
use crate::sink::{Room, Sink};
use crate::syscall::Abi;

/// Least and most bytes of a ring in the kernel. Its memory is all there from the start, so where there are many they begin
/// small and grow when they fill.
const RING_MIN: usize = 128 << 10;
const RING_MAX: usize = 16 << 20;
/// Which part of a small ring must be found full for a large one.
const GROW_AT: usize = 8;
/// Events that are read from one ring before the others have their turn.
const TURN: usize = 16384;
/// A ring that nobody is left to write to is kept so long: a program that began before may be about to.
const GRACE: Duration = Duration::from_millis(200);
/// Both clocks go on at the same pace until one is set: what differs less is how it was measured, and would make times of
/// a thread go back.
const STEP_MIN: i64 = 1_000_000;
/// So many switches in the midst of execs are held, of one process.
const HELD_MAX: usize = 1024;
/// How often it looks for processes whose end the ring had no room to tell.
const LOOK: Duration = Duration::from_secs(1);

/// Keyed by numbers of processes, which nobody can choose so that they collide: found for each event, so quickly.
type Pids<T> = HashMap<i32, T, BuildHasherDefault<ByPid>>;

#[derive(Default)]
struct ByPid(u64);

impl Hasher for ByPid {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_i32(i32::from(byte)));
    }

    fn write_i32(&mut self, pid: i32) {
        self.0 = (self.0 ^ pid as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A process whose events go into one ring.
struct Watched {
    /// `None` where it was gone before the daemon heard of its birth.
    proc: Option<Arc<Proc>>,
    trace: Arc<Trace>,
    abi: Abi,
    hidden: bool,
    /// Switches in the midst of an exec: of one that ends tracing they are none of its records (R23).
    held: Vec<(Stamp, bool, bool)>,
}

impl Watched {
    /// Makes records of what was held of this thread, or of all.
    fn flush(&mut self, recorder: &mut Recorder, tid: Option<i32>) {
        if self.held.is_empty() {
            return;
        }
        for (stamp, out, user) in &self.held {
            if tid.is_none_or(|tid| tid == stamp.tid) {
                recorder.csw(At { trace: &self.trace, stamp, abi: self.abi }, *out, *user);
            }
        }
        self.held.retain(|(stamp, ..)| tid.is_some_and(|tid| tid != stamp.tid));
    }
}

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
    looked: Instant,
}

/// What makes the records, and what it remembers from one event to the next.
struct Out {
    recorder: Recorder,
    /// Realtime less monotonic, in nanoseconds.
    offset: i64,
    /// Strings of an exec that came in part, by thread.
    parts: HashMap<i32, Vec<u8>>,
    /// How threads left their cpu.
    left: HashMap<i32, bool>,
    events: u64,
}

impl Out {
    fn time(&self, ktime: u64) -> Time {
        let ns = ktime as i64 + self.offset;
        Time { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) }
    }
}

/// Realtime less monotonic, by the narrowest of a few looks.
fn offset_now() -> i64 {
    let looks = (0..4).map(|_| {
        let before = nanoseconds(ClockId::CLOCK_MONOTONIC);
        let real = nanoseconds(ClockId::CLOCK_REALTIME);
        let after = nanoseconds(ClockId::CLOCK_MONOTONIC);
        (after - before, real - (before + after) / 2)
    });
    looks.min_by_key(|(width, _)| *width).map_or(0, |(_, offset)| offset)
}

fn nanoseconds(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

impl Drain {
    pub(super) fn new(procs: Arc<ProcTable>, programs: Programs, maps: Maps, epoll: Arc<Epoll>) -> Drain {
        let recorder = Recorder::new(Arc::clone(&procs));
        let (parts, left) = (HashMap::new(), HashMap::new());
        let out = Out { recorder, offset: offset_now(), parts, left, events: 0 };
        let slots = (0..SLOTS).map(|_| None).collect();
        Drain { procs, programs, maps, slots, epoll, out, attached: None, looked: Instant::now() }
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
                self.maps.trace(pid, trace, to as u32, hidden)?;
                self.settle_slot(to);
                // It may have died meanwhile.
                let Some(old) = self.slot(to).and_then(|slot| slot.watched.get_mut(&pid)) else {
                    return Err(Error::Gone { pid });
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
                if let Err(error) = self.maps.trace(pid, trace, to as u32, hidden) {
                    self.forget(to, pid);
                    return Err(error);
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
        if let Some(at) = self.find(pid) {
            self.settle_slot(at);
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

    /// Reads what is there, of each ring at most a turn; gives how many events that were.
    pub(super) fn pass(&mut self) -> usize {
        let offset = offset_now();
        if (offset - self.out.offset).abs() > STEP_MIN {
            self.out.offset = offset;
        }
        (0..self.slots.len()).map(|at| if self.slots[at].is_some() { self.read(at) } else { 0 }).sum()
    }

    /// When there is nothing to be read: lets go of what nobody needs.
    pub(super) fn tidy(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.bury();
        }
        let mut live = false;
        for at in 0..self.slots.len() {
            let Some(slot) = &mut self.slots[at] else { continue };
            live = true;
            if !slot.watched.is_empty() {
                continue;
            }
            if slot.empty.get_or_insert_with(Instant::now).elapsed() > GRACE {
                self.maps.close(at as u32);
                self.slots[at] = None;
            }
        }
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
        let at = self.slots.iter().position(Option::is_none).ok_or_else(|| Error::NoSpace {
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
        if size == RING_MIN {
            return;
        }
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

    /// Reads until all that was in the ring before is in the sink.
    fn settle_slot(&mut self, at: usize) {
        let Some(slot) = &self.slots[at] else { return };
        let place = slot.ring.produced();
        while self.slots[at].as_ref().is_some_and(|slot| !slot.ring.has_read(place)) {
            if self.read(at) == 0 {
                // A program is in the midst of it, on another cpu.
                std::hint::spin_loop();
            }
        }
    }

    fn read(&mut self, at: usize) -> usize {
        if self.slots[at].as_ref().is_some_and(|slot| !slot.grown && slot.ring.unread() > RING_MIN / GROW_AT)
        {
            self.grow(at);
        }
        let Drain { procs, maps, slots, out, .. } = self;
        let Some(slot) = slots[at].as_mut() else { return 0 };
        let Slot { sink, ring, watched, .. } = slot;
        let count = ring.read(TURN, |bytes| {
            if let Some((head, event)) = event::parse(bytes) {
                let mut one = One { procs, maps, sink, watched, out, slot: at as u32 };
                one.event(&head, event);
            }
        });
        out.events += count as u64;
        if maps.is_dead(at as u32) && ring.has_read(ring.produced()) {
            // R30.
            sink.give_up(libc::EAGAIN);
        }
        count
    }
}

/// Bytes of the ring of a sink that fills.
fn full_size(sink: &Sink) -> usize {
    sink.size().next_power_of_two().clamp(RING_MIN, RING_MAX)
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

/// What one event needs.
struct One<'a> {
    procs: &'a Arc<ProcTable>,
    maps: &'a mut Maps,
    sink: &'a Arc<Sink>,
    watched: &'a mut Pids<Watched>,
    out: &'a mut Out,
    slot: u32,
}

impl One<'_> {
    fn event(&mut self, head: &Head, event: Event<'_>) {
        if let Event::Lost { records, bytes } = event {
            return self.sink.lose_many(records, bytes);
        }
        let Some(watched) = self.watched.get_mut(&head.pid) else {
            // Born of a process that was let go at that very moment.
            if let Event::Fork { .. } = event {
                self.maps.release(head.word as i32);
            }
            return;
        };
        let out = &mut *self.out;
        let in_exec = matches!(event, Event::Csw { .. }) && head.flag & event::IN_EXEC != 0;
        if matches!(event, Event::Exit) || watched.held.len() > HELD_MAX {
            watched.flush(&mut out.recorder, None);
        } else if !in_exec && !matches!(event, Event::Exec) {
            watched.flush(&mut out.recorder, Some(head.tid));
        }
        let stamp = Stamp { time: out.time(head.ktime), pid: head.pid, tid: head.tid, comm: head.comm };
        let trace = &*watched.trace;
        let call = At { trace, stamp: &stamp, abi: head.abi };
        let at = At { trace, stamp: &stamp, abi: watched.abi };
        match event {
            Event::Syscall { args } => {
                door(&mut out.recorder, &mut watched.abi, watched.proc.as_deref(), call);
                let count = usize::from(head.flag).min(args.len());
                out.recorder.syscall(call, head.word as i32, &args[..count]);
            }
            Event::Sysret { result } => {
                door(&mut out.recorder, &mut watched.abi, watched.proc.as_deref(), call);
                out.recorder.sysret(call, head.word as i32, result);
            }
            Event::Namei(path) => out.recorder.namei(call, path),
            Event::Genio { fd, data } => {
                door(&mut out.recorder, &mut watched.abi, watched.proc.as_deref(), call);
                out.recorder.genio(call, fd, head.flag != 0, data);
            }
            Event::Psig { action, mask, info } => {
                out.recorder.psig(at, psig(head.word as i32, action, mask, info))
            }
            Event::Csw { out: leaves, user } => {
                // A thread comes back as it left.
                let user = match leaves {
                    true => user,
                    false => out.left.remove(&head.tid).unwrap_or(false),
                };
                if leaves {
                    out.left.insert(head.tid, user);
                }
                match in_exec {
                    true => watched.held.push((stamp, leaves, user)),
                    false => out.recorder.csw(at, leaves, user),
                }
            }
            Event::Fork { failed } => self.fork(head, &stamp, failed),
            Event::Exec => self.exec(head, &stamp),
            Event::ExecArg(part) => strings(&mut out.parts, head, part, |arg| out.recorder.exec_arg(at, arg)),
            Event::ExecEnv(part) => strings(&mut out.parts, head, part, |env| out.recorder.exec_env(at, env)),
            Event::Exit => self.exit(head),
            Event::Access => self.access(head, &stamp),
            Event::Lost { .. } => {}
        }
    }

    /// R22.
    fn fork(&mut self, head: &Head, stamp: &Stamp, failed: bool) {
        let child = head.word as i32;
        let Some(parent) = self.watched.get(&head.pid) else { return };
        let (abi, trace) = (parent.abi, &parent.trace);
        if failed {
            log::warn!("process {child} is not traced: too many are");
            let note = format!("child {child} is not traced: no room in the kernel");
            return self.out.recorder.note(At { trace, stamp, abi }, &note);
        }
        // Not what its parent has now, but what it had.
        let trace = Arc::new(trace.inherited());
        let proc = ProcId::of(child).ok().map(|id| self.procs.entry(id));
        if let Some(proc) = &proc {
            proc.set_abi(abi);
            proc.set_trace(Some(Arc::clone(&trace)));
            proc.bind();
        }
        let stamp = Stamp { pid: child, tid: child, ..*stamp };
        let at = At { trace: &trace, stamp: &stamp, abi };
        self.out.recorder.emul(at);
        let hidden = parent.hidden;
        if let Some(proc) = &proc {
            proc.set_opaque(hidden);
        }
        self.watched.insert(child, Watched { proc, trace, abi, hidden, held: Vec::new() });
    }

    fn exec(&mut self, head: &Head, stamp: &Stamp) {
        let Some(watched) = self.watched.get_mut(&head.pid) else { return };
        let trace = Arc::clone(&watched.trace);
        if head.flag & event::ENDED != 0 {
            if let Some(proc) = &watched.proc {
                hooks::exec(proc, &trace, true);
                proc.swap_trace(Some(&trace), None);
            }
            return self.end(head.pid).map_or((), drop);
        }
        watched.flush(&mut self.out.recorder, None);
        watched.abi = head.abi;
        if let Some(proc) = &watched.proc {
            proc.set_abi(head.abi);
        }
        let at = At { trace: &trace, stamp, abi: head.abi };
        self.out.recorder.emul(at);
        note_hidden(&mut self.out.recorder, watched, at, is_hidden_then(head, &trace));
    }

    fn exit(&mut self, head: &Head) {
        self.out.left.remove(&head.tid);
        self.out.parts.remove(&head.tid);
        if let Some(Watched { proc: Some(proc), .. }) = self.end(head.pid) {
            self.procs.exit(&proc);
        }
    }

    fn end(&mut self, pid: i32) -> Option<Watched> {
        let (records, bytes) = self.maps.take_lost(self.slot);
        if records > 0 {
            self.sink.lose_many(records, bytes);
        }
        self.watched.remove(&pid)
    }

    /// Ids or dumpability may be others now.
    fn access(&mut self, head: &Head, stamp: &Stamp) {
        let Some(watched) = self.watched.get_mut(&head.pid) else { return };
        let trace = Arc::clone(&watched.trace);
        let (before, hidden) = (watched.hidden, is_hidden_then(head, &trace));
        let at = At { trace: &trace, stamp, abi: head.abi };
        note_hidden(&mut self.out.recorder, watched, at, hidden);
        if trace.sink().owner() == 0 && hidden != before && self.maps.knows(head.pid) {
            let _ = self.maps.trace(head.pid, &trace, self.slot, hidden);
        }
    }
}

/// EMUL whenever the ABI of a call differs from that of the last one of its process.
fn door(recorder: &mut Recorder, abi: &mut Abi, proc: Option<&Proc>, at: At<'_>) {
    if *abi != at.abi {
        *abi = at.abi;
        if let Some(proc) = proc {
            proc.set_abi(at.abi);
        }
        recorder.emul(at);
    }
}

fn is_hidden(trace: &Trace, pid: i32) -> bool {
    !trace.is_roots() && !cred::sees_memory(trace.sink().owner(), pid)
}

/// What the kernel's side saw at the time. The mere id 0 tells it nothing: see [`cred::sees_memory`].
fn is_hidden_then(head: &Head, trace: &Trace) -> bool {
    match trace.sink().owner() {
        0 => is_hidden(trace, head.pid),
        _ => head.flag & event::HIDDEN != 0,
    }
}

/// Says whether the memory of a process may be shown to whom its trace belongs to, where that has changed.
fn note_hidden(recorder: &mut Recorder, watched: &mut Watched, at: At<'_>, hidden: bool) {
    if std::mem::replace(&mut watched.hidden, hidden) != hidden {
        recorder.note(at, if hidden { record::HIDDEN } else { record::SHOWN });
    }
    if let Some(proc) = &watched.proc {
        proc.set_opaque(hidden);
    }
}

/// The strings of an exec: one longer than an event comes in parts.
fn strings(parts: &mut HashMap<i32, Vec<u8>>, head: &Head, part: &[u8], mut each: impl FnMut(&[u8])) {
    let more = head.flag & event::MORE != 0;
    if more || (!parts.is_empty() && parts.contains_key(&head.tid)) {
        parts.entry(head.tid).or_default().extend_from_slice(part);
        if !more {
            each(&parts.remove(&head.tid).unwrap_or_default());
        }
    } else {
        each(part);
    }
}

fn psig(signo: i32, action: u64, mask: u64, info: &[u8]) -> Psig {
    let word = |at: usize| info.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_le_bytes(*b));
    let mut payload = [0; 32];
    payload.iter_mut().zip(info.iter().skip(16)).for_each(|(to, from)| *to = *from);
    let mask = [mask as u32, (mask >> 32) as u32, 0, 0];
    Psig { action, mask, ..Psig::of(signo, word(4), word(8), &payload) }
}
