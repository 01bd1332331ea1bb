//! What a tracer thread knows of each thread and each process it traces.

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use libc::user_regs_struct;

use super::Meter;
use super::let_go::Told;
use super::memory::Memory;
use super::restart::Sleep;
use super::stop::Traced;
use super::switches::Switches;
use crate::facility::Facs;
use crate::hooks::At;
use crate::pids::PidSet;
use crate::proc::{Proc, Trace};
use crate::record::{Comm, Psig, Stamp, Time};
use crate::syscall::{self, Abi, Syscall};

/// The system call a thread is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) abi: Abi,
    pub(super) number: i64,
    pub(super) known: Option<&'static Syscall>,
    pub(super) args: [u64; 6],
    /// False for one that `calls=` leaves out.
    pub(super) wanted: bool,
    pub(super) began: Time,
}

impl Call {
    /// The call by itself and its arguments: what stands behind socketcall(2) and ipc(2), else the call as it is.
    pub(super) fn inner(&self, memory: Memory) -> (Option<&'static Syscall>, [u64; 6]) {
        let words = |addr, count| memory.words(addr, count);
        let inner = self.known.and_then(|known| syscall::multiplexed(known, &self.args, words));
        inner.map_or((self.known, self.args), |(call, args)| (Some(call), args))
    }
}

/// An argument register that a restart has changed, and its value before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed {
    pub(super) register: Register,
    pub(super) was: u64,
}

/// The argument registers that hold timeouts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Register {
    Rdx,
    R10,
    R8,
    /// The fourth argument in i386.
    Rsi,
}

impl Register {
    /// Which argument it holds.
    pub(super) fn argument(self) -> usize {
        match self {
            Register::Rdx => 2,
            Register::R10 | Register::Rsi => 3,
            Register::R8 => 4,
        }
    }

    /// Its place among the registers.
    pub(super) fn of(self, regs: &mut user_regs_struct) -> &mut u64 {
        match self {
            Register::Rdx => &mut regs.rdx,
            Register::R10 => &mut regs.r10,
            Register::R8 => &mut regs.r8,
            Register::Rsi => &mut regs.rsi,
        }
    }
}

/// One traced thread.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) thread: Traced,
    pub(super) tid: i32,
    pub(super) pid: i32,
    pub(super) proc: Arc<Proc>,
    pub(super) meter: Arc<Meter>,
    /// What is traced; `None` while it waits for the stop at which it can be detached.
    pub(super) trace: Option<Arc<Trace>>,
    pub(super) comm: Comm,
    /// An interrupt was sent and its stop has not been seen.
    pub(super) interrupted: bool,
    pub(super) call: Option<Call>,
    /// The result of a call that may turn out never to have returned (hazard 1): held until the next stop tells.
    pub(super) held: Option<(Time, i64)>,
    /// The call restarted after an interrupt of ours: its second entry is not an event of the program.
    pub(super) restarting: bool,
    /// The argument that a restart has changed, as the program had it (hazard 1).
    pub(super) changed: Option<Changed>,
    /// The sleep that our last stop fell into.
    pub(super) sleep: Option<Sleep>,
    /// A caught signal on its way to its handler (hazard 10).
    pub(super) signal: Option<(Time, Psig)>,
    /// Its context switches, where they are wanted.
    pub(super) switches: Option<Switches>,
    /// They cannot be had.
    pub(super) blind: bool,
    /// It has a filter that needs us: it is never let go.
    pub(super) filtered: bool,
}

impl Task {
    pub(super) fn new(thread: Traced, tid: i32, group: &Group, comm: Comm) -> Task {
        Task {
            thread,
            tid,
            pid: group.proc.id.pid,
            proc: Arc::clone(&group.proc),
            meter: Arc::clone(&group.meter),
            trace: group.trace.clone(),
            comm,
            interrupted: false,
            call: None,
            held: None,
            restarting: false,
            changed: None,
            sleep: None,
            signal: None,
            switches: None,
            blind: false,
            filtered: group.is_filtered(),
        }
    }

    /// True where its filter, and not every call, stops it.
    fn is_sifted(&self) -> bool {
        self.filtered && self.trace.as_ref().is_some_and(|t| t.seccomp)
    }

    /// True where its context switches are wanted.
    pub(super) fn wants_switches(&self) -> bool {
        self.trace.as_ref().is_some_and(|t| t.facs.contains(Facs::CSW))
    }

    /// Interrupts it, so that it stops soon; `Trap` follows.
    pub(super) fn interrupt(&mut self) {
        self.thread.interrupt();
        self.interrupted = true;
    }

    /// Stamps an event of this thread.
    pub(super) fn stamp(&self, time: Time) -> Stamp {
        Stamp { time, pid: self.pid, tid: self.tid, comm: self.comm }
    }

    /// Reads its name again: at attach, exec and prctl(2).
    pub(super) fn refresh_comm(&mut self) {
        self.comm = comm_of(self.pid, self.tid).unwrap_or(self.comm);
    }

    /// True where the next system call, or the end of this one, must stop it.
    pub(super) fn needs_calls(&self, privileged: bool) -> bool {
        match self.is_sifted() {
            true => self.call.is_some() || self.held.is_some(),
            false => self.trace.as_ref().is_some_and(|t| needs_calls(t, privileged)),
        }
    }
}

/// True where this needs stops at system calls (those of a set-id exec too, where we could not keep its privilege).
pub(super) fn needs_calls(trace: &Trace, privileged: bool) -> bool {
    const CALLS: Facs =
        Facs::SYSCALL.union(Facs::SYSRET).union(Facs::NAMEI).union(Facs::GENIO).union(Facs::EMUL);
    trace.facs.intersects(CALLS) || !privileged
}

/// Name of a thread.
pub(super) fn comm_of(pid: i32, tid: i32) -> Option<Comm> {
    let mut name = [0; 64];
    let len = fs::File::open(format!("/proc/{pid}/task/{tid}/comm"))
        .and_then(|mut comm| comm.read(&mut name))
        .ok()?;
    let name = &name[..len];
    Some(Comm::new(name.strip_suffix(b"\n").unwrap_or(name)))
}

/// One traced process.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) proc: Arc<Proc>,
    pub(super) meter: Arc<Meter>,
    pub(super) trace: Option<Arc<Trace>>,
    pub(super) threads: PidSet,
    /// Who waits for a change to be in force, and for which threads.
    pub(super) changes: Vec<Pending>,
    /// Threads were seized since all of them were last looked at: each may have been making another one (hazard 2).
    pub(super) unsure: bool,
    /// Its threads have a filter of ours: one of those that hold `Shared::filters`.
    filter: Option<Arc<AtomicBool>>,
}

/// A change that is not in force in all threads yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) left: PidSet,
    pub(super) in_force: Sender<Told>,
}

impl Group {
    pub(super) fn new(proc: Arc<Proc>, meter: Arc<Meter>, trace: Option<Arc<Trace>>) -> Group {
        Group {
            proc,
            meter,
            trace,
            threads: PidSet::default(),
            changes: Vec::new(),
            unsure: false,
            filter: None,
        }
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// It has a filter of ours, for good.
    pub(super) fn set_filtered(&mut self, filters: &Arc<AtomicBool>) {
        filters.store(true, Ordering::Relaxed);
        self.filter = Some(Arc::clone(filters));
    }

    /// A thread more.
    pub(super) fn enter(&mut self, tid: i32) {
        self.threads.insert(tid);
        self.count();
    }

    /// A thread less: it died, or was detached.
    pub(super) fn leave(&mut self, tid: i32) {
        self.threads.remove(&tid);
        self.settled(tid);
        self.count();
    }

    fn count(&self) {
        self.meter.threads.store(self.threads.len() as u64, Ordering::Relaxed);
    }

    /// The thread is about to be let go: who hears of it counts it no more.
    pub(super) fn lets_go(&mut self, tid: i32) {
        self.meter.threads.store(self.threads.len() as u64 - 1, Ordering::Relaxed);
        self.settled(tid);
    }

    /// The thread has stopped since, or is gone.
    pub(super) fn settled(&mut self, tid: i32) {
        for pending in &mut self.changes {
            pending.left.remove(&tid);
        }
    }

    /// True where nothing is left of a change that somebody waits for.
    pub(super) fn is_due(&self) -> bool {
        self.changes.iter().any(|pending| pending.left.is_empty())
    }

    /// Says so to whom waits.
    pub(super) fn tell(&mut self, told: Told) {
        for pending in self.changes.extract_if(.., |pending| pending.left.is_empty()) {
            // Who waited may have given up.
            let _ = pending.in_force.try_send(told);
        }
    }
}

/// The records of `task` go here.
pub(super) fn at<'a>(trace: &'a Trace, stamp: &'a Stamp, abi: Abi) -> At<'a> {
    At { trace, stamp, abi }
}

/// The time now, as records carry it.
pub(super) fn now() -> Time {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME);
    // CLOCK_REALTIME always exists.
    now.map_or(Time::default(), |t| Time { sec: t.tv_sec(), nsec: t.tv_nsec() })
}

/// Nanoseconds from one time to a later one; 0 where the clock was set back.
pub(super) fn ns_between(from: Time, to: Time) -> u64 {
    let ns = (to.sec - from.sec) * 1_000_000_000 + to.nsec - from.nsec;
    u64::try_from(ns).unwrap_or(0)
}
