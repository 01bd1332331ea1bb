//! A minute of the fastest tracees there are, all facilities that are on by default: whether every record of it arrives.

use crate::Options;
use crate::flat::words;
use crate::load::Load;
use crate::mount::Mount;
use crate::seen::{How, Seen};
use crate::table::Table;

/// A load's name, its words with the time where `T` is, and the records that one of its calls makes.
type Of = (&'static str, &'static str, u64);

/// 4 KiB of data are two records: a record's data and its head together are no more than a page.
const STOPPED: [Of; 2] = [("getppid", "getppid T 1", 2), ("read/write 4096", "rw4k T 1", 4)];
/// More data than any reader reads: its process has to wait for it.
const BLOCKED: [Of; 1] = [("write 1 MiB, policy block", "big T 1", 2 + (1u64 << 20).div_ceil(4096 - 8))];
const WATCHED: [Of; 2] =
    [("getppid, 2 processes", "getppid T 1 2", 2), ("read/write 4096, 2 processes", "rw4k T 1 2", 4)];

/// What one load left, its calls and the nanoseconds they took.
fn traced(mount: &Mount, line: &str, how: How, load: &str, time: &str) -> (Seen, u64, f64) {
    let words = words(&load.replace('T', time));
    let mut load = Load::waiting(&words);
    mount.ctl(load.pid(), line);
    let reader = mount.reader(load.pid(), how);
    load.go();
    let (calls, elapsed) = load.result();
    let seen = reader.join().unwrap();
    seen.check(&words, calls, mount.loses());
    (seen, calls, elapsed)
}

fn rows(options: &Options, table: &mut Table, mount: &Mount, set: &str, how: How, loads: &[Of]) {
    for (name, load, of_a_call) in loads.iter().filter(|(name, ..)| name.contains(&options.only)) {
        // What the load does besides: the same in each run, so that the sum must be.
        let (seen, calls, _) = traced(mount, set, how, load, "100");
        assert_eq!(seen.lost, 0, "a short load loses nothing");
        let besides = seen.made() - of_a_call * calls;
        let (seen, calls, elapsed) = traced(mount, set, how, load, &format!("{}s", options.seconds));
        let missing = (of_a_call * calls + besides).abs_diff(seen.made());
        assert_eq!(missing, 0, "{set}, {name}: {calls} calls, {besides} besides, {seen:?}");
        let rate = |n: u64| format!("{:.3} M", n as f64 / elapsed * 1e3);
        table.row(&[
            format!("{}, {name}", mount.backend()),
            format!("{:.1}", elapsed / 1e9),
            calls.to_string(),
            rate(calls),
            seen.made().to_string(),
            rate(seen.made()),
            format!("{} ({:.2} %)", seen.lost, 100.0 * seen.lost as f64 / seen.made() as f64),
            missing.to_string(),
        ]);
    }
}

/// Prints the table.
pub(crate) fn run(options: &Options) {
    let columns =
        ["", "seconds", "calls", "calls/s", "records", "records/s", "lost, and told", "missing, not told"];
    let mut table = Table::new("A minute", &columns);
    let mount = Mount::new("ptrace", "256M");
    rows(options, &mut table, &mount, "set default +inherit backend=ptrace", How::Checks, &STOPPED);
    let set = "set default +inherit policy=block backend=ptrace";
    rows(options, &mut table, &mount, set, How::Checks, &BLOCKED);
    drop(mount);
    // Too many to be checked as they come: they are counted.
    let set = "set default +inherit backend=ebpf policy=drop";
    rows(options, &mut table, &Mount::new("ebpf", "256M"), set, How::Counts, &WATCHED);
}
