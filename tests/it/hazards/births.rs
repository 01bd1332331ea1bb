//! Hazard 8, of new processes whose maker's event comes late or never.

use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;

use ktrace::proc::{ProcId, descendants};
use ktrace::record::Body;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::user::{A, AS_A, set};
use crate::support::{DEADLINE, WHOLE, need, only_on, wait_for};

/// The numbers printed before this word.
fn numbers(lines: &Receiver<String>, word: &str) -> BTreeSet<i32> {
    let next = || lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{word} was not said"));
    std::iter::repeat_with(next).take_while(|line| line != word).map(|line| line.parse().unwrap()).collect()
}

/// The processes that are seen to ask for their parent.
fn seen(recs: &[Rec]) -> BTreeSet<i32> {
    recs.iter().filter(|rec| rec.call() == Some("getppid")).map(Rec::pid).collect()
}

#[test]
fn hazard_08_a_child_whose_maker_dies_of_an_exec_is_traced_and_lives() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("reborn", &["200"]);
    let pid = tracee.pid();
    mount.set(pid, &format!("set syscall +inherit {WHOLE}\n"));
    let mut stream = mount.trace(pid);
    let reader = std::thread::spawn(move || stream.rest());
    let lines = tracee.running.lines();
    tracee.go();
    let mut children = numbers(&lines, "done");
    wait_for("the children to end", || descendants(&[pid]).is_empty());
    drop(tracee.running.0.stdin.take());
    assert!(tracee.running.wait().success());
    // The last of them may have been held up beyond that word.
    children.extend(lines.iter().map(|line| line.parse::<i32>().unwrap()));
    let unseen: Vec<i32> = children.difference(&seen(&reader.join().unwrap())).copied().collect();
    assert!(!children.is_empty() && unseen.is_empty(), "{unseen:?} of {} children", children.len());
}

#[test]
fn hazard_08_a_child_killed_at_birth_leaves_nothing_that_looks_traced() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("stillborn", &["1000"]);
    mount.set(tracee.pid(), "set syscall +inherit\n");
    let lines = tracee.running.lines();
    tracee.go();
    numbers(&lines, "born");
    wait_for("one traced process only", || mount.read("stat").starts_with("traced 1\n"));
}

#[test]
fn hazard_08_who_gets_the_number_of_a_child_killed_at_birth_is_not_let_go_for_it() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("stillborn", &["1000"]);
    let pid = tracee.pid();
    // Not those of its busy thread, for which no ring has room.
    mount.set(pid, &format!("set syscall calls=getppid {WHOLE}\n"));
    let mut stream = mount.trace(pid);
    let reader = std::thread::spawn(move || stream.rest());
    let lines = tracee.running.lines();
    tracee.go();
    numbers(&lines, "born");
    mount.set(pid, "set +inherit\n");
    tracee.go();
    let children = numbers(&lines, "done");
    drop(tracee.running.0.stdin.take());
    assert!(tracee.running.wait().success());
    let unseen: Vec<i32> = children.difference(&seen(&reader.join().unwrap())).copied().collect();
    assert!(!children.is_empty() && unseen.is_empty(), "{unseen:?} of {} children", children.len());
}

/// Has the maker of a child be killed before the tracer hears of the birth (`bereft.c`): who the child is.
fn bereave(tracee: &mut Tracee) -> i32 {
    let lines = tracee.running.lines();
    tracee.go();
    let maker: i32 = lines.recv_timeout(DEADLINE).unwrap().parse().unwrap();
    let mut child = 0;
    wait_for("the child", || {
        child = descendants(&[maker]).first().copied().unwrap_or(0);
        child != 0
    });
    kill(Pid::from_raw(maker), Signal::SIGKILL).unwrap();
    child
}

/// Whether the stream says that it is not known whose child this is.
fn tells(rec: &Rec, child: i32) -> bool {
    let said = format!("child {child} is not traced: ESRCH");
    matches!(rec.body(), Body::User { data, .. } if rec.is_of_stream() && data == said.as_bytes())
}

#[test]
fn hazard_08_the_stream_tells_of_a_child_that_init_has_adopted_and_the_child_goes_on() {
    only_on!("ptrace", "the kernel tells of a birth before anybody can be killed for it");
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("bereft", &["0", "leaves", "shows"]);
    mount.set(tracee.pid(), &format!("set syscall +inherit +descend {WHOLE}"));
    let mut stream = mount.trace(tracee.pid());
    let child = bereave(&mut tracee);
    let mut recs = stream.until("the word about it", |rec| tells(rec, child));
    wait_for("its end", || ProcId::of(child).and_then(ProcId::check).is_err());
    drop(tracee.running.0.stdin.take());
    assert!(tracee.running.wait().success());
    recs.extend(stream.rest());
    assert!(recs.iter().all(|rec| rec.pid() != child), "{recs:#?}");
    assert_eq!(recs.iter().filter(|rec| tells(rec, child)).count(), 1);
}

#[test]
fn hazard_08_who_adopts_a_child_has_it_traced_only_where_its_user_may_see_it() {
    only_on!("ptrace", "the kernel tells of a birth before anybody can be killed for it");
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    for shows in ["shows", "hides"] {
        let mut tracee = Tracee::start("bereft", &[&A.to_string(), "adopts", shows]);
        set(&mount, AS_A, tracee.pid(), &format!("set syscall +inherit +descend {WHOLE}"));
        let mut stream = mount.trace(tracee.pid());
        let reader = std::thread::spawn(move || stream.rest());
        let child = bereave(&mut tracee);
        wait_for("its end", || ProcId::of(child).and_then(ProcId::check).is_err());
        drop(tracee.running.0.stdin.take());
        assert!(tracee.running.wait().success());
        let recs = reader.join().unwrap();
        let told = recs.iter().any(|rec| tells(rec, child));
        assert_eq!((seen(&recs).contains(&child), told), (shows == "shows", shows == "hides"), "{recs:#?}");
        assert_eq!(recs.iter().any(|rec| rec.pid() == child), shows == "shows", "{recs:#?}");
    }
}
