//! What set, clear and clearfile do to one process, and with which sink.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::aim::Aim;
use super::{Ktrace, denied};
use crate::backend::{Backend, Want};
use crate::cred::Caller;
use crate::ctl::{Clear, Set, Target};
use crate::drain::{self, Descriptor};
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::policy::Policy;
use crate::proc::{Proc, ProcId, Trace};
use crate::sink::{File, FileId, SIZE_DEFAULT, SIZE_GROWN, SIZE_MAX, SIZE_MIN, Sink, Writer};

/// How long a change of one process may wait for that process.
pub(super) const CHANGE_MAX: Duration = Duration::from_secs(1);

/// Into which sink a set goes.
enum Into<'a> {
    /// The one the process writes to, else a new one.
    Own,
    /// A new one.
    New,
    /// The one that an earlier process of the same command got.
    This(&'a Arc<Sink>),
}

impl Ktrace {
    pub(super) fn set(&self, caller: &Caller, file: Option<ProcId>, set: &Set) -> Result<()> {
        // Errors of the file come first (R35).
        let taken =
            set.fd.map(|fd| drain::take(caller, fd, self.options.mountpoint.as_deref())).transpose()?;
        if set.facs.is_empty() && !set.all && !set.inherit {
            return Err(Error::invalid("set needs facilities, like \"set syscall,sysret\""));
        }
        if set.size.is_some_and(|size| size > SIZE_MAX) {
            return Err(Error::invalid(format!("size= is more than {SIZE_MAX} bytes")));
        }
        if set.seccomp && !set.inherit {
            return Err(Error::invalid(
                "+seccomp needs +inherit: a child has the filter too, and needs its tracer",
            ));
        }
        let policy = set.policy.unwrap_or(self.options.policy);
        self.backend_for(set.backend.as_deref(), &want(set, policy))?;
        let aim = Aim::new(file, set.target)?;
        // Kept until all are set: it must not end because the first process has died meanwhile.
        let mut shared: Option<Writer> = taken.map(|file| self.file_sink(caller, set, file)).transpose()?;
        self.each(aim, set.descend, |id| {
            let into = match (&shared, aim) {
                (Some(writer), _) => Into::This(writer.sink()),
                (None, Aim::Proc(_)) => Into::Own,
                (None, Aim::Group(_) | Aim::All) => Into::New,
            };
            let sink = self.set_one(caller, id, set, into)?;
            shared.get_or_insert_with(|| sink.writer());
            Ok(())
        })
    }

    pub(super) fn clear(&self, caller: &Caller, file: Option<ProcId>, clear: &Clear) -> Result<()> {
        // In a process's own ctl `clear all` means the facilities.
        let named = clear.target.filter(|t| file.is_none() || *t != Target::All || clear.facs.is_some());
        let aim = Aim::new(file, named)?;
        self.each(aim, clear.descend, |id| {
            let root = self.may(caller, id)?;
            match self.heard_of(id) {
                Some(proc) => self.clear_one(caller, root, &proc, clear),
                // R34.
                None => Ok(()),
            }
        })
    }

    /// R10.
    pub(super) fn clear_file(
        &self,
        caller: &Caller,
        file: Option<ProcId>,
        named: Option<Target>,
        fd: Option<i32>,
    ) -> Result<()> {
        let mut sinks: Vec<Arc<Sink>> = Vec::new();
        let mut refusal = None;
        if let Some(fd) = fd {
            let named = drain::take(caller, fd, self.options.mountpoint.as_deref())?;
            sinks.extend(self.sinks_of(named.id()));
        } else {
            let aim = Aim::new(file, named)?;
            let found = self.each(aim, false, |id| {
                self.may(caller, id)?;
                if let Some(sink) = self.heard_of(id).and_then(|p| p.sink())
                    && !sinks.iter().any(|s| Arc::ptr_eq(s, &sink))
                {
                    sinks.push(sink);
                }
                Ok(())
            });
            refusal = found.err();
        }
        let mut met = HashSet::new();
        for sink in sinks {
            loop {
                // An inheriting child may have come meanwhile.
                let mut writers = self.procs.writers_of(sink.id());
                writers.retain(|proc| met.insert(proc.id));
                if writers.is_empty() {
                    break;
                }
                for proc in writers {
                    let may = self.may(caller, proc.id);
                    match may.and_then(|root| self.clear_one(caller, root, &proc, &Clear::default())) {
                        Ok(()) | Err(Error::Gone { .. }) => {}
                        Err(error) => drop(refusal.get_or_insert(error)),
                    }
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// The backend of that name, or the preferred one.
    pub(super) fn backend(&self, name: Option<&str>) -> Result<&Arc<dyn Backend>> {
        let name = name.or(self.options.backend.as_deref());
        let found = match name {
            None => self.backends.first(),
            Some(name) => self.backends.iter().find(|b| b.name() == name),
        };
        found.ok_or_else(|| {
            let what = match name {
                None => "there is no backend here".into(),
                Some(name) => format!("there is no backend {name} here, only: {}", self.backends().join(" ")),
            };
            Error::Unsupported { what: what.into() }
        })
    }

    /// The backend of that name, which must be able to do what is wanted; without a name the first that is.
    fn backend_for(&self, name: Option<&str>, want: &Want) -> Result<&Arc<dyn Backend>> {
        if name.is_none() && self.options.backend.is_none() {
            let able = self.backends.iter().find(|b| b.can(want).is_ok());
            if let Some(backend) = able {
                return Ok(backend);
            }
        }
        let backend = self.backend(name)?;
        backend.can(want).map(|()| backend)
    }

    /// Whether the backends of the other processes that write to this sink can keep the policy.
    fn others_can(&self, id: ProcId, sink: &Sink, policy: Policy) -> Result<()> {
        let writers = self.procs.writers_of(sink.id());
        for trace in writers.iter().filter(|proc| proc.id != id).filter_map(|proc| proc.trace()) {
            self.backend(Some(trace.backend))?.can(&Want { facs: Facs::empty(), policy, seccomp: false })?;
        }
        Ok(())
    }

    /// When to stop waiting for a process: at once for the caller's own, which waits for us.
    fn patience(&self, caller: &Caller, id: ProcId) -> Instant {
        let now = Instant::now();
        if caller.process() == id.pid { now } else { now + CHANGE_MAX }
    }

    fn set_one(&self, caller: &Caller, id: ProcId, set: &Set, into: Into<'_>) -> Result<Arc<Sink>> {
        let root = self.may(caller, id)?;
        self.heard_of(id);
        let proc = self.procs.entry(id);
        let _changing = lock(&proc)?;
        let old = proc.trace();
        only_root_changes_roots(root, &proc, old.as_deref())?;
        if set.seccomp && caller.process() != id.pid {
            return Err(Error::invalid(
                "+seccomp is for the process itself, which is about to make its filter",
            ));
        }
        let writer = self.writer(caller, id, set, into, old.as_deref())?;
        let sink = Arc::clone(writer.sink());
        let policy = set.policy.unwrap_or_else(|| sink.policy());
        // What is traced already stays where it is, unless it is told to move.
        let name = set.backend.as_deref().or(old.as_ref().map(|old| old.backend));
        let backend = self.backend_for(name, &want(set, policy))?;
        // The present one all keep already. Of a tree it is so for all but the first, and each looks at all.
        if policy != sink.policy() {
            self.others_can(id, &sink, policy)?;
        }
        let all = if set.all { backend.facilities() } else { Facs::empty() };
        // R17: into the same file the facilities add up, into another one nothing stays.
        let same = old.as_ref().filter(|t| Arc::ptr_eq(t.sink(), &sink));
        let trace = Arc::new(Trace {
            facs: set.facs | all | same.map_or(Facs::empty(), |t| t.facs),
            inherit: set.inherit || same.is_some_and(|t| t.inherit),
            root: root || same.is_some_and(|t| t.root),
            seccomp: set.seccomp,
            calls: set.calls.clone().or_else(|| same.and_then(|t| t.calls.clone())),
            backend: backend.name(),
            writer,
        });
        // At once, and first: the process may be waiting for a reader as the old policy demands.
        let before = sink.policy();
        sink.set_policy(policy);
        if let Err(error) = self.bring_in_force(caller, &proc, backend, old, trace) {
            sink.set_policy(before);
            return Err(error);
        }
        if sink.end().is_some() {
            // It was given up while this process joined it: the keeper may have looked too early.
            let _ = self.given_up.send(sink.id());
        }
        Ok(sink)
    }

    fn bring_in_force(
        &self,
        caller: &Caller,
        proc: &Arc<Proc>,
        backend: &Arc<dyn Backend>,
        old: Option<Arc<Trace>>,
        trace: Arc<Trace>,
    ) -> Result<()> {
        let by = self.patience(caller, proc.id);
        let before = old.as_ref().filter(|t| t.backend != backend.name());
        let before = before.map(|t| self.backend(Some(t.backend))).transpose()?;
        if let Some(before) = before {
            before.apply(proc, None, by)?;
        }
        if !proc.swap_trace(old.as_ref(), Some(Arc::clone(&trace))) {
            return Err(changed_meanwhile(proc));
        }
        if caller.process() == proc.id.pid {
            backend.excuse(caller.tid, Some(&trace));
        }
        // A set-id exec may have come between the permission and the attach: from then on the backend watches for it.
        let still_may = || {
            self.may(caller, proc.id).map(drop).or_else(|error| match error {
                Error::Denied { .. } => {
                    // Nor may who has set what it was before see any more of it.
                    let _ = backend.apply(proc, None, by);
                    proc.set_trace(None);
                    Err(error)
                }
                _ => Ok(()),
            })
        };
        let apply = || {
            let held = !trace.root && backend.hold(proc, &trace)?;
            if held {
                still_may()?;
            }
            backend.apply(proc, Some(Arc::clone(&trace)), by)?;
            if trace.root || held { Ok(()) } else { still_may() }
        };
        match apply() {
            Ok(()) => {
                proc.bind();
                Ok(())
            }
            Err(error) => {
                if caller.process() == proc.id.pid {
                    backend.excuse(caller.tid, None);
                }
                if let (Some(before), Some(old), false) =
                    (before, &old, matches!(error, Error::Denied { .. }))
                {
                    let _ = before.apply(proc, Some(Arc::clone(old)), by);
                }
                proc.revert_trace(&trace, old);
                Err(error)
            }
        }
    }

    fn writer(
        &self,
        caller: &Caller,
        id: ProcId,
        set: &Set,
        into: Into<'_>,
        old: Option<&Trace>,
    ) -> Result<Writer> {
        let live = old.map(Trace::sink).filter(|sink| sink.end().is_none());
        let sink = match (into, live) {
            (Into::This(sink), _) => return Ok(sink.writer()),
            (Into::Own, Some(live)) => live,
            _ => return self.new_sink(caller, set).map(|sink| sink.writer()),
        };
        if caller.uid != 0 && caller.uid != sink.owner() {
            return Err(Error::Access {
                why: format!("the trace file belongs to uid {}", sink.owner()).into(),
            });
        }
        if set.size.is_some_and(|size| size.clamp(SIZE_MIN, SIZE_MAX) != sink.size()) {
            let why =
                format!("its trace file has {} bytes already: size= comes with the first set", sink.size());
            return Err(Error::Busy { pid: id.pid, why: why.into() });
        }
        Ok(sink.writer())
    }

    /// The sink that is written to this file: the present one (R21), or a new one with a thread that drains it.
    fn file_sink(&self, caller: &Caller, set: &Set, file: Descriptor) -> Result<Writer> {
        // Held until the new one is known: two at once must not both make one.
        let mut alive = self.drains.lock();
        let mut there = self.sinks_of(file.id());
        there.retain(|sink| !file.is_device() || sink.owner() == caller.uid);
        if let Some(sink) = there.first() {
            // Who may read that sink by `trace` must not come to see another user's records.
            return match sink.owner() == caller.uid {
                true => Ok(sink.writer()),
                false => Err(Error::Access {
                    why: format!("a trace of uid {} is written to this file", sink.owner()).into(),
                }),
            };
        }
        let Some(alive) = alive.as_mut() else {
            return Err(Error::Busy {
                pid: std::process::id() as i32,
                why: "the daemon is about to end".into(),
            });
        };
        let sink = self.new_sink(caller, set)?;
        let writer = sink.writer();
        sink.set_file(File { id: file.id(), name: file.name().to_owned() });
        drain::start(&sink, file, caller, alive.clone())?;
        Ok(writer)
    }

    /// The living sinks that are written to this file: one, or of a device one of each user.
    pub(super) fn sinks_of(&self, file: FileId) -> Vec<Arc<Sink>> {
        let sinks = self.sinks.lock();
        let live = sinks.iter().filter_map(Weak::upgrade).filter(|sink| sink.end().is_none());
        live.filter(|sink| sink.file().is_some_and(|f| f.id == file)).collect()
    }

    fn new_sink(&self, caller: &Caller, set: &Set) -> Result<Arc<Sink>> {
        let size = set.size.or(self.options.size);
        let policy = set.policy.unwrap_or(self.options.policy);
        let given_up = Some(self.given_up.clone());
        let sink = Sink::new(size.unwrap_or(SIZE_DEFAULT), policy, caller.uid, &self.budget, given_up)?;
        if size.is_none() {
            sink.let_grow(SIZE_GROWN);
        }
        let mut sinks = self.sinks.lock();
        sinks.retain(|sink| sink.strong_count() > 0);
        sinks.push(Arc::downgrade(&sink));
        Ok(sink)
    }

    /// `root`: as [`Ktrace::may`] says.
    pub(super) fn clear_one(
        &self,
        caller: &Caller,
        root: bool,
        proc: &Arc<Proc>,
        clear: &Clear,
    ) -> Result<()> {
        let _changing = lock(proc)?;
        let Some(old) = proc.trace() else { return Ok(()) };
        only_root_changes_roots(root, proc, Some(&old))?;
        let by = self.patience(caller, proc.id);
        let facs = clear.facs.map_or(Facs::empty(), |facs| old.facs - facs);
        if facs.is_empty() {
            return self.release(proc, &old, by);
        }
        let inherit = old.inherit && !clear.inherit;
        let trace = Arc::new(Trace { facs, inherit, root: old.root, ..old.inherited() });
        if !proc.swap_trace(Some(&old), Some(Arc::clone(&trace))) {
            return Err(changed_meanwhile(proc));
        }
        let backend = self.backend(Some(trace.backend))?;
        if let Err(error) = backend.apply(proc, Some(Arc::clone(&trace)), by) {
            proc.revert_trace(&trace, Some(old));
            return Err(error);
        }
        let _ = backend.settle(proc, by);
        Ok(())
    }

    /// R20: nothing is traced any more, and the trace file is let go. What happened before is in it.
    pub(super) fn release(&self, proc: &Arc<Proc>, old: &Arc<Trace>, by: Instant) -> Result<()> {
        let backend = self.backend(Some(old.backend))?;
        proc.set_releasing(true);
        let released = backend.apply(proc, None, by);
        proc.set_releasing(false);
        match released {
            // Gone is as good as released.
            Ok(_) | Err(Error::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        proc.swap_trace(Some(old), None);
        Ok(())
    }
}

/// What is asked of a backend.
fn want(set: &Set, policy: Policy) -> Want {
    Want { facs: set.facs, policy, seccomp: set.seccomp }
}

/// Takes the right to change what is traced of a process.
fn lock(proc: &Proc) -> Result<MutexGuard<'_, ()>> {
    let busy = || Error::Busy { pid: proc.id.pid, why: "another change is under way".into() };
    proc.changing.try_lock_for(CHANGE_MAX).ok_or_else(busy)
}

/// R33 once more, now that nobody else can set: root may have come between.
fn only_root_changes_roots(root: bool, proc: &Proc, trace: Option<&Trace>) -> Result<()> {
    match trace {
        Some(trace) if trace.root && !root => Err(denied(proc.id.pid, "root traces it")),
        _ => Ok(()),
    }
}

/// An exec or a death has ended what was traced, under our hands.
fn changed_meanwhile(proc: &Proc) -> Error {
    match proc.id.check() {
        Err(gone) => gone,
        Ok(_) => Error::Busy { pid: proc.id.pid, why: "its tracing has just ended".into() },
    }
}
