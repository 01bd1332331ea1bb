//! Policy block: the traced process waits for its reader, and nobody else waits for that.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use ktrace::hooks::BLOCK_MAX;
use nix::sys::signal::Signal;

use crate::support::mount::Mount;
use crate::support::tracee::Tracee;
use crate::support::{need, wait_for};

/// Well below the bound of the wait, and below that of a command to a tracer that does not listen: what is not held up by it comes long before, even on a slow machine.
const SOON: Duration = Duration::from_millis(BLOCK_MAX.as_millis() as u64 / 8);

/// A process that waits for room in a ring whose reader has read a little and reads no more.
fn blocked(mount: &Mount) -> (Tracee, File) {
    let mut tracee = Tracee::start("threads", &["1", "100000000"]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall policy=block size=64K\n");
    tracee.go();
    let mut reader = File::open(mount.path(format!("{pid}/trace"))).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    let filled = || {
        let stat = mount.read(format!("{pid}/stat"));
        let bytes = stat.lines().find_map(|line| line.strip_prefix("bytes ")?.parse().ok());
        bytes.unwrap_or(0u64) > (64 << 10) - 1024
    };
    wait_for("the ring to be full", filled);
    (tracee, reader)
}

fn soon(what: &str, began: Instant) {
    assert!(began.elapsed() < SOON, "{what} took {:?}", began.elapsed());
}

#[test]
fn a_kill_ends_the_wait() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (mut tracee, _reader) = blocked(&mount);
    let began = Instant::now();
    tracee.running.signal(Signal::SIGKILL);
    tracee.running.wait();
    soon("the death", began);
}

#[test]
fn a_clear_ends_the_wait() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (tracee, _reader) = blocked(&mount);
    let began = Instant::now();
    mount.set(tracee.pid(), "clear\n");
    soon("the clear", began);
    assert_eq!(ktrace::proc::tracer_of(tracee.pid()), 0);
}

#[test]
fn another_policy_ends_the_wait_at_once() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (tracee, _reader) = blocked(&mount);
    let began = Instant::now();
    mount.set(tracee.pid(), "set syscall policy=drop\n");
    soon("the change", began);
}

#[test]
fn the_end_of_the_daemon_ends_the_wait() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (tracee, _reader) = blocked(&mount);
    let began = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(mount.daemon()), Signal::SIGTERM).unwrap();
    wait_for("the tracee to be let go", || ktrace::proc::tracer_of(tracee.pid()) == 0);
    soon("letting go", began);
}
