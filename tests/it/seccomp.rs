//! `--seccomp-bpf`: calls that are not wanted do not stop, and nobody is left with a filter that nobody answers.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::mount::{Mount, program, scratch};
use crate::support::stream::{Rec, decode};
use crate::support::tracee;
use crate::support::{DEADLINE, Running, command, need, output, wait_for};

/// `ktrace -i --seccomp-bpf --calls CALLS`, into the file `out` beside the mount.
fn ktrace(mount: &Mount, calls: &str, program: &[&str]) -> Command {
    let mut tool = command("ktrace");
    tool.env("KTRACE_MOUNT", mount.point()).arg("-f").arg(mount.scratch().join("out"));
    tool.args(["-i", "--seccomp-bpf", "--calls", calls]).args(program);
    tool
}

fn records(mount: &Mount) -> Vec<Rec> {
    decode(&fs::read(mount.scratch().join("out")).unwrap())
}

fn count(recs: &[Rec], call: &str) -> usize {
    recs.iter().filter(|rec| rec.call() == Some(call)).count()
}

fn stops(mount: &Mount) -> u64 {
    let stat = mount.read("stat");
    stat.lines().find_map(|line| line.strip_prefix("stops ")).unwrap().trim().parse().unwrap()
}

#[test]
fn what_is_not_wanted_does_not_stop_and_the_rest_is_as_without() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let load = tracee::program("threads");
    let threads = [load.to_str().unwrap(), "4", "500"];
    let mut seen = Vec::new();
    for wanted in ["getppid", "openat"] {
        let before = stops(&mount);
        let mut tool = ktrace(&mount, wanted, &threads);
        let mut running =
            Running::spawn(tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        running.say("\n");
        let out = running.output();
        assert!(out.status.success(), "{out:?}");
        let recs = records(&mount);
        assert_eq!(count(&recs, "getppid"), if wanted == "getppid" { 2000 } else { 0 });
        assert!(wanted == "getppid" || count(&recs, "openat") > 0);
        seen.push(stops(&mount) - before);
    }
    assert!(seen[0] >= 4000 && seen[1] < 200, "{seen:?} stops");
}

#[test]
fn children_of_each_kind_and_programs_they_execute_run_as_without() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script = "for i in 1 2 3; do ls / | wc -l; (exit 7); echo $?; done; /bin/echo over";
    let bare = output(Command::new("sh").args(["-c", script]));
    let traced = output(&mut ktrace(&mount, "openat,execve", &["sh", "-c", script]));
    assert_eq!((&traced.stdout, traced.status.code()), (&bare.stdout, bare.status.code()));
    let recs = records(&mount);
    assert_eq!(count(&recs, "execve"), 1 + 3 * 2 + 1, "{recs:#?}");
    assert_eq!(count(&recs, "read"), 0);
}

/// A shell under the filter that waits for a line and then works.
fn waiting(mount: &Mount) -> (Running, i32) {
    let script = "echo $$; read x; ls / > /dev/null && (ls /etc > /dev/null) && echo fine";
    let mut tool = ktrace(mount, "openat", &["sh", "-c", script]);
    let mut running = Running::spawn(tool.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut line = String::new();
    let mut byte = [0];
    let out = running.0.stdout.as_mut().unwrap();
    while std::io::Read::read(out, &mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0] as char);
    }
    (running, line.parse().unwrap())
}

#[test]
fn whoever_is_let_go_works_on() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for line in ["clear", "clear +inherit"] {
        let (mut running, pid) = waiting(&mount);
        mount.set(pid, line);
        running.say("\n");
        let out = running.output();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "fine\n", "{line}");
    }
    // And is seen again, now of every call.
    let (mut running, pid) = waiting(&mount);
    mount.set(pid, "clear");
    mount.set(pid, "set syscall");
    let mut stream = mount.trace(pid);
    running.say("\n");
    let recs = stream.rest();
    assert!(recs.iter().any(|rec| rec.call() == Some("exit_group")), "{recs:#?}");
    assert_eq!(String::from_utf8_lossy(&running.output().stdout), "fine\n");
}

#[test]
fn without_its_tracer_it_ends_instead_of_failing() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (running, pid) = waiting(&mount);
    kill(Pid::from_raw(mount.daemon()), Signal::SIGKILL).unwrap();
    let out = running.output();
    assert_eq!(out.status.signal(), Some(libc::SIGKILL), "as the command did: {out:?}");
    wait_for("the end of the command", || ktrace::proc::Stat::of(pid).map_or(true, |stat| stat.is_dead()));
    assert!(out.stdout.is_empty());
    nix::mount::umount2(&mount.point(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn an_orderly_end_of_the_mount_leaves_it_its_tracer() {
    need!("fuse", "ptrace");
    for way in ["SIGTERM", "umount"] {
        let mount = Mount::new();
        let (mut running, _) = waiting(&mount);
        let daemon = mount.daemon();
        match way {
            "umount" => nix::mount::umount2(&mount.point(), nix::mount::MntFlags::MNT_DETACH).unwrap(),
            _ => kill(Pid::from_raw(daemon), Signal::SIGTERM).unwrap(),
        }
        wait_for("the end of the mount", || !mount.point().join("README").exists());
        // Once more, as from a parent that ends: it stays all the same.
        kill(Pid::from_raw(daemon), Signal::SIGTERM).unwrap();
        running.say("\n");
        assert_eq!(String::from_utf8_lossy(&running.output().stdout), "fine\n", "{way}");
        wait_for("the end of the daemon", || {
            ktrace::proc::Stat::of(daemon).map_or(true, |stat| stat.is_dead())
        });
    }
}

#[test]
fn a_command_outlives_the_tool_and_its_private_mount() {
    need!("fuse", "ptrace");
    program();
    let scratch = scratch("outlives");
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let (out, done) = (scratch.join("out"), scratch.join("done"));
        let _ = fs::remove_file(&done);
        let mut tool = command("ktrace");
        tool.env("KTRACE_MOUNT", "").env("TMPDIR", &scratch).arg("-f").arg(&out).args([
            "-i",
            "--seccomp-bpf",
            "--calls",
            "openat",
        ]);
        let line = format!("echo >{0}.begun; read line; echo fine >{0}", done.display());
        let mut running = Running::spawn(tool.args(["sh", "-c", &line]).stdin(Stdio::piped()));
        let begun = done.with_extension("begun");
        wait_for("the command", || begun.exists());
        kill(Pid::from_raw(running.pid()), signal).unwrap();
        // Not closed by the wait.
        let mut stdin = running.0.stdin.take().unwrap();
        assert_eq!(running.wait().signal(), Some(signal as i32));
        stdin.write_all(b"\n").unwrap();
        wait_for("what the command writes", || fs::read_to_string(&done).is_ok_and(|text| text == "fine\n"));
        fs::remove_file(&begun).unwrap();
        let is_ours = |mounted: &ktrace::launch::Mounted| mounted.point.starts_with(&scratch);
        wait_for("the mount to go", || !ktrace::launch::mounted().iter().any(is_ours));
    }
    fs::remove_dir_all(scratch).unwrap();
}

#[test]
fn a_child_whose_maker_was_killed_at_its_birth_keeps_its_tracer() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let bereft = tracee::program("bereft");
    let mut tool = ktrace(&mount, "getppid", &[bereft.to_str().unwrap(), "0", "leaves", "shows"]);
    let mut running = Running::spawn(tool.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let lines = running.lines();
    let line = || lines.recv_timeout(DEADLINE).unwrap();
    running.say("\n");
    let maker: i32 = line().parse().unwrap();
    wait_for("the child", || !ktrace::proc::descendants(&[maker]).is_empty());
    kill(Pid::from_raw(maker), Signal::SIGKILL).unwrap();
    assert_eq!(line(), "answered");
    drop(running.0.stdin.take());
    assert!(running.wait().success());
}

#[test]
fn only_a_process_itself_may_ask_for_it_and_only_with_its_children() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleep = Running::spawn(Command::new("sleep").arg("1000"));
    let (errno, why) = mount.refused(sleep.pid(), "set default +inherit +seccomp");
    assert!(errno == libc::EINVAL && why.contains("the process itself"), "{why}");
    let (errno, why) = mount.refused(sleep.pid(), "set default +seccomp");
    assert!(errno == libc::EINVAL && why.contains("+inherit"), "{why}");
    let mut tool = command("ktrace");
    assert_eq!(output(tool.args(["--seccomp-bpf", "true"])).status.code(), Some(2), "-i is needed");
}
