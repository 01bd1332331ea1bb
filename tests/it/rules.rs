//! Rules that only a real process proves, and what happens when tracing traces itself.

use std::process::{Command, Stdio};

use ktrace::record::{Body, Psig};
use nix::sys::signal::Signal;

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::{POLICIES, Running, need, wait_for};

/// A shell that waits for its start and then runs the script, `$M` being the mount.
fn shell(mount: &Mount, script: &str) -> Tracee {
    let script = format!("read x; {script}");
    Tracee::command(Command::new("sh").env("M", mount.point()).args(["-c", &script]))
}

#[test]
fn r07_a_signal_makes_a_record_where_a_handler_runs_or_the_process_ends() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("signals", &[]);
    mount.set(tracee.pid(), "set psig");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let seen: Vec<(i32, u64, u32, i32)> = trace
        .rest()
        .iter()
        .filter_map(|rec| match rec.body() {
            Body::Psig(Psig { signo, action, mask, code, .. }) => Some((signo, action, mask[0], code)),
            _ => None,
        })
        .collect();
    let printed = tracee.running.output().stdout;
    let handler = String::from_utf8(printed).unwrap();
    let handler = u64::from_str_radix(handler.trim().trim_start_matches("0x"), 16).unwrap();
    // The ignored ones, by choice (SIGUSR2) and by default (SIGCHLD), made none.
    let hup = 1 << (Signal::SIGHUP as u32 - 1);
    let tkill = -5;
    let expected = [
        (Signal::SIGUSR1 as i32, handler, hup, tkill),
        (40, handler, hup, tkill),
        (Signal::SIGTERM as i32, 0, hup, tkill),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn r31_after_each_set_and_clear_that_leaves_emul_on_an_emul_record_goes_out() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let idle = Running::spawn(Command::new("sleep").arg("1000").stdout(Stdio::null()));
    let mut trace = mount.trace(idle.pid());
    for line in ["set emul,namei", "set psig", "clear namei", "set psig +inherit", "clear"] {
        mount.set(idle.pid(), line);
    }
    let emuls = trace.rest().iter().filter(|rec| matches!(rec.body(), Body::Emul(b"linux"))).count();
    assert_eq!(emuls, 4, "not after the one that ended tracing");
}

#[test]
fn r32_the_machinery_is_not_itself_traced() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (errno, why) = mount.refused(mount.daemon(), "set syscall");
    assert_eq!(errno, libc::EPERM);
    assert!(why.contains("does not trace itself"), "{why}");
    // What it does for a traced process makes no records of that process: the calls are those of `cat`.
    let mut tracee = shell(&mount, "exec cat \"$M/self/stat\" \"$M/self/ctl\"");
    mount.set(tracee.pid(), "set syscall,sysret");
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs = trace.rest();
    assert!(recs.iter().all(|rec| rec.pid() == tracee.pid() || rec.is_of_stream()), "{recs:?}");
    let opens = recs.iter().filter(|rec| rec.call() == Some("openat")).count();
    assert!((2..500).contains(&opens), "{opens}");
}

#[test]
fn r38_a_set_or_clear_on_oneself_makes_no_records_of_its_own_work() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script =
        "echo set syscall,sysret,user > $M/self/ctl; echo clear > $M/self/ctl; echo set user > $M/self/ctl";
    let mut tracee = shell(&mount, script);
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs: Vec<Rec> = trace.rest().into_iter().filter(|rec| !rec.is_of_stream()).collect();
    let writes = recs.iter().filter(|rec| rec.call() == Some("write")).count();
    assert_eq!(writes, 1, "the one that clears was begun, the one that sets was over: {recs:#?}");
    assert_eq!(recs.last().and_then(Rec::call), Some("write"), "and nothing follows it");
    assert!(!recs.iter().any(|rec| rec.result().is_some_and(|(call, _)| call == "write")));
}

#[test]
fn a_process_that_reads_its_own_trace_is_bounded() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for policy in POLICIES {
        // Each read makes records, which the next read takes: as many as it likes, and no more.
        let script = "exec head -c 200000 \"$M/self/trace\" > /dev/null";
        let mut tracee = shell(&mount, script);
        mount.set(tracee.pid(), &format!("set default policy={policy}"));
        tracee.go();
        assert!(tracee.running.wait().success(), "{policy}");
        assert!(mount.read("stat").contains("memory "), "the mount answers");
    }
}

#[test]
fn two_processes_that_trace_each_others_readers_end() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for policy in POLICIES.iter().filter(|policy| **policy != "overwrite") {
        let script = "exec cat \"$M/$OTHER/trace\" > /dev/null";
        let cat = |other: &str| {
            let mut sh = Command::new("sh");
            sh.env("M", mount.point()).args(["-c", &format!("read x; OTHER={other}; {script}")]);
            Tracee::command(&mut sh)
        };
        let target = Running::spawn(Command::new("sleep").arg("1000").stdout(Stdio::null()));
        let mut one = cat(&target.pid().to_string());
        let mut two = cat(&one.pid().to_string());
        for pid in [target.pid(), one.pid(), two.pid()] {
            mount.set(pid, &format!("set default policy={policy} size=64K"));
        }
        // The first reads the second too, by a descriptor of its own: a circle.
        let back = Tracee::command(
            Command::new("sh")
                .env("M", mount.point())
                .args(["-c", &format!("read x; exec cat \"$M/{}/trace\" > /dev/null", two.pid())]),
        );
        let mut back = back;
        mount.set(back.pid(), &format!("set default policy={policy} size=64K"));
        one.go();
        two.go();
        back.go();
        wait_for("records of a reader, or that its small ring was too small", || {
            let stat = mount.read(format!("{}/stat", one.pid()));
            let records = stat.lines().find_map(|l| l.strip_prefix("records ")?.parse::<u64>().ok());
            records.unwrap_or(0) > 20 || mount.read(format!("{}/ctl", one.pid())) == "clear\n"
        });
        for pid in [target.pid(), one.pid(), two.pid(), back.pid()] {
            // A reader ends with what it reads.
            if let Err(e) = mount.ctl(pid, "clear") {
                assert!(matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)), "{policy}: {e}");
            }
        }
    }
}

#[test]
fn the_shell_that_reads_can_be_traced() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script =
        "timeout 1 cat \"$M/$$/trace\" | head -c 100000 | wc -c; echo clear > \"$M/$$/ctl\"; echo done";
    for policy in POLICIES.iter().filter(|policy| **policy != "overwrite") {
        let mut tracee = shell(&mount, script);
        mount.set(tracee.pid(), &format!("set default +inherit policy={policy}"));
        tracee.go();
        let out = tracee.running.output();
        assert!(String::from_utf8_lossy(&out.stdout).ends_with("done\n"), "{policy}: {out:?}");
    }
}
