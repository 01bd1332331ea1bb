//! A call or an exec of which many records are made: what is not shown is counted, whether the ring has no room, or the kernel's
//! side no turn or no memory of its own.

use std::process::Command;

use ktrace::record::Body;
use nix::sys::signal::{Signal, kill};

use super::{lost, mount};
use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::{need, wait_for};

/// Bytes of a large write, and the records they make: a page each, less what says to which descriptor.
const BYTES: usize = 4 << 20;
const CHUNKS: usize = BYTES.div_ceil(4088);
const STRINGS: usize = 20_000;

/// The records of a shell that becomes this program; the daemon stands still meanwhile, where it is to.
fn traced(mount: &Mount, program: &str, line: &str, stands: bool) -> Vec<Rec> {
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    let mut tracee = Tracee::command(Command::new("bash").args(["-c", &format!("read x; exec {program}")]));
    mount.set(tracee.pid(), line);
    let mut trace = mount.trace(tracee.pid());
    if stands {
        kill(daemon, Signal::SIGSTOP).unwrap();
    }
    tracee.go();
    assert!(tracee.running.wait().success());
    kill(daemon, Signal::SIGCONT).unwrap();
    trace.rest()
}

fn write() -> String {
    format!("dd if=/dev/zero of=/dev/null bs={BYTES} count=1 status=none")
}

fn genios(recs: &[Rec]) -> usize {
    recs.iter().filter(|rec| matches!(rec.body(), Body::Genio { .. })).count()
}

fn strings(recs: &[Rec]) -> usize {
    recs.iter().filter(|rec| matches!(rec.body(), Body::ExecArg(_))).count()
}

fn told(recs: &[Rec]) -> usize {
    recs.iter().filter_map(lost).sum::<u64>() as usize
}

#[test]
fn of_a_large_write_each_page_is_shown_or_counted() {
    need!("fuse", "ebpf", "dd");
    let recs = traced(&mount(), &write(), "set genio calls=write policy=drop size=256K backend=ebpf", true);
    assert_eq!(genios(&recs) + told(&recs), CHUNKS, "{} shown", genios(&recs));
    assert!(told(&recs) > 0 && genios(&recs) > 0, "{} shown", genios(&recs));
}

#[test]
fn of_the_arguments_of_an_exec_each_is_shown_or_counted() {
    need!("fuse", "ebpf");
    let program = format!("/bin/true $(seq {STRINGS})");
    let recs = traced(&mount(), &program, "set execarg policy=drop size=256K backend=ebpf", true);
    assert_eq!(strings(&recs) + told(&recs), 1 + STRINGS, "{} shown", strings(&recs));
    assert!(told(&recs) > 0 && strings(&recs) > 0, "{} shown", strings(&recs));
}

#[test]
fn where_the_kernel_has_no_loops_what_is_cut_is_counted() {
    need!("fuse", "ebpf", "dd");
    let Some(mount) = Mount::limited("loops=0", &[]) else { return };
    let recs = traced(&mount, &write(), "set genio calls=write policy=drop size=16M", false);
    assert_eq!((genios(&recs), told(&recs)), (64, CHUNKS - 64));
    let recs = traced(&mount, "/bin/true $(seq 1000)", "set execarg policy=drop size=16M", false);
    // How many strings are left is not known.
    assert_eq!((strings(&recs), told(&recs)), (256, 1));
    let recs = traced(&mount, "/bin/true x", "set execarg policy=drop size=16M", false);
    assert_eq!((strings(&recs), told(&recs)), (2, 0));
}

#[test]
fn where_too_many_calls_are_to_be_remembered_what_is_not_shown_is_counted() {
    need!("fuse", "ebpf");
    let Some(mount) = Mount::limited("threads=1", &[]) else { return };
    // Its path is on a page that does not come, so it is remembered until the call ends.
    let mut stuck = Tracee::start("stuck", &[]);
    mount.set(stuck.pid(), "set namei policy=drop");
    stuck.go();
    wait_for("it to be stuck", || {
        std::fs::read_to_string(format!("/proc/{}/syscall", stuck.pid()))
            .is_ok_and(|call| call.starts_with("21 "))
    });
    let script = "sh -c 'trap : USR1; kill -USR1 $$; kill -USR1 $$; exit 0'";
    let recs = traced(&mount, script, "set syscall,sysret calls=rt_sigreturn policy=drop", false);
    let returns = recs.iter().filter(|rec| rec.result().is_some()).count() as u64;
    assert_eq!(recs.iter().filter(|rec| rec.call() == Some("rt_sigreturn")).count(), 2);
    assert_eq!((returns, told(&recs)), (0, 2));
}
