//! A file printed by several threads, which take its pieces in turn.
//!
//! Each reads a piece, waits for its turn to cut it, writes the lines, and waits for its turn to put them out. To cut a piece
//! is to find where its last whole record ends, for the next piece begins there, and to take note of what later lines depend on:
//! the emulations and the times. So all but the cutting, a tenth of the work, runs beside the others', a piece stays in the cache of the
//! core that read it, and no more than one for each thread is in memory.

use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::Printer;
use super::again::Again;
use crate::errno;
use crate::record::{HEADER_LEN, nothing_left, record_at};

/// Bytes of one piece.
const PIECE: usize = 256 << 10;
/// Room before a piece for the record that the one before it ended in: few are longer.
const HEAD: usize = 8 << 10;

/// Prints a file to its end with so many threads. `read_at` reads at an offset of it, as pread(2). Gives what is wrong
/// with the stream, after all that is good was printed.
///
/// # Errors
/// Those of `out`.
pub fn print_parallel(
    read_at: impl Fn(&mut [u8], u64) -> io::Result<usize> + Sync,
    printer: Printer,
    threads: usize,
    out: &mut (dyn Write + Send),
) -> io::Result<Option<String>> {
    let next = AtomicU64::new(0);
    let cut = Turns::new(Cut { printer, rest: Vec::new(), taken: 0, fault: None });
    let lines = Turns::new(Lines { out, written: Ok(()) });
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let _end = EndOfPanic(&cut, &lines);
                let mut room = vec![0; HEAD + PIECE];
                let mut text = Vec::new();
                let mut again = Again::default();
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    let read = fill(&read_at, &mut room[HEAD..][..PIECE], piece * PIECE as u64);
                    let Some((records, printer)) = cut.take(piece, |cut| cut.piece(&mut room, read, again))
                    else {
                        return;
                    };
                    text.clear();
                    again = print(&room[records], printer, &mut text);
                    if lines.take(piece, |lines| ((), lines.put(&text))).is_none() {
                        return cut.end();
                    }
                }
            });
        }
    });
    lines.into_inner().written.map(|()| cut.into_inner().fault)
}

/// What the pieces take turns at, in the order of the stream.
struct Turns<T> {
    /// With the number of the piece whose turn it is; `None` where no other comes.
    state: Mutex<(Option<u64>, T)>,
    moved: Condvar,
}

impl<T> Turns<T> {
    fn new(what: T) -> Turns<T> {
        Turns { state: Mutex::new((Some(0), what)), moved: Condvar::new() }
    }

    /// Waits for the turn of this piece. `turn` says whether another comes. `None` where this one does not.
    fn take<R>(&self, piece: u64, turn: impl FnOnce(&mut T) -> (R, bool)) -> Option<R> {
        let mut state = self.state.lock();
        while state.0? != piece {
            self.moved.wait(&mut state);
        }
        let (result, more) = turn(&mut state.1);
        state.0 = more.then_some(piece + 1);
        self.moved.notify_all();
        Some(result)
    }

    fn end(&self) {
        self.state.lock().0 = None;
        self.moved.notify_all();
    }

    fn into_inner(self) -> T {
        self.state.into_inner().1
    }
}

/// The others would wait for the turn of a piece whose thread is gone.
struct EndOfPanic<'a, 'b>(&'a Turns<Cut>, &'a Turns<Lines<'b>>);

impl Drop for EndOfPanic<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
            self.1.end();
        }
    }
}

/// How far the stream is cut.
struct Cut {
    /// As if it had printed all records so far.
    printer: Printer,
    /// The record that is not whole yet.
    rest: Vec<u8>,
    /// Bytes of the stream that were whole records.
    taken: u64,
    fault: Option<String>,
}

impl Cut {
    /// Takes what was read of a piece, which stands at [`HEAD`] in its room: where its records are, with a printer that goes on
    /// from there and knows what was printed from `again`, and whether the stream goes on.
    fn piece(
        &mut self,
        room: &mut Vec<u8>,
        (len, error): (usize, Option<io::Error>),
        again: Again,
    ) -> ((Range<usize>, Printer), bool) {
        let start = match HEAD.checked_sub(self.rest.len()) {
            Some(start) => {
                room[start..HEAD].copy_from_slice(&self.rest);
                start
            }
            None => {
                room.splice(..HEAD, self.rest.iter().copied());
                0
            }
        };
        let end = start + self.rest.len() + len;
        let before = self.printer.going_on(again);
        let mut at = start;
        self.fault = loop {
            match record_at(&room[at..end], self.taken) {
                Ok(Some(record)) => {
                    self.printer.pass(&record);
                    at += HEADER_LEN + record.raw.len();
                    self.taken += (HEADER_LEN + record.raw.len()) as u64;
                }
                Ok(None) => break error.map(|e| errno::words(&e)),
                Err(e) => break Some(e.to_string()),
            }
        };
        let more = len == PIECE && self.fault.is_none();
        if !more && self.fault.is_none() {
            self.fault = nothing_left(&room[at..end], self.taken).err().map(|e| e.to_string());
        }
        self.rest.clear();
        self.rest.extend_from_slice(&room[at..end]);
        ((start..at, before), more)
    }
}

struct Lines<'a> {
    out: &'a mut (dyn Write + Send),
    written: io::Result<()>,
}

impl Lines<'_> {
    /// True where they could be written.
    fn put(&mut self, text: &[u8]) -> bool {
        self.written = self.out.write_all(text);
        self.written.is_ok()
    }
}

fn print(records: &[u8], mut printer: Printer, text: &mut Vec<u8>) -> Again {
    let mut at = 0;
    // They were cut before: there is nothing wrong with them.
    while let Ok(Some(record)) = record_at(&records[at..], 0) {
        printer.record(&record, text);
        at += HEADER_LEN + record.raw.len();
    }
    printer.into_again()
}

/// Reads until the buffer is full, the file ends, or an error comes, which is given with what was read before it.
fn fill(
    read_at: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    buf: &mut [u8],
    offset: u64,
) -> (usize, Option<io::Error>) {
    let mut len = 0;
    while len < buf.len() {
        match read_at(&mut buf[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return (len, Some(e)),
        }
    }
    (len, None)
}

#[cfg(test)]
mod tests;
