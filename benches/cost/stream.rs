//! The stream beside a pipe: how much of it a reader gets in a second, and how soon it hears of a record.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::load::Load;
use crate::mount::Mount;
use crate::table::{Table, median, ns, ratio, times};
use crate::{Options, delay, kdump};

/// Bytes that are let through in one round.
const BULK: u64 = 256 << 20;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Lets `cat` read a file to its end; bytes in a second.
fn cat(from: Stdio, bytes: u64) -> f64 {
    let begun = Instant::now();
    let status = Command::new("cat").stdin(from).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// A pipe that another process fills in writes of `size` bytes.
fn pipe(size: usize) -> f64 {
    let mut dd = Command::new("dd");
    let count = BULK / 4 / size as u64;
    dd.args(["if=/dev/zero", "status=none", &format!("bs={size}"), &format!("count={count}")]);
    let mut writer = dd.stdout(Stdio::piped()).spawn().unwrap();
    let out: OwnedFd = writer.stdout.take().unwrap().into();
    let speed = cat(out.into(), count * size as u64);
    writer.wait().unwrap();
    speed
}

/// A ring full of records of one size, read by `cat`.
fn stream(mount: &Mount, mode: &str) -> (f64, f64) {
    let (turns, record) = if mode == "big" { (250, 4152) } else { (3000, 72) };
    let mut load = Load::waiting(&words(&format!("{mode} {turns}")));
    mount.ctl(load.pid(), "set genio size=512M policy=overwrite backend=ptrace");
    let trace = File::open(mount.path(&format!("{}/trace", load.pid()))).unwrap();
    let stat = mount.path(&format!("{}/stat", load.pid()));
    load.go();
    load.result();
    let bytes = number(&std::fs::read_to_string(stat).unwrap(), "bytes");
    let speed = cat(trace.into(), bytes as u64);
    (speed, speed / record as f64)
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
    for (name, mode, size) in [
        ("cat of a full ring, records of 4 KiB", "big", 4096),
        ("cat of a full ring, records of 72 bytes", "small", 64),
    ] {
        let (mut ours, mut theirs, mut rate) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let (speed, records) = stream(&mount, mode);
            ours.push(speed);
            rate.push(records);
            theirs.push(pipe(size));
        }
        let shown = format!("{}, {:.2} M records/s", mib(&ours), median(&rate) / 1e6);
        table.row(&[name.to_owned(), shown, mib(&theirs), times(ratio(&ours, &theirs))]);
    }
    delay::rows(options, &mount, "ptrace", |name, ours, theirs| {
        table.row(&[name.to_owned(), ns(median(ours)), ns(median(theirs)), times(ratio(ours, theirs))]);
    });
    kdump::run(options, &mount);
}
