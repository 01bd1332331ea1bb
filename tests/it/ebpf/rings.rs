//! The rings that a sink has in the kernel, one for each cpu: in one order, as if they were one.

use std::process::Command;
use std::time::{Duration, Instant};

use ktrace::record::Body;
use nix::sys::signal::{Signal, kill};

use super::loss::{field, getppids, told};
use super::{mount, traced};
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::{Running, need, wait_for};

/// The calls of `relay` and what they returned, in the order of the stream: of which turn, and whether it is the end.
fn turns(recs: &[Rec]) -> Vec<(u64, bool)> {
    let mut turns = Vec::new();
    for rec in recs {
        match rec.body() {
            Body::Syscall { args, .. } if rec.call() == Some("close") => {
                turns.extend(args.get(0).and_then(|fd| fd.checked_sub(100_000)).map(|n| (n, false)));
            }
            // It has no argument: it is that of the turn before.
            Body::Sysret { .. } if rec.result() == Some(("close", -i64::from(libc::EBADF))) => {
                turns.extend(turns.last().copied().map(|(n, _)| (n, true)));
            }
            _ => {}
        }
    }
    turns
}

/// Each call after the end of the one before.
fn in_order(calls: u64) -> Vec<(u64, bool)> {
    (0..calls).flat_map(|n| [(n, false), (n, true)]).collect()
}

fn first_wrong(got: &[(u64, bool)], want: &[(u64, bool)]) -> Option<usize> {
    (0..got.len().max(want.len())).find(|&at| got.get(at) != want.get(at))
}

#[track_caller]
fn check_order(recs: &[Rec], calls: u64) {
    assert_eq!(told(recs), 0, "lost");
    let (got, want) = (turns(recs), in_order(calls));
    if let Some(at) = first_wrong(&got, &want) {
        panic!("at {at}: {:?}", &got[at.saturating_sub(3)..got.len().min(at + 3)]);
    }
}

/// What `relay` does of so many calls in its time is in order.
#[track_caller]
fn check_relay(threads: &str, calls: u64, more: &[&str]) {
    let mount = mount();
    let calls = calls.to_string();
    let mut tracee = Tracee::start("relay", &[&[threads, calls.as_str()], more].concat());
    mount.set(tracee.pid(), LINE);
    let mut trace = mount.trace(tracee.pid());
    let lines = tracee.running.lines();
    tracee.go();
    let recs = trace.rest();
    let made = lines.iter().next().expect("how many it made").parse().unwrap();
    assert!(made >= 100, "{made} are too few to prove anything");
    check_order(&recs, made);
}

const LINE: &str = "set syscall,sysret policy=drop size=16M calls=close backend=ebpf";

#[test]
fn a_thread_that_goes_from_cpu_to_cpu_is_told_of_in_its_order() {
    need!("fuse", "ebpf");
    check_relay("1", 10_000, &["roams"]);
}

#[test]
fn what_a_thread_does_after_another_has_done_something_is_told_after_it() {
    need!("fuse", "ebpf");
    for threads in ["2", "5"] {
        check_relay(threads, 40_000, &[]);
    }
}

#[test]
fn threads_on_all_cpus_lose_nothing() {
    need!("fuse", "ebpf");
    // There is room for all of them.
    const CALLS: u64 = 5_000;
    const THREADS: u64 = 8;
    let line = "set syscall,sysret policy=drop size=16M calls=getppid backend=ebpf";
    let recs = traced(&mount(), "threads", &[&THREADS.to_string(), &CALLS.to_string()], line);
    assert_eq!((getppids(&recs), told(&recs)), (THREADS * CALLS, 0));
    let returns = recs.iter().filter(|rec| rec.result().is_some_and(|(call, _)| call == "getppid"));
    assert_eq!(returns.count() as u64, THREADS * CALLS);
}

#[test]
fn one_thread_has_the_room_of_all_rings_and_is_told_of_in_its_order() {
    need!("fuse", "ebpf");
    // Three quarters of 512 KiB, the least there is, at 72 and 56 bytes.
    const CALLS: u64 = 3000;
    let mount = mount();
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    for turn in 0..5 {
        let mut tracee = Tracee::start("relay", &["1", &CALLS.to_string()]);
        let line = "set syscall,sysret policy=stop size=512K calls=close backend=ebpf";
        mount.set(tracee.pid(), line);
        let mut trace = mount.trace(tracee.pid());
        // While the daemon stands still nothing is read: the ring of the one cpu fills, and then the others.
        kill(daemon, Signal::SIGSTOP).unwrap();
        tracee.go();
        let ended = tracee.running.wait().success();
        kill(daemon, Signal::SIGCONT).unwrap();
        assert!(ended, "{turn}");
        check_order(&trace.rest(), CALLS);
    }
}

#[test]
fn the_data_of_one_call_is_in_order_in_whatever_rings_it_is() {
    need!("fuse", "ebpf");
    let mount = mount();
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    // Rings of 128 KiB hold 31 whole pieces, of 256 KiB 63: then one piece is elsewhere, and the short last one is not.
    for (cpu, pieces) in [(0, 32), (0, 64), (0, 100), (1, 32), (1, 64), (1, 100)] {
        let bytes = 4088 * pieces + 20;
        let mut tracee = Tracee::start("spill", &[&cpu.to_string(), &bytes.to_string()]);
        mount.set(tracee.pid(), "set genio policy=stop size=512K calls=pwrite64 backend=ebpf");
        let mut trace = mount.trace(tracee.pid());
        kill(daemon, Signal::SIGSTOP).unwrap();
        tracee.go();
        let ended = tracee.running.wait().success();
        kill(daemon, Signal::SIGCONT).unwrap();
        assert!(ended, "cpu {cpu}");
        let mut data = Vec::new();
        for rec in trace.rest() {
            if let Body::Genio { data: piece, .. } = rec.body() {
                data.extend_from_slice(piece);
            }
        }
        let words = data.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        let wrong = words.enumerate().find(|(at, word)| *at as u32 != *word);
        assert_eq!((data.len(), wrong), (bytes, None), "cpu {cpu}, {pieces} pieces");
    }
}

#[test]
fn what_all_rings_had_no_room_for_is_counted_to_the_record() {
    need!("fuse", "ebpf");
    const CALLS: u64 = 100_000;
    const THREADS: u64 = 8;
    let line = "set syscall policy=drop size=64K calls=getppid backend=ebpf";
    let recs = traced(&mount(), "threads", &[&THREADS.to_string(), &CALLS.to_string()], line);
    let (seen, told) = (getppids(&recs), told(&recs));
    assert_eq!(seen + told, THREADS * CALLS, "{seen} seen, {told} told");
    assert!(told > 0, "nothing was lost: the flood was too small to prove anything");
}

#[test]
fn a_change_in_the_midst_of_a_flood_from_all_cpus_comes_to_an_end() {
    need!("fuse", "ebpf");
    const LONG: Duration = Duration::from_secs(5);
    let mount = mount();
    let mut tracee = Tracee::start("threads", &["8", "1000000000"]);
    let pid = tracee.pid();
    tracee.go();
    for _ in 0..10 {
        for line in ["set syscall policy=drop size=64K", "set syscall,sysret policy=drop", "clear"] {
            let begun = Instant::now();
            mount.set(pid, line);
            assert!(begun.elapsed() < LONG, "{line}: {:?}", begun.elapsed());
            if line != "clear" {
                let before = field(&mount.read("stat"), "events");
                wait_for("events", || field(&mount.read("stat"), "events") > before + 1000);
            }
        }
    }
}

#[test]
fn the_memory_of_rings_is_given_back_when_nobody_writes_into_them() {
    need!("fuse", "ebpf");
    let mount = mount();
    let memory = || field(&mount.read("stat"), "memory");
    let before = memory();
    for _ in 0..3 {
        let asleep = Running::spawn(Command::new("sleep").arg("100"));
        mount.set(asleep.pid(), "set syscall size=4M backend=ebpf");
        assert!(memory() >= before + (4 << 20), "{}", memory());
        mount.set(asleep.pid(), "clear");
        wait_for("the memory", || memory() < before + (1 << 20));
    }
}
