//! `fd=`: a trace file that is the caller's own descriptor (fktrace, R25). The sink is a ring like any other; a thread
//! of its own reads it and writes to the descriptor, so that no tracer ever does.
//!
//! The thread never waits in a write to a pipe, a terminal or a socket, and never changes the flags of the caller's
//! open file. It has the caller's ids and no capability: the room that a disk keeps for root is not the caller's. A
//! record that was begun is finished or taken back, so nobody finds part of one (F1).

mod descriptor;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use nix::errno::Errno;

pub use descriptor::{Descriptor, take};

use crate::cred::{Caller, Creds};
use crate::error::{Error, Result};
use crate::sink::{Allowance, Read, Reader, Sink, Waker};
use crate::sys;

/// Most bytes of one write.
const PIECE: usize = 256 << 10;
/// After the end of its sink a drain goes on while somebody takes what is left, at most so long without any progress.
const STUCK_MAX: Duration = Duration::from_secs(2);
/// What goes into a file nobody waits for: from one write to the next records gather for so long, unless there is enough of them
/// before, or an end.
const GATHER: Duration = Duration::from_millis(10);
/// How often a drain that waits for its descriptor looks whether its sink has ended.
const TURN: Duration = Duration::from_millis(100);

/// Starts the thread that drains `sink` to `to`. It ends after the sink has, and drops `alive` then.
///
/// # Errors
/// EAGAIN where there is no thread to be had.
pub fn start(sink: &Arc<Sink>, to: Descriptor, caller: &Caller, alive: Sender<()>) -> Result<()> {
    let groups = Creds::of(caller.tid)?.groups;
    let (uid, gid) = (caller.uid, caller.gid);
    let reader = sink.drain();
    let sink = Arc::clone(sink);
    let body = move || {
        let mut drain = Drain { sink: Arc::clone(&sink), reader, to };
        let done = sys::take_ids(uid, gid, &groups).and_then(|()| drain.run());
        if let Err(errno) = done {
            // R30, and while the reader is there: the next record would else find the file left by all.
            sink.give_up(errno as i32);
        }
        sink.drained();
        drop(alive);
    };
    let started = thread::Builder::new().name("drain".into()).spawn(body);
    started.map(drop).map_err(|_| Error::sys("start a thread", 0, Errno::EAGAIN))
}

/// A sink, and where it is written to.
struct Drain {
    sink: Arc<Sink>,
    reader: Reader,
    to: Descriptor,
}

impl Drain {
    /// Until the sink has ended and all of it is written.
    ///
    /// # Errors
    /// Why the descriptor takes no more.
    fn run(&mut self) -> nix::Result<()> {
        let (ring, rung) = bounded(1);
        let bell: Waker = Arc::new(move |_| {
            // Full means that it has rung already.
            let _ = ring.try_send(());
        });
        let pid = std::process::id() as i32;
        let mut buf = Vec::with_capacity(PIECE);
        let mut allowance = match self.to.is_file() {
            true => Allowance::unhurried(GATHER, Instant::now()),
            false => Allowance::new(Instant::now()),
        };
        loop {
            let most = self.sink.attainable();
            while let Some(due) = allowance.turn(Instant::now(), self.reader.unread(), most)
                && self.reader.arm(Arc::clone(&bell), Allowance::enough(most))
            {
                // That nothing came until then is as good.
                let _ = rung.recv_deadline(due);
            }
            buf.clear();
            match self.reader.read(PIECE, pid, &mut buf) {
                Read::Data => {
                    self.write(&buf)?;
                    self.sink.written(&self.reader);
                    allowance.answered(Instant::now(), buf.len());
                }
                Read::Empty => {
                    let since = Instant::now();
                    if self.reader.arm(Arc::clone(&bell), 1) {
                        // The bell lives as long as we do.
                        let _ = rung.recv();
                    }
                    allowance.waited(since.elapsed());
                }
                Read::Eof => return Ok(()),
            }
        }
    }

    /// Writes whole records.
    fn write(&mut self, records: &[u8]) -> nix::Result<()> {
        let mut done = 0;
        let mut moved = Instant::now();
        while done < records.len() {
            match self.to.write(&records[done..]) {
                Ok(n) if n > 0 => {
                    done += n;
                    moved = Instant::now();
                }
                Ok(_) | Err(Errno::EAGAIN) => {
                    let ended = self.sink.end().is_some();
                    if ended && moved.elapsed() > STUCK_MAX {
                        log::warn!(
                            "{}: nobody takes the last {} bytes",
                            self.to.name(),
                            records.len() - done
                        );
                        return Err(Errno::EAGAIN);
                    }
                    self.to.wait(TURN);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    self.to.take_back(part(records, done));
                    return Err(errno);
                }
            }
        }
        Ok(())
    }
}

/// Bytes of the record in whose midst `done` is.
fn part(records: &[u8], done: usize) -> usize {
    let mut at = 0;
    while let Ok(Some(header)) = crate::record::decode_header(&records[at..]) {
        let next = at + crate::record::HEADER_LEN + header.len;
        if next > done {
            break;
        }
        at = next;
    }
    done - at.min(done)
}
