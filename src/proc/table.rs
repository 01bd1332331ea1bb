//! The table of traced processes, and of those whose trace file is still open or unread after their death.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{ProcId, Trace};
use crate::pids::Pids;
use crate::sink::{End, Held, Sink, Waker};
use crate::syscall::Abi;

/// A process that is traced, was traced, or whose trace file somebody has opened.
#[derive(Debug)]
pub struct Proc {
    /// Which.
    pub id: ProcId,
    /// Held by whoever changes what is traced of this process, for as long as the change takes.
    pub changing: Mutex<()>,
    /// Set while somebody wants it let go: then nothing waits for a reader on its behalf.
    releasing: AtomicBool,
    abi: AtomicU8,
    /// Its memory may not be shown to the owner of its trace.
    opaque: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    trace: Option<Arc<Trace>>,
    /// The sink written to before: it stays readable after its end (docs/ktracefs.md, "Sinks").
    last: Option<Last>,
    died: Option<Instant>,
    waiting: Vec<Arc<Binding>>,
}

struct Last {
    sink: Arc<Sink>,
    /// When it was last seen with a process that writes to it.
    live: Instant,
}

impl State {
    fn is(&self, trace: Option<&Arc<Trace>>) -> bool {
        match (&self.trace, trace) {
            (None, None) => true,
            (Some(now), Some(trace)) => Arc::ptr_eq(now, trace),
            _ => false,
        }
    }

    /// Gives what was replaced, to be dropped without the lock.
    fn replace(&mut self, trace: Option<Arc<Trace>>, keeps: bool) -> (Option<Arc<Trace>>, Option<Last>) {
        let ends = trace.is_none();
        let old = std::mem::replace(&mut self.trace, trace);
        let sink = old.as_ref().filter(|_| ends && keeps).map(|t| Arc::clone(t.sink()));
        let last = sink.and_then(|sink| self.last.replace(Last { sink, live: Instant::now() }));
        (old, last)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("trace", &self.trace).field("died", &self.died).finish_non_exhaustive()
    }
}

/// An open of a trace file before the process had one: bound to the first sink it gets.
#[derive(Default)]
pub struct Binding {
    state: Mutex<BindingState>,
}

#[derive(Default)]
struct BindingState {
    bound: Bound,
    waker: Option<Waker>,
}

/// Where a [`Binding`] stands.
#[derive(Clone, Debug, Default)]
pub enum Bound {
    /// No sink yet.
    #[default]
    Waiting,
    /// The first sink.
    To(Arc<Sink>),
    /// The process died without one.
    Never,
}

impl Binding {
    /// What has become of it.
    pub fn get(&self) -> Bound {
        self.state.lock().bound.clone()
    }

    /// Registers a waker to be called once, when it is no longer waiting; false where that is so already.
    pub fn arm(&self, waker: Waker) -> bool {
        let mut st = self.state.lock();
        let waiting = matches!(st.bound, Bound::Waiting);
        if waiting {
            st.waker = Some(waker);
        }
        waiting
    }

    fn set(&self, bound: Bound) {
        let mut st = self.state.lock();
        st.bound = bound;
        if let Some(waker) = st.waker.take() {
            waker(Held::Locks);
        }
    }
}

impl Proc {
    fn new(id: ProcId) -> Arc<Proc> {
        Arc::new(Proc {
            id,
            changing: Mutex::new(()),
            releasing: AtomicBool::new(false),
            abi: AtomicU8::new(0),
            opaque: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// Says that it is to be let go, or that it was.
    pub fn set_releasing(&self, releasing: bool) {
        self.releasing.store(releasing, Ordering::Relaxed);
    }

    /// True while it is to be let go.
    pub fn is_releasing(&self) -> bool {
        self.releasing.load(Ordering::Relaxed)
    }

    /// What is traced now.
    pub fn trace(&self) -> Option<Arc<Trace>> {
        self.state.lock().trace.clone()
    }

    /// The sink it writes to, or the one before while that can be read. One that its readers left is gone at once.
    pub fn sink(&self) -> Option<Arc<Sink>> {
        let st = self.state.lock();
        let now = st.trace.as_ref().map(|t| t.sink());
        let sink = now.or(st.last.as_ref().map(|last| &last.sink)).cloned();
        drop(st);
        sink.filter(|s| s.end() != Some(End::GaveUp(libc::EPIPE)))
    }

    /// Forgets a sink that it wrote to before.
    pub fn forget_sink(&self, sink: u64) {
        let last = self.state.lock().last.take_if(|last| last.sink.id() == sink);
        // Freed without the lock.
        drop(last);
    }

    /// Replaces what is traced. The sink of an ended trace stays readable.
    pub fn set_trace(&self, trace: Option<Arc<Trace>>) {
        let old = self.state.lock().replace(trace, true);
        // The last writer of a sink wakes its readers: not under this lock.
        drop(old);
    }

    /// The same, only where what is traced is still `old`; false where an exec, a death or another change came first.
    pub fn swap_trace(&self, old: Option<&Arc<Trace>>, new: Option<Arc<Trace>>) -> bool {
        let mut st = self.state.lock();
        let swaps = st.is(old) && (new.is_none() || st.died.is_none());
        let replaced = swaps.then(|| st.replace(new, true));
        drop(st);
        drop(replaced);
        swaps
    }

    /// Takes back what was set and could not be brought in force, as if it had never been.
    pub fn revert_trace(&self, failed: &Arc<Trace>, old: Option<Arc<Trace>>) {
        let mut st = self.state.lock();
        let replaced = st.is(Some(failed)).then(|| st.replace(old, false));
        drop(st);
        drop(replaced);
    }

    /// What was set is in force: every open that waited is bound to its sink, and an ended sink before it is forgotten.
    pub fn bind(&self) {
        let mut st = self.state.lock();
        let Some(trace) = st.trace.clone() else { return };
        for binding in st.waiting.drain(..) {
            binding.set(Bound::To(Arc::clone(trace.sink())));
        }
        let last = st.last.take();
        drop(st);
        drop((trace, last));
    }

    /// The ABI of its last call.
    pub fn abi(&self) -> Abi {
        match self.abi.load(Ordering::Relaxed) {
            1 => Abi::Linux32,
            2 => Abi::LinuxX32,
            _ => Abi::Linux,
        }
    }

    /// Notes the ABI.
    pub fn set_abi(&self, abi: Abi) {
        self.abi.store(abi as u8, Ordering::Relaxed);
    }

    /// True while its memory may not be shown to the owner of its trace.
    pub fn is_opaque(&self) -> bool {
        self.opaque.load(Ordering::Relaxed)
    }

    /// Says whether its memory may be shown; gives what was so before.
    pub fn set_opaque(&self, opaque: bool) -> bool {
        self.opaque.swap(opaque, Ordering::Relaxed)
    }

    /// An open that waits for the first sink.
    pub fn wait_for_sink(&self) -> Arc<Binding> {
        let binding = Arc::new(Binding::default());
        let mut st = self.state.lock();
        match st.died {
            Some(_) => binding.set(Bound::Never),
            None => st.waiting.push(Arc::clone(&binding)),
        }
        binding
    }

    /// When it died, `None` while it lives.
    pub fn died(&self) -> Option<Instant> {
        self.state.lock().died
    }

    fn die(&self) {
        self.set_trace(None);
        let mut st = self.state.lock();
        st.died.get_or_insert_with(Instant::now);
        for binding in st.waiting.drain(..) {
            binding.set(Bound::Never);
        }
    }

    /// Lets go of what time or death has made useless.
    fn expire(&self, linger: Duration) {
        // Of an untraced process no backend says that it has died.
        if self.trace().is_none() && self.died().is_none() && self.id.check().is_err() {
            self.die();
        }
        let last = {
            let mut st = self.state.lock();
            st.waiting.retain(|b| Arc::strong_count(b) > 1);
            st.last.as_ref().map(|last| Arc::clone(&last.sink))
        };
        let Some(sink) = last else { return };
        // A sink's lock is never taken under ours: who waits for room in it asks about its process.
        let (end, unread) = (sink.end(), sink.unread());
        let mut st = self.state.lock();
        let over = st.last.as_mut().filter(|last| Arc::ptr_eq(&last.sink, &sink)).is_some_and(|last| {
            let Some(end) = end else {
                last.live = Instant::now();
                return false;
            };
            !unread || end == End::GaveUp(libc::EPIPE) || last.live.elapsed() > linger
        });
        let last = if over { st.last.take() } else { None };
        drop(st);
        drop((sink, last));
    }

    /// True while there is a reason to keep it in the table.
    fn is_needed(&self) -> bool {
        let st = self.state.lock();
        st.trace.is_some() || st.last.is_some() || !st.waiting.is_empty()
    }
}

/// All of them, by process id.
#[derive(Debug)]
pub struct ProcTable {
    procs: Mutex<Pids<Arc<Proc>>>,
    linger: Duration,
}

impl ProcTable {
    /// Empty; dead processes stay for `linger` while their records are unread.
    pub fn new(linger: Duration) -> ProcTable {
        ProcTable { procs: Mutex::default(), linger }
    }

    /// The entry of this very process, if it has one.
    pub fn get(&self, id: ProcId) -> Option<Arc<Proc>> {
        self.procs.lock().get(&id.pid).filter(|p| p.id == id).cloned()
    }

    /// The entry under this number, which may be of a process that died.
    pub fn get_pid(&self, pid: i32) -> Option<Arc<Proc>> {
        self.procs.lock().get(&pid).cloned()
    }

    /// The entry of this process, made where there is none. An older process with its number is forgotten.
    pub fn entry(&self, id: ProcId) -> Arc<Proc> {
        entry(&mut self.procs.lock(), id)
    }

    /// The same of a child that may be gone by now; `None` where its number is another's already.
    pub(crate) fn newborn(&self, id: ProcId) -> Option<Arc<Proc>> {
        let mut procs = self.procs.lock();
        let other = procs.get(&id.pid).is_some_and(|proc| proc.id != id && proc.died().is_none());
        // Which of the two is the later one, their numbers do not say.
        (!other || ProcId::of(id.pid) == Ok(id)).then(|| entry(&mut procs, id))
    }

    /// Every entry.
    pub fn all(&self) -> Vec<Arc<Proc>> {
        self.procs.lock().values().cloned().collect()
    }

    /// The traced processes with this sink.
    pub fn writers_of(&self, sink: u64) -> Vec<Arc<Proc>> {
        let mut all = self.all();
        all.retain(|p| p.trace().is_some_and(|t| t.sink().id() == sink));
        all
    }

    /// True where a process is traced.
    pub fn is_traced(&self, pid: i32) -> bool {
        self.get_pid(pid).is_some_and(|p| p.trace().is_some())
    }

    /// `ktrfork` (R22): a new process. Gives its entry and what is traced of it, `None` without INHERIT.
    pub fn fork(&self, parent: &Proc, child: ProcId) -> Option<(Arc<Proc>, Arc<Trace>)> {
        let trace = parent.trace().filter(|t| t.inherit)?;
        let proc = self.entry(child);
        proc.set_abi(parent.abi());
        let trace = Arc::new(trace.inherited());
        proc.set_trace(Some(Arc::clone(&trace)));
        proc.bind();
        Some((proc, trace))
    }

    /// The process is dead (R24): tracing ends, what it wrote stays readable.
    pub fn exit(&self, proc: &Proc) {
        proc.die();
    }

    /// Forgets what nobody needs: to be called now and then, and when a reader closes.
    pub fn sweep(&self) {
        // What this reads and frees must not hold up whoever needs the table.
        for proc in self.all() {
            proc.expire(self.linger);
        }
        // Whoever holds one may be about to wait on it, or to trace it.
        self.procs.lock().retain(|_, proc| Arc::strong_count(proc) > 1 || proc.is_needed());
    }
}

fn entry(procs: &mut Pids<Arc<Proc>>, id: ProcId) -> Arc<Proc> {
    if let Some(proc) = procs.get(&id.pid) {
        if proc.id == id {
            return Arc::clone(proc);
        }
        proc.die();
    }
    let proc = Proc::new(id);
    procs.insert(id.pid, Arc::clone(&proc));
    proc
}
