//! The floor under any tracer that stops its tracee: a loop of waitpid(2) and PTRACE_SYSCALL that asks what the call
//! is, and keeps nothing. Once waiting in the kernel and once spinning; and what a tool must pay besides that tells
//! processes apart, and so can say in a record whose it is, for a newborn process (nothing at a call, nor for a thread):
//!
//! - PTRACE_GETEVENTMSG, for the stop of the newborn itself does not say who its parent is, from whom it inherits what is traced;
//! - pidfd_open(2), while the newborn has its number: by that alone, when the number has been used again, one process is
//!   known from the other;
//! - close(2), when it is dead.
//!
//! Nothing is read in /proc. What the loop need not do and we do: fstat(2) of the pidfd, whose inode number we keep, so that
//! it is closed at once and a thousand processes are not a thousand descriptors.

use std::collections::HashMap;

use ktrace::proc::pidfd;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Events of a parent whose child is a process.
const BIRTHS: [Event; 2] = [Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK];

/// How the loop waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// In the kernel.
    Blocking,
    /// Asking again and again.
    Spinning,
}

/// Whether the loop tells processes apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Apart {
    No,
    /// By a pidfd of each.
    Yes,
}

/// Attaches to a process that waits for its start; call [`follow`] in the same thread.
pub(crate) fn attach(pid: i32) {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(Pid::from_raw(pid), options).unwrap();
    ptrace::interrupt(Pid::from_raw(pid)).unwrap();
}

/// Resumes whatever stops, until all of it is gone.
pub(crate) fn follow(wait: Wait, apart: Apart) {
    let mut born = HashMap::new();
    let mut flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    if wait == Wait::Spinning {
        flags |= WaitPidFlag::WNOHANG;
    }
    loop {
        let (pid, signal) = match waitpid(None, Some(flags)) {
            Ok(WaitStatus::StillAlive) => {
                std::hint::spin_loop();
                continue;
            }
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                let _ = ptrace::syscall_info(pid);
                (pid, None)
            }
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                if apart == Apart::Yes && BIRTHS.iter().any(|birth| *birth as i32 == event) {
                    // Either may be gone: a killed parent says nothing, a child that was reaped before has no number.
                    let child = ptrace::getevent(pid).ok().map(|child| child as i32);
                    born.extend(child.and_then(|child| Some((child, pidfd(child).ok()?))));
                }
                (pid, None)
            }
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                born.remove(&pid.as_raw());
                continue;
            }
            Ok(_) => continue,
            Err(Errno::ECHILD) => return,
            Err(Errno::EINTR | Errno::EINVAL) => continue,
            Err(errno) => panic!("waitpid: {errno}"),
        };
        let _ = ptrace::syscall(pid, signal);
    }
}
