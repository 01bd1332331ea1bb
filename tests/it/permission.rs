//! Who may, over real credentials: each caller against each process, with the kernel's own answer as the witness.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ktrace::proc;

use crate::support::mount::{Mount, program, scratch};
use crate::support::tracee;
use crate::support::user::{AS_A, AS_B, B, copy, sets, under};
use crate::support::{Running, need, output, wait_for};

/// A copy of may.c's program that every user can reach.
fn may(mount: &Mount) -> PathBuf {
    let there = mount.scratch().join("may");
    if there.exists() {
        there
    } else {
        copy(mount.scratch(), tracee::program("may").to_str().unwrap(), "may", 0o755)
    }
}

/// An idle process with these credentials.
fn idle(mount: &Mount, line: &str, quiet: bool) -> Running {
    let mut command = under(line);
    command.arg(may(mount)).arg(if quiet { "quiet" } else { "idle" });
    let mut running = Running::spawn(command.stdout(Stdio::piped()));
    let mut ready = [0; 6];
    std::io::Read::read_exact(running.0.stdout.as_mut().unwrap(), &mut ready).unwrap();
    running
}

/// The innermost of the processes that `idle` made: a namespace has one more around it.
fn target(running: &Running) -> i32 {
    proc::descendants(&[running.pid()]).last().copied().unwrap_or(running.pid())
}

/// What this caller can do to the process without a `set`, in its own directory and through the root's `ctl`. To read
/// `ctl` tells a user of the same id no more than /proc does.
fn reaches(mount: &Mount, caller: &str, pid: i32) -> String {
    let script = "cd \"$0/$1\"
        : < trace && echo trace
        : < text && echo text
        echo clear > ctl && echo clear
        echo clearfile > ctl && echo clearfile
        echo \"clear pid=$1\" > ../ctl && echo clear pid
        echo \"clearfile pid=$1\" > ../ctl && echo clearfile pid";
    let mut command = under(caller);
    let out = output(command.args(["bash", "-p", "-c", script]).arg(mount.point()).arg(pid.to_string()));
    String::from_utf8_lossy(&out.stdout).replace('\n', ", ")
}

/// Whether the kernel lets this caller trace the process itself.
fn kernel_lets(mount: &Mount, caller: &str, pid: i32) -> bool {
    let mut command = under(caller);
    output(command.arg(may(mount)).args(["seize", &pid.to_string()])).status.success()
}

#[test]
fn each_caller_against_each_process() {
    need!("fuse", "ptrace", "setpriv", "unshare");
    let mount = Mount::new();
    let callers = [
        ("root", ""),
        ("root without CAP_SYS_PTRACE", "setpriv --bounding-set -sys_ptrace"),
        ("A", AS_A),
        ("A of another group", "setpriv --reuid=$A --regid=$O --clear-groups"),
        ("A with another real uid", "setpriv --ruid=$O --euid=$A --regid=$A --clear-groups"),
        ("B", "setpriv --reuid=$B --regid=$B --clear-groups"),
        ("B in the group of A", "setpriv --reuid=$B --regid=$B --groups=$A"),
        ("root of A's namespace", "setpriv --reuid=$A --regid=$A --clear-groups unshare -U -r"),
        ("root of a namespace of root", "unshare -U -r"),
        ("A in a pid namespace", "unshare --fork --pid setpriv --reuid=$A --regid=$A --clear-groups"),
    ];
    // Process, by which credentials, dumpable, and who may.
    let processes = [
        ("of A", AS_A, false, vec!["root", "A", "A with another real uid", "A in a pid namespace"]),
        ("of A, marked by root", AS_A, false, vec!["root"]),
        ("of A, not dumpable", AS_A, true, vec!["root"]),
        (
            "of A in another group",
            "setpriv --reuid=$A --regid=$O --clear-groups",
            false,
            vec!["root", "A of another group"],
        ),
        (
            "of A with another saved uid",
            "setpriv --ruid=$A --euid=$O --regid=$A --clear-groups",
            false,
            vec!["root"],
        ),
        (
            "of B",
            "setpriv --reuid=$B --regid=$B --clear-groups",
            false,
            vec!["root", "B", "B in the group of A"],
        ),
        ("of root", "", false, vec!["root"]),
        (
            "in A's namespace",
            "setpriv --reuid=$A --regid=$A --clear-groups unshare -U -r",
            false,
            vec!["root"],
        ),
        ("in a namespace of root", "unshare -U -r", false, vec!["root"]),
    ];
    let mut wrong = Vec::new();
    for (what, line, quiet, may) in &processes {
        for (who, caller) in callers {
            let running = idle(&mount, line, *quiet);
            let pid = target(&running);
            if what.contains("marked") {
                mount.set(pid, "set syscall");
            }
            // Where we trace it already the kernel refuses, and in a pid namespace its number is another one. R33 asks for
            // the effective uid, as does the kernel for a look at /proc/pid/environ; for ptrace(2) it is the real one.
            let no_witness = what.contains("marked") || who.contains("pid") || who.contains("real uid");
            let kernel = no_witness || kernel_lets(&mount, caller, pid);
            let said = sets(&mount, caller, pid);
            let allowed = said.is_ok();
            if allowed != may.contains(&who) {
                wrong.push(format!("{who}, a process {what}: {said:?}"));
            }
            if allowed && !kernel {
                wrong.push(format!("{who}, a process {what}: more than the kernel allows"));
            }
            if let Err(why) = &said
                && !why.contains("EPERM: process")
            {
                wrong.push(format!("{who}, a process {what}: no reason: {why}"));
            }
            let reached = if allowed { String::new() } else { reaches(&mount, caller, pid) };
            if !reached.is_empty() {
                wrong.push(format!("{who}, a process {what}: refused, and can {reached}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_nobody_or_only_root_traces() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    for (caller, pid, why) in [
        ("", 2, "kernel thread"),
        ("", mount.daemon(), "does not trace itself"),
        (AS_A, 1, "only root traces init"),
        (AS_A, 2, "kernel thread"),
    ] {
        let said = sets(&mount, caller, pid).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_process_whose_first_thread_has_exited_is_its_users_as_before() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let program = tracee::program("leaderless");
    let program = copy(mount.scratch(), program.to_str().unwrap(), "leaderless", 0o755);
    for (whose, other) in [(AS_A, AS_B), (AS_B, AS_A)] {
        let running = Running::spawn(under(whose).arg(&program).stdin(Stdio::piped()));
        let pid = running.pid();
        wait_for("the first thread to exit", || proc::Stat::of(pid).is_ok_and(|stat| stat.has_exited()));
        assert_eq!(sets(&mount, whose, pid), Ok(()));
        assert!(sets(&mount, other, pid).is_err());
    }
}

#[test]
fn a_caller_whose_process_cannot_be_seen_is_refused_with_the_reason() {
    need!("fuse", "ptrace", "unshare");
    let dir = scratch("unseen");
    fs::create_dir(dir.join("m")).unwrap();
    let mut daemon = Command::new("unshare");
    daemon
        .args(["--fork", "--kill-child", "--pid", "--mount-proc"])
        .args(["sh", "-c", "sleep 1000 & exec \"$0\" -f \"$1\""])
        .arg(program())
        .arg(dir.join("m"));
    let daemon = Running::spawn(daemon.stderr(Stdio::null()));
    let mut point = None;
    wait_for("the mount in the other namespace", || {
        let inner = proc::descendants(&[daemon.pid()]).first().copied();
        point = inner.map(|pid| {
            Path::new(&format!("/proc/{pid}/root")).join(dir.strip_prefix("/").unwrap()).join("m")
        });
        point.as_ref().is_some_and(|point| point.join("ctl").exists())
    });
    let point = point.unwrap();
    let ctl = fs::OpenOptions::new().write(true).open(point.join("ctl"));
    let errno = ctl.and_then(|mut ctl| ctl.write_all(b"set syscall pid=2")).unwrap_err().raw_os_error();
    assert_eq!(errno, Some(libc::EPERM));
    let log = fs::read_to_string(point.join("error_log")).unwrap();
    assert!(log.contains("process 2: the caller is in a pid namespace that cannot be seen"), "{log}");
    drop(daemon);
    let _ = fs::remove_dir_all(dir);
}

/// A privileged program writes its error messages wherever its user has sent them, and its user gives it its name.
#[test]
fn a_privileged_program_is_nobodys_hand() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let id = copy(mount.scratch(), "/usr/bin/id", "id", 0o4755);
    let victim = Running::spawn(Command::new("sleep").arg("1000").stdout(Stdio::null()));
    let through_the_roots = format!("set namei pid={}", victim.pid());
    // Through the `ctl` that is everybody's, and through the one of the process itself.
    for (ctl, line, target) in
        [("$0/ctl", &*through_the_roots, victim.pid().to_string()), ("$0/$$/ctl", "set namei", "$$".into())]
    {
        for (caller, done) in [(AS_A, false), ("", true)] {
            // The messages begin with the name, which is a line of its own.
            let script = format!(
                "(exec -a \"$1\"$'\\n' \"$2\" --no-such-option 2> \"{ctl}\"); cat \"$0/{target}/ctl\""
            );
            let mut command = under(caller);
            let out =
                output(command.args(["bash", "-p", "-c", &script]).arg(mount.point()).arg(line).arg(&id));
            let state = match target.as_str() {
                "$$" => String::from_utf8_lossy(&out.stdout).into_owned(),
                _ => mount.read(format!("{target}/ctl")),
            };
            assert_eq!(state.starts_with("set "), done, "{ctl} by {caller:?}: {out:?}");
            assert!(
                done || mount.read("error_log").contains("has opened the file"),
                "{}",
                mount.read("error_log")
            );
            mount.set(victim.pid(), "clear");
        }
    }
}

#[test]
fn a_descriptor_that_was_passed_on_is_judged_by_who_writes() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let process = idle(&mount, AS_A, false);
    let pid = process.pid();
    // Opened by root, written to by B.
    let script =
        "exec 7> \"$0/$1/ctl\"; setpriv --reuid=$2 --regid=$2 --clear-groups bash -c 'echo set namei >&7'";
    let mut command = Command::new("bash");
    command.args(["-c", script]).arg(mount.point()).args([pid.to_string(), B.to_string()]);
    assert!(!output(&mut command).status.success());
    assert_eq!(mount.read(format!("{pid}/ctl")), "clear\n");
}
