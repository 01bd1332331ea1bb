//! CSW: the switches that a program makes, and not those that tracing makes.

use std::fs;
use std::io::Read;
use std::process::Command;
use std::time::Instant;

use ktrace::record::Body;
use nix::time::{ClockId, clock_gettime};

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::{self, Tracee};
use crate::support::{DEADLINE, need, only_on, wait_for};

const WAITS: usize = 50;

/// How often the thread left its cpu, by its own will or not.
fn outs(recs: &[Rec], user: bool) -> usize {
    recs.iter().filter(|rec| matches!(rec.body(), Body::Csw { out: true, user: u } if u == user)).count()
}

/// What is recorded of a program that waits so often for a byte, which comes when it has left its cpu. A sleep for a time would not do:
/// that can be over before the cpu is left, where the whole machine had to wait meanwhile.
fn waits(facs: &str) -> Vec<Rec> {
    let mount = Mount::new();
    let mut tracee = Tracee::start("switches", &[&WAITS.to_string(), "read"]);
    let pid = tracee.pid();
    mount.set(pid, &format!("set {facs}"));
    let mut trace = mount.trace(pid);
    tracee.go();
    for _ in 0..WAITS {
        wait_for("a read off its cpu", || {
            // In this order: about to sleep in it, and then without a cpu.
            ktrace::proc::Stat::of(pid).unwrap().state == b'S'
                && fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap().starts_with("0 0x0 ")
        });
        tracee.say("x");
    }
    trace.rest()
}

#[test]
fn r08_each_wait_is_a_switch_out_and_one_in() {
    need!("fuse", "ptrace");
    let recs = waits("csw");
    let ins = recs.iter().filter(|rec| matches!(rec.body(), Body::Csw { out: false, .. })).count();
    // Besides, it comes back from its read, may wait for a page, and leaves at its end. Our stops would be hundreds.
    assert!((WAITS..WAITS + 20).contains(&outs(&recs, false)), "{} out", outs(&recs, false));
    assert!((WAITS..WAITS + 20 + outs(&recs, true)).contains(&ins), "{ins} in");
}

#[test]
fn hazard_22_the_switches_of_our_own_stops_are_left_out() {
    need!("fuse", "ptrace");
    let recs = waits("csw,syscall,sysret");
    assert!(recs.iter().filter(|rec| rec.call() == Some("read")).count() >= WAITS);
    assert!((WAITS..WAITS + 20).contains(&outs(&recs, false)), "{} out", outs(&recs, false));
    // Each stands between the call and its return, and the times of the thread never go back.
    let mut within = 0;
    let mut in_read = false;
    for rec in &recs {
        in_read = rec.call() == Some("read") || (in_read && rec.result().is_none());
        within += usize::from(in_read && matches!(rec.body(), Body::Csw { out: true, user: false }));
    }
    assert!(within >= WAITS, "{within}");
    let times: Vec<_> = recs.iter().map(|rec| rec.header.stamp.time).map(|t| (t.sec, t.nsec)).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn who_shares_a_cpu_is_switched_out_against_its_will() {
    need!("fuse", "ptrace", "taskset");
    let mount = Mount::new();
    let spin = "while :; do :; done";
    let busy =
        || Tracee::command(Command::new("taskset").args(["-c", "0", "sh", "-c", &format!("read x; {spin}")]));
    let (mut one, mut other) = (busy(), busy());
    mount.set(one.pid(), "set csw");
    let mut trace = mount.trace(one.pid());
    one.go();
    other.go();
    let mut seen = 0;
    trace.until("ten switches", |rec| {
        seen += usize::from(matches!(rec.body(), Body::Csw { out: true, user: true }));
        seen >= 10
    });
}

#[test]
fn threads_and_children_are_watched_like_their_process() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script = "read x; sleep 0.01 & sleep 0.01; wait";
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", script]));
    mount.set(tracee.pid(), "set csw +inherit");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs = trace.rest();
    let mut pids: Vec<i32> =
        recs.iter().filter(|r| matches!(r.body(), Body::Csw { .. })).map(Rec::pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 3, "{pids:?}");

    // Turned off, nothing more comes, and the process is as before.
    let _ = tracee::program("switches");
    let mut tracee = Tracee::start("switches", &["100000"]);
    mount.set(tracee.pid(), "set csw");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    trace.until("a switch", |rec| matches!(rec.body(), Body::Csw { .. }));
    mount.set(tracee.pid(), "clear");
    trace.rest();
    wait_for("an untraced process", || mount.read(format!("{}/ctl", tracee.pid())) == "clear\n");
}

#[test]
fn who_makes_no_stop_is_asked_for_its_switches_while_others_let_the_tracer_never_sleep() {
    only_on!("ptrace", "the other backend waits for no stop");
    need!("fuse", "ptrace");
    // Enough that one of them is always stopped, wherever they and the tracer run. Seldom it does sleep all the same, and a
    // tick is heard then: so it takes many rounds to see that no sleep is needed.
    const CALLERS: &str = "8";
    const ROUNDS: usize = 100;
    let mount = Mount::new();
    let mut tracee = Tracee::start("crowd", &[CALLERS, "0"]);
    let pid = tracee.pid();
    mount.set(pid, "set csw,syscall calls=close");
    let mut trace = mount.trace(pid);
    tracee.go();
    let by = Instant::now() + DEADLINE;
    let mut page = [0; 4096];
    for round in 0..ROUNDS {
        wait_for("a full pipe", || {
            let call = fs::read_to_string(format!("/proc/{pid}/syscall"));
            call.is_ok_and(|call| call.starts_with("1 0x1 "))
                && ktrace::proc::Stat::of(pid).unwrap().state == b'S'
        });
        let before = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
        tracee.running.0.stdout.as_mut().unwrap().read_exact(&mut page).unwrap();
        trace.until("a switch", |rec| {
            assert!(Instant::now() < by, "only {round} switches in {DEADLINE:?}");
            let time = rec.header.stamp.time;
            let is_back = rec.tid() == pid && matches!(rec.body(), Body::Csw { out: false, .. });
            is_back && (time.sec, time.nsec) >= (before.tv_sec(), before.tv_nsec())
        });
    }
}
