//! The client's side of the files: how `ktrace` and `ktruss` find a mount, start a command traced from its exec on,
//! and follow a trace file.
//!
//! May assume nothing of the daemon but its files (docs/ktracefs.md). A mount that does not answer never hangs the
//! caller: it is asked from a process of its own.

mod command;
mod handover;
mod mount;
mod records;
mod request;
mod session;
mod signals;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

pub use handover::{clear_file, hand_over};
pub use mount::{Mount, Mounted, mounted};
pub use records::Records;
pub use request::{Request, Target, clear_line};
pub use session::{Ended, Session, Whom, clear};

/// First word of the command line of a process that waits to become the command.
const LAUNCHER: &str = "ktrace: launcher";
/// First word of the command line of a process that asks a mount whether it answers.
const PROBE: &str = "ktrace: probe";

/// Why a tool could not do what it was asked to, and with which status it ends.
#[derive(Debug)]
pub struct Failure {
    /// For the user.
    pub what: String,
    /// 127 for a command that is not there, 126 for one that cannot be run, else 1.
    pub status: u8,
}

impl Failure {
    /// With status 1.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), status: 1 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Must be the first thing `main` does: the tools start themselves again to become the command that is traced, and to
/// ask a mount whether it answers. Returns where this process is neither of these.
pub fn intercept() {
    let mut args = std::env::args_os();
    let role = args.next();
    let role = role.as_deref().map(OsStr::as_bytes);
    if role == Some(LAUNCHER.as_bytes()) {
        command::become_it(args);
    } else if role == Some(PROBE.as_bytes()) {
        mount::probe(args);
    }
}
