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
//!
//! And what whoever records the default facilities must do: one process_vm_readv(2) for each path that a call is given, as it
//! begins, and for the data in one buffer that it has moved, as it ends. What is in vectors or comes with an exec is left out.

use std::collections::HashMap;
use std::io::IoSliceMut;

use ktrace::proc::pidfd;
use ktrace::syscall::{self, Abi, Data, Place, Syscall};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::{self, At};

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

/// What the loop does besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Besides {
    Nothing,
    /// It tells processes apart, by a pidfd of each.
    Pidfds,
    /// It reads paths and data.
    Data,
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
pub(crate) fn follow(wait: Wait, besides: Besides) {
    let mut born = HashMap::new();
    let mut memory = Memory::default();
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
                let info = ptrace::syscall_info(pid);
                if besides == Besides::Data {
                    info.into_iter().for_each(|info| memory.look(pid, &info));
                }
                (pid, None)
            }
            Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                if besides == Besides::Pidfds && BIRTHS.iter().any(|birth| *birth as i32 == event) {
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

/// Reads what the calls are given and move.
#[derive(Default)]
struct Memory {
    /// The call that each thread is in, and its arguments.
    calls: HashMap<Pid, (&'static Syscall, [u64; 6])>,
    bytes: Vec<u8>,
}

/// Bytes that most paths have room in.
const PATH: u64 = 256;
const PAGE: u64 = 4096;
/// Most data read at once.
const PIECE: u64 = 64 << 10;

impl Memory {
    /// At a stop: the paths of a call that begins, the data of one that ends.
    fn look(&mut self, pid: Pid, info: &libc::ptrace_syscall_info) {
        match sys::at(info) {
            Some(At::Entry { number, args }) => {
                let Some(call) = syscall::lookup(Abi::Linux, number) else { return };
                for place in call.paths(&args) {
                    if let Place::String(at) = place {
                        self.read(pid, at, PATH.min(PAGE - at % PAGE));
                    }
                }
                if call.io.is_some() {
                    self.calls.insert(pid, (call, args));
                }
            }
            Some(At::Exit { result }) => {
                let Some((call, args)) = self.calls.remove(&pid) else { return };
                let Some(Data::Buf { ptr, len }) = call.io.map(|io| io.data) else { return };
                let (at, len) = (args[usize::from(ptr)], args[usize::from(len)].min(result.max(0) as u64));
                for piece in (0..len).step_by(PIECE as usize) {
                    self.read(pid, at + piece, PIECE.min(len - piece));
                }
            }
            None => {}
        }
    }

    /// Whether it can be read is no matter of the loop.
    fn read(&mut self, pid: Pid, at: u64, len: u64) {
        self.bytes.resize(PIECE as usize, 0);
        let len = len as usize;
        let from = [RemoteIoVec { base: at as usize, len }];
        let _ = process_vm_readv(pid, &mut [IoSliceMut::new(&mut self.bytes[..len])], &from);
    }
}
