//! Execs and deaths.

use super::*;
use crate::hooks;
use crate::proc::{Auxv, ProcTable};
use crate::ptrace::stop::Traced;
use crate::syscall::Abi;

impl Tracer {
    /// A thread is gone (hazard 8). `reaped`: the kernel has said so, and of a process's first thread it says so only when
    /// no other is left.
    pub(super) fn dead(&mut self, tid: i32, reaped: bool) {
        if !self.tasks.contains_key(&tid) {
            self.unborn(tid);
        }
        if let Some(mut task) = self.tasks.remove(&tid) {
            self.observer.flush(&mut task);
            self.observer.switches(&mut task, true);
            if let Some(group) = self.groups.get_mut(&task.pid) {
                group.leave(tid);
                match group.threads.is_empty() {
                    true if reaped && tid == task.pid => self.shared.procs.exit(&group.proc),
                    true => ended(&self.shared.procs, &group.proc),
                    false => {}
                }
            }
            self.drop_if_empty(task.pid);
            self.due(task.pid);
        }
    }

    /// The thread has executed a program (hazard 5): its siblings are gone, and it has its process's id now.
    pub(super) fn exec(&mut self, stopped: Stopped, former: i32) {
        let pid = stopped.tid();
        if former != pid
            && let Some(mut task) = self.tasks.remove(&former)
        {
            task.tid = pid;
            // The stop was this one's.
            if let Some(switches) = &mut task.switches {
                switches.resumed(now());
            }
            task.thread = Traced::born(pid);
            self.tasks.insert(pid, task);
        }
        if let Some(group) = self.groups.get_mut(&pid) {
            let siblings: Vec<i32> = group.threads.iter().copied().filter(|&tid| tid != pid).collect();
            for tid in siblings {
                self.tasks.remove(&tid);
                group.leave(tid);
            }
            group.enter(pid);
        }
        let Some(task) = self.tasks.get_mut(&pid) else { return stopped.cont(0) };
        task.changed = None;
        task.refresh_comm();
        let auxv = Auxv::of(pid);
        let Some(trace) = task.trace.clone() else { return self.resume(stopped, 0) };
        // Hazard 14: before one record of the privileged program.
        if !hooks::exec(&task.proc, &trace, auxv.secure) {
            return self.abandon(stopped);
        }
        self.observer.switches(task, false);
        task.proc.set_abi(auxv.abi);
        self.observer.executed(task, &trace, auxv.abi);
        self.resume(stopped, 0);
    }
}

/// The last traced thread of a process is gone.
pub(super) fn ended(procs: &ProcTable, proc: &Proc) {
    match proc.id.check() {
        Err(_) => procs.exit(proc),
        // Its other threads were let go before.
        Ok(_) if proc.trace().is_none() => {}
        // What is left cannot be traced (CLONE_UNTRACED).
        Ok(_) if proc.is_releasing() => {}
        Ok(_) => proc.set_trace(None),
    }
}

/// The ABI a process was started with.
pub(super) fn abi_of(pid: i32) -> Abi {
    Auxv::of(pid).abi
}
