//! `fd=`: a trace into the caller's own descriptor, and `ktrace -f FILE`, which hands its file over.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use ktrace::record::Body;
use nix::sys::signal::Signal;

use crate::support::mount::Mount;
use crate::support::stream::{Rec, decode};
use crate::support::tracee::Tracee;
use crate::support::user::{AS_A, AS_B, under};
use crate::support::{Running, command, need, output, stdout, wait_for};

fn ktrace(mount: &Mount, args: &[&str]) -> std::process::Output {
    output(command("ktrace").env("KTRACE_MOUNT", mount.point()).args(args))
}

fn idle() -> Running {
    Running::spawn(Command::new("sleep").arg("1000").stdout(Stdio::null()))
}

/// Calls whose ends are in the file so far.
fn calls(path: &std::path::Path) -> usize {
    let bytes = fs::read(path).unwrap_or_default();
    let mut decoder = ktrace::record::Decoder::new();
    decoder.feed(&bytes);
    let mut count = 0;
    while let Some(record) = decoder.next_record().unwrap() {
        count += usize::from(matches!(record.body(), Body::Sysret { .. }));
    }
    count
}

#[test]
fn ktrace_of_a_process_returns_at_once_and_tracing_goes_on() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let file = mount.scratch().join("out");
    let name = file.to_str().unwrap();
    let busy = Running::spawn(Command::new("sh").args(["-c", "while :; do sleep 0.01; done"]));
    let pid = busy.pid().to_string();
    assert!(ktrace(&mount, &["-i", "-f", name, "-p", &pid]).status.success());
    wait_for("calls after ktrace has ended", || calls(&file) > 100);
    // A second one adds to the same file instead of emptying it.
    let other = Running::spawn(Command::new("sh").args(["-c", "while :; do sleep 0.01; done"]));
    assert!(ktrace(&mount, &["-a", "-f", name, "-p", &other.pid().to_string()]).status.success());
    let both = |bytes: &[u8]| {
        let whole = decode_whole(bytes);
        [busy.pid(), other.pid()].iter().all(|pid| whole.iter().any(|rec| rec.pid() == *pid))
    };
    wait_for("records of both", || both(&fs::read(&file).unwrap()));
    // By the file itself, which ends both.
    assert!(ktrace(&mount, &["-c", "-f", name]).status.success());
    for pid in [busy.pid(), other.pid()] {
        assert_eq!(mount.read(format!("{pid}/ctl")), "clear\n");
    }
    wait_for("a file without part of a record", || {
        let mut decoder = ktrace::record::Decoder::new();
        decoder.feed(&fs::read(&file).unwrap());
        while decoder.next_record().unwrap().is_some() {}
        decoder.finish().is_ok()
    });
    assert!(stdout(command("kdump").arg("-f").arg(&file)).contains("CALL"));
}

#[test]
fn a_second_ktrace_into_the_same_file_leaves_whole_records() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let file = mount.scratch().join("out");
    let name = file.to_str().unwrap();
    let busy = || Running::spawn(Command::new("sh").args(["-c", "while :; do sleep 0.01; done"]));
    let (first, second) = (busy(), busy());
    assert!(ktrace(&mount, &["-i", "-f", name, "-p", &first.pid().to_string()]).status.success());
    wait_for("calls", || calls(&file) > 100);
    // It empties the file, and what is traced into it goes on there.
    assert!(ktrace(&mount, &["-i", "-f", name, "-p", &second.pid().to_string()]).status.success());
    wait_for("both again", || {
        let recs = decode_whole(&fs::read(&file).unwrap());
        [&first, &second].iter().all(|p| recs.iter().any(|rec| rec.pid() == p.pid()))
    });
    assert!(ktrace(&mount, &["-c", "-f", name]).status.success());
    wait_for("a file of whole records", || {
        let bytes = fs::read(&file).unwrap();
        let whole: usize = decode_whole(&bytes).iter().map(Rec::len).sum();
        whole == bytes.len()
    });
}

#[test]
fn two_users_share_no_trace_file() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let file = mount.scratch().join("out");
    fs::set_permissions(mount.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let set = |caller: &str, pid: i32, file: &std::path::Path| {
        let mut shell = under(caller);
        let script = "echo 'set syscall fd=7' 7>>\"$2\" > \"$0/$1/ctl\" || cat \"$0/error_log\"";
        shell.args(["bash", "-p", "-c", script]).arg(mount.point()).arg(pid.to_string()).arg(file);
        stdout(&mut shell)
    };
    let sleep = |caller: &str| {
        let sleep = Running::spawn(under(caller).args(["sleep", "1000"]).stdout(Stdio::null()));
        let comm = format!("/proc/{}/comm", sleep.pid());
        wait_for("the user's own program", || fs::read_to_string(&comm).is_ok_and(|comm| comm == "sleep\n"));
        sleep
    };
    let (of_a, of_b, of_root) = (sleep(AS_A), sleep(AS_B), sleep(""));
    let sink = |process: &Running| {
        let stat = mount.read(format!("{}/stat", process.pid()));
        stat.lines().find_map(|line| line.strip_prefix("trace_file ")).unwrap().to_owned()
    };
    assert_eq!(set(AS_A, of_a.pid(), &file), "");
    for (caller, process) in [(AS_B, &of_b), ("", &of_root)] {
        let said = set(caller, process.pid(), &file);
        assert!(said.contains("EACCES") && said.contains("uid 61001"), "{said}");
    }
    // A device keeps nothing: each has one of their own.
    let null = std::path::Path::new("/dev/null");
    for (caller, process) in [(AS_A, &of_a), (AS_B, &of_b), ("", &of_root)] {
        assert_eq!(set(caller, process.pid(), null), "");
    }
    assert!(sink(&of_a) != sink(&of_b) && sink(&of_b) != sink(&of_root));
}

#[test]
fn a_terminal_is_the_one_that_is_meant() {
    need!("fuse", "ptrace", "python3");
    let mount = Mount::new();
    // Each session writes into /dev/tty, a name that all terminals share.
    let source = "import os, pty, sys
point = sys.argv[1]
seen = []
sessions = [pty.fork() for _ in range(1)]
def session(word):
    pid, master = pty.fork()
    if pid == 0:
        os.execvp('bash', ['bash', '-c', 'stty raw -echo; exec 9>/dev/tty; echo set namei +inherit fd=9 > $0/$$/ctl && : < /nosuch/$1; echo clear > $0/$$/ctl; echo over', point, word])
    return master
def all(master):
    got = b''
    while b'over' not in got:
        got += os.read(master, 65536)
    return got
masters = [session('one'), session('two')]
got = [all(m) for m in masters]
print([[w in g for w in (b'/nosuch/one', b'/nosuch/two')] for g in got])
m, s = os.openpty()
ctl = os.open(point + '/self/ctl', os.O_WRONLY)
try:
    os.write(ctl, b'set namei fd=%d' % m)
except OSError as e:
    print(e.errno)
";
    let source = source.replace("sessions = [pty.fork() for _ in range(1)]\n", "");
    let said = stdout(Command::new("python3").args(["-c", &source]).arg(mount.point()));
    assert_eq!(said, format!("[[True, False], [False, True]]\n{}\n", libc::EINVAL));
}

/// The records that are whole: the last may just be on its way.
fn decode_whole(bytes: &[u8]) -> Vec<Rec> {
    let mut at = 0;
    while let Ok(Some(header)) = ktrace::record::decode_header(&bytes[at..]) {
        let next = at + ktrace::record::HEADER_LEN + header.len;
        if next > bytes.len() {
            break;
        }
        at = next;
    }
    decode(&bytes[..at])
}

#[test]
fn ktrace_of_a_command_returns_with_the_command_though_children_go_on() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let file = mount.scratch().join("out");
    let script = "sleep 1000 > /dev/null 2>&1 & echo $!; exit 3";
    let mut tool = command("ktrace");
    tool.env("KTRACE_MOUNT", mount.point()).args(["-i", "-f", file.to_str().unwrap(), "sh", "-c", script]);
    // Kept to the end of the test: with it goes what it has left running.
    let mut tool = Running::spawn(tool.stdin(Stdio::null()).stdout(Stdio::piped()));
    assert_eq!(tool.wait().code(), Some(3));
    let mut child = String::new();
    tool.0.stdout.take().unwrap().read_to_string(&mut child).unwrap();
    let child: i32 = child.trim().parse().unwrap();
    let recs = decode(&fs::read(&file).unwrap());
    assert!(recs.iter().any(|rec| rec.call() == Some("exit_group")), "all is there at the end");
    assert!(mount.read(format!("{child}/ctl")).starts_with("set "));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
    wait_for("the signal that ended the child", || {
        let recs = decode_whole(&fs::read(&file).unwrap());
        recs.iter().any(|rec| rec.pid() == child)
    });
}

#[test]
fn r26_the_file_is_a_regular_one_made_if_need_be_and_emptied_or_appended_to() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let dir = mount.scratch();
    let fifo = dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let out = ktrace(&mount, &["-f", fifo.to_str().unwrap(), "true"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("regular file"), "{out:?}");

    let (file, link) = (dir.join("file"), dir.join("link"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let run = |append: &[&str]| {
        let args = [append, &["-t", "a", "-f", link.to_str().unwrap(), "true"]].concat();
        assert!(ktrace(&mount, &args).status.success());
        let recs = decode(&fs::read(&file).unwrap());
        recs.iter().filter(|rec| matches!(rec.body(), Body::ExecArg(_))).count()
    };
    assert_eq!(run(&[]), 1, "made through the link");
    assert_eq!(run(&[]), 1, "emptied first");
    assert_eq!(run(&["-a"]), 2, "appended");
}

#[test]
fn a_full_disk_ends_tracing_with_one_line_in_the_log_and_no_torn_record() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let disk = mount.scratch().join("disk");
    fs::create_dir(&disk).unwrap();
    let small = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&disk).status();
    assert!(small.unwrap().success());
    let file = disk.join("out");
    let fd = File::create(&file).unwrap();
    let busy = Running::spawn(Command::new("sh").args(["-c", "while :; do :; kill -0 $$; done"]));
    let root_joined = idle();
    for pid in [root_joined.pid(), busy.pid()] {
        mount.set(pid, &format!("set default fd={}", fd.as_raw_fd()));
    }
    for pid in [root_joined.pid(), busy.pid()] {
        wait_for("the end of tracing", || mount.read(format!("{pid}/ctl")) == "clear\n");
    }
    wait_for("the file to be let go", || {
        let mut fds = fs::read_dir(format!("/proc/{}/fd", mount.daemon())).unwrap();
        !fds.any(|fd| fs::read_link(fd.unwrap().path()).is_ok_and(|name| name == file))
    });
    let recs = decode(&fs::read(&file).unwrap());
    assert!(recs.len() > 100, "{}", recs.len());
    let said = |log: &str| log.matches("ktrace write failed, errno 28, tracing stopped").count();
    assert_eq!(said(&mount.log()), 1, "{}", mount.log());
    drop(fd);
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
}

#[test]
fn a_pipe_whose_reader_leaves_ends_tracing_in_silence() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let busy = Running::spawn(Command::new("sh").args(["-c", "while :; do :; kill -0 $$; done"]));
    let (mut reader, writer) = std::io::pipe().unwrap();
    mount.set(busy.pid(), &format!("set default fd={}", writer.as_raw_fd()));
    drop(writer);
    let mut some = [0; 1000];
    reader.read_exact(&mut some).unwrap();
    drop(reader);
    wait_for("the end of tracing", || mount.read(format!("{}/ctl", busy.pid())) == "clear\n");
    assert!(!mount.log().contains("write failed"), "{}", mount.log());
}

#[test]
fn a_terminal_stays_as_it_was_and_gets_the_records() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let flags = || nix::fcntl::fcntl(&pty.slave, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    let before = flags();
    let mut tracee = Tracee::start("calls", &[]);
    mount.set(tracee.pid(), &format!("set syscall fd={}", pty.slave.as_raw_fd()));
    tracee.go();
    let mut master = File::from(pty.master.try_clone().unwrap());
    let mut some = [0; 100];
    master.read_exact(&mut some).unwrap();
    assert_eq!(flags(), before);
}

#[test]
fn the_callers_descriptor_and_nobody_elses() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let tracee = idle();
    let read_only = File::open("/dev/null").unwrap();
    let line = |fd: &dyn AsRawFd| format!("set syscall fd={}", fd.as_raw_fd());
    let (errno, why) = mount.refused(tracee.pid(), &line(&read_only));
    assert_eq!(errno, libc::EBADF);
    assert!(why.contains("not open for writing"), "{why}");
    let ours = OpenOptions::new().write(true).open(mount.path("ctl")).unwrap();
    let (errno, why) = mount.refused(tracee.pid(), &line(&ours));
    assert_eq!(errno, libc::EINVAL);
    assert!(why.contains("file of this mount"), "{why}");
    // From another thread than the first, whose id is no process's.
    let path = mount.scratch().join("out");
    let file = File::create(&path).unwrap();
    std::thread::scope(|scope| scope.spawn(|| mount.set(tracee.pid(), &line(&file))).join().unwrap());
    assert!(mount.read(format!("{}/stat", tracee.pid())).contains(&format!("file {}", path.display())));
    let mut user = File::options().write(true).open(mount.path(format!("{}/user", tracee.pid()))).unwrap();
    mount.set(tracee.pid(), "set user");
    user.write_all(b"id data").unwrap();
    // What fsync(2) says is in the file, is.
    let trace = File::open(mount.path(format!("{}/trace", tracee.pid()))).unwrap();
    trace.sync_all().unwrap();
    let recs = decode(&fs::read(&path).unwrap());
    assert!(recs.iter().any(|rec| matches!(rec.body(), Body::User { id: b"id", .. })), "{recs:?}");
}

#[test]
fn who_waits_for_a_file_keeps_nobody_from_opening_a_trace() {
    /// Threads of the daemon for what may wait.
    const ALL: usize = 64;
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // A pipe that nobody reads, and that is full.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    let idle: Vec<Running> = (0..ALL).map(|_| idle()).collect();
    for process in &idle {
        mount.set(process.pid(), &format!("set user fd={}", writer.as_raw_fd()));
    }
    fs::write(mount.path(format!("{}/user", idle[0].pid())), b"id data").unwrap();
    let traces: Vec<File> = idle
        .iter()
        .map(|process| File::open(mount.path(format!("{}/trace", process.pid()))).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for trace in &traces {
            scope.spawn(|| trace.sync_all());
        }
        let busy = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", mount.daemon())).unwrap();
            tasks
                .flatten()
                .filter(|task| fs::read(task.path().join("comm")).unwrap_or_default() == b"ctl\n")
                .count()
        };
        wait_for("all of them to wait", || busy() == ALL);
        let (opened, open) = std::sync::mpsc::channel();
        let path = mount.path(format!("{}/trace", std::process::id()));
        std::thread::spawn(move || opened.send(File::open(path).map(drop)));
        // Half of the time for which they wait.
        let open = open.recv_timeout(std::time::Duration::from_secs(5));
        drop(reader);
        open.expect("it waits with them").unwrap();
    });
}
