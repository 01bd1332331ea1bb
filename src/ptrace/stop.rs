//! The kernel's rules as types: what a stop is, and what each is owed. No ptrace call takes a bare thread id: a
//! [`Stopped`] comes from a wait and is used up by the one resume it is owed (hazard 15).

use std::marker::PhantomData;

use libc::{SIGSTOP, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU};
use nix::errno::Errno;

use super::sys;

/// `PTRACE_EVENT_STOP` of uapi/linux/ptrace.h.
const EVENT_STOP: i32 = 128;

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC;

/// And of one that has a filter of ours: without its tracer its calls would fail, so it ends with us.
const FILTERED: i32 = OPTIONS | libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL;

/// Why a thread stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// At the entry or exit of a system call. Owed: resume without a signal.
    Syscall,
    /// Its own filter says that this call is to be seen: at the entry, and after that stop where there was one.
    Seccomp,
    /// A signal is about to be delivered. Owed: resume with this signal.
    Signal(i32),
    /// Job control stopped the process. Owed: [`Stopped::listen`], so that it stays stopped (hazard 3).
    Group,
    /// After an interrupt, as a new thread's first stop, or at the end of a group stop. Owed: resume without a signal.
    Trap,
    /// It made a new thread or process with this id, which is traced already. Owed: resume without a signal.
    Child(i32),
    /// It has executed a program; this thread had the given id before. Owed: resume without a signal.
    Exec(i32),
}

/// What a wait found.
#[derive(Debug)]
pub(super) enum Change {
    /// A thread stopped.
    Stopped(Stopped, Stop),
    /// A thread is gone.
    Dead(i32),
}

/// A thread that this thread traces and that is stopped.
#[derive(Debug)]
#[must_use = "a stop is owed a resume"]
pub(super) struct Stopped {
    tid: i32,
    /// Only the thread that attached may issue requests.
    not_send: PhantomData<*mut ()>,
}

/// A thread that this thread traces, stopped or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traced {
    tid: i32,
    not_send: PhantomData<*mut ()>,
}

impl Traced {
    /// PTRACE_SEIZE: traces a thread without stopping it.
    pub(super) fn seize(tid: i32) -> nix::Result<Traced> {
        sys::request(libc::PTRACE_SEIZE, tid, OPTIONS as usize)?;
        Ok(Traced { tid, not_send: PhantomData })
    }

    /// A thread the kernel attached by itself, by the event in which its parent told of it.
    pub(super) fn born(tid: i32) -> Traced {
        Traced { tid, not_send: PhantomData }
    }

    /// PTRACE_INTERRUPT: [`Stop::Trap`] or another stop follows. A thread that is gone needs none.
    pub(super) fn interrupt(&self) {
        if let Err(errno) = sys::request(libc::PTRACE_INTERRUPT, self.tid, 0)
            && errno != Errno::ESRCH
        {
            log::warn!("interrupt, thread {}: {errno}", self.tid);
        }
    }
}

impl Stopped {
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// Runs on to the next entry or exit of a system call, or anything else that stops.
    pub(super) fn resume_to_syscall(self, signal: i32) {
        self.resume(libc::PTRACE_SYSCALL, signal);
    }

    /// Runs on, through system calls.
    pub(super) fn cont(self, signal: i32) {
        self.resume(libc::PTRACE_CONT, signal);
    }

    /// Delivers a caught signal and stops at the first instruction of its handler.
    pub(super) fn resume_to_handler(self, signal: i32) {
        self.resume(libc::PTRACE_SINGLESTEP, signal);
    }

    /// Stays in its group stop, and can hear SIGCONT.
    pub(super) fn listen(self) {
        self.resume(libc::PTRACE_LISTEN, 0);
    }

    /// Is left alone.
    pub(super) fn detach(self, signal: i32) {
        self.resume(libc::PTRACE_DETACH, signal);
    }

    fn resume(self, request: libc::c_uint, signal: i32) {
        let tid = self.tid;
        std::mem::forget(self);
        match sys::request(request, tid, signal as usize) {
            Ok(()) => log::trace!("thread {tid}: request {request} with signal {signal}"),
            // Killed while stopped: the wait will say so.
            Err(Errno::ESRCH) => {}
            Err(errno) => log::error!("resume by request {request}, thread {tid}: {errno}"),
        }
    }

    /// From now on it stops where its filter says, and does not outlive us.
    pub(super) fn heed_filter(&self) -> nix::Result<()> {
        sys::set_options(self.tid, FILTERED)
    }

    /// The system call it is at.
    pub(super) fn syscall_info(&self) -> nix::Result<libc::ptrace_syscall_info> {
        sys::syscall_info(self.tid)
    }

    /// The signal it is stopped for.
    pub(super) fn siginfo(&self) -> nix::Result<libc::siginfo_t> {
        sys::siginfo(self.tid)
    }

    /// Its blocked signals.
    pub(super) fn sigmask(&self) -> nix::Result<u64> {
        sys::sigmask(self.tid)
    }

    /// Its registers.
    pub(super) fn registers(&self) -> nix::Result<libc::user_regs_struct> {
        sys::registers(self.tid)
    }

    /// Changes its registers.
    pub(super) fn set_registers(&self, regs: &libc::user_regs_struct) -> nix::Result<()> {
        sys::set_registers(self.tid, regs)
    }
}

impl Drop for Stopped {
    /// The watchdog of hazard 15: a stop that nobody resumed would hang its thread.
    fn drop(&mut self) {
        log::error!("thread {} was left stopped; it runs on", self.tid);
        let _ = sys::request(libc::PTRACE_CONT, self.tid, 0);
    }
}

/// Waits for the next change; `None` where there is none now (`block` false) or a kick came.
///
/// # Errors
/// ECHILD where this thread traces nobody.
pub(super) fn wait(block: bool) -> nix::Result<Option<Change>> {
    match sys::wait(None, if block { 0 } else { libc::WNOHANG }) {
        Ok(found) => Ok(found.and_then(|(tid, status)| classify(tid, status))),
        Err(Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What has happened to this thread, if anything: the kernel looks at no other one.
pub(super) fn of(tid: i32) -> Option<Change> {
    // ECHILD: it is not ours any more.
    let (tid, status) = sys::wait(Some(tid), libc::WNOHANG).ok()??;
    classify(tid, status)
}

fn classify(tid: i32, status: i32) -> Option<Change> {
    if !libc::WIFSTOPPED(status) {
        return Some(Change::Dead(tid));
    }
    let stopped = Stopped { tid, not_send: PhantomData };
    let signal = libc::WSTOPSIG(status);
    let stop = match status >> 16 {
        0 if signal == SIGTRAP | 0x80 => Stop::Syscall,
        0 => Stop::Signal(signal),
        EVENT_STOP if matches!(signal, SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU) => Stop::Group,
        EVENT_STOP => Stop::Trap,
        event => match (event, sys::event_message(tid)) {
            (libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE, Ok(child)) => {
                Stop::Child(child as i32)
            }
            (libc::PTRACE_EVENT_SECCOMP, Ok(_)) => Stop::Seccomp,
            (libc::PTRACE_EVENT_EXEC, Ok(former)) => Stop::Exec(former as i32),
            (_, Err(Errno::ESRCH)) => {
                // Killed while stopped: its end is the next thing the wait says.
                std::mem::forget(stopped);
                return None;
            }
            (event, message) => {
                log::warn!("thread {tid}: unexpected stop, event {event}, message {message:?}");
                Stop::Trap
            }
        },
    };
    Some(Change::Stopped(stopped, stop))
}
