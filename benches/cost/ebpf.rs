//! The eBPF backend: what a call costs, what does not grow, and a million records a second.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::cost::{self, Ratio, Tool, per_call, there, with_turns, wrapped};
use crate::flat::{MANY, busy, children, idle, timed, words};
use crate::floor::{Floor, Then};
use crate::load::Load;
use crate::mount::Mount;
use crate::seen::{How, Seen};
use crate::table::{Table, median, ns, ratio, times};
use crate::{Options, delay, stream};

const SET: &str = "set syscall,sysret backend=ebpf policy=drop";
const SET_ALL: &str = "set syscall,sysret +inherit backend=ebpf policy=drop";
const SET_DEFAULT: &str = "set default +inherit backend=ebpf policy=drop";
/// Turns of the load whose calls are timed among many others.
const TURNS: u64 = 200_000;
/// Calls of each of two processes: as fast as they can, and one in so many nanoseconds.
const FULL: u64 = 2_000_000;
const PACED: u64 = 500_000;
const PACE: u64 = 4000;

/// Under what a load runs.
enum Under {
    /// What runs a load without eBPF, or with ours.
    Tool(Tool),
    Floor(Then),
    /// Programs that do nothing.
    Empty,
    /// Not traced, while another process is.
    Untraced,
}

fn bare(args: &[String]) -> (u64, f64) {
    let mut load = Load::waiting(args);
    load.go();
    load.result()
}

fn cost(options: &Options, mount: &Mount) {
    const RATIOS: [Ratio; 7] = [
        ("ours/floor", "ours", &["floor"]),
        ("ours/floor, piped", "ours", &["floor, piped"]),
        ("default/floor", "ours default", &["floor"]),
        ("ours/strace", "ours", &["strace"]),
        ("default/strace", "ours default", &["strace"]),
        ("ours/perf record", "ours", &["perf record"]),
        ("untraced/empty", "untraced", &["empty"]),
    ];
    let mut tools = vec![
        ("bare", Under::Tool(Tool::Bare)),
        ("ours", Under::Tool(Tool::Ours(SET_ALL))),
        ("ours default", Under::Tool(Tool::Ours(SET_DEFAULT))),
        ("floor", Under::Floor(Then::Dropped)),
        ("floor, piped", Under::Floor(Then::Piped)),
        ("empty", Under::Empty),
        ("untraced", Under::Untraced),
    ];
    if there("strace") {
        tools.push(("strace", Under::Tool(wrapped("strace -f -o /dev/null"))));
    }
    if there("perf") {
        tools.push(("perf record", Under::Tool(wrapped("perf record -e raw_syscalls:* -o /dev/null"))));
        tools.push(("perf trace", Under::Tool(wrapped("perf trace -o /dev/null"))));
    }
    let floor = RefCell::new(Floor::load());
    let missed = Cell::new(0.0f64);
    cost::table(options, "Cost of a system call, eBPF", &tools, &RATIOS, |under, words, turns| {
        let args = with_turns(words, turns);
        match under {
            Under::Tool(tool) => cost::measure(tool, mount, words, turns),
            Under::Floor(then) => {
                let mut load = Load::waiting(&args);
                let (result, records) = floor.borrow_mut().watching(load.pid(), *then, || {
                    load.go();
                    load.result()
                });
                let calls = result.0;
                assert!(records.seen + records.lost >= 2 * calls, "{words:?}: {calls} calls, {records:?}");
                let share = records.lost as f64 / (records.seen + records.lost).max(1) as f64;
                missed.set(missed.get().max(share));
                per_call(result)
            }
            Under::Empty => per_call(floor.borrow_mut().doing_nothing(|| bare(&args))),
            Under::Untraced => {
                let other = idle("idle 0");
                mount.ctl(other.pid(), SET);
                let result = bare(&args);
                mount.ctl(other.pid(), "clear");
                per_call(result)
            }
        }
    });
    println!(
        "\nThe floor's rings had no room for {:.1} % of its records where it was worst.",
        missed.get() * 100.0
    );
}

/// Records of a load of two processes, and seconds: each record made is seen or told to be lost.
fn flood(mount: &Mount, line: &str, calls: u64) -> (Seen, f64) {
    let args = words(line);
    let mut load = Load::waiting(&args);
    mount.ctl(load.pid(), SET_ALL);
    let reader = mount.reader(load.pid(), How::Counts);
    load.go();
    let (made, elapsed) = load.result();
    assert_eq!(made, calls);
    let counted = reader.join().unwrap();
    counted.check(&args, made, mount.loses());
    (counted, elapsed / 1e9)
}

fn million(options: &Options, mount: &Mount) {
    let columns =
        ["two processes, all the time", "records made", "a second", "seen a second", "lost", "told"];
    let mut table = Table::new("A million records a second, eBPF", &columns);
    // What the load does besides: the same in each run, so that the sum must be.
    let besides = |line: &str, calls: u64| {
        let (counted, _) = flood(mount, line, calls);
        assert_eq!(counted.lost, 0, "a short load loses nothing");
        counted.made() - 2 * calls
    };
    let rows = [
        ("as fast as they can", "getppid N 1 2".to_owned(), FULL),
        ("1,000,000 a second", format!("paced N {PACE} 2"), PACED),
    ];
    for (name, line, turns) in rows {
        let line = |turns: u64| line.replace('N', &turns.to_string());
        let besides = besides(&line(100), 200);
        let (mut made, mut seen, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let (counted, seconds) = flood(mount, &line(turns), 2 * turns);
            assert_eq!(counted.made(), 4 * turns + besides, "{name}: made, and seen and told: {counted:?}");
            made.push(counted.made() as f64 / seconds);
            seen.push((counted.made() - counted.lost) as f64 / seconds);
            lost.push(counted.lost as f64 / counted.made() as f64);
        }
        let rate = |figures: &[f64]| format!("{:.2} M", median(figures) / 1e6);
        table.row(&[
            name.to_owned(),
            (4 * turns + besides).to_string(),
            rate(&made),
            rate(&seen),
            format!("{:.1} %", median(&lost) * 100.0),
            "exactly".to_owned(),
        ]);
    }
}

fn flat(options: &Options, mount: &Mount) {
    let mut table = Table::new("What must not grow, eBPF", &["", "median", "compared with", "ratio"]);
    let mut row = |name: &str, figures: &[f64], with: Option<(&str, &[f64])>| {
        let (text, times) = match with {
            Some((name, with)) => (format!("{name} {}", ns(median(with))), times(ratio(figures, with))),
            None => (String::new(), "-".to_owned()),
        };
        table.row(&[name.to_owned(), ns(median(figures)), text, times]);
    };
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut note = |name, figure| figures.entry(name).or_default().push(figure);
    let tree = format!("{SET} +inherit +descend");
    let small = format!("{SET} size=256K");
    for _ in 0..options.rounds {
        note("alone", busy(mount, TURNS, SET));
        let load = idle(&format!("idle {MANY}"));
        mount.ctl(load.pid(), &tree);
        note("tree", busy(mount, TURNS, SET));
        drop(load);
        let load = idle(&format!("idle {MANY}"));
        for pid in children(load.pid()) {
            mount.ctl(pid, &small);
        }
        note("each", busy(mount, TURNS, SET));
        drop(load);
        let load = idle(&format!("idle 0 {MANY}"));
        note("set threads", timed(|| mount.ctl(load.pid(), SET)));
        note("clear threads", timed(|| mount.ctl(load.pid(), "clear")));
        drop(load);
        let asleep = idle("idle 0");
        let mut awake = Load::waiting(&words("getppid 1000000000"));
        awake.go();
        for _ in 0..10 {
            note("set first", timed(|| mount.ctl(asleep.pid(), SET)));
            note("set busy", timed(|| mount.ctl(awake.pid(), SET)));
            note("clear busy", timed(|| mount.ctl(awake.pid(), "clear")));
            note("clear last", timed(|| mount.ctl(asleep.pid(), "clear")));
            // The programs go with the last ring, a moment later.
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        drop((asleep, awake));
    }
    let of = |name| figures[name].as_slice();
    row("a call, 1,000 idle processes traced in one tree", of("tree"), Some(("alone", of("alone"))));
    row("a call, 1,000 idle processes traced one by one", of("each"), Some(("alone", of("alone"))));
    row("set, a process asleep, the first one traced", of("set first"), None);
    row("clear, a process asleep, the last one traced", of("clear last"), None);
    row("set, a process in a loop of calls", of("set busy"), None);
    row("clear, a process in a loop of calls", of("clear busy"), None);
    row("set, a process of 1,000 threads", of("set threads"), None);
    row("clear, a process of 1,000 threads", of("clear threads"), None);
    delay::rows(options, mount, "ebpf", |name, ours, theirs| row(name, ours, Some(("a pipe", theirs))));
}

/// What the killed have left is kept for a while: there must be room for it.
fn mount() -> Mount {
    Mount::new("ebpf", "4096M")
}

/// Prints the table of calls.
pub(crate) fn run_cost(options: &Options) {
    cost(options, &mount());
}

/// Prints the others.
pub(crate) fn run_flat(options: &Options) {
    let mount = mount();
    million(options, &mount);
    stream::run_live(options, &mount);
    flat(options, &mount);
}
