//! A daemon of our own, built as this bench is.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::seen::{self, How, Seen};

/// A mount, gone with this.
#[derive(Debug)]
pub(crate) struct Mount {
    point: PathBuf,
    daemon: Child,
    backend: &'static str,
}

impl Mount {
    /// With this backend alone, and so much memory for rings.
    pub(crate) fn new(backend: &'static str, mem: &str) -> Mount {
        let program = Path::new(env!("CARGO_BIN_EXE_kdump")).with_file_name("ktracefs");
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--release", "-p", "mountd", "--bin", "ktracefs"])
            .status();
        assert!(built.unwrap().success(), "the daemon does not build");
        let point = std::env::temp_dir().join(format!("ktrace-bench-{}", std::process::id()));
        fs::create_dir_all(&point).unwrap();
        let daemon = Command::new(program)
            .args(["-f", "-o", &format!("backend={backend},mem={mem}")])
            .arg(&point)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let by = Instant::now() + Duration::from_secs(10);
        while !ktrace::launch::mounted().iter().any(|m| m.point == point) {
            assert!(Instant::now() < by, "the daemon does not mount");
            thread::sleep(Duration::from_millis(5));
        }
        Mount { point, daemon, backend }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// Process id of the daemon.
    pub(crate) fn daemon(&self) -> u32 {
        self.daemon.id()
    }

    /// Writes one command to a process's ctl.
    pub(crate) fn ctl(&self, pid: i32, line: &str) {
        let mut ctl = OpenOptions::new().write(true).open(self.path(&format!("{pid}/ctl"))).unwrap();
        if let Err(e) = ctl.write_all(line.as_bytes()) {
            let why = fs::read_to_string(self.path("error_log")).unwrap_or_default();
            panic!("{line}: {e}\n{why}");
        }
    }

    /// Reads the trace of a process to its end.
    pub(crate) fn reader(&self, pid: i32, how: How) -> JoinHandle<Seen> {
        let file = File::open(self.path(&format!("{pid}/trace"))).unwrap();
        thread::spawn(move || seen::read(file, how))
    }

    /// Its backend.
    pub(crate) fn backend(&self) -> &'static str {
        self.backend
    }

    /// Records may be lost: nobody is stopped until there is room.
    pub(crate) fn loses(&self) -> bool {
        self.backend == "ebpf"
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.daemon.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.daemon.wait();
        let _ = fs::remove_dir(&self.point);
    }
}
