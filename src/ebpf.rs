//! The eBPF backend: programs in the kernel see what traced processes do and nobody is stopped. Each sink has rings in
//! the kernel, one for each cpu, and one thread of ours turns what they hold into records.
//!
//! The kernel's side is `ebpf/bpf/ktrace.bpf.c`; `load` brings it into the kernel, `kernel` has the maps it is told with,
//! `places` puts the rings there; `slot` has those of a sink, which `merge` reads as one; `ring` and `event` say what one holds,
//! `observe` what that means, `drain` whose it is; `pace` says how often it is looked.

mod drain;
mod event;
mod kernel;
mod load;
mod merge;
mod near;
mod observe;
mod pace;
mod places;
mod ring;
mod slot;
mod sys;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use crate::backend::{Backend, Costs, InForce, Want};
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::proc::{Proc, ProcTable, Trace};
use crate::sink::{Kept, Policy};
use drain::Drain;
use load::Limits;
use pace::Pace;

/// Its name in `ctl` and `stat`.
pub const NAME: &str = "ebpf";
/// How long the thread waits between two looks while events come fast: at most a thousand wake-ups a second.
const BEAT: Duration = Duration::from_millis(1);
/// How often it looks after what has no event.
const IDLE: u16 = 200;
/// Its priority: who reads late loses.
const NICE: i32 = -10;

/// The backend.
pub struct Ebpf {
    shared: Arc<Shared>,
}

struct Shared {
    drain: Mutex<Drain>,
    /// Readable when there is something in a ring, or the bell was rung.
    epoll: Arc<Epoll>,
    /// Rung when there is a new ring to look after, and at the end.
    bell: EventFd,
    over: AtomicBool,
    /// Why there is nothing more to come.
    fault: OnceLock<String>,
}

impl Shared {
    /// What a fault of ours breaks is given up whole, and nobody else is hurt: then nothing is done and there is no answer.
    ///
    /// Readers that wait for what is read meanwhile are woken when the lock has been let go.
    fn with<T>(&self, what: impl FnOnce(&mut Drain) -> T) -> Option<T> {
        let _kept = Kept::begin();
        let mut drain = self.drain.lock();
        if self.fault.get().is_some() {
            return None;
        }
        let done = catch_unwind(AssertUnwindSafe(|| what(&mut drain)));
        done.map_err(|panic| self.fail(&mut drain, &*panic)).ok()
    }

    fn fail(&self, drain: &mut Drain, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let why = format!(
            "a fault of ours: {}",
            text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
        );
        log::error!("eBPF: {why}; all that it traces is released");
        // The first stays.
        let _ = self.fault.set(why);
        if catch_unwind(AssertUnwindSafe(|| drain.give_up())).is_err() {
            log::error!("eBPF: not all could be released");
        }
    }

    fn failed(&self) -> Error {
        let why = self.fault.get().map_or("", String::as_str);
        Error::Unsupported { what: format!("the ebpf backend has ended by {why}").into() }
    }
}

impl Ebpf {
    /// For the processes of this table.
    ///
    /// # Errors
    /// Why it cannot be had here, in words.
    pub fn new(procs: Arc<ProcTable>) -> std::result::Result<Arc<Ebpf>, String> {
        Ebpf::limited(procs, Limits::get())
    }

    fn limited(procs: Arc<ProcTable>, limits: Limits) -> std::result::Result<Arc<Ebpf>, String> {
        let mut programs = load::Programs::load(load::Calls::of_this_kernel(), &limits)?;
        let maps = kernel::Maps::of(programs.ebpf(), &limits)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_value_and_flags(0, flags).map_err(|errno| format!("eventfd: {errno}"))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| format!("epoll: {errno}"))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX);
        epoll.add(&bell, event).map_err(|errno| format!("epoll: {errno}"))?;
        let epoll = Arc::new(epoll);
        let drain = Mutex::new(Drain::new(procs, programs, maps, Arc::clone(&epoll), limits));
        let shared =
            Arc::new(Shared { drain, epoll, bell, over: AtomicBool::new(false), fault: OnceLock::new() });
        let its = Arc::clone(&shared);
        let started = thread::Builder::new().name("ebpf".into()).spawn(move || run(&its));
        started.map_err(|error| format!("a thread: {error}"))?;
        Ok(Arc::new(Ebpf { shared }))
    }
}

/// Reads the rings until the daemon ends.
fn run(shared: &Shared) {
    crate::sys::set_nice(NICE);
    let mut pace = Pace::new();
    while !shared.over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let Some(()) = wait(shared) else { return };
        pace.slept(begun.elapsed());
        let _ = shared.bell.read();
        loop {
            match round(shared) {
                Some((0, _)) => break,
                Some((events, is_read)) if pace.turn(events, is_read, BEAT) => break,
                Some(_) => {
                    let Some(()) = shared.with(Drain::hush) else { return };
                    thread::sleep(BEAT);
                }
                None => return,
            }
        }
    }
}

/// A whole round over the rings, which readers that are to be woken interrupt: how many events there were to be read, and
/// whether somebody reads them in turn.
fn round(shared: &Shared) -> Option<(usize, bool)> {
    let (mut events, mut is_read) = (0, false);
    loop {
        let pass = shared.with(|drain| {
            let pass = drain.pass();
            if pass.is_last && (events + pass.events == 0 || drain.is_due()) {
                drain.tidy();
            }
            pass
        })?;
        events += pass.events;
        is_read |= pass.is_read;
        if pass.is_last {
            return Some((events, is_read));
        }
    }
}

/// Until there is something in a ring, or something else to do.
fn wait(shared: &Shared) -> Option<()> {
    let timeout = shared.with(|drain| match (drain.listen(), drain.is_idle()) {
        (false, _) => EpollTimeout::ZERO,
        (true, true) => EpollTimeout::NONE,
        (true, false) => EpollTimeout::from(IDLE),
    })?;
    // Which ring it is, the pass over all of them finds.
    let _ = shared.epoll.wait(&mut [EpollEvent::empty()], timeout);
    Some(())
}

impl Backend for Ebpf {
    fn name(&self) -> &'static str {
        NAME
    }

    fn facilities(&self) -> Facs {
        kernel::FACILITIES
    }

    fn can(&self, want: &Want) -> Result<()> {
        if self.shared.fault.get().is_some() {
            return Err(self.shared.failed());
        }
        let missing = want.facs - self.facilities();
        let what = match () {
            () if !missing.is_empty() => format!("the ebpf backend cannot give {missing}"),
            () if want.policy == Policy::Block => {
                "the ebpf backend stops nobody: policy=block is for backend=ptrace".into()
            }
            () if want.seccomp => "the ebpf backend stops nobody: +seccomp is for backend=ptrace".into(),
            () => return Ok(()),
        };
        Err(Error::Unsupported { what: what.into() })
    }

    fn hold(&self, proc: &Proc, trace: &Trace) -> Result<bool> {
        let held = self.shared.with(|drain| drain.hold(proc.id.pid, trace));
        let _ = self.shared.bell.write(1);
        held.unwrap_or_else(|| Err(self.shared.failed()))
    }

    fn apply(&self, proc: &Arc<Proc>, trace: Option<Arc<Trace>>, _by: Instant) -> Result<InForce> {
        match trace {
            Some(trace) => {
                let set = self.shared.with(|drain| drain.set(proc, &trace));
                set.unwrap_or_else(|| Err(self.shared.failed()))?;
            }
            // Where there is nobody any more, all are released.
            None => self.shared.with(|drain| drain.release(proc.id.pid)).unwrap_or_default(),
        }
        let _ = self.shared.bell.write(1);
        Ok(InForce::All)
    }

    fn settle(&self, proc: &Arc<Proc>, _by: Instant) -> Result<()> {
        self.shared.with(|drain| drain.settle(proc.id.pid));
        Ok(())
    }

    fn catch_up(&self, pid: i32) {
        self.shared.with(|drain| drain.settle(pid));
    }

    fn excuse(&self, tid: i32, trace: Option<&Trace>) {
        // Where no calls are traced nothing would take the mark off again.
        let excused = trace.is_some_and(|trace| trace.facs.intersects(load::CALLS));
        self.shared.with(|drain| drain.excuse(tid, excused));
    }

    fn fault(&self) -> Option<String> {
        self.shared.fault.get().cloned()
    }

    fn costs(&self, proc: Option<&Proc>) -> Costs {
        if proc.is_some() {
            return Costs::default();
        }
        let mut drain = self.shared.drain.lock();
        Costs { events: drain.events(), recursion_misses: drain.misses(), ..Costs::default() }
    }

    fn shutdown(&self, _by: Instant) {
        self.shared.with(Drain::release_all);
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = self.shared.bell.write(1);
    }
}

#[cfg(test)]
mod tests;
