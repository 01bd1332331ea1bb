//! What can be read: the state of a process in the grammar of `ctl`, `stat`, the totals, and whose the files are.

use std::fmt::Write as _;
use std::sync::{Arc, Weak};

use super::{Ktrace, Totals};
use crate::backend::Costs;
use crate::cred::Creds;
use crate::ctl::Set;
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::proc::{self, Proc, ProcId, Trace};
use crate::sink::{Counts, End, Sink};

impl Ktrace {
    /// What the `ctl` of a process reads as: a line that, written, makes this state.
    ///
    /// # Errors
    /// ESRCH.
    pub fn state(&self, target: ProcId) -> Result<String> {
        let proc = self.known(target)?;
        Ok(match proc.and_then(|p| p.trace()) {
            None => "clear\n".into(),
            Some(trace) => {
                let set = Set {
                    facs: trace.facs - Facs::MIB,
                    inherit: trace.inherit,
                    policy: Some(trace.sink().policy()),
                    size: trace.sink().exact_size(),
                    backend: Some(trace.backend.to_owned()),
                    calls: trace.calls.clone(),
                    ..Set::default()
                };
                format!("{set}\n")
            }
        })
    }

    /// The text of `<pid>/stat`: a name and a value on each line. Counts are those of the trace file, which other
    /// processes may share.
    ///
    /// # Errors
    /// ESRCH.
    pub fn proc_stat(&self, target: ProcId) -> Result<String> {
        let proc = self.known(target)?;
        let trace = proc.as_ref().and_then(|p| p.trace());
        let sink = proc.as_ref().and_then(|p| p.sink());
        let counts = sink.as_ref().map(|s| s.counts()).unwrap_or_default();
        let costs = match (&proc, &trace) {
            (Some(proc), Some(trace)) => self.costs_of(proc, trace),
            _ => Costs::default(),
        };
        let mut text = String::new();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {value}");
        };
        let or_none = |value: String| if value.is_empty() { "none".into() } else { value };
        line("facilities", &or_none(trace.as_ref().map_or(String::new(), |t| t.facs.to_string())));
        line("flags", &or_none(trace.as_ref().map_or(String::new(), |t| flags(t))));
        line("trace_file", &or_none(sink.as_ref().map_or(String::new(), |s| s.id().to_string())));
        let file = sink.as_ref().and_then(|s| s.file().map(|file| file.name.clone()));
        line("file", &or_none(file.unwrap_or_default()));
        line("backend", &trace.as_ref().map_or("none", |t| t.backend));
        line("policy", &or_none(sink.as_ref().map_or(String::new(), |s| s.policy().to_string())));
        line("size", &sink.as_ref().map_or(0, |s| s.size()));
        line("memory", &counts.memory);
        line("threads", &proc::threads(target.pid).map_or(0, |t| t.len()));
        line("records", &counts.records);
        line("bytes", &counts.bytes);
        line("lost", &counts.lost);
        line("readers", &counts.readers);
        line("stops", &costs.stops);
        line("stopped_ns", &costs.stopped_ns);
        line("ns_per_stop", &costs.stopped_ns.checked_div(costs.stops).unwrap_or(0));
        line("error", &sink.as_ref().and_then(|s| s.end()).map_or("none".into(), error));
        Ok(text)
    }

    fn costs_of(&self, proc: &Proc, trace: &Trace) -> Costs {
        let backend = self.backends.iter().find(|b| b.name() == trace.backend);
        backend.map(|b| b.costs(Some(proc))).unwrap_or_default()
    }

    /// The totals.
    pub fn totals(&self) -> Totals {
        let sinks: Vec<Arc<Sink>> = self.sinks.lock().iter().filter_map(Weak::upgrade).collect();
        let counts = sinks.iter().map(|s| s.counts()).fold(self.budget.past(), |sum, c| Counts {
            records: sum.records + c.records,
            bytes: sum.bytes + c.bytes,
            lost: sum.lost + c.lost,
            readers: sum.readers + c.readers,
            memory: 0,
        });
        let costs = self.backends.iter().map(|b| b.costs(None)).fold(Costs::default(), |sum, c| Costs {
            stops: sum.stops + c.stops,
            stopped_ns: sum.stopped_ns + c.stopped_ns,
            threads: sum.threads + c.threads,
            events: sum.events + c.events,
            recursion_misses: sum.recursion_misses + c.recursion_misses,
        });
        Totals {
            traced: self.procs.all().iter().filter(|p| p.trace().is_some()).count(),
            sinks: sinks.len(),
            records: counts.records,
            bytes: counts.bytes,
            lost: counts.lost,
            readers: counts.readers,
            memory: self.budget.used(),
            costs,
        }
    }

    /// Whom the files of a process belong to: its ids where real, effective and saved are equal, else root; root where
    /// root set the trace. Those of a dead process belong to the owner of its trace file.
    pub fn owner(&self, target: ProcId) -> (u32, u32) {
        let proc = self.procs.get(target);
        if proc.as_ref().and_then(|p| p.trace()).is_some_and(|t| t.root) {
            return (0, 0);
        }
        let creds = Creds::of(target.pid);
        match (creds, target.is_there()) {
            (Ok(creds), Ok(())) if !creds.dead => creds.owner(),
            _ => (proc.and_then(|p| p.sink()).map_or(0, |s| s.owner()), 0),
        }
    }

    /// The process that had this number and is dead or about to be, where it has left records to read and no other has its number.
    pub fn lingers(&self, pid: i32) -> Option<ProcId> {
        let proc = self.procs.get_pid(pid)?;
        let dead = proc.id.check().is_err() || proc::is_ending(pid);
        let dead = dead && !ProcId::of(pid).is_ok_and(|id| id != proc.id);
        (dead && proc.sink().is_some()).then_some(proc.id)
    }

    /// The entry of a process, with what its birth has brought it, of which a backend may not have told yet.
    pub(super) fn heard_of(&self, id: ProcId) -> Option<Arc<Proc>> {
        let entry = self.procs.get(id);
        if entry.as_ref().is_some_and(|proc| proc.trace().is_some()) {
            return entry;
        }
        self.backends.iter().for_each(|backend| backend.catch_up(id.pid));
        self.procs.get(id)
    }

    /// The entry of a process that lives or lingers.
    fn known(&self, target: ProcId) -> Result<Option<Arc<Proc>>> {
        match target.check().is_ok() || self.lingers(target.pid) == Some(target) {
            true => Ok(self.heard_of(target)),
            false => Err(Error::Gone { pid: target.pid }),
        }
    }
}

fn flags(trace: &Trace) -> String {
    let flags = [(trace.inherit, "inherit"), (trace.root, "root")];
    flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

fn error(end: End) -> String {
    match end {
        End::Finished => "none".into(),
        End::GaveUp(errno) => {
            format!("tracing stopped: errno {errno} ({:?})", nix::errno::Errno::from_raw(errno))
        }
    }
}
