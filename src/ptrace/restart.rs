//! No stop of ours is felt (hazard 1).
//!
//! An interrupt makes a call that sleeps return early. Most such calls restart by themselves. Those that return EINTR
//! (epoll_wait, sigtimedwait, semop, ...) would tell the program of us: their result becomes ERESTARTNOHAND, with which
//! the kernel restarts the call when no handler runs, and returns EINTR when one does. The same goes for a signal that
//! is ignored: without a tracer it would not have woken the call.
//!
//! A timeout that counts from the call's start would begin again: where we saw the call begin, it gets what is left. A
//! timeout in a register is changed there; one in memory is written below the stack, where nothing lives, and the
//! register points to it. The register is put back when the call returns: a call preserves its argument registers.

use libc::user_regs_struct;

use super::stop::Stopped;
use super::sys;
use super::task::{Call, Changed, Register, Task, now};
use crate::record::Time;
use crate::syscall::Abi;

/// `ERESTARTNOHAND` of the kernel's errno.h.
const ERESTARTNOHAND: i64 = 514;
/// Bytes below the stack pointer that a leaf function may use (System V ABI), with room for a timespec and more.
const BELOW_STACK: u64 = 128 + 384;

/// How a call that returns EINTR takes a timeout that counts from its start.
enum Timeout {
    Millis(Register),
    Timespec(Register),
}

fn timeout_of(name: &str) -> Option<Timeout> {
    match name {
        "epoll_wait" | "epoll_pwait" => Some(Timeout::Millis(Register::R10)),
        "epoll_pwait2" | "semtimedop" => Some(Timeout::Timespec(Register::R10)),
        "rt_sigtimedwait" => Some(Timeout::Timespec(Register::Rdx)),
        "io_getevents" | "io_pgetevents" => Some(Timeout::Timespec(Register::R8)),
        _ => None,
    }
}

/// True where the call in these registers was ended by an interruption, and would tell the program EINTR.
fn says_eintr(regs: &user_regs_struct) -> bool {
    regs.orig_rax as i64 >= 0 && regs.rax as i32 == -libc::EINTR
}

/// Restarts the call that our stop, or an ignored signal, has ended; true where there was one. The timeout of a thread
/// that is let go begins again: nobody would put its register back.
pub(super) fn restart(task: &mut Task, stopped: &Stopped) -> bool {
    let Ok(mut regs) = stopped.registers() else { return false };
    if !says_eintr(&regs) {
        return false;
    }
    if let Some(changed) = task.changed.take() {
        *changed.register.of(&mut regs) = changed.was;
    }
    if task.trace.is_some()
        && let Some(call) = task.call
    {
        task.changed = shorten(&call, &mut regs, task.tid);
    }
    regs.rax = (-ERESTARTNOHAND) as u64;
    if let Err(errno) = stopped.set_registers(&regs) {
        log::debug!("set registers, thread {}: {errno}", task.tid);
    }
    true
}

/// Puts a changed register back, at the exit of the call or before a detach.
pub(super) fn put_back(task: &mut Task, stopped: &Stopped) {
    let Some(changed) = task.changed.take() else { return };
    if let Ok(mut regs) = stopped.registers() {
        *changed.register.of(&mut regs) = changed.was;
        let _ = stopped.set_registers(&regs);
    }
}

/// Gives the restarted call what is left of its timeout.
fn shorten(call: &Call, regs: &mut user_regs_struct, tid: i32) -> Option<Changed> {
    if call.abi != Abi::Linux {
        return None;
    }
    let gone = nanos(now()).saturating_sub(nanos(call.began)).max(0);
    let (register, value) = match timeout_of(call.known?.name)? {
        Timeout::Millis(register) => {
            let timeout = i64::from(*register.of(regs) as i32);
            if timeout <= 0 {
                return None;
            }
            (register, (timeout - gone / 1_000_000).max(0) as u64)
        }
        Timeout::Timespec(register) => {
            let mut spec = [0; 16];
            if *register.of(regs) == 0 || sys::read_memory(tid, *register.of(regs), &mut spec) != Ok(16) {
                return None;
            }
            let long = |b: &[u8]| b.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b)) as i64;
            let left = long(&spec[..8]).checked_mul(1_000_000_000)?.checked_add(long(&spec[8..]))?;
            let left = (left - gone).max(0);
            spec[..8].copy_from_slice(&(left / 1_000_000_000).to_le_bytes());
            spec[8..].copy_from_slice(&(left % 1_000_000_000).to_le_bytes());
            let place = regs.rsp.wrapping_sub(BELOW_STACK) & !15;
            if sys::write_memory(tid, place, &spec) != Ok(16) {
                return None;
            }
            (register, place)
        }
    };
    let was = std::mem::replace(register.of(regs), value);
    Some(Changed { register, was })
}

fn nanos(time: Time) -> i64 {
    time.sec.saturating_mul(1_000_000_000).saturating_add(time.nsec)
}
