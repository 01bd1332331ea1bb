//! Hazards 7, 8, 12, 13, 15, 16, 19 and 20: births, deaths, and who waits for whom.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use ktrace::record::Body;
use nix::sys::signal::Signal;

use super::state;
use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::user::copy;
use crate::support::{DEADLINE, POLICIES, Running, WHOLE, need, only_on, wait_for};

#[test]
fn hazard_07_attaching_to_a_process_that_execs_all_the_time_ends() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    // Each turn is an exec of the same process, with a thread that makes the exec wait for it.
    let source = "import os, sys, threading\nn = int(sys.argv[1])\n\
        threading.Thread(target=lambda: None).start()\n\
        n and os.execv(sys.executable, [sys.executable, '-S', '-E', sys.argv[0], str(n - 1)])\n";
    let script = mount.scratch().join("execs.py");
    fs::write(&script, source).unwrap();
    let mut python = Running::spawn(Command::new("python3").args(["-S", "-E"]).arg(&script).arg("40"));
    let pid = python.pid();
    while python.0.try_wait().unwrap().is_none() {
        // Whatever the answer, it comes: the process may be gone, or in the midst of its exec.
        let _ = mount.ctl(pid, "set default\n");
        let _ = mount.ctl(pid, "clear\n");
    }
    assert!(python.wait().success());
}

#[test]
fn hazard_07_a_tracer_thread_takes_no_stop_of_anothers() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracees: Vec<Tracee> = (0..4).map(|_| Tracee::start("threads", &["2", "1000"])).collect();
    let mut streams = Vec::new();
    for tracee in &tracees {
        mount.set(tracee.pid(), &format!("set syscall {WHOLE}\n"));
        streams.push(mount.trace(tracee.pid()));
    }
    tracees.iter_mut().for_each(Tracee::go);
    for (tracee, mut stream) in tracees.into_iter().zip(streams) {
        let calls = stream.rest().iter().filter(|rec| rec.call() == Some("getppid")).count();
        assert_eq!(calls, 2000);
        assert!(tracee.running.output().status.success());
    }
}

#[test]
fn hazard_08_a_process_killed_at_any_moment_ends_its_stream() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for turn in 0..30 {
        let mut tracee = Tracee::start("threads", &["4", "100000"]);
        let pid = tracee.pid();
        mount.set(pid, "set default +inherit\n");
        let mut stream = mount.trace(pid);
        tracee.go();
        let mut left = turn * 20;
        stream.until("some records", |_| {
            left -= 1;
            left <= 0
        });
        tracee.running.signal(Signal::SIGKILL);
        stream.rest();
        assert_eq!(tracee.running.wait().signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn hazard_08_a_process_lives_on_after_its_leader_and_loses_no_record() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let calls = 5000;
    let mut command = Command::new(crate::support::tracee::program("leaderless"));
    command.arg(calls.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut tracee = Tracee { running: Running::spawn(&mut command) };
    let pid = tracee.pid();
    wait_for("the leader to exit", || state(pid) == 'Z');
    mount.set(pid, &format!("set syscall {}\n", WHOLE.replace("block", "block size=16K")));
    let mut stream = mount.trace(pid);
    tracee.say("x");
    let mut seen = 0;
    let recs = stream.until("all calls", |rec| {
        // A reader so slow that the ring is full all the time.
        std::thread::yield_now();
        seen += u32::from(rec.call() == Some("getppid"));
        seen == calls
    });
    let is_loss = |rec: &Rec| matches!(rec.body(), Body::User { data, .. } if data.starts_with(b"lost "));
    assert!(!recs.iter().any(is_loss), "nothing is lost");
    mount.set(pid, "clear\n");
    mount.set(pid, "set default\n");
    drop(tracee.running.0.stdin.take());
    assert!(mount.trace(pid).rest().iter().any(|rec| rec.call() == Some("exit_group")));
    assert!(tracee.running.wait().success());
}

#[test]
fn hazard_12_a_tracee_inside_our_own_mount_holds_up_nobody() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script = format!(
        "cd {}; read x; for i in 1 2 3 4 5 6 7 8 9; do cat README stat self/stat; echo set default > self/ctl; ls; \
         echo clear > self/ctl; done",
        mount.point().display()
    );
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", &script]));
    let pid = tracee.pid();
    mount.set(pid, "set all +inherit\n");
    let mut stream = mount.trace(pid);
    tracee.go();
    let reader = std::thread::spawn(move || stream.rest().len());
    let out = tracee.running.output();
    assert!(out.status.success(), "{}", out.status);
    let records = reader.join().unwrap();
    assert!(records > 300, "only {records} records");
}

#[test]
fn hazard_13_the_daemon_does_not_trace_itself() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (errno, why) = mount.refused(mount.daemon(), "set default\n");
    assert_eq!(errno, libc::EPERM);
    assert!(why.contains("daemon"), "{why}");
}

#[test]
fn hazard_13_a_process_that_reads_its_own_trace_neither_hangs_nor_feeds_itself_for_ever() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script = format!("exec head -c 100000 {}/self/trace", mount.point().display());
    for policy in POLICIES {
        let line = format!("read x; {script}");
        let mut tracee = Tracee::command(Command::new("sh").args(["-c", &line]));
        mount.set(tracee.pid(), &format!("set default policy={policy} size=64K\n"));
        tracee.go();
        let mut out = Vec::new();
        let mut pipe = tracee.running.0.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            pipe.read_to_end(&mut out).unwrap();
            out.len()
        });
        // It ends: by having read enough, by the end of its own tracing, or by ours.
        if *policy != "stop" {
            wait_for("its death or its records", || {
                state(tracee.pid()) != 'S' || mount.ctl(tracee.pid(), "clear\n").is_ok()
            });
        }
        tracee.running.wait();
        assert!(reader.join().unwrap() <= 100_000);
    }
}

#[test]
fn hazard_15_every_stop_gets_its_resume() {
    only_on!("ptrace", "there are no stops");
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::command(Command::new("sh").args([
        "-c",
        "read x; for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 & kill -TERM $!; wait) ; ls / | wc -l; done",
    ]));
    let pid = tracee.pid();
    mount.set(pid, "set all +inherit\n");
    let mut stream = mount.trace(pid);
    tracee.go();
    stream.rest();
    tracee.running.wait();
    let log = mount.log();
    assert!(!log.contains("was left stopped"), "{log}");
}

#[test]
fn hazard_16_parents_see_their_children_end_as_without_us() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for (script, code, signal) in
        [("exit 7", Some(7), None), ("kill -KILL $$", None, Some(9)), ("kill -ABRT $$", None, Some(6))]
    {
        let line = format!("read x; {script}");
        let mut tracee = Tracee::command(Command::new("sh").args(["-c", &line]));
        mount.set(tracee.pid(), "set default\n");
        tracee.go();
        let status = tracee.running.wait();
        assert_eq!((status.code(), status.signal()), (code, signal));
    }
}

#[test]
fn hazard_19_after_our_death_every_tracee_runs_on() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracees: Vec<Tracee> = (0..5).map(|_| Tracee::start("threads", &["4", "2000"])).collect();
    for tracee in &mut tracees {
        mount.set(tracee.pid(), "set default policy=overwrite\n");
        tracee.go();
    }
    let daemon = nix::unistd::Pid::from_raw(mount.daemon());
    nix::sys::signal::kill(daemon, Signal::SIGKILL).unwrap();
    for tracee in &mut tracees {
        assert!(tracee.running.wait().success());
    }
    nix::mount::umount2(&mount.point(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn hazard_20_each_tree_has_a_tracer_thread_of_its_own() {
    only_on!("ptrace", "there are no tracers");
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleeps: Vec<Running> = (0..5).map(|_| Running::spawn(Command::new("sleep").arg("1000"))).collect();
    for sleep in &sleeps {
        mount.set(sleep.pid(), "set default\n");
    }
    let mut tracers: Vec<i32> = sleeps.iter().map(|s| ktrace::proc::tracer_of(s.pid())).collect();
    tracers.sort_unstable();
    tracers.dedup();
    assert_eq!(tracers.len(), sleeps.len());
    // A tree that was there before has one too.
    let tree = Running::spawn(Command::new("sh").args(["-c", "sleep 1000 & sleep 1000 & wait"]));
    wait_for("its children", || ktrace::proc::descendants(&[tree.pid()]).len() == 2);
    mount.set(tree.pid(), "set default +descend\n");
    let tracer = ktrace::proc::tracer_of(tree.pid());
    assert!(
        ktrace::proc::descendants(&[tree.pid()])
            .into_iter()
            .all(|pid| ktrace::proc::tracer_of(pid) == tracer)
    );
    // A child of a tree stays with its parent's.
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", "read x; sleep 1000 & wait"]));
    mount.set(tracee.pid(), "set default +inherit\n");
    let mut stream = mount.trace(tracee.pid());
    tracee.go();
    let parent = tracee.pid();
    let recs =
        stream.until("the child", |rec| rec.pid() != parent && matches!(rec.body(), Body::Syscall { .. }));
    let child = recs.last().unwrap().pid();
    assert_eq!(ktrace::proc::tracer_of(child), ktrace::proc::tracer_of(parent));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
}

#[test]
fn hazard_20_the_oldest_thread_is_heard_of_although_younger_ones_stop_all_the_time() {
    only_on!("ptrace", "nobody is stopped");
    need!("fuse", "ptrace");
    const CALLS: usize = 500;
    let mount = Mount::new();
    let mut tracee = Tracee::start("crowd", &["8", &CALLS.to_string()]);
    mount.set(tracee.pid(), "set syscall calls=getuid");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let by = Instant::now() + DEADLINE;
    for call in 0..CALLS {
        trace.until("a call", |rec| rec.call() == Some("getuid"));
        assert!(Instant::now() < by, "{call} calls in {DEADLINE:?}");
    }
}

#[test]
fn hazard_21_without_the_capability_a_set_id_program_runs_untraced_with_its_privilege() {
    need!("fuse", "ptrace", "setpriv");
    // A daemon as root, but without the capability: it may trace what has no more than it.
    let mount =
        Mount::under(Command::new("setpriv").args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]));
    let bare = ["--bounding-set=-all", "--inh-caps=-all"];
    let id = copy(mount.scratch(), "/usr/bin/id", "id", 0o755);
    std::os::unix::fs::chown(&id, Some(65534), None).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
    let mut shell = Command::new("setpriv");
    shell.args(bare).args(["sh", "-c", "read x; exec \"$0\" -u"]).arg(&id);
    let mut tracee = Tracee::command(&mut shell);
    let pid = tracee.pid();
    let set = format!("echo set default > {}", mount.path(format!("{pid}/ctl")).display());
    let status = Command::new("setpriv").args(bare).args(["sh", "-c", &set]).status().unwrap();
    assert!(status.success(), "{}", mount.read("error_log"));
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    assert!(recs.iter().all(|rec| rec.header.stamp.comm.as_bytes() != b"id"), "{recs:#?}");
    assert_eq!(String::from_utf8_lossy(&tracee.running.output().stdout), "65534\n");
}
