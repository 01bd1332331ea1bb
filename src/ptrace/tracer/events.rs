//! Births, execs and deaths.

use super::*;
use crate::error::Error;
use crate::hooks;
use crate::proc::{self, Auxv, ProcId, ProcTable};
use crate::ptrace::stop::Traced;
use crate::syscall::Abi;

impl Tracer {
    /// `parent` has made a thread or process (hazard 4): a thread is always traced, a process with INHERIT.
    pub(super) fn child(&mut self, parent: i32, child: i32) {
        if self.tasks.contains_key(&child) {
            return;
        }
        let Some(task) = self.tasks.get(&parent) else { return };
        let (proc, comm, pid) = (Arc::clone(&task.proc), task.comm, task.pid);
        let (is_traced, filtered) = (task.trace.is_some(), task.filtered);
        let group = match ProcId::of(child) {
            Err(_) if proc::has_thread(pid, child) => pid,
            // Not even a zombie: we have reaped it, and nothing more will be heard of it. To wait for its first stop would
            // be to let the next one go that gets its number.
            Err(Error::Gone { .. }) => return,
            Err(error) => return self.unseen(parent, child, &error),
            Ok(id) => {
                let inherited = if is_traced { self.shared.procs.fork(&proc, id) } else { None };
                let (proc, trace) = match inherited {
                    Some((proc, trace)) => (proc, Some(trace)),
                    // It has its parent's filter, and so must have its tracer.
                    None if filtered => (self.shared.procs.entry(id), None),
                    None => return self.strange(child),
                };
                let meter = self.shared.enter(child, &self.me);
                if let Some(trace) = &trace {
                    self.observer.applied(&proc, trace, comm, true);
                }
                let mut group = Group::new(proc, meter, trace);
                group.filtered = filtered;
                self.groups.insert(child, group);
                child
            }
        };
        let Some(group) = self.groups.get_mut(&group) else { return self.strange(child) };
        group.enter(child);
        let mut task = Task::new(Traced::born(child), child, group, comm);
        // Its process is being let go: it must stop once more to be detached.
        if task.trace.is_none() {
            task.interrupt();
        }
        let pid = task.pid;
        let wants_switches = task.wants_switches();
        self.tasks.insert(child, task);
        if wants_switches {
            self.watch_switches(pid);
        }
        if let Some((stopped, stop)) = self.early.remove(&child) {
            self.stopped(stopped, stop);
        }
    }

    /// A new process of which we cannot even learn which one it is: it runs on untraced, and the stream says so.
    fn unseen(&mut self, parent: i32, child: i32, error: &Error) {
        log::error!("process {child} is not traced: {error}");
        if let Some(task) = self.tasks.get(&parent)
            && let Some(trace) = task.trace.as_ref().filter(|trace| trace.inherit)
        {
            self.observer.escaped(task, trace, child, error.errno());
        }
        self.strange(child);
    }

    /// A new process that is not to be traced.
    fn strange(&mut self, child: i32) {
        match self.early.remove(&child) {
            Some((stopped, _)) => stopped.detach(0),
            None => drop(self.strangers.insert(child)),
        }
    }

    /// A stop of a thread we do not know: a new one, whose parent's event comes before or after.
    pub(super) fn unknown(&mut self, stopped: Stopped, stop: Stop) {
        let tid = stopped.tid();
        if self.strangers.remove(&tid) {
            return stopped.detach(0);
        }
        self.early.insert(tid, (stopped, stop));
    }

    /// A thread is gone (hazard 8). `reaped`: the kernel has said so, and of a process's first thread it says so only when
    /// no other is left.
    pub(super) fn dead(&mut self, tid: i32, reaped: bool) {
        self.strangers.remove(&tid);
        if let Some((stopped, _)) = self.early.remove(&tid) {
            // Nothing is owed to the dead.
            stopped.detach(0);
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
        self.let_orphans_go();
    }

    /// New processes whose parent was killed before its event was heard of would wait for it for ever. A thread would not:
    /// who kills its maker kills it too. So it waits for its maker's event, however late: an event that is heard of when
    /// the thread has been let go would make us believe that we trace it.
    fn let_orphans_go(&mut self) {
        let tids: Vec<i32> = self.early.keys().copied().collect();
        for tid in tids {
            // It is stopped, or dead and not reaped: what cannot be read is for want of descriptors, and read the next time.
            let (Ok(family), Ok(stat)) = (proc::tgid(tid), proc::Stat::of(tid)) else { continue };
            if !self.groups.contains_key(&family) && !self.groups.contains_key(&stat.ppid) {
                self.strange(tid);
            }
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
