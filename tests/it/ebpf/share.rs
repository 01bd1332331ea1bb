//! One user leaves room for others.

use std::process::Command;

use ktrace::syscall::{self, Abi};

use super::loss::field;
use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::user::{AS_A, set, under};
use crate::support::{Running, need, wait_for};

/// How many children the stream says are not traced.
fn untraced(recs: &[Rec]) -> u64 {
    let note = |rec: &Rec| match rec.body() {
        ktrace::record::Body::User { data, .. } if rec.is_of_stream() => {
            let text = std::str::from_utf8(data).ok()?;
            text.strip_suffix(" children are not traced: too many are")?.parse::<u64>().ok()
        }
        _ => None,
    };
    recs.iter().filter_map(note).sum()
}

#[test]
fn who_traces_too_many_leaves_room_for_others_and_is_told_so() {
    need!("fuse", "ebpf", "setpriv");
    const LIMIT: u64 = 16;
    const CHILDREN: u64 = 20;
    let Some(mount) = Mount::limited(&format!("procs={LIMIT}"), &[]) else { return };
    let script = format!(
        "read x; for i in $(seq {CHILDREN}); do sleep 1000 & done; read y; kill $(jobs -p); wait; read z; /bin/true; exit 0"
    );
    let mut tracee = Tracee::command(Command::new("bash").args(["-c", &script]));
    let pid = tracee.pid();
    let traced = || field(&mount.read("stat"), "traced");
    let waits = || std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    mount.set(pid, "set emul +inherit policy=drop");
    let mut trace = mount.trace(pid);
    tracee.go();
    let mut recs = trace.until("the word about it", |rec| untraced(std::slice::from_ref(rec)) > 0);
    wait_for("all children", || ktrace::proc::descendants(&[pid]).len() as u64 == CHILDREN);
    wait_for("it to wait", || waits().starts_with("0 0x0 "));
    // No owner has more than are free.
    wait_for("as many as there may be", || traced() == LIMIT / 2);
    let other = Running::spawn(Command::new("sleep").arg("1000"));
    let (errno, why) = mount.refused(other.pid(), "set emul");
    assert_eq!(errno, libc::ENOSPC);
    assert!(why.contains("too many processes are traced for uid 0"), "{why}");
    let theirs = Running::spawn(under(AS_A).args(["sleep", "1000"]));
    wait_for("their program", || {
        std::fs::read(format!("/proc/{}/comm", theirs.pid())).is_ok_and(|comm| comm == b"sleep\n")
    });
    set(&mount, AS_A, theirs.pid(), "set emul policy=drop");
    assert_eq!(traced(), LIMIT / 2 + 1);
    // Who has gone takes no room.
    tracee.say("\n");
    wait_for("their end", || traced() == 2 && waits().starts_with("0 0x0 "));
    tracee.say("\n");
    recs.extend(trace.rest());
    let mut pids: Vec<i32> = recs.iter().map(Rec::pid).collect();
    pids.sort_unstable();
    pids.dedup();
    // Traced are the one that counts, sleeps, and the last child; too many are the other sleeps and the one that asks for them.
    let children = pids.len() as u64 - 1;
    assert_eq!((children, untraced(&recs)), (LIMIT / 2 - 1 + 2, CHILDREN - (LIMIT / 2 - 1) + 1));
}

#[test]
fn what_calls_are_wanted_may_change_without_end() {
    need!("fuse", "ebpf");
    let mount = Mount::new();
    let idle = Running::spawn(Command::new("sleep").arg("1000"));
    let other = Running::spawn(Command::new("sleep").arg("1000"));
    let names: Vec<&str> = syscall::numbers(Abi::Linux).map(|(_, call)| call.name).take(50).collect();
    let pairs = (0..50).flat_map(|a| (0..a).map(move |b| (a, b)));
    // As many as there is room for at once, and more.
    for (a, b) in pairs.take(1100) {
        mount.set(idle.pid(), &format!("set syscall calls={},{} policy=drop", names[a], names[b]));
    }
    mount.set(other.pid(), "set syscall calls=getppid,wait4 policy=drop");
}
