//! No stop of ours is felt (hazard 1).
//!
//! An interrupt makes a call that sleeps return early. Most such calls restart by themselves. Those that return EINTR
//! (epoll_wait, sigtimedwait, semop, ...) would tell the program of us: their result becomes ERESTARTNOHAND, with which
//! the kernel restarts the call when no handler runs, and returns EINTR when one does. The same goes for a signal that
//! is ignored: without a tracer it would not have woken the call.
//!
//! A timeout that counts from the call's start would begin again each time. While the call's exit will be seen, the
//! restarted call gets what is left: a timeout in a register is changed there; one in memory is written below the stack,
//! where nothing lives, and the register points to it. The register is put back when the call returns: a call preserves
//! its argument registers. Where the exit will not be seen (a detach, or no system call stops) nobody could put it back:
//! the timeout begins again, but once it is over the next stop ends the call, with the result that a timeout has. So a
//! sleep takes at most twice its time; docs/ptrace.md, "Limits", has the exceptions. When it began is remembered across a detach ([`Sleeps`]).

use std::fs;

use libc::user_regs_struct;
use parking_lot::Mutex;

use super::stop::Stopped;
use super::task::{Task, now};
use super::timeout::Timeout;
use crate::pids::Pids;
use crate::record::Time;

/// `ERESTARTNOHAND` of the kernel's errno.h.
const ERESTARTNOHAND: i64 = 514;

/// True where the call in these registers was ended by an interruption, and would tell the program EINTR.
fn says_eintr(regs: &user_regs_struct) -> bool {
    regs.orig_rax as i64 >= 0 && regs.rax as i32 == -libc::EINTR
}

/// What has become of the call that a stop ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was not one that would have told the program.
    Untouched,
    /// The kernel makes it again.
    Restarted,
    /// Its time is over: it returns this.
    TimedOut(i64),
}

/// All registers but the result: the call, its arguments in either ABI, its place, and what its caller keeps in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Registers([u64; 16]);

impl Registers {
    fn of(r: &user_regs_struct) -> Registers {
        Registers([
            r.orig_rax, r.rip, r.rsp, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9, r.rbx, r.rcx, r.rbp, r.r12,
            r.r13, r.r14, r.r15,
        ])
    }
}

/// A call that sleeps with a timeout, and when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sleep {
    call: Registers,
    pub(super) began: Time,
    /// How often the thread had given its cpu away when it was stopped.
    switches: u64,
}

impl Sleep {
    /// True for a sleep in the call with this number.
    pub(super) fn is_of(&self, number: i64) -> bool {
        self.call.0[0] as i64 == number
    }
}

/// From our stop to the next of the same sleep a thread gives its cpu away twice: to sleep again, and to stop.
const SWITCHES: u64 = 2;
/// Most sleeps of released threads that are remembered.
const SLEEPS_MAX: usize = 4096;

/// The sleeps of threads that were let go, by thread.
#[derive(Debug, Default)]
pub(super) struct Sleeps {
    by_tid: Mutex<Pids<Sleep>>,
}

impl Sleeps {
    /// Remembers where a thread that is let go was.
    pub(super) fn remember(&self, tid: i32, sleep: Option<Sleep>) {
        let mut by_tid = self.by_tid.lock();
        if by_tid.len() >= SLEEPS_MAX {
            by_tid.clear();
        }
        match sleep {
            Some(sleep) => drop(by_tid.insert(tid, sleep)),
            None => drop(by_tid.remove(&tid)),
        }
    }

    fn take(&self, tid: i32) -> Option<Sleep> {
        self.by_tid.lock().remove(&tid)
    }
}

/// Restarts the call that our stop, or an ignored signal, has ended. `sees_exit`: the thread will stop when it returns.
pub(super) fn restart(task: &mut Task, stopped: &Stopped, sees_exit: bool, sleeps: &Sleeps) -> Outcome {
    let Ok(mut regs) = stopped.registers() else { return Outcome::Untouched };
    if !says_eintr(&regs) {
        // Two stops of ours in a row find the call as the first has left it. Else it sleeps no more.
        if regs.rax as i64 != -ERESTARTNOHAND {
            task.sleep = None;
        }
        return Outcome::Untouched;
    }
    if let Some(changed) = task.changed.take() {
        *changed.register.of(&mut regs) = changed.was;
    }
    let mut outcome = Outcome::Restarted;
    regs.rax = (-ERESTARTNOHAND) as u64;
    task.sleep = sleep(task, &regs, sleeps);
    if let Some(sleep) = task.sleep
        && let Some(timeout) = Timeout::of(&regs)
        && let Some(whole) = timeout.nanos(&mut regs, task.pid, task.tid)
    {
        let left = whole.saturating_sub(nanos(now()).saturating_sub(nanos(sleep.began)).max(0)).max(0);
        if sees_exit && timeout.is_in_register() {
            task.changed = timeout.shorten(left, &mut regs, task.tid);
        } else if left == 0 {
            regs.rax = timeout.result() as u64;
            task.sleep = None;
            outcome = Outcome::TimedOut(timeout.result());
        }
    }
    if let Err(errno) = stopped.set_registers(&regs) {
        log::debug!("set registers, thread {}: {errno}", task.tid);
    }
    outcome
}

/// The sleep a thread is in, where it is one that has a timeout. Its beginning is the call's where that was seen, the
/// one remembered where it is still the same sleep, else now.
fn sleep(task: &Task, regs: &user_regs_struct, sleeps: &Sleeps) -> Option<Sleep> {
    let remembered = task.sleep.or_else(|| sleeps.take(task.tid));
    Timeout::of(regs)?;
    let call = Registers::of(regs);
    let switches = switches(task.tid)?;
    let began = match (task.call, remembered) {
        (Some(call), _) => call.began,
        (None, Some(s)) if s.call == call && switches.wrapping_sub(s.switches) <= SWITCHES => s.began,
        _ => now(),
    };
    Some(Sleep { call, began, switches })
}

/// How often a thread has given its cpu away.
fn switches(tid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
}

/// Puts a changed register back, at the exit of the call or before a detach.
pub(super) fn put_back(task: &mut Task, stopped: &Stopped) {
    let Some(changed) = task.changed.take() else { return };
    if let Ok(mut regs) = stopped.registers() {
        *changed.register.of(&mut regs) = changed.was;
        let _ = stopped.set_registers(&regs);
    }
}

fn nanos(time: Time) -> i64 {
    time.sec.saturating_mul(1_000_000_000).saturating_add(time.nsec)
}
