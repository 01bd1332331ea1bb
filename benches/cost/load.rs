//! The load (load.c): built once, started so that a tracer can attach before its first call.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The program, built at first use.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/load.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-load");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Werror", "-pthread", "-o"]).arg(&program).arg(source);
        assert!(cc.status().unwrap().success(), "cc");
        program
    })
}

/// A load that waits for its start.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) child: Child,
}

impl Load {
    /// Under `wrapper`, a command that runs the words after it; none for the load alone.
    pub(crate) fn start(wrapper: &[String], args: &[String]) -> Load {
        let words: Vec<String> = wrapper
            .iter()
            .cloned()
            .chain([program().to_str().unwrap().to_owned()])
            .chain(args.iter().cloned())
            .collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Load { child: command.spawn().unwrap() }
    }

    /// The load alone; returns when it waits.
    pub(crate) fn waiting(args: &[String]) -> Load {
        let load = Load::start(&[], args);
        let waits = || {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", load.pid())).unwrap_or_default();
            call.starts_with("0 0x0 ")
        };
        while !waits() {
            std::thread::yield_now();
        }
        load
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Lets it begin.
    pub(crate) fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    /// Calls made and nanoseconds taken, after its end was seen on its standard output.
    pub(crate) fn result(&mut self) -> (u64, f64) {
        let mut text = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        let mut words = text.split_whitespace().map(|w| w.parse::<u64>().unwrap());
        let result = (words.next().unwrap_or(0), words.next().unwrap_or(0) as f64);
        assert!(result.1 > 0.0, "the load failed");
        result
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
