//! A tracer thread: one loop that waits for stops and commands of one tree of processes.
//!
//! It waits for nothing else: a full sink under policy block is the one bounded exception ([`crate::hooks`]).

mod attach;
mod births;
mod events;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::errno::Errno;
use nix::sys::timer::Timer;

use self::births::Early;
use super::let_go::{LetsGo, Told};
use super::observe::{Observer, Resume};
use super::pace::Pace;
use super::restart;
use super::stop::{self, Change, Stop, Stopped};
use super::task::{Group, Pending, Task, now, ns_between};
use super::{Command, Handle, Meter, Shared, switches, sys};
use crate::error::Result;
use crate::pids::{PidSet, Pids};
use crate::proc::{Proc, Trace};
use crate::record::Time;

/// So many stops are heard one by one, each resumed before the next is asked for. Then all that there are at that moment are
/// heard first: the kernel tells of the youngest first, and a few busy ones would keep the others stopped for seconds.
const ROW: u32 = 64;
/// Spinning, it asks so many times until it looks at the clock, which takes a tenth of what asking does.
const ASKED: u32 = 8;

/// Runs until nothing is left to trace and nobody wants anything.
pub(super) fn run(shared: Arc<Shared>, me: Handle, commands: Receiver<Command>) {
    if let Err(errno) = sys::hear_kicks() {
        log::warn!("tracer thread: {errno}; commands will be heard late");
    }
    me.tid.store(sys::gettid(), Ordering::Release);
    let observer = Observer::new(&shared);
    let pace = Pace::new(shared.nice);
    let mut tracer = Tracer {
        shared,
        me,
        commands,
        observer,
        pace,
        tasks: Pids::default(),
        groups: Pids::default(),
        early: Pids::default(),
        strangers: PidSet::default(),
        ahead: PidSet::default(),
        ticks: None,
        looked: Instant::now(),
        heard: Time::default(),
        row: 0,
    };
    while tracer.work() {}
}

struct Tracer {
    shared: Arc<Shared>,
    me: Handle,
    commands: Receiver<Command>,
    observer: Observer,
    pace: Pace,
    /// Traced threads by id.
    tasks: Pids<Task>,
    /// Traced processes by id.
    groups: Pids<Group>,
    /// Stops of new threads whose parent's event has not come yet.
    early: Pids<Early>,
    /// Wakes this thread while context switches are wanted of a thread, or the maker of a new one is waited for.
    ticks: Option<Timer>,
    /// When it last looked for both. A tick is heard only while it sleeps, which it may not for long.
    looked: Instant,
    /// The time of the last stop.
    heard: Time,
    /// New processes that are not to be traced: detached at their first stop (hazard 4).
    strangers: PidSet,
    /// New threads of which it was decided before their parent's event: they have died, were let go, or were taken for the
    /// child of whoever is their parent. The event may still come. Where it does not, a number stays here until it is used
    /// again, and is looked up once more then than others.
    ahead: PidSet,
    /// Changes heard one by one since all were heard of.
    row: u32,
}

impl Tracer {
    /// One turn; false where the thread is done.
    fn work(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            self.command(command);
        }
        if self.tasks.is_empty() && self.early.is_empty() && self.strangers.is_empty() {
            return !self.finish();
        }
        if self.row >= ROW {
            self.hear_awaited();
            self.catch_up();
        }
        self.pace.pause(self.heard);
        match self.wait() {
            Ok(Some(change)) => {
                self.row += 1;
                self.change(change);
                let looks = self.ticks.is_some() || !self.early.is_empty();
                if looks && self.looked.elapsed() >= switches::TICK {
                    self.tick();
                }
            }
            Ok(None) => self.tick(),
            Err(errno) => self.nobody_left(errno),
        }
        true
    }

    /// Waits for a stop, or a kick.
    fn wait(&mut self) -> nix::Result<Option<Change>> {
        if let Some(long) = self.pace.spin() {
            let mut begun: Option<Instant> = None;
            for asked in 1u32.. {
                if let Some(change) = stop::wait(false)? {
                    return Ok(Some(change));
                }
                if !self.commands.is_empty() {
                    // The kick for it may have come while nobody slept.
                    return Ok(None);
                }
                if asked.is_multiple_of(ASKED) && begun.get_or_insert_with(Instant::now).elapsed() >= long {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        self.pace.sleeps();
        if !self.early.is_empty() {
            self.want_ticks();
        }
        stop::wait(true)
    }

    /// What is to be done now and then.
    fn tick(&mut self) {
        self.looked = Instant::now();
        self.claim();
        self.switches();
    }

    fn want_ticks(&mut self) {
        if self.ticks.is_none() {
            // Without it, it is looked at the stops only.
            self.ticks = switches::ticks().inspect_err(|errno| log::warn!("timer: {errno}")).ok();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Apply { proc, trace, heard, in_force, told } => {
                let result = match trace {
                    Some(trace) => self.attach(&proc, trace, in_force),
                    None => {
                        self.settle();
                        self.release(&proc, in_force);
                        Ok(())
                    }
                };
                // Who stops for it is heard of at once.
                self.row = ROW;
                let _ = heard.set(result);
                drop(told);
            }
            Command::Settle { done } => {
                self.settle();
                let _ = done.try_send(());
            }
        }
    }

    /// What happened before is in the sinks.
    fn settle(&mut self) {
        self.catch_up();
        self.switches();
    }

    /// Hears of everybody who has stopped by now. Nobody is resumed before all are known: the kernel tells of the youngest
    /// first, and where young ones go on being made, or stop again at once, the others would never be heard of.
    fn catch_up(&mut self) {
        let mut changes = Vec::new();
        while let Ok(Some(change)) = stop::wait(false) {
            changes.push(change);
        }
        self.row = 0;
        for change in changes {
            self.change(change);
        }
    }

    /// Hears of those that have stopped and for which somebody waits. By their ids: for the next of all, the kernel looks at
    /// all that were heard of before, so for a thousand it would look half a million times.
    fn hear_awaited(&mut self) {
        loop {
            let changes = self.groups.values().flat_map(|group| &group.changes);
            let awaited: Vec<i32> = changes.flat_map(|pending| &pending.left).copied().collect();
            let mut heard = 0;
            for tid in awaited {
                if let Some(change) = stop::of(tid) {
                    heard += 1;
                    self.change(change);
                }
            }
            // For few it would be more to ask after all that have not stopped.
            if heard < ROW {
                return;
            }
        }
    }

    /// Takes itself out of the table of tracer threads; false where a command came meanwhile.
    fn finish(&mut self) -> bool {
        let mut tracers = self.shared.tracers.lock();
        if !self.commands.is_empty() {
            return false;
        }
        tracers.retain(|_, entry| !entry.tracer.commands.same_channel(&self.me.commands));
        true
    }

    /// The wait says that we trace nobody, whatever we believed.
    fn nobody_left(&mut self, errno: Errno) {
        if errno != Errno::ECHILD {
            log::error!("wait: {errno}");
        }
        self.strangers.clear();
        self.abandon_early();
        let tids: Vec<i32> = self.tasks.keys().copied().collect();
        for tid in tids {
            self.dead(tid, false);
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Dead(tid) => self.dead(tid, true),
            Change::Stopped(stopped, stop) => {
                log::trace!("thread {}: {stop:?}", stopped.tid());
                self.stopped(stopped, stop);
            }
        }
    }

    fn stopped(&mut self, stopped: Stopped, stop: Stop) {
        let time = now();
        self.heard = time;
        let tid = stopped.tid();
        let Some(task) = self.tasks.get_mut(&tid) else { return self.unknown(stopped, stop) };
        let meter = Arc::clone(&task.meter);
        // It was on its way before the thread was switched out on the way to its handler.
        let arrived = match stop {
            Stop::Signal(signal) => self.observer.arrived(task, &stopped, signal),
            _ => false,
        };
        // Those of a set-id exec are nobody's to see: whether it is one is looked at first.
        let sees = task.switches.is_some() || task.wants_switches();
        if sees && task.held.is_none() && !matches!(stop, Stop::Exec(_)) {
            // What was before this stop comes before its records, and after a result that is held back.
            self.observer.switches(task, false);
        }
        if !task.filtered && task.trace.as_ref().is_some_and(|t| t.seccomp) {
            // Before it makes its filter: from then on a call that no tracer stops for is ENOSYS.
            task.filtered = stopped.heed_filter().is_ok();
            if let Some(group) = self.groups.get_mut(&task.pid).filter(|_| task.filtered) {
                group.set_filtered(&self.shared.filters);
            }
        }
        // Whatever stop it is, the kernel takes it for the one we asked for; we do, but for the entry of a call.
        let interrupted = std::mem::take(&mut task.interrupted);
        match stop {
            // Its entry was stopped at already.
            Stop::Seccomp if task.trace.is_some() && task.call.is_some() => {
                measure(task, &meter, time);
                stopped.resume_to_syscall(0);
            }
            Stop::Seccomp if task.trace.is_none() => {
                measure(task, &meter, time);
                self.resume(stopped, 0);
            }
            Stop::Syscall | Stop::Seccomp => {
                let how = self.observer.syscall(task, &stopped, interrupted, time);
                if how == Resume::Enter && (interrupted || task.trace.is_none()) {
                    // The call would end at once, of an interrupt that the kernel takes for done: nobody would see its
                    // EINTR but the program. So the interrupt stays out until the call's exit.
                    task.interrupt();
                }
                if how != Resume::Enter {
                    self.pace.called(tid, time);
                }
                measure(task, &meter, time);
                self.go_on(stopped, how);
            }
            Stop::Signal(signal) => {
                let how = match arrived {
                    true => Resume::With(0),
                    false => self.observer.signal(task, &stopped, signal, interrupted, time),
                };
                measure(task, &meter, time);
                self.go_on(stopped, how);
            }
            Stop::Group if task.trace.is_some() => {
                measure(task, &meter, time);
                stopped.listen();
            }
            Stop::Group => {
                measure(task, &meter, time);
                self.resume(stopped, 0);
            }
            Stop::Trap => {
                if interrupted {
                    let sees_exit = task.needs_calls(self.shared.privileged);
                    restart::restart(task, &stopped, sees_exit, &self.shared.sleeps);
                }
                measure(task, &meter, time);
                self.resume(stopped, 0);
            }
            Stop::Child(child) => {
                self.child(tid, child);
                if let Some(task) = self.tasks.get_mut(&tid) {
                    measure(task, &meter, time);
                }
                self.resume(stopped, 0);
            }
            Stop::Exec(former) => {
                measure(task, &meter, time);
                self.exec(stopped, former);
            }
        }
        self.settled(tid);
    }

    fn go_on(&mut self, stopped: Stopped, how: Resume) {
        match how {
            Resume::With(signal) => self.resume(stopped, signal),
            Resume::Enter => stopped.resume_to_syscall(0),
            Resume::Handler(signal) => stopped.resume_to_handler(signal),
            Resume::Abandon => self.abandon(stopped),
        }
    }

    /// Resumes a thread as what is traced of it demands, or detaches it.
    fn resume(&mut self, stopped: Stopped, signal: i32) {
        let tid = stopped.tid();
        let Some(task) = self.tasks.get_mut(&tid) else { return stopped.cont(signal) };
        if task.trace.is_none() && task.filtered {
            // Let go, its calls would fail: it stays, and nothing of it is seen.
            restart::put_back(task, &stopped);
            task.call = None;
            stopped.cont(signal);
        } else if task.trace.is_none() {
            restart::put_back(task, &stopped);
            self.shared.sleeps.remember(tid, task.sleep);
            let pid = task.pid;
            self.lets_go(pid, tid);
            stopped.detach(signal);
            self.left(tid);
        } else if task.needs_calls(self.shared.privileged) {
            stopped.resume_to_syscall(signal);
        } else {
            task.call = None;
            stopped.cont(signal);
        }
    }

    /// Ends the tracing of a process at this stop, before anything more of it is seen.
    fn abandon(&mut self, stopped: Stopped) {
        if let Some(task) = self.tasks.get(&stopped.tid()) {
            let proc = Arc::clone(&task.proc);
            proc.set_trace(None);
            for task in self.tasks.values_mut().filter(|task| task.pid == proc.id.pid) {
                task.switches = None;
            }
            self.untrace(proc.id.pid, Some(stopped.tid()));
        }
        self.resume(stopped, 0);
    }

    /// Forgets what is traced of a process, and interrupts its threads so that they can be detached; but for the one that
    /// is stopped, and will be detached without.
    fn untrace(&mut self, pid: i32, stopped: Option<i32>) {
        let Some(group) = self.groups.get_mut(&pid) else { return };
        // They may want their cpu all the time then: near, this thread would not have it any more.
        self.pace.begin();
        group.trace = None;
        for tid in &group.threads {
            if let Some(task) = self.tasks.get_mut(tid) {
                self.observer.flush(task);
                self.observer.switches(task, true);
                task.switches = None;
                task.trace = None;
                if stopped != Some(*tid) {
                    task.interrupt();
                }
            }
        }
    }

    /// Records the context switches of every thread of which they are wanted.
    fn switches(&mut self) {
        if self.ticks.is_none() {
            return;
        }
        let mut any = !self.early.is_empty();
        for task in self.tasks.values_mut().filter(|task| task.switches.is_some() || task.wants_switches()) {
            self.observer.switches(task, false);
            any |= task.wants_switches();
        }
        if !any {
            self.ticks = None;
        }
    }

    /// What is traced of a process has changed, or it is new.
    fn watch_switches(&mut self, pid: i32) {
        let Some(group) = self.groups.get(&pid) else { return };
        let wanted = group.threads.iter().any(|tid| self.tasks.get(tid).is_some_and(|t| t.wants_switches()));
        if wanted {
            self.want_ticks();
        }
        self.switches();
    }

    /// A thread has stopped since whatever change somebody waits for.
    fn settled(&mut self, tid: i32) {
        let Some(task) = self.tasks.get(&tid).filter(|task| !task.interrupted) else { return };
        let pid = task.pid;
        if let Some(group) = self.groups.get_mut(&pid)
            && !group.changes.is_empty()
        {
            group.settled(tid);
            self.due(pid);
        }
    }
}

/// A stop ends here: before the resume, after which the tracee may run first.
fn measure(task: &mut Task, meter: &Meter, since: Time) {
    let now = now();
    meter.stops.fetch_add(1, Ordering::Relaxed);
    meter.stopped_ns.fetch_add(ns_between(since, now), Ordering::Relaxed);
    if let Some(switches) = &mut task.switches {
        switches.resumed(now);
    }
}
