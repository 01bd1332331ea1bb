//! Who may, over real credentials: each caller against each process, with the kernel's own answer as the witness.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ktrace::proc;

use crate::support::mount::{Mount, program, scratch};
use crate::support::tracee::{self, Tracee};
use crate::support::{Running, need, output, wait_for};

/// Ids that nobody on this machine has.
const A: u32 = 61_001;
const B: u32 = 61_002;
const OTHER: u32 = 61_009;

/// `setpriv` with these words, before a command.
fn words(line: &str) -> Vec<String> {
    let line =
        line.replace("$A", &A.to_string()).replace("$B", &B.to_string()).replace("$O", &OTHER.to_string());
    line.split_whitespace().map(str::to_owned).collect()
}

fn under(line: &str) -> Command {
    let words = words(line);
    match words.split_first() {
        None => Command::new("env"),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest);
            command
        }
    }
}

/// A copy of may.c's program that every user can reach.
fn may(mount: &Mount) -> PathBuf {
    let dir = mount.scratch();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.join("may");
    if !copy.exists() {
        fs::copy(tracee::program("may"), &copy).unwrap();
    }
    copy
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

/// Whether this caller can set the process, by the root's `ctl`, and what is said if not.
fn sets(mount: &Mount, caller: &str, pid: i32) -> Result<(), String> {
    let script = "echo \"set namei pid=$1\" > \"$0/ctl\" || { cat \"$0/error_log\" >&2; exit 1; }";
    let mut command = under(caller);
    let out = output(command.args(["bash", "-p", "-c", script]).arg(mount.point()).arg(pid.to_string()));
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// The same by the process's own `ctl`, and an open of its trace.
fn opens(mount: &Mount, caller: &str, pid: i32) -> [bool; 2] {
    ["true < \"$0/$1/trace\"", "true < \"$0/$1/text\""].map(|script| {
        let mut command = under(caller);
        output(command.args(["bash", "-p", "-c", script]).arg(mount.point()).arg(pid.to_string()))
            .status
            .success()
    })
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
        ("A", "setpriv --reuid=$A --regid=$A --clear-groups"),
        ("A of another group", "setpriv --reuid=$A --regid=$O --clear-groups"),
        ("A with another real uid", "setpriv --ruid=$O --euid=$A --regid=$A --clear-groups"),
        ("B", "setpriv --reuid=$B --regid=$B --clear-groups"),
        ("B in the group of A", "setpriv --reuid=$B --regid=$B --groups=$A"),
        ("root of A's namespace", "setpriv --reuid=$A --regid=$A --clear-groups unshare -U -r"),
        ("root of a namespace of root", "unshare -U -r"),
        ("A in a pid namespace", "unshare --fork --pid setpriv --reuid=$A --regid=$A --clear-groups"),
    ];
    let a = "setpriv --reuid=$A --regid=$A --clear-groups";
    // Process, by which credentials, dumpable, and who may.
    let processes = [
        ("of A", a, false, vec!["root", "A", "A with another real uid", "A in a pid namespace"]),
        ("of A, marked by root", a, false, vec!["root"]),
        ("of A, not dumpable", a, true, vec!["root"]),
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
            if !allowed && opens(&mount, caller, pid) != [false; 2] {
                wrong.push(format!("{who}, a process {what}: its trace can be opened"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_nobody_or_only_root_traces() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let a = "setpriv --reuid=$A --regid=$A --clear-groups";
    for (caller, pid, why) in [
        ("", 2, "kernel thread"),
        ("", mount.daemon(), "does not trace itself"),
        (a, 1, "only root traces init"),
        (a, 2, "kernel thread"),
    ] {
        let said = sets(&mount, caller, pid).unwrap_err();
        assert!(said.contains(why), "{said}");
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
        .arg(program())
        .arg("-f")
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
    let errno = ctl.and_then(|mut ctl| ctl.write_all(b"set syscall pid=1")).unwrap_err().raw_os_error();
    assert_eq!(errno, Some(libc::EPERM));
    let log = fs::read_to_string(point.join("error_log")).unwrap();
    assert!(log.contains("pid namespace that cannot be seen") || log.contains("itself"), "{log}");
    drop(daemon);
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn a_file_with_capabilities_counts_as_set_id_and_an_open_stream_ends() {
    need!("fuse", "ptrace", "setpriv", "setcap");
    let mount = Mount::new();
    let dir = mount.scratch();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let copy = dir.join("capable");
    fs::copy("/usr/bin/cat", &copy).unwrap();
    assert!(Command::new("setcap").arg("cap_net_raw+ep").arg(&copy).status().unwrap().success());
    let a = "setpriv --reuid=$A --regid=$A --clear-groups";
    let script = "read x; exec \"$0\" /proc/self/status";
    let mut shell = under(a);
    shell.args(["sh", "-c", script]).arg(&copy);
    let mut tracee = Tracee::command(&mut shell);
    let pid = tracee.pid();
    sets(&mount, a, pid).unwrap();
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    let out = tracee.running.output();
    let status = String::from_utf8_lossy(&out.stdout).into_owned();
    // CAP_NET_RAW is bit 13: it has its privilege.
    assert!(status.contains("CapEff:\t0000000000002000"), "{status}");
    assert!(recs.iter().any(|rec| rec.is_path(copy.to_str().unwrap())), "the exec itself is the user's");
    assert!(!recs.iter().any(|rec| rec.is_path("/proc/self/status")), "and nothing after it: {recs:?}");
}

#[test]
fn a_descriptor_that_was_passed_on_is_judged_by_who_writes() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let process = idle(&mount, "setpriv --reuid=$A --regid=$A --clear-groups", false);
    let pid = process.pid();
    // Opened by root, written to by B.
    let script =
        "exec 7> \"$0/$1/ctl\"; setpriv --reuid=$2 --regid=$2 --clear-groups bash -c 'echo set namei >&7'";
    let mut command = Command::new("bash");
    command.args(["-c", script]).arg(mount.point()).args([pid.to_string(), B.to_string()]);
    assert!(!output(&mut command).status.success());
    assert_eq!(mount.read(format!("{pid}/ctl")), "clear\n");
}
