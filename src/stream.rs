//! An open trace file: bound to the sink its process writes to, or waiting for the first it gets.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::proc::{Binding, Bound, Proc};
use crate::sink::{Read, Reader, Sink, Waker};

/// What `open("/ktrace/<pid>/trace")` gives.
#[derive(Debug)]
pub struct TraceFile {
    /// Whose uid opened it: a sink belongs to its maker, or root (docs/ktracefs.md, "Sinks").
    uid: u32,
    state: State,
}

enum State {
    Waiting(Arc<Proc>, Arc<Binding>),
    Bound(Reader),
    Over,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Waiting(..) => "Waiting",
            State::Bound(_) => "Bound",
            State::Over => "Over",
        })
    }
}

impl TraceFile {
    /// Opens the trace file of `proc` for the user `uid`, whose permission on the process was checked.
    ///
    /// # Errors
    /// EACCES where the sink belongs to somebody else.
    pub fn open(proc: &Arc<Proc>, uid: u32) -> Result<TraceFile> {
        let state = match proc.sink() {
            Some(sink) => State::Bound(reader(&sink, uid)?),
            None => State::Waiting(Arc::clone(proc), proc.wait_for_sink()),
        };
        Ok(TraceFile { uid, state })
    }

    /// Adds records to `out`, at most `max` bytes. `pid` is the reading process.
    ///
    /// # Errors
    /// EACCES where the first sink that came belongs to somebody else.
    pub fn read(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> Result<Read> {
        self.bind()?;
        Ok(match &mut self.state {
            State::Waiting(..) => Read::Empty,
            State::Bound(reader) => reader.read(max, pid, out),
            State::Over => Read::Eof,
        })
    }

    /// Registers `waker` to be called once, when a read would give `least` bytes, at least one, or the end, or the sink is
    /// full; false where that is so already.
    pub fn arm(&mut self, waker: Waker, least: usize) -> bool {
        if self.bind().is_err() {
            return false;
        }
        match &mut self.state {
            State::Waiting(_, binding) => binding.arm(waker),
            State::Bound(reader) => reader.arm(waker, least),
            State::Over => false,
        }
    }

    /// Bytes of records that were not read; 0 while it waits for a sink.
    pub fn unread(&self) -> usize {
        match &self.state {
            State::Bound(reader) => reader.unread(),
            _ => 0,
        }
    }

    /// Whether a read would give data now, and whether EOF is next: what poll(2) asks.
    pub fn ready(&mut self) -> (bool, bool) {
        if self.bind().is_err() {
            return (true, false);
        }
        match &self.state {
            State::Waiting(..) => (false, false),
            State::Bound(reader) => reader.ready(),
            State::Over => (false, true),
        }
    }

    /// The process whose first sink is waited for; `None` once bound.
    pub fn waits_for(&self) -> Option<&Arc<Proc>> {
        match &self.state {
            State::Waiting(proc, _) => Some(proc),
            _ => None,
        }
    }

    /// The sink, once bound.
    pub fn sink(&mut self) -> Option<&Arc<Sink>> {
        // Who may not read it has nothing to wait for.
        self.bind().ok()?;
        match &self.state {
            State::Bound(reader) => Some(reader.sink()),
            _ => None,
        }
    }

    fn bind(&mut self) -> Result<()> {
        let State::Waiting(_, binding) = &self.state else { return Ok(()) };
        match binding.get() {
            Bound::Waiting => {}
            Bound::To(sink) => self.state = State::Bound(reader(&sink, self.uid)?),
            Bound::Never => self.state = State::Over,
        }
        Ok(())
    }
}

fn reader(sink: &Arc<Sink>, uid: u32) -> Result<Reader> {
    if uid != 0 && uid != sink.owner() {
        return Err(Error::Access { why: format!("the trace file belongs to uid {}", sink.owner()).into() });
    }
    Ok(sink.reader())
}
