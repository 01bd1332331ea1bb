//! A real daemon on a mount of its own, and processes that are gone when a test is. Nothing waits without a deadline.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything that must happen may take; only a failure takes that long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// After this a mount is broken up, whatever goes on in it.
const LIFE_MAX: Duration = Duration::from_secs(90);

/// The daemon.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ktracefs");

/// Waits until `condition` holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let by = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < by, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// True where this machine has what a test needs. Where not, says so past the test runner, and fails if
/// KTRACE_TEST_REQUIRE names it.
pub(crate) fn has(what: &str) -> bool {
    let there = match what {
        "fuse" => nix::unistd::geteuid().is_root() && File::options().write(true).open("/dev/fuse").is_ok(),
        tool => {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).any(|dir| dir.join(tool).is_file())
        }
    };
    if !there {
        let required = env::var("KTRACE_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|r| r == what), "{what} is required and not there");
        let test = thread::current().name().unwrap_or("?").to_owned();
        writeln!(io::stderr(), "SKIP {test}: needs {what}").unwrap();
    }
    there
}

/// A child that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Running {
        Running(command.spawn().unwrap_or_else(|err| panic!("{command:?}: {err}")))
    }

    /// A process that does nothing for long enough.
    pub(crate) fn idle() -> Running {
        Running::spawn(Command::new("sleep").arg("1000"))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
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

    /// Waits until it sleeps in a read of the file system.
    pub(crate) fn is_waiting(&self) {
        wait_for("a reader that waits", || {
            let syscall = fs::read_to_string(format!("/proc/{}/syscall", self.pid())).unwrap_or_default();
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
            syscall.starts_with(&format!("{} ", libc::SYS_read)) && stat.contains(") S ") && self.is_in_fuse()
        });
    }

    fn is_in_fuse(&self) -> bool {
        let wchan = fs::read_to_string(format!("/proc/{}/wchan", self.pid())).unwrap_or_default();
        wchan.is_empty() || wchan == "0" || wchan.contains("request_wait_answer") || wchan.contains("fuse")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; in a wedged mount it may never.
        let _ = self.0.kill();
        let by = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < by {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs to the end, which must come.
pub(crate) fn output(command: &mut Command) -> Output {
    let dir = scratch();
    let (out, err) = (dir.join("out"), dir.join("err"));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let status = Running::spawn(command).wait();
    let output = Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() };
    fs::remove_dir_all(dir).unwrap();
    output
}

/// A fresh directory.
pub(crate) fn scratch() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = env::temp_dir().join(format!("ktracefs-test-{}-{number}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    dir
}

/// A mount point of its own with whatever is mounted on it; both are gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    dir: PathBuf,
    pub(crate) daemon: Option<Running>,
    minor: Option<u32>,
    // Dropped last: then the watchdog ends.
    _alive: Sender<()>,
}

impl Mount {
    /// A mount point with nothing on it; `None` where nothing can be mounted here.
    pub(crate) fn point_only() -> Option<Mount> {
        if !has("fuse") {
            return None;
        }
        let dir = scratch();
        fs::create_dir(dir.join("m")).unwrap();
        let (alive, ends) = channel::<()>();
        let point = dir.join("m");
        thread::spawn(move || {
            if ends.recv_timeout(LIFE_MAX) == Err(RecvTimeoutError::Timeout) {
                writeln!(io::stderr(), "{} lived too long and is broken up", point.display()).unwrap();
                abort(minor_of(&point));
                let _ = umount2(&point, MntFlags::MNT_DETACH);
            }
        });
        Some(Mount { dir, daemon: None, minor: None, _alive: alive })
    }

    /// A daemon in the foreground with these arguments.
    pub(crate) fn new(args: &[&str]) -> Option<Mount> {
        let mut mount = Mount::point_only()?;
        mount.start(args);
        Some(mount)
    }

    /// Starts a daemon in the foreground.
    pub(crate) fn start(&mut self, args: &[&str]) {
        let log = File::create(self.dir.join("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["-f", "-o", "backend=ptrace"]).args(args).arg(self.point()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = Running::spawn(&mut command);
        wait_for("the mount", || {
            if let Some(status) = daemon.0.try_wait().unwrap() {
                panic!("the daemon ended, {status}: {}", self.log());
            }
            self.is_mounted() && fs::read(self.point().join("README")).is_ok()
        });
        self.minor = minor_of(&self.point());
        self.daemon = Some(daemon);
    }

    pub(crate) fn point(&self) -> PathBuf {
        self.dir.join("m")
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.point().join(name)
    }

    /// A file of a process.
    pub(crate) fn file(&self, pid: i32, name: &str) -> PathBuf {
        self.path(pid.to_string()).join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn is_mounted(&self) -> bool {
        minor_of(&self.point()).is_some()
    }

    /// A `cat` of a file that waits, with signals as in a shell's foreground.
    pub(crate) fn cat(&self, file: &Path) -> Running {
        let mut command = Command::new("cat");
        command.arg(file).stdin(Stdio::null()).stdout(File::create(self.dir.join("read")).unwrap());
        let reader = Running::spawn(&mut command);
        reader.is_waiting();
        reader
    }

    /// What the last [`Mount::cat`] has printed so far.
    pub(crate) fn read(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("read")).unwrap()).into_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted() {
            abort(minor_of(&self.point()).or(self.minor));
            let _ = umount2(&self.point(), MntFlags::MNT_DETACH);
        }
        let log = self.log();
        self.daemon = None;
        let _ = fs::remove_dir_all(&self.dir);
        if thread::panicking() {
            eprintln!("the daemon's log:\n{log}");
        } else {
            assert!(!log.contains("panicked"), "the daemon panicked:\n{log}");
        }
    }
}

/// The number of the FUSE connection mounted at a place, from mountinfo: stat(2) might never return.
fn minor_of(point: &Path) -> Option<u32> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().rfind(|line| {
        let mut fields = line.split(' ');
        fields.nth(4).map(OsStr::new) == Some(point.as_os_str()) && line.contains(" - fuse.ktracefs ")
    })?;
    line.split(' ').nth(2)?.split_once(':')?.1.parse().ok()
}

/// Ends a FUSE connection: everybody who waits in that mount gets an error.
fn abort(minor: Option<u32>) {
    let Some(minor) = minor else { return };
    let connections = Path::new("/sys/fs/fuse/connections");
    let file = connections.join(minor.to_string()).join("abort");
    if !file.exists() && fs::metadata(connections).is_ok_and(|m| m.mode() != 0) {
        let _ = Command::new("mount").args(["-t", "fusectl", "none"]).arg(connections).status();
    }
    let _ = fs::write(file, "1");
}

/// A mount with a daemon, or the end of the test where there can be none.
macro_rules! mounted {
    () => {
        match $crate::support::Mount::new(&[]) {
            Some(mount) => mount,
            None => return,
        }
    };
}
pub(crate) use mounted;

pub(crate) fn errno_of<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("it should fail").raw_os_error().expect("an errno")
}
