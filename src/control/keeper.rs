//! What happens when a sink is given up: every process that writes to it is released, those marked ROOT too (R30).
//!
//! A thread of its own, as whoever finds a sink full or left is in the middle of recording. It also sweeps the table.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::Ktrace;
use crate::sink::{End, Sink};

/// How often it looks by itself: for processes that did not let go at once, and for what nobody needs any more.
const EVERY: Duration = Duration::from_secs(1);
/// How long one process may keep the others waiting.
const PATIENCE: Duration = Duration::from_millis(100);

/// Starts the thread; it ends with `ktrace`.
pub(super) fn start(ktrace: &Arc<Ktrace>, ids: Receiver<u64>) {
    let weak = Arc::downgrade(ktrace);
    if let Err(error) = thread::Builder::new().name("keeper".into()).spawn(move || run(&weak, &ids)) {
        log::error!("given-up trace files will not be released: {error}");
    }
}

fn run(ktrace: &Weak<Ktrace>, ids: &Receiver<u64>) {
    let mut left: Vec<u64> = Vec::new();
    // A process that joined it at that moment has us look again.
    let mut logged = HashSet::new();
    let mut swept = Instant::now();
    loop {
        let id = match ids.recv_timeout(EVERY) {
            Ok(id) => Some(id),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(ktrace) = ktrace.upgrade() else { return };
        if let Some(id) = id {
            if logged.insert(id) {
                ktrace.log_end(id);
            }
            left.push(id);
        }
        left.sort_unstable();
        left.dedup();
        left.retain(|&id| !ktrace.release_writers(id));
        if swept.elapsed() >= EVERY {
            ktrace.sweep();
            logged.retain(|&id| ktrace.sink(id).is_some());
            swept = Instant::now();
        }
    }
}

impl Ktrace {
    /// R30: logged, unless its readers have only gone away.
    fn log_end(&self, id: u64) {
        let Some(sink) = self.sink(id) else { return };
        if let Some(End::GaveUp(errno)) = sink.end()
            && errno != libc::EPIPE
        {
            let name = sink.file().map_or_else(|| id.to_string(), |file| file.name.clone());
            log::warn!("ktrace write failed, errno {errno}, tracing stopped (trace file {name})");
        }
    }

    fn sink(&self, id: u64) -> Option<Arc<Sink>> {
        self.sinks.lock().iter().filter_map(Weak::upgrade).find(|sink| sink.id() == id)
    }

    /// Releases every process that writes to this sink; true where none is left.
    fn release_writers(&self, id: u64) -> bool {
        for proc in self.procs.writers_of(id) {
            let Some(_changing) = proc.changing.try_lock_for(PATIENCE) else { continue };
            let trace = proc.trace().filter(|t| t.sink().id() == id);
            if let Some(trace) = trace
                && let Err(error) = self.release(&proc, &trace, Instant::now() + PATIENCE)
            {
                log::warn!("a given-up trace file is not released: {error}");
            }
        }
        self.procs.writers_of(id).is_empty()
    }
}
