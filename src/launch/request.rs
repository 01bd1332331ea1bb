//! What the options of ktrace and ktruss ask for, as a line for a `ctl` file.

use std::fmt;

use super::Failure;
use crate::facility::Facs;
use crate::policy::Policy;

/// MiB of a ring whose traced do not wait.
const LARGE: u32 = 32;
/// The backend that can make the traced wait.
pub(super) const PTRACE: &str = "ptrace";

/// Whom a line names in the root's `ctl`; in a process's own it names nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The process of the `ctl` file.
    Own,
    /// A process group.
    Pgrp(i32),
    /// Everything that is the caller's; of root, everything.
    All,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Own => Ok(()),
            Target::Pgrp(pgrp) => write!(f, " pgrp={pgrp}"),
            Target::All => f.write_str(" all"),
        }
    }
}

/// What to trace, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The facilities.
    pub facs: Facs,
    /// New children too (`-i`).
    pub inherit: bool,
    /// Present descendants too (`-d`).
    pub descend: bool,
    /// `-n`: the rule of the seed where a record does not fit.
    pub never_wait: bool,
    /// By which backend; `None` for the best that can do it.
    pub backend: Option<String>,
    /// The descriptor of ours that the records go to; `None` where we read them.
    pub fd: Option<i32>,
    /// These calls only.
    pub calls: Option<String>,
    /// Of a command: calls that are not wanted do not stop, by a filter of its own.
    pub seccomp: bool,
}

impl Request {
    /// Adds up the strings given with `-t`; without any it is the default set.
    ///
    /// # Errors
    /// A letter that is none, or nothing left to trace.
    pub fn points(strings: &[String]) -> Result<Facs, Failure> {
        if strings.is_empty() {
            return Ok(Facs::DEFAULT);
        }
        let facs = strings.iter().try_fold(Facs::empty(), |facs, letters| {
            facs.with_letters(letters)
                .map_err(|c| Failure::new(format!("-t {letters}: there is no trace point {c:?}")))
        })?;
        if (facs - Facs::MIB).is_empty() {
            return Err(Failure::new(format!("-t {}: nothing is left to trace", strings.join(" -t "))));
        }
        Ok(facs)
    }

    /// Of which calls a command's own filter is to be, for its launcher: the facilities' bits and the list of calls; empty
    /// where none is wanted.
    pub(super) fn filter(&self) -> String {
        match self.seccomp {
            true => format!("{} {}", self.facs.bits(), self.calls.as_deref().unwrap_or_default()),
            false => String::new(),
        }
    }

    /// What a full ring is to mean, as the words of a `ctl`: nothing is to be lost, so the traced wait where they can be made
    /// to; where nobody is stopped the ring is large, and the loss is told. `new`: the trace file will be a new one.
    pub(super) fn room(&self, by_ptrace: bool, new: bool) -> String {
        let stops = self.seccomp || (self.facs.contains(Facs::EXEC_FD) && !self.facs.is_all());
        let by_ptrace = match self.backend.as_deref() {
            None | Some("auto") => by_ptrace || stops,
            Some(name) => name == PTRACE,
        };
        let policy = match by_ptrace {
            _ if self.never_wait => Policy::Stop.to_string(),
            true => Policy::Block.to_string(),
            false if new => format!("{} size={LARGE}M", Policy::Drop),
            false => Policy::Drop.to_string(),
        };
        let backend = self.backend.as_ref().map_or(String::new(), |name| format!(" backend={name}"));
        format!(" policy={policy}{backend}")
    }

    /// The line that sets this; `room` is what [`Request::room`] says.
    pub(super) fn set_line(&self, target: Target, room: &str) -> String {
        let mut line = format!("set {}", names(self.facs));
        if self.inherit {
            line += " +inherit";
        }
        if self.descend {
            line += " +descend";
        }
        if self.seccomp {
            line += " +seccomp";
        }
        if let Some(calls) = &self.calls {
            line += &format!(" calls={calls}");
        }
        if let Some(fd) = self.fd {
            line += &format!(" fd={fd}");
        }
        format!("{line}{room}{target}\n")
    }
}

/// The line that clears: these facilities, or all with `None`.
pub fn clear_line(facs: Option<Facs>, descend: bool, target: Target) -> String {
    let facs = facs.map(|facs| format!(" {}", names(facs))).unwrap_or_default();
    let descend = if descend { " +descend" } else { "" };
    format!("clear{facs}{descend}{target}\n")
}

/// `all` is left to the backend, which may not have every facility.
fn names(facs: Facs) -> String {
    if facs.is_all() { "all".to_owned() } else { facs.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(facs: Facs) -> Request {
        Request {
            facs,
            inherit: false,
            descend: false,
            never_wait: false,
            backend: None,
            fd: None,
            calls: None,
            seccomp: false,
        }
    }

    #[test]
    fn a_line_for_ctl() {
        let mut r = request(Facs::SYSCALL | Facs::NAMEI);
        assert_eq!(r.set_line(Target::Own, &r.room(true, true)), "set syscall,namei policy=block\n");
        assert_eq!(r.room(false, true), " policy=drop size=32M");
        assert_eq!(r.room(false, false), " policy=drop", "a live trace file keeps its size");
        r.facs |= Facs::EXEC_FD;
        assert_eq!(r.room(false, true), " policy=block", "what only a stop can give");
        r.backend = Some("ebpf".to_owned());
        assert_eq!(r.room(true, true), " policy=drop size=32M backend=ebpf");
        r.backend = None;
        r = Request { inherit: true, descend: true, never_wait: true, facs: Facs::all(), fd: Some(3), ..r };
        assert_eq!(
            r.set_line(Target::Pgrp(7), &r.room(false, true)),
            "set all +inherit +descend fd=3 policy=stop pgrp=7\n"
        );
        assert_eq!(clear_line(None, false, Target::All), "clear all\n");
        assert_eq!(clear_line(Some(Facs::GENIO), true, Target::Own), "clear genio +descend\n");
    }

    #[test]
    fn points_add_up() {
        let points = |strings: &[&str]| {
            Request::points(&strings.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
                .map_err(|failure| failure.what)
        };
        assert_eq!(points(&[]), Ok(Facs::DEFAULT));
        assert_eq!(points(&["n", "s"]), Ok(Facs::NAMEI | Facs::PSIG));
        assert_eq!(points(&["-i"]), Ok(Facs::DEFAULT - Facs::GENIO));
        assert_eq!(points(&["Z"]), Err("-t Z: there is no trace point 'Z'".to_owned()));
        assert_eq!(points(&["S"]), Err("-t S: nothing is left to trace".to_owned()));
    }
}
