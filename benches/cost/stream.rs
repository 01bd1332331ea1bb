//! The stream beside a pipe: how much of it a reader gets in a second, how soon it hears of a record; and kdump.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use ktrace::record;

use crate::load::{self, Load};
use crate::mount::Mount;
use crate::table::{Table, median, ns, ratio, times};
use crate::{Options, delay};

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
    let stat = std::fs::read_to_string(stat).unwrap();
    let bytes = stat.lines().find_map(|l| l.strip_prefix("bytes ")).unwrap().trim().parse().unwrap();
    let speed = cat(trace.into(), bytes);
    (speed, speed / record as f64)
}

/// Records of a real program, how many there are, and of how many calls.
fn recorded(mount: &Mount) -> (PathBuf, u64, u64) {
    let mut load = Load::waiting(&words("rw1 40000"));
    mount.ctl(load.pid(), "set default size=256M policy=drop +inherit backend=ptrace");
    let mut trace = File::open(mount.path(&format!("{}/trace", load.pid()))).unwrap();
    load.go();
    let path = load::program().with_extension("ktrace");
    let bytes = std::io::copy(&mut trace, &mut File::create(&path).unwrap()).unwrap();
    let all = std::fs::read(&path).unwrap();
    assert_eq!(bytes, all.len() as u64);
    let (mut records, mut calls) = (0, 0);
    let mut at = 0;
    while let Ok(Some(header)) = record::decode_header(&all[at..]) {
        at += record::HEADER_LEN + header.len;
        records += 1;
        calls += u64::from(header.ktr_type == record::KTR_SYSCALL);
    }
    (path, records, calls)
}

/// Prints the table.
pub(crate) fn run(options: &Options) {
    let mount = Mount::new("ptrace", "1024M");
    let mut table = Table::new("The stream", &["", "ours", "a pipe", "ratio"]);
    for (name, mode, size) in
        [("cat, records of 4 KiB", "big", 4096), ("cat, records of 72 bytes", "small", 64)]
    {
        let (mut ours, mut theirs, mut rate) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let (speed, records) = stream(&mount, mode);
            ours.push(speed);
            rate.push(records);
            theirs.push(pipe(size));
        }
        let mib = |figures: &[f64]| format!("{:.0} MiB/s", median(figures) / (1 << 20) as f64);
        let shown = format!("{}, {:.2} M records/s", mib(&ours), median(&rate) / 1e6);
        table.row(&[name.to_owned(), shown, mib(&theirs), times(ratio(&ours, &theirs))]);
    }
    delay::rows(options, &mount, "ptrace", |name, ours, theirs| {
        table.row(&[name.to_owned(), ns(median(ours)), ns(median(theirs)), times(ratio(ours, theirs))]);
    });

    let (path, records, calls) = recorded(&mount);
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        one.push(records as f64 / printed(Command::new(KDUMP).stdin(File::open(&path).unwrap())));
        all.push(records as f64 / printed(Command::new(KDUMP).arg("-f").arg(&path)));
    }
    let rate = |figures: &[f64]| format!("{:.2} M records/s", median(figures) / 1e6);
    table.row(&["kdump to text, standard input".to_owned(), rate(&one), String::new(), String::new()]);
    table.row(&["kdump to text, a file".to_owned(), rate(&all), String::new(), String::new()]);
    if let Some(theirs) = formatting(options.rounds) {
        let ours = 1e9 / median(&one) * records as f64 / calls as f64;
        let name = "formatting a call: kdump, strace".to_owned();
        table.row(&[name, ns(ours), ns(theirs), times(ours / theirs)]);
    }
}

const KDUMP: &str = env!("CARGO_BIN_EXE_kdump");

/// Seconds until a command that prints has ended.
fn printed(command: &mut Command) -> f64 {
    let begun = Instant::now();
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    begun.elapsed().as_secs_f64()
}

/// Nanoseconds that strace itself computes for a call, which is mostly to format it: its own user time, the load's apart.
fn formatting(rounds: usize) -> Option<f64> {
    const TURNS: u64 = 20_000;
    let user = |wrapper: &[String]| {
        let before = user_time();
        let mut load = Load::start(wrapper, &words(&format!("rw1 {TURNS}")));
        load.go();
        let (calls, _) = load.result();
        load.child.wait().unwrap();
        (user_time() - before) / calls as f64
    };
    Command::new("strace").arg("--version").stdout(Stdio::null()).status().ok()?;
    let strace = words("strace -f -o /dev/null");
    let figures: Vec<f64> = (0..rounds).map(|_| user(&strace) - user(&[])).collect();
    Some(median(&figures))
}

/// Nanoseconds of user time of all children so far.
fn user_time() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let time = usage.user_time();
    time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3
}
