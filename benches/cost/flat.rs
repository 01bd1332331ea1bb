//! What does not grow: the cost of a call with many processes traced, of a change, of a listing, of an idle process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::load::Load;
use crate::mount::Mount;
use crate::seen::How;
use crate::table::{Table, median, ns, ratio, times};

pub(crate) const MANY: usize = 1000;
const LISTED: usize = 10_000;
/// Between one change and the next: the process has been traced for so long before it is cleared.
const PAUSE: Duration = Duration::from_millis(20);
/// Turns of the load whose calls are timed.
const TURNS: u64 = 20_000;
const SET: &str = "set syscall,sysret backend=ptrace";

pub(crate) fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// `load idle`, when all of it is there and asleep.
pub(crate) fn idle(line: &str) -> Load {
    let mut load = Load::start(&[], &words(line));
    let mut ready = String::new();
    BufReader::new(load.child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let asleep = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"))
    };
    while !children(load.pid()).iter().all(asleep) {
        thread::yield_now();
    }
    load
}

pub(crate) fn children(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn timed<T>(f: impl FnOnce() -> T) -> f64 {
    let begun = Instant::now();
    f();
    begun.elapsed().as_nanos() as f64
}

/// Resident KiB of a process.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// KiB of an idle traced process, in a daemon that has traced nobody before: one that has had more memory and freed it gives of
/// that first, which shows nowhere.
fn of_idle() -> f64 {
    let mount = Mount::new("ptrace", "2048M");
    let load = idle(&format!("idle {MANY}"));
    let before = resident(mount.daemon());
    for pid in children(load.pid()) {
        mount.ctl(pid, SET);
    }
    (resident(mount.daemon()) - before) / MANY as f64
}

/// Nanoseconds of a call of one busy process, set so.
pub(crate) fn busy(mount: &Mount, turns: u64, line: &str) -> f64 {
    let args = words(&format!("getppid {turns}"));
    let mut load = Load::waiting(&args);
    mount.ctl(load.pid(), line);
    let reader = mount.reader(load.pid(), How::Counts);
    load.go();
    let (calls, elapsed) = load.result();
    reader.join().unwrap().check(&args, calls, mount.loses());
    elapsed / calls as f64
}

/// Prints the table.
pub(crate) fn run(options: &Options) {
    let mut table = Table::new("What must not grow", &["", "median", "compared with", "ratio"]);
    let mut row = |name: &str, figure: String, with: String, ratio: f64| {
        table.row(&[name.to_owned(), figure, with, times(ratio)]);
    };

    let memory: Vec<f64> = (0..options.rounds).map(|_| of_idle()).collect();
    // What the killed have left is kept for a while.
    let mount = Mount::new("ptrace", "2048M");
    let mut alone = Vec::new();
    let (mut one_tree, mut each) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        alone.push(busy(&mount, TURNS, SET));
        let load = idle(&format!("idle {MANY}"));
        mount.ctl(load.pid(), "set syscall,sysret +descend +inherit backend=ptrace");
        one_tree.push(busy(&mount, TURNS, SET));
        drop(load);
        let load = idle(&format!("idle {MANY}"));
        for pid in children(load.pid()) {
            mount.ctl(pid, SET);
        }
        each.push(busy(&mount, TURNS, SET));
    }
    let single = ns(median(&alone));
    row(
        "a call, 1,000 idle processes traced in one tree",
        ns(median(&one_tree)),
        format!("alone {single}"),
        ratio(&one_tree, &alone),
    );
    row(
        "a call, 1,000 idle processes traced one by one",
        ns(median(&each)),
        format!("alone {single}"),
        ratio(&each, &alone),
    );
    row("memory of an idle traced process", format!("{:.1} KiB", median(&memory)), String::new(), 0.0);

    for (name, line) in [("asleep", "idle 0"), ("in a loop of calls", "getppid 1000000000")] {
        let mut load = match name {
            "asleep" => idle(line),
            _ => Load::waiting(&words(line)),
        };
        if name != "asleep" {
            load.go();
        }
        let (mut set, mut clear, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds * 10 {
            set.push(timed(|| mount.ctl(load.pid(), SET)));
            // It has found out by then how best to wait for its tracee.
            thread::sleep(PAUSE);
            clear.push(timed(|| mount.ctl(load.pid(), "clear")));
            thread::sleep(PAUSE);
            nothing.push(timed(|| mount.ctl(load.pid(), "clear")));
        }
        let floor = format!("a clear of what is clear {}", ns(median(&nothing)));
        row(&format!("set, a process {name}"), ns(median(&set)), floor.clone(), ratio(&set, &nothing));
        row(&format!("clear, a process {name}"), ns(median(&clear)), floor, ratio(&clear, &nothing));
    }

    let mut attach = Vec::new();
    let mut release = Vec::new();
    for _ in 0..options.rounds {
        let load = idle(&format!("idle 0 {MANY}"));
        attach.push(timed(|| mount.ctl(load.pid(), SET)));
        release.push(timed(|| mount.ctl(load.pid(), "clear")));
    }
    row("set, a process of 1,000 threads", ns(median(&attach)), String::new(), 0.0);
    row("clear, a process of 1,000 threads", ns(median(&release)), String::new(), 0.0);

    let load = idle(&format!("idle {LISTED}"));
    let list = |dir: &Path| timed(|| assert!(fs::read_dir(dir).unwrap().count() > LISTED));
    let (mut ours, mut proc) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        ours.push(list(&mount.path("")));
        proc.push(list(Path::new("/proc")));
    }
    drop(load);
    row(
        "ls, 10,000 processes",
        ns(median(&ours)),
        format!("/proc {}", ns(median(&proc))),
        ratio(&ours, &proc),
    );
}
