//! Hazards 1 to 6: no stop of ours is felt.

use std::process::{Command, Stdio};

use ktrace::record::Body;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{call_of, state, wait_for_call};
use crate::support::mount::Mount;
use crate::support::tracee::{Tracee, program};
use crate::support::{IS_EBPF, Running, need, only_on, wait_for};

/// The calls that `sleeps` knows, with their numbers. Those of the first line return EINTR to whoever is stopped.
const SLEEPS: [(&str, i64); 10] = [
    ("epoll_wait", libc::SYS_epoll_wait),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
    ("sigtimedwait", libc::SYS_rt_sigtimedwait),
    ("semtimedop", libc::SYS_semtimedop),
    ("semop", libc::SYS_semop),
    ("recv", libc::SYS_recvfrom),
    ("read", libc::SYS_read),
    ("poll", libc::SYS_poll),
    ("select", libc::SYS_select),
    ("wait", libc::SYS_wait4),
];

fn sleeper(call: &str, number: i64) -> Tracee {
    let mut command = Command::new(program("sleeps"));
    let running = Running::spawn(command.arg(call).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let tracee = Tracee { running };
    // The C library may make a call by another number (poll by ppoll): either will do.
    let other = [libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_semtimedop];
    wait_for("the tracee to sleep", || {
        call_of(tracee.pid()).is_some_and(|n| n == number || other.contains(&n))
    });
    tracee
}

/// Runs `disturb` while a process sleeps in each of the calls: none may end by it.
fn undisturbed(disturb: impl Fn(&Mount, i32)) {
    let mount = Mount::new();
    for (call, number) in SLEEPS {
        let mut tracee = sleeper(call, number);
        disturb(&mount, tracee.pid());
        tracee.go();
        let out = tracee.running.output();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{call} 1 ok\n"), "{}", out.status);
    }
}

#[test]
fn hazard_01_attach_change_and_clear_end_no_call() {
    need!("fuse", "ptrace");
    undisturbed(|mount, pid| {
        for _ in 0..3 {
            mount.set(pid, "set psig\n");
            mount.set(pid, "set syscall,sysret,namei,genio\n");
            mount.set(pid, "clear syscall,sysret,namei,genio\n");
            mount.set(pid, "set default\n");
            mount.set(pid, "clear\n");
        }
    });
}

#[test]
fn hazard_01_the_last_reader_and_the_daemon_end_no_call() {
    need!("fuse", "ptrace");
    for (call, number) in SLEEPS {
        let mount = Mount::new();
        let mut tracee = sleeper(call, number);
        let pid = tracee.pid();
        mount.set(pid, "set default\n");
        let mut stream = mount.trace(pid);
        // The sleep shows its beginning where it has been begun again for that.
        stream.until("the call", |rec| rec.call().is_some() || IS_EBPF);
        drop(stream);
        // A record of the process itself finds out that nobody reads any more. The kernel tells the daemon of the
        // last close when it pleases, so one record may come too early.
        wait_for("tracing to end", || {
            std::fs::write(mount.path(format!("{pid}/user")), "id data").unwrap();
            mount.read(format!("{pid}/ctl")).starts_with("clear")
        });
        mount.set(pid, "set default\n");
        drop(mount);
        tracee.go();
        let out = tracee.running.output();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{call} 1 ok\n"), "{}", out.status);
    }
}

#[test]
fn hazard_01_an_ignored_signal_ends_no_call() {
    need!("fuse", "ptrace");
    undisturbed(|mount, pid| {
        mount.set(pid, "set default\n");
        for _ in 0..5 {
            // Ignored by default: without a tracer it would not wake anybody.
            nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGWINCH).unwrap();
            wait_for("the signal to be taken", || pending(pid) == 0);
        }
    });
}

/// Signals that wait for the process, as a mask.
fn pending(pid: i32) -> u64 {
    let mask = ktrace::proc::status_field(pid, "ShdPnd").unwrap_or_default();
    u64::from_str_radix(&mask, 16).unwrap_or(0)
}

#[test]
fn hazard_01_a_timeout_does_not_begin_again_and_its_register_is_kept() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("timeout", &["700"]);
    let pid = tracee.pid();
    mount.set(pid, "set default\n");
    tracee.go();
    wait_for_call(pid, libc::SYS_epoll_wait);
    // Each of these stops the call. If each let the timeout begin again, the call would not end before they do.
    wait_for("the timeout", || {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGWINCH);
        state(pid) == 'Z'
    });
    let out = tracee.running.output();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "0 kept\n");
}

#[test]
fn hazard_01_no_series_of_attach_and_clear_makes_a_sleep_endless_or_short() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    // Each stop lets the timeout begin again where nothing bounds it: as they never cease, the program would not end.
    for change in
        [["set default\n", "clear\n"], ["set psig\n", "clear\n"], ["set default\n", "clear syscall,sysret\n"]]
    {
        let mut naps =
            Running::spawn(Command::new(program("naps")).args(["4", "150"]).stdout(Stdio::piped()));
        let pid = naps.pid();
        wait_for("the program's end", || {
            for line in change {
                let _ = mount.ctl(pid, line);
            }
            naps.0.try_wait().unwrap().is_some()
        });
        let out = naps.output();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "0 wrong, 0 early\n".repeat(5), "{change:?}");
    }
}

#[test]
fn hazard_01_a_32_bit_sleep_is_bounded_too() {
    need!("fuse", "ptrace", "ia32");
    let mount = Mount::new();
    for change in [["set default\n", "clear\n"], ["set psig\n", "clear\n"]] {
        let mut naps = Running::spawn(&mut Command::new(program("naps32")));
        wait_for("the program's end", || {
            for line in change {
                let _ = mount.ctl(naps.pid(), line);
            }
            naps.0.try_wait().unwrap().is_some()
        });
        assert_eq!(naps.wait().code(), Some(0), "{change:?}");
    }
}

#[test]
fn hazard_01_a_change_at_the_very_beginning_of_a_call_is_not_felt() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    // The naps are so short, and the tracers so busy, that many a stop of ours meets the entry of the next call.
    let mut naps: Vec<Running> = (0..8)
        .map(|_| Running::spawn(Command::new(program("naps")).args(["300", "1"]).stdout(Stdio::piped())))
        .collect();
    let point = mount.point();
    std::thread::scope(|scope| {
        for nap in &mut naps {
            let ctl = point.join(nap.pid().to_string()).join("ctl");
            scope.spawn(move || {
                wait_for("the program's end", || {
                    for line in ["set syscall\n", "set psig\n", "clear syscall\n", "set syscall\n", "clear\n"]
                    {
                        // It ends meanwhile.
                        let _ = std::fs::write(&ctl, line);
                    }
                    nap.0.try_wait().unwrap().is_some()
                });
            });
        }
    });
    for nap in naps {
        assert_eq!(String::from_utf8_lossy(&nap.output().stdout), "0 wrong, 0 early\n".repeat(5));
    }
}

#[test]
fn hazard_01_the_stream_shows_no_stop_of_ours() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = sleeper("epoll_wait", libc::SYS_epoll_wait);
    let pid = tracee.pid();
    mount.set(pid, "set psig\n");
    mount.set(pid, "set syscall,sysret\n");
    let mut stream = mount.trace(pid);
    for _ in 0..5 {
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGWINCH).unwrap();
        wait_for("the signal to be taken", || pending(pid) == 0);
    }
    wait_for_call(pid, libc::SYS_epoll_wait);
    tracee.go();
    let recs = stream.until("the result", |rec| rec.result().is_some());
    let calls = recs.iter().filter(|rec| rec.call() == Some("epoll_wait")).count();
    // ptrace has the call begun again; who does not stop it sees its end alone.
    let begun = usize::from(!IS_EBPF);
    let result = recs.last().and_then(|rec| rec.result());
    assert_eq!((calls, result), (begun, Some(("epoll_wait", 1))), "{recs:#?}");
}

#[test]
fn hazard_02_every_thread_is_attached_while_threads_are_made() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for _ in 0..5 {
        let mut tracee = Tracee::start("threads", &["16", "20"]);
        let pid = tracee.pid();
        mount.set(pid, "set syscall\n");
        let mut stream = mount.trace(pid);
        tracee.go();
        let recs = stream.rest();
        let calls = recs.iter().filter(|rec| rec.call() == Some("getppid")).count();
        assert_eq!(calls, 16 * 20);
        assert!(tracee.running.wait().success());
    }
}

#[test]
fn hazard_02_no_chain_of_threads_escapes_an_attach() {
    only_on!("ptrace", "a process is watched whole, its threads are not attached one by one");
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let churn = Running::spawn(&mut Command::new(crate::support::tracee::program("churn")));
    let pid = churn.pid();
    // Chains that are not traced go on without us for ever.
    let untraced = || {
        let mut threads = ktrace::proc::threads(pid).unwrap();
        threads.retain(|&tid| {
            // Two looks: it may end between the first two questions.
            let traced = || ktrace::proc::tracer_of(tid) != 0;
            let lives = || ktrace::proc::Stat::of(tid).is_ok_and(|stat| !stat.has_exited());
            !traced() && lives() && !traced() && lives()
        });
        threads
    };
    for _ in 0..20 {
        mount.set(pid, "set psig\n");
        for _ in 0..10 {
            assert_eq!(untraced(), [], "after set");
        }
        mount.set(pid, "clear\n");
        wait_for("every thread to be let go", || {
            ktrace::proc::threads(pid).unwrap().iter().all(|&tid| ktrace::proc::tracer_of(tid) == 0)
        });
    }
}

#[test]
fn hazard_03_job_control_looks_as_before() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleep = Running::spawn(Command::new("sleep").arg("1000"));
    let pid = Pid::from_raw(sleep.pid());
    mount.set(sleep.pid(), "set default\n");
    let flags = WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG;
    for signal in [Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGSTOP] {
        nix::sys::signal::kill(pid, signal).unwrap();
        wait_for("the parent to hear of the stop", || {
            waitpid(pid, Some(flags)).unwrap() == WaitStatus::Stopped(pid, signal)
        });
        // The answer comes after the tracer has seen the stop: from then on nothing moves.
        mount.set(sleep.pid(), "set default\n");
        assert!(matches!(state(sleep.pid()), 'T' | 't'), "it runs on: {}", state(sleep.pid()));
        nix::sys::signal::kill(pid, Signal::SIGCONT).unwrap();
        wait_for("the parent to hear of the continuation", || {
            waitpid(pid, Some(flags)).unwrap() == WaitStatus::Continued(pid)
        });
    }
}

#[test]
fn hazard_03_a_stopped_process_is_attached_changed_and_released_stopped() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleep = Running::spawn(Command::new("sleep").arg("1000"));
    let pid = sleep.pid();
    sleep.signal(Signal::SIGSTOP);
    wait_for("the stop", || state(pid) == 'T');
    mount.set(pid, "set default\n");
    mount.set(pid, "clear syscall\n");
    mount.set(pid, "clear\n");
    assert_eq!(ktrace::proc::tracer_of(pid), 0);
    wait_for("the process to be stopped as before", || state(pid) == 'T');
    sleep.signal(Signal::SIGCONT);
    wait_for("it to go on", || state(pid) == 'S');
}

#[test]
fn hazard_04_attach_in_mid_call_gives_no_stray_result() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("calls", &[]);
    mount.set(tracee.pid(), "set syscall,sysret\n");
    let mut stream = mount.trace(tracee.pid());
    tracee.go();
    let recs = stream.rest();
    // As in NetBSD, a call that has begun before shows its end, where it is not begun again for our sake.
    let mut open = IS_EBPF.then_some(libc::SYS_read as i32);
    for rec in &recs {
        match rec.body() {
            Body::Syscall { code, .. } => open = Some(code),
            Body::Sysret { code, .. } => assert_eq!(open.take(), Some(i32::from(code)), "{recs:#?}"),
            _ => {}
        }
    }
}

#[test]
fn hazard_04_without_inherit_a_child_is_let_go_before_it_runs() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("forks", &[]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall,sysret\n");
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    assert!(recs.iter().all(|rec| rec.pid() == pid), "{recs:#?}");
    assert_eq!(String::from_utf8_lossy(&tracee.running.output().stdout), "12\n");
}

#[test]
fn hazard_05_an_exec_by_another_thread_takes_the_leaders_place() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("exec", &[]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall,sysret,namei,execarg\n");
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    let args: Vec<&[u8]> = recs
        .iter()
        .filter_map(|rec| match rec.body() {
            Body::ExecArg(arg) => Some(arg),
            _ => None,
        })
        .collect();
    assert_eq!(args, [&b"echo"[..], b"executed"]);
    let after = recs.iter().skip_while(|rec| !matches!(rec.body(), Body::ExecArg(_)));
    assert!(after.clone().all(|rec| rec.tid() == pid && rec.header.stamp.comm.as_bytes() == b"echo"));
    assert!(after.clone().any(|rec| rec.result() == Some(("execve", 0))));
    assert_eq!(String::from_utf8_lossy(&tracee.running.output().stdout), "executed\n");
}

#[test]
fn hazard_06_a_vfork_parent_that_cannot_stop_delays_nobody() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    // The shell's child holds its vfork parent in the kernel until it executes something.
    let source = "import os, sys\nsys.stdin.read(1)\nos.posix_spawn('/bin/true', ['true'], {})\nos.wait()\n";
    let mut tracee = Tracee::command(Command::new("python3").args(["-c", source]));
    let pid = tracee.pid();
    mount.set(pid, "set default +inherit\n");
    tracee.go();
    for _ in 0..20 {
        // Whatever it is doing now, the answer comes in time.
        let _ = mount.ctl(pid, "clear +descend\n");
        let _ = mount.ctl(pid, "set default +inherit\n");
    }
    assert!(tracee.running.output().status.success());
}

#[test]
fn hazard_06_a_signal_on_its_way_survives_the_detach() {
    need!("fuse", "ptrace", "python3");
    let mount = Mount::new();
    let mut counter = Tracee::start("counts", &[]);
    let pid = Pid::from_raw(counter.pid());
    // Real-time signals queue: each one must arrive, whenever it comes.
    let signals = 3000;
    counter.go();
    wait_for("its handlers", || {
        let caught = ktrace::proc::status_field(pid.as_raw(), "SigCgt").unwrap();
        u64::from_str_radix(&caught, 16).unwrap() >> (libc::SIGRTMIN() - 1) & 1 == 1
    });
    let source = "import os, sys, signal, time\nfor i in range(int(sys.argv[2])):\n    os.kill(int(sys.argv[1]), \
                  signal.SIGRTMIN)\n    i % 50 or time.sleep(0.001)\n";
    let mut sender = Command::new("python3");
    sender.args(["-c", source, &pid.to_string(), &signals.to_string()]);
    let mut sender = Running::spawn(&mut sender);
    while sender.0.try_wait().unwrap().is_none() {
        mount.set(pid.as_raw(), "set psig policy=overwrite\n");
        mount.set(pid.as_raw(), "clear\n");
    }
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let out = counter.running.output();
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{signals}\n"));
}
