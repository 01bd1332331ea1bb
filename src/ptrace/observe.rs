//! From a stop to the hooks: what a system call or a signal means for the stream. Asks the table what to fetch, and
//! fetches nothing for facilities that are off.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;

use super::genio::Genio;
use super::memory::Memory;
use super::namei::Namei;
use super::restart::Outcome;
use super::signals::{self, Action};
use super::stop::Stopped;
use super::switches::{Event, Switches};
use super::task::{Call, Task, at, now};
use super::{Shared, restart, setid, sys};
use crate::cred;
use crate::facility::Facs;
use crate::hooks::{At, Recorder};
use crate::proc::{Proc, Trace};
use crate::record::{self, Args, Comm, HEADER_LEN, Stamp, Time};
use crate::syscall::{self, Abi};

/// `AUDIT_ARCH_I386` of the kernel's uapi/linux/audit.h.
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`.
const X32_BIT: u64 = 0x4000_0000;
/// `CLONE_UNTRACED`.
const CLONE_UNTRACED: u64 = 0x0080_0000;
/// Number of restart_syscall(2) in x86-64 and i386.
const RESTART_SYSCALL: [i64; 2] = [219, 0];
/// Bytes of a CSW record.
const CSW_LEN: usize = HEADER_LEN + 8;

/// How a stop ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resume {
    /// With this signal, 0 for none.
    With(i32),
    /// Into the system call that it has entered.
    Enter,
    /// To the handler of this signal.
    Handler(i32),
    /// Tracing of the process ends here.
    Abandon,
}

/// Turns stops into records. One per tracer thread.
pub(super) struct Observer {
    shared: Arc<Shared>,
    recorder: Recorder,
    namei: Namei,
    genio: Genio,
}

impl Observer {
    pub(super) fn new(shared: &Arc<Shared>) -> Observer {
        let recorder = Recorder::new(Arc::clone(&shared.procs));
        Observer { shared: Arc::clone(shared), recorder, namei: Namei::default(), genio: Genio::default() }
    }

    /// The entry or exit of a system call; which of the two is the kernel's word (hazard 4).
    pub(super) fn syscall(
        &mut self,
        task: &mut Task,
        stopped: &Stopped,
        interrupted: bool,
        time: Time,
    ) -> Resume {
        // It was killed meanwhile: there is nothing to see, and the resume will find that out.
        let Ok(info) = stopped.syscall_info() else { return Resume::With(0) };
        let abi = if info.arch == AUDIT_ARCH_I386 { Abi::Linux32 } else { Abi::Linux };
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY | libc::PTRACE_SYSCALL_INFO_SECCOMP => {
                let (number, args) = sys::entry_values(&info);
                self.entry(task, stopped, time, abi, number, args)
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                let result = sys::exit_value(&info);
                self.exit(task, stopped, time, abi, result, interrupted);
                Resume::With(0)
            }
            _ => Resume::With(0),
        }
    }

    fn entry(
        &mut self,
        task: &mut Task,
        stopped: &Stopped,
        time: Time,
        abi: Abi,
        number: u64,
        args: [u64; 6],
    ) -> Resume {
        let (abi, number) = called(abi, number);
        if std::mem::take(&mut task.restarting)
            && task.call.is_some_and(|c| c.number == number || RESTART_SYSCALL.contains(&number))
        {
            // The program has made this call once: neither its end nor its new beginning happened for it.
            task.held = None;
            self.switches(task, false);
            return Resume::Enter;
        }
        self.flush(task);
        // A call in whose midst we came: it shows as the program made it.
        let began = task.sleep.take().filter(|sleep| sleep.is_of(number)).map_or(time, |sleep| sleep.began);
        let mut args = args;
        if let Some(changed) = &task.changed {
            args[changed.register.argument()] = changed.was;
        }
        let call = call(task, abi, number, args, began);
        let (known, wanted) = (call.known, call.wanted);
        task.call = Some(call);
        if !self.shared.privileged && known.is_some_and(setid::is_exec) && setid::gains(task.tid, &call) {
            return Resume::Abandon;
        }
        let Some(trace) = task.trace.clone().filter(|_| wanted) else { return Resume::Enter };
        let stamp = task.stamp(time);
        let at = at(&trace, &stamp, abi);
        self.door(&task.proc, at);
        let count = known.map_or(call.args.len(), |k| k.args.len());
        self.recorder.syscall(at, number as i32, Args::Words(&call.args[..count]));
        if trace.facs.contains(Facs::NAMEI) && !task.proc.is_opaque() {
            self.namei.record(&mut self.recorder, at, Memory::of(stopped.tid(), abi), &call);
        }
        Resume::Enter
    }

    fn exit(
        &mut self,
        task: &mut Task,
        stopped: &Stopped,
        time: Time,
        abi: Abi,
        result: i64,
        interrupted: bool,
    ) {
        restart::put_back(task, stopped);
        if task.call.is_none() {
            task.call = unseen(task, stopped, abi);
        }
        let is_restart = (-516..=-512).contains(&result);
        let sees_exit = task.needs_calls(self.shared.privileged);
        let outcome = match interrupted && !is_restart {
            true => restart::restart(task, stopped, sees_exit, &self.shared.sleeps),
            false => Outcome::Untouched,
        };
        if let Outcome::TimedOut(result) = outcome {
            self.over(task, time, result);
        } else if (interrupted && is_restart) || outcome == Outcome::Restarted {
            // Whether the program will ever see this, the next stop tells. Until then the call is not over.
            task.held = Some((time, result));
            task.restarting = true;
        } else if result == i64::from(-libc::EINTR) {
            task.held = Some((time, result));
        } else {
            self.over(task, time, result);
        }
    }

    /// The call is over: its data (R6: only where it moved some) and its result.
    fn over(&mut self, task: &mut Task, time: Time, result: i64) {
        task.sleep = None;
        let Some(call) = task.call.take() else { return };
        let name = call.known.map_or("", |k| k.name);
        if syscall::changes_access(name)
            && let Some(trace) = &task.trace
        {
            self.look(&task.proc, at(trace, &task.stamp(time), call.abi));
        }
        let Some(trace) = task.trace.clone().filter(|_| call.wanted) else { return };
        if name == "prctl" && result == 0 && call.args[0] == libc::PR_SET_NAME as u64 {
            task.refresh_comm();
        }
        let stamp = task.stamp(time);
        let at = at(&trace, &stamp, call.abi);
        self.door(&task.proc, at);
        if trace.facs.contains(Facs::GENIO) && result >= 0 && !task.proc.is_opaque() {
            self.genio.record(&mut self.recorder, at, task, &call, result as u64);
        }
        self.recorder.sysret(at, call.number as i32, result);
        if result > 0 && name == "clone" && call.args[0] & CLONE_UNTRACED != 0 {
            // Hazard 17.
            self.recorder.note(at, &format!("child {result} is not traced: CLONE_UNTRACED"));
        }
    }

    /// EMUL whenever the ABI of a call differs from that of the last one of its process.
    fn door(&mut self, proc: &Proc, at: At<'_>) {
        if proc.abi() != at.abi {
            proc.set_abi(at.abi);
            self.recorder.emul(at);
        }
    }

    /// The record of a caught signal on its way, at the stop that follows its delivery: true where that is its handler's
    /// first instruction (hazard 10).
    pub(super) fn arrived(&mut self, task: &mut Task, stopped: &Stopped, signo: i32) -> bool {
        let Some((began, mut psig)) = task.signal.take() else { return false };
        let arrived = signo == libc::SIGTRAP;
        psig.action = stopped.registers().map_or(0, |regs| if arrived { regs.rip } else { 0 });
        self.psig(task, began, psig);
        arrived
    }

    /// A signal is about to be delivered.
    pub(super) fn signal(
        &mut self,
        task: &mut Task,
        stopped: &Stopped,
        signo: i32,
        interrupted: bool,
        time: Time,
    ) -> Resume {
        let psig_on = task.trace.as_ref().is_some_and(|t| t.facs.contains(Facs::PSIG));
        let sees_exit = task.needs_calls(self.shared.privileged);
        let ended_none = task.held.is_none() && task.sleep.is_none() && task.changed.is_none();
        if !psig_on && sees_exit && !interrupted && ended_none {
            // It has ended no call, whose exit would have been seen, and nobody asks.
            return Resume::With(signo);
        }
        // Without the facility the action matters only to a call that an ignored signal has ended.
        let action = signals::action(task.tid, signo);
        if action == Action::Ignored {
            match restart::restart(task, stopped, sees_exit, &self.shared.sleeps) {
                Outcome::Untouched => {}
                Outcome::Restarted => task.restarting = true,
                Outcome::TimedOut(result) => {
                    task.held = task.held.map(|(time, _)| (time, result));
                    self.flush(task);
                }
            }
            return Resume::With(signo);
        }
        // The handler's frame keeps the registers as the program had them.
        restart::put_back(task, stopped);
        self.flush(task);
        task.call = None;
        task.sleep = None;
        if !psig_on || action == Action::JobControl {
            return Resume::With(signo);
        }
        let psig = signals::psig(stopped, signo);
        if action == Action::Caught {
            task.signal = Some((time, psig));
            return Resume::Handler(signo);
        }
        self.psig(task, time, psig);
        Resume::With(signo)
    }

    fn psig(&mut self, task: &Task, time: Time, psig: crate::record::Psig) {
        let Some(trace) = &task.trace else { return };
        let stamp = task.stamp(time);
        self.recorder.psig(at(trace, &stamp, task.proc.abi()), psig);
    }

    /// The result that was held back is the program's after all.
    pub(super) fn flush(&mut self, task: &mut Task) {
        task.restarting = false;
        if let Some((time, result)) = task.held.take() {
            self.over(task, time, result);
            // They waited for that.
            self.switches(task, false);
        }
    }

    /// The context switches so far (R8); `over` where the thread is gone or let go.
    pub(super) fn switches(&mut self, task: &mut Task, over: bool) {
        let Some(trace) = task.trace.clone().filter(|t| t.facs.contains(Facs::CSW)) else {
            task.switches = None;
            return;
        };
        let abi = task.proc.abi();
        if task.switches.is_none() && !task.blind && !over {
            match Switches::of(task.tid) {
                Ok(switches) => task.switches = Some(switches),
                // It is dying.
                Err(Errno::ESRCH) => {}
                Err(errno) => {
                    task.blind = true;
                    let text = format!("switches of thread {} are not seen: {}", task.tid, errno.desc());
                    self.recorder.note(at(&trace, &task.stamp(now()), abi), &text);
                }
            }
        }
        let (pid, tid, comm) = (task.pid, task.tid, task.comm);
        let Some(switches) = &mut task.switches else { return };
        switches.take(over, |event| match event {
            Event::Switch { time, out, user } => {
                let stamp = Stamp { time, pid, tid, comm };
                self.recorder.csw(at(&trace, &stamp, abi), out, user);
            }
            Event::Lost(lost) => (0..lost).for_each(|_| trace.sink().lose(CSW_LEN)),
        });
    }

    /// R31: what is traced of a process was changed; also the first record of a new child.
    ///
    /// Where EMUL is off the stream says it, so that a facility turned off is not taken for a loss.
    pub(super) fn applied(&mut self, proc: &Proc, trace: &Trace, comm: Comm, is_new: bool) {
        let pid = proc.id.pid;
        let stamp = Stamp { time: now(), pid, tid: pid, comm };
        let at = at(trace, &stamp, proc.abi());
        self.recorder.emul(at);
        self.look(proc, at);
        if !is_new && !trace.facs.contains(Facs::EMUL) {
            self.recorder.note(at, &format!("set {}", trace.facs));
        }
    }

    /// A child of this thread cannot be traced for want of something.
    pub(super) fn escaped(&mut self, task: &Task, trace: &Trace, child: i32, errno: i32) {
        let text = format!("child {child} is not traced: {:?}", Errno::from_raw(errno));
        self.recorder.note(at(trace, &task.stamp(now()), task.proc.abi()), &text);
    }

    /// Sees whether the memory of a process may be shown to whom its trace belongs to, and says so where that has changed.
    fn look(&mut self, proc: &Proc, at: At<'_>) {
        let opaque = !at.trace.is_roots() && !cred::sees_memory(at.trace.sink().owner(), proc.id.pid);
        if proc.set_opaque(opaque) != opaque {
            self.recorder.note(at, if opaque { record::HIDDEN } else { record::SHOWN });
        }
    }

    /// A program was executed: its ABI, arguments, environment and open descriptors.
    pub(super) fn executed(&mut self, task: &Task, trace: &Trace, abi: Abi) {
        let stamp = task.stamp(now());
        let at = at(trace, &stamp, abi);
        let pid = task.pid;
        self.recorder.emul(at);
        self.look(&task.proc, at);
        if task.proc.is_opaque() {
            return;
        }
        if trace.facs.contains(Facs::EXEC_ARG) {
            strings(pid, "cmdline", |arg| self.recorder.exec_arg(at, arg));
        }
        if trace.facs.contains(Facs::EXEC_ENV) {
            strings(pid, "environ", |env| self.recorder.exec_env(at, env));
        }
        if trace.facs.contains(Facs::EXEC_FD) {
            for (fd, dtype) in descriptors(pid) {
                self.recorder.exec_fd(at, fd, dtype);
            }
        }
    }
}

/// The ABI and the number of a call, by the entry it came through and what stands in the register.
fn called(abi: Abi, number: u64) -> (Abi, i64) {
    match abi {
        Abi::Linux if number & X32_BIT != 0 && number >> 31 == 0 => {
            (Abi::LinuxX32, (number & !X32_BIT) as i64)
        }
        // A number is 32 bits wide: -1 is none, whatever a tracer put there.
        _ => (abi, i64::from(number as i32)),
    }
}

fn call(task: &Task, abi: Abi, number: i64, args: [u64; 6], began: Time) -> Call {
    let known = syscall::lookup(abi, number);
    let wanted =
        task.trace.as_ref().is_some_and(|t| t.calls.as_ref().is_none_or(|c| c.contains(abi, number)));
    // 64-bit code that calls through int 0x80 may have anything above the 32 bits that are the argument.
    let args = if abi == Abi::Linux32 { args.map(|arg| arg & 0xffff_ffff) } else { args };
    Call { abi, number, known, args, wanted, began }
}

/// A call whose entry we have not seen: attached, or asked for, in its midst. Its arguments stand in their registers still.
fn unseen(task: &Task, stopped: &Stopped, abi: Abi) -> Option<Call> {
    let r = stopped.registers().ok()?;
    let (abi, number) = called(abi, r.orig_rax);
    let args = match abi {
        Abi::Linux32 => [r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp],
        _ => [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
    };
    Some(call(task, abi, number, args, Time::default()))
}

/// Each of the NUL-terminated strings of a file in /proc/pid.
fn strings(pid: i32, file: &str, mut each: impl FnMut(&[u8])) {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    for string in bytes.split_inclusive(|&b| b == 0) {
        each(string.strip_suffix(b"\0").unwrap_or(string));
    }
}

/// The open descriptors of a process with NetBSD's `DTYPE_*` of each (docs/format.md).
fn descriptors(pid: i32) -> Vec<(i32, u32)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut found: Vec<(i32, u32)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let fd = entry.file_name().to_str()?.parse().ok()?;
            // The link's text says enough: to follow it could wait for a file system (hazard 12).
            let target = fs::read_link(entry.path()).ok()?;
            Some((fd, dtype(target.as_os_str().as_bytes())))
        })
        .collect();
    found.sort_unstable();
    found
}

fn dtype(link: &[u8]) -> u32 {
    const KINDS: [(&[u8], u32); 5] = [
        (b"socket:", 2),
        (b"pipe:", 3),
        (b"anon_inode:[eventfd]", 9),
        (b"anon_inode:[timerfd]", 10),
        (b"anon_inode:", 5),
    ];
    KINDS.iter().find(|(prefix, _)| link.starts_with(prefix)).map_or(1, |(_, dtype)| *dtype)
}
