//! Whether a thread left its cpu by its own will: as the kernel counts it.

use std::ops::Range;

use ktrace::record::Body;

use super::loss::told;
use crate::support::mount::Mount;
use crate::support::need;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;

/// How often the thread `tid` left its cpu in this part of a stream, by its own will and not.
fn outs(recs: &[Rec], tid: i32, part: Range<usize>) -> (u64, u64) {
    let of = |user| {
        let is = |rec: &&Rec| rec.tid() == tid && rec.body() == Body::Csw { out: true, user };
        recs[part.clone()].iter().filter(is).count() as u64
    };
    (of(false), of(true))
}

const ROUNDS: u64 = 1000;

#[test]
fn by_whose_will_a_thread_is_switched_is_told_as_the_kernel_counts_it() {
    need!("fuse", "ebpf");
    // The second takes the thread's own state, as on a kernel that does not give it with the switch. That is seldom wrong.
    for (limits, slack) in [("states=1", 0), ("states=0", ROUNDS / 20)] {
        let Some(mount) = Mount::limited(limits, &[]) else { return };
        for threads in ["2", "9"] {
            let mut tracee = Tracee::start("crew", &[threads, &ROUNDS.to_string()]);
            let pid = tracee.pid();
            mount.set(pid, "set csw,syscall,sysret policy=drop size=16M calls=getrusage");
            let mut trace = mount.trace(pid);
            let lines = tracee.running.lines();
            tracee.go();
            let recs = trace.rest();
            assert_eq!(told(&recs), 0, "lost");
            let counted = lines.iter().next().expect("a line, as it does without tracing");
            let (own, not) = counted.split_once(' ').unwrap();
            let counted: (u64, u64) = (own.parse().unwrap(), not.parse().unwrap());
            // The kernel counts somewhere in these calls.
            let at = |is: &dyn Fn(&Rec) -> bool| -> Vec<usize> {
                (0..recs.len()).filter(|&at| recs[at].tid() == pid && is(&recs[at])).collect()
            };
            let begun = at(&|rec| rec.call() == Some("getrusage"));
            let ended = at(&|rec| rec.result().is_some_and(|(call, _)| call == "getrusage"));
            assert_eq!((begun.len(), ended.len()), (2, 2));
            let least = outs(&recs, pid, ended[0]..begun[1]);
            let most = outs(&recs, pid, begun[0]..ended[1]);
            let is_within =
                |least: u64, counted: u64, most: u64| (least..=most + 2 * slack).contains(&(counted + slack));
            assert!(
                is_within(least.0, counted.0, most.0) && is_within(least.1, counted.1, most.1),
                "{limits}, {threads} threads: {least:?} to {most:?} told, {counted:?} counted"
            );
            assert!(counted.0 > ROUNDS / 10, "{counted:?}: too few to prove anything");
        }
    }
}
