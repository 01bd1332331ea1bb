//! Births: a new thread or process, whose first stop and whose parent's event come in any order, or never.

use super::*;
use crate::cred::{self, Creds};
use crate::error::Error;
use crate::proc::{self, ProcId};
use crate::ptrace::stop::Traced;
use crate::ptrace::task::comm_of;
use crate::record::Comm;

/// After so long without the event it is looked for whose a new process is. Mostly the event comes within microseconds; its
/// maker may be kept from its cpu before it.
const PATIENCE: Duration = Duration::from_millis(100);

/// `SECCOMP_MODE_FILTER` as proc_pid_status(5) shows it.
const FILTER: &str = "2";

/// The first stop of a new thread or process whose parent's event has not come yet.
pub(super) struct Early {
    stopped: Stopped,
    stop: Stop,
    since: Instant,
}

impl Tracer {
    /// `parent` has made a thread or process (hazard 4): a thread is always traced, a process with INHERIT.
    pub(super) fn child(&mut self, parent: i32, child: i32) {
        let ahead = self.ahead.remove(&child);
        if self.tasks.contains_key(&child) {
            return;
        }
        let Some(task) = self.tasks.get(&parent) else { return };
        // It was let go or has died, and for what has its number by now nothing follows from this event; unless that is
        // another one that the kernel has made us trace.
        if ahead && proc::tracer_of(child) != sys::gettid() {
            return self.missed(parent, child);
        }
        let (proc, comm, pid) = (Arc::clone(&task.proc), task.comm, task.pid);
        let (is_traced, filtered) = (task.trace.is_some(), task.filtered);
        let group = match ProcId::of(child) {
            Err(_) if proc::has_thread(pid, child) => pid,
            // Not even a zombie: we have reaped it, and nothing more will be heard of it. To wait for its first stop would
            // be to let the next one go that gets its number.
            Err(Error::Gone { .. }) => return,
            // It is looked for again until there are descriptors.
            Err(_) if filtered => return,
            Err(error) => return self.unseen(parent, child, &error),
            Ok(id) => {
                let inherited = if is_traced { self.shared.procs.fork(&proc, id) } else { None };
                let (proc, trace) = match inherited {
                    Some((proc, trace)) => (proc, Some(trace)),
                    // It has its parent's filter, and so must have its tracer.
                    None if filtered => (self.shared.procs.entry(id), None),
                    None => return self.strange(child),
                };
                self.found(proc, trace, comm, filtered);
                child
            }
        };
        self.join(child, group, comm);
    }

    /// A new process.
    fn found(&mut self, proc: Arc<Proc>, trace: Option<Arc<Trace>>, comm: Comm, filtered: bool) {
        let pid = proc.id.pid;
        let meter = self.shared.enter(pid, &self.me);
        if let Some(trace) = &trace {
            self.observer.applied(&proc, trace, comm, true);
        }
        let mut group = Group::new(proc, meter, trace);
        if filtered {
            group.set_filtered(&self.shared.filters);
        }
        self.groups.insert(pid, group);
    }

    /// A new thread is one of this process.
    fn join(&mut self, child: i32, group: i32, comm: Comm) {
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
        if let Some(early) = self.early.remove(&child) {
            self.stopped(early.stopped, early.stop);
        }
    }

    /// A new process of which we cannot even learn which one it is: it runs on untraced, and the stream says so.
    fn unseen(&mut self, parent: i32, child: i32, error: &Error) {
        log::error!("process {child} is not traced: {error}");
        self.tell(parent, child, error.errno());
        self.strange(child);
    }

    /// A new process was let go before its parent's event came. Of one that has ended meanwhile there is nothing to say.
    fn missed(&mut self, parent: i32, child: i32) {
        if ProcId::of(child).is_ok_and(|id| id.check().is_ok()) {
            self.tell(parent, child, libc::ETIMEDOUT);
        }
    }

    fn tell(&mut self, parent: i32, child: i32, errno: i32) {
        if let Some(task) = self.tasks.get(&parent)
            && let Some(trace) = task.trace.as_ref().filter(|trace| trace.inherit)
        {
            self.observer.escaped(task, trace, child, errno);
        }
    }

    /// A new process that is not to be traced.
    fn strange(&mut self, child: i32) {
        match self.early.remove(&child) {
            Some(early) => early.stopped.detach(0),
            None => drop(self.strangers.insert(child)),
        }
    }

    /// A stop of a thread we do not know: a new one, whose parent's event comes before or after.
    pub(super) fn unknown(&mut self, stopped: Stopped, stop: Stop) {
        let tid = stopped.tid();
        if self.strangers.remove(&tid) {
            return stopped.detach(0);
        }
        // Whoever had the number before.
        self.ahead.remove(&tid);
        self.early.insert(tid, Early { stopped, stop, since: Instant::now() });
    }

    /// Who is gone was no thread of ours yet: its parent's event has been heard, or comes now.
    pub(super) fn unborn(&mut self, tid: i32) {
        if let Some(early) = self.early.remove(&tid) {
            // Nothing is owed to the dead.
            early.stopped.detach(0);
        }
        if !self.strangers.remove(&tid) {
            self.ahead.insert(tid);
        }
    }

    /// The event of who made a new process never comes where that thread was killed first: by an exec, or with its process.
    /// To be looked at now and then.
    pub(super) fn claim(&mut self) {
        let overdue = self.early.iter().filter(|(_, early)| early.since.elapsed() >= PATIENCE);
        for tid in overdue.map(|(&tid, _)| tid).collect::<Vec<i32>>() {
            // It is stopped, or dead and not reaped: what cannot be read is for want of descriptors, and read the next time.
            let Ok(who) = Creds::of(tid) else { continue };
            // A thread waits for its maker's event, however late: who kills its maker kills it too.
            if who.tgid != tid && self.groups.contains_key(&who.tgid) {
                continue;
            }
            if who.tgid == tid
                && let Some(parent) = self.parent_of(tid, who.ppid)
            {
                self.child(parent, tid);
            }
            if self.early.contains_key(&tid) {
                match (self.may_be_filtered(tid), ProcId::of(tid)) {
                    (true, Ok(id)) => {
                        self.orphaned(tid);
                        self.keep(id);
                    }
                    (true, Err(error)) if !matches!(error, Error::Gone { .. }) => continue,
                    _ => {
                        self.orphaned(tid);
                        self.strange(tid);
                    }
                }
            }
            // The event may come all the same.
            self.ahead.insert(tid);
        }
    }

    /// Whether a new process may have a filter of ours: then it cannot be let go.
    fn may_be_filtered(&self, child: i32) -> bool {
        let has_one = || proc::status_field(child, "Seccomp").is_ok_and(|mode| mode == FILTER);
        self.shared.filters.load(Ordering::Relaxed) && has_one()
    }

    /// A new process stays, and nothing of it is seen.
    fn keep(&mut self, id: ProcId) {
        let comm = comm_of(id.pid, id.pid).unwrap_or_default();
        self.found(self.shared.procs.entry(id), None, comm, true);
        self.join(id.pid, id.pid, comm);
    }

    /// Nobody knows any more whose child a new process is, and what was traced of that one: all streams it may belong to are told.
    fn orphaned(&mut self, child: i32) {
        let mut told = Vec::new();
        for group in self.groups.values() {
            let Some(trace) = group.trace.as_ref().filter(|trace| trace.inherit) else { continue };
            if told.contains(&trace.sink().id()) {
                continue;
            }
            if let Some(task) = group.threads.iter().find_map(|tid| self.tasks.get(tid)) {
                told.push(trace.sink().id());
                self.observer.escaped(task, trace, child, libc::ESRCH);
            }
        }
    }

    /// Nobody is traced any more: those whose parents' events did not come run on.
    pub(super) fn abandon_early(&mut self) {
        self.early.drain().for_each(|(_, early)| early.stopped.detach(0));
    }

    /// A thread of the process whose child a new one is, as far as its tracing may go over: the kernel makes orphans
    /// children of whom it likes, and one with privilege is not to be seen by the user who traces that one.
    fn parent_of(&self, child: i32, ppid: i32) -> Option<i32> {
        let group = self.groups.get(&ppid)?;
        let may = |trace: &Arc<Trace>| trace.is_roots() || cred::sees_memory(trace.sink().owner(), child);
        group.trace.as_ref().is_none_or(may).then(|| group.threads.iter().next().copied())?
    }
}
