//! The stream beside a pipe: how much of it a reader gets in a second, and how soon it hears of a record.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::load::{self, Load};
use crate::mount::Mount;
use crate::table::{Table, median, ns, ratio, times};
use crate::{Options, delay, kdump};

/// Bytes that are let through in one round, at least: of a stream and of a pipe.
const BULK: u64 = 256 << 20;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Starts a `cat` of this.
fn start(from: Stdio) -> Child {
    Command::new("cat").stdin(from).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until a `cat` has read all; the bytes that it has read, which the kernel has counted.
fn read_by(mut cat: Child) -> u64 {
    let pid = cat.id();
    waitid(Id::Pid(Pid::from_raw(pid as i32)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let bytes = io.lines().find_map(|l| l.strip_prefix("rchar: ")).unwrap().parse().unwrap();
    assert!(cat.wait().unwrap().success());
    bytes
}

/// Lets `cat` read to the end; bytes in a second. At least so many must come.
fn cat(from: Stdio, least: u64) -> f64 {
    let begun = Instant::now();
    let bytes = read_by(start(from));
    assert!(bytes >= least, "{bytes} bytes");
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// A pipe that another process fills in writes of `size` bytes.
fn pipe(size: usize) -> f64 {
    let mut writer = Command::new(load::program());
    let count = BULK.div_ceil(size as u64);
    let mut writer =
        writer.args(["feed", &count.to_string(), &size.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
    let out: OwnedFd = writer.stdout.take().unwrap().into();
    let speed = cat(out.into(), BULK);
    assert!(writer.wait().unwrap().success());
    speed
}

/// A load of calls that each make many records of one size, and hold still for as little as a tracee can.
struct Records {
    mode: &'static str,
    /// Of which one makes so many records.
    turns: u64,
    of_a_turn: u64,
    /// Bytes of one, with its header.
    size: usize,
}

/// So many turns that there is as much to read as in the pipe.
const RECORDS: [(&str, Records); 2] = [
    ("4 KiB", Records { mode: "big", turns: 264, of_a_turn: 256, size: 4152 }),
    ("72 bytes", Records { mode: "small", turns: 3800, of_a_turn: 1024, size: 72 }),
];

/// When the records are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// When all have been made.
    Made,
    /// While they are made: their maker waits where there is no room.
    Live,
}

/// Bytes in a second that `cat` reads of records.
fn stream(mount: &Mount, of: &Records, when: When) -> f64 {
    let mut load = Load::waiting(&words(&format!("{} {}", of.mode, of.turns)));
    let ring = if when == When::Made { "size=512M policy=overwrite" } else { "policy=block" };
    mount.ctl(load.pid(), &format!("set genio {ring} backend=ptrace"));
    let trace = File::open(mount.path(&format!("{}/trace", load.pid()))).unwrap();
    let least = of.turns * of.of_a_turn * of.size as u64;
    assert!(least >= BULK);
    if when == When::Made {
        load.go();
        load.result();
        return cat(trace.into(), least);
    }
    let reader = start(trace.into());
    let begun = Instant::now();
    load.go();
    load.result();
    let bytes = read_by(reader);
    assert!(bytes >= least, "{bytes} bytes of {least}");
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// `cat` while two processes that eBPF traces make records as fast as they can: bytes in a second, and the share of the
/// records that found no room.
fn live(mount: &Mount, line: &str) -> (f64, f64) {
    // The process's own stat is gone when all is read.
    let totals = || {
        let stat = std::fs::read_to_string(mount.path("stat")).unwrap();
        ["bytes", "records", "lost"].map(|name| number(&stat, name))
    };
    let before = totals();
    let mut load = Load::waiting(&words(line));
    mount.ctl(load.pid(), "set default +inherit policy=drop backend=ebpf");
    let trace = File::open(mount.path(&format!("{}/trace", load.pid()))).unwrap();
    let mut cat = Command::new("cat").stdin(Stdio::from(trace)).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    load.go();
    load.result();
    assert!(cat.wait().unwrap().success());
    let seconds = begun.elapsed().as_secs_f64();
    let after = totals();
    let [bytes, records, lost] = std::array::from_fn(|i| after[i] - before[i]);
    (bytes / seconds, lost / (records + lost))
}

/// The number of this name in a `stat`.
fn number(stat: &str, name: &str) -> f64 {
    let value = stat.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    value.parse().unwrap()
}

/// Prints the table of records that are read while they are made, each in turns with a pipe whose writer is as busy.
pub(crate) fn run_live(options: &Options, mount: &Mount) {
    let mut table = Table::new("The stream, live, eBPF", &["", "ours", "a pipe", "ratio"]);
    for (name, line, size) in [
        ("cat, 2 processes, read/write 4096", "rw4k 200000 1 2", 4096),
        ("cat, 2 processes, getppid", "getppid 1000000 1 2", 64),
    ] {
        let (mut ours, mut theirs, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let (speed, share) = live(mount, line);
            ours.push(speed);
            lost.push(share);
            theirs.push(pipe(size));
        }
        let shown = format!("{}, {:.1} % lost", mib(&ours), median(&lost) * 100.0);
        table.row(&[name.to_owned(), shown, mib(&theirs), times(ratio(&ours, &theirs))]);
    }
}

fn mib(figures: &[f64]) -> String {
    format!("{:.0} MiB/s", median(figures) / (1 << 20) as f64)
}

/// Prints the table.
pub(crate) fn run(options: &Options) {
    let mut table = Table::new("The stream", &["", "ours", "a pipe", "ratio"]);
    let mount = Mount::new("ptrace", "1024M");
    for (when, how) in [(When::Made, "of a full ring"), (When::Live, "live")] {
        for (size, of) in &RECORDS {
            let name = format!("cat {how}, records of {size}, {} MiB", BULK >> 20);
            if !name.contains(&options.only) {
                continue;
            }
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..options.rounds {
                ours.push(stream(&mount, of, when));
                theirs.push(pipe(of.size));
            }
            let rate = median(&ours) / of.size as f64 / 1e6;
            let shown = format!("{}, {rate:.2} M records/s", mib(&ours));
            table.row(&[name, shown, mib(&theirs), times(ratio(&ours, &theirs))]);
        }
    }
    delay::rows(options, &mount, "ptrace", |name, ours, theirs| {
        table.row(&[name.to_owned(), ns(median(ours)), ns(median(theirs)), times(ratio(ours, theirs))]);
    });
    kdump::run(options, &mount);
}
