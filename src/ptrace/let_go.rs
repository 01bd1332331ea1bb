//! The end of a `clear`: the last thread is let go, and who waits for that is told and goes on.
//!
//! Whoever is let go may want its cpu all the time. The scheduler lets it keep that until the next tick of the clock, and whoever is
//! woken there meanwhile waits: the tracer thread that would say that it is done, or the caller once it has its answer. So
//! who waits is told before, and looks itself whether it is done; and where the caller has its answer and no cpu,
//! the cpu is given to whom it is due ([`answered`]).

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::sys;
use crate::backend::InForce;
use crate::proc::{self, Stat};

/// So often who waits looks again at once, and then so often.
const LOOKS: u32 = 32;
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// What a tracer thread says when a change is in force: which thread it lets go as the last, in this very moment.
pub(super) type Told = Option<LetsGo>;

/// A thread that its tracer thread is about to let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LetsGo {
    pub(super) tid: i32,
    /// The thread id of the tracer thread.
    pub(super) tracer: i32,
}

thread_local! {
    /// For which thread this one has waited last, until the caller has been answered.
    static LET_GO: Cell<Option<i32>> = const { Cell::new(None) };
}

/// A change is in force when the last thread that it lets go is.
pub(super) fn wait(told: Told, by: Instant) -> InForce {
    let Some(last) = told else { return InForce::All };
    LET_GO.set(Some(last.tid));
    last.wait(by, proc::tracer_of)
}

impl LetsGo {
    /// Waits until it is let go, as `tracer_of` says.
    fn wait(self, by: Instant, tracer_of: impl Fn(i32) -> i32) -> InForce {
        let mut looks = 0;
        while tracer_of(self.tid) == self.tracer {
            if Instant::now() >= by {
                return InForce::Partly;
            }
            looks += 1;
            match looks <= LOOKS {
                true => thread::yield_now(),
                false => thread::sleep(LOOK_EVERY),
            }
        }
        InForce::All
    }
}

/// The caller for whom this thread has waited has its answer. Where it would run now, on the cpu of the one that was let go,
/// which has that, the scheduler chooses anew. True where it was asked to.
pub(super) fn answered(caller: i32) -> bool {
    let Some(tid) = LET_GO.take() else { return false };
    let wants = |tid| Stat::of(tid).ok().filter(|stat| stat.state == b'R').map(|stat| stat.cpu);
    match (wants(caller), wants(tid)) {
        (Some(cpu), Some(taken)) if cpu == taken => take_for_a_moment(cpu, || {}),
        _ => false,
    }
}

/// This thread takes a cpu, before all that are not of a real-time class, and when it gives it back the scheduler chooses who runs
/// there. False where it may not, without CAP_SYS_NICE.
fn take_for_a_moment(cpu: usize, there: impl FnOnce()) -> bool {
    let mut one = CpuSet::new();
    let (Ok(cpus), Ok(())) = (sched_getaffinity(Pid::from_raw(0)), one.set(cpu)) else { return false };
    if !sys::run_first(true) {
        return false;
    }
    let taken = sched_setaffinity(Pid::from_raw(0), &one).is_ok();
    if taken {
        there();
        let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
    }
    sys::run_first(false);
    taken
}

#[cfg(test)]
mod tests;
