//! Context switches (R8), from perf events: no stop tells of them. Hazard 22: most switches of a traced thread are our
//! own stops, and these are left out.
//!
//! A stopped thread is off its cpu, and on it again after the resume: so each resume has one pair of a switch out and
//! a switch in around it, the first whose switch in comes after. That pair is ours; every other one is the program's.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use super::sys::{self, PerfRing};
use crate::record::Time;

/// `PERF_RECORD_LOST` and `PERF_RECORD_SWITCH` of uapi/linux/perf_event.h.
const RECORD_LOST: u32 = 2;
const RECORD_SWITCH: u32 = 14;
/// `PERF_RECORD_MISC_SWITCH_OUT` and `..._PREEMPT`.
const SWITCH_OUT: u16 = 1 << 13;
const PREEMPT: u16 = 1 << 14;

/// How often a thread that makes no stops is asked for its switches.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// What happened to a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// It left its cpu or came back; not by its own will where `user`.
    Switch { time: Time, out: bool, user: bool },
    /// So many switches had no room before they were taken.
    Lost(u64),
}

/// The switches of one thread.
#[derive(Debug)]
pub(super) struct Switches {
    ring: PerfRing,
    bytes: Vec<u8>,
    sieve: Sieve,
}

impl Switches {
    /// # Errors
    /// Those of perf_event_open(2) and of mmap(2).
    pub(super) fn of(tid: i32) -> nix::Result<Switches> {
        Ok(Switches { ring: PerfRing::open(tid)?, bytes: Vec::new(), sieve: Sieve::default() })
    }

    /// The thread is stopped and about to be resumed.
    pub(super) fn resumed(&mut self, time: Time) {
        self.sieve.resumes.push_back(ns(time));
    }

    /// What has happened so far, but for a switch out that may turn out to be ours. With `over` nothing follows.
    pub(super) fn take(&mut self, over: bool, mut each: impl FnMut(Event)) {
        self.bytes.clear();
        self.ring.take(&mut self.bytes);
        parse(&self.bytes, |event| self.sieve.put(event, &mut each));
        if over {
            self.sieve.flush(&mut each);
        }
    }
}

/// Whether this process may ask for them at all.
///
/// # Errors
/// What the kernel says.
pub(super) fn probe() -> nix::Result<()> {
    static PROBED: OnceLock<Result<(), Errno>> = OnceLock::new();
    *PROBED.get_or_init(|| PerfRing::open(sys::gettid()).map(drop))
}

/// Wakes the calling thread now and then, until dropped: a thread that makes no stops tells nobody of its switches.
///
/// # Errors
/// Those of timer_create(2).
pub(super) fn ticks() -> nix::Result<Timer> {
    let notify = SigevNotify::SigevThreadId { signal: Signal::SIGURG, thread_id: sys::gettid(), si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
    timer.set(Expiration::Interval(TimeSpec::from_duration(TICK)), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

/// Reads records of perf_event_open(2) with the time as their only sample id.
fn parse(bytes: &[u8], mut each: impl FnMut(Raw)) {
    let mut rest = bytes;
    while let Some((header, _)) = rest.split_first_chunk::<8>() {
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let misc = u16::from_le_bytes([header[4], header[5]]);
        let size = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let Some(record) = rest.get(..size).filter(|_| size >= 8) else { return };
        let word =
            |at: usize| record.get(at..at + 8).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b));
        match (kind, word(8), word(16)) {
            (RECORD_SWITCH, Some(time), _) => {
                each(Raw::Switch { ns: time, out: misc & SWITCH_OUT != 0, user: misc & PREEMPT != 0 });
            }
            (RECORD_LOST, Some(_), Some(lost)) => each(Raw::Lost(lost)),
            _ => {}
        }
        rest = &rest[size..];
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Raw {
    Switch { ns: u64, out: bool, user: bool },
    Lost(u64),
}

/// Tells our own switches from the program's.
#[derive(Debug, Default)]
struct Sieve {
    /// When we resumed the thread, and its switch in was not seen yet.
    resumes: VecDeque<u64>,
    /// A switch out whose switch in decides.
    out: Option<(u64, bool)>,
}

impl Sieve {
    fn put(&mut self, raw: Raw, each: &mut impl FnMut(Event)) {
        match raw {
            Raw::Lost(lost) => {
                // Which ones, nobody knows: from here on it is told anew.
                self.flush(each);
                self.resumes.clear();
                each(Event::Lost(lost));
            }
            Raw::Switch { ns, out: true, user } => {
                self.flush(each);
                self.out = Some((ns, user));
            }
            Raw::Switch { ns, out: false, user } => {
                if self.resumes.front().is_some_and(|&resumed| resumed <= ns) {
                    self.resumes.pop_front();
                    self.out = None;
                    return;
                }
                // A thread comes back as it left.
                let user = self.out.map_or(user, |(_, user)| user);
                self.flush(each);
                each(Event::Switch { time: time(ns), out: false, user });
            }
        }
    }

    fn flush(&mut self, each: &mut impl FnMut(Event)) {
        if let Some((ns, user)) = self.out.take() {
            each(Event::Switch { time: time(ns), out: true, user });
        }
    }
}

fn ns(time: Time) -> u64 {
    u64::try_from(time.sec * 1_000_000_000 + time.nsec).unwrap_or(0)
}

fn time(ns: u64) -> Time {
    Time { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieved(resumes: &[u64], raw: &[(u64, bool)]) -> Vec<(u64, bool)> {
        let mut sieve = Sieve { resumes: resumes.iter().copied().collect(), out: None };
        let mut seen = Vec::new();
        let mut each = |event| {
            if let Event::Switch { time, out, .. } = event {
                seen.push((ns(time), out));
            }
        };
        for &(ns, out) in raw {
            sieve.put(Raw::Switch { ns, out, user: false }, &mut each);
        }
        sieve.flush(&mut each);
        seen
    }

    #[test]
    fn the_pair_around_each_resume_is_ours() {
        let raw = [(10, true), (20, false), (30, true), (40, false), (50, true), (60, false)];
        assert_eq!(sieved(&[], &raw), raw);
        assert_eq!(sieved(&[15], &raw), raw[2..]);
        assert_eq!(sieved(&[35], &raw), [&raw[..2], &raw[4..]].concat());
        assert_eq!(sieved(&[15, 35, 55], &raw), []);
        // One that is still out is the thread's end.
        assert_eq!(sieved(&[], &[(10, true)]), [(10, true)]);
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let mut record = Vec::new();
        record.extend_from_slice(&RECORD_SWITCH.to_le_bytes());
        record.extend_from_slice(&(SWITCH_OUT | PREEMPT).to_le_bytes());
        record.extend_from_slice(&16u16.to_le_bytes());
        record.extend_from_slice(&7u64.to_le_bytes());
        let mut seen = Vec::new();
        parse(&record, |raw| seen.push(raw));
        assert_eq!(seen, [Raw::Switch { ns: 7, out: true, user: true }]);
        for cut in 0..record.len() {
            parse(&record[..cut], |_| panic!("half a record"));
        }
        parse(&[0; 64], |_| panic!("a record without a size"));
    }
}
