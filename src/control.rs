//! `kern_ktrace.c`'s control part: set, clear and clearfile, for one process, its descendants, a group or all.
//!
//! Decides who may, which sink, and what is traced afterwards; how it is watched is the backend's. [`Ktrace`] is here,
//! with what concerns one open or one request; [`change`] has what a command does to one process, [`aim`] to which
//! processes, [`keeper`] what happens when a sink is given up, [`stat`] what can be read.

mod aim;
mod change;
mod keeper;
mod stat;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

use crate::backend::{Backend, Costs};
use crate::cred::{self, Caller};
use crate::ctl::Command;
use crate::error::{Error, Result};
use crate::hooks::{At, Recorder};
use crate::policy::Policy;
use crate::proc::{self, ProcId, ProcTable, Stat};
use crate::record::{self, Stamp, Time};
use crate::sink::{Budget, Sink};
use crate::stream::TraceFile;

/// What the administrator chose at mount time.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a ring where `size=` is not given; `None` for [`crate::sink::SIZE_DEFAULT`], which may grow.
    pub size: Option<usize>,
    /// Bytes of all rings together.
    pub mem: usize,
    /// How long the records of a dead process stay readable.
    pub linger: Duration,
    /// Where `policy=` is not given.
    pub policy: Policy,
    /// Name of the backend, `None` for the best there is.
    pub backend: Option<String>,
    /// `yama=ignore`.
    pub ignore_yama: bool,
    /// Where we are mounted: descriptors of files there are refused as sinks.
    pub mountpoint: Option<PathBuf>,
}

/// Totals of the root `stat` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Traced processes.
    pub traced: usize,
    /// Sinks that are written to or still held for reading.
    pub sinks: usize,
    /// Records appended since the start.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records lost since the start.
    pub lost: u64,
    /// Opens that have read.
    pub readers: usize,
    /// Bytes of ring memory in use.
    pub memory: usize,
    /// What the backends' watching cost.
    pub costs: Costs,
}

/// The facility: one per daemon.
pub struct Ktrace {
    options: Options,
    procs: Arc<ProcTable>,
    /// The best first.
    backends: Vec<Arc<dyn Backend>>,
    budget: Arc<Budget>,
    /// Every sink ever made that is not yet gone.
    sinks: Mutex<Vec<Weak<Sink>>>,
    given_up: Sender<u64>,
    /// Each thread that writes a sink to its file holds one; `None` once the daemon ends.
    drains: Mutex<Option<Sender<()>>>,
    drained: Receiver<()>,
}

impl Ktrace {
    /// With these backends, the best first. `make` gets the table that their hooks use.
    pub fn new(options: Options, make: impl FnOnce(&Arc<ProcTable>) -> Vec<Arc<dyn Backend>>) -> Arc<Ktrace> {
        let procs = Arc::new(ProcTable::new(options.linger));
        let backends = make(&procs);
        let budget = Budget::new(options.mem);
        let (given_up, ids) = crossbeam_channel::unbounded();
        let (alive, drained) = crossbeam_channel::bounded(0);
        let (sinks, drains) = (Mutex::default(), Mutex::new(Some(alive)));
        let ktrace = Arc::new(Ktrace { options, procs, backends, budget, sinks, given_up, drains, drained });
        keeper::start(&ktrace, ids);
        ktrace
    }

    /// The table of traced processes.
    pub fn procs(&self) -> &Arc<ProcTable> {
        &self.procs
    }

    /// Carries out one command, written to the `ctl` of `target` or, with `None`, to the root's.
    ///
    /// # Errors
    /// The table of docs/ktracefs.md. Errors of the command come before ESRCH (R35).
    pub fn control(&self, caller: &Caller, target: Option<ProcId>, command: &Command) -> Result<()> {
        match command {
            Command::Set(set) => self.set(caller, target, set),
            Command::Clear(clear) => self.clear(caller, target, clear),
            Command::ClearFile { target: named, fd } => self.clear_file(caller, target, *named, *fd),
        }
    }

    /// To be said by the thread that has carried out a command, when the caller has its answer.
    pub fn answered(&self, caller: &Caller) {
        self.backends.iter().for_each(|backend| backend.answered(caller.tid));
    }

    /// `utrace` (R27): a USER record of the process, from what was written: the id is the first word, after one blank
    /// follows the data, and one newline at the end is the shell's, not the data's. A process may write its own
    /// whoever traces it; a record of another process needs the permission to trace that one.
    ///
    /// # Errors
    /// ENOSPC over 2048 bytes of data (R9); EPERM; ESRCH.
    pub fn user(&self, caller: &Caller, target: ProcId, written: &[u8]) -> Result<()> {
        let own = caller.process() == target.pid;
        match own {
            true => drop(target.check()?),
            false => drop(self.may(caller, target)?),
        }
        // Who has just been born may be the first to tell of it.
        let Some(proc) = self.heard_of(target) else { return Ok(()) };
        let Some(trace) = proc.trace().filter(|t| t.facs.intersects(crate::facility::Facs::USER)) else {
            return Ok(());
        };
        let written = written.strip_suffix(b"\n").unwrap_or(written);
        let mut words = written.splitn(2, |b| *b == b' ' || *b == b'\t');
        // What the stream says of itself, nobody else says.
        let id = words.next().filter(|id| *id != record::STREAM_ID).unwrap_or_default();
        let data = words.next().unwrap_or_default();
        if data.len() > record::USER_MAX {
            let what = format!(
                "{} bytes of data are more than a USER record holds, {}",
                data.len(),
                record::USER_MAX
            );
            return Err(Error::NoSpace { what: what.into() });
        }
        if let Ok(backend) = self.backend(Some(trace.backend)) {
            // What it did before comes before.
            backend.catch_up(target.pid);
        }
        let tid = if own { caller.tid } else { target.pid };
        let stamp = Stamp { time: now()?, pid: target.pid, tid, comm: Stat::of(tid)?.comm };
        Recorder::new(Arc::clone(&self.procs)).user(
            At { trace: &trace, stamp: &stamp, abi: proc.abi() },
            id,
            data,
        );
        Ok(())
    }

    /// Opens the trace file of a process, or of one that is dead and has left records.
    ///
    /// # Errors
    /// EPERM, EACCES, ESRCH.
    pub fn open(&self, caller: &Caller, target: ProcId) -> Result<TraceFile> {
        let may = self.may(caller, target);
        if let Err(Error::Gone { .. }) = may
            && self.lingers(target.pid) == Some(target)
        {
            // Its ids died with it: what is left is the owner of the sink.
            if caller.tid <= 0 {
                return Err(denied(
                    target.pid,
                    "the caller is in a pid namespace that cannot be seen from here",
                ));
            }
        } else {
            may?;
        }
        TraceFile::open(&self.procs.entry(target), caller.uid)
    }

    /// What was done before by the processes that write to this sink is in it when this returns.
    pub fn catch_up(&self, sink: &Sink) {
        for proc in self.procs.writers_of(sink.id()) {
            if let Some(trace) = proc.trace()
                && let Ok(backend) = self.backend(Some(trace.backend))
            {
                backend.catch_up(proc.id.pid);
            }
        }
    }

    /// Names of the backends, the preferred one first.
    pub fn backends(&self) -> Vec<&'static str> {
        let able = self.backends.iter().filter(|b| b.fault().is_none());
        let mut names: Vec<_> = able.map(|b| b.name()).collect();
        names.sort_by_key(|name| self.options.backend.as_deref() != Some(*name));
        names
    }

    /// Why a backend can do nothing any more.
    pub fn fault(&self) -> Option<String> {
        self.backends.iter().find_map(|backend| backend.fault())
    }

    /// A reader closed, or time has passed: forget what nobody needs.
    pub fn sweep(&self) {
        self.procs.sweep();
    }

    /// Ends all tracing, before the daemon ends. Returns by the given time.
    pub fn shutdown(&self, by: Instant) {
        for backend in &self.backends {
            backend.shutdown(by);
        }
        for proc in self.procs.all() {
            proc.set_trace(None);
        }
        // What was recorded is to be in the files: nobody sends, the last drain that ends hangs up.
        drop(self.drains.lock().take());
        let _ = self.drained.recv_deadline(by);
    }

    /// Processes that even then cannot do without the daemon, as [`Backend::dependents`] says: they have a filter that needs a tracer.
    pub fn dependents(&self) -> Option<usize> {
        self.backends.iter().filter_map(|backend| backend.dependents()).reduce(|sum, one| sum + one)
    }

    /// Who may: the seed's rule and Linux's (docs/ktracefs.md, "Who may"), and what nobody may. True for who may as root (R18).
    fn may(&self, caller: &Caller, target: ProcId) -> Result<bool> {
        let pid = target.pid;
        let stat = target.check()?;
        if pid == std::process::id() as i32 {
            return Err(denied(pid, "the daemon does not trace itself"));
        }
        if stat.is_kernel_thread() {
            return Err(denied(pid, "a kernel thread cannot be traced"));
        }
        if pid == 1 && caller.uid != 0 {
            return Err(denied(pid, "only root traces init"));
        }
        let root_marked = self.procs.get(target).and_then(|p| p.trace()).is_some_and(|t| t.root);
        let yama = if self.options.ignore_yama { None } else { cred::yama_scope() };
        let root = match cred::may_trace(caller, pid, root_marked, yama) {
            // Its memory is taken down before it is a zombie: meanwhile it seems to belong to nobody.
            Err(Error::Denied { .. }) if proc::is_ending(pid) => return Err(Error::Gone { pid }),
            may => may?,
        };
        // What was looked at by number was this process, if it still is.
        target.check().map(|_| root)
    }
}

fn denied(pid: i32, why: impl Into<Cow<'static, str>>) -> Error {
    Error::Denied { pid, why: why.into() }
}

fn now() -> Result<Time> {
    let time =
        clock_gettime(ClockId::CLOCK_REALTIME).map_err(|errno| Error::sys("clock_gettime", 0, errno))?;
    Ok(Time { sec: time.tv_sec(), nsec: time.tv_nsec() })
}
