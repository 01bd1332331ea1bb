//! The real daemon on a mount of its own.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::stream::Stream;
use super::wait_for;

/// After this the mount is broken up, whatever goes on in it: no test hangs.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// How long the daemon may take to end.
const END_MAX: Duration = Duration::from_secs(10);
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// The daemon's program, built once with the profile of this test.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = Path::new(env!("CARGO_BIN_EXE_kdump")).parent().unwrap();
        let profile = match dir.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "-p", "mountd", "--bin", "ktracefs", "--profile", profile])
            .status()
            .unwrap();
        assert!(built.success(), "the daemon does not build");
        dir.join("ktracefs")
    })
}

/// A fresh directory for this test.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = env::temp_dir().join(format!("ktrace-test-{}-{number}-{name}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    dir
}

/// The option of the backend whose tests these are.
fn backend() -> String {
    format!("backend={}", crate::BACKEND)
}

/// True where this kernel and this user can have the eBPF backend.
pub(crate) fn has_ebpf() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        super::has("fuse") && Mount::with(&["-o", "backend=auto"]).read("stat").contains("backend ebpf")
    })
}

/// A running daemon and its mount; both are gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    dir: PathBuf,
    daemon: Child,
    minor: u32,
    panics: bool,
    // Dropped last of all: the watchdog ends when nobody can need it.
    _alive: Sender<()>,
}

impl Mount {
    pub(crate) fn new() -> Mount {
        Mount::with(&[])
    }

    /// With these arguments before the mount point.
    pub(crate) fn with(args: &[&str]) -> Mount {
        let mut command = Command::new(program());
        command.args(["-f", "-o", &backend()]).args(args);
        Mount::start(command)
    }

    /// With less room in the kernel, or a thread that breaks down (`KTRACE_TEST_EBPF` in src/ebpf/load.rs); `None`, visibly,
    /// where the daemon is built for use.
    #[allow(dead_code, reason = "for the tests that run on eBPF alone")]
    pub(crate) fn limited(limits: &str, args: &[&str]) -> Option<Mount> {
        if !cfg!(debug_assertions) {
            let test = thread::current().name().unwrap_or("?").to_owned();
            super::say(&format!("SKIP {test}: such a build knows no limits for tests"));
            return None;
        }
        let mut command = Command::new(program());
        command.env("KTRACE_TEST_EBPF", limits).args(["-f", "-o", &backend()]).args(args);
        let mut mount = Mount::start(command);
        mount.panics = limits.contains("events=");
        Some(mount)
    }

    /// With the daemon started by this command, which takes the daemon's own as its last arguments.
    pub(crate) fn under(command: &mut Command) -> Mount {
        let mut whole = Command::new(command.get_program());
        whole.args(command.get_args()).arg(program()).args(["-f", "-o", &backend()]);
        Mount::start(whole)
    }

    fn start(mut command: Command) -> Mount {
        let dir = scratch("mount");
        fs::create_dir(dir.join("m")).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        let mut daemon = command
            .arg(dir.join("m"))
            .env("RUST_LOG", env::var("RUST_LOG").unwrap_or("debug".to_owned()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut minor = None;
        wait_for("the mount", || {
            let mounted = ktrace::launch::mounted();
            minor = mounted.into_iter().find(|m| m.point == dir.join("m")).map(|m| m.minor);
            if let Some(status) = daemon.try_wait().unwrap() {
                panic!("the daemon ended, {status}: {}", fs::read_to_string(dir.join("log")).unwrap());
            }
            minor.is_some()
        });
        let minor = minor.unwrap();
        let (alive, ends) = channel::<()>();
        thread::spawn(move || {
            if ends.recv_timeout(LIFE_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                super::say("a mount lived too long and is broken up");
                abort(minor);
            }
        });
        let mount = Mount { dir, daemon, minor, panics: false, _alive: alive };
        // Mounted is not yet ready: the daemon brings its programs into the kernel first.
        mount.read("stat");
        mount
    }

    /// The mount point.
    pub(crate) fn point(&self) -> PathBuf {
        self.dir.join("m")
    }

    /// A directory beside the mount, gone with it.
    pub(crate) fn scratch(&self) -> &Path {
        &self.dir
    }

    /// A file in it.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join("m").join(name)
    }

    /// The daemon's process.
    pub(crate) fn daemon(&self) -> i32 {
        self.daemon.id() as i32
    }

    /// Writes to a `ctl`: of a process, or `ctl` itself with pid 0, as one write(2).
    pub(crate) fn ctl(&self, pid: i32, line: &str) -> io::Result<()> {
        let dir = if pid == 0 { String::new() } else { pid.to_string() };
        let mut ctl = OpenOptions::new().write(true).open(self.path(dir).join("ctl"))?;
        let n = ctl.write(line.as_bytes())?;
        assert_eq!(n, line.len(), "a later line failed");
        Ok(())
    }

    /// A command that must succeed.
    pub(crate) fn set(&self, pid: i32, line: &str) {
        if let Err(e) = self.ctl(pid, line) {
            panic!("{line:?} to {pid}: {e}\n{}", self.read("error_log"));
        }
    }

    /// A command that must fail: its errno and what error_log says of it.
    pub(crate) fn refused(&self, pid: i32, line: &str) -> (i32, String) {
        match self.ctl(pid, line) {
            Ok(()) => panic!("{line:?} to {pid} succeeded"),
            Err(e) => (e.raw_os_error().unwrap(), self.read("error_log")),
        }
    }

    /// The text of a file.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }

    /// Opens the trace of a process.
    pub(crate) fn trace(&self, pid: i32) -> Stream {
        Stream::open(&self.path(pid.to_string()).join("trace"))
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon());
        // It may have ended already.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let by = Instant::now() + END_MAX;
        let mut wrong = String::new();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if Instant::now() > by {
                wrong.push_str("the daemon did not end at SIGTERM; ");
                abort(self.minor);
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        if ktrace::launch::mounted().iter().any(|m| m.point == self.point()) {
            wrong.push_str("it was still mounted at the end; ");
            abort(self.minor);
            let _ = nix::mount::umount2(&self.point(), nix::mount::MntFlags::MNT_DETACH);
        }
        let log = self.log();
        if log.contains("panicked") && !self.panics {
            wrong.push_str("the daemon panicked; ");
        }
        let _ = fs::remove_dir_all(&self.dir);
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        let mut shown = String::new();
        for line in tail.iter().rev() {
            let _ = writeln!(shown, "    {line}");
        }
        if thread::panicking() {
            eprintln!("{wrong}the daemon's log ends with\n{shown}");
        } else {
            assert!(wrong.is_empty(), "{wrong}its log ends with\n{shown}");
        }
    }
}

/// Ends a FUSE connection: everybody who waits in that mount gets an error.
fn abort(minor: u32) {
    let file = Path::new(CONNECTIONS).join(minor.to_string()).join("abort");
    if !file.exists() {
        let _ = Command::new("mount").args(["-t", "fusectl", "none", CONNECTIONS]).status();
    }
    // Where the mount has gone in the meantime, nothing is to be done.
    let _ = fs::write(file, "1");
}
