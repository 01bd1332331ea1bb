//! Real programs, traced through the files, show what strace shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use ktrace::record::Body;
use ktrace::syscall::Abi;
use nix::sys::signal::Signal;

use crate::support::mount::Mount;
use crate::support::stream::{Rec, name};
use crate::support::tracee::{Tracee, program};
use crate::support::{DEADLINE, IS_EBPF, Running, WHOLE, command, need, output, stdout, wait_for};

/// The calls and their results of one thread, in order.
pub(crate) fn calls(recs: &[Rec], tid: i32) -> Vec<(&'static str, Option<i64>)> {
    let mut calls: Vec<(&str, Option<i64>)> = Vec::new();
    for rec in recs.iter().filter(|rec| rec.tid() == tid) {
        if let Some(call) = rec.call() {
            calls.push((call, None));
        } else if let Some((call, result)) = rec.result() {
            match calls.last_mut() {
                Some((begun, result_of @ None)) if *begun == call => *result_of = Some(result),
                _ => calls.push((call, Some(result))),
            }
        }
    }
    calls
}

#[test]
fn exactly_the_calls_of_a_program_with_their_results() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("calls", &[]);
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), "set default\n");
    tracee.go();
    let recs = trace.rest();
    assert!(matches!(recs[0].body(), Body::Emul(b"linux")), "{:?}", recs[0]);
    let (enoent, ebadf) = (-i64::from(libc::ENOENT), -i64::from(libc::EBADF));
    let mut got = calls(&recs, tracee.pid());
    // Attached in the middle of its first read: that call may show its end alone.
    assert_eq!(got.remove(0), ("read", Some(1)));
    let want = [
        ("openat", Some(enoent)),
        ("openat", Some(3)),
        ("write", Some(12)),
        ("read", Some(0)),
        ("close", Some(0)),
        ("close", Some(ebadf)),
        ("pipe2", Some(0)),
        ("write", Some(12)),
        ("read", Some(12)),
        ("getppid", Some(i64::from(std::process::id()))),
        ("exit_group", None),
    ];
    assert_eq!(got, want, "{recs:#?}");
    for path in ["/no/such/file", "/dev/null"] {
        assert!(recs.iter().any(|rec| rec.is_path(path)), "{path}: {recs:#?}");
    }
    let data: Vec<_> = recs.iter().filter(|rec| matches!(rec.body(), Body::Genio { .. })).collect();
    let wrote = |write| move |rec: &&Rec| rec.body() == Body::Genio { fd: 3, write, data: b"twelve bytes" };
    assert!(data.iter().any(|rec| wrote(true)(rec)), "the write to /dev/null: {data:#?}");
    assert!(data.iter().any(|rec| wrote(false)(rec)), "the read from the pipe: {data:#?}");
    assert_eq!(tracee.running.wait().code(), Some(7));
}

#[test]
fn a_sleep_goes_on_sleeping_and_ends_as_before() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut sleep = Running::spawn(Command::new("sleep").arg("1.5"));
    let asleep = || fs::read_to_string(format!("/proc/{}/syscall", sleep.pid())).unwrap().starts_with("230 ");
    wait_for("the sleep", asleep);
    let mut trace = mount.trace(sleep.pid());
    for _ in 0..3 {
        mount.set(sleep.pid(), "set default\n");
        mount.set(sleep.pid(), "clear namei\n");
    }
    let recs = trace.rest();
    assert!(recs.iter().any(|rec| rec.call() == Some("exit_group")), "{recs:#?}");
    let eintr = -i64::from(libc::EINTR);
    assert!(!recs.iter().any(|rec| rec.result().is_some_and(|(_, r)| r == eintr)), "{recs:#?}");
    assert_eq!(sleep.wait().code(), Some(0));
}

#[test]
fn a_signal_that_ends_a_process_is_recorded() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut sleep = Running::spawn(Command::new("sleep").arg("1000"));
    let mut trace = mount.trace(sleep.pid());
    mount.set(sleep.pid(), "set psig\n");
    sleep.signal(Signal::SIGTERM);
    let recs = trace.rest();
    assert!(
        recs.iter()
            .any(|rec| matches!(rec.body(), Body::Psig(p) if p.signo == libc::SIGTERM && p.action == 0)),
        "{recs:#?}"
    );
    assert!(!recs.iter().any(|rec| rec.call().is_some()), "no call was asked for: {recs:#?}");
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(sleep.wait().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_shell_traces_itself_and_its_pipeline() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script = format!(
        "read start
         echo 'set syscall,sysret,namei +inherit' > {ctl} || exit 9
         cat /etc/passwd | wc -l > /dev/null
         echo clear > {ctl} || exit 8
         test -e /not/traced/any/more
         exit 3",
        ctl = mount.path("$$/ctl").display()
    );
    let mut shell = Tracee::command(Command::new("bash").args(["-c", &script]));
    let mut trace = mount.trace(shell.pid());
    shell.go();
    let recs = trace.rest();
    assert_eq!(shell.running.wait().code(), Some(3), "{}", mount.read("error_log"));
    assert!(recs.iter().any(|rec| rec.is_path("/dev/null")), "the pipeline's redirection");
    let cat = recs.iter().find(|rec| rec.is_path("/etc/passwd")).expect("the path that cat opens");
    assert_ne!(cat.pid(), shell.pid());
    assert_eq!(cat.header.stamp.comm.as_bytes(), b"cat");
    let pids: BTreeSet<i32> = recs.iter().map(Rec::pid).collect();
    assert_eq!(pids.len(), 3, "the shell, cat and wc");
    assert!(!recs.iter().any(|rec| rec.is_path("/not/traced/any/more")));
}

#[test]
fn without_inherit_a_child_is_not_traced() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut shell =
        Tracee::command(Command::new("bash").args(["-c", "read start; /bin/true; cd /etc; exit 0"]));
    let mut trace = mount.trace(shell.pid());
    mount.set(shell.pid(), "set syscall,sysret,namei\n");
    shell.go();
    let recs = trace.rest();
    assert!(recs.iter().any(|rec| rec.is_path("/etc")), "{recs:#?}");
    assert!(recs.iter().all(|rec| rec.pid() == shell.pid()));
    assert_eq!(shell.running.wait().code(), Some(0));
}

#[test]
fn every_thread_of_a_python_is_seen() {
    need!("fuse", "ptrace", "python3");
    let mount = Mount::new();
    let script = "
import os, threading
os.read(0, 1)
def look(n):
    for i in range(20):
        try: os.stat('/no/such/thread-%d' % n)
        except FileNotFoundError: pass
threads = [threading.Thread(target=look, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
";
    let mut python = Tracee::command(Command::new("python3").args(["-c", script]));
    let mut trace = mount.trace(python.pid());
    mount.set(python.pid(), "set syscall,sysret,namei\n");
    python.go();
    let recs = trace.rest();
    for n in 0..4 {
        let path = format!("/no/such/thread-{n}");
        let of: Vec<&Rec> = recs.iter().filter(|rec| rec.is_path(&path)).collect();
        assert_eq!(of.len(), 20, "{path}");
        assert_ne!(of[0].tid(), python.pid(), "a thread of its own");
        assert!(of.iter().all(|rec| rec.tid() == of[0].tid() && rec.pid() == python.pid()));
    }
    assert_eq!(python.running.wait().code(), Some(0));
}

#[test]
fn threads_that_were_there_and_new_ones_lose_no_call() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("threads", &["8", "200"]);
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), &format!("set syscall,sysret {WHOLE}\n"));
    tracee.go();
    let recs = trace.rest();
    let mut of_thread: BTreeMap<i32, (usize, usize)> = BTreeMap::new();
    for rec in &recs {
        let (begun, ended) = of_thread.entry(rec.tid()).or_default();
        *begun += usize::from(rec.call() == Some("getppid"));
        *ended += usize::from(rec.result().is_some_and(|(call, _)| call == "getppid"));
    }
    of_thread.remove(&tracee.pid());
    let counts: Vec<_> = of_thread.values().copied().collect();
    assert_eq!(counts, [(200, 200); 8]);
    assert_eq!(tracee.running.wait().code(), Some(0));
}

#[test]
fn a_call_through_int_0x80_has_its_own_emulation() {
    need!("fuse", "ptrace", "ia32");
    let mount = Mount::new();
    let mut tracee = Tracee::start("int80", &[]);
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), "set syscall,sysret,emul\n");
    tracee.go();
    let mut abi = Abi::Linux;
    let mut seen = Vec::new();
    for rec in trace.rest() {
        match rec.body() {
            Body::Emul(emul) => abi = Abi::from_name(emul).unwrap(),
            Body::Syscall { code, .. } if name(abi, i64::from(code)) == "getppid" => seen.push(abi),
            _ => {}
        }
    }
    assert_eq!(seen, [Abi::Linux, Abi::Linux32, Abi::Linux]);
}

#[test]
fn a_32_bit_program_is_read_with_its_own_table() {
    need!("fuse", "ptrace", "ia32");
    let mount = Mount::new();
    let mut tracee = Running::spawn(Command::new(program("i386")).stdin(Stdio::piped()));
    wait_for("its read", || {
        fs::read_to_string(format!("/proc/{}/syscall", tracee.pid())).unwrap().starts_with("3 0x0 ")
    });
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), "set syscall,sysret,namei\n");
    tracee.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    let recs = trace.rest();
    assert!(matches!(recs[0].body(), Body::Emul(b"linux32")), "{:?}", recs[0]);
    let begun: Vec<&str> = recs
        .iter()
        .filter_map(|rec| match rec.body() {
            Body::Syscall { code, .. } => Some(name(Abi::Linux32, i64::from(code))),
            _ => None,
        })
        .filter(|call| *call != "read")
        .collect();
    assert_eq!(begun, ["open", "getppid", "exit"]);
    assert!(recs.iter().any(|rec| rec.is_path("/no/such/32-bit/file")));
    assert_eq!(tracee.wait().code(), Some(0));
}

#[test]
fn make_with_inherit_is_seen_whole() {
    need!("fuse", "ptrace", "make");
    let mount = Mount::new();
    let dir = mount.scratch().join("make");
    fs::create_dir(&dir).unwrap();
    let names = ["a", "b", "c", "d"];
    fs::write(dir.join("Makefile"), "all: a b c d\na b c d:\n\tsh -c 'cat Makefile | wc -l' > $@\n").unwrap();
    let run = "read start; exec make -s -j2";
    let mut make = Tracee::command(Command::new("bash").args(["-c", run]).current_dir(&dir));
    let mut trace = mount.trace(make.pid());
    mount.set(make.pid(), &format!("set default +inherit {WHOLE}\n"));
    make.go();
    let recs = trace.rest();
    assert_eq!(make.running.wait().code(), Some(0));
    for name in names {
        assert!(fs::read_to_string(dir.join(name)).unwrap().trim() == "3");
        assert!(recs.iter().any(|rec| rec.is_path(name)), "the path {name}");
    }
    let comms = |comm: &str| -> BTreeSet<i32> {
        let of = recs.iter().filter(|rec| rec.header.stamp.comm.as_bytes() == comm.as_bytes());
        of.map(Rec::pid).collect()
    };
    assert_eq!(comms("cat").len(), 4);
    assert_eq!(comms("wc").len(), 4);
    // Each exec'd process ends with its exit_group.
    let ended: BTreeSet<i32> =
        recs.iter().filter(|rec| rec.call() == Some("exit_group")).map(Rec::pid).collect();
    assert!(ended.is_superset(&comms("cat")) && ended.is_superset(&comms("wc")));
}

/// The calls of one thread with their results, in order.
pub(crate) type Calls = Vec<(String, Option<i64>)>;

/// The command without randomised addresses, for whatever it executes too: so that two runs get the same results.
fn steady_addresses(command: &Command) -> Command {
    let mut setarch = Command::new("setarch");
    setarch.arg("-R").arg(command.get_program()).args(command.get_args());
    setarch
}

/// The sequence of (thread, call, result) of a program, as strace writes it.
fn by_strace(program: &[&str], log: &Path) -> Vec<Calls> {
    let mut strace = steady_addresses(&Command::new("strace"));
    strace.args(["-f", "-qq", "-X", "raw", "-o"]).arg(log).args(program).stdout(Stdio::null());
    let mut running = Running::spawn(strace.stdin(Stdio::piped()));
    running.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(running.wait().code(), Some(0));
    threads_of_strace(&fs::read_to_string(log).unwrap()).into_iter().map(|(_, calls)| calls).collect()
}

/// The calls of each thread, by what strace has written.
pub(crate) fn threads_of_strace(log: &str) -> Vec<(String, Calls)> {
    let mut threads: Vec<(String, Calls)> = Vec::new();
    for line in log.lines() {
        let (tid, text) = line.split_once(' ').unwrap();
        let at = threads.iter().position(|(t, _)| t == tid).unwrap_or_else(|| {
            threads.push((tid.to_owned(), Vec::new()));
            threads.len() - 1
        });
        let calls = &mut threads[at].1;
        let text = text.trim_start();
        let resumed = text.strip_prefix("<... ");
        if text.starts_with("+++") || text.starts_with("---") {
            continue;
        }
        if resumed.is_none() {
            let call = text.split('(').next().unwrap();
            calls.push((call.to_owned(), None));
        }
        if !text.ends_with("<unfinished ...>")
            && let Some((_, result)) = text.rsplit_once(" = ")
        {
            calls.last_mut().unwrap().1 = strace_result(result);
        }
    }
    threads
}

/// `0`, `0x7f00`, `-1 ENOENT (No such file or directory)`, `?`.
fn strace_result(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace();
    let value = words.next()?;
    if value == "-1"
        && let Some(errno) = words.next()
    {
        let number = (1..200).find(|&n| format!("{:?}", nix::errno::Errno::from_raw(n)) == errno);
        return Some(-i64::from(number.unwrap_or_else(|| panic!("{errno}"))));
    }
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|v| v as i64),
        None => value.parse().ok(),
    }
}

/// Thread ids differ from run to run, and so do addresses in what futex and the clock return.
fn comparable(calls: &[(String, Option<i64>)]) -> Calls {
    let steady =
        |call: &str| !matches!(call, "clone" | "clone3" | "set_tid_address" | "getppid" | "getrandom");
    // Whether a futex has to wait is a matter of timing.
    let calls = calls.iter().filter(|(call, _)| call != "futex");
    calls.map(|(call, result)| (call.clone(), result.filter(|_| steady(call)))).collect()
}

#[test]
fn the_sequence_of_calls_is_that_of_strace() {
    need!("fuse", "ptrace", "strace", "setarch");
    let mount = Mount::new();
    let program = program("threads");
    let program = [program.to_str().unwrap(), "4", "50"];
    let want = by_strace(&program, &mount.scratch().join("strace.out"));
    let out = mount.scratch().join("ktrace.out");
    let mut ktrace = steady_addresses(&command("ktrace"));
    ktrace.env("KTRACE_MOUNT", mount.point()).args(["-i", "-f"]).arg(&out).args(program);
    let mut running = Running::spawn(ktrace.stdin(Stdio::piped()));
    running.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(running.wait().code(), Some(0));
    let recs = crate::support::stream::decode(&fs::read(&out).unwrap());
    let mut tids: Vec<i32> = Vec::new();
    for rec in &recs {
        if !tids.contains(&rec.tid()) {
            tids.push(rec.tid());
        }
    }
    let got: Vec<Calls> = tids
        .iter()
        .map(|tid| calls(&recs, *tid).into_iter().map(|(call, result)| (call.to_owned(), result)).collect())
        .collect();
    assert_eq!(got.len(), want.len(), "threads");
    // Only the second exec is without randomised addresses.
    let from_exec = |calls: &Calls| -> Calls {
        let exec = calls.iter().rposition(|(call, _)| call == "execve").unwrap();
        comparable(&calls[exec..])
    };
    let sorted = |threads: &[Calls]| {
        let mut all: Vec<_> = threads.iter().skip(1).map(|calls| comparable(calls)).collect();
        all.sort();
        all
    };
    assert_eq!(from_exec(&got[0]), from_exec(&want[0]), "the first thread");
    assert_eq!(sorted(&got), sorted(&want), "the others");
}

#[test]
fn kdump_behind_a_pipe_shows_records_the_moment_they_happen() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("threads", &["2", "1"]);
    let trace = mount.path(tracee.pid().to_string()).join("trace");
    let kdump = env!("CARGO_BIN_EXE_kdump");
    let pipeline = format!("cat {} | {kdump}", trace.display());
    let mut reader = Running::spawn(Command::new("sh").args(["-c", &pipeline]).stdout(Stdio::piped()));
    let (send, lines) = channel();
    let out = BufReader::new(reader.0.stdout.take().unwrap());
    thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    wait_for("cat to wait in its read", || mount.read("stat").lines().count() > 0);
    mount.set(tracee.pid(), "set syscall,sysret,emul\n");
    // The tracee still sits in its first read: this record came when it happened, not at the end.
    let first = lines.recv_timeout(DEADLINE).unwrap();
    assert!(first.contains("EMUL") && first.contains("linux"), "{first}");
    tracee.go();
    let all: Vec<String> = std::iter::from_fn(|| lines.recv_timeout(DEADLINE).ok()).collect();
    assert!(all.iter().any(|line| line.contains("CALL  getppid")), "{all:#?}");
    assert!(all.iter().any(|line| line.contains("CALL  exit_group(0)")), "{all:#?}");
    assert!(reader.wait().success());
}

#[test]
fn redis_under_load_does_not_notice() {
    need!("fuse", "ptrace", "redis-server", "redis-benchmark");
    let mount = Mount::new();
    let socket = mount.scratch().join("redis");
    let redis = Running::spawn(
        Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--daemonize", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(mount.scratch())
            .stdout(Stdio::null()),
    );
    wait_for("redis", || socket.exists());
    let load = |much: &[&str]| {
        let mut bench = Command::new("redis-benchmark");
        bench.arg("-s").arg(&socket).args(["-q", "-c", "10", "-t", "set,get"]).args(much);
        bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::spawn(&mut bench)
    };
    let mut trace = mount.trace(redis.pid());
    // In a loop, so that it surely goes on while tracing begins and ends.
    let endless = load(&["-l"]);
    mount.set(redis.pid(), &format!("set syscall,sysret,genio {WHOLE}\n"));
    let mut commands = 0;
    let recs = trace.until("300 commands", |rec| {
        if let Body::Genio { write: false, data, .. } = rec.body() {
            commands += usize::from(data.windows(3).any(|w| w.eq_ignore_ascii_case(b"set")));
        }
        commands == 300
    });
    for call in ["read", "write", "epoll_wait"] {
        assert!(recs.iter().any(|rec| rec.call() == Some(call)), "{call}");
    }
    mount.set(redis.pid(), "clear\n");
    trace.rest();
    drop(endless);
    assert_eq!(mount.read(format!("{}/ctl", redis.pid())).trim(), "clear");

    // Traced from before its first request to after its last.
    let mut trace = mount.trace(redis.pid());
    mount.set(redis.pid(), &format!("set syscall {WHOLE}\n"));
    let reader = thread::spawn(move || trace.rest().len());
    let out = load(&["-n", "500"]).output();
    assert!(out.status.success(), "{out:?}");
    mount.set(redis.pid(), "clear\n");
    assert!(reader.join().unwrap() > 1000);
    let out = load(&["-n", "500"]).output();
    assert!(out.status.success(), "untraced again: {out:?}");
}

#[test]
fn nginx_under_load_does_not_notice() {
    need!("fuse", "ptrace", "nginx");
    let mount = Mount::new();
    let dir = mount.scratch();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fs::write(dir.join("page.html"), "the page\n").unwrap();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", dir.display()))
        .concat();
    let conf = format!(
        "daemon off; user root; worker_processes 2; pid {d}/pid; error_log {d}/error;
         events {{ }}
         http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; root {d}; }} }}",
        d = dir.display()
    );
    fs::write(dir.join("conf"), conf).unwrap();
    let mut nginx =
        Running::spawn(Command::new("nginx").arg("-c").arg(dir.join("conf")).stderr(Stdio::null()));
    let get = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET /page.html HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    wait_for("nginx", || get().is_ok());
    let mut trace = mount.trace(nginx.pid());
    mount.set(nginx.pid(), &format!("set syscall,sysret,namei +descend +inherit {WHOLE}\n"));
    for _ in 0..200 {
        assert!(get().unwrap().ends_with("the page\n"));
    }
    let page = dir.join("page.html");
    let page = page.to_str().unwrap();
    let mut seen = 0;
    trace.until("200 requests", |rec| {
        seen += usize::from(rec.is_path(page) && rec.pid() != nginx.pid());
        seen == 200
    });
    nginx.signal(Signal::SIGQUIT);
    trace.rest();
    assert_eq!(nginx.wait().code(), Some(0));
}

#[test]
fn a_trace_of_a_database_commit_has_its_data() {
    need!("fuse", "ptrace", "sqlite3");
    let mount = Mount::new();
    let out = mount.scratch().join("out");
    let db = mount.scratch().join("db");
    let sql = "create table t(x); insert into t values('needle-in-the-file');";
    let mut ktrace = command("ktrace");
    ktrace.env("KTRACE_MOUNT", mount.point()).arg("-f").arg(&out).arg("sqlite3").arg(&db).arg(sql);
    stdout(&mut ktrace);
    let recs = crate::support::stream::decode(&fs::read(&out).unwrap());
    let needle = b"needle-in-the-file";
    // A page of the database is cut at the page of a record, so the row may begin in one and end in the next.
    let mut written = Vec::new();
    for rec in &recs {
        if let Body::Genio { write: true, data, .. } = rec.body() {
            written.extend_from_slice(data);
        }
    }
    assert!(written.windows(needle.len()).any(|w| w == needle), "the row, written to the database");
    assert!(recs.iter().any(|rec| matches!(rec.call(), Some("fsync" | "fdatasync"))));
    assert!(output(command("kdump").arg("-f").arg(&out)).status.success());
}

#[test]
fn real_programs_make_the_calls_with_the_results_that_strace_shows() {
    need!("fuse", "ptrace", "strace", "setarch", "sqlite3", "git");
    let mount = Mount::new();
    let repository = mount.scratch().join("repository");
    stdout(Command::new("git").args(["init", "-q"]).arg(&repository));
    let repository = repository.to_str().unwrap();
    let sql = "create table t(x); insert into t values(1),(2); select sum(x) from t;";
    let programs: [&[&str]; 4] = [
        &["ls", "-la", "/usr/bin"],
        &["sqlite3", ":memory:", sql],
        &["git", "-C", repository, "log", "--all"],
        &["find", "/etc", "-name", "*.conf"],
    ];
    for program in programs {
        let out = mount.scratch().join("ktrace.out");
        // Once untraced, so that what a first run leaves behind is there for both.
        output(Command::new(program[0]).args(&program[1..]));
        let want = by_strace(program, &mount.scratch().join("strace.out"));
        let mut ktrace = steady_addresses(&command("ktrace"));
        ktrace.env("KTRACE_MOUNT", mount.point()).args(["-i", "-f"]).arg(&out);
        let mut running = Running::spawn(ktrace.args(program).stdin(Stdio::piped()).stdout(Stdio::null()));
        running.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(running.wait().code(), Some(0), "{program:?}");
        let recs = crate::support::stream::decode(&fs::read(&out).unwrap());
        let first = recs[0].tid();
        let got: Calls =
            calls(&recs, first).into_iter().map(|(call, result)| (call.to_owned(), result)).collect();
        // The process's own number is in no result but these.
        let plain = |calls: &Calls| -> Calls {
            let own = |call: &str| matches!(call, "getpid" | "gettid" | "fcntl");
            comparable(calls)
                .into_iter()
                .map(|(c, r)| {
                    let r = r.filter(|_| !own(&c));
                    (c, r)
                })
                .collect()
        };
        assert!(got.len() > 50, "{program:?}: {got:?}");
        let (got, want) = (plain(&got), plain(&want[0]));
        let differs = got.iter().zip(&want).position(|(a, b)| a != b);
        let at = differs.unwrap_or(got.len().min(want.len()));
        let around = at.saturating_sub(3)..at + 2;
        assert!(got == want, "{program:?}, call {at}: {:?}, {:?}", got.get(around.clone()), want.get(around));
    }
}

#[test]
fn an_exec_is_recorded_with_its_arguments_environment_and_descriptors() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let line = "read x; exec env -i NAME=value OTHER= /bin/true 'one two' ''";
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", line]));
    // Which descriptors are open can only be asked of one that stands still.
    mount.set(tracee.pid(), if IS_EBPF { "set execarg,execenv\n" } else { "set execarg,execenv,execfd\n" });
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs = trace.rest();
    let strings = |kind: fn(Body<'_>) -> Option<Vec<u8>>| -> Vec<String> {
        let last = recs.iter().filter(|rec| rec.header.stamp.comm.as_bytes() == b"true");
        last.filter_map(|rec| kind(rec.body())).map(|s| String::from_utf8_lossy(&s).into_owned()).collect()
    };
    let args = strings(|body| if let Body::ExecArg(arg) = body { Some(arg.to_vec()) } else { None });
    assert_eq!(args, ["/bin/true", "one two", ""]);
    let envs = strings(|body| if let Body::ExecEnv(env) = body { Some(env.to_vec()) } else { None });
    assert_eq!(envs, ["NAME=value", "OTHER="]);
    // Standard input is a pipe (3).
    let is_pipe = |rec: &Rec| rec.body() == Body::ExecFd { fd: 0, dtype: 3 };
    assert_eq!(recs.iter().any(is_pipe), !IS_EBPF, "{recs:#?}");
}

#[test]
fn the_strings_of_an_exec_are_whole_however_long_they_are() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    // Around the page, and around the most that one event of the kernel holds.
    let lengths = [0, 1, 4094, 4095, 4096, 4097, 8190, 8191, 8192, 50_000, 3];
    let strings: Vec<String> =
        lengths.iter().enumerate().map(|(n, len)| format!("{n}").repeat(*len)[..*len].to_owned()).collect();
    let mut command = Command::new("sh");
    command.args(["-c", "read x; exec env -i \"LONG=$1\" SHORT=1 /bin/true \"$@\"", "sh", &"y".repeat(9999)]);
    let mut tracee = Tracee::command(command.args(&strings));
    mount.set(tracee.pid(), &format!("set execarg,execenv {WHOLE}\n"));
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    let recs: Vec<Rec> =
        trace.rest().into_iter().filter(|rec| rec.header.stamp.comm.as_bytes() == b"true").collect();
    let args: Vec<&[u8]> = recs
        .iter()
        .filter_map(|rec| if let Body::ExecArg(arg) = rec.body() { Some(arg) } else { None })
        .collect();
    let envs: Vec<&[u8]> = recs
        .iter()
        .filter_map(|rec| if let Body::ExecEnv(env) = rec.body() { Some(env) } else { None })
        .collect();
    let of = |all: &[&[u8]]| all.iter().map(|s| s.len()).collect::<Vec<_>>();
    assert_eq!(of(&args)[..2], ["/bin/true".len(), 9999]);
    assert_eq!(of(&args)[2..], lengths);
    assert!(args[2..].iter().zip(&strings).all(|(seen, given)| *seen == given.as_bytes()));
    assert_eq!(of(&envs), ["LONG=".len() + 9999, "SHORT=1".len()]);
}

#[test]
fn a_call_that_a_filter_refuses_has_its_beginning_and_its_end() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("refused", &[]);
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), &format!("set default {WHOLE}\n"));
    tracee.go();
    let recs = trace.rest();
    // The one that it was in when we came is none of those.
    assert!(!IS_EBPF || !recs.iter().any(|rec| rec.call() == Some("read") && rec.tid() == tracee.pid()));
    let mut tids: Vec<i32> = recs.iter().map(Rec::tid).collect();
    tids.dedup();
    let (eperm, enosys) = (-i64::from(libc::EPERM), -i64::from(libc::ENOSYS));
    let uid = Some(0);
    let want = [
        ("getuid", uid),
        ("access", Some(eperm)),
        ("getppid", Some(enosys)),
        ("getuid", uid),
        ("access", Some(eperm)),
    ];
    for tid in [tracee.pid(), *tids.iter().find(|tid| **tid != tracee.pid()).unwrap()] {
        let recs: Vec<Rec> = recs.iter().filter(|rec| rec.tid() == tid).cloned().collect();
        let from = recs.iter().position(|rec| rec.call() == Some("getuid")).unwrap();
        assert_eq!(calls(&recs[from..], tid)[..5], want, "{recs:#?}");
        // Each has a beginning of its own, and its path between the two.
        let refused: Vec<&[Rec]> =
            recs.windows(3).filter(|three| three[0].call() == Some("access")).collect();
        assert_eq!(refused.len(), 2, "{recs:#?}");
        for (three, path) in refused.iter().zip(["/refused", "/refused/too"]) {
            assert!(three[1].is_path(path) && three[2].result() == Some(("access", eperm)), "{three:#?}");
        }
    }
    assert!(tracee.running.wait().success());
}
