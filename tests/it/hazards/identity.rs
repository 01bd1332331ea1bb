//! Hazards 9 to 11, 14, 17, 18 and 21: what is seen is what happened, and whose it is.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use ktrace::record::{Body, Psig};

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::user::copy;
use crate::support::{IS_EBPF, Running, need, only_on, wait_for};

fn emulations(recs: &[Rec]) -> Vec<String> {
    let name = |rec: &Rec| match rec.body() {
        Body::Emul(name) => Some(String::from_utf8_lossy(name).into_owned()),
        _ => None,
    };
    recs.iter().filter_map(name).collect()
}

#[test]
fn hazard_09_int_0x80_is_linux32_for_that_call_only() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("int80", &[]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall,sysret,emul\n");
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    let names = emulations(&recs);
    assert!(names.windows(3).any(|w| w == ["linux", "linux32", "linux"]), "{names:?}");
    // 64 is getppid in the i386 table, and semget in the other.
    let at = recs.iter().position(|rec| rec.body() == Body::Emul(b"linux32")).unwrap();
    assert!(matches!(recs[at + 1].body(), Body::Syscall { code: 64, .. }), "{:#?}", recs[at + 1]);
}

#[test]
fn hazard_10_handlers_are_told_for_caught_signals_and_ignored_ones_make_no_record() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    // Without system call stops too: the handlers were installed before the attach.
    for facs in ["psig", "default"] {
        let mut tracee = Tracee::start("signals", &[]);
        let pid = tracee.pid();
        mount.set(pid, &format!("set {facs}\n"));
        let mut stream = mount.trace(pid);
        tracee.go();
        let recs = stream.rest();
        let out = tracee.running.output();
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        let handler = u64::from_str_radix(printed.trim().trim_start_matches("0x"), 16).unwrap();
        let seen: Vec<(i32, u64, u32, i32)> = recs
            .iter()
            .filter_map(|rec| match rec.body() {
                Body::Psig(Psig { signo, action, mask, code, .. }) => Some((signo, action, mask[0], code)),
                _ => None,
            })
            .collect();
        // SIGHUP is blocked throughout; NetBSD's code for tgkill(2) is -5.
        let expected = [(libc::SIGUSR1, handler, 1, -5), (40, handler, 1, -5), (libc::SIGTERM, 0, 1, -5)];
        assert_eq!(seen, expected);
        let ended = std::os::unix::process::ExitStatusExt::signal(&out.status);
        assert_eq!(ended, Some(libc::SIGTERM), "the handlers ran, and the last signal was delivered");
    }
}

#[test]
fn hazard_11_memory_that_is_not_there_shortens_the_record_and_no_more() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("faults", &[]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall,sysret,namei,genio\n");
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    assert!(tracee.running.wait().success());
    assert_eq!(recs.iter().filter(|rec| rec.call() == Some("access")).count(), 4);
    // The C library gives an empty one to fstat(2).
    let is_path = |rec: &&Rec| matches!(rec.body(), Body::Namei(path) if !path.is_empty());
    let paths: Vec<&Rec> = recs.iter().filter(is_path).collect();
    assert!(paths.len() == 1 && paths[0].is_path("/end"), "{paths:#?}");
    let moved = recs.iter().find_map(|rec| rec.result().filter(|(call, _)| *call == "write")).unwrap().1;
    let shown = recs.iter().find_map(|rec| match rec.body() {
        Body::Genio { write: true, data, .. } => Some(data.len() as i64),
        _ => None,
    });
    assert_eq!(shown.unwrap_or(0), moved.max(0));
}

#[test]
fn hazard_11_memory_whose_fault_never_ends_holds_up_nobody_else() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut stuck = Running::spawn(
        Command::new(crate::support::tracee::program("stuck")).stdin(Stdio::piped()).stdout(Stdio::piped()),
    );
    let mut ready = [0; 6];
    std::io::Read::read_exact(stuck.0.stdout.as_mut().unwrap(), &mut ready).unwrap();
    mount.set(stuck.pid(), "set syscall,namei\n");
    stuck.say("\n");
    let mut stream = mount.trace(stuck.pid());
    stream.until("the call", |rec| rec.call() == Some("access"));
    // Its own tracer waits for the page now. Another process, and the unmount at the end, do not.
    let mut other = Tracee::start("calls", &[]);
    mount.set(other.pid(), "set syscall\n");
    let mut others = mount.trace(other.pid());
    other.go();
    others.rest();
}

/// A user of the machine that is not root.
const NOBODY: u32 = 65534;

fn as_user(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

#[test]
fn hazard_14_a_set_id_exec_ends_the_users_trace_before_its_first_record() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let id = copy(mount.scratch(), "/usr/bin/id", "id", 0o4755);
    let mut shell = Command::new("sh");
    shell.args(["-c", "read x; exec \"$0\" -u"]).arg(&id);
    let mut tracee = Tracee::command(as_user(&mut shell));
    let pid = tracee.pid();
    let ctl = mount.path(format!("{pid}/ctl"));
    let set = format!("echo set all > {}", ctl.display());
    let status = as_user(Command::new("sh").args(["-c", &set])).status().unwrap();
    assert!(status.success(), "{}", mount.read("error_log"));
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    let out = tracee.running.output();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "0\n", "the program has its privilege");
    // It may be switched out between its call and the new program.
    let is_switch = |rec: &Rec| matches!(rec.body(), Body::Csw { .. });
    assert!(recs.iter().all(|rec| rec.header.stamp.comm.as_bytes() == b"sh"), "{recs:#?}");
    let last = recs.iter().rfind(|rec| !rec.is_of_stream() && !is_switch(rec)).unwrap();
    assert!(last.is_path(&id.display().to_string()), "the last record is the path of the exec: {last:#?}");
    assert!(mount.read(format!("{pid}/ctl")).starts_with("clear") || !mount.path(pid.to_string()).exists());
}

#[test]
fn hazard_17_an_untraced_child_is_told_of() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("forks", &[]);
    let pid = tracee.pid();
    mount.set(pid, "set syscall,sysret +inherit\n");
    let mut stream = mount.trace(pid);
    tracee.go();
    let recs = stream.rest();
    assert_eq!(String::from_utf8_lossy(&tracee.running.output().stdout), "12\n");
    let mut children: Vec<i32> = recs.iter().map(Rec::pid).filter(|&p| p != pid).collect();
    children.dedup();
    // The one that ptrace is kept away from is a child like others for whom nobody must stop.
    assert_eq!(children.len(), if IS_EBPF { 4 } else { 3 }, "fork, vfork and clone: {recs:#?}");
    let told = recs.iter().any(|rec| match rec.body() {
        Body::User { id: b"ktracefs", data } => data.ends_with(b"is not traced: CLONE_UNTRACED"),
        _ => false,
    });
    assert_eq!(told, !IS_EBPF, "{recs:#?}");
}

#[test]
fn hazard_17_a_child_for_which_descriptors_are_wanting_is_told_of() {
    only_on!("ptrace", "the kernel says who a child is");
    need!("fuse", "ptrace", "prlimit");
    let mount = Mount::new();
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", "read x; sleep 0; exit 7"]));
    let pid = tracee.pid();
    mount.set(pid, "set psig +inherit\n");
    let mut stream = mount.trace(pid);
    let limit = |limit: &str| {
        let daemon = mount.daemon().to_string();
        assert!(Command::new("prlimit").args(["--pid", &daemon, limit]).status().unwrap().success());
    };
    limit("--nofile=1:");
    tracee.go();
    let ends = tracee.running.wait();
    limit("--nofile=1024:");
    assert_eq!(ends.code(), Some(7));
    let recs = stream.rest();
    let told = recs.iter().any(|rec| match rec.body() {
        Body::User { id: b"ktracefs", data } => data.ends_with(b"is not traced: EMFILE"),
        _ => false,
    });
    assert!(told, "{recs:#?}");
    assert!(mount.log().contains("is not traced"), "{}", mount.log());
}

#[test]
fn hazard_18_another_tracer_is_named() {
    only_on!("ptrace", "a process has one tracer and any number of such watchers");
    need!("fuse", "ptrace", "strace");
    let mount = Mount::new();
    let sleep = Running::spawn(Command::new("sleep").arg("1000"));
    let pid = sleep.pid().to_string();
    let mut strace = Running::spawn(Command::new("strace").args(["-p", &pid]).stderr(Stdio::null()));
    wait_for("strace to attach", || ktrace::proc::tracer_of(sleep.pid()) != 0);
    let (errno, why) = mount.refused(sleep.pid(), "set default\n");
    assert_eq!(errno, libc::EBUSY);
    assert!(why.contains(&format!("process {} traces it", strace.pid())), "{why}");
    strace.signal(nix::sys::signal::Signal::SIGINT);
    strace.wait();
    mount.set(sleep.pid(), "set default\n");
}
