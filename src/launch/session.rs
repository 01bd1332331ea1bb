//! One run of a tool: what is traced, the reader that follows it, and an orderly end.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Child;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::Failure;
use super::command::{Launcher, NotStarted};
use super::mount::Mount;
use super::request::{PTRACE, Request, Target, clear_line};
use super::signals::{Signals, end_as, end_of};
use crate::errno::words;
use crate::facility::Facs;
use crate::proc;

/// Most bytes taken by one read.
const BUFFER: usize = 256 << 10;

/// Whom a tool traces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom {
    /// A command, from its exec on, with its arguments.
    Command(Vec<OsString>),
    /// A process (`-p`).
    Pid(i32),
    /// A process group (`-g`).
    Pgrp(i32),
}

/// How following ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With the last traced process.
    Eof,
    /// By a signal to us.
    Signal(Signal),
    /// By an error, of which the user was told.
    Failed,
}

impl Ended {
    /// After an error of reading or writing, told to the user here unless nobody reads what we write, which is normal
    /// life: then it is SIGPIPE.
    pub fn failed(tool: &str, e: &io::Error) -> Ended {
        if e.kind() == io::ErrorKind::BrokenPipe {
            return Ended::Signal(Signal::SIGPIPE);
        }
        eprintln!("{tool}: {}", words(e));
        Ended::Failed
    }
}

/// A running trace.
#[derive(Debug)]
pub struct Session {
    // In the order in which they are to end: reader, mount, signals.
    trace: File,
    mount: Mount,
    signals: Signals,
    child: Option<Child>,
    /// The process whose trace file was made for this run: it is cleared where we leave before its end.
    made: Option<i32>,
}

impl Session {
    /// Starts tracing; the trace file is open before the first record.
    ///
    /// # Errors
    /// The command cannot be run, there is no mount and none can be made, or the `ctl` file refuses; the message has the
    /// reason from `error_log`.
    pub fn start(whom: &Whom, request: &Request) -> Result<Session, Failure> {
        match whom {
            Whom::Command(command) => Session::command(command, request),
            Whom::Pid(pid) => {
                Session::process(&format!("{pid}"), *pid, request, Target::Own, &format!("process {pid}"))
            }
            Whom::Pgrp(pgrp) => {
                let who = format!("process group {pgrp}");
                let none = || Failure::new(format!("{who}: {}", Errno::ESRCH.desc()));
                let member = *proc::group(*pgrp).first().ok_or_else(none)?;
                Session::process("", member, request, Target::Pgrp(*pgrp), &who)
            }
        }
    }

    fn command(command: &[OsString], request: &Request) -> Result<Session, Failure> {
        let launcher = Launcher::start(command, None)?;
        let made = Session::prepare().and_then(|(signals, mount)| {
            let trace = open_trace(&mount, launcher.pid())?;
            Ok((signals, mount, trace))
        });
        let (signals, mut mount, trace) = match made {
            Ok(made) => made,
            Err(failure) => {
                launcher.cancel();
                return Err(failure);
            }
        };
        match launcher.go(&mount, request) {
            Ok(child) => {
                if request.seccomp {
                    mount.let_daemon_stay();
                }
                Ok(Session { trace, mount, signals, child: Some(child), made: None })
            }
            Err(NotStarted::Ctl(errno)) => Err(refused(&mount, "cannot trace the command", errno)),
            Err(NotStarted::Other(failure)) => Err(failure),
        }
    }

    /// `dir` is where the `ctl` stands under the mount, `pid` whose trace file is read.
    fn process(
        dir: &str,
        pid: i32,
        request: &Request,
        target: Target,
        who: &str,
    ) -> Result<Session, Failure> {
        let (signals, mount) = Session::prepare()?;
        // A group gets a file of its own; a process goes on with the one it has.
        let is_new = dir.is_empty() || field(&mount, pid, "ctl", "clear").is_some();
        let by_ptrace = if is_new { mount.is_by_ptrace() } else { is_by_ptrace(&mount, pid) };
        write_ctl(&mount, dir, &request.set_line(target, &request.room(by_ptrace, is_new)), who)?;
        let trace = open_trace(&mount, pid)?;
        Ok(Session { trace, mount, signals, child: None, made: is_new.then_some(pid) })
    }

    fn prepare() -> Result<(Signals, Mount), Failure> {
        let signals = Signals::take().map_err(|e| Failure::new(format!("signals: {}", e.desc())))?;
        let mount = Mount::find_or_make(signals.before())?;
        Ok((signals, mount))
    }

    /// Reads the stream to its end and hands over what comes, when it comes. The keyboard's signals are the command's,
    /// as with strace; without a command they end this.
    ///
    /// # Errors
    /// Those of reading, and of `take`.
    pub fn follow(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Ended> {
        let mut buf = vec![0; BUFFER];
        loop {
            match (&self.trace).read(&mut buf) {
                Ok(0) => return Ok(Ended::Eof),
                Ok(n) => {
                    take(&buf[..n])?;
                    if let Some(signal) = self.signal() {
                        return Ok(Ended::Signal(signal));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [
                        PollFd::new(self.trace.as_fd(), PollFlags::POLLIN),
                        PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                    ];
                    wait(&mut fds)?;
                    if let Some(signal) = self.signal() {
                        return Ok(Ended::Signal(signal));
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// A signal that ends us.
    fn signal(&self) -> Option<Signal> {
        let keyboard = |signal: &Signal| matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
        std::iter::from_fn(|| self.signals.next()).find(|signal| self.child.is_none() || !keyboard(signal))
    }

    /// Ends as the command ended, or of the signal that ended following. Stops reading first, so that what is still
    /// traced runs on untraced, and unmounts what was mounted for this run.
    pub fn finish(self, ended: Ended) -> ! {
        let Session { trace, mount, signals, child, made } = self;
        // Without a reader tracing would end by itself, but only at the next event. Whoever reads too, keeps it.
        if let (Ended::Signal(_), Some(pid)) = (ended, made)
            && field(&mount, pid, "stat", "readers ").is_some_and(|readers| readers == "1")
        {
            // Gone, or cleared by somebody else: then nothing is left to do.
            let _ = write_ctl(&mount, &pid.to_string(), "clearfile\n", "");
        }
        drop(trace);
        drop(mount);
        let signal = match (ended, child) {
            (Ended::Signal(signal), _) => signal,
            (Ended::Eof, None) => std::process::exit(0),
            (Ended::Failed, None) => std::process::exit(1),
            (Ended::Eof | Ended::Failed, Some(child)) => match outlive(&signals, child) {
                Ok(status) => {
                    drop(signals);
                    end_as(status)
                }
                Err(signal) => signal,
            },
        };
        drop(signals);
        end_of(signal)
    }
}

/// Waits for the command, which may run on after its tracing ended.
pub(super) fn outlive(signals: &Signals, mut child: Child) -> Result<std::process::ExitStatus, Signal> {
    // Our own child: gone is impossible before it was waited for, and without a pidfd the wait below still works.
    let pidfd = proc::pidfd(child.id() as i32).ok();
    loop {
        if let Some(signal) = std::iter::from_fn(|| signals.next())
            .find(|signal| !matches!(signal, Signal::SIGINT | Signal::SIGQUIT))
        {
            return Err(signal);
        }
        if let Some(pidfd) = &pidfd {
            let mut fds = [
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            if wait(&mut fds).is_ok() && fds[0].any() == Some(false) {
                continue;
            }
        }
        let status = child.wait().map_err(|_| Signal::SIGTERM);
        // The keyboard's were the command's, also one that came last: left here it would be ours in a moment.
        while signals.next().is_some() {}
        return status;
    }
}

fn wait(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    match poll(fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Clears: of a process, of a group, or with neither of everything that is the caller's.
///
/// # Errors
/// No mount, or the reason from `error_log`.
pub fn clear(whom: Option<&Whom>, facs: Option<Facs>, descend: bool) -> Result<(), Failure> {
    let mount = Mount::find().ok_or_else(|| Failure::new("no ktracefs is mounted: nothing is traced"))?;
    let (dir, target, who) = match whom {
        Some(Whom::Pid(pid)) => (pid.to_string(), Target::Own, format!("process {pid}")),
        Some(Whom::Pgrp(pgrp)) => (String::new(), Target::Pgrp(*pgrp), format!("process group {pgrp}")),
        Some(Whom::Command(_)) => return Err(Failure::new("clearing takes no command")),
        None => (String::new(), Target::All, "everything".to_owned()),
    };
    write_ctl(&mount, &dir, &clear_line(facs, descend, target), &who)
}

pub(super) fn write_ctl(mount: &Mount, dir: &str, line: &str, who: &str) -> Result<(), Failure> {
    let path = mount.point().join(dir).join("ctl");
    let cannot = |e: &io::Error| Failure::new(format!("{who}: {}", words(e)));
    let mut ctl = OpenOptions::new().write(true).open(path).map_err(|e| match e.raw_os_error() {
        // The directory of a process that is not there.
        Some(libc::ENOENT) => cannot(&Errno::ESRCH.into()),
        _ => cannot(&e),
    })?;
    ctl.write_all(line.as_bytes()).map_err(|e| match e.raw_os_error() {
        Some(errno) => refused(mount, who, Errno::from_raw(errno)),
        None => cannot(&e),
    })
}

/// Whether a set of this process goes to ptrace: the backend that traces it stays.
pub(super) fn is_by_ptrace(mount: &Mount, pid: i32) -> bool {
    match field(mount, pid, "stat", "backend").as_deref() {
        None | Some("none") => mount.is_by_ptrace(),
        Some(name) => name == PTRACE,
    }
}

/// What follows `word` at the start of a line of a process's file.
fn field(mount: &Mount, pid: i32, file: &str, word: &str) -> Option<String> {
    let text = std::fs::read_to_string(mount.point().join(pid.to_string()).join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(word)).map(|rest| rest.trim().to_owned())
}

pub(super) fn open_trace(mount: &Mount, pid: i32) -> Result<File, Failure> {
    let path = mount.point().join(pid.to_string()).join("trace");
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    file.map_err(|e| Failure::new(format!("{}: {}", path.display(), words(&e))))
}

pub(super) fn refused(mount: &Mount, who: &str, errno: Errno) -> Failure {
    let reason = mount.last_error().map(|reason| format!("\n{reason}")).unwrap_or_default();
    Failure::new(format!("{who}: {}{reason}", errno.desc()))
}
