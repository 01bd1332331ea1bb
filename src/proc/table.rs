//! The table of traced processes, and of those whose trace file is still open or unread after their death.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{ProcId, Stat, Trace};
use crate::error::Result;
use crate::sink::{Sink, Waker};
use crate::syscall::Abi;

/// A process that is traced, was traced, or whose trace file somebody has opened.
#[derive(Debug)]
pub struct Proc {
    /// Which.
    pub id: ProcId,
    /// Held by whoever changes what is traced of this process, for as long as the change takes.
    pub changing: Mutex<()>,
    abi: AtomicU8,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    trace: Option<Arc<Trace>>,
    /// The sink written to last: it stays readable after its end (docs/ktracefs.md, "Sinks").
    last: Option<Arc<Sink>>,
    died: Option<Instant>,
    waiting: Vec<Arc<Binding>>,
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
            waker();
        }
    }
}

impl Proc {
    fn new(id: ProcId) -> Arc<Proc> {
        Arc::new(Proc { id, changing: Mutex::new(()), abi: AtomicU8::new(0), state: Mutex::default() })
    }

    /// What is traced now.
    pub fn trace(&self) -> Option<Arc<Trace>> {
        self.state.lock().trace.clone()
    }

    /// The sink it writes to, or wrote to last.
    pub fn sink(&self) -> Option<Arc<Sink>> {
        let st = self.state.lock();
        st.trace.as_ref().map(|t| Arc::clone(t.sink())).or_else(|| st.last.clone())
    }

    /// Forgets a sink that has ended and was read to its end, or was replaced.
    pub fn forget_sink(&self, sink: &Arc<Sink>) {
        let mut st = self.state.lock();
        if st.last.as_ref().is_some_and(|s| Arc::ptr_eq(s, sink)) {
            st.last = None;
        }
    }

    /// Replaces what is traced; every waiting open is bound to the sink.
    pub fn set_trace(&self, trace: Option<Arc<Trace>>) {
        let mut st = self.state.lock();
        if let Some(trace) = &trace {
            st.last = Some(Arc::clone(trace.sink()));
            for binding in st.waiting.drain(..) {
                binding.set(Bound::To(Arc::clone(trace.sink())));
            }
        }
        let old = std::mem::replace(&mut st.trace, trace);
        drop(st);
        // The last writer of a sink wakes its readers: not under this lock.
        drop(old);
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
        let mut st = self.state.lock();
        st.died.get_or_insert_with(Instant::now);
        for binding in st.waiting.drain(..) {
            binding.set(Bound::Never);
        }
        let trace = st.trace.take();
        drop(st);
        drop(trace);
    }

    /// True while there is a reason to keep it in the table.
    fn is_needed(&self, linger: Duration) -> bool {
        let mut st = self.state.lock();
        st.waiting.retain(|b| Arc::strong_count(b) > 1);
        if let Some(last) = &st.last
            && st.trace.is_none()
        {
            let unread = last.end().is_none() || last.unread();
            let expired = st.died.is_some_and(|d| d.elapsed() > linger);
            if !unread || expired {
                st.last = None;
            }
        }
        st.trace.is_some() || st.last.is_some() || !st.waiting.is_empty()
    }
}

/// All of them, by process id.
#[derive(Debug)]
pub struct ProcTable {
    procs: Mutex<HashMap<i32, Arc<Proc>>>,
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
        let mut procs = self.procs.lock();
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
    ///
    /// # Errors
    /// ESRCH where the child is gone already.
    pub fn fork(&self, parent: &Proc, child: i32) -> Result<Option<(Arc<Proc>, Arc<Trace>)>> {
        let Some(trace) = parent.trace().filter(|t| t.inherit) else { return Ok(None) };
        let id = ProcId { pid: child, start: Stat::of(child)?.start };
        let proc = self.entry(id);
        proc.set_abi(parent.abi());
        let trace = Arc::new(trace.inherited());
        proc.set_trace(Some(Arc::clone(&trace)));
        Ok(Some((proc, trace)))
    }

    /// The process is dead (R24): tracing ends, what it wrote stays readable.
    pub fn exit(&self, proc: &Proc) {
        proc.die();
    }

    /// Forgets what nobody needs: to be called now and then, and when a reader closes.
    pub fn sweep(&self) {
        let linger = self.linger;
        self.procs.lock().retain(|_, proc| proc.is_needed(linger));
    }
}
