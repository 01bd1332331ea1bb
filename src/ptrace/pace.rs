//! How a tracer thread waits for its tracees: measured while it runs, and chosen.
//!
//! Most of what a stop costs is waking the other side, and that depends on where the two run and on the host. There are
//! three ways. [`Way::Free`]: like any thread, wherever the scheduler puts it. [`Way::Spin`]: the same, but it asks for a
//! while before it sleeps. [`Way::Near`]: on the cpu of the tracee, under SCHED_IDLE. There a stop is a switch of threads and no message to another cpu; and as the scheduler counts a
//! cpu with nothing but SCHED_IDLE threads as free, it leaves the tracee where it is instead of moving it to the next
//! cpu. Nothing of this can be seen by the tracee, whose own affinity and class stay as they are. Where other threads
//! want that cpu, Near is slow, and the measurement says so.
//!
//! The measure is the time from the end of a call to the end of the next, for both of a call's stops and what lies between
//! may be cheap or dear. Of one busy thread the question is whether to be near. Of several it is whether to spin: near,
//! they would all take turns on one cpu; a measure is the mean of a few calls then, whosever they are. Of a number of
//! measures the lower quartile is taken: calls that wait for something say nothing about us.

mod host;
mod judge;
mod place;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::host::{cpus, idle, run_delay};
use self::judge::{Judge, WINDOW, Way};
use self::place::Place;
use super::sys;
use super::task::ns_between;
use crate::proc::Stat;
use crate::record::Time;

/// Calls of several threads that make one measure.
const BATCH: u32 = 8;
/// How long a thread asks before it sleeps.
const SPIN: Duration = Duration::from_micros(100);
/// Several that call so often keep their tracer busy.
const FAST: Duration = Duration::from_micros(50);
/// Nothing is tried near before so many cpus, on average, had nothing to do for this long.
const SPARE_CPUS: f64 = 0.2;
const SPARE_FOR: Duration = Duration::from_millis(50);
/// Near, so many calls in a row that take long ([`Judge::far`]) say that the tracee was moved to another cpu.
const MOVED: u32 = 2;
/// A call of this length may be one in which we were kept from our cpu.
const LONG_NS: u64 = 2_000_000;
/// So long may we be kept from it, in all: at first, and for each second near, where near saves no more than that. Else
/// this share of what it saves: a reader that takes its turn there is no reason to leave.
const CREDIT: Duration = Duration::from_millis(5);
const CREDIT_EACH: f64 = 0.03;
const CREDIT_OF_GAIN: f64 = 0.5;
/// In the other calls it waits too, for a tracee that has woken it and is on its way to sleep: 5 of 15 microseconds were
/// seen. So much of their time does not count; it is in what near was measured to cost.
const USUAL_DELAY: f64 = 0.5;
/// How long nothing is tried after that is used up: at first, and at most. Doubled each time.
const SHY: Duration = SPARE_FOR;
const SHY_MAX: Duration = Duration::from_secs(300);
/// After so long without a call what was measured is of another time.
const STALE: Duration = Duration::from_millis(100);

/// What one tracer thread has measured, and what it does.
#[derive(Debug)]
pub(super) struct Pace {
    judge: Judge,
    /// Where it may run; `None` where it has no choice.
    cpus: Option<CpuSet>,
    /// Says how many threads want a cpu.
    running: fn() -> Option<usize>,
    /// The kernel lets it come back from SCHED_IDLE.
    may_return: bool,
    /// Where it is held.
    near: Option<usize>,
    /// Long calls in a row, and at how many it is looked where the tracee is.
    long: (u32, u32),
    /// It spins where there is a place, and its place.
    spins: bool,
    place: Place,
    /// Whose call was the last, and when it ended.
    last: (i32, Time),
    /// Calls since it was last asked whose they are, how many were not of the same thread as the one before, and the end of
    /// the last before them.
    calls: u32,
    others: u32,
    since: Time,
    /// The calls of which the next measure is made: how long they took, and how many there are; `None` while one thread is
    /// busy.
    crowd: Option<(u64, u32)>,
    /// It is free only to try that, and was near before.
    returns: bool,
    /// The end of the call at which it was last judged.
    judged: Time,
    /// When the cpus were last looked at, and how long they had been idle then, all together. Not before there is something
    /// to decide: most processes are traced for a moment only.
    looked: Option<(Instant, Duration)>,
    /// That was the first look: as yet only the moment says whether there is a cpu to spare.
    first: bool,
    /// How long this thread had waited for a cpu since the start, when it was last looked at.
    delay_ns: u64,
    /// How long it may still be kept from it, in seconds, and when that was reckoned.
    credit: (Instant, f64),
    /// Nothing is tried before; and for how long, the next time.
    shy: (Instant, Duration),
}

impl Pace {
    /// For the calling thread, which waits as any does at first. `may_return` says that the kernel lets a thread come
    /// back from SCHED_IDLE: without CAP_SYS_NICE it does not.
    pub(super) fn new(may_return: bool) -> Pace {
        let several =
            |cpus: &CpuSet| (0..CpuSet::count()).filter(|&cpu| cpus.is_set(cpu) == Ok(true)).count() > 1;
        let cpus = sched_getaffinity(Pid::from_raw(0)).ok().filter(several);
        let now = Instant::now();
        Pace {
            judge: Judge::between(if may_return { Way::Near } else { Way::Spin }),
            cpus,
            running: host::running,
            may_return,
            near: None,
            long: (0, MOVED),
            spins: false,
            place: Place::among(host::cpus()),
            last: (0, Time::default()),
            calls: 0,
            others: 0,
            since: Time::default(),
            crowd: None,
            returns: false,
            judged: Time::default(),
            looked: None,
            first: true,
            delay_ns: 0,
            credit: (now, 0.0),
            shy: (now, SHY),
        }
    }

    /// A call of a thread has ended.
    pub(super) fn called(&mut self, tid: i32, time: Time) {
        if self.cpus.is_none() {
            return;
        }
        let (before, since) = std::mem::replace(&mut self.last, (tid, time));
        let ns = ns_between(since, time);
        if self.near.is_some() && ns > LONG_NS && self.starved(Duration::from_nanos(ns)) {
            let (until, long) = self.shy;
            // It went well for so long that what it was before says nothing.
            let long = if until.elapsed() > long * 10 { SHY } else { long };
            log::debug!("thread {tid}: kept from its cpu; nothing is tried for {long:?}");
            self.shy = (Instant::now() + long, (long * 2).min(SHY_MAX));
            // From now on: what was to spare before says nothing.
            self.looked = idle().map(|idle| (Instant::now(), idle));
            self.first = false;
            return self.begin();
        }
        self.look_whose(tid != before, time);
        if self.near.is_some() {
            self.look_where(tid, ns);
        }
        let measure = match &mut self.crowd {
            None => ns,
            Some((took, calls)) => {
                *took += ns;
                *calls += 1;
                if *calls < BATCH {
                    return;
                }
                *calls = 0;
                std::mem::take(took) / u64::from(BATCH)
            }
        };
        if self.judge.take(measure) {
            self.judged = time;
            log::trace!("thread {tid}: {:?}, {:?} ns", self.judge.way, self.judge.cost);
            let way = self.judge.way;
            match way {
                Way::Near if self.near.is_none() && !self.returns && !self.may_try() => self.judge.put_off(),
                Way::Near => self.follow(tid),
                Way::Spin if !self.may_spin() => self.judge.put_off(),
                Way::Spin => {}
                Way::Free => {
                    self.returns = self.judge.on_trial && (self.near.is_some() || self.returns);
                    self.leave();
                }
            }
        }
    }

    /// Sees early that the tracee runs elsewhere: until the next judgement each call would cost several times as much.
    fn look_where(&mut self, tid: i32, ns: u64) {
        let (calls, most) = self.long;
        if ns as f64 <= self.judge.far() || self.judge.on_trial {
            self.long.0 = 0;
        } else if calls + 1 < most {
            self.long.0 += 1;
        } else {
            let before = self.near;
            self.follow(tid);
            // It was there, and something else takes long: it is looked for more rarely.
            let most = if self.near == before { (most * 2).min(WINDOW as u32) } else { MOVED };
            self.long = (0, most);
        }
    }

    /// Whether one thread is busy, or more. `other`: this call, which ended at `time`, is another's than the one before.
    fn look_whose(&mut self, other: bool, time: Time) {
        if self.since == Time::default() {
            self.since = time;
        }
        self.others += u32::from(other);
        self.calls += 1;
        if self.calls as usize == WINDOW {
            self.calls = 0;
            let took = Duration::from_nanos(ns_between(std::mem::replace(&mut self.since, time), time));
            let crowd = std::mem::take(&mut self.others) as usize > WINDOW / 4;
            if crowd != self.crowd.is_some() {
                self.crowd = crowd.then_some((0, 0));
                self.begin();
                // They keep this thread busy, with spinning they are better off from the start; but for those that want all cpus
                // for themselves.
                let fast = crowd && took < FAST * WINDOW as u32;
                if fast && (self.running)().is_some_and(|running| running <= cpus()) && self.may_spin() {
                    self.judge = Judge::of_many(Way::Spin);
                    self.judged = time;
                }
            }
        }
    }

    /// Nothing is known: it waits as any thread does, wherever it likes.
    pub(super) fn begin(&mut self) {
        self.returns = false;
        self.leave();
        self.judge = match self.crowd {
            Some(_) => Judge::of_many(Way::Free),
            None => Judge::between(if self.may_return { Way::Near } else { Way::Spin }),
        };
    }

    /// For how long to ask before sleeping.
    pub(super) fn spin(&mut self) -> Option<Duration> {
        (self.spins && self.place.take()).then_some(SPIN)
    }

    /// It sleeps now: meanwhile another one may spin.
    pub(super) fn sleeps(&mut self) {
        self.place.leave();
    }

    /// Takes a place among those that spin: one thread alone needs a cpu to spare, several keep this thread busy anyhow.
    fn may_spin(&mut self) -> bool {
        if !self.spins && (self.crowd.is_some() || self.may_try()) {
            self.spins = self.place.take();
        }
        self.spins
    }

    /// Whether there is a cpu to spare: where others want them all, near would be the worst of places. The first time how
    /// many threads want one at this moment has to do: most programs are traced from their start, and many are short. Where a
    /// reader happened to run just then, the next question comes after some more calls.
    fn may_try(&mut self) -> bool {
        if self.looked.is_none() {
            self.looked = idle().map(|idle| (Instant::now(), idle));
        }
        let passed = self.looked.map_or(SPARE_FOR, |(since, _)| since.elapsed());
        if self.shy.0 > Instant::now() {
            return false;
        }
        if passed < SPARE_FOR {
            return self.first && (self.running)().is_some_and(|running| running < cpus());
        }
        self.first = false;
        let looked = idle().map(|idle| (Instant::now(), idle));
        let before = std::mem::replace(&mut self.looked, looked);
        let (Some((_, before)), Some((_, now))) = (before, looked) else { return false };
        let spare = now.saturating_sub(before).as_secs_f64() / passed.as_secs_f64();
        spare >= SPARE_CPUS
    }

    /// Whether this thread has been kept from its cpu for longer than near is worth. `long` is the call that makes us ask.
    fn starved(&mut self, long: Duration) -> bool {
        let before = std::mem::replace(&mut self.delay_ns, run_delay());
        let waited = Duration::from_nanos(self.delay_ns.saturating_sub(before));
        let (since, credit) = self.credit;
        let left = credit_left(credit, since.elapsed(), long, waited, self.judge.gain());
        self.credit = (Instant::now(), left);
        left < 0.0
    }

    /// Before a wait: nobody knows how long it will be, and for how long the cpu stays free. `now` is the time of the last stop,
    /// for to ask for it is to lengthen the next one.
    pub(super) fn pause(&mut self, now: Time) {
        if self.near.is_none() && !self.spins {
            return;
        }
        let since_judged = Duration::from_nanos(ns_between(self.judged, now));
        // Where the clock was set back it is not known.
        if since_judged > STALE || ns_between(now, self.judged) > 0 {
            self.begin();
        }
    }

    fn leave(&mut self) {
        self.spins = false;
        self.place.leave();
        if let Some(cpus) = self.cpus.filter(|_| self.near.take().is_some()) {
            sys::run_idle(false);
            // Cpus may have been taken away since: then it stays where it is.
            let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
        }
    }

    /// To the cpu of this tracee, which may have moved.
    fn follow(&mut self, tid: i32) {
        if self.cpus.is_none() {
            return;
        }
        let Ok(Stat { cpu, .. }) = Stat::of(tid) else { return };
        if self.near == Some(cpu) {
            return;
        }
        let held = sys::run_on(cpu);
        if held && (self.near.is_some() || sys::run_idle(true)) {
            if self.near.replace(cpu).is_none() {
                self.delay_ns = run_delay();
                if !std::mem::take(&mut self.returns) {
                    self.credit = (Instant::now(), CREDIT.as_secs_f64());
                }
            }
        } else {
            self.near = Some(cpu);
            self.leave();
            self.judge.give_up();
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.leave();
    }
}

/// For how long, in seconds, this thread may still be kept from its cpu, of what it was before so much time `passed` in which
/// it waited for its cpu for so long in all; the last call, a `long` one, and what near saves of a call's time.
fn credit_left(credit: f64, passed: Duration, long: Duration, waited: Duration, gain: f64) -> f64 {
    let usual = passed.saturating_sub(long).as_secs_f64() * USUAL_DELAY;
    let kept = (waited.as_secs_f64() - usual).max(0.0);
    let each = CREDIT_EACH.max(gain * CREDIT_OF_GAIN);
    (credit + passed.as_secs_f64() * each).min(4.0 * CREDIT.as_secs_f64()) - kept
}
