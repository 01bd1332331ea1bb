//! Births, execs and deaths that the kernel's side has missed are found by a look at /proc.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::user::{A, AS_A, copy, set, under};
use crate::support::{need, wait_for};

/// Which programs see nothing (`blind` in src/ebpf/load.rs).
const DEATHS: &str = "blind=1";
const EXECS: &str = "blind=2";
const BIRTHS: &str = "blind=4";
/// The daemon stops in the midst of each adoption.
const BIRTHS_HALTS: &str = "blind=4,halts=1";

/// Whether a process is traced.
fn is_traced(mount: &Mount, pid: i32) -> bool {
    fs::read_to_string(mount.path(format!("{pid}/ctl"))).is_ok_and(|said| said.starts_with("set"))
}

/// The child of this process that runs a program of this name, once there is one.
fn child(pid: i32, program: &str) -> i32 {
    let runs = |one: &i32| {
        fs::read_to_string(format!("/proc/{one}/comm")).is_ok_and(|comm| comm.trim_end() == program)
    };
    let mut child = 0;
    wait_for(program, || {
        child = ktrace::proc::descendants(&[pid]).into_iter().find(runs).unwrap_or(0);
        child != 0
    });
    child
}

#[test]
fn a_child_whose_birth_was_missed_is_traced_and_one_that_was_let_go_is_not() {
    need!("fuse", "ebpf");
    let Some(mount) = Mount::limited(BIRTHS, &[]) else { return };
    // Whether a child was born before the set is known to a hundredth of a second.
    let script = "read x; sleep 0.1; (read z <&3; :) & read y; (read z <&3; :) & read z; kill $(jobs -p)";
    let fifo = mount.scratch().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("exec 3<>{}; {script}", fifo.display());
    let mut tracee = Tracee::command(Command::new("bash").args(["-c", &script]));
    let pid = tracee.pid();
    mount.set(pid, "set syscall,emul +inherit");
    let mut trace = mount.trace(pid);
    let is_traced = |pid: i32| is_traced(&mount, pid);
    // The one that is traced and not `but`, when there is one that stays.
    let found = |but: i32| {
        let mut found = 0;
        wait_for("a child to be traced", || {
            let stays =
                |one: &&i32| fs::read(format!("/proc/{one}/comm")).is_ok_and(|comm| comm == b"bash\n");
            let children = ktrace::proc::descendants(&[pid]);
            found = children
                .iter()
                .filter(stays)
                .find(|one| **one != but && is_traced(**one))
                .map_or(0, |one| *one);
            found != 0
        });
        found
    };
    tracee.go();
    let first = found(0);
    mount.set(first, "clear");
    tracee.say("\n");
    let second = found(first);
    assert!(!is_traced(first), "who was let go stays so");
    tracee.say("\n");
    let recs = trace.rest();
    assert!(recs.iter().map(Rec::pid).any(|one| one == second));
}

#[test]
fn a_trace_ends_with_its_process_although_the_death_was_missed() {
    need!("fuse", "ebpf");
    let Some(mount) = Mount::limited(DEATHS, &[]) else { return };
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", "read x"]));
    mount.set(tracee.pid(), "set syscall");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    assert!(trace.rest().iter().any(|rec| rec.call() == Some("exit_group")));
}

#[test]
fn a_set_id_program_ends_the_trace_although_its_exec_was_missed() {
    need!("fuse", "ebpf", "setpriv");
    let Some(mount) = Mount::limited(EXECS, &[]) else { return };
    let sleeper = copy(mount.scratch(), "/usr/bin/sleep", "sleeper", 0o4755);
    let mut shell = under(AS_A);
    let mut tracee = Tracee::command(shell.args(["sh", "-c", "read x; exec \"$0\" 1000"]).arg(&sleeper));
    let pid = tracee.pid();
    set(&mount, AS_A, pid, "set syscall policy=drop");
    let other = Tracee::command(under(AS_A).args(["sh", "-c", "read x; exec sleep 1000"]));
    set(&mount, AS_A, other.pid(), "set syscall policy=drop");
    tracee.go();
    wait_for("its trace to end", || mount.read(format!("{pid}/ctl")) == "clear\n");
    assert!(
        mount.read(format!("{}/ctl", other.pid())).starts_with("set"),
        "who has done nothing is traced on"
    );
}

#[test]
fn a_missed_child_that_runs_a_set_id_program_by_now_is_not_traced() {
    need!("fuse", "ebpf", "setpriv");
    let Some(mount) = Mount::limited(BIRTHS, &[]) else { return };
    let daemon = Pid::from_raw(mount.daemon());
    let sleeper = copy(mount.scratch(), "/usr/bin/sleep", "sleeper", 0o4755);
    // Whether a child was born before the set is known to a hundredth of a second.
    let script = "read x; sleep 0.1; \"$0\" 1000 & read y; sleep 1000 & read z; exit 0";
    let mut tracee = Tracee::command(under(AS_A).args(["bash", "-c", script]).arg(&sleeper));
    let pid = tracee.pid();
    set(&mount, AS_A, pid, "set syscall,emul +inherit");
    let mut trace = mount.trace(pid);
    // It looks only when the program is there.
    kill(daemon, Signal::SIGSTOP).unwrap();
    tracee.go();
    let privileged = child(pid, "sleeper");
    kill(daemon, Signal::SIGCONT).unwrap();
    tracee.say("\n");
    let other = child(pid, "sleep");
    wait_for("the other child to be traced", || is_traced(&mount, other));
    for one in [privileged, other] {
        kill(Pid::from_raw(one), Signal::SIGKILL).unwrap();
    }
    tracee.say("\n");
    let pids: Vec<i32> = trace.rest().iter().map(Rec::pid).collect();
    assert!(pids.contains(&other) && !pids.contains(&privileged), "{privileged} of {pids:?}");
}

#[test]
fn a_missed_child_that_executes_a_set_id_program_while_it_is_adopted_is_not_traced() {
    need!("fuse", "ebpf", "setpriv");
    let Some(mount) = Mount::limited(BIRTHS_HALTS, &[]) else { return };
    let sleeper = copy(mount.scratch(), "/usr/bin/sleep", "sleeper", 0o4755);
    let fifo = mount.scratch().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    chown(&fifo, Some(A), Some(A)).unwrap();
    let script = "exec 3<>$1; read x; sleep 0.1; (read y <&3; exec \"$0\" 1000) & read z; exit 0";
    let mut tracee = Tracee::command(under(AS_A).args(["bash", "-c", script]).args([&sleeper, &fifo]));
    let pid = tracee.pid();
    set(&mount, AS_A, pid, "set syscall +inherit");
    let mut trace = mount.trace(pid);
    tracee.go();
    // It has looked at the child, and found that it may trace it.
    super::wait_until_it_stands(mount.daemon());
    fs::write(&fifo, "\n").unwrap();
    let privileged = child(pid, "sleeper");
    kill(Pid::from_raw(mount.daemon()), Signal::SIGCONT).unwrap();
    // An answer that waits for the adoption.
    mount.read("stat");
    assert!(!is_traced(&mount, privileged));
    kill(Pid::from_raw(privileged), Signal::SIGKILL).unwrap();
    tracee.say("\n");
    let pids: Vec<i32> = trace.rest().iter().map(Rec::pid).collect();
    assert!(pids.contains(&pid) && !pids.contains(&privileged), "{privileged} of {pids:?}");
}

#[test]
fn a_newborn_with_the_number_of_one_whose_death_was_missed_ends_that_ones_trace() {
    need!("fuse", "ebpf");
    let Some(mount) = Mount::limited(DEATHS, &[]) else { return };
    let daemon = Pid::from_raw(mount.daemon());
    let mut tracee = Tracee::start("again", &[]);
    mount.set(tracee.pid(), "set emul +inherit policy=drop");
    let mut trace = mount.trace(tracee.pid());
    let mut lines = BufReader::new(tracee.running.0.stdout.take().unwrap()).lines();
    tracee.go();
    let child: i32 = lines.next().unwrap().unwrap().parse().unwrap();
    wait_for("the child to be known", || is_traced(&mount, child));
    // The one dies and the other is born and dies before anybody can look: the newborn's word is all that is left.
    kill(daemon, Signal::SIGSTOP).unwrap();
    super::wait_until_it_stands(mount.daemon());
    tracee.say("\n");
    assert_eq!(lines.next().unwrap().unwrap(), "again");
    kill(daemon, Signal::SIGCONT).unwrap();
    wait_for("the first child's end", || mount.read("stat").starts_with("traced 1\n"));
    drop(tracee.running.0.stdin.take());
    // Nor does the other keep the trace file, of whom nothing is known but the number.
    let born = trace.rest().iter().filter(|rec| rec.pid() == child && !rec.is_of_stream()).count();
    assert_eq!(born, 2);
}
