//! A stream printed by several threads: one follows what records mean for later ones, the others write the lines.
//!
//! The stream is cut between records into pieces. What the lines of a piece depend on, the emulations and the times before
//! it, is handed along with it. The lines come out in the order of the stream, and no more than a few pieces are in memory.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Printer;
use crate::errno;
use crate::record::Decoder;

/// Bytes of one piece.
const PIECE: usize = 1 << 20;

struct Piece {
    records: Vec<u8>,
    printer: Printer,
    /// Where the lines go: empty, with the room that others took before.
    text: Vec<u8>,
    printed: Sender<Printed>,
}

/// A piece's lines, and its records, whose room is used again: to get it from the kernel each time, page by page, takes as
/// long as to print.
#[derive(Default)]
struct Printed {
    records: Vec<u8>,
    text: Vec<u8>,
}

/// Prints `input` to its end with `threads` threads beside the calling one. Gives what is wrong with the stream, after all
/// that is good was printed.
///
/// # Errors
/// Those of `out`.
pub fn print_parallel(
    input: &mut dyn Read,
    mut printer: Printer,
    threads: usize,
    out: &mut dyn Write,
) -> io::Result<Option<String>> {
    thread::scope(|scope| {
        // Made in here: with this end the threads end, whatever ends this.
        let (pieces, work) = unbounded::<Piece>();
        for _ in 0..threads.max(1) {
            let work = work.clone();
            scope.spawn(move || {
                let mut decoder = Decoder::new();
                work.iter().for_each(|piece| print(piece, &mut decoder));
            });
        }
        drop(work);
        let mut under_way = VecDeque::new();
        let mut decoder = Decoder::new();
        let mut records = Vec::new();
        let mut spare = Vec::new();
        // How much of the stream came before `records`.
        let mut before = 0;
        loop {
            let old = records.len();
            records.resize(old + PIECE, 0);
            let (n, over) = match fill(input, &mut records[old..]) {
                Ok(n) => (n, None),
                Err(e) => (0, Some(errno::words(&e))),
            };
            records.truncate(old + n);
            decoder.feed(&records[old..]);
            let start = printer.clone();
            let fault = loop {
                match decoder.next_record() {
                    Ok(Some(record)) => printer.pass(&record),
                    Ok(None) => break over,
                    Err(e) => break Some(e.to_string()),
                }
            };
            let Printed { records: mut rest, text } = spare.pop().unwrap_or_default();
            let whole = (decoder.taken() - before) as usize;
            rest.extend_from_slice(&records[whole..]);
            records.truncate(whole);
            before = decoder.taken();
            let (printed, lines) = bounded(1);
            under_way.push_back(lines);
            let records = std::mem::replace(&mut records, rest);
            // They work until this end is closed.
            let _ = pieces.send(Piece { records, printer: start, text, printed });
            let ended = n == 0 || fault.is_some();
            while under_way.len() > if ended { 0 } else { 2 * threads } {
                spare.extend(write_next(&mut under_way, out)?);
            }
            if ended {
                return Ok(fault.or_else(|| decoder.finish().err().map(|e| e.to_string())));
            }
        }
    })
}

/// Writes the lines of the oldest piece, and gives back what held it, empty.
fn write_next(
    under_way: &mut VecDeque<Receiver<Printed>>,
    out: &mut dyn Write,
) -> io::Result<Option<Printed>> {
    let Some(mut printed) = under_way.pop_front().and_then(|lines| lines.recv().ok()) else {
        return Ok(None);
    };
    out.write_all(&printed.text)?;
    printed.records.clear();
    printed.text.clear();
    Ok(Some(printed))
}

fn print(piece: Piece, decoder: &mut Decoder) {
    let Piece { records, mut printer, mut text, printed } = piece;
    decoder.feed(&records);
    // They were decoded once: there is nothing wrong with them.
    while let Ok(Some(record)) = decoder.next_record() {
        printer.record(&record, &mut text);
    }
    // Whoever waited may have given up.
    let _ = printed.send(Printed { records, text });
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buf.len() {
        match input.read(&mut buf[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // What came before it is printed first; the next read says it again.
            Err(_) if len > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}
