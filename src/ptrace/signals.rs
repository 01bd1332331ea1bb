//! Signals: which are acted on (R7), and what a PSIG record says of them.

use super::stop::Stopped;
use super::sys;
use crate::proc;
use crate::record::Psig;
use crate::signal;

/// What the process does with a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Nothing: ignored, by choice or by default.
    Ignored,
    /// It stops the process.
    JobControl,
    /// It ends the process.
    Fatal,
    /// A handler runs.
    Caught,
}

/// What `tid`'s process does with `signo`, from /proc/pid/status.
pub(super) fn action(tid: i32, signo: i32) -> Action {
    let status = proc::status(tid).unwrap_or_default();
    let has = |field| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (signo - 1) & 1 == 1)
    };
    if has("SigIgn:") {
        return Action::Ignored;
    }
    if has("SigCgt:") {
        return Action::Caught;
    }
    match signal::default_action(signo) {
        // To a process that runs, SIGCONT is nothing; to a stopped one it has done its work when it is delivered.
        signal::Action::Ignore | signal::Action::Continue => Action::Ignored,
        signal::Action::Stop => Action::JobControl,
        signal::Action::Terminate | signal::Action::Core => Action::Fatal,
    }
}

/// The PSIG body of the signal a thread is stopped for; the handler's address is not known yet.
pub(super) fn psig(stopped: &Stopped, signo: i32) -> Psig {
    let blocked = stopped.sigmask().unwrap_or(0);
    let mask = [blocked as u32, (blocked >> 32) as u32, 0, 0];
    let Ok(info) = stopped.siginfo() else { return Psig { signo, mask, ..Psig::default() } };
    Psig { mask, ..Psig::of(signo, info.si_errno, info.si_code, &sys::siginfo_payload(&info)) }
}
