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
//! sleep takes at most twice its time, whatever we do. When it began is remembered across a detach ([`Sleeps`]).

use std::collections::HashMap;
use std::fs;

use libc::user_regs_struct;
use parking_lot::Mutex;

use super::stop::Stopped;
use super::sys;
use super::task::{Changed, Register, Task, now};
use crate::record::Time;

/// `ERESTARTNOHAND` of the kernel's errno.h.
const ERESTARTNOHAND: i64 = 514;
/// io_pgetevents(2), which libc does not name.
const SYS_IO_PGETEVENTS: i64 = 333;
/// Bytes below the stack pointer that a leaf function may use (System V ABI), with room for a timespec and more.
const BELOW_STACK: u64 = 128 + 384;

/// The timeout of a call that returns EINTR, counted from its start.
#[derive(Clone, Copy)]
struct Timeout {
    register: Register,
    kind: Kind,
    /// What the call returns when it is over.
    result: i64,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Milliseconds in the register, negative for none.
    Millis,
    /// A `struct timespec` that the register points to, 0 for none.
    Timespec,
}

/// By the number of the call; only for x86-64's own calls.
fn timeout_of(regs: &user_regs_struct) -> Option<Timeout> {
    const AGAIN: i64 = -(libc::EAGAIN as i64);
    /// `__USER_CS`: 64-bit code.
    const USER_CS: u64 = 0x33;
    let (register, kind, result) = match regs.orig_rax as i64 {
        _ if regs.cs != USER_CS => return None,
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (Register::R10, Kind::Millis, 0),
        libc::SYS_epoll_pwait2 => (Register::R10, Kind::Timespec, 0),
        libc::SYS_semtimedop => (Register::R10, Kind::Timespec, AGAIN),
        libc::SYS_rt_sigtimedwait => (Register::Rdx, Kind::Timespec, AGAIN),
        libc::SYS_io_getevents | SYS_IO_PGETEVENTS => (Register::R8, Kind::Timespec, 0),
        _ => return None,
    };
    Some(Timeout { register, kind, result })
}

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

/// A call that sleeps with a timeout, and when it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sleep {
    /// The call, its arguments and its place: number, six arguments, stack and instruction pointer.
    call: [u64; 9],
    pub(super) began: Time,
    /// How often the thread had given its cpu away when it was stopped.
    switches: u64,
}

/// From our stop to the next of the same sleep a thread gives its cpu away twice: to sleep again, and to stop.
const SWITCHES: u64 = 2;
/// Most sleeps of released threads that are remembered.
const SLEEPS_MAX: usize = 4096;

/// The sleeps of threads that were let go, by thread.
#[derive(Debug, Default)]
pub(super) struct Sleeps {
    by_tid: Mutex<HashMap<i32, Sleep>>,
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
        return Outcome::Untouched;
    }
    if let Some(changed) = task.changed.take() {
        *changed.register.of(&mut regs) = changed.was;
    }
    let mut outcome = Outcome::Restarted;
    regs.rax = (-ERESTARTNOHAND) as u64;
    task.sleep = sleep(task, &regs, sleeps);
    if let Some(sleep) = task.sleep
        && let Some((timeout, left)) = left(&sleep, &mut regs, task.tid)
    {
        if sees_exit {
            task.changed = timeout.shorten(left, &mut regs, task.tid);
        } else if left == 0 {
            regs.rax = timeout.result as u64;
            task.sleep = None;
            outcome = Outcome::TimedOut(timeout.result);
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
    timeout_of(regs)?;
    let call = [regs.orig_rax, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9, regs.rsp, regs.rip];
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

/// The timeout of a sleep, and how many nanoseconds of it are left; `None` where it has none that ends.
fn left(sleep: &Sleep, regs: &mut user_regs_struct, tid: i32) -> Option<(Timeout, i64)> {
    let timeout = timeout_of(regs)?;
    let value = *timeout.register.of(regs);
    let whole = match timeout.kind {
        Kind::Millis => i64::from(value as i32).checked_mul(1_000_000).filter(|&ns| ns > 0)?,
        Kind::Timespec => {
            let mut spec = [0; 16];
            if value == 0 || sys::read_memory(tid, value, &mut spec) != Ok(16) {
                return None;
            }
            let long = |b: &[u8]| b.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b)) as i64;
            long(&spec[..8]).checked_mul(1_000_000_000)?.checked_add(long(&spec[8..]))?
        }
    };
    let gone = nanos(now()).saturating_sub(nanos(sleep.began)).max(0);
    Some((timeout, whole.saturating_sub(gone).max(0)))
}

impl Timeout {
    /// Gives the restarted call what is left.
    fn shorten(&self, left: i64, regs: &mut user_regs_struct, tid: i32) -> Option<Changed> {
        let value = match self.kind {
            // Rounded up: a sleep is never too short.
            Kind::Millis => (left as u64).div_ceil(1_000_000),
            Kind::Timespec => {
                let mut spec = [0; 16];
                spec[..8].copy_from_slice(&(left / 1_000_000_000).to_le_bytes());
                spec[8..].copy_from_slice(&(left % 1_000_000_000).to_le_bytes());
                let place = regs.rsp.wrapping_sub(BELOW_STACK) & !15;
                if sys::write_memory(tid, place, &spec) != Ok(16) {
                    return None;
                }
                place
            }
        };
        let was = std::mem::replace(self.register.of(regs), value);
        Some(Changed { register: self.register, was })
    }
}

fn nanos(time: Time) -> i64 {
    time.sec.saturating_mul(1_000_000_000).saturating_add(time.nsec)
}
