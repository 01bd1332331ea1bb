//! Going to the background: the program runs itself once more, and leaves when that one has mounted
//! (docs/decisions/re-exec-daemon.md).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::args::Args;

/// Starts the daemon and waits until it has mounted, or failed, which it says itself on our standard error.
///
/// # Errors
/// Those of starting a process.
pub(crate) fn start(args: &Args) -> io::Result<ExitCode> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("ktracefs").args(["-f", "--ready"]);
    for list in &args.lists {
        command.args(["-o", list]);
    }
    command.arg("--").arg(&args.source).arg(&args.mountpoint);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = [0];
    let ready = child.stdout.take().map(|mut out| out.read(&mut said)).transpose()?;
    if ready == Some(1) {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    // Never 0: whoever started us must not take this for a mount.
    Ok(ExitCode::from(
        status.code().and_then(|code| u8::try_from(code).ok()).filter(|&code| code != 0).unwrap_or(1),
    ))
}

/// In the daemon, before anything else: no terminal's signals any more, and a name of its own.
pub(crate) fn begin() {
    // It fails only for the leader of a process group, and we are a child that is none.
    let _ = setsid();
    // Otherwise it is `exe`, after the path it was started by.
    let _ = fs::write("/proc/self/comm", "ktracefs");
}

/// Tells the parent that the mount is there, and lets go of everything it gave us.
///
/// # Errors
/// Those of opening /dev/null.
pub(crate) fn ready() -> io::Result<()> {
    let null: File = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    std::env::set_current_dir("/")?;
    dup2_stdin(&null)?;
    dup2_stderr(&null)?;
    let mut out = io::stdout();
    // A parent that was killed has nobody to tell; the mount stays.
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
    dup2_stdout(&null)?;
    Ok(())
}
