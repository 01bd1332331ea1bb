//! Commands as other users, by setpriv(1).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mount::Mount;
use super::{Running, output};

/// Ids that nobody on this machine has.
pub(crate) const A: u32 = 61_001;
pub(crate) const B: u32 = 61_002;
pub(crate) const OTHER: u32 = 61_009;
/// Before a command that user A makes.
pub(crate) const AS_A: &str = "setpriv --reuid=$A --regid=$A --clear-groups";

/// And user B.
pub(crate) const AS_B: &str = "setpriv --reuid=$B --regid=$B --clear-groups";

/// The command that these words begin; `$A`, `$B` and `$O` stand for the ids.
pub(crate) fn under(line: &str) -> Command {
    let line =
        line.replace("$A", &A.to_string()).replace("$B", &B.to_string()).replace("$O", &OTHER.to_string());
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("env"));
    command.args(words);
    command
}

/// Whether this caller can set the process, by the root's `ctl`, and what is said if not.
pub(crate) fn sets(mount: &Mount, caller: &str, pid: i32) -> Result<(), String> {
    tries(mount, caller, &format!("set namei pid={pid}"))
}

/// Whether this caller can have a command of the root's `ctl` carried out, and what is said if not.
pub(crate) fn tries(mount: &Mount, caller: &str, line: &str) -> Result<(), String> {
    let script = "echo \"$1\" > \"$0/ctl\" || { cat \"$0/error_log\" >&2; exit 1; }";
    let out = output(under(caller).args(["bash", "-p", "-c", script]).arg(mount.point()).arg(line));
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// Carries a command out that must succeed.
pub(crate) fn set(mount: &Mount, caller: &str, pid: i32, line: &str) {
    let mut command = under(caller);
    let script = "echo \"$2\" > \"$0/$1/ctl\"";
    let out =
        output(command.args(["bash", "-p", "-c", script]).arg(mount.point()).args([&pid.to_string(), line]));
    assert!(out.status.success(), "{line}: {out:?}\n{}", mount.read("error_log"));
}

/// A copy of a program where every user can reach it, with this mode.
pub(crate) fn copy(dir: &Path, from: &str, to: &str, mode: u32) -> PathBuf {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.join(to);
    // By a process of its own: what any of our threads starts meanwhile has a descriptor of ours for a moment, and nobody
    // executes a file that somebody writes.
    assert!(Command::new("cp").arg(from).arg(&copy).status().unwrap().success());
    fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
    copy
}

/// A process of who is named, asleep in its program.
pub(crate) fn sleeper(caller: &str) -> Running {
    let running = Running::spawn(under(caller).args(["sleep", "1000"]));
    super::wait_for("its program", || {
        fs::read(format!("/proc/{}/comm", running.pid())).is_ok_and(|comm| comm == b"sleep\n")
    });
    running
}
