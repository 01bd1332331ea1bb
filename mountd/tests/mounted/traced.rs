//! Streams of processes that are traced: what wakes when, and who may be traced himself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;

use crate::support::{Mount, Running, has, mounted, output, wait_for};

/// A process that makes a system call or two when told to, and ends when it is told nothing more.
struct Tracee(Running);

impl Tracee {
    fn new() -> Tracee {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Tracee(Running::spawn(&mut command))
    }

    fn pid(&self) -> i32 {
        self.0.pid()
    }

    fn poke(&mut self) {
        child(&mut self.0).stdin.as_mut().unwrap().write_all(b"x").unwrap();
    }

    fn ends(mut self) {
        drop(child(&mut self.0).stdin.take());
        self.0.wait();
    }
}

fn child(running: &mut Running) -> &mut Child {
    &mut running.0
}

fn ctl(mount: &Mount, pid: i32, line: &str) {
    if let Err(err) = fs::write(mount.file(pid, "ctl"), line) {
        panic!("{line}: {err}\n{}", fs::read_to_string(mount.path("error_log")).unwrap());
    }
}

/// Reads until EAGAIN or EOF; false at EOF.
fn drain(file: &mut File) -> bool {
    let mut buf = [0; 4096];
    loop {
        match file.read(&mut buf) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return true,
            Err(err) => panic!("{err}"),
        }
    }
}

#[test]
fn a_reader_that_waited_before_set_sees_records_as_they_happen() {
    let mount = mounted!();
    let mut tracee = Tracee::new();
    let mut reader = mount.cat(&mount.file(tracee.pid(), "text"));
    ctl(&mount, tracee.pid(), "set syscall,sysret\n");
    let calls = || mount.read().matches("CALL  read(").count();
    for _ in 0..3 {
        let before = calls();
        tracee.poke();
        wait_for("the call in the text", || calls() > before);
    }
    tracee.ends();
    assert!(reader.wait().success(), "EOF");
    assert!(mount.read().lines().all(|line| line.contains(" cat ")), "whole lines only");
}

#[test]
fn an_edge_triggered_epoll_hears_of_every_record() {
    let mount = mounted!();
    let mut tracee = Tracee::new();
    let trace = mount.file(tracee.pid(), "trace");
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(trace).unwrap();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    epoll.add(&file, EpollEvent::new(edge, 0)).unwrap();
    let mut events = [EpollEvent::empty()];
    assert_eq!(epoll.wait(&mut events, 0u16), Ok(0), "no sink yet");
    ctl(&mount, tracee.pid(), "set syscall\n");
    for i in 0..20 {
        tracee.poke();
        assert_eq!(epoll.wait(&mut events, 10_000u16), Ok(1), "edge {i}");
        assert!(drain(&mut file));
        // Edges of the same poke that came while it was drained.
        while epoll.wait(&mut events, 20u16).unwrap() > 0 {
            drain(&mut file);
        }
    }
    tracee.ends();
    wait_for("EOF", || epoll.wait(&mut events, 1000u16).unwrap() > 0 && !drain(&mut file));
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
    assert!(fds[0].revents().unwrap().contains(PollFlags::POLLIN | PollFlags::POLLHUP));
}

#[test]
fn a_reader_that_is_traced_itself_keeps_reading_and_can_be_ended() {
    let mount = mounted!();
    let mut tracee = Tracee::new();
    let mut reader = mount.cat(&mount.file(tracee.pid(), "text"));
    ctl(&mount, reader.pid(), "set default\n");
    ctl(&mount, tracee.pid(), "set syscall,sysret\n");
    tracee.poke();
    wait_for("the call in the text", || mount.read().contains("CALL  read("));
    ctl(&mount, reader.pid(), "clear\n");
    let before = mount.read().len();
    tracee.poke();
    wait_for("more of it", || mount.read().len() > before);
    ctl(&mount, reader.pid(), "set default\n");
    reader.is_waiting();
    let sent = Instant::now();
    reader.signal(Signal::SIGINT);
    reader.wait();
    assert!(sent.elapsed() < Duration::from_millis(100));
}

#[test]
fn a_reader_under_strace_keeps_reading() {
    if !has("strace") {
        return;
    }
    let mount = mounted!();
    let mut tracee = Tracee::new();
    let mut reader = mount.cat(&mount.file(tracee.pid(), "text"));
    let log = mount.point().with_extension("strace");
    let mut command = Command::new("strace");
    command.arg("-o").arg(&log).arg("-p").arg(reader.pid().to_string()).stderr(Stdio::null());
    let mut strace = Running::spawn(&mut command);
    let log = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("strace to see a read", || log().contains("read("));
    ctl(&mount, tracee.pid(), "set syscall\n");
    tracee.poke();
    wait_for("the call in the text", || mount.read().contains("CALL  read("));
    strace.signal(Signal::SIGINT);
    strace.wait();
    tracee.ends();
    assert!(reader.wait().success());
}

#[test]
fn a_large_read_is_one_request_and_whole_records() {
    let mount = mounted!();
    let mut shell = Command::new("sh");
    shell.args(["-c", "read go; exec dd if=/dev/zero of=/dev/null bs=4096 count=400"]);
    shell.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut tracee = Tracee(Running::spawn(&mut shell));
    ctl(&mount, tracee.pid(), "set genio size=8M\n");
    let mut trace = File::open(mount.file(tracee.pid(), "trace")).unwrap();
    child(&mut tracee.0).stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    tracee.ends();
    let mut buf = vec![0; 1 << 20];
    let len = trace.read(&mut buf).unwrap();
    assert!(len > 900 << 10, "{len} bytes of a mebibyte");
    let mut decoder = ktrace::record::Decoder::new();
    decoder.feed(&buf[..len]);
    while decoder.next_record().unwrap().is_some() {}
    decoder.finish().expect("whole records");
}

#[test]
fn the_end_of_the_daemon_lets_go_of_everything_it_traced() {
    let mut mount = mounted!();
    let mut tracee = Tracee::new();
    ctl(&mount, tracee.pid(), "set default\n");
    let status = format!("/proc/{}/status", tracee.pid());
    let is_traced = || !fs::read_to_string(&status).unwrap().contains("TracerPid:\t0\n");
    assert!(is_traced());
    let mut reader = mount.cat(&mount.file(tracee.pid(), "trace"));
    let sent = Instant::now();
    mount.daemon.as_ref().unwrap().signal(Signal::SIGTERM);
    assert!(mount.daemon.as_mut().unwrap().wait().success());
    assert!(sent.elapsed() < Duration::from_secs(2));
    assert!(!is_traced());
    assert!(reader.wait().success());
    tracee.poke();
    tracee.ends();
}

#[test]
fn a_shell_traces_itself() {
    let mount = mounted!();
    let script = format!(
        "m={}; cat $m/$$/text > {}/mine & echo 'set syscall,sysret,namei' > $m/$$/ctl || exit 1; \
         cd /usr; echo clear > $m/$$/ctl || exit 2; cat $m/$$/ctl",
        mount.point().display(),
        mount.point().parent().unwrap().display(),
    );
    let done = output(Command::new("sh").arg("-c").arg(script));
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.stdout, b"clear\n");
    let mine = mount.point().with_file_name("mine");
    wait_for("the shell's call", || fs::read_to_string(&mine).unwrap().contains("NAMI  \"/usr\""));
}
