//! What the kernel's side leaves out or has no room for, and what it says of it.

use super::{lost, mount, traced};
use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::{Running, need, wait_for};

fn getppids(recs: &[Rec]) -> u64 {
    recs.iter().filter(|rec| rec.call() == Some("getppid")).count() as u64
}

fn told(recs: &[Rec]) -> u64 {
    recs.iter().filter_map(lost).sum()
}

/// A number that a `stat` file gives after this word.
fn field(text: &str, word: &str) -> u64 {
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
    let mut tracee = Tracee::start("flood", &[&CALLS.to_string()]);
    mount.set(tracee.pid(), "set syscall policy=stop size=64K calls=getppid");
    // Nobody reads before the end.
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    wait_for("the end of tracing", || mount.log().contains("errno 11, tracing stopped"));
    let recs = trace.rest();
    let seen = getppids(&recs);
    assert!((100..CALLS).contains(&seen) && told(&recs) == 0, "{seen} of {}", recs.len());
    assert!(tracee.running.wait().success());
}

#[test]
fn under_policy_overwrite_the_newest_are_there() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 100_000;
    let mount = mount();
    let mut tracee = Tracee::start("flood", &[&CALLS.to_string()]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall policy=overwrite size=64K");
    tracee.go();
    assert!(tracee.running.wait().success());
    wait_for("its end in the table", || mount.read(format!("{pid}/ctl")).starts_with("clear"));
    let recs = mount.trace(pid).rest();
    let last = recs.iter().rev().find_map(Rec::call);
    assert_eq!(last, Some("exit_group"));
    let seen = getppids(&recs);
    assert!(seen > 100 && seen < CALLS, "{seen}");
}

#[test]
fn what_needs_a_stop_is_refused_with_the_reason() {
    need!("fuse", "ebpf");
    let mount = Mount::new();
    let idle = Running::spawn(std::process::Command::new("sleep").arg("1000"));
    for (line, why) in [
        ("set syscall policy=block", "the ebpf backend stops nobody: no policy=block"),
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
