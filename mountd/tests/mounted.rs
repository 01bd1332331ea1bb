//! The real daemon, mounted: who waits can be ended, and what was mounted goes away.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::explicit_write,
    reason = "a test fails where it is; a skip is said past the runner"
)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

use support::{Mount, PROGRAM, Running, has, output, wait_for};

/// How soon a signal must end a waiting reader.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A mount, or the end of the test where there can be none.
macro_rules! mounted {
    ($($args:expr)?) => {
        match Mount::new(&[$($args)?]) {
            Some(mount) => mount,
            None => return,
        }
    };
}

fn errno_of<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("it should fail").raw_os_error().expect("an errno")
}

fn ends_at_once(reader: &mut Running, signal: Signal) {
    reader.is_waiting();
    let sent = Instant::now();
    reader.signal(signal);
    let status = reader.wait();
    let took = sent.elapsed();
    assert_eq!(status.signal(), Some(signal as i32));
    assert!(took < AT_ONCE, "{signal} took {took:?}");
}

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL];

#[test]
fn signals_end_a_waiting_reader_at_once() {
    let mount = mounted!();
    let target = Running::idle();
    for file in ["trace", "text"] {
        for signal in ENDING {
            ends_at_once(&mut mount.cat(&mount.file(target.pid(), file)), signal);
        }
    }
    let begun = Instant::now();
    let status =
        output(Command::new("timeout").arg("0.2").arg("cat").arg(mount.file(target.pid(), "trace"))).status;
    assert_eq!(status.code(), Some(124));
    assert!(begun.elapsed() < Duration::from_millis(200) + AT_ONCE);
}

/// Stops a process as `strace -p` and gdb do, and lets it go.
fn attach_and_release(pid: i32) {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(pid).unwrap();
    wait_for("the reader's stop", || {
        matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap(), WaitStatus::PtraceEvent(..))
    });
    ptrace::detach(pid, None).unwrap();
}

#[test]
fn a_tracer_that_attaches_to_a_reader_wedges_nobody() {
    let mount = mounted!();
    let target = Running::idle();
    let trace = mount.file(target.pid(), "trace");
    let mut other = mount.cat(&trace);
    let mut touched = mount.cat(&trace);
    for _ in 0..3 {
        attach_and_release(touched.pid());
        touched.is_waiting();
    }
    ends_at_once(&mut other, Signal::SIGINT);
    for signal in ENDING {
        ends_at_once(&mut mount.cat(&trace), signal);
    }
    ends_at_once(&mut touched, Signal::SIGTERM);
}

#[test]
fn strace_of_a_waiting_reader_wedges_nobody() {
    if !has("strace") {
        return;
    }
    let mount = mounted!();
    let target = Running::idle();
    let trace = mount.file(target.pid(), "trace");
    let mut reader = mount.cat(&trace);
    let log = mount.point().with_extension("strace");
    let mut strace = Running::spawn(
        Command::new("strace")
            .arg("-o")
            .arg(&log)
            .arg("-p")
            .arg(reader.pid().to_string())
            .stderr(Stdio::null()),
    );
    wait_for("strace to see the read", || fs::read_to_string(&log).unwrap_or_default().contains("read("));
    ends_at_once(&mut mount.cat(&trace), Signal::SIGINT);
    strace.signal(Signal::SIGINT);
    strace.wait();
    ends_at_once(&mut reader, Signal::SIGKILL);
}

#[test]
fn gdb_of_a_waiting_reader_wedges_nobody() {
    if !has("gdb") {
        return;
    }
    let mount = mounted!();
    let target = Running::idle();
    let trace = mount.file(target.pid(), "trace");
    let mut reader = mount.cat(&trace);
    let pid = reader.pid().to_string();
    let status = output(Command::new("gdb").args(["-nx", "-batch", "-p", &pid, "-ex", "detach"])).status;
    assert!(status.success(), "{status}");
    ends_at_once(&mut mount.cat(&trace), Signal::SIGTERM);
    ends_at_once(&mut reader, Signal::SIGINT);
}

#[test]
fn a_stopped_reader_can_be_continued_and_ended() {
    let mount = mounted!();
    let target = Running::idle();
    let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
    reader.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", reader.pid());
    wait_for("the stop", || fs::read_to_string(&stat).unwrap().contains(") T "));
    reader.signal(Signal::SIGCONT);
    ends_at_once(&mut reader, Signal::SIGINT);
}

#[test]
fn many_waiting_readers_hinder_nobody() {
    let mount = mounted!();
    let target = Running::idle();
    let trace = mount.file(target.pid(), "trace");
    let mut readers: Vec<Running> =
        (0..100).map(|_| Running::spawn(Command::new("cat").arg(&trace))).collect();
    readers.iter().for_each(Running::is_waiting);
    assert!(mount.path("README").metadata().is_ok());
    for (reader, signal) in readers.iter_mut().zip(ENDING.into_iter().cycle()) {
        ends_at_once(reader, signal);
    }
}

#[test]
fn a_reader_of_an_untraced_process_gets_eof_when_it_dies() {
    let mount = mounted!();
    let mut target = Running::idle();
    let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
    let polled = File::open(mount.file(target.pid(), "trace")).unwrap();
    let mut fds = [PollFd::new(polled.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0));
    target.signal(Signal::SIGKILL);
    assert!(reader.wait().success(), "EOF, and not an error");
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)), Ok(1));
    assert!(fds[0].revents().unwrap().contains(PollFlags::POLLHUP));
    target.wait();
}

#[test]
fn a_nonblocking_read_gives_eagain_also_when_the_flag_is_set_later() {
    let mount = mounted!();
    let target = Running::idle();
    let trace = mount.file(target.pid(), "trace");
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&trace).unwrap();
    assert_eq!(errno_of(file.read(&mut [0; 100])), libc::EAGAIN);
    let mut file = File::open(&trace).unwrap();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    assert_eq!(errno_of(file.read(&mut [0; 100])), libc::EAGAIN);
}

#[test]
fn the_tree_is_as_documented() {
    let mount = mounted!();
    let mut target = Running::idle();
    let names: Vec<String> = fs::read_dir(mount.point())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["README", "ctl", "stat", "error_log", "self", "1", &target.pid().to_string()] {
        assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
    }
    let dir = mount.path(target.pid().to_string());
    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["ctl", "stat", "text", "trace", "user"]);
    for file in files {
        let meta = dir.join(file).metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, 0));
    }
    assert_eq!(mount.path("stat").metadata().unwrap().permissions().mode() & 0o777, 0o444);
    let me = std::process::id().to_string();
    assert_eq!(fs::read_link(mount.path("self")).unwrap().to_str(), Some(me.as_str()));
    for name in ["nosuch", "0", "01", "+1", "-1", "4294967297", "1 "] {
        assert_eq!(errno_of(mount.path(name).metadata()), libc::ENOENT, "{name}");
    }
    assert_eq!(errno_of(File::create(mount.path("new"))), libc::EACCES);
    target.signal(Signal::SIGKILL);
    target.wait();
    assert_eq!(errno_of(dir.metadata()), libc::ENOENT);
}

#[test]
fn self_is_the_process_also_for_its_threads_and_a_thread_has_no_directory() {
    let mount = mounted!();
    let tid = nix::unistd::gettid();
    assert_ne!(tid, nix::unistd::getpid(), "tests run in threads");
    let me = std::process::id().to_string();
    assert_eq!(fs::read_link(mount.path("self")).unwrap().to_str(), Some(me.as_str()));
    assert_eq!(errno_of(mount.path(tid.to_string()).metadata()), libc::ENOENT);
}

#[test]
fn an_open_ctl_of_a_dead_process_is_esrch() {
    let mount = mounted!();
    let mut target = Running::idle();
    let mut ctl = OpenOptions::new().write(true).open(mount.file(target.pid(), "ctl")).unwrap();
    target.signal(Signal::SIGKILL);
    target.wait();
    assert_eq!(errno_of(ctl.write(b"clear")), libc::ESRCH);
}

#[test]
fn a_failed_command_is_explained_in_error_log() {
    let mount = mounted!();
    let target = Running::idle();
    let ctl = mount.file(target.pid(), "ctl");
    assert_eq!(errno_of(fs::write(&ctl, "set sycall\n")), libc::EINVAL);
    let log = fs::read_to_string(mount.path("error_log")).unwrap();
    let mut lines = log.lines();
    let (line, carets) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(line.ends_with("set sycall"), "{log}");
    assert_eq!(carets.find('^'), line.find("sycall"), "{log}");
    assert!(lines.next().unwrap().starts_with("EINVAL: "), "{log}");
    // Truncated, appended to, at any place of the file: only the line counts.
    for mut options in
        [OpenOptions::new().append(true).to_owned(), OpenOptions::new().write(true).truncate(true).to_owned()]
    {
        let mut file = options.open(&ctl).unwrap();
        assert_eq!(errno_of(file.write(b"bogus")), libc::EINVAL);
        assert_eq!(file.write(b"clear\n").unwrap(), 6);
        assert_eq!(file.write(b"clear\nclear\nbogus\n").unwrap(), 12, "short, before the line that fails");
        assert_eq!(errno_of(file.write(b"bogus\n")), libc::EINVAL);
        options.create(true);
    }
    for _ in 0..20 {
        assert!(fs::write(&ctl, "bogus").is_err());
    }
    let log = fs::read_to_string(mount.path("error_log")).unwrap();
    assert_eq!(log.matches("EINVAL").count(), 8, "the last ones");
}

#[test]
fn another_user_sees_the_list_and_nothing_else() {
    let mount = mounted!();
    let parent = mount.point().parent().unwrap().to_owned();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
    let target = Running::idle();
    let cat = |file: &str| {
        output(Command::new("cat").arg(mount.file(target.pid(), file)).uid(65534).gid(65534)).status.success()
    };
    for file in ["trace", "text", "ctl", "stat"] {
        assert!(!cat(file), "{file}");
    }
    assert!(output(Command::new("ls").arg(mount.point()).uid(65534).gid(65534)).status.success());
    let log = output(Command::new("cat").arg(mount.path("error_log")).uid(65534).gid(65534));
    assert!(log.status.success() && log.stdout.is_empty());
}

#[test]
fn umount_ends_the_daemon() {
    let mut mount = mounted!();
    umount(&mount.point()).unwrap();
    assert!(mount.daemon.as_mut().unwrap().wait().success());
}

#[test]
fn a_lazy_umount_gives_readers_eof_and_ends_the_daemon() {
    let mut mount = mounted!();
    let target = Running::idle();
    let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
    assert_eq!(umount(&mount.point()), Err(nix::errno::Errno::EBUSY));
    umount2(&mount.point(), MntFlags::MNT_DETACH).unwrap();
    assert!(reader.wait().success());
    assert!(mount.daemon.as_mut().unwrap().wait().success());
}

#[test]
fn sigterm_gives_readers_eof_unmounts_and_ends_the_daemon_in_two_seconds() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut mount = mounted!();
        let target = Running::idle();
        let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
        // Somebody who keeps a file open cannot hold the daemon up.
        let kept = File::open(mount.file(target.pid(), "trace")).unwrap();
        let sent = Instant::now();
        mount.daemon.as_ref().unwrap().signal(signal);
        assert!(reader.wait().success());
        assert!(mount.daemon.as_mut().unwrap().wait().success());
        assert!(sent.elapsed() < Duration::from_secs(2));
        assert!(!mount.is_mounted());
        drop(kept);
    }
}

#[test]
fn what_a_killed_daemon_left_is_cleared() {
    let mut mount = mounted!();
    let target = Running::idle();
    let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
    let daemon = mount.daemon.as_mut().unwrap();
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(!reader.wait().success(), "ECONNABORTED");
    assert_eq!(errno_of(mount.point().metadata()), libc::ENOTCONN);
    mount.start(&[]);
    assert!(mount.path("README").exists());
    umount(&mount.point()).unwrap();
    assert!(!mount.is_mounted(), "only one is there");
}

#[test]
fn a_second_mount_on_the_same_place_is_refused() {
    let mount = mounted!();
    let second = output(Command::new(PROGRAM).arg(mount.point()));
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is mounted there"));
    assert!(mount.path("README").exists());
}

/// The daemon of a mount that was started in the background.
fn daemon_of(mount: &Mount) -> i32 {
    let point = mount.point();
    let name = point.to_str().unwrap();
    let found = fs::read_dir("/proc").unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_it = cmdline.split(|b| *b == 0).any(|word| word == name.as_bytes());
        entry.file_name().to_str()?.parse().ok().filter(|_| is_it)
    });
    found.expect("a daemon runs")
}

#[test]
fn in_the_background_the_parent_returns_when_it_is_mounted() {
    let Some(mount) = Mount::point_only() else { return };
    let started = output(Command::new(PROGRAM).arg(mount.point()));
    assert!(started.status.success(), "{started:?}");
    assert!(mount.path("README").exists());
    let daemon = daemon_of(&mount);
    assert_eq!(fs::read_to_string(format!("/proc/{daemon}/comm")).unwrap(), "ktracefs\n");
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap().to_str(), Some("/"));
    for fd in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{daemon}/fd/{fd}")).unwrap().to_str(), Some("/dev/null"));
    }
    let sid = nix::unistd::getsid(Some(Pid::from_raw(daemon))).unwrap();
    assert_eq!(sid.as_raw(), daemon, "a session of its own");
    umount(&mount.point()).unwrap();
    wait_for("the daemon's end", || !fs::exists(format!("/proc/{daemon}")).unwrap());
}

#[test]
fn what_goes_wrong_in_the_background_is_said_in_front() {
    let Some(mount) = Mount::point_only() else { return };
    for (place, words) in [(mount.path("nosuch"), "No such file"), ("/etc/passwd".into(), "not a directory")]
    {
        let started = output(Command::new(PROGRAM).arg(&place));
        assert_eq!(started.status.code(), Some(1), "{place:?}");
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(said.starts_with("ktracefs: ") && said.contains(words), "{said}");
    }
}

#[test]
fn as_a_helper_of_mount_it_mounts_and_pretends() {
    let Some(mount) = Mount::point_only() else { return };
    let helper = mount.point().with_file_name("mount.ktracefs");
    symlink(PROGRAM, &helper).unwrap();
    let run = |options: &[&str]| {
        output(Command::new(&helper).arg("none").arg(mount.point()).args(options)).status.code()
    };
    assert_eq!(run(&["-f", "-o", "rw"]), Some(0));
    assert!(!mount.is_mounted(), "-f only pretends");
    assert_eq!(run(&["-n", "-v", "-o", "rw,nosuchoption"]), Some(2));
    assert_eq!(run(&["-n", "-v", "-o", "rw,dev,suid,size=1M"]), Some(0));
    assert!(mount.path("README").exists());
    let daemon = daemon_of(&mount);
    umount(&mount.point()).unwrap();
    wait_for("the daemon's end", || !fs::exists(format!("/proc/{daemon}")).unwrap());
}
