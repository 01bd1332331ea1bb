//! The end of a `clear`: the last thread is let go, and who waits for that is told and goes on.
//!
//! Whoever is let go may want its cpu all the time. The scheduler lets it keep that until the next tick of the clock, and whoever is
//! woken there meanwhile waits: the tracer thread that would say that it is done, or the caller once it has its answer. So
//! who waits is told before, and looks itself whether it is done; and where the caller has its answer and no cpu,
//! the cpu is given to whom it is due ([`answered`]).

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::sys;
use crate::backend::InForce;
use crate::error::Error;
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
    last.wait(by, LetsGo::is_held)
}

impl LetsGo {
    /// Waits until it `is_held` no more.
    fn wait(self, by: Instant, is_held: impl Fn(&LetsGo) -> bool) -> InForce {
        let mut looks = 0;
        while is_held(&self) {
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

    /// True while its tracer has it. Who dies in this moment cannot be detached any more, and keeps it until it has been reaped.
    fn is_held(&self) -> bool {
        let tracer = proc::status_field(self.tid, "TracerPid");
        let has_it = match &tracer {
            Ok(tracer) => tracer.parse() == Ok(self.tracer),
            Err(error) => !matches!(error, Error::Gone { .. }),
        };
        has_it && !Stat::of(self.tid).is_ok_and(|stat| stat.is_ending())
    }
}

/// The caller for whom this thread has waited has its answer. Where it would run now, on the cpu of the one that was let go,
/// which would too, the scheduler chooses anew. True where it was asked to.
pub(super) fn answered(caller: i32) -> bool {
    let Some(tid) = LET_GO.take() else { return false };
    let wants = |tid| Stat::of(tid).ok().filter(|stat| stat.state == b'R');
    match (wants(caller), wants(tid)) {
        // Of a real-time class it would not give its cpu to this thread, and nobody may take it from it.
        (Some(caller), Some(taken)) if caller.cpu == taken.cpu && taken.is_fair() => {
            take_for_a_moment(caller.cpu, || {})
        }
        _ => false,
    }
}

/// This thread takes a cpu, before all that are not of a real-time class, and when it gives it back the scheduler chooses who runs
/// there. False where it may not, without CAP_SYS_NICE, or somebody has given this thread a class of its own.
fn take_for_a_moment(cpu: usize, there: impl FnOnce()) -> bool {
    let Ok(cpus) = sched_getaffinity(Pid::from_raw(0)) else { return false };
    if !sys::has_default_policy() || !sys::run_first(true) {
        return false;
    }
    let taken = sys::run_on(cpu);
    if taken {
        there();
        let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
    }
    sys::run_first(false);
    taken
}

#[cfg(test)]
mod tests;
