//! CSW: the switches that a program makes, and not those that tracing makes.

use std::process::Command;

use ktrace::record::Body;

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::{self, Tracee};
use crate::support::{need, wait_for};

const SLEEPS: usize = 50;

/// How often the thread left its cpu, by its own will or not.
fn outs(recs: &[Rec], user: bool) -> usize {
    recs.iter().filter(|rec| matches!(rec.body(), Body::Csw { out: true, user: u } if u == user)).count()
}

fn sleeps(facs: &str) -> Vec<Rec> {
    let mount = Mount::new();
    let mut tracee = Tracee::start("switches", &[&SLEEPS.to_string()]);
    mount.set(tracee.pid(), &format!("set {facs}"));
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    trace.rest()
}

#[test]
fn r08_each_sleep_is_a_switch_out_and_one_in() {
    need!("fuse", "ptrace");
    let recs = sleeps("csw");
    let ins = recs.iter().filter(|rec| matches!(rec.body(), Body::Csw { out: false, .. })).count();
    // Besides, it comes back from its read, may wait for a page, and leaves at its end. Our stops would be hundreds.
    assert!((SLEEPS..SLEEPS + 20).contains(&outs(&recs, false)), "{} out", outs(&recs, false));
    assert!((SLEEPS..SLEEPS + 20 + outs(&recs, true)).contains(&ins), "{ins} in");
}

#[test]
fn hazard_22_the_switches_of_our_own_stops_are_left_out() {
    need!("fuse", "ptrace");
    let recs = sleeps("csw,syscall,sysret");
    assert!(recs.iter().filter(|rec| rec.call() == Some("clock_nanosleep")).count() >= SLEEPS);
    assert!((SLEEPS..SLEEPS + 20).contains(&outs(&recs, false)), "{} out", outs(&recs, false));
    // Each stands between the call and its return, and the times of the thread never go back.
    let mut within = 0;
    let mut in_sleep = false;
    for rec in &recs {
        in_sleep = rec.call() == Some("clock_nanosleep") || (in_sleep && rec.result().is_none());
        within += usize::from(in_sleep && matches!(rec.body(), Body::Csw { out: true, user: false }));
    }
    assert!(within >= SLEEPS, "{within}");
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
