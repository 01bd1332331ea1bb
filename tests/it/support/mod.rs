//! What the tests share. Nothing here waits without a deadline.

pub(crate) mod mount;
pub(crate) mod stream;
pub(crate) mod tracee;
pub(crate) mod user;

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything that must happen may take. Long, because a loaded machine is slow; reached only by a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// True where nobody is stopped: these are the tests on eBPF.
pub(crate) const IS_EBPF: bool = matches!(crate::BACKEND.as_bytes(), b"ebpf");

/// What loses no record: where nobody can be made to wait, a ring that has room for all of them.
pub(crate) const WHOLE: &str = if IS_EBPF { "policy=stop size=16M" } else { "policy=block" };

/// The policies there are on this backend.
pub(crate) const POLICIES: &[&str] =
    if IS_EBPF { &["stop", "drop", "overwrite"] } else { &["stop", "drop", "overwrite", "block"] };

/// Waits until `condition` holds; fails with `what` where it does not in time.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let by = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < by, "in vain for {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// True where this machine has what a test needs. Where not, says so, and fails if KTRACE_TEST_REQUIRE names it.
pub(crate) fn has(what: &str) -> bool {
    let there = match what {
        "fuse" => nix::unistd::geteuid().is_root() && File::options().write(true).open("/dev/fuse").is_ok(),
        // Every live test needs its backend.
        "ptrace" if IS_EBPF => return has("ebpf"),
        "ptrace" => nix::unistd::geteuid().is_root(),
        "ebpf" => mount::has_ebpf(),
        // Linux 6.9: a pidfd's inode is one process's for good.
        "pidfs" => ktrace::proc::ProcId::of(std::process::id() as i32).unwrap().inode != 0,
        "ia32" => tracee::runs("i386"),
        tool => on_path(tool),
    };
    if !there {
        let required = env::var("KTRACE_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|r| r == what), "{what} is required and not there");
        let test = thread::current().name().unwrap_or("?").to_owned();
        say(&format!("SKIP {test}: needs {what}"));
    }
    there
}

/// Past the test runner, which keeps what eprintln! prints to itself.
pub(crate) fn say(line: &str) {
    let mut stderr = io::stderr();
    writeln!(stderr, "{line}").unwrap();
}

/// Ends the test, visibly skipped, where one of these is not there.
macro_rules! need {
    ($($what:literal),+) => {
        if !($($crate::support::has($what))&&+) {
            return;
        }
    };
}
pub(crate) use need;

/// Ends a test that proves nothing on the backend of this binary, and says why.
macro_rules! only_on {
    ($backend:literal, $why:literal) => {
        if crate::BACKEND != $backend {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            return crate::support::say(&format!("{test} is for {} only: {}", $backend, $why));
        }
    };
}
pub(crate) use only_on;

fn on_path(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]).any(|dir| dir.join(tool).is_file())
}

/// A program of this package or a Debian one; `ktrace`, `ktruss` and `kdump` are ours.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(match name {
        "kdump" => env!("CARGO_BIN_EXE_kdump"),
        "ktrace" => env!("CARGO_BIN_EXE_ktrace"),
        "ktruss" => env!("CARGO_BIN_EXE_ktruss"),
        _ => name,
    });
    if name == "ktrace" && IS_EBPF {
        // Nobody can be made to wait there.
        command.arg("-n");
    }
    command
}

/// A child that is killed and reaped when this is dropped, with all that it started: it leads a process group.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Running {
        let child = command.process_group(0).spawn();
        Running(child.unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Writes to its standard input, a pipe.
    pub(crate) fn say(&mut self, text: &str) {
        self.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Lines as they are printed to its standard output, a pipe.
    pub(crate) fn lines(&mut self) -> Receiver<String> {
        let out = BufReader::new(self.0.stdout.take().unwrap());
        let (said, lines) = channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        lines
    }

    /// Its end, which must come.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for(&format!("the end of process {}", self.pid()), || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Its end and all it printed into pipes.
    pub(crate) fn output(mut self) -> Output {
        let drain = |pipe: Option<Box<dyn io::Read + Send>>| {
            thread::spawn(move || {
                let mut all = Vec::new();
                if let Some(mut pipe) = pipe {
                    // What came before an error is still worth showing.
                    let _ = pipe.read_to_end(&mut all);
                }
                all
            })
        };
        let stdout = drain(self.0.stdout.take().map(|p| Box::new(p) as _));
        let stderr = drain(self.0.stderr.take().map(|p| Box::new(p) as _));
        let status = self.wait();
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // They may have ended already. Not waited for without bound: in a wedged mount they may be unkillable.
        let _ = nix::sys::signal::killpg(
            nix::unistd::Pid::from_raw(self.pid()),
            nix::sys::signal::Signal::SIGKILL,
        );
        let by = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < by {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs to the end, which must come.
pub(crate) fn output(command: &mut Command) -> Output {
    Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())).output()
}

/// Standard output of a run that must succeed.
pub(crate) fn stdout(command: &mut Command) -> String {
    let out = output(command);
    assert!(out.status.success(), "{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
