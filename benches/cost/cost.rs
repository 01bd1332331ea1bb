//! What one system call costs: alone, under us, under the floors and under other tools.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use crate::Options;
use crate::load::{self, Load};
use crate::looped::{self, Besides, Wait};
use crate::mount::Mount;
use crate::seen::{self, How};
use crate::table::{Table, median, ns, ratio, times};

/// Turns of the first, short run that finds how many a round needs.
const PILOT: u64 = 500;
/// Nanoseconds of one turn are taken for no less than this: a pilot can be lucky.
const LEAST: f64 = 100.0;

/// Shown as nothing.
const NOT_MEASURED: f64 = 0.0;

/// Under what a load runs.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Tool {
    Bare,
    /// Under the daemon, set so.
    Ours(&'static str),
    Loop(Wait, Besides),
    /// Under a command that starts it.
    Wrapped(Vec<String>),
    /// The same, by which the one call that it is about is recorded.
    Filtered(Vec<String>),
}

pub(crate) fn wrapped(words: &str) -> Tool {
    Tool::Wrapped(words.split(' ').map(str::to_owned).collect())
}

/// True where this program is installed.
pub(crate) fn there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The words of a load, with the number of its turns.
pub(crate) fn with_turns(words: &[String], turns: u64) -> Vec<String> {
    words.iter().map(|w| if w == "N" { turns.to_string() } else { w.clone() }).collect()
}

/// True of a load that makes threads or processes first, of which each then makes the turns.
fn makes_several(words: &[String]) -> bool {
    words[0] != "run" && words.len() > 2
}

/// True where they are processes.
fn makes_processes(words: &[String]) -> bool {
    words[0] != "run" && words.len() > 3
}

/// Calls of one turn.
fn calls_a_turn(words: &[String]) -> u64 {
    if words[0] == "getppid" { 1 } else { 2 }
}

/// Nanoseconds for a call, or for one run where the load is a command.
pub(crate) fn per_call((calls, elapsed): (u64, f64)) -> f64 {
    elapsed / calls as f64
}

/// A call that the loads make only when their time is over, once in a child and once themselves.
const UNUSED: &str = "mknod";
/// Processes that show at the end of a load that they are traced: it and that child.
const SHOWN: usize = 2;

/// Where `ours filter` records.
fn filtered() -> PathBuf {
    load::program().with_extension("filtered")
}

fn tools(mount: &Mount) -> Vec<(&'static str, Tool)> {
    let ktrace = [
        "env",
        &format!("KTRACE_MOUNT={}", mount.path("").display()),
        env!("CARGO_BIN_EXE_ktrace"),
        "--backend",
        "ptrace",
        "-i",
        "--seccomp-bpf",
        "--calls",
        UNUSED,
        "-f",
        &filtered().display().to_string(),
    ]
    .map(str::to_owned);
    let mut tools = vec![
        ("bare", Tool::Bare),
        ("ours", Tool::Ours("set syscall,sysret +inherit backend=ptrace")),
        ("ours default", Tool::Ours("set default +inherit backend=ptrace")),
        ("ours psig", Tool::Ours("set psig +inherit backend=ptrace")),
        ("ours filter", Tool::Filtered(ktrace.to_vec())),
        ("loop", Tool::Loop(Wait::Blocking, Besides::Nothing)),
        ("spinning", Tool::Loop(Wait::Spinning, Besides::Nothing)),
        ("loop, pidfds", Tool::Loop(Wait::Blocking, Besides::Pidfds)),
        ("spinning, pidfds", Tool::Loop(Wait::Spinning, Besides::Pidfds)),
        ("loop, data", Tool::Loop(Wait::Blocking, Besides::Data)),
        ("spinning, data", Tool::Loop(Wait::Spinning, Besides::Data)),
    ];
    if there("strace") {
        tools.push(("strace", wrapped("strace -f -o /dev/null")));
        tools.push((
            "strace filter",
            wrapped(&format!("strace -f --seccomp-bpf -e trace={UNUSED} -o /dev/null")),
        ));
    }
    if there("perf") {
        tools.push(("perf trace", wrapped("perf trace -o /dev/null")));
    }
    tools
}

/// One row: the name and the load's words, with `N` where the number of turns goes. A short command runs many times in a
/// round: once, it would be slow or fast as the scheduler's first choice was.
fn loads() -> Vec<(&'static str, Vec<String>)> {
    let rows = [
        ("getppid", "getppid N"),
        ("read/write 1", "rw1 N"),
        ("read/write 4096", "rw4k N"),
        ("open/close", "open N"),
        ("getppid, 2 threads", "getppid N 2"),
        ("getppid, 8 threads", "getppid N 8"),
        ("getppid, 10 processes", "getppid N 1 10"),
        ("getppid, 100 processes", "getppid N 1 100"),
        ("getppid, 1000 processes", "getppid N 1 1000"),
        ("find", "run 1 find /usr/lib -name *.so"),
        ("git status", "run 20 git status"),
        ("compile", "run 10 cc -O1 -c -o /dev/null -x c /usr/include/stdio.h"),
    ];
    rows.into_iter().map(|(name, words)| (name, words.split(' ').map(str::to_owned).collect())).collect()
}

/// Nanoseconds for a call, or for one run where the load is a command.
pub(crate) fn measure(tool: &Tool, mount: &Mount, words: &[String], turns: u64) -> f64 {
    let args = with_turns(words, turns);
    let result = match tool {
        Tool::Bare => {
            let mut load = Load::waiting(&args);
            load.go();
            load.result()
        }
        Tool::Wrapped(wrapper) => {
            let mut load = Load::start(wrapper, &args);
            load.go();
            load.result()
        }
        Tool::Filtered(wrapper) => {
            let mut load = Load::start(wrapper, &args);
            load.go();
            let result = load.result();
            // The file is whole when its writer has ended.
            assert!(load.child.wait().unwrap().success(), "{words:?}: {wrapper:?}");
            let seen = seen::check(File::open(filtered()).unwrap());
            seen.check(words, 0, false);
            assert!(seen.syscalls == SHOWN as u64 && seen.processes >= SHOWN, "{words:?}: {seen:?}");
            result
        }
        // A load that starts no processes, or gives and moves nothing, would be the bare loop's once more.
        Tool::Loop(_, Besides::Pidfds) if !makes_processes(words) => return NOT_MEASURED,
        Tool::Loop(_, Besides::Data) if words[0] == "getppid" => return NOT_MEASURED,
        Tool::Loop(wait, besides) => {
            let mut load = Load::waiting(&args);
            let (pid, wait, besides) = (load.pid(), *wait, *besides);
            let (attached, is_attached) = std::sync::mpsc::channel();
            let tracer = thread::spawn(move || {
                looped::attach(pid);
                attached.send(()).unwrap();
                looped::follow(wait, besides);
            });
            is_attached.recv().unwrap();
            load.go();
            let result = load.result();
            tracer.join().unwrap();
            result
        }
        Tool::Ours(line) => {
            let mut load = Load::waiting(&args);
            mount.ctl(load.pid(), line);
            // Of a command the calls are not known beforehand, and records are few.
            let how = if words[0] == "run" { How::Keeps } else { How::Counts };
            let reader = mount.reader(load.pid(), how);
            load.go();
            let result = load.result();
            // A run of a command is one call at the least.
            let calls = if line.contains("psig") { 0 } else { result.0 };
            let seen = reader.join().unwrap();
            seen.check(words, calls, mount.loses());
            if line.contains("psig") {
                assert!(seen.signals >= SHOWN as u64, "{words:?}: {seen:?}");
            }
            // The load's own calls alone would do for the count: each run is a process besides.
            if how == How::Keeps && calls > 0 {
                assert!(seen.processes as u64 > calls, "{words:?}: {seen:?}");
            }
            result
        }
    };
    per_call(result)
}

/// One column of ratios: its name, of which column, to the best of which.
pub(crate) type Ratio = (&'static str, &'static str, &'static [&'static str]);

/// Prints a table: of each load a row, of each tool a column, measured in turns.
pub(crate) fn table<T>(
    options: &Options,
    title: &str,
    tools: &[(&'static str, T)],
    ratios: &[Ratio],
    mut measure: impl FnMut(&T, &[String], u64) -> f64,
) {
    let mut columns = vec!["ns per call"];
    columns.extend(tools.iter().map(|(name, _)| *name));
    columns.extend(ratios.iter().map(|(name, ..)| *name));
    let mut table = Table::new(title, &columns);
    for (name, words) in loads().into_iter().filter(|(name, _)| name.contains(&options.only)) {
        let copies: u64 = words.iter().skip(2).filter_map(|w| w.parse::<u64>().ok()).product();
        let mut turns = |tool: &T| match words.iter().any(|w| w == "N") {
            false => 1,
            true => {
                let pilot = measure(tool, &words, PILOT.div_ceil(copies).max(2)).max(LEAST);
                let turns = (options.ms as f64 * 1e6 / pilot) as u64 / calls_a_turn(&words);
                turns.div_ceil(copies).max(2)
            }
        };
        let mut turns: Vec<u64> = tools.iter().map(|(_, tool)| turns(tool)).collect();
        if makes_several(&words) {
            // A round is births too, and the finding of the best way: who made fewer turns would pay for more of it in each.
            let one = median(&turns.iter().map(|&turns| turns as f64).collect::<Vec<_>>());
            turns.fill(one as u64);
        }
        let mut figures: Vec<Vec<f64>> = vec![Vec::new(); tools.len()];
        for _ in 0..options.rounds {
            for (i, (_, tool)) in tools.iter().enumerate() {
                figures[i].push(measure(tool, &words, turns[i]));
            }
        }
        let of = |name: &str| {
            tools.iter().position(|(n, _)| *n == name).map_or(&[][..], |i| figures[i].as_slice())
        };
        let mut cells = vec![name.to_owned()];
        cells.extend(figures.iter().map(|f| ns(median(f))));
        for (_, column, others) in ratios {
            let round = |i: usize| {
                others.iter().filter_map(|name| of(name).get(i).copied()).reduce(f64::min).unwrap_or(0.0)
            };
            let best: Vec<f64> = (0..options.rounds).map(round).collect();
            cells.push(times(ratio(of(column), &best)));
        }
        table.row(&cells);
    }
}

/// Prints the table.
pub(crate) fn run(options: &Options) {
    const RATIOS: [Ratio; 6] = [
        ("ours/best loop", "ours", &["loop", "spinning"]),
        ("default/best loop", "ours default", &["loop", "spinning"]),
        ("ours/best loop, pidfds", "ours", &["loop, pidfds", "spinning, pidfds"]),
        ("default/best loop, data", "ours default", &["loop, data", "spinning, data"]),
        ("ours/strace", "ours", &["strace"]),
        ("default/strace", "ours default", &["strace"]),
    ];
    let mount = Mount::new("ptrace", "256M");
    let tools = tools(&mount);
    table(options, "Cost of a system call", &tools, &RATIOS, |tool, words, turns| {
        measure(tool, &mount, words, turns)
    });
}
