//! To which processes a command goes, and who may give it.

use super::*;

#[test]
fn a_target_belongs_to_the_roots_ctl_and_only_there() {
    let mut w = World::new();
    let a = w.sleep();
    for line in ["set syscall", "clear", "clearfile", "set all"] {
        assert_eq!(w.errno(None, line), libc::EINVAL, "{line}");
    }
    for line in ["set syscall pid=1", "set syscall all", "clear syscall all", "clearfile pgrp=1"] {
        assert_eq!(w.errno(Some(a), line), libc::EINVAL, "{line}");
    }
    w.tell(Some(a), "set all").unwrap();
    w.tell(Some(a), "clear all").unwrap();
    assert!(w.trace(a).is_none(), "the group of facilities, in a process's own ctl");
}

#[test]
fn all_means_every_process_the_caller_may_trace_but_never_the_daemon() {
    let mut w = World::new();
    let (a, b) = (w.sleep(), w.sleep());
    w.tell(None, "set syscall all").unwrap();
    assert_eq!((w.facs(a), w.sink(a)), (Facs::SYSCALL, w.sink(b)));
    let us = ProcId::of(std::process::id() as i32).unwrap();
    assert!(w.trace(us).is_none());
    w.tell(None, "clear all").unwrap();
    assert!(w.trace(a).is_none() && w.trace(b).is_none());
}

#[test]
fn nobody_traces_the_daemon_a_kernel_thread_or_what_is_no_process() {
    let mut w = World::new();
    let us = ProcId::of(std::process::id() as i32).unwrap();
    assert_eq!(w.errno(Some(us), "set syscall"), libc::EPERM);
    assert_eq!(w.ktrace.open(&w.me, us).unwrap_err().errno(), libc::EPERM);
    let kernel = proc::pids().unwrap().into_iter().find(|&p| Stat::of(p).is_ok_and(|s| s.is_kernel_thread()));
    // None in a pid namespace of its own.
    if let Some(pid) = kernel {
        let why = w.tell(None, &format!("set syscall pid={pid}")).unwrap_err();
        assert_eq!(why.errno(), libc::EPERM);
        assert!(why.to_string().contains("kernel thread"), "{why}");
    }
    assert_eq!(w.errno(None, &format!("set syscall pid={}", w.me.tid)), libc::ESRCH, "a thread");
    let a = w.sleep();
    w.children[0].kill().unwrap();
    w.wait("a zombie", || a.check().is_err());
    assert_eq!(w.errno(Some(a), "set syscall"), libc::ESRCH);
}

#[test]
fn init_is_for_root_and_an_unseen_caller_is_refused() {
    let mut w = World::new();
    let a = w.sleep();
    let init = ProcId::of(1).unwrap();
    let user = Caller::new(65534, 65534, w.me.tid);
    let why = w.ktrace.open(&user, init).unwrap_err();
    assert_eq!(why.errno(), libc::EPERM);
    let unseen = Caller::new(w.me.uid, w.me.gid, 0);
    for command in ["set syscall", "clear", "clear +descend"] {
        let why = w.ktrace.control(&unseen, Some(a), &ctl::parse(command).unwrap()).unwrap_err();
        assert_eq!(why.errno(), libc::EPERM, "{command}");
    }
    assert_eq!(w.ktrace.open(&unseen, a).unwrap_err().errno(), libc::EPERM);
    assert_eq!(w.ktrace.user(&unseen, a, b"id").unwrap_err().errno(), libc::EPERM);
}

/// A process of nobody, a caller that is nobody in a process of its own, and true where we could make them.
fn nobody(w: &mut World) -> Option<(ProcId, Caller)> {
    use std::os::unix::process::CommandExt;
    if w.me.uid != 0 {
        assert!(std::env::var_os("KTRACE_TEST_REQUIRE").is_none(), "root is required");
        eprintln!("SKIP: needs root");
        return None;
    }
    let user = |w: &mut World| w.spawn(Command::new("sleep").arg("1000").uid(65534).gid(65534));
    let (target, asks) = (user(w), user(w));
    w.wait("both to run", || {
        [target, asks].iter().all(|id| Stat::of(id.pid).unwrap().comm.as_bytes() == b"sleep")
    });
    Some((target, Caller::new(65534, 65534, asks.pid)))
}

#[test]
fn what_root_has_set_is_out_of_the_users_hands() {
    let mut w = World::new();
    let Some((target, user)) = nobody(&mut w) else { return };
    let tell = |line: &str| w.ktrace.control(&user, Some(target), &ctl::parse(line).unwrap());
    tell("set user").unwrap();
    assert!(!w.trace(target).unwrap().root);
    assert_eq!(w.trace(target).unwrap().sink().owner(), 65534);
    assert_eq!(w.ktrace.owner(target), (65534, 65534));
    w.ktrace.user(&user, target, b"id data").unwrap();
    w.tell(Some(target), "set syscall").unwrap();
    assert!(w.trace(target).unwrap().root);
    assert_eq!(w.ktrace.owner(target), (0, 0));
    for line in ["set namei", "clear", "clear user", "clearfile", "clear +descend"] {
        assert_eq!(tell(line).unwrap_err().errno(), libc::EPERM, "{line}");
    }
    assert_eq!(w.ktrace.open(&user, target).unwrap_err().errno(), libc::EPERM);
    assert_eq!(w.facs(target), Facs::USER | Facs::SYSCALL);
    // R27: its own record it may always write.
    let own = Caller::new(user.uid, user.gid, target.pid);
    w.ktrace.user(&own, target, b"id data").unwrap();
    assert_eq!(w.stat(target, "records"), "2");
    assert_eq!(w.ktrace.user(&user, target, b"id data").unwrap_err().errno(), libc::EPERM);
}

#[test]
fn clearfile_leaves_those_the_caller_may_not_touch_and_says_eperm() {
    let mut w = World::new();
    let Some((target, user)) = nobody(&mut w) else { return };
    let other = ProcId::of(user.tid).unwrap();
    let roots = w.sleep();
    w.ktrace.control(&user, Some(target), &ctl::parse("set user +inherit").unwrap()).unwrap();
    w.fork(target, other);
    w.fork(target, roots);
    let why = w.ktrace.control(&user, Some(target), &ctl::parse("clearfile").unwrap()).unwrap_err();
    assert_eq!(why.errno(), libc::EPERM);
    assert!(w.trace(target).is_none() && w.trace(other).is_none());
    assert!(w.trace(roots).is_some());
}

#[test]
fn of_all_processes_the_user_gets_his_own() {
    let mut w = World::new();
    let Some((target, user)) = nobody(&mut w) else { return };
    let roots = w.sleep();
    let all = |line: &str| w.ktrace.control(&user, None, &ctl::parse(line).unwrap());
    all("set user all").unwrap();
    assert!(w.trace(target).is_some() && w.trace(roots).is_none());
    let pid = format!("set user pid={}", roots.pid);
    assert_eq!(all(&pid).unwrap_err().errno(), libc::EPERM, "none could be changed");
    all("clear all").unwrap();
    assert!(w.trace(target).is_none());
}

#[test]
fn the_permission_counts_at_the_change_and_not_only_before_it() {
    let mut w = World::new();
    let Some((target, user)) = nobody(&mut w) else { return };
    // Root has come after the user's permission was looked at.
    w.tell(Some(target), "set user").unwrap();
    let proc = w.ktrace.procs().get(target).unwrap();
    let why = w.ktrace.clear_one(&user, false, &proc, &ctl::Clear::default()).unwrap_err();
    assert_eq!(why.errno(), libc::EPERM);
    assert!(w.trace(target).is_some());
}

#[test]
fn the_permission_is_asked_again_when_the_process_is_attached() {
    let mut w = World::new();
    let Some((target, user)) = nobody(&mut w) else { return };
    // Between the permission and the attach root sets it: what an exec of a set-id program is like.
    *w.fake.meanwhile.lock() = Some(|proc| {
        let trace = proc.trace().unwrap();
        let marked = Trace { root: true, ..trace.inherited() };
        proc.swap_trace(Some(&trace), Some(Arc::new(marked)));
    });
    let why = w.ktrace.control(&user, Some(target), &ctl::parse("set user").unwrap()).unwrap_err();
    assert_eq!(why.errno(), libc::EPERM);
    assert_eq!(w.fake.told.lock().last(), Some(&(target.pid, None)), "detached again");
}

#[test]
fn r36_descend_goes_on_past_a_parent_that_refuses() {
    let mut w = World::new();
    let a = w.spawn(Command::new("sh").args(["-c", "sleep 1000 & wait"]));
    w.wait("a child", || !proc::descendants(&[a.pid]).is_empty());
    let child = ProcId::of(proc::descendants(&[a.pid])[0]).unwrap();
    w.fake.refused.lock().push(a.pid);
    // What the whole of it gives is R15's.
    let _ = w.tell(Some(a), "set syscall +descend");
    assert!(w.trace(child).is_some());
    w.fake.refused.lock().push(child.pid);
    w.tell(Some(child), "clear").unwrap();
    assert_eq!(w.errno(Some(a), "set syscall +descend"), libc::EBUSY, "none could be changed");
}

#[test]
fn a_process_that_cannot_be_stopped_holds_nobody_up_for_long() {
    let mut w = World::new();
    let a = w.sleep();
    w.fake.wedged.lock().push(a.pid);
    let began = Instant::now();
    w.tell(Some(a), "set syscall").unwrap();
    w.tell(Some(a), "clear").unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(w.trace(a).is_none());
    // The caller's own process waits for us: we do not wait for it.
    let own = Caller::new(w.me.uid, w.me.gid, a.pid);
    for line in ["set syscall", "clear"] {
        let began = Instant::now();
        w.ktrace.control(&own, Some(a), &ctl::parse(line).unwrap()).unwrap();
        assert!(began.elapsed() < change::CHANGE_MAX, "{line}: {:?}", began.elapsed());
    }
    let proc = w.ktrace.procs().entry(a);
    let _held = proc.changing.lock();
    assert_eq!(w.errno(Some(a), "set syscall"), libc::EBUSY, "somebody else is changing it for too long");
}
