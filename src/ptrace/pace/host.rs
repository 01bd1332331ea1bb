//! What the kernel says of cpus and of who wants them.

use std::fs;
use std::io::Read;
use std::sync::OnceLock;
use std::time::Duration;

/// Nanoseconds that this thread was ready to run and had no cpu: the second number of /proc/thread-self/schedstat.
pub(super) fn run_delay() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

pub(super) fn cpus() -> usize {
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, |cpus| cpus.get()))
}

/// How many threads want a cpu at this moment, or have one: the fourth word of /proc/loadavg, before its slash
/// (proc_loadavg(5)).
pub(super) fn running() -> Option<usize> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

/// How long all cpus together had nothing to do, since the start: the fourth number of /proc/stat, in hundredths of a
/// second (proc_stat(5)).
pub(super) fn idle() -> Option<Duration> {
    let mut line = [0; 256];
    let len = fs::File::open("/proc/stat").and_then(|mut stat| stat.read(&mut line)).ok()?;
    let ticks: u64 =
        std::str::from_utf8(&line[..len]).ok()?.lines().next()?.split_whitespace().nth(4)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
