//! kdump the program: NetBSD's output byte for byte, live input, bad input.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ktrace::record::*;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where ours differs from what NetBSD's kdump printed of the same stream. Nothing else may.
const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "a directory descriptor by its name",
        sets: typed,
        was: "(0xffffff9c,",
        is: "(AT_FDCWD,",
    },
    Difference {
        reason: "a directory descriptor by its name",
        sets: typed,
        was: "(4294967196,",
        is: "(AT_FDCWD,",
    },
    Difference {
        reason: "a count in decimal",
        sets: typed,
        was: "(3,0x7ffd2000,0x40)",
        is: "(3,0x7ffd2000,64)",
    },
    Difference { reason: "an ioctl by Linux's name", sets: typed, was: "_IO('T',0x13,0)", is: "TIOCGWINSZ" },
    Difference { reason: "an ioctl by Linux's name", sets: typed, was: "_IO('T',19,0)", is: "TIOCGWINSZ" },
    // NetBSD's forgets the emulation where -t hides EMUL, and takes the numbers for NetBSD's own.
    hidden_emul("CALL  mq_open(0xffffff9c", "CALL  openat(AT_FDCWD"),
    hidden_emul("RET   mq_open", "RET   openat"),
    hidden_emul("CALL  syscall(3,0x7ffd2000,0x40)", "CALL  read(3,0x7ffd2000,64)"),
    hidden_emul("RET   syscall", "RET   read"),
    hidden_emul("CALL  fork", "CALL  open"),
    hidden_emul("RET   fork JUSTRETURN", "RET   open -1 errno -2 No such file or directory"),
    hidden_emul("CALL  chown(1,0x5413,5)", "CALL  ioctl(1,TIOCGWINSZ,5)"),
    hidden_emul("RET   chown", "RET   ioctl"),
    hidden_emul("getppid", "getpid"),
];

struct Difference {
    reason: &'static str,
    /// In which sets of options.
    sets: fn(&str) -> bool,
    was: &'static str,
    is: &'static str,
}

const fn hidden_emul(was: &'static str, is: &'static str) -> Difference {
    Difference { reason: "the emulation is known though EMUL is hidden", sets: no_emul, was, is }
}

/// Arguments are shown by kind, and the emulation is known to NetBSD's kdump.
fn typed(set: &str) -> bool {
    !set.contains(" -n") && !set.contains(" -N") && !no_emul(set)
}

fn no_emul(set: &str) -> bool {
    set.starts_with("kdump -tc -f") || set.starts_with("kdump -t-e ")
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn kdump(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kdump"));
    command.args(args).current_dir(golden("")).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    kdump(args).output().unwrap()
}

/// Runs kdump with `input` on standard input.
fn filter(args: &[&str], input: &[u8]) -> Output {
    let mut child = start(args);
    // A kdump that has seen enough closes its end.
    _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn start(args: &[&str]) -> Child {
    kdump(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a running kdump prints, read with a deadline.
struct Lines(mpsc::Receiver<Vec<u8>>);

impl Lines {
    fn of(child: &mut Child) -> Lines {
        let mut output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                _ = sender.send(bytes[..n].to_vec());
            }
        });
        Lines(lines)
    }

    fn expect(&self, want: &str) {
        let mut got = Vec::new();
        while got.len() < want.len() {
            got.extend(self.0.recv_timeout(Duration::from_secs(10)).expect("the line is held back"));
        }
        assert_eq!(String::from_utf8_lossy(&got), want);
    }
}

#[test]
fn every_set_of_options_prints_what_netbsd_prints() {
    let text = std::fs::read_to_string(golden("small.kdump.txt")).unwrap();
    let mut used = vec![false; DIFFERENCES.len()];
    let mut sets = 0;
    for block in text.split_inclusive('\n').fold(Vec::<String>::new(), |mut blocks, line| {
        match blocks.last_mut() {
            Some(last) if !line.starts_with("$ ") => last.push_str(line),
            _ => blocks.push(line.into()),
        }
        blocks
    }) {
        let (set, want) = block.split_once('\n').unwrap();
        let set = &set[2..];
        let mut want = want.to_owned();
        for (d, used) in DIFFERENCES.iter().zip(&mut used).filter(|(d, _)| (d.sets)(set)) {
            *used |= want.contains(d.was);
            want = want.replace(d.was, d.is);
        }
        let args: Vec<_> = set.split_whitespace().skip(1).collect();
        let output = run(&args);
        let got = [output.stderr, output.stdout].concat();
        assert_eq!(String::from_utf8_lossy(&got), want, "{set}");
        sets += 1;
    }
    assert_eq!(sets, 29);
    for (d, used) in DIFFERENCES.iter().zip(used) {
        assert!(used, "nothing differs any more: {} ({})", d.was, d.reason);
    }
}

#[test]
fn standard_input_is_read_with_and_without_a_name() {
    let stream = std::fs::read(golden("small.v2")).unwrap();
    let want = run(&["-f", "small.v2"]).stdout;
    for args in [&[][..], &["-"], &["-f", "-"], &["-f", "/dev/stdin"], &["small.v2"]] {
        let got = filter(args, &stream);
        assert_eq!(got.stdout, want, "{args:?}");
        assert!(got.status.success() && got.stderr.is_empty());
    }
}

#[test]
fn a_record_is_printed_as_soon_as_it_is_whole() {
    let stream = std::fs::read(golden("small.v2")).unwrap();
    let mut child = start(&[]);
    let mut input = child.stdin.take().unwrap();
    let lines = Lines::of(&mut child);
    let expect = |want: &str| lines.expect(want);
    input.write_all(&stream[..61]).unwrap();
    expect("   100    100 cat      EMUL  \"linux\"\n");
    // All but the last byte of the next one; then that byte.
    input.write_all(&stream[61..156]).unwrap();
    input.write_all(&stream[156..157]).unwrap();
    expect("   100    100 cat      CALL  openat(AT_FDCWD,0x7ffd1000,0x80000,0)\n");
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_growing_file_is_followed() {
    let stream = std::fs::read(golden("small.v2")).unwrap();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("growing");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&stream[..61 + 10]).unwrap();
    let mut child = start(&["-l", "-f", path.to_str().unwrap()]);
    let lines = Lines::of(&mut child);
    lines.expect("   100    100 cat      EMUL  \"linux\"\n");
    file.write_all(&stream[61 + 10..157]).unwrap();
    lines.expect("   100    100 cat      CALL  openat(AT_FDCWD,0x7ffd1000,0x80000,0)\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// With a bound on its memory that the input, and still more the text, is far beyond; from a file on two cores, and checked.
#[test]
fn memory_does_not_grow_with_the_input() {
    const BOUND_KIB: u64 = 48 << 10;
    let mut piece = Vec::new();
    for tid in 1..100 {
        let stamp = Stamp { pid: 1, tid, ..Stamp::default() };
        encode(&mut piece, &stamp, &Body::Syscall { code: 1, args: Args::Words(&[1, 2, 3]) });
        encode(&mut piece, &stamp, &Body::Genio { fd: 1, write: true, data: &[b'x'; 4000] });
        encode(&mut piece, &stamp, &Body::Sysret { code: 1, error: 0, retval: 3, retval_1: 0 });
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("long");
    let mut file = std::fs::File::create(&path).unwrap();
    while file.metadata().unwrap().len() < 2 * (BOUND_KIB << 10) {
        file.write_all(&piece).unwrap();
    }
    // More cores have more pieces under way: this thread's children have two, where there are.
    let mut cores = CpuSet::new();
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count())
        .filter(|cpu| ours.is_set(*cpu).unwrap())
        .take(2)
        .for_each(|cpu| cores.set(cpu).unwrap());
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
    for arguments in [&["-f"][..], &["--verify", "-f"], &["--format=json", "-f"], &["-"]] {
        let bounded = format!("ulimit -d {BOUND_KIB} && exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &bounded, "sh", env!("CARGO_BIN_EXE_kdump")]).args(arguments);
        match arguments {
            ["-"] => command.stdin(std::fs::File::open(&path).unwrap()),
            _ => command.arg(&path),
        };
        let output = command.stdout(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // Nothing ends this stream, which verify says.
        let whole = output.status.code() == Some(i32::from(arguments[0] == "--verify"));
        assert!(whole, "{arguments:?}: {:?}: {said}", output.status);
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_stream_that_ends_inside_a_record_says_so() {
    let stream = std::fs::read(golden("small.v2")).unwrap();
    for (cut, left) in
        [(stream.len() - 1, "79 bytes of 80 bytes"), (61 + 20, "20 bytes of a header of 56 bytes")]
    {
        let got = filter(&[], &stream[..cut]);
        let said = String::from_utf8_lossy(&got.stderr).into_owned();
        let at = cut - if cut > 100 { 79 } else { 20 };
        assert_eq!(said, format!("kdump: byte {at}: the stream ends inside a record: {left}\n"));
        assert_eq!(got.status.code(), Some(1));
        assert!(got.stdout.starts_with(b"   100    100 cat      EMUL"), "what is whole is printed");
    }
}

#[test]
fn garbage_says_where_it_begins() {
    let mut stream = std::fs::read(golden("small.v2")).unwrap();
    let whole = stream.len();
    stream.extend_from_slice(&[0xff; 200]);
    let got = filter(&[], &stream);
    assert_eq!(
        String::from_utf8_lossy(&got.stderr),
        format!("kdump: byte {whole}: a record cannot have -1 bytes of body\n")
    );
    assert_eq!((got.status.code(), got.stdout), (Some(1), run(&["-f", "small.v2"]).stdout));
    let got = filter(&[], b"GNU/Linux is not a record stream, whatever its length may be.");
    assert_eq!(got.status.code(), Some(1));
    assert!(got.stdout.is_empty() && got.stderr.starts_with(b"kdump: byte 0: "));
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let got = run(&["-f", "nosuch"]);
    assert_eq!(String::from_utf8_lossy(&got.stderr), "kdump: nosuch: No such file or directory\n");
    assert_eq!(got.status.code(), Some(1));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let stream = std::fs::read(golden("small.v2")).unwrap();
    let mut child = start(&[]);
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds: ends by an EPIPE of our own once kdump is gone.
    assert!((0..1000).any(|_| input.write_all(&stream).is_err()), "kdump reads on");
    let got = child.wait_with_output().unwrap();
    assert!(got.status.success() && got.stderr.is_empty(), "{got:?}");
}

#[test]
fn older_versions_print_their_own_columns() {
    let mut stream = Vec::new();
    let stamp = Stamp { time: Time { sec: 7, nsec: 5_000 }, pid: 42, tid: 43, comm: Comm::new(b"old") };
    encode(&mut stream, &stamp, &Body::Emul(b"linux"));
    stream[6] = 0;
    let seed = |bytes: &[u8]| String::from_utf8(filter(&["-T"], bytes).stdout).unwrap();
    let mut v0 = stream.clone();
    v0[40] = 5;
    v0[41] = 0;
    assert_eq!(seed(&v0), "    42 old      7.000005 EMUL  \"linux\"\n");
    stream[6] = 1;
    assert_eq!(seed(&stream), "    42     43 old      7.000005000 EMUL  \"linux\"\n");
}

#[test]
fn the_emulation_is_by_process_and_kept_by_the_call() {
    // Those whose numbers end alike share what is remembered of the last.
    const SAME_END: i32 = 1 + 1024;
    let stamp = |pid| Stamp { pid, tid: pid, comm: Comm::new(b"t"), ..Stamp::default() };
    let ret = |code| Body::Sysret { code, error: 0, retval: 0, retval_1: 0 };
    let call = |code| Body::Syscall { code, args: Args::Words(&[]) };
    let mut stream = Vec::new();
    for (pid, body) in [
        (1, Body::Emul(b"linux")),
        (2, Body::Emul(b"linux32")),
        (1, call(39)),
        (2, call(20)),
        (1, ret(39)),
        (2, ret(20)),
        // An exec of a 32-bit program: the return is of the call that was made, whatever others do meanwhile.
        (1, call(59)),
        (2, call(20)),
        (SAME_END, call(39)),
        (1, Body::Emul(b"linux32")),
        (2, ret(20)),
        (1, ret(59)),
        (SAME_END, ret(39)),
        (1, call(20)),
        (3, call(39)),
        (1, Body::Emul(b"plan9")),
        (1, call(20)),
    ] {
        encode(&mut stream, &stamp(pid), &body);
    }
    let got = filter(&["-t", "c"], &stream).stdout;
    let words: Vec<_> = String::from_utf8(got).unwrap().lines().map(|l| l[23..].trim().to_owned()).collect();
    assert_eq!(
        words,
        [
            "CALL  getpid",
            "CALL  getpid",
            "RET   getpid 0",
            "RET   getpid 0",
            "CALL  execve",
            "CALL  getpid",
            "CALL  getpid",
            "RET   getpid 0",
            "RET   execve 0",
            "RET   getpid 0",
            "CALL  getpid",
            "CALL  getpid",
            "CALL  [20]"
        ]
    );
}

#[test]
fn verify_finds_what_is_missing() {
    let got = run(&["--verify", "-f", "small.v2"]);
    assert_eq!(
        String::from_utf8_lossy(&got.stdout),
        "byte 1092: the stream says: lost 1 records\n20 records of 2 threads: 1 lost, 0 faults\n"
    );
    assert_eq!(got.status.code(), Some(1));

    let stamp = |n| Stamp { pid: 5, tid: 5, time: Time { sec: n, nsec: 0 }, ..Stamp::default() };
    let ret = |code| Body::Sysret { code, error: 0, retval: 0, retval_1: 0 };
    let call = |code| Body::Syscall { code, args: Args::Words(&[]) };
    let verdict = |bodies: &[(i64, Body<'_>)]| {
        let mut stream = Vec::new();
        bodies.iter().for_each(|(n, body)| encode(&mut stream, &stamp(*n), body));
        end(&mut stream, bodies.len());
        let got = filter(&["--verify"], &stream);
        (got.status.code(), String::from_utf8(got.stdout).unwrap())
    };
    let start = (0, Body::Emul(b"linux"));
    // Attached in a call, and gone in another.
    let (code, said) = verdict(&[start, (1, ret(0)), (2, call(39)), (3, ret(39)), (4, call(0))]);
    assert_eq!((code, said.as_str()), (Some(0), "6 records of 1 threads: nothing is missing\n"));
    let (code, said) = verdict(&[start, (1, call(39)), (2, ret(39)), (3, call(39)), (4, call(0))]);
    assert_eq!(code, Some(1));
    assert!(said.contains("process 5 thread 5: the call before, getpid, has no return"), "{said}");
    let (_, said) = verdict(&[start, (1, call(39)), (2, ret(39)), (3, ret(0))]);
    assert!(said.contains("read returns without a call"), "{said}");
    let (_, said) = verdict(&[start, (1, call(39)), (2, ret(0))]);
    assert!(said.contains("read returns, but another call was made"), "{said}");
    let (_, said) = verdict(&[start, (2, call(39)), (1, ret(39))]);
    assert!(said.contains("its time is before"), "{said}");
    // One facility alone cannot be paired.
    assert_eq!(verdict(&[start, (1, call(39)), (2, call(0))]).0, Some(0));
    assert_eq!(verdict(&[start, (1, ret(39)), (2, ret(0))]).0, Some(0));
    // What was turned off is no loss.
    let off = Body::User { id: b"ktracefs", data: b"set syscall" };
    assert_eq!(
        verdict(&[start, (1, call(39)), (2, ret(39)), (3, off), (4, call(39)), (5, call(0))]).0,
        Some(0)
    );
}

/// The end that a stream of so many records has.
fn end(stream: &mut Vec<u8>, records: usize) {
    let text = format!("end: {records} records, {} bytes, 0 lost", stream.len());
    encode(stream, &Stamp::default(), &Body::User { id: b"ktracefs", data: text.as_bytes() });
}

#[test]
fn verify_misses_no_record_taken_out_put_in_twice_or_cut_off() {
    let stamp = |n| Stamp { pid: 5, tid: 5, time: Time { sec: n, nsec: 0 }, ..Stamp::default() };
    let mut records = vec![(0, Body::Emul(b"linux"))];
    for n in 0..20 {
        records.push((3 * n + 1, Body::Syscall { code: 0, args: Args::Words(&[1]) }));
        records.push((3 * n + 2, Body::Genio { fd: 1, write: false, data: b"data" }));
        records.push((3 * n + 3, Body::Sysret { code: 0, error: 0, retval: 0, retval_1: 0 }));
    }
    let mut whole = Vec::new();
    let mut places = Vec::new();
    for (n, body) in &records {
        places.push(whole.len());
        encode(&mut whole, &stamp(*n), body);
    }
    places.push(whole.len());
    end(&mut whole, records.len());
    let status = |stream: &[u8]| filter(&["--verify"], stream).status.code();
    assert_eq!(status(&whole), Some(0));
    assert_eq!(status(&[whole.clone(), whole.clone()].concat()), Some(0), "as ktrace -a makes it");
    for place in places.windows(2) {
        let record = place[0]..place[1];
        let mut without = whole.clone();
        without.drain(record.clone());
        assert_eq!(status(&without), Some(1), "without the one at {}", record.start);
        let mut twice = whole.clone();
        twice.splice(record.start..record.start, whole[record.clone()].to_vec());
        assert_eq!(status(&twice), Some(1), "twice the one at {}", record.start);
        assert_ne!(status(&whole[..record.start]), Some(0), "cut before {}", record.start);
    }
    assert_ne!(status(b""), Some(0), "nothing is no stream");
    let told = filter(&["--verify"], &whole[..places[61]]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("no end: cut"), "{told:?}");
}

#[test]
fn summary_counts_by_call() {
    let got = String::from_utf8(run(&["-c", "-f", "small.v2"]).stdout).unwrap();
    let mut lines = got.lines();
    assert_eq!(lines.next(), Some("     calls     errors      seconds  call"));
    assert!(got.contains("         1          1     0.001235  open\n"), "{got}");
    assert!(got.contains("         2          0     0.002469  getpid\n"), "{got}");
    assert_eq!(lines.last(), Some("         6          1     0.009877  total"));
}

#[test]
fn json_is_one_object_for_each_record() {
    let got = String::from_utf8(run(&["--format=json", "-f", "small.v2"]).stdout).unwrap();
    assert_eq!(got.lines().count(), 20);
    assert!(got.contains(
        r#"{"pid":100,"tid":100,"comm":"cat","sec":1700000000,"nsec":11111103,"type":"RET","code":2,"call":"open","error":-2,"retval":0,"errno":"ENOENT"}"#
    ));
    assert!(got.contains(r#""type":99,"data":"616263646566"}"#));
}
