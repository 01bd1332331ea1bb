//! Records that programs make of themselves: the file `user`, the library's call, and the header for C.

use std::process::Command;

use ktrace::record::{Body, until_nul};

use crate::support::mount::Mount;
use crate::support::need;
use crate::support::stream::Rec;
use crate::support::tracee::{self, Tracee};

/// Thread, label and data of each USER record of the process itself.
fn users(recs: &[Rec]) -> Vec<(i32, String, Vec<u8>)> {
    let user = |rec: &Rec| match rec.body() {
        Body::User { id, data } if !rec.is_of_stream() => {
            Some((rec.tid(), String::from_utf8_lossy(until_nul(id)).into_owned(), data.to_vec()))
        }
        _ => None,
    };
    recs.iter().filter_map(user).collect()
}

#[test]
fn the_header_for_c_makes_records_of_thread_and_child() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee =
        Tracee::command(Command::new(tracee::program("utrace")).env("KTRACE_MOUNT", mount.point()));
    mount.set(tracee.pid(), "set user +inherit");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs = trace.rest();
    assert!(tracee.running.wait().success());
    let seen = users(&recs);
    let labels: Vec<&str> = seen.iter().map(|(_, label, _)| label.as_str()).collect();
    assert_eq!(labels, ["first", "thread", "nineteen-bytes-long", "child"]);
    assert_eq!(seen[0].0, tracee.pid());
    assert_ne!(seen[1].0, tracee.pid(), "the thread's own id");
    assert_eq!(
        (seen[0].2.as_slice(), seen[1].2.as_slice()),
        (b"data".as_slice(), b"with a newline\n".as_slice())
    );
    assert_eq!(seen[2].2.len(), 2048);
    let child = recs.iter().find(|rec| rec.tid() == seen[3].0).unwrap();
    assert_ne!(child.pid(), tracee.pid());
}

#[test]
fn what_a_child_does_first_may_be_a_record() {
    const CHILDREN: usize = 200;
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut program = Command::new(tracee::program("utrace"));
    let mut tracee = Tracee::command(program.arg(CHILDREN.to_string()).env("KTRACE_MOUNT", mount.point()));
    mount.set(tracee.pid(), "set user +inherit");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs = trace.rest();
    assert!(tracee.running.wait().success());
    assert_eq!(users(&recs).len(), CHILDREN);
}

#[test]
fn it_succeeds_where_nothing_is_traced_and_where_nothing_is_mounted() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for (point, facs) in [(mount.point(), Some("syscall")), (mount.point(), None), ("/no/such".into(), None)]
    {
        let mut tracee = Tracee::command(Command::new(tracee::program("utrace")).env("KTRACE_MOUNT", point));
        if let Some(facs) = facs {
            mount.set(tracee.pid(), &format!("set {facs}"));
        }
        tracee.go();
        assert!(tracee.running.wait().success(), "{facs:?}");
    }
}

/// The body of the test below, in a process of its own, as its environment is another.
#[test]
#[ignore = "run by another test"]
fn calls_of_the_library() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    ktrace::utrace(b"rust", b"some data").unwrap();
    let other = std::thread::spawn(|| ktrace::utrace(b"other", b"\n").unwrap());
    other.join().unwrap();
    ktrace::utrace(&[b'x'; 20], b"no id").unwrap();
    assert_eq!(ktrace::utrace(b"much", &[0; 2049]).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(ktrace::utrace(b"a b", b"").unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn the_librarys_call_makes_records_of_each_thread() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "--ignored", "--nocapture", "--test-threads=1", "utrace::calls_of_the_library"]);
    program.env("KTRACE_MOUNT", mount.point());
    let mut tracee = Tracee::command(&mut program);
    mount.set(tracee.pid(), "set user");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let seen = users(&trace.rest());
    assert!(tracee.running.wait().success());
    let expected = [("rust", b"some data".as_slice()), ("other", b"\n"), ("", b"no id")];
    let got: Vec<(&str, &[u8])> =
        seen.iter().map(|(_, label, data)| (label.as_str(), data.as_slice())).collect();
    assert_eq!(got, expected);
    assert_ne!(seen[0].0, seen[1].0);
}

#[test]
fn the_shells_way_to_write_a_record() {
    need!("fuse", "ptrace", "bash");
    let mount = Mount::new();
    let script = "read x; printf 'id data' > $M/self/user; echo id data > $M/self/user; printf only >> $M/self/user;
        exec 7> $M/self/user; printf 'a 1' >&7; printf 'b 2' >&7; printf '%2048s' > $M/self/user; printf '' > $M/self/user;
        printf 'id %2049s' > $M/self/user || echo refused";
    let mut tracee = Tracee::command(Command::new("bash").env("M", mount.point()).args(["-c", script]));
    let pid = tracee.pid();
    mount.set(pid, "set user");
    let mut trace = mount.trace(pid);
    tracee.go();
    let seen = users(&trace.rest());
    let out = tracee.running.output();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "refused\n");
    let labels: Vec<(&str, usize)> =
        seen.iter().map(|(_, label, data)| (label.as_str(), data.len())).collect();
    assert_eq!(labels, [("id", 4), ("id", 4), ("only", 0), ("a", 1), ("b", 1), ("", 2047)]);
    assert!(seen.iter().all(|(tid, ..)| *tid == pid));
}

#[test]
fn a_record_of_its_own_stands_where_the_process_has_made_it() {
    need!("fuse", "ptrace", "bash");
    let mount = Mount::new();
    let script = "read x; for i in 1 2 3 4 5 6 7 8 9; do cd /; echo mine $i > $M/self/user; cd /; done";
    let mut tracee = Tracee::command(Command::new("bash").env("M", mount.point()).args(["-c", script]));
    mount.set(tracee.pid(), "set syscall,sysret,user");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs = trace.rest();
    let is_own = |rec: &Rec| matches!(rec.body(), Body::User { .. }) && !rec.is_of_stream();
    let at: Vec<usize> = (0..recs.len()).filter(|&at| is_own(&recs[at])).collect();
    assert_eq!(at.len(), 9);
    for at in at {
        let within = (recs[at - 1].call(), recs[at + 1].result().map(|(call, _)| call));
        assert_eq!(within, (Some("write"), Some("write")), "{:#?}", &recs[at - 1..at + 2]);
    }
    let times: Vec<_> = recs.iter().map(|rec| rec.header.stamp.time).map(|t| (t.sec, t.nsec)).collect();
    assert!(times.is_sorted(), "{times:?}");
}
