//! kdump: records in a second, its memory, and what it computes for a call beside what strace does.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ktrace::record;

use crate::Options;
use crate::cost::there;
use crate::flat::words;
use crate::load::{self, Load};
use crate::mount::Mount;
use crate::table::{Table, median, ns, ratio, times};

const KDUMP: &str = env!("CARGO_BIN_EXE_kdump");
/// Turns of the load that is recorded.
const TURNS: u64 = 80_000;
/// Commands that are recorded besides: no few calls again and again, but paths, structures and the strings of execs.
const REAL: &str =
    "git status; find /usr/include -name '*.h'; cc -O1 -c -o /dev/null -x c /usr/include/stdio.h";
/// Their stream is repeated until there is so much of it.
const REAL_BYTES: u64 = 300 << 20;
/// The large input is so many streams like the small one, one after the other: long enough that its time is that of printing.
const TIMES: usize = 10;

/// A file of records, gone with this.
struct Recorded {
    path: PathBuf,
    bytes: u64,
    records: u64,
    calls: u64,
}

impl Recorded {
    /// Of a load.
    fn new(mount: &Mount, name: &str, args: &[String]) -> Recorded {
        let mut load = Load::waiting(args);
        mount.ctl(load.pid(), "set default size=256M policy=block +inherit backend=ptrace");
        let mut trace = File::open(mount.path(&format!("{}/trace", load.pid()))).unwrap();
        load.go();
        let mut all = Vec::new();
        let mut buf = vec![0; 1 << 20];
        while let Ok(n @ 1..) = trace.read(&mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        let (mut records, mut calls) = (0, 0);
        let mut at = 0;
        while let Ok(Some(header)) = record::decode_header(&all[at..]) {
            at += record::HEADER_LEN + header.len;
            records += 1;
            calls += u64::from(header.ktr_type == record::KTR_SYSCALL);
        }
        assert!(calls > 0, "{args:?}: nothing was traced");
        Recorded::written(&all, 1, name, records, calls)
    }

    fn written(stream: &[u8], times: usize, name: &str, records: u64, calls: u64) -> Recorded {
        let path = load::program().with_extension(format!("{name}.{times}"));
        let mut file = File::create(&path).unwrap();
        for _ in 0..times {
            file.write_all(stream).unwrap();
        }
        let n = times as u64;
        Recorded { path, bytes: n * stream.len() as u64, records: n * records, calls: n * calls }
    }

    fn times(&self, times: usize, name: &str) -> Recorded {
        Recorded::written(&std::fs::read(&self.path).unwrap(), times, name, self.records, self.calls)
    }

    fn size(&self) -> String {
        format!("{} MiB", self.bytes >> 20)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// From where kdump reads: from a file it prints on all cores.
#[derive(Clone, Copy)]
enum From {
    Stdin,
    File,
}

/// `program` with kdump and its input.
fn kdump(program: &[&Path], from: From, path: &Path) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]);
    match from {
        From::Stdin => command.stdin(File::open(path).unwrap()),
        From::File => command.arg("-f").arg(path),
    };
    command
}

/// Records in a second.
fn printed(from: From, of: &Recorded) -> f64 {
    let mut command = kdump(&[Path::new(KDUMP)], from, &of.path);
    let begun = Instant::now();
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    of.records as f64 / begun.elapsed().as_secs_f64()
}

/// The most memory that kdump had, in KiB: asked by a small parent, for a child's figure begins with its parent's.
fn peak(from: From, of: &Recorded) -> f64 {
    let output =
        kdump(&[load::program(), Path::new("peak"), Path::new(KDUMP)], from, &of.path).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Prints the table.
pub(crate) fn run(options: &Options, mount: &Mount) {
    let mut table = Table::new("kdump", &["", "median", "compared with", "ratio"]);
    let small = Recorded::new(mount, "same", &words(&format!("rw1 {TURNS}")));
    let large = small.times(TIMES, "same");
    let mut run = words("run 1 sh -c");
    run.push(REAL.to_owned());
    let once = Recorded::new(mount, "real", &run);
    let real = once.times(REAL_BYTES.div_ceil(once.bytes) as usize, "real");
    let cores = std::thread::available_parallelism().unwrap();
    let ways = [
        (From::Stdin, "standard input, one core".to_owned()),
        (From::File, format!("a file, {cores} cores")),
    ];
    for (what, of) in [("read/write 1", &large), ("git, find and a compile", &real)] {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..options.rounds {
            for (rates, (from, _)) in rates.iter_mut().zip(&ways) {
                rates.push(printed(*from, of));
            }
        }
        let shown = |rates: &[f64]| format!("{:.2} M records/s", median(rates) / 1e6);
        for (i, (_, name)) in ways.iter().enumerate() {
            let (with, than) = match i {
                0 => (String::new(), 0.0),
                _ => (format!("one core {}", shown(&rates[0])), ratio(&rates[i], &rates[0])),
            };
            let name = format!("{what} to text, {name}, {}", of.size());
            table.row(&[name, shown(&rates[i]), with, times(than)]);
        }
    }
    for (from, name) in &ways {
        let most = |of| median(&(0..options.rounds).map(|_| peak(*from, of)).collect::<Vec<_>>());
        let (little, much) = (most(&small), most(&large));
        let mib = |kib: f64| format!("{:.1} MiB", kib / 1024.0);
        table.row(&[
            format!("peak memory, {name}, {}", large.size()),
            mib(much),
            format!("{}: {}", small.size(), mib(little)),
            times(much / little),
        ]);
    }
    if there("strace") {
        let same = format!("rw1 {TEXT_TURNS}");
        formatting(options.rounds, ("read/write 1", &large), (&words(&same), 2 * TEXT_TURNS), &mut table);
        formatting(options.rounds, ("git, find and a compile", &real), (&run, once.calls), &mut table);
    }
}

/// Turns of the load that strace prints: so many that the clock's ticks, by which user mode is told from the kernel's, are enough.
const TEXT_TURNS: u64 = 60_000;

/// Prints what it takes kdump to make text of a call, beside what strace computes for one, in rounds of their own: `of` is printed,
/// and the load, which makes so many calls, is run.
///
/// kdump's is all that it takes, the reading of the stream and the writing
/// of the text too, to `/dev/null` both. strace's is its time in user mode only, for the rest of it is to trace: the stops, and
/// the reads of the tracee's memory. In user mode it does more than to format all the same: it waits for each stop and asks what it is.
/// What it needs for that is seen where it prints no call, which stops as often.
fn formatting(
    rounds: usize,
    (name, of): (&str, &Recorded),
    (load, calls): (&[String], u64),
    table: &mut Table,
) {
    let (mut ours, mut theirs, mut text) = (Vec::new(), Vec::new(), Vec::new());
    let computed = |tracer: &str| computed(tracer, load) / calls as f64;
    for _ in 0..rounds {
        let before = cpu_time();
        printed(From::Stdin, of);
        let taken = cpu_time() - before;
        ours.push((taken.user + taken.system) / of.calls as f64);
        let strace = computed("strace -f -o /dev/null");
        theirs.push(strace - computed(""));
        text.push(strace - computed("strace -f -o /dev/null -e trace=none"));
    }
    for (what, theirs) in [("", theirs), (", strace's tracing apart", text)] {
        let (with, than) = (format!("strace {}", ns(median(&theirs))), times(ratio(&ours, &theirs)));
        table.row(&[format!("text of a call, {name}{what}"), ns(median(&ours)), with, than]);
    }
}

/// Nanoseconds in user mode of a load and whoever traces it.
fn computed(tracer: &str, load: &[String]) -> f64 {
    let before = cpu_time();
    let tracer: Vec<_> = tracer.split_whitespace().map(str::to_owned).collect();
    let mut load = Load::start(&tracer, load);
    load.go();
    load.result();
    load.child.wait().unwrap();
    (cpu_time() - before).user
}

/// Nanoseconds that all children had of the cpu so far.
struct CpuTime {
    user: f64,
    system: f64,
}

impl std::ops::Sub for CpuTime {
    type Output = CpuTime;
    fn sub(self, before: CpuTime) -> CpuTime {
        CpuTime { user: self.user - before.user, system: self.system - before.system }
    }
}

fn cpu_time() -> CpuTime {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let nanos = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
    CpuTime { user: nanos(usage.user_time()), system: nanos(usage.system_time()) }
}
