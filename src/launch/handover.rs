//! `ktrace -f FILE`: the file is opened as the user and handed over to the daemon, which writes it from then on.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::fsync;

use super::Failure;
use super::command::{Launcher, NotStarted};
use super::mount::Mount;
use super::request::{Request, Target};
use super::session::{Whom, is_by_ptrace, open_trace, outlive, refused, write_ctl};
use super::signals::{Signals, end_as, end_of};
use crate::errno::words;

/// Traces into `file`. Of a process or a group it returns at once and tracing goes on; with a command it ends this
/// process as the command ended, when what was recorded is in the file.
///
/// # Errors
/// What [`super::Session::start`] gives, and what the daemon says of the file.
pub fn hand_over(mount: &Mount, whom: &Whom, request: &Request, file: BorrowedFd<'_>) -> Result<(), Failure> {
    let request = Request { fd: Some(file.as_raw_fd()), ..request.clone() };
    match whom {
        Whom::Command(command) => match run(mount, command, &request, file) {
            Ok(never) => match never {},
            Err(failure) => Err(failure),
        },
        Whom::Pid(pid) => {
            // Its file may be written already, by a process that is traced as this one cannot be.
            let line = request.set_line(Target::Own, &request.room(is_by_ptrace(mount, *pid), false));
            write_ctl(mount, &pid.to_string(), &line, &format!("process {pid}"))
        }
        Whom::Pgrp(pgrp) => {
            let line = request.set_line(Target::Pgrp(*pgrp), &request.room(mount.is_by_ptrace(), false));
            write_ctl(mount, "", &line, &format!("process group {pgrp}"))
        }
    }
}

fn run(
    mount: &Mount,
    command: &[std::ffi::OsString],
    request: &Request,
    file: BorrowedFd<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let launcher = Launcher::start(command, Some(file))?;
    let made = Signals::take()
        .map_err(|e| Failure::new(format!("signals: {}", e.desc())))
        .and_then(|signals| Ok((signals, open_trace(mount, launcher.pid())?)));
    let (signals, trace) = match made {
        Ok(made) => made,
        Err(failure) => {
            launcher.cancel();
            return Err(failure);
        }
    };
    let child = launcher.go(mount, request).map_err(|error| match error {
        NotStarted::Ctl(errno) => refused(mount, "cannot trace the command", errno),
        NotStarted::Other(failure) => failure,
    })?;
    let ended = outlive(&signals, child);
    if let Err(errno) = fsync(&trace)
        && errno != Errno::EINTR
    {
        eprintln!("ktrace: the last records may not be in the file: {}", words(&errno.into()));
    }
    drop(signals);
    match ended {
        Ok(status) => end_as(status),
        Err(signal) => end_of(signal),
    }
}

/// `ktrace -c -f FILE`: every process that writes to this file is let go (R10).
///
/// # Errors
/// No mount, a file that cannot be opened, or the reason from `error_log`.
pub fn clear_file(path: &Path) -> Result<(), Failure> {
    let mount = Mount::find().ok_or_else(|| Failure::new("no ktracefs is mounted: nothing is traced"))?;
    let who = path.display().to_string();
    let file = std::fs::OpenOptions::new().append(true).open(path);
    let file = file.map_err(|e| Failure::new(format!("{who}: {}", words(&e))))?;
    write_ctl(&mount, "", &format!("clearfile fd={}\n", file.as_raw_fd()), &who)
}
