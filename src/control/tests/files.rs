//! Which sink a set goes into, and what becomes of sinks.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

use std::os::unix::process::CommandExt;

use super::*;

#[test]
fn r13_a_group_gets_one_new_file_and_is_released_from_the_old_ones() {
    let mut w = World::new();
    let a = w.spawn(Command::new("sleep").arg("1000").process_group(0));
    let b = w.spawn(Command::new("sleep").arg("1000").process_group(a.pid));
    let c = w.sleep();
    w.tell(Some(a), "set syscall").unwrap();
    w.tell(Some(c), "set syscall").unwrap();
    let old = Arc::clone(w.trace(a).unwrap().sink());
    w.tell(None, &format!("set namei pid=-{}", a.pid)).unwrap();
    assert!([a, b].iter().all(|&id| w.facs(id).contains(Facs::NAMEI)));
    assert_eq!(w.sink(a), w.sink(b));
    assert_eq!(old.end(), Some(End::Finished));
    assert_eq!(w.facs(c), Facs::SYSCALL, "not of the group");
    // pgrp= says the same; each time it is a new file.
    let first = w.sink(a);
    w.tell(None, &format!("set psig pgrp={}", a.pid)).unwrap();
    assert!(w.sink(a) == w.sink(b) && w.sink(a) != first);
    w.tell(None, &format!("clear pgrp={}", a.pid)).unwrap();
    assert!(w.trace(a).is_none() && w.trace(b).is_none() && w.trace(c).is_some());
}

#[test]
fn pid_in_the_roots_ctl_uses_the_present_file() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(None, &format!("set syscall pid={}", a.pid)).unwrap();
    let first = w.sink(a);
    w.tell(None, &format!("set namei pid={}", a.pid)).unwrap();
    assert_eq!((w.facs(a), w.sink(a)), (Facs::SYSCALL | Facs::NAMEI, first));
}

#[test]
fn descend_moves_a_descendant_into_the_file() {
    let mut w = World::new();
    let a = w.spawn(Command::new("sh").args(["-c", "sleep 1000 & wait"]));
    w.wait("a child", || !proc::descendants(&[a.pid]).is_empty());
    let child = ProcId::of(proc::descendants(&[a.pid])[0]).unwrap();
    w.tell(Some(child), "set syscall").unwrap();
    w.tell(Some(a), "set namei +descend").unwrap();
    assert_eq!((w.facs(child), w.sink(child)), (Facs::NAMEI, w.sink(a)));
}

#[test]
fn size_comes_with_the_first_set_and_policy_at_any_time() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set syscall size=64K").unwrap();
    assert_eq!(w.errno(Some(a), "set namei size=128K"), libc::EBUSY);
    assert_eq!(w.facs(a), Facs::SYSCALL, "a refused set changes nothing");
    w.tell(Some(a), "set namei size=64K policy=overwrite").unwrap();
    let sink = Arc::clone(w.trace(a).unwrap().sink());
    assert_eq!((sink.size(), sink.policy()), (64 << 10, Policy::Overwrite));
    w.fake.refused.lock().push(a.pid);
    assert_eq!(w.errno(Some(a), "set psig policy=drop"), libc::EBUSY);
    assert_eq!(sink.policy(), Policy::Overwrite);
    assert_eq!(w.errno(Some(a), "set syscall size=2048M"), libc::EINVAL);
}

#[test]
fn r21_two_descriptors_of_one_object_are_one_file() {
    let mut w = World::new();
    let (a, b, c) = (w.sleep(), w.sleep(), w.sleep());
    let path = std::env::temp_dir().join(format!("ktrace-r21-{}", std::process::id()));
    let open = || OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let (first, second) = (open(), open());
    let (_reader, pipe) = std::io::pipe().unwrap();
    std::fs::remove_file(&path).unwrap();
    let line = |facs: &str, fd: &dyn AsRawFd| format!("set {facs} fd={}", fd.as_raw_fd());
    w.tell(Some(a), &line("syscall", &first)).unwrap();
    w.tell(Some(b), &line("namei", &second)).unwrap();
    w.tell(Some(c), &line("psig", &pipe)).unwrap();
    assert_eq!(w.sink(a), w.sink(b), "opened twice, and still one file");
    assert_ne!(w.sink(a), w.sink(c));
    w.tell(Some(a), &line("emul", &pipe)).unwrap();
    assert_eq!(w.sink(a), w.sink(c));
    // CLEARFILE by the file itself looks at no process.
    w.tell(None, &format!("clearfile fd={}", first.as_raw_fd())).unwrap();
    assert!(w.trace(b).is_none() && w.trace(a).is_some());
    w.tell(None, &format!("clearfile fd={}", first.as_raw_fd())).unwrap();
}

#[test]
fn errors_of_the_file_come_before_those_of_the_process() {
    let mut w = World::new();
    let a = w.sleep();
    assert_eq!(w.errno(None, "set syscall pid=0 fd=1000000"), libc::EBADF);
    assert_eq!(w.errno(Some(a), "set syscall fd=1000000"), libc::EBADF);
    assert!(w.trace(a).is_none());
    let file = OpenOptions::new().write(true).open("/dev/null").unwrap();
    assert_eq!(w.errno(None, &format!("set syscall pid=0 fd={}", file.as_raw_fd())), libc::ESRCH);
}

#[test]
fn no_room_for_a_file_is_enospc_and_leaves_nothing() {
    let mut w = World::with(|o| o.mem = 1 << 10);
    let a = w.sleep();
    assert_eq!(w.errno(Some(a), "set syscall"), libc::ENOSPC);
    assert!(w.trace(a).is_none() && w.fake.told.lock().is_empty());
    assert_eq!(w.ktrace.totals(), Totals::default());
}

#[test]
fn f9_a_set_that_fails_ends_no_wait_and_takes_no_records_away() {
    let mut w = World::new();
    let a = w.sleep();
    let mut file = w.ktrace.open(&w.me, a).unwrap();
    w.fake.refused.lock().push(a.pid);
    assert_eq!(w.errno(Some(a), "set user"), libc::EBUSY);
    assert_eq!(file.read(9, 1, &mut Vec::new()), Ok(Read::Empty));
    assert!(file.waits_for().is_some());
    w.fake.refused.lock().clear();
    w.tell(Some(a), "set user").unwrap();
    assert!(!file.ready().1 && file.waits_for().is_none(), "bound to the first sink it got");
    w.ktrace.user(&w.me, a, b"id data").unwrap();
    w.tell(Some(a), "clear").unwrap();
    w.fake.refused.lock().push(a.pid);
    assert_eq!(w.errno(Some(a), "set user"), libc::EBUSY);
    assert_eq!(w.read(a), Ok(Read::Data), "the ended file can still be read");
}

#[test]
fn an_ended_file_is_read_until_the_next_set() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set user").unwrap();
    w.ktrace.user(&w.me, a, b"id data").unwrap();
    w.tell(Some(a), "clear").unwrap();
    w.ktrace.sweep();
    assert_eq!(w.read(a), Ok(Read::Data));
    w.tell(Some(a), "set user").unwrap();
    assert_eq!(w.read(a), Ok(Read::Empty), "a new file, empty");
}

#[test]
fn a_dead_process_stays_while_its_records_are_unread() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set user").unwrap();
    w.ktrace.user(&w.me, a, b"id data").unwrap();
    w.children[0].kill().unwrap();
    w.children[0].wait().unwrap();
    w.ktrace.procs().exit(&w.ktrace.procs().get(a).unwrap());
    assert_eq!(w.ktrace.lingers(a.pid), Some(a));
    assert_eq!(w.ktrace.owner(a), (w.me.uid, 0));
    assert_eq!((w.ktrace.state(a).unwrap().as_str(), w.stat(a, "records").as_str()), ("clear\n", "1"));
    let unseen = Caller::new(w.me.uid, w.me.gid, 0);
    assert_eq!(w.ktrace.open(&unseen, a).unwrap_err().errno(), libc::EPERM);
    let stranger = Caller::new(w.me.uid + 1, w.me.gid, w.me.tid);
    assert_eq!(w.ktrace.open(&stranger, a).unwrap_err().errno(), libc::EACCES);
    let mut file = w.ktrace.open(&w.me, a).unwrap();
    while file.read(1 << 10, 1, &mut Vec::new()) != Ok(Read::Eof) {}
    drop(file);
    w.ktrace.sweep();
    assert_eq!(w.ktrace.lingers(a.pid), None);
    assert_eq!(w.ktrace.proc_stat(a).unwrap_err().errno(), libc::ESRCH);
    assert_eq!(w.errno(Some(a), "set user"), libc::ESRCH);
    let totals = w.ktrace.totals();
    assert_eq!((totals.sinks, totals.records, totals.memory), (0, 1, 0), "what was counted stays counted");
}

#[test]
fn another_backend_takes_over_and_gives_back_where_it_cannot() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set syscall").unwrap();
    let sink = w.sink(a);
    w.other.refused.lock().push(a.pid);
    assert_eq!(w.errno(Some(a), "set namei backend=other"), libc::EBUSY);
    assert_eq!((w.trace(a).unwrap().backend, w.facs(a)), ("fake", Facs::SYSCALL));
    assert_eq!(w.fake.told.lock().last(), Some(&(a.pid, Some(Facs::SYSCALL))), "it watches again");
    w.other.refused.lock().clear();
    w.tell(Some(a), "set namei backend=other").unwrap();
    assert_eq!((w.trace(a).unwrap().backend, w.sink(a)), ("other", sink));
    assert_eq!(w.fake.told.lock().last(), Some(&(a.pid, None)));
    w.tell(Some(a), "set psig").unwrap();
    assert_eq!(w.trace(a).unwrap().backend, "other", "no name keeps the one that watches");
    assert!(w.ktrace.state(a).unwrap().contains("backend=other"));
    w.tell(Some(a), "clear").unwrap();
    assert_eq!(w.other.told.lock().last(), Some(&(a.pid, None)));
    let chosen = World::with(|o| o.backend = Some("other".into()));
    assert_eq!(chosen.ktrace.backends(), ["other", "fake"]);
}

#[test]
fn who_is_ending_is_as_good_as_dead_and_its_trace_stays_its_owners() {
    let tools = ["unshare", "setpriv", "strace"];
    let has =
        |tool: &&str| std::env::split_paths("/usr/sbin:/usr/bin:/bin").any(|dir| dir.join(tool).is_file());
    if !nix::unistd::geteuid().is_root() || !tools.iter().all(has) {
        assert!(std::env::var_os("KTRACE_TEST_REQUIRE").is_none(), "root and {tools:?} are required");
        eprintln!("SKIP: needs root, {tools:?}");
        return;
    }
    let mut w = World::new();
    let spawn = |command: &str| {
        let mut words = command.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // The first process of a pid namespace ends only after all the others, and one of them is held by a tracer that sleeps:
    // its memory is gone by then.
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let unshare =
        spawn(&format!("unshare -p -f {user} sh -c sleep${{IFS}}1000&exec${{IFS}}sleep${{IFS}}1000"));
    let pid = unshare.id() as i32;
    w.children.push(unshare);
    let below = |pid: i32| proc::descendants(&[pid]);
    w.wait("two processes", || {
        let found = below(pid);
        found.len() == 2 && found.iter().all(|&p| Stat::of(p).is_ok_and(|s| s.comm.as_bytes() == b"sleep"))
    });
    let [first, held] = below(pid)[..] else { panic!("they are gone") };
    let tracer = spawn(&format!("strace -o /dev/null -p {held}"));
    let strace = Pid::from_raw(tracer.id() as i32);
    w.children.push(tracer);
    w.wait("its tracer", || proc::tracer_of(held) == strace.as_raw());
    kill(strace, Signal::SIGSTOP).unwrap();
    let asks = spawn(&format!("{user} sleep 1000"));
    let caller = Caller::new(65534, 65534, asks.id() as i32);
    w.children.push(asks);
    w.wait("who asks", || Stat::of(caller.tid).is_ok_and(|s| s.comm.as_bytes() == b"sleep"));

    let id = ProcId::of(first).unwrap();
    w.ktrace.control(&caller, Some(id), &ctl::parse("set syscall").unwrap()).unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let environ = format!("/proc/{first}/environ");
    w.wait("its memory to go", || proc::is_ending(first) && std::fs::read(&environ).is_err());
    assert!(id.check().is_ok(), "it is no zombie yet");
    w.ktrace.open(&caller, id).unwrap();
    let other = Caller::new(65533, 65533, caller.tid);
    assert_eq!(w.ktrace.open(&other, id).unwrap_err().errno(), libc::EACCES);
    let set = w.ktrace.control(&caller, Some(id), &ctl::parse("set syscall").unwrap());
    assert_eq!(set.unwrap_err().errno(), libc::ESRCH);
}
