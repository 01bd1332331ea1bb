//! From an event of the kernel's side to the hooks: what it means for the stream, and for the table of processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::event::{self, Call, Event, Head};
use super::kernel::{Entry, Maps};
use super::near::Near;
use crate::cred;
use crate::hooks::{self, At, Recorder};
use crate::pids::Pids;
use crate::proc::{Auxv, Proc, ProcId, ProcTable, Stat, Trace};
use crate::record::{self, Args, Psig, Stamp, Time};
use crate::sink::Sink;
use crate::syscall::Abi;

/// So many switches in the midst of execs are held, of one process.
const HELD_MAX: usize = 1024;
/// Both clocks go on at the same pace until one is set: what differs less is how it was measured, and would make times of
/// a thread go back.
pub(super) const STEP_MIN: i64 = 1_000_000;

/// How often it is said at most that too many are traced.
const WARN: Duration = Duration::from_secs(10);

/// A process whose events go into one ring.
pub(super) struct Watched {
    /// `None` where it was gone before the daemon heard of its birth.
    pub(super) proc: Option<Arc<Proc>>,
    pub(super) trace: Arc<Trace>,
    pub(super) abi: Abi,
    pub(super) hidden: bool,
    /// Switches in the midst of an exec: of one that ends tracing they are none of its records (R23).
    pub(super) held: Vec<(Stamp, bool, bool)>,
    /// How threads left their cpu.
    pub(super) left: Pids<bool>,
    /// Which thread was switched last, out or in, and when.
    pub(super) switched: (i32, u64),
    /// A string of an exec of which the rest is to come.
    pub(super) part: Vec<u8>,
    /// It was found, and may yet tell of its birth.
    pub(super) found: bool,
    /// Children that were born after this tick of the clock are traced like it: 0 where it is traced since its own birth.
    pub(super) since: u64,
}

/// How is heard of a birth for which the ring had no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Late {
    /// With the first event that had.
    Told,
    /// We have looked.
    Found,
}

impl Watched {
    pub(super) fn new(trace: Arc<Trace>, abi: Abi) -> Watched {
        let (held, left, part) = (Vec::new(), Pids::default(), Vec::new());
        let switched = (0, 0);
        Watched { proc: None, trace, abi, hidden: false, held, left, switched, part, found: false, since: 0 }
    }

    /// When it was. Since Linux 7.0 a program of an exec or a signal can be preempted when it has read the clock: then the switches of
    /// its thread come before what it tells, with later times, and those of one thread never go back.
    pub(super) fn time_of(&mut self, head: &Head, event: &Event<'_>) -> u64 {
        match (event, self.switched) {
            (Event::Csw { .. }, _) => self.switched = (head.tid, head.ktime),
            (_, (tid, latest)) if tid == head.tid => return head.ktime.max(latest),
            _ => {}
        }
        head.ktime
    }

    /// Makes records of what was held of this thread, or of all.
    #[inline]
    pub(super) fn flush(&mut self, recorder: &mut Recorder, tid: Option<i32>) {
        if !self.held.is_empty() {
            self.flush_held(recorder, tid);
        }
    }

    fn flush_held(&mut self, recorder: &mut Recorder, tid: Option<i32>) {
        for (stamp, out, user) in &self.held {
            if tid.is_none_or(|tid| tid == stamp.tid) {
                recorder.csw(At { trace: &self.trace, stamp, abi: self.abi }, *out, *user);
            }
        }
        self.held.retain(|(stamp, ..)| tid.is_some_and(|tid| tid != stamp.tid));
    }
}

/// What makes the records, and what it remembers from one event to the next.
pub(super) struct Out {
    pub(super) recorder: Recorder,
    /// Realtime less monotonic, in nanoseconds.
    pub(super) offset: i64,
    pub(super) events: u64,
    /// When it was last said that too many are traced.
    pub(super) warned: Option<Instant>,
    /// What the kernel's side tells of newborns has been seen to be the inode numbers of their pidfds.
    pub(super) knows_inodes: bool,
}

impl Out {
    /// Who a newborn is, which may be gone by now. Once the number that is told has been found to be the right one nobody is
    /// looked at for it: a pidfd would be the half of what a birth costs us.
    fn newborn(&mut self, pid: i32, inode: u64) -> Option<ProcId> {
        if self.knows_inodes && inode != 0 {
            return Some(ProcId { pid, inode, start: 0 });
        }
        let id = ProcId::of(pid).ok()?;
        self.knows_inodes = inode != 0 && id.inode == inode;
        Some(id)
    }

    #[inline(always)]
    pub(super) fn time(&self, ktime: u64) -> Time {
        const SECOND: u64 = 1_000_000_000;
        let ns = ktime as i64 + self.offset;
        match u64::try_from(ns) {
            Ok(ns) => Time { sec: (ns / SECOND) as i64, nsec: (ns % SECOND) as i64 },
            Err(_) => Time { sec: ns.div_euclid(SECOND as i64), nsec: ns.rem_euclid(SECOND as i64) },
        }
    }
}

/// Realtime less monotonic, by the narrowest of a few looks.
pub(super) fn offset_now() -> i64 {
    let looks = (0..4).map(|_| {
        let before = nanoseconds(ClockId::CLOCK_MONOTONIC);
        let real = nanoseconds(ClockId::CLOCK_REALTIME);
        let after = nanoseconds(ClockId::CLOCK_MONOTONIC);
        (after - before, real - (before + after) / 2)
    });
    looks.min_by_key(|(width, _)| *width).map_or(0, |(_, offset)| offset)
}

pub(super) fn nanoseconds(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// What one event needs.
pub(super) struct One<'a> {
    pub(super) procs: &'a Arc<ProcTable>,
    pub(super) maps: &'a mut Maps,
    pub(super) sink: &'a Arc<Sink>,
    pub(super) watched: &'a mut Near<Watched>,
    pub(super) out: &'a mut Out,
    pub(super) slot: u32,
}

impl One<'_> {
    /// A call begins or ends: most of all events, so there is nothing here but what they need.
    #[inline(always)]
    pub(super) fn call(&mut self, head: Head, call: Call<'_>) {
        let Some(watched) = self.watched.get_mut(head.pid) else { return };
        let out = &mut *self.out;
        out.recorder.gather();
        if watched.abi != head.abi || !watched.held.is_empty() {
            before_call(out, watched, head);
        }
        // What others are given a reference to is in memory, where it would be read before it has been written: they have their own.
        let stamp = Stamp { time: out.time(head.ktime), pid: head.pid, tid: head.tid, comm: head.comm };
        let at = At { trace: &watched.trace, stamp: &stamp, abi: head.abi };
        match call {
            Call::Begins { args } => out.recorder.syscall(at, head.word as i32, Args::Bytes(args)),
            Call::Ends { result } => out.recorder.sysret(at, head.word as i32, result),
        }
    }

    pub(super) fn event(&mut self, head: &Head, event: Event<'_>) {
        match event {
            Event::Namei(_) | Event::Genio { .. } | Event::Psig { .. } | Event::Csw { .. } => {
                self.out.recorder.gather();
            }
            // Those that are no records may end a sink, or tell it something.
            _ => self.out.recorder.flush(),
        }
        if let Event::Lost { records, bytes } = event {
            return self.sink.lose_many(records, bytes);
        }
        if let Event::Birth(entry) = event {
            return self.born(head.pid, entry, head.ktime, Late::Told);
        }
        let Some(watched) = self.watched.get_mut(head.pid) else {
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
        let time = out.time(watched.time_of(head, &event));
        let stamp = Stamp { time, pid: head.pid, tid: head.tid, comm: head.comm };
        let trace = &*watched.trace;
        let call = At { trace, stamp: &stamp, abi: head.abi };
        let at = At { trace, stamp: &stamp, abi: watched.abi };
        match event {
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
                    false => watched.left.remove(&head.tid).unwrap_or(false),
                };
                if leaves && head.flag & event::LAST == 0 {
                    watched.left.insert(head.tid, user);
                }
                match in_exec {
                    true => watched.held.push((stamp, leaves, user)),
                    false => out.recorder.csw(at, leaves, user),
                }
            }
            Event::Fork { inode } => self.fork(head, &stamp, inode),
            Event::Exec => self.exec(head, &stamp),
            Event::ExecArg(part) => {
                strings(&mut watched.part, head, part, |arg| out.recorder.exec_arg(at, arg));
            }
            Event::ExecEnv(part) => {
                strings(&mut watched.part, head, part, |env| out.recorder.exec_env(at, env));
            }
            Event::Exit => self.exit(head),
            Event::Access => self.access(head, &stamp),
            Event::Lost { .. } | Event::Birth(_) => {}
        }
    }

    /// R22.
    fn fork(&mut self, head: &Head, stamp: &Stamp, inode: u64) {
        let child = head.word as i32;
        let Some(parent) = self.watched.get(head.pid) else { return };
        // Not what its parent has now, but what it had.
        let (abi, trace) = (parent.abi, Arc::clone(&parent.trace));
        let proc = self.out.newborn(child, inode).and_then(|id| self.procs.newborn(id));
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
        let id = proc.as_ref().map(|proc| proc.id);
        let before = self.watched.insert(child, Watched { proc, hidden, ..Watched::new(trace, abi) });
        if let Some(it) = before.and_then(|before| before.proc).filter(|it| Some(it.id) != id) {
            // Whoever had the number, of whose end no ring had room to tell.
            self.procs.exit(&it);
        }
    }

    /// Those of whose birth the ring has not told.
    pub(super) fn take_in(&mut self) {
        for (pid, entry) in self.maps.untold(self.slot) {
            self.born(pid, entry, nanoseconds(ClockId::CLOCK_MONOTONIC) as u64, Late::Found);
        }
    }

    /// R22, for a child of whom is heard when its parent may be gone, or traced otherwise: it has what its entry says.
    fn born(&mut self, pid: i32, entry: Entry, ktime: u64, late: Late) {
        let id = ProcId::of(pid).ok();
        if let Some(watched) = self.watched.get(pid) {
            let is_it = watched.proc.as_ref().map(|proc| proc.id) == id || (id.is_none() && watched.found);
            if is_it && (watched.found || late == Late::Found) {
                return;
            }
            // Its number was another's, of whose end the ring has not told.
            if let Some(Watched { proc: Some(proc), .. }) = self.watched.remove(pid) {
                self.procs.exit(&proc);
            }
        }
        let trace = Arc::new(self.maps.trace_of(entry, self.sink));
        if self.sink.end().is_some() {
            return self.maps.release(pid);
        }
        let abi = Auxv::of(pid).abi;
        let hidden = entry.is_hidden();
        let proc = id.map(|id| self.procs.entry(id));
        let comm = Stat::of(pid).map(|stat| stat.comm).unwrap_or_default();
        let stamp = Stamp { time: self.out.time(ktime), pid, tid: pid, comm };
        self.out.recorder.emul(At { trace: &trace, stamp: &stamp, abi });
        if let Some(proc) = &proc {
            proc.set_abi(abi);
            proc.set_trace(Some(Arc::clone(&trace)));
            proc.bind();
            proc.set_opaque(hidden);
        }
        let found = late == Late::Found;
        self.watched.insert(pid, Watched { proc, hidden, found, ..Watched::new(trace, abi) });
    }

    fn exec(&mut self, head: &Head, stamp: &Stamp) {
        let Some(watched) = self.watched.get_mut(head.pid) else { return };
        let trace = Arc::clone(&watched.trace);
        if head.flag & event::ENDED != 0 {
            if let Some(proc) = &watched.proc {
                hooks::exec(proc, &trace, true);
                // Whatever was set meanwhile: the kernel's side has let it go, and `apply` lets nobody in again.
                proc.set_trace(None);
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
        if let Some(Watched { proc: Some(proc), .. }) = self.end(head.pid) {
            self.procs.exit(&proc);
        }
    }

    fn end(&mut self, pid: i32) -> Option<Watched> {
        if self.watched.len() == 1 {
            // With its last process the sink ends.
            self.take_in();
        }
        self.account();
        self.watched.remove(pid)
    }

    /// Losses that no event has told of.
    pub(super) fn account(&mut self) {
        let (records, bytes) = self.maps.take_lost(self.slot);
        if records > 0 {
            self.sink.lose_many(records, bytes);
        }
        let untraced = self.maps.untraced(self.slot);
        if untraced > 0 && self.sink.tell_of(&format!("{untraced} children are not traced: too many are")) {
            self.maps.told_untraced(self.slot, untraced);
            if self.out.warned.is_none_or(|warned| warned.elapsed() > WARN) {
                self.out.warned = Some(Instant::now());
                let owner = self.sink.owner();
                log::warn!("{untraced} children are not traced: too many processes are for uid {owner}");
            }
        }
    }

    /// Ids or dumpability may be others now.
    fn access(&mut self, head: &Head, stamp: &Stamp) {
        let Some(watched) = self.watched.get_mut(head.pid) else { return };
        let trace = Arc::clone(&watched.trace);
        let (before, hidden) = (watched.hidden, is_hidden_then(head, &trace));
        let at = At { trace: &trace, stamp, abi: head.abi };
        note_hidden(&mut self.out.recorder, watched, at, hidden);
        if trace.sink().owner() == 0 && hidden != before && self.maps.knows(head.pid) {
            let _ = self.maps.trace(head.pid, &trace, self.slot, hidden, true);
        }
    }
}

/// What comes before the records of a call, where it is not as the one before.
#[cold]
#[inline(never)]
fn before_call(out: &mut Out, watched: &mut Watched, head: Head) {
    watched.flush(&mut out.recorder, Some(head.tid));
    let stamp = Stamp { time: out.time(head.ktime), pid: head.pid, tid: head.tid, comm: head.comm };
    let at = At { trace: &watched.trace, stamp: &stamp, abi: head.abi };
    door(&mut out.recorder, &mut watched.abi, watched.proc.as_deref(), at);
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

pub(super) fn is_hidden(trace: &Trace, pid: i32) -> bool {
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
pub(super) fn note_hidden(recorder: &mut Recorder, watched: &mut Watched, at: At<'_>, hidden: bool) {
    if std::mem::replace(&mut watched.hidden, hidden) != hidden {
        recorder.note(at, if hidden { record::HIDDEN } else { record::SHOWN });
    }
    if let Some(proc) = &watched.proc {
        proc.set_opaque(hidden);
    }
}

/// The strings of an exec: one longer than an event comes in parts. Of one whose rest had no room a part may be left.
fn strings(part: &mut Vec<u8>, head: &Head, bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let (more, rest) = (head.flag & event::MORE != 0, head.flag & event::REST != 0);
    if !rest {
        part.clear();
    }
    match (rest, more) {
        (false, false) => each(bytes),
        (_, true) => part.extend_from_slice(bytes),
        (true, false) => {
            part.extend_from_slice(bytes);
            each(&std::mem::take(part));
        }
    }
}

fn psig(signo: i32, action: u64, mask: u64, info: &[u8]) -> Psig {
    let word = |at: usize| info.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_le_bytes(*b));
    let mut payload = [0; 32];
    payload.iter_mut().zip(info.iter().skip(16)).for_each(|(to, from)| *to = *from);
    let mask = [mask as u32, (mask >> 32) as u32, 0, 0];
    Psig { action, mask, ..Psig::of(signo, word(4), word(8), &payload) }
}
