//! The ptrace backend: traces any process the kernel lets us, at the price of two stops a call.
//!
//! One thread traces each tree of processes ([`tracer`]); it alone issues ptrace for it, and waits for nothing but the
//! kernel and its commands (invariants 1 and 2). This module hands commands to those threads and waits, bounded, for
//! their answers.
//!
//! What goes wrong with ptrace, and how each thing is handled, is numbered in docs/ptrace.md ("hazards"); the numbers
//! stand where the code is.

mod descriptor;
mod genio;
mod let_go;
mod memory;
mod namei;
mod observe;
mod pace;
mod restart;
mod setid;
mod signals;
mod stop;
mod switches;
mod sys;
mod task;
mod timeout;
mod tracer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;

use self::let_go::Told;
use crate::backend::{Backend, Costs, InForce, Want};
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::proc::{Proc, ProcTable, Stat, Trace};

/// Its name in `ctl` and `stat`.
pub const NAME: &str = "ptrace";
/// How often a tracer thread is kicked until it has heard a command.
const KICK_EVERY: Duration = Duration::from_millis(1);
/// Longest wait for a tracer thread to hear a command: attaching can wait in the kernel for an exec (hazard 7).
const HEAR_MAX: Duration = Duration::from_secs(1);
/// Trees up to which each has a tracer thread of its own. At every stop the kernel walks all threads that wait for one
/// (hazard 20), and a thread that is stuck is stuck for all that it traces (hazards 7 and 11).
const THREADS_MAX: usize = 32;
/// Stack of a tracer thread; little of it is ever touched.
const STACK: usize = 256 << 10;
/// The bits of uapi/linux/capability.h.
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_NICE: u32 = 23;

/// The backend.
pub struct Ptrace {
    shared: Arc<Shared>,
}

/// What the tracer threads share.
struct Shared {
    procs: Arc<ProcTable>,
    /// Which tracer thread has which process.
    tracers: Mutex<HashMap<i32, Entry>>,
    /// Cost of the processes that are no longer traced.
    past: Meter,
    /// Where threads that were let go slept.
    sleeps: restart::Sleeps,
    /// Without CAP_SYS_PTRACE a set-id program must not be executed under us (hazard 21).
    privileged: bool,
    /// Held once more for each process that has a filter of ours; true once there has been one.
    filters: Arc<AtomicBool>,
    /// With CAP_SYS_NICE a tracer thread may give way to its tracees and come back ([`pace`]).
    nice: bool,
}

struct Entry {
    tracer: Handle,
    meter: Arc<Meter>,
}

/// A way to talk to a tracer thread.
#[derive(Clone)]
struct Handle {
    commands: Sender<Command>,
    tid: Arc<AtomicI32>,
}

enum Command {
    Apply {
        proc: Arc<Proc>,
        trace: Option<Arc<Trace>>,
        heard: Heard,
        in_force: Sender<Told>,
        told: Sender<Told>,
    },
    Settle {
        done: Sender<()>,
    },
}

/// What a tracer thread has answered, as soon as it has heard of a change. It wakes nobody who waits until it is in force: mostly
/// that is a moment later, and wakes.
type Heard = Arc<OnceLock<Result<()>>>;

/// A change that was handed to a tracer thread.
struct Change {
    pid: i32,
    heard: Heard,
    in_force: Receiver<Told>,
}

/// What tracing one process costs.
#[derive(Debug, Default)]
struct Meter {
    stops: AtomicU64,
    stopped_ns: AtomicU64,
    threads: AtomicU64,
}

impl Meter {
    fn costs(&self) -> Costs {
        Costs {
            stops: self.stops.load(Ordering::Relaxed),
            stopped_ns: self.stopped_ns.load(Ordering::Relaxed),
            threads: self.threads.load(Ordering::Relaxed),
            ..Costs::default()
        }
    }

    fn add(&self, costs: Costs) {
        self.stops.fetch_add(costs.stops, Ordering::Relaxed);
        self.stopped_ns.fetch_add(costs.stopped_ns, Ordering::Relaxed);
    }
}

impl Shared {
    /// The meter of a process in the table.
    fn meter_of(&self, pid: i32) -> Arc<Meter> {
        self.tracers.lock().get(&pid).map(|entry| Arc::clone(&entry.meter)).unwrap_or_default()
    }

    /// Enters a process that a tracer thread traces now.
    fn enter(&self, pid: i32, tracer: &Handle) -> Arc<Meter> {
        let meter = Arc::<Meter>::default();
        let entry = Entry { tracer: tracer.clone(), meter: Arc::clone(&meter) };
        self.tracers.lock().insert(pid, entry);
        meter
    }

    /// Takes a process out that `tracer` traces no more.
    fn forget(&self, pid: i32, tracer: &Handle) {
        let mut tracers = self.tracers.lock();
        if tracers.get(&pid).is_some_and(|entry| entry.tracer.commands.same_channel(&tracer.commands))
            && tracer.commands.is_empty()
            && let Some(entry) = tracers.remove(&pid)
        {
            self.past.add(entry.meter.costs());
        }
    }
}

impl Ptrace {
    /// For the processes of this table.
    pub fn new(procs: Arc<ProcTable>) -> Arc<Ptrace> {
        let shared = Shared {
            procs,
            tracers: Mutex::default(),
            past: Meter::default(),
            sleeps: Default::default(),
            privileged: has_cap(CAP_SYS_PTRACE),
            filters: Arc::default(),
            nice: has_cap(CAP_SYS_NICE),
        };
        Arc::new(Ptrace { shared: Arc::new(shared) })
    }

    /// Hands a command to the tracer thread of `pid`; `None` where it has none.
    fn send(&self, pid: i32, command: Command) -> Option<Handle> {
        // Under the lock: a tracer thread that ends takes itself out of the table first.
        let tracers = self.shared.tracers.lock();
        let handle = tracers.get(&pid)?.tracer.clone();
        handle.commands.send(command).ok()?;
        Some(handle)
    }

    /// Hands a command to the tracer thread of `pid`, or to a new one.
    fn send_or_start(&self, pid: i32, command: Command) -> Result<Handle> {
        let mut tracers = self.shared.tracers.lock();
        let command = match tracer_for(&tracers, pid) {
            None => command,
            Some(handle) => match handle.commands.send(command) {
                Ok(()) => {
                    tracers
                        .entry(pid)
                        .or_insert_with(|| Entry { tracer: handle.clone(), meter: Arc::default() });
                    return Ok(handle);
                }
                Err(unsent) => unsent.into_inner(),
            },
        };
        let (commands, receiver) = unbounded();
        let handle = Handle { commands, tid: Arc::default() };
        // The receiver is alive: it is handed to the thread below.
        let _ = handle.commands.send(command);
        tracers.insert(pid, Entry { tracer: handle.clone(), meter: Arc::default() });
        let (shared, mine) = (Arc::clone(&self.shared), handle.clone());
        let started = thread::Builder::new()
            .name(format!("trace-{pid}"))
            .stack_size(STACK)
            .spawn(move || tracer::run(shared, mine, receiver));
        if let Err(e) = started {
            tracers.remove(&pid);
            let errno = e.raw_os_error().unwrap_or(libc::EAGAIN);
            return Err(Error::Sys { op: "start a tracer thread", pid, errno });
        }
        Ok(handle)
    }
}

/// The thread that is to trace a process: the one that does, that of its parent, so that a tree has one, and where there
/// are many already the one that has least to do. `None` for a new one.
fn tracer_for(tracers: &HashMap<i32, Entry>, pid: i32) -> Option<Handle> {
    let of = |pid: i32| tracers.get(&pid).map(|entry| entry.tracer.clone());
    let parent = || of(Stat::of(pid).ok()?.ppid);
    of(pid).or_else(parent).or_else(|| {
        let mut load: HashMap<i32, (usize, &Handle)> = HashMap::new();
        for Entry { tracer, .. } in tracers.values() {
            load.entry(tracer.tid.load(Ordering::Acquire)).or_insert((0, tracer)).0 += 1;
        }
        let least = load.values().min_by_key(|(count, _)| *count);
        least.filter(|_| load.len() >= THREADS_MAX).map(|(_, handle)| (*handle).clone())
    })
}

impl Handle {
    /// Gets the tracer thread out of its wait, if it is in it.
    fn kick(&self) {
        match self.tid.load(Ordering::Acquire) {
            0 => {}
            tid => sys::kick(tid),
        }
    }
}

impl Change {
    /// The change, and the command for it. `waits`: until it is in force, and not only until it has been heard of.
    fn new(proc: &Arc<Proc>, trace: Option<Arc<Trace>>, waits: bool) -> (Change, Command) {
        let (proc, heard) = (Arc::clone(proc), Heard::default());
        let (told, receiver) = bounded(1);
        let change = Change { pid: proc.id.pid, heard: Arc::clone(&heard), in_force: receiver };
        // The end of the last sender says so too, after what was heard.
        let in_force = if waits { told.clone() } else { bounded(1).0 };
        (change, Command::Apply { proc, trace, heard, in_force, told })
    }

    /// Waits until the tracer thread has heard of it, kicking it out of its wait. `None` where it has, and the change is not in
    /// force yet, which it is to be `by`.
    fn hear(&self, tracer: &Handle, hear_by: Instant, by: Instant) -> Result<Option<InForce>> {
        loop {
            if let Some(result) = self.heard.get() {
                return result.clone().map(|()| None);
            }
            tracer.kick();
            match self.in_force.recv_timeout(KICK_EVERY) {
                Ok(told) => return Ok(Some(let_go::wait(told, by))),
                Err(RecvTimeoutError::Timeout) if Instant::now() < hear_by => {}
                // The kernel makes the attach wait for an exec: it goes on by itself.
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    let gone = Err(Error::Gone { pid: self.pid });
                    return self.heard.get().cloned().unwrap_or(gone).map(|()| Some(InForce::All));
                }
            }
        }
    }

    /// Waits until it is in force.
    fn in_force(&self, by: Instant) -> InForce {
        match self.in_force.recv_deadline(by) {
            Ok(told) => let_go::wait(told, by),
            // Dropped: the process is gone, and nothing is left to wait for.
            Err(RecvTimeoutError::Disconnected) => InForce::All,
            Err(RecvTimeoutError::Timeout) => InForce::Partly,
        }
    }
}

impl Backend for Ptrace {
    fn name(&self) -> &'static str {
        NAME
    }

    fn facilities(&self) -> Facs {
        let switches = if switches::probe().is_ok() { Facs::CSW } else { Facs::empty() };
        Facs::DEFAULT | Facs::EXEC_ARG | Facs::EXEC_ENV | Facs::EXEC_FD | switches
    }

    fn can(&self, want: &Want) -> Result<()> {
        let missing = want.facs - self.facilities();
        match (missing.is_empty(), switches::probe()) {
            (true, _) => Ok(()),
            (false, Err(errno)) if missing == Facs::CSW => {
                let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
                let paranoid = paranoid.unwrap_or_default();
                let what = format!(
                    "csw needs perf events: {} (perf_event_paranoid is {})",
                    errno.desc(),
                    paranoid.trim()
                );
                Err(Error::Unsupported { what: what.into() })
            }
            (false, _) => {
                Err(Error::Unsupported { what: format!("the ptrace backend cannot give {missing}").into() })
            }
        }
    }

    fn apply(&self, proc: &Arc<Proc>, trace: Option<Arc<Trace>>, by: Instant) -> Result<InForce> {
        let pid = proc.id.pid;
        let detach = trace.is_none();
        let waits = by > Instant::now();
        let (change, command) = Change::new(proc, trace, waits);
        let handle = match detach {
            false => self.send_or_start(pid, command)?,
            true => match self.send(pid, command) {
                Some(handle) => handle,
                None => return Ok(InForce::All),
            },
        };
        let done = change.hear(&handle, Instant::now() + HEAR_MAX, by)?;
        // Whether it is, nobody has asked who does not wait.
        Ok(match waits {
            true => done.unwrap_or_else(|| change.in_force(by)),
            false => InForce::Partly,
        })
    }

    fn settle(&self, proc: &Arc<Proc>, by: Instant) -> Result<()> {
        let (done, is_done) = bounded(1);
        if let Some(handle) = self.send(proc.id.pid, Command::Settle { done }) {
            loop {
                handle.kick();
                match is_done.recv_timeout(KICK_EVERY) {
                    Err(RecvTimeoutError::Timeout) if Instant::now() < by => {}
                    _ => break,
                }
            }
        }
        Ok(())
    }

    fn answered(&self, caller: i32) {
        let _ = let_go::answered(caller);
    }

    fn costs(&self, proc: Option<&Proc>) -> Costs {
        let tracers = self.shared.tracers.lock();
        match proc {
            Some(proc) => tracers.get(&proc.id.pid).map(|e| e.meter.costs()).unwrap_or_default(),
            None => tracers.values().fold(self.shared.past.costs(), |sum, entry| {
                let costs = entry.meter.costs();
                Costs {
                    stops: sum.stops + costs.stops,
                    stopped_ns: sum.stopped_ns + costs.stopped_ns,
                    threads: sum.threads + costs.threads,
                    ..Costs::default()
                }
            }),
        }
    }

    fn shutdown(&self, by: Instant) {
        let pids: Vec<i32> = self.shared.tracers.lock().keys().copied().collect();
        for proc in pids.iter().filter_map(|&pid| self.shared.procs.get_pid(pid)) {
            proc.set_releasing(true);
        }
        // All are told before one is waited for.
        let told: Vec<(Change, Handle)> = pids
            .into_iter()
            .filter_map(|pid| {
                let (change, command) = Change::new(&self.shared.procs.get_pid(pid)?, None, true);
                let handle = self.send(pid, command)?;
                handle.kick();
                Some((change, handle))
            })
            .collect();
        for (change, handle) in &told {
            if Instant::now() >= by {
                return;
            }
            if let Ok(None) = change.hear(handle, by, by) {
                change.in_force(by);
            }
        }
    }

    fn dependents(&self) -> Option<usize> {
        let filters = &self.shared.filters;
        filters.load(Ordering::Relaxed).then(|| Arc::strong_count(filters) - 1)
    }
}

/// Whether this process has a capability in force (capabilities(7)).
fn has_cap(bit: u32) -> bool {
    let mask = crate::proc::status_field(std::process::id() as i32, "CapEff").unwrap_or_default();
    u64::from_str_radix(&mask, 16).is_ok_and(|caps| caps >> bit & 1 == 1)
}

#[cfg(test)]
mod tests;
