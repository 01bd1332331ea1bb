//! Who is watched: births, deaths, and processes that others trace.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use ktrace::record::{Body, Psig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::live::{Calls, calls, threads_of_strace};
use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::{Running, WHOLE, need, wait_for};

/// The signals of a stream.
fn signals(recs: &[Rec]) -> Vec<(i32, u64, i32)> {
    let signal = |rec: &Rec| match rec.body() {
        Body::Psig(Psig { signo, action, code, .. }) => Some((signo, action, code)),
        _ => None,
    };
    recs.iter().filter_map(signal).collect()
}

#[test]
fn the_signal_that_ends_a_process_is_told_once_even_where_nothing_can_stop_it() {
    need!("fuse", "ebpf");
    let mount = Mount::new();
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSEGV] {
        // One thread, and nine.
        for args in [&["0", "0"], &["8", "1000000"]] {
            let mut tracee = Tracee::start("threads", args);
            mount.set(tracee.pid(), "set psig policy=drop");
            let mut trace = mount.trace(tracee.pid());
            if args[0] != "0" {
                tracee.go();
                wait_for("its threads", || ktrace::proc::threads(tracee.pid()).is_ok_and(|t| t.len() > 4));
            }
            tracee.running.signal(signal);
            // By kill(2): SI_USER.
            assert_eq!(signals(&trace.rest()), [(signal as i32, 0, 0)], "{signal} {args:?}");
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(tracee.running.wait().signal(), Some(signal as i32));
        }
    }
}

#[test]
fn children_of_every_kind_are_watched_from_their_first_call_to_their_end() {
    need!("fuse", "ebpf");
    let mount = Mount::new();
    let mut tracee = Tracee::start("forks", &[]);
    let pid = tracee.pid();
    mount.set(pid, &format!("set default +inherit {WHOLE}"));
    let mut trace = mount.trace(pid);
    tracee.go();
    let recs = trace.rest();
    let mut children: BTreeMap<i32, Vec<&Rec>> = BTreeMap::new();
    recs.iter()
        .filter(|rec| rec.pid() != pid)
        .for_each(|rec| children.entry(rec.pid()).or_default().push(rec));
    assert_eq!(children.len(), 4, "fork, vfork, clone and what ptrace may not trace");
    for recs in children.values() {
        assert_eq!(recs[0].body(), Body::Emul(b"linux"));
        let mut calls: Vec<&str> = recs.iter().filter_map(|rec| rec.call()).collect();
        // A C library may have something to do in a new process.
        calls.retain(|call| matches!(*call, "getppid" | "exit_group"));
        assert!(calls == ["getppid", "exit_group"] || calls == ["exit_group"], "{calls:?}");
    }
    // Who has returned from making them is the parent, with the number of the child.
    for child in children.keys() {
        let made = |rec: &&Rec| {
            let result = rec.result();
            result
                .is_some_and(|(call, n)| matches!(call, "clone" | "vfork" | "fork") && n == i64::from(*child))
        };
        assert_eq!(recs.iter().filter(made).map(Rec::pid).collect::<Vec<_>>(), [pid]);
    }
}

#[test]
fn a_child_that_was_gone_before_the_daemon_heard_of_it_has_its_trace() {
    need!("fuse", "ebpf", "pidfs");
    let mount = Mount::new();
    let daemon = Pid::from_raw(mount.daemon());
    let mark = mount.scratch().join("mark");
    // The first one lives: by it is seen that what the kernel's side tells of newborns is true.
    let script = "read x; sleep 1000 & read y; (exit); (exit); : >$0; read z; kill $!";
    let mut tracee = Tracee::command(Command::new("bash").args(["-c", script]).arg(&mark));
    let pid = tracee.pid();
    mount.set(pid, "set emul +inherit");
    let mut trace = mount.trace(pid);
    tracee.go();
    let sleeper = trace.until("the first child", |rec| rec.pid() != pid).last().unwrap().pid();
    kill(daemon, Signal::SIGSTOP).unwrap();
    tracee.say("\n");
    wait_for("the others to come and go", || mark.exists());
    kill(daemon, Signal::SIGCONT).unwrap();
    tracee.say("\n");
    let mut gone: Vec<i32> = trace.rest().iter().map(Rec::pid).collect();
    gone.retain(|one| ![pid, sleeper].contains(one));
    gone.dedup();
    assert_eq!(gone.len(), 2);
    for one in gone {
        assert!(mount.path(format!("{one}/trace")).exists(), "{one}");
    }
}

#[test]
fn strace_sees_the_same_of_the_same_run() {
    need!("fuse", "ebpf", "strace", "git");
    let mount = Mount::new();
    let repository = mount.scratch().join("repository");
    let repository = repository.to_str().unwrap();
    let git = format!("read x; git init -q {repository} && git -C {repository} status -s | wc -c");
    for script in ["read x; ls / | wc -l; exec cat /etc/passwd", &git] {
        let log = mount.scratch().join("strace.out");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-X", "raw", "-o"]).arg(&log).args(["sh", "-c", script]);
        let mut strace = Running::spawn(strace.stdin(Stdio::piped()).stdout(Stdio::null()));
        let mut shell = 0;
        wait_for("the shell to wait for its start", || {
            shell = ktrace::proc::descendants(&[strace.pid()]).first().copied().unwrap_or(0);
            fs::read_to_string(format!("/proc/{shell}/syscall")).is_ok_and(|call| call.starts_with("0 0x0 "))
        });
        mount.set(shell, &format!("set syscall,sysret +inherit {WHOLE}"));
        let mut trace = mount.trace(shell);
        strace.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let recs = trace.rest();
        assert_eq!(strace.wait().code(), Some(0));
        let by_strace = threads_of_strace(&fs::read_to_string(&log).unwrap());
        assert!(by_strace.len() >= 3, "{by_strace:?}");
        let mut tids: Vec<i32> = recs.iter().map(Rec::tid).collect();
        tids.sort_unstable();
        tids.dedup();
        assert_eq!(tids.len(), by_strace.len(), "{script}");
        for (tid, want) in by_strace {
            let tid: i32 = tid.parse().unwrap();
            let seen = calls(&recs, tid);
            let mut got: Calls = seen.into_iter().map(|(call, result)| (call.to_owned(), result)).collect();
            let mut want = want.as_slice();
            if tid == shell {
                // It was in the midst of its first read when we came.
                got.remove(0);
                let read = want.iter().position(|(call, n)| call == "read" && *n == Some(1)).unwrap();
                want = &want[read + 1..];
            }
            assert!(!got.is_empty());
            // A call that is to be restarted has no number in strace's words.
            for (at, ((call, result), (by, of))) in got.iter().zip(want).enumerate() {
                let same =
                    result == of || (of.is_none() && result.is_none_or(|n| (-516..=-512).contains(&n)));
                assert!(call == by && same, "{script}: {tid}, call {at}: {call} {result:?}, {by} {of:?}");
            }
            assert_eq!(got.len(), want.len(), "{script}: {tid}");
        }
    }
}

#[test]
fn strace_before_during_and_after() {
    need!("fuse", "ebpf", "strace");
    let mount = Mount::new();
    let attach = |pid: i32| {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]).stderr(Stdio::null());
        let strace = Running::spawn(&mut strace);
        wait_for("strace to attach", || ktrace::proc::tracer_of(pid) == strace.pid());
        strace
    };
    let detach = |mut strace: Running, pid: i32| {
        strace.signal(Signal::SIGINT);
        strace.wait();
        wait_for("strace to let go", || ktrace::proc::tracer_of(pid) == 0);
    };
    let all = |recs: &[Rec]| {
        let calls: Vec<_> = recs.iter().filter_map(Rec::call).collect();
        assert_eq!(calls.iter().filter(|call| **call == "getppid").count(), 1, "{calls:?}");
        assert_eq!(calls.last(), Some(&"exit_group"));
    };
    // Before us, during the whole of it, and after us: it comes when we are there, and goes before the program begins.
    for (first, stays) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut tracee = Tracee::start("calls", &[]);
        let pid = tracee.pid();
        let mut strace = first.then(|| attach(pid));
        mount.set(pid, &format!("set default {WHOLE}"));
        let mut trace = mount.trace(pid);
        if !first {
            strace = Some(attach(pid));
        }
        if !stays {
            detach(strace.take().unwrap(), pid);
        }
        tracee.go();
        all(&trace.rest());
        assert_eq!(tracee.running.wait().code(), Some(7), "{first} {stays}");
    }
}

#[test]
fn gdb_finds_a_watched_process_as_any_other() {
    need!("fuse", "ebpf", "gdb");
    let mount = Mount::new();
    let run = |pid: i32| {
        let mut gdb = Command::new("gdb");
        gdb.args([
            "-q",
            "-nx",
            "-batch",
            "-p",
            &pid.to_string(),
            "-ex",
            "info registers rip",
            "-ex",
            "detach",
        ]);
        let out = crate::support::output(&mut gdb);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains("rip "), "{said} {}", String::from_utf8_lossy(&out.stderr));
    };
    // Before, during and after: at any time it comes and goes.
    let mut tracee = Tracee::start("calls", &[]);
    let pid = tracee.pid();
    run(pid);
    mount.set(pid, &format!("set default {WHOLE}"));
    let mut trace = mount.trace(pid);
    run(pid);
    mount.set(pid, "clear");
    run(pid);
    trace.rest();
    mount.set(pid, &format!("set default {WHOLE}"));
    let mut trace = mount.trace(pid);
    tracee.go();
    let calls: Vec<_> = trace.rest().iter().filter_map(Rec::call).collect();
    assert_eq!(calls.last(), Some(&"exit_group"), "{calls:?}");
    assert_eq!(tracee.running.wait().code(), Some(7));

    // And one under gdb is watched: its stop in gdb is nothing that we would have to wait for.
    let mut tracee = Tracee::start("calls", &[]);
    let pid = tracee.pid();
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-p", &pid.to_string()]).stdin(Stdio::piped());
    let mut gdb = Running::spawn(gdb.stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("gdb to attach", || ktrace::proc::tracer_of(pid) == gdb.pid());
    mount.set(pid, &format!("set default {WHOLE}"));
    let mut trace = mount.trace(pid);
    gdb.0.stdin.as_mut().unwrap().write_all(b"detach\nquit\n").unwrap();
    wait_for("gdb to let go", || ktrace::proc::tracer_of(pid) == 0);
    tracee.go();
    assert_eq!(trace.rest().iter().filter_map(Rec::call).next_back(), Some("exit_group"));
    assert_eq!(tracee.running.wait().code(), Some(7));
}

#[test]
fn a_new_trace_of_a_process_that_is_being_killed_tells_of_that() {
    need!("fuse", "ebpf");
    let (mount, other) = (Mount::new(), Mount::new());
    let idle = Running::spawn(Command::new("sleep").arg("1000"));
    // Of one that is not traced there is no record to come.
    let file = other.path(format!("{}/trace", idle.pid()));
    let tracee = Tracee::start("held", &[file.to_str().unwrap()]);
    let pid = tracee.pid();
    wait_for("it to wait for a record", || {
        fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("0 0x3 "))
    });
    // An answer to a later question: the read is in the daemon's hands.
    other.read("stat");
    // Its first thread waits for an answer, and nothing can end that: it is killed later than the other one.
    let daemon = nix::unistd::Pid::from_raw(other.daemon());
    kill(daemon, Signal::SIGSTOP).unwrap();
    super::wait_until_it_stands(other.daemon());
    mount.set(pid, "set psig policy=drop");
    let mut trace = mount.trace(pid);
    tracee.running.signal(Signal::SIGKILL);
    trace.until("the end of the other thread", |rec| !signals(std::slice::from_ref(rec)).is_empty());
    mount.set(pid, "clear");
    mount.set(pid, "set psig policy=drop");
    let mut trace = mount.trace(pid);
    kill(daemon, Signal::SIGCONT).unwrap();
    let signals = signals(&trace.rest());
    assert_eq!(signals.iter().map(|signal| signal.0).collect::<Vec<_>>(), [Signal::SIGKILL as i32]);
}

#[test]
fn a_set_of_oneself_that_sees_no_calls_hides_none_later() {
    need!("fuse", "ebpf");
    let mount = Mount::new();
    let script = "read x; echo set psig > \"$0\"/$$/ctl; echo; read y; read z; exit 0";
    let mut tracee = Tracee::command(Command::new("bash").args(["-c", script]).arg(mount.point()));
    let pid = tracee.pid();
    tracee.go();
    BufReader::new(tracee.running.0.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    wait_for("it to wait again", || {
        fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with("0 0x0 "))
    });
    mount.set(pid, "set sysret calls=read policy=drop");
    let mut trace = mount.trace(pid);
    tracee.say("\n");
    let recs = trace.until("the end of its read", |rec| rec.result().is_some());
    tracee.say("\n");
    let reads = recs.iter().chain(&trace.rest()).filter(|rec| rec.result() == Some(("read", 1))).count();
    assert_eq!(reads, 2);
}
