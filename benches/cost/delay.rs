//! How soon a reader hears of a record, beside what a pipe takes: one that waits in read(2), and one that waits in poll(2).

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, SystemTime};

use ktrace::record;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Options;
use crate::load::Load;
use crate::mount::Mount;
use crate::table::median;

/// The time that one round is about.
const ROUND: Duration = Duration::from_millis(400);
/// Pauses between records. Where they are long the reader has gone to sleep and its cpu with it; where they are short it may
/// not have come back from the record before.
const PAUSES: [(&str, Duration); 3] = [
    ("2 ms", Duration::from_millis(2)),
    ("500 us", Duration::from_micros(500)),
    ("200 us", Duration::from_micros(200)),
];

/// In which call the reader waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    Read,
    Poll,
}

/// Measures each delay, of a stream and of a pipe in turns, and gives it to `row`.
pub(crate) fn rows(
    options: &Options,
    mount: &Mount,
    backend: &str,
    mut row: impl FnMut(&str, &[f64], &[f64]),
) {
    let line = format!("set syscall calls=getppid backend={backend}");
    for (waits, how) in [(Waits::Read, "its reader"), (Waits::Poll, "its reader in poll")] {
        for (every, pause) in PAUSES {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..options.rounds {
                ours.push(of_stream(mount, &line, pause, waits));
                theirs.push(of_pipe(pause, waits));
            }
            row(&format!("from a record to {how}, one each {every}"), &ours, &theirs);
        }
    }
    let (mut least, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let pipe = of_pipe(PAUSES[0].1, Waits::Poll);
        least.push(pipe + asked(mount));
        theirs.push(pipe);
    }
    row("the floor of a reader in poll: a pipe's, and two requests that find nothing", &least, &theirs);
}

/// What the kernel asks us once a reader in poll(2) has been woken: again whether there is something, and for it. Here there
/// never is.
fn asked(mount: &Mount) -> f64 {
    let idle = Load::waiting(&["getppid".to_owned(), "1".to_owned()]);
    let path = mount.path(&format!("{}/trace", idle.pid()));
    let mut trace = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    let mut took = Vec::new();
    for _ in 0..ticks(PAUSES[0].1) {
        // As after a pause: those who answer have gone to sleep.
        thread::sleep(PAUSES[0].1);
        let begun = since_epoch();
        assert_eq!(poll(&mut [PollFd::new(trace.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO), Ok(0));
        assert_eq!(trace.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        took.push(since_epoch() - begun);
    }
    median(&took)
}

fn ticks(pause: Duration) -> u128 {
    ROUND.as_micros() / pause.as_micros()
}

fn since_epoch() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as f64
}

/// Bytes that were there when the wait was over, and the time then; `None` at the end.
fn next(from: &mut (impl Read + AsFd), buf: &mut [u8], waits: Waits) -> Option<(usize, f64)> {
    if waits == Waits::Poll {
        poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    }
    let n = from.read(buf).unwrap();
    (n > 0).then(|| (n, since_epoch()))
}

/// From a record's own time.
fn of_stream(mount: &Mount, line: &str, pause: Duration, waits: Waits) -> f64 {
    let words = format!("ticks {} {}", ticks(pause), pause.as_micros());
    let mut load = Load::waiting(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
    mount.ctl(load.pid(), line);
    let mut trace = File::open(mount.path(&format!("{}/trace", load.pid()))).unwrap();
    load.go();
    let mut delays = Vec::new();
    let mut buf = vec![0; 1 << 16];
    while let Some((n, now)) = next(&mut trace, &mut buf, waits) {
        let mut at = 0;
        while let Ok(Some(header)) = record::decode_header(&buf[at..n]) {
            let time = header.stamp.time;
            if header.ktr_type == record::KTR_SYSCALL {
                delays.push(now - (time.sec as f64 * 1e9 + time.nsec as f64));
            }
            at += record::HEADER_LEN + header.len;
        }
    }
    assert_eq!(delays.len() as u128, ticks(pause), "a record each time");
    median(&delays)
}

/// From the time that a writer writes.
fn of_pipe(pause: Duration, waits: Waits) -> f64 {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let writing = thread::spawn(move || {
        for _ in 0..ticks(pause) {
            thread::sleep(pause);
            writer.write_all(&since_epoch().to_le_bytes()).unwrap();
        }
    });
    let mut delays = Vec::new();
    let mut buf = vec![0; 1 << 16];
    while let Some((n, now)) = next(&mut reader, &mut buf, waits) {
        let times = buf[..n].chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()));
        delays.extend(times.map(|time| now - time));
    }
    writing.join().unwrap();
    median(&delays)
}
