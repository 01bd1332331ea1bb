//! What is looked for in /proc where the kernel has left out programs of births, execs and deaths: since Linux 7.0 one that begins
//! where another is preempted in its microsecond. Nothing tells which one it was, so all are looked at, once for each such second.

use std::sync::Arc;

use nix::time::ClockId;

use super::Drain;
use crate::cred;
use crate::ebpf::observe::nanoseconds;
use crate::proc::{self, Auxv, ProcId, Trace};

/// Now, as /proc/pid/stat gives the start of a process: in hundredths of a second (`USER_HZ`).
pub(super) fn ticks_now() -> u64 {
    nanoseconds(ClockId::CLOCK_BOOTTIME) as u64 / 10_000_000
}

/// Whether the owner of this trace may go on with it, for all that /proc says. A program that gave privilege, and its successors,
/// are not its owner's or not dumpable. So is one that hides itself, which cannot be told from those: it ends too.
fn may_go_on(pid: i32, trace: &Trace) -> bool {
    trace.is_roots() || (cred::sees_memory(trace.sink().owner(), pid) && !Auxv::of(pid).secure)
}

impl Drain {
    /// Ends what an exec would have ended that nobody saw (R23), and finds children of whose birth nobody heard (R22). The dead
    /// have been buried before.
    pub(super) fn rescan(&mut self) {
        self.end_privileged();
        self.adopt();
    }

    fn end_privileged(&mut self) {
        let all = self.slots.iter().flatten().flat_map(|slot| slot.watched.iter());
        let lost: Vec<i32> =
            all.filter(|(pid, one)| !may_go_on(*pid, &one.trace)).map(|(pid, _)| pid).collect();
        for pid in lost {
            log::info!("process {pid}: it may have executed a set-id program, tracing stopped");
            self.end(pid);
        }
    }

    /// Lets go of a process for good, as an exec does that gives privilege.
    fn end(&mut self, pid: i32) {
        let proc = self.find(pid).and_then(|at| self.slot(at)?.watched.get(pid)?.proc.clone());
        self.release(pid);
        if let Some(proc) = proc {
            proc.set_trace(None);
        }
    }

    fn adopt(&mut self) {
        let inherit = self.slots.iter().flatten().flat_map(|slot| slot.watched.iter());
        let parents: Vec<i32> = inherit.filter(|(_, one)| one.trace.inherit).map(|(pid, _)| pid).collect();
        // Parents before their children.
        for child in proc::descendants(&parents) {
            if self.find(child).is_none() && !self.maps.knows(child) {
                let _ = self.adopt_one(child);
            }
        }
    }

    /// A child that its parent was to hand its trace on to, and that was never traced.
    fn adopt_one(&mut self, pid: i32) -> Option<()> {
        let id = ProcId::of(pid).ok()?;
        let stat = id.check().ok()?;
        let at = self.find(stat.ppid)?;
        let parent = self.slot(at)?.watched.get(stat.ppid)?;
        if !parent.trace.inherit || stat.start <= parent.since {
            return None;
        }
        let trace = Arc::new(parent.trace.inherited());
        let proc = self.procs.entry(id);
        // Who was traced, and is not, was let go.
        if proc.sink().is_some() || !proc.swap_trace(None, Some(Arc::clone(&trace))) {
            return None;
        }
        // An exec may come between the look and the set: from here on the kernel's side sees it.
        let may = trace.is_roots() || (self.hold(pid, &trace).is_ok() && may_go_on(pid, &trace));
        if may {
            self.limits.halt();
        }
        if may && self.set(&proc, &trace).is_ok() {
            if let Some(one) = self.find(pid).and_then(|at| self.slot(at)?.watched.get_mut(pid)) {
                // All its children are to be traced.
                one.since = 0;
            }
            proc.bind();
            log::info!("process {pid}: its birth was missed, it is traced from here on");
        } else {
            self.release(pid);
            proc.revert_trace(&trace, None);
        }
        Some(())
    }
}
