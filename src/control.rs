//! `kern_ktrace.c`'s control part: set, clear and clearfile, for one process, its descendants, a group or all.
//!
//! Decides who may, which sink, and what is traced afterwards; how it is watched is the backend's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Costs};
use crate::cred::Caller;
use crate::ctl::Command;
use crate::error::Result;
use crate::policy::Policy;
use crate::proc::{ProcId, ProcTable};
use crate::stream::TraceFile;

/// What the administrator chose at mount time.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a ring where `size=` is not given.
    pub size: usize,
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
    /// Living sinks.
    pub sinks: usize,
    /// Records appended.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records lost.
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
    procs: Arc<ProcTable>,
}

impl Ktrace {
    /// With these backends, the best first. `make` gets the table that their hooks use.
    pub fn new(options: Options, make: impl FnOnce(&Arc<ProcTable>) -> Vec<Arc<dyn Backend>>) -> Arc<Ktrace> {
        let procs = Arc::new(ProcTable::new(options.linger));
        let _ = make(&procs);
        Arc::new(Ktrace { procs })
    }

    /// The table of traced processes.
    pub fn procs(&self) -> &Arc<ProcTable> {
        &self.procs
    }

    /// Carries out one command, written to the `ctl` of `target` or, with `None`, to the root's.
    ///
    /// # Errors
    /// The table of docs/ktracefs.md.
    pub fn control(&self, caller: &Caller, target: Option<ProcId>, command: &Command) -> Result<()> {
        let _ = (caller, target, command);
        unimplemented!()
    }

    /// `utrace` (R27): a USER record of the calling process, `data` cut from what was written: first word the id.
    ///
    /// # Errors
    /// ENOSPC over 2048 bytes of data (R9); EPERM.
    pub fn user(&self, caller: &Caller, target: ProcId, written: &[u8]) -> Result<()> {
        let _ = (caller, target, written);
        unimplemented!()
    }

    /// Opens the trace file of a process.
    ///
    /// # Errors
    /// EPERM, EACCES, ESRCH.
    pub fn open(&self, caller: &Caller, target: ProcId) -> Result<TraceFile> {
        let _ = (caller, target);
        unimplemented!()
    }

    /// What the `ctl` of a process reads as: a line that, written, makes this state.
    ///
    /// # Errors
    /// ESRCH.
    pub fn state(&self, target: ProcId) -> Result<String> {
        let _ = target;
        unimplemented!()
    }

    /// The text of `<pid>/stat`.
    ///
    /// # Errors
    /// ESRCH.
    pub fn proc_stat(&self, target: ProcId) -> Result<String> {
        let _ = target;
        unimplemented!()
    }

    /// The totals.
    pub fn totals(&self) -> Totals {
        unimplemented!()
    }

    /// Names of the backends, the preferred one first.
    pub fn backends(&self) -> Vec<&'static str> {
        unimplemented!()
    }

    /// Whom the files of a process belong to: its ids where real, effective and saved are equal, else root; root where
    /// root set the trace.
    pub fn owner(&self, target: ProcId) -> (u32, u32) {
        let _ = target;
        unimplemented!()
    }

    /// True where a process, dead by now, still has records to read.
    pub fn lingers(&self, pid: i32) -> Option<ProcId> {
        let _ = pid;
        unimplemented!()
    }

    /// A reader closed, or time has passed: forget what nobody needs.
    pub fn sweep(&self) {
        self.procs.sweep();
    }

    /// Ends all tracing, before the daemon ends. Returns by the given time.
    pub fn shutdown(&self, by: Instant) {
        let _ = by;
        unimplemented!()
    }
}
