//! The programs of tests/tracee: each does exactly the calls that its source says, and begins when it is told to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use super::Running;

/// Programs that need no C library (bare.h).
const BARE: &[&str] = &["data"];
const NO_LIBRARY: &[&str] = &["-nostdlib", "-static", "-fno-pic", "-no-pie", "-fno-stack-protector"];

/// Compiles a program of tests/tracee once in a run.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    // A failed build panics with the lock held; the next test may try again.
    let mut built = BUILT.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner());
    built.entry(name.to_owned()).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    // One that needs no C library makes a 32-bit program too: `data32` of data.c.
    let (stem, bits) = match name.strip_suffix("32") {
        Some(stem) if BARE.contains(&stem) => (stem, 32),
        _ => (name, 64),
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tracee").join(format!("{stem}.c"));
    let program =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tracee-{}-{name}", std::process::id()));
    let mut flags = Vec::new();
    match name {
        _ if BARE.contains(&stem) => flags.extend(["-fno-builtin"].iter().chain(NO_LIBRARY)),
        // No 32-bit C library is needed for these few calls.
        "i386" | "naps32" => flags.extend(["-m32"].iter().chain(NO_LIBRARY)),
        _ => flags.push("-pthread"),
    }
    if bits == 32 {
        // Where Debian has the kernel's headers.
        flags.extend(["-m32", "-idirafter", "/usr/include/x86_64-linux-gnu"]);
    }
    let mut cc = Command::new("cc");
    cc.arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"));
    cc.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program).args(flags).arg(source);
    let status = cc.status().unwrap();
    assert!(status.success(), "cc: {status}");
    program
}

/// True where a program of tests/tracee can be built and run.
pub(crate) fn runs(name: &str) -> bool {
    let Ok(program) = std::panic::catch_unwind(|| program(name)) else { return false };
    let status = Command::new(program).stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

/// A program that waits in `read(0)` for its start.
#[derive(Debug)]
pub(crate) struct Tracee {
    pub(crate) running: Running,
}

impl Tracee {
    /// Starts a program of tests/tracee.
    pub(crate) fn start(name: &str, args: &[&str]) -> Tracee {
        Tracee::command(Command::new(program(name)).args(args))
    }

    /// Starts any command that waits in `read(0)`, and waits until it does.
    pub(crate) fn command(command: &mut Command) -> Tracee {
        let running = Running::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let tracee = Tracee { running };
        super::wait_for("the tracee to wait for its start", || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", tracee.pid())).into_iter().flatten();
            threads.flatten().any(|thread| {
                let call = std::fs::read_to_string(thread.path().join("syscall"));
                // read(2) of 64 and of 32 bits.
                call.is_ok_and(|call| call.starts_with("0 0x0 ") || call.starts_with("3 0x0 "))
            })
        });
        tracee
    }

    pub(crate) fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Lets it begin.
    pub(crate) fn go(&mut self) {
        self.say("\n");
    }

    /// Writes to its standard input.
    pub(crate) fn say(&mut self, text: &str) {
        self.running.say(text);
    }
}
