//! What a stream file gives: the records of a trace file, or what kdump prints of them.

use std::sync::Arc;

use ktrace::proc::Proc;
use ktrace::sink::{Read, Waker};
use ktrace::stream::TraceFile;

/// An open `trace` or `text`.
#[derive(Debug)]
pub(crate) enum Stream {
    /// `trace`: the records.
    Trace(TraceFile),
}

impl Stream {
    /// Adds at most `max` bytes to `out`. `pid` is the reading process.
    ///
    /// # Errors
    /// Those of [`TraceFile::read`].
    pub(crate) fn read(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> ktrace::Result<Read> {
        match self {
            Stream::Trace(file) => file.read(max, pid, out),
        }
    }

    /// Registers `waker` to be called once, when a read would give more than [`Read::Empty`]; false where that is so
    /// already.
    pub(crate) fn arm(&mut self, waker: Waker) -> bool {
        match self {
            Stream::Trace(file) => file.arm(waker),
        }
    }

    /// Whether a read would give data now, and whether EOF is next.
    pub(crate) fn ready(&mut self) -> (bool, bool) {
        match self {
            Stream::Trace(file) => file.ready(),
        }
    }

    /// The process whose first sink is waited for.
    pub(crate) fn waits_for(&self) -> Option<Arc<Proc>> {
        match self {
            Stream::Trace(file) => file.waits_for().cloned(),
        }
    }
}
