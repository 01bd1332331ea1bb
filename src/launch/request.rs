//! What the options of ktrace and ktruss ask for, as a line for a `ctl` file.

use std::fmt;

use super::Failure;
use crate::facility::Facs;
use crate::policy::Policy;

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
    /// What a full ring means: block, or with `-n` the rule of the seed.
    pub policy: Policy,
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

    /// The line that sets this.
    pub fn set_line(&self, target: Target) -> String {
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
        format!("{line} policy={}{target}\n", self.policy)
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
            policy: Policy::Block,
            fd: None,
            calls: None,
            seccomp: false,
        }
    }

    #[test]
    fn a_line_for_ctl() {
        let mut r = request(Facs::SYSCALL | Facs::NAMEI);
        assert_eq!(r.set_line(Target::Own), "set syscall,namei policy=block\n");
        r = Request {
            inherit: true,
            descend: true,
            policy: Policy::Stop,
            facs: Facs::all(),
            fd: Some(3),
            ..r
        };
        assert_eq!(r.set_line(Target::Pgrp(7)), "set all +inherit +descend fd=3 policy=stop pgrp=7\n");
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
