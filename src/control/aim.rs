//! To which processes a command goes (R12 to R15, R36, R37), and what the whole of it gives.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::Ktrace;
use crate::ctl::Target;
use crate::error::{Error, Result};
use crate::proc::{self, ProcId};

/// How long one command may go on about new processes: whoever forks faster than this is not followed any further.
const WHOLE_MAX: Duration = Duration::from_secs(10);

/// Whom a command names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aim {
    /// One process.
    Proc(ProcId),
    /// The members of a process group.
    Group(i32),
    /// Every process.
    All,
}

impl Aim {
    /// From the `ctl` file that was written, and the target word.
    ///
    /// # Errors
    /// EINVAL for a target in a process's ctl, or none in the root's; ESRCH.
    pub(super) fn new(file: Option<ProcId>, named: Option<Target>) -> Result<Aim> {
        match (file, named) {
            (Some(id), None) => Ok(Aim::Proc(id)),
            (Some(_), Some(_)) => Err(Error::invalid("pid=, pgrp= and all belong to the root's ctl")),
            (None, None) => Err(Error::invalid("the root's ctl needs a target: pid=N, pgrp=N or all")),
            (None, Some(Target::All)) => Ok(Aim::All),
            (None, Some(Target::Pid(pid @ 1..))) => ProcId::of(pid).map(Aim::Proc),
            (None, Some(Target::Pid(0))) => Err(Error::Gone { pid: 0 }),
            // R13.
            (None, Some(Target::Pid(pid))) => Ok(Aim::Group(pid.checked_neg().unwrap_or(i32::MAX))),
            (None, Some(Target::Pgrp(pgrp @ 1..))) => Ok(Aim::Group(pgrp)),
            (None, Some(Target::Pgrp(pgrp))) => Err(Error::Gone { pid: pgrp }),
        }
    }

    /// The processes named, as they are now.
    fn members(self) -> Vec<ProcId> {
        match self {
            Aim::Proc(id) => vec![id],
            Aim::Group(pgrp) => identify(proc::group(pgrp)),
            Aim::All => identify(proc::pids().unwrap_or_default()),
        }
    }

    fn nobody(self) -> Error {
        match self {
            Aim::Proc(id) => Error::Gone { pid: id.pid },
            Aim::Group(pgrp) => Error::Gone { pid: -pgrp },
            Aim::All => Error::Gone { pid: 0 },
        }
    }
}

fn identify(pids: Vec<i32>) -> Vec<ProcId> {
    pids.into_iter().filter_map(|pid| ProcId::of(pid).ok()).collect()
}

impl Ktrace {
    /// Changes each process named and, with `descend`, each descendant (R14): parents first, until no new one appears.
    /// A refusal keeps the command from nobody else (R36).
    ///
    /// # Errors
    /// None where at least one could be changed (R15); else the first refusal, or ESRCH.
    pub(super) fn each(
        &self,
        aim: Aim,
        descend: bool,
        mut change: impl FnMut(ProcId) -> Result<()>,
    ) -> Result<()> {
        let deadline = Instant::now() + WHOLE_MAX;
        let mut met = HashSet::new();
        let mut changed = false;
        let mut refusal: Option<Error> = None;
        loop {
            let mut ids = aim.members();
            if descend {
                let known: Vec<i32> = ids.iter().chain(&met).map(|id: &ProcId| id.pid).collect();
                ids.extend(identify(proc::descendants(&known)));
            }
            ids.retain(|id| met.insert(*id));
            if ids.is_empty() || Instant::now() > deadline {
                break;
            }
            for id in ids {
                match change(id) {
                    Ok(()) => changed = true,
                    // Death is normal.
                    Err(Error::Gone { .. }) => {}
                    Err(error) => {
                        refusal.get_or_insert(error);
                    }
                }
            }
        }
        match changed {
            true => Ok(()),
            false => Err(refusal.unwrap_or_else(|| aim.nobody())),
        }
    }
}
