//! What a source of events must do. Two are made for this contract: [`crate::ptrace`] and [`crate::ebpf`].
//!
//! A backend is told what to trace through [`Backend::apply`] and says what happened by calling the plain functions of
//! [`crate::hooks`], as the kernel's call sites call `ktr_*`; events do not go through the trait. It promises:
//!
//! 1. The records of one thread come in program order, each stamped with the event's own time, thread and name.
//! 2. When `apply` has returned [`InForce::All`], every system call begun after that is seen; `None` as what to trace
//!    is a detach that the process does not feel.
//! 3. When `settle` has returned, or `apply` of `None`, what happened before the call is in the sink.
//! 4. Both return by the given time. What could not be done by then goes on by itself and is reported as such.
//! 5. After `apply`, where EMUL is on, an EMUL record went out (R31).
//! 6. A new thread is traced with its process. For a new process it calls [`crate::proc::ProcTable::fork`], at an exec
//!    [`crate::hooks::exec`], at the end [`crate::proc::ProcTable::exit`].
//! 7. Nothing that goes wrong hurts the traced process: the worst is that it is no longer traced, which is counted and
//!    logged.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::facility::Facs;
use crate::proc::{Proc, Trace};
use crate::sink::Policy;

/// How far an [`Backend::apply`] came in its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InForce {
    /// All threads.
    All,
    /// Some threads cannot be stopped now (the caller itself, one in disk sleep); they follow by themselves.
    Partly,
}

/// What a backend is asked for, before anything changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// Facilities named one by one: each must be possible.
    pub facs: Facs,
    /// The policy of the sink.
    pub policy: Policy,
    /// `+seccomp`.
    pub seccomp: bool,
}

/// Costs that a backend knows of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Costs {
    /// Stops of traced threads.
    pub stops: u64,
    /// Nanoseconds from a stop seen to its resume, in all.
    pub stopped_ns: u64,
    /// Threads it watches.
    pub threads: u64,
    /// Events seen without a stop.
    pub events: u64,
    /// Runs of a BPF program that the kernel left out, because the same one was running on that cpu: what it would have seen is
    /// lost, and nobody knows whose it was.
    pub recursion_misses: u64,
}

/// A source of events.
pub trait Backend: Send + Sync {
    /// Its name in `ctl` and `stat`.
    fn name(&self) -> &'static str;

    /// The facilities it can give: what `all` means.
    fn facilities(&self) -> Facs;

    /// Whether it can do this.
    ///
    /// # Errors
    /// EOPNOTSUPP with the facility or policy that it cannot give.
    fn can(&self, want: &Want) -> Result<()>;

    /// To be said before `apply` of a process that this backend may not watch yet: nothing is recorded, but if an exec gives
    /// it privilege, `apply` says ESRCH. So the permission can be asked for between the two. False where it must be asked
    /// after `apply`.
    ///
    /// # Errors
    /// Those of `apply`.
    fn hold(&self, _proc: &Proc, _trace: &Trace) -> Result<bool> {
        Ok(false)
    }

    /// Brings what is traced of `proc` to this; the same twice changes nothing; `None` detaches.
    ///
    /// # Errors
    /// ESRCH, EPERM of the kernel, EBUSY where another tracer holds it: then nothing has changed.
    fn apply(&self, proc: &Arc<Proc>, trace: Option<Arc<Trace>>, by: Instant) -> Result<InForce>;

    /// Returns when what happened to `proc` before this call is in the sink.
    ///
    /// # Errors
    /// ESRCH.
    fn settle(&self, proc: &Arc<Proc>, by: Instant) -> Result<()>;

    /// What is on its way of what this process did before, its birth too, is in the sink and in the table when this returns; it
    /// waits for nobody. For a backend whose events go there as they happen there is nothing to do.
    fn catch_up(&self, _pid: i32) {}

    /// This thread is in the call by which tracing of its own process is about to be set to this: the call makes no record of
    /// its end (R38). To be said before `apply`, and to be taken back with `None` where that fails.
    fn excuse(&self, _tid: i32, _trace: Option<&Trace>) {}

    /// The thread `caller`, for which this thread has carried out a change, has its answer.
    fn answered(&self, _caller: i32) {}

    /// Why it can do nothing any more, where something of it has failed for good.
    fn fault(&self) -> Option<String> {
        None
    }

    /// What watching has cost, in all or of one process.
    fn costs(&self, proc: Option<&Proc>) -> Costs;

    /// Detaches everything, before the daemon ends.
    fn shutdown(&self, by: Instant);

    /// Processes that cannot be detached and would not outlive the daemon, but for newborns of theirs that are not known yet;
    /// `None` where there never was one.
    fn dependents(&self) -> Option<usize> {
        None
    }
}
