//! One user leaves room for others.

use std::process::Command;

use ktrace::syscall::{self, Abi};

use super::loss::field;
use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::user::{AS_A, AS_B, set, sets, sleeper, tries};
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
    let theirs = sleeper(AS_A);
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

#[test]
fn who_has_many_trace_files_leaves_room_for_those_of_others() {
    need!("fuse", "ebpf", "setpriv");
    let Some(mount) = Mount::limited("files=4", &[]) else { return };
    let own: Vec<Running> = (0..3).map(|_| sleeper(AS_A)).collect();
    let (other, roots) = (sleeper(AS_B), [sleeper("env"), sleeper("env")]);
    for one in &own[..2] {
        assert_eq!(sets(&mount, AS_A, one.pid()), Ok(()));
    }
    let why = sets(&mount, AS_A, own[2].pid()).unwrap_err();
    assert!(
        why.contains("ENOSPC: uid 61001 has 2 of 4 trace files, and may not have more than are free"),
        "{why}"
    );
    assert_eq!(sets(&mount, AS_B, other.pid()), Ok(()));
    mount.set(roots[0].pid(), "set namei");
    let (errno, why) = mount.refused(roots[1].pid(), "set namei");
    assert_eq!(errno, libc::ENOSPC);
    assert!(why.contains("there are 4 trace files already"), "{why}");
    mount.set(own[0].pid(), "clear");
    wait_for("a slot", || mount.ctl(roots[1].pid(), "set namei").is_ok());
}

#[test]
fn who_has_many_choices_of_calls_leaves_room_for_those_of_others() {
    need!("fuse", "ebpf", "setpriv");
    let Some(mount) = Mount::limited("filters=5", &[]) else { return };
    let own: Vec<Running> = (0..3).map(|_| sleeper(AS_A)).collect();
    let other = sleeper(AS_B);
    let set = |caller: &str, one: &Running, calls: &str| {
        tries(&mount, caller, &format!("set syscall policy=drop calls={calls} pid={}", one.pid()))
    };
    assert_eq!(set(AS_A, &own[0], "read"), Ok(()));
    assert_eq!(set(AS_A, &own[1], "write"), Ok(()));
    let why = set(AS_A, &own[2], "open").unwrap_err();
    assert!(why.contains("ENOSPC: too many different calls= at once for uid 61001"), "{why}");
    // What is there already needs no room, and what is left is for others.
    assert_eq!(set(AS_A, &own[2], "read"), Ok(()));
    assert_eq!(set(AS_B, &other, "open"), Ok(()));
    let roots = sleeper("env");
    mount.set(roots.pid(), "set syscall policy=drop calls=close");
    mount.set(roots.pid(), "clear");
    // Whoever uses what another has made has it in its own share once that one has gone on to others.
    assert_eq!(set(AS_B, &other, "write"), Ok(()));
    assert_eq!(set(AS_A, &own[1], "read"), Ok(()));
    assert_eq!(set(AS_A, &own[1], "dup"), Ok(()), "it has one alone");
    assert!(set(AS_A, &own[2], "dup2").is_err());
}
