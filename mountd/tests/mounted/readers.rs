//! Who waits for a record can be ended, always, and wakes when there is something.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::support::{Running, errno_of, has, mounted, output, wait_for};

/// How soon a signal must end a waiting reader.
const AT_ONCE: Duration = Duration::from_millis(100);

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL];

fn ends_at_once(reader: &mut Running, signal: Signal) {
    reader.is_waiting();
    let sent = Instant::now();
    reader.signal(signal);
    let status = reader.wait();
    let took = sent.elapsed();
    assert_eq!(status.signal(), Some(signal as i32));
    assert!(took < AT_ONCE, "{signal} took {took:?}");
}

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
    // What looks at its input first, as cat(1) does, reads to the end too.
    polled.metadata().unwrap();
    let late = Command::new("cat").stdin(polled).output().unwrap();
    assert!(late.status.success() && late.stdout.is_empty(), "{late:?}");
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
