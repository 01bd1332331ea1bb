//! Attaching to all threads of a process, and letting them go.

use std::fs;

use super::*;
use crate::error::Error;
use crate::pids::PidSet;
use crate::proc::{self, Stat};
use crate::ptrace::stop::Traced;
use crate::ptrace::task::{comm_of, needs_calls};

/// Looks at a process's threads, one after the other, after which they are taken for all.
const PASSES_MAX: usize = 1000;

impl Tracer {
    /// Brings what is traced of a process to `trace`: attaches to every thread that is not traced yet, and stops those
    /// that must stop to make it true.
    pub(super) fn attach(
        &mut self,
        proc: &Arc<Proc>,
        trace: Arc<Trace>,
        in_force: Sender<Told>,
    ) -> Result<()> {
        let pid = proc.id.pid;
        let shared = Arc::clone(&self.shared);
        let is_new = !self.groups.contains_key(&pid);
        let group = self
            .groups
            .entry(pid)
            .or_insert_with(|| Group::new(Arc::clone(proc), shared.meter_of(pid), None));
        let sifted = group.is_filtered();
        let stops = |t: &Arc<Trace>| needs_calls(t, shared.privileged) && !(sifted && t.seccomp);
        let had_calls = group.trace.as_ref().is_some_and(stops);
        let wants_calls = stops(&trace) || trace.seccomp && !sifted;
        group.trace = Some(Arc::clone(&trace));
        for tid in &group.threads {
            if let Some(task) = self.tasks.get_mut(tid) {
                self.observer.flush(task);
                task.trace = Some(Arc::clone(&trace));
                if wants_calls && !had_calls {
                    task.interrupt();
                }
            }
        }
        if let Err(error) = self.seize_all(pid, wants_calls) {
            self.untrace(pid, None);
            self.drop_if_empty(pid);
            return Err(error);
        }
        if is_new {
            proc.set_abi(events::abi_of(pid));
        }
        let comm = comm_of(pid, pid).unwrap_or_default();
        self.observer.applied(proc, &trace, comm, is_new);
        self.watch_switches(pid);
        let Some(group) = self.groups.get_mut(&pid) else { return Ok(()) };
        let interrupted = |tid: &&i32| self.tasks.get(tid).is_some_and(|task| task.interrupted);
        let left: PidSet = group.threads.iter().filter(interrupted).copied().collect();
        group.changes.push(Pending { left, in_force });
        self.due(pid);
        Ok(())
    }

    /// Tells whom a change is in force for, once all it waited for have stopped. Before that, what they may have been making
    /// while they were seized is seized too.
    pub(super) fn due(&mut self, pid: i32) {
        let privileged = self.shared.privileged;
        // New threads are born while we look, but each maker only one, until its event is heard of.
        for _ in 0..PASSES_MAX {
            let Some(group) = self.groups.get_mut(&pid).filter(|group| group.is_due()) else { return };
            let known = group.threads.clone();
            let interrupt = group.trace.as_ref().map(|trace| needs_calls(trace, privileged));
            let (true, Some(interrupt)) = (std::mem::take(&mut group.unsure), interrupt) else {
                return group.tell(None);
            };
            if let Err(error) = self.seize_all(pid, interrupt) {
                if !matches!(error, Error::Gone { .. }) {
                    log::error!("process {pid}: there may be threads that are not traced: {error}");
                }
                // It is gone, or another tracer came first: more there will not be.
                if let Some(group) = self.groups.get_mut(&pid) {
                    group.tell(None);
                    if group.threads.is_empty() {
                        events::ended(&self.shared.procs, &group.proc);
                    }
                }
                return self.drop_if_empty(pid);
            }
            let Some(group) = self.groups.get_mut(&pid) else { return };
            let is_held = |tid: &&i32| self.tasks.get(tid).is_some_and(|task| task.interrupted);
            let new: PidSet = group.threads.difference(&known).filter(is_held).copied().collect();
            for pending in group.changes.iter_mut().filter(|pending| pending.left.is_empty()) {
                pending.left.clone_from(&new);
            }
        }
        log::error!("process {pid}: its threads could not be counted");
        if let Some(group) = self.groups.get_mut(&pid) {
            group.tell(None);
        }
    }

    /// Hazard 2: seizes every thread that is not yet. Each may be making another one at this moment, which it makes without
    /// us: it is interrupted, and all are looked for again when it has stopped, until none is new ([`Tracer::due`]).
    fn seize_all(&mut self, pid: i32, interrupt: bool) -> Result<()> {
        let tids = proc::threads(pid)?;
        // A thread that ends while they are listed can end the list, or hide another one. What we trace stays until we have
        // reaped it: so where all that are listed are ours, and no more are counted after that, there was no other.
        let counted = Stat::of(pid)?.threads as usize;
        if let Some(group) = self.groups.get_mut(&pid) {
            group.unsure |= counted > tids.len();
        }
        for tid in tids {
            if self.tasks.contains_key(&tid) || self.early.contains_key(&tid) {
                continue;
            }
            let seized = Traced::seize(tid);
            let Some(group) = self.groups.get_mut(&pid) else { return Err(Error::Gone { pid }) };
            match seized {
                Ok(thread) => {
                    group.unsure = true;
                    group.enter(tid);
                    let comm = comm_of(pid, tid).unwrap_or_default();
                    let mut task = Task::new(thread, tid, group, comm);
                    if interrupt || may_clone(tid) {
                        task.interrupt();
                    }
                    self.tasks.insert(tid, task);
                }
                Err(errno) => group.unsure |= refused(pid, tid, errno)?,
            }
        }
        // Where all that were listed have ended, what they have left behind is found in the next pass.
        match self.groups.get(&pid).is_some_and(|group| group.unsure || !group.threads.is_empty()) {
            true => Ok(()),
            false => Err(Error::Gone { pid }),
        }
    }

    /// Lets a process go: each thread is detached at its next stop.
    pub(super) fn release(&mut self, proc: &Proc, in_force: Sender<Told>) {
        let pid = proc.id.pid;
        self.untrace(pid, None);
        match self.groups.get_mut(&pid) {
            Some(group) if !group.threads.is_empty() => {
                group.changes.push(Pending { left: group.threads.clone(), in_force });
                self.due(pid);
            }
            _ => {
                let _ = in_force.try_send(None);
            }
        }
    }

    /// Says that a thread is about to be detached, where that is what somebody waits for.
    pub(super) fn lets_go(&mut self, pid: i32, tid: i32) {
        if let Some(group) = self.groups.get_mut(&pid).filter(|group| group.trace.is_none()) {
            group.lets_go(tid);
            group.tell(Some(LetsGo { tid, tracer: sys::gettid() }));
        }
    }

    /// A thread was detached.
    pub(super) fn left(&mut self, tid: i32) {
        let Some(task) = self.tasks.remove(&tid) else { return };
        if let Some(group) = self.groups.get_mut(&task.pid) {
            group.leave(tid);
        }
        self.drop_if_empty(task.pid);
        self.due(task.pid);
    }

    /// Forgets a process without traced threads.
    pub(super) fn drop_if_empty(&mut self, pid: i32) {
        if self.groups.get(&pid).is_some_and(|group| group.threads.is_empty()) {
            self.groups.remove(&pid);
            self.shared.forget(pid, &self.me);
        }
    }
}

/// False where a thread sleeps in a call that makes no thread.
fn may_clone(tid: i32) -> bool {
    /// clone(2) and clone3(2) of x86-64 and i386.
    const CLONES: [&str; 3] = ["56", "435", "120"];
    let call = fs::read_to_string(format!("/proc/{tid}/syscall")).unwrap_or_default();
    let number = call.split_ascii_whitespace().next().filter(|number| number.parse::<u32>().is_ok());
    number.is_none_or(|number| CLONES.contains(&number))
}

/// Why a thread cannot be seized; where that is no failure of the whole, whether it may have left another one behind that
/// we have not seen.
fn refused(pid: i32, tid: i32, errno: Errno) -> Result<bool> {
    match Stat::of(tid) {
        _ if errno == Errno::ESRCH => return Ok(true),
        Err(_) => return Ok(true),
        // A leader that has exited before its threads stays, and cannot be traced; so does one that another tracer has.
        Ok(stat) if stat.has_exited() => return Ok(tid != pid && proc::tracer_of(tid) == 0),
        Ok(_) => {}
    }
    match proc::tracer_of(tid) {
        0 if errno == Errno::EPERM => {
            Err(Error::Denied { pid, why: "the kernel refuses to let it be traced".into() })
        }
        0 => Err(Error::sys("PTRACE_SEIZE", pid, errno)),
        // Made by a thread of ours and attached by the kernel: its parent's event tells of it.
        tracer if proc::tgid(tracer).ok() == i32::try_from(std::process::id()).ok() => Ok(false),
        tracer => Err(Error::Busy { pid, why: format!("process {tracer} traces it already").into() }),
    }
}
