//! The grammar of the `ctl` files (docs/ktracefs.md, "ctl").
//!
//! Table-driven: an unknown word, a wrong value or a missing facility is found in one place, and the error says which
//! word. Pure; what a command means is in [`crate::control`].

use crate::error::Result;
use crate::facility::Facs;
use crate::policy::Policy;
use crate::syscall::Calls;
use std::sync::Arc;

/// Whom a command names; without one it is the process of the `ctl` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// `pid=N`.
    Pid(i32),
    /// `pgrp=N`.
    Pgrp(i32),
    /// `all`: every process the caller may trace.
    All,
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Turn on.
    Set(Set),
    /// Turn off.
    Clear(Clear),
    /// R10.
    ClearFile {
        /// Whose file.
        target: Option<Target>,
    },
}

/// `set FACS [option...]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// The facilities named, groups resolved but for `all`.
    pub facs: Facs,
    /// `all`: what the backend can give.
    pub all: bool,
    /// `+inherit`.
    pub inherit: bool,
    /// `+descend`.
    pub descend: bool,
    /// `policy=`.
    pub policy: Option<Policy>,
    /// `size=`, bytes.
    pub size: Option<usize>,
    /// `backend=`; `None` for auto.
    pub backend: Option<String>,
    /// `fd=`.
    pub fd: Option<i32>,
    /// `calls=`.
    pub calls: Option<Arc<Calls>>,
    /// Whom.
    pub target: Option<Target>,
}

/// `clear [FACS] [option...]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clear {
    /// The facilities to take away; `None` for all.
    pub facs: Option<Facs>,
    /// `+inherit`: drop the flag too, or alone.
    pub inherit: bool,
    /// `+descend`.
    pub descend: bool,
    /// Whom.
    pub target: Option<Target>,
}

/// Reads one line.
///
/// # Errors
/// EINVAL with the offending word and its place.
pub fn parse(line: &str) -> Result<Command> {
    let _ = line;
    unimplemented!()
}
