//! What the kernel's side leaves out or has no room for, and what it says of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Command;

use ktrace::record::Body;
use nix::sys::signal::{Signal, kill};

use super::{lost, mount, traced};
use crate::support::mount::Mount;
use crate::support::stream::{Rec, Stream};
use crate::support::tracee::Tracee;
use crate::support::{Running, need, wait_for};

pub(super) fn getppids(recs: &[Rec]) -> u64 {
    recs.iter().filter(|rec| rec.call() == Some("getppid")).count() as u64
}

pub(super) fn told(recs: &[Rec]) -> u64 {
    recs.iter().filter_map(lost).sum()
}

/// A number that a `stat` file gives after this word.
pub(super) fn field(text: &str, word: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok()).unwrap()
}

#[test]
fn what_the_kernel_could_not_hold_is_counted_to_the_record() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 400_000;
    let line = "set syscall policy=drop size=64K calls=getppid backend=ebpf";
    let recs = traced(&mount(), "flood", &[&CALLS.to_string()], line);
    let (seen, told) = (getppids(&recs), told(&recs));
    assert_eq!(seen + told, CALLS, "{seen} seen, {told} told");
    assert!(told > 0, "nothing was lost: the flood was too small to prove anything");
}

#[test]
fn one_that_floods_its_trace_loses_nothing_of_another() {
    need!("fuse", "ebpf");
    const FLOOD: u64 = 1_000_000;
    const CALLS: u64 = 20_000;
    let mount = mount();
    let mut flood = Tracee::start("flood", &[&FLOOD.to_string()]);
    let mut other = Tracee::start("flood", &[&CALLS.to_string()]);
    mount.set(flood.pid(), "set syscall policy=drop size=64K calls=getppid");
    mount.set(other.pid(), "set syscall policy=drop size=16M calls=getppid");
    let (mut floods, mut others) = (mount.trace(flood.pid()), mount.trace(other.pid()));
    flood.go();
    wait_for("a loss", || field(&mount.read(format!("{}/stat", flood.pid())), "lost") > 0);
    other.go();
    let recs = others.rest();
    assert_eq!((getppids(&recs), told(&recs)), (CALLS, 0));
    let recs = floods.rest();
    let (seen, told) = (getppids(&recs), told(&recs));
    assert_eq!(seen + told, FLOOD, "{seen} seen, {told} told");
}

#[test]
fn calls_that_are_not_wanted_do_not_leave_the_kernel() {
    need!("fuse", "ebpf");
    let mount = mount();
    let before = field(&mount.read("stat"), "events");
    let recs = traced(&mount, "flood", &["50000"], "set default calls=exit_group backend=ebpf");
    let calls: Vec<_> = recs.iter().filter_map(Rec::call).collect();
    assert_eq!(calls, ["exit_group"]);
    let events = field(&mount.read("stat"), "events") - before;
    assert!((2..20).contains(&events), "{events} events");
}

#[test]
fn under_policy_stop_the_first_loss_ends_the_trace_and_not_the_program() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 400_000;
    let mount = mount();
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    let mut tracee = Tracee::start("flood", &[&CALLS.to_string()]);
    mount.set(tracee.pid(), "set syscall policy=stop size=16M calls=getppid");
    let mut trace = mount.trace(tracee.pid());
    // While the daemon stands still it is the kernel's ring that has no room.
    kill(daemon, Signal::SIGSTOP).unwrap();
    tracee.go();
    assert!(tracee.running.wait().success());
    kill(daemon, Signal::SIGCONT).unwrap();
    let recs = trace.rest();
    let seen = getppids(&recs);
    assert!((100_000..CALLS).contains(&seen) && told(&recs) == 0, "{seen} of {}", recs.len());
    wait_for("the word about it", || mount.log().contains("errno 11, tracing stopped"));
}

#[test]
fn under_policy_overwrite_the_newest_are_there_and_a_full_ring_in_the_kernel_ends_nothing() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 50_000;
    let mount = mount();
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    let mut tracee = Tracee::start("flood", &[&CALLS.to_string(), "0", "waits"]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall policy=overwrite size=64K backend=ebpf");
    // The ring in the kernel keeps the oldest...
    kill(daemon, Signal::SIGSTOP).unwrap();
    tracee.go();
    BufReader::new(tracee.running.0.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    kill(daemon, Signal::SIGCONT).unwrap();
    // (what is on its way is out of it after this, so there is room for the end)
    fs::File::open(mount.path(format!("{pid}/trace"))).unwrap().sync_all().unwrap();
    let stat = mount.read(format!("{pid}/stat"));
    let (records, lost) = (field(&stat, "records"), field(&stat, "lost"));
    assert!(records > 2000 && lost > CALLS / 2, "{records} records, {lost} lost");
    tracee.say("\n");
    assert!(tracee.running.wait().success());
    // ... and the daemon's the newest.
    let recs = mount.trace(pid).rest();
    assert!(matches!(recs[0].body(), Body::Emul(b"linux")), "{:?}", recs[0]);
    assert_eq!(recs.iter().rev().find_map(Rec::call), Some("exit_group"));
    let seen = getppids(&recs);
    assert!((100..2000).contains(&seen), "{seen} in 64 KiB");
}

#[test]
fn what_needs_a_stop_is_refused_with_the_reason() {
    need!("fuse", "ebpf");
    let mount = Mount::new();
    let idle = Running::spawn(Command::new("sleep").arg("1000"));
    for (line, why) in [
        ("set syscall policy=block", "the ebpf backend stops nobody: policy=block is for backend=ptrace"),
        ("set syscall,execfd", "the ebpf backend cannot give execfd"),
    ] {
        let (errno, log) = mount.refused(idle.pid(), line);
        assert_eq!(errno, libc::EOPNOTSUPP, "{line}");
        assert!(log.contains(why), "{log}");
        assert_eq!(mount.read(format!("{}/ctl", idle.pid())), "clear\n");
    }
    // What is under way is not disturbed by it.
    mount.set(idle.pid(), "set syscall policy=drop");
    assert_eq!(mount.refused(idle.pid(), "set syscall policy=block").0, libc::EOPNOTSUPP);
    assert!(mount.read(format!("{}/ctl", idle.pid())).contains("policy=drop"));
    // Where the backend may be chosen, it is another one.
    let auto = super::mount();
    auto.set(idle.pid(), "set syscall policy=block");
    assert_ne!(ktrace::proc::tracer_of(idle.pid()), 0, "ptrace has it");
}

#[test]
fn a_hundred_and_more_that_are_traced_at_once_tell_all() {
    need!("fuse", "ebpf");
    const PROCESSES: usize = 200;
    const CALLS: u64 = 300;
    let mount = Mount::new();
    let mut all: Vec<_> = (0..PROCESSES).map(|_| Tracee::start("flood", &[&CALLS.to_string()])).collect();
    let mut traces = Vec::new();
    for tracee in &all {
        mount.set(tracee.pid(), "set syscall,sysret policy=drop size=256K");
        traces.push(mount.trace(tracee.pid()));
    }
    all.iter_mut().for_each(Tracee::go);
    for (tracee, trace) in all.iter_mut().zip(&mut traces) {
        let recs = trace.rest();
        assert_eq!((getppids(&recs), told(&recs)), (CALLS, 0));
        assert!(recs.iter().all(|rec| rec.pid() == tracee.pid()));
        assert!(tracee.running.wait().success());
    }
}

#[test]
fn a_small_ring_grows_and_what_it_lost_before_is_counted() {
    need!("fuse", "ebpf");
    let mount = Mount::with(&["-o", "backend=auto,mem=40M"]);
    // With it more than a quarter of the memory is used: rings begin small.
    let asleep = Running::spawn(std::process::Command::new("sleep").arg("100"));
    mount.set(asleep.pid(), "set syscall size=16M backend=ebpf");
    let memory = || field(&mount.read("stat"), "memory");
    const CALLS: u64 = 300_000;
    let mut tracee = Tracee::start("flood", &[&CALLS.to_string()]);
    let mut trace = mount.trace(tracee.pid());
    let before = memory();
    mount.set(tracee.pid(), "set syscall policy=drop size=4M calls=getppid backend=ebpf");
    let small = memory() - before;
    assert!(small < 512 << 10, "{small} bytes from the start");
    tracee.go();
    let recs = trace.rest();
    let (seen, told) = (getppids(&recs), told(&recs));
    assert_eq!(seen + told, CALLS, "{seen} seen, {told} told");
    assert!(seen > CALLS / 10, "{seen} seen: the ring has stayed small");
}

#[test]
fn a_child_is_traced_although_its_birth_had_no_room() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 20_000;
    const CHILDREN: u64 = 20;
    let line = "set syscall +inherit policy=drop size=16K calls=getppid backend=ebpf";
    let recs = traced(&mount(), "flood", &[&CALLS.to_string(), &CHILDREN.to_string()], line);
    let (seen, told) = (getppids(&recs), told(&recs));
    assert_eq!(seen + told, CALLS * (CHILDREN + 1), "{seen} seen, {told} told");
    assert!(told > 0, "nothing was lost: the flood was too small to prove anything");
}

/// A process floods its ring while the daemon stands still, makes a child and ends: of neither the birth nor the end is there a
/// word. Gives it, its trace and its child, of which the daemon knows by now.
fn orphan(mount: &Mount, line: &str, calls: u64, later: u64) -> (Tracee, Stream, i32) {
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    let mut tracee = Tracee::start("orphan", &[&calls.to_string(), &later.to_string()]);
    mount.set(tracee.pid(), line);
    let trace = mount.trace(tracee.pid());
    kill(daemon, Signal::SIGSTOP).unwrap();
    tracee.go();
    assert!(tracee.running.wait().success());
    kill(daemon, Signal::SIGCONT).unwrap();
    let mut said = String::new();
    BufReader::new(tracee.running.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let child = said.trim().parse().unwrap();
    (tracee, trace, child)
}

#[test]
fn a_child_outlives_its_parent_although_its_birth_had_no_room() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 50_000;
    const LATER: u64 = 100;
    let mount = mount();
    let line = "set syscall +inherit policy=drop size=1M calls=getppid backend=ebpf";
    let (mut tracee, mut trace, child) = orphan(&mount, line, CALLS, LATER);
    // What the rings of all cpus have held is more than the sink's: the child's calls are to have room.
    let reader = std::thread::spawn(move || trace.rest());
    wait_for("the child to be found", || mount.read(format!("{child}/ctl")).starts_with("set "));
    wait_for("the end of its parent to be seen", || mount.read("stat").contains("traced 1\n"));
    // Longer than what nobody writes to is kept.
    let other = Running::spawn(Command::new("sleep").arg("1000"));
    for _ in 0..3 {
        let before = field(&mount.read("stat"), "records");
        mount.set(other.pid(), "set syscall,emul policy=drop backend=ebpf");
        wait_for("a record of another", || field(&mount.read("stat"), "records") > before);
        mount.set(other.pid(), "clear");
    }
    tracee.say("\n");
    let recs = reader.join().unwrap();
    let (seen, told) = (getppids(&recs), told(&recs));
    assert_eq!(seen + told, CALLS + LATER, "{seen} seen, {told} told");
    assert_eq!(recs.iter().filter(|rec| rec.pid() == child && rec.call().is_some()).count() as u64, LATER);
}

#[test]
fn what_was_lost_is_told_although_nothing_comes_after_it() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 50_000;
    let mount = mount();
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    let mut tracee = Tracee::start("flood", &[&CALLS.to_string(), "0", "waits"]);
    mount.set(tracee.pid(), "set syscall policy=drop size=1M calls=getppid backend=ebpf");
    let mut trace = mount.trace(tracee.pid());
    let pid = tracee.pid();
    let counted = || {
        let stat = mount.read(format!("{pid}/stat"));
        field(&stat, "records") + field(&stat, "lost")
    };
    let before = counted();
    kill(daemon, Signal::SIGSTOP).unwrap();
    tracee.go();
    BufReader::new(tracee.running.0.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    kill(daemon, Signal::SIGCONT).unwrap();
    fs::File::open(mount.path(format!("{pid}/trace"))).unwrap().sync_all().unwrap();
    assert_eq!(counted() - before, CALLS);
    let recs = trace.until("the word about the loss", |rec| lost(rec).is_some());
    assert_eq!(getppids(&recs) + told(&recs), CALLS);
}
