//! `ktrace COMMAND` and `ktruss COMMAND`: the command's status, its first and last call, the mount.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ktrace::record::Body;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::mount::{Mount, program, scratch};
use crate::support::stream::{Rec, decode};
use crate::support::{Running, command, need, output, stdout, wait_for};

/// ktrace with a mount, into a file of its scratch directory.
fn ktrace(mount: &Mount, args: &[&str]) -> (Output, Vec<Rec>) {
    let file = mount.scratch().join("ktrace.out");
    let out = output(command("ktrace").env("KTRACE_MOUNT", mount.point()).arg("-f").arg(&file).args(args));
    let recs = decode(&fs::read(&file).unwrap());
    (out, recs)
}

#[test]
fn the_first_record_is_the_exec_and_the_last_call_the_exit() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (out, recs) = ktrace(&mount, &["/bin/true"]);
    assert!(out.status.success(), "{out:?}");
    assert!(matches!(recs[0].body(), Body::Emul(b"linux")), "{:?}", recs[0]);
    let first = recs.iter().find(|rec| !matches!(rec.body(), Body::Emul(_))).unwrap();
    assert_eq!(first.call(), Some("execve"), "{recs:#?}");
    assert_eq!(
        first.header.stamp.comm.as_bytes(),
        b"ktrace",
        "as in NetBSD: the exec is the tool's own call"
    );
    let execs = recs.iter().filter(|rec| rec.call() == Some("execve")).count();
    assert_eq!(execs, 1);
    assert!(recs.iter().any(|rec| rec.is_path("/bin/true")));
    assert_eq!(recs.iter().filter_map(Rec::call).next_back(), Some("exit_group"));
}

#[test]
fn the_status_is_the_commands() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    for tool in ["ktrace", "ktruss"] {
        let run = |args: &[&str]| {
            let mut tool = command(tool);
            tool.current_dir(mount.scratch()).env("KTRACE_MOUNT", mount.point()).args(args);
            output(&mut tool)
        };
        assert_eq!(run(&["true"]).status.code(), Some(0), "{tool}");
        assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7), "{tool}");
        assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).status.signal(), Some(libc::SIGTERM), "{tool}");
        let none = run(&["no-such-command-here"]);
        assert_eq!(none.status.code(), Some(127), "{tool}: {none:?}");
        assert!(String::from_utf8_lossy(&none.stderr).contains("not found"), "{none:?}");
        assert_eq!(run(&["/etc/passwd"]).status.code(), Some(126), "{tool}");
        // Options after the command are the command's.
        assert_eq!(run(&["sh", "-c", "exit $#", "x", "-i", "-p"]).status.code(), Some(2), "{tool}");
    }
}

#[test]
fn the_command_keeps_its_input_and_output() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (out, _) = ktrace(&mount, &["sh", "-c", "echo out; echo err >&2; trap"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "out\n");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "err\n");
    // Signals and descriptors are those that the command has without us.
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd";
    let (out, _) = ktrace(&mount, &["sh", "-c", script]);
    let without = stdout(Command::new("sh").args(["-c", script]));
    assert_eq!(String::from_utf8_lossy(&out.stdout), without);
}

#[test]
fn with_inherit_the_whole_tree_is_in_the_file() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let late = "(sleep 0.3; exec true) & exit 0";
    let (out, _) = ktrace(&mount, &["-i", "sh", "-c", late]);
    assert!(out.status.success());
    // What the command has left behind is written after the command's end.
    let file = mount.scratch().join("ktrace.out");
    let recs = || decode(&fs::read(&file).unwrap());
    wait_for("the end of the stream", || {
        let ends = |body: Body<'_>| matches!(body, Body::User { data, .. } if data.starts_with(b"end: "));
        recs().last().is_some_and(|rec| rec.is_of_stream() && ends(rec.body()))
    });
    let recs = recs();
    let comms: Vec<&[u8]> = recs.iter().map(|rec| rec.header.stamp.comm.as_bytes()).collect();
    for comm in ["sh", "sleep", "true"] {
        assert!(comms.contains(&comm.as_bytes()), "{comm}: ended with the last traced process");
    }
}

#[test]
fn a_private_mount_comes_and_goes() {
    need!("fuse", "ptrace");
    program();
    let dir = scratch("private");
    let mut ktruss = command("ktruss");
    let out = output(ktruss.env("KTRACE_MOUNT", "").env("TMPDIR", &dir).args(["sh", "-c", "exit 5"]));
    assert_eq!(out.status.code(), Some(5), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("execve(") && text.contains("exit_group(0x5)") | text.contains("exit_group(5)"),
        "{text}"
    );
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is left behind");
    assert!(!ktrace::launch::mounted().iter().any(|m| m.point.starts_with(&dir)));
    fs::remove_dir(dir).unwrap();
}

#[test]
fn a_private_mount_goes_when_we_are_killed() {
    need!("fuse", "ptrace");
    program();
    let dir = scratch("killed");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut ktrace = command("ktrace");
        ktrace.env("KTRACE_MOUNT", "").env("TMPDIR", &dir).arg("-f").arg(dir.join("out"));
        ktrace.args(["sh", "-c", "echo $$; exec sleep 1000"]).stdout(Stdio::piped());
        let mut running = Running::spawn(&mut ktrace);
        let mut line = String::new();
        let mut out = std::io::BufReader::new(running.0.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let pid: i32 = line.trim().parse().unwrap();
        running.signal(signal);
        assert_eq!(running.wait().signal(), Some(signal as i32));
        wait_for("the mount to go", || !ktrace::launch::mounted().iter().any(|m| m.point.starts_with(&dir)));
        wait_for("the command to be let go", || ktrace::proc::tracer_of(pid) == 0);
        // It runs on, untraced.
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_mount_that_does_not_answer_is_passed_over() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let daemon = Pid::from_raw(mount.daemon());
    nix::sys::signal::kill(daemon, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let dir = scratch("wedged");
    let out = output(
        command("ktrace")
            .env("KTRACE_MOUNT", mount.point())
            .env("TMPDIR", &dir)
            .arg("-f")
            .arg(dir.join("out"))
            .args(["sh", "-c", "exit 4"]),
    );
    nix::sys::signal::kill(daemon, Signal::SIGCONT).unwrap();
    assert_eq!(out.status.code(), Some(4), "{out:?}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_keyboards_interrupt_is_the_commands() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let file = mount.scratch().join("out");
    // A shell starts what it puts into the background with SIGINT ignored, and then no trap can be set.
    let mut ktrace = Command::new("env");
    ktrace.args(["--default-signal=INT"]).arg(command("ktrace").get_program());
    ktrace.env("KTRACE_MOUNT", mount.point()).arg("-f").arg(&file);
    ktrace.args(["sh", "-c", "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done"]);
    let mut running = Running::spawn(ktrace.stdout(Stdio::piped()));
    let mut out = std::io::BufReader::new(running.0.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    killpg(Pid::from_raw(running.pid()), Signal::SIGINT).unwrap();
    assert_eq!(running.wait().code(), Some(6));
    let recs = decode(&fs::read(&file).unwrap());
    let caught = |rec: &Rec| matches!(rec.body(), Body::Psig(p) if p.signo == libc::SIGINT && p.action > 1);
    assert!(recs.iter().any(caught), "the signal, with the handler's address");
}

#[test]
fn ktrace_appends_and_converts() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let file = mount.scratch().join("ktrace.out");
    let (_, first) = ktrace(&mount, &["-t", "c", "/bin/true"]);
    let (_, both) = ktrace(&mount, &["-a", "-t", "c", "/bin/true"]);
    let count = |recs: &[Rec]| recs.iter().filter(|rec| rec.call() == Some("execve")).count();
    assert_eq!((count(&first), count(&both)), (1, 2));
    for version in ["0", "1", "2"] {
        let (out, recs) = ktrace(&mount, &["-v", version, "/bin/true"]);
        assert!(out.status.success(), "{out:?}");
        assert!(recs.iter().all(|rec| rec.header.version.to_string() == version));
        let text = output(command("kdump").arg("-f").arg(&file));
        assert!(
            text.status.success() && String::from_utf8_lossy(&text.stdout).contains("CALL  execve"),
            "{text:?}"
        );
    }
}

#[test]
fn ktrace_writes_into_regular_files_only() {
    let out = output(command("ktrace").args(["-f", "/dev/null", "true"]));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("not a regular file"), "{out:?}");
}

#[test]
fn a_process_is_followed_and_let_go() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script = "while :; do cd /tmp; sleep 0.01; done";
    let busy = Running::spawn(Command::new("sh").args(["-c", script]));
    let pid = busy.pid().to_string();
    let mut ktruss = command("ktruss");
    ktruss.env("KTRACE_MOUNT", mount.point()).args(["-t", "cn", "-p", &pid]).stdout(Stdio::piped());
    let mut running = Running::spawn(&mut ktruss);
    let mut out = std::io::BufReader::new(running.0.stdout.take().unwrap());
    for _ in 0..10 {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert!(!line.is_empty());
    }
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().signal(), Some(libc::SIGINT));
    wait_for("the process to be let go", || ktrace::proc::tracer_of(busy.pid()) == 0);
    // One that sleeps is let go as well, though nothing happens in it that could find its reader gone.
    let idle = Running::spawn(Command::new("sleep").arg("1000"));
    let mut ktruss = command("ktruss");
    ktruss.env("KTRACE_MOUNT", mount.point()).args(["-p", &idle.pid().to_string()]).stdout(Stdio::null());
    let mut running = Running::spawn(&mut ktruss);
    wait_for("the reader", || mount.read(format!("{}/stat", idle.pid())).contains("readers 1\n"));
    running.signal(Signal::SIGINT);
    running.wait();
    assert_eq!(ktrace::proc::tracer_of(idle.pid()), 0);
    // And once more, cleared by somebody else.
    let file = mount.scratch().join("out");
    let mut ktrace = command("ktrace");
    ktrace.env("KTRACE_MOUNT", mount.point()).arg("-f").arg(&file).args(["-p", &pid]);
    let mut running = Running::spawn(&mut ktrace);
    wait_for("records", || fs::metadata(&file).is_ok_and(|m| m.len() > 1000));
    let cleared = output(command("ktrace").env("KTRACE_MOUNT", mount.point()).args(["-c", "-p", &pid]));
    assert!(cleared.status.success(), "{cleared:?}");
    assert_eq!(running.wait().code(), Some(0), "tracing ended, and so did it");
    decode(&fs::read(&file).unwrap());
    let refused = output(command("ktrace").env("KTRACE_MOUNT", mount.point()).args(["-p", "999999999"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("No such process"), "{refused:?}");
}
