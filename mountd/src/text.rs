//! What a stream file gives: the records of a trace file, or what kdump prints of them.

use std::sync::Arc;

use ktrace::dump::{Options, Printer};
use ktrace::proc::Proc;
use ktrace::record::Decoder;
use ktrace::sink::{Read, Sink, Waker};
use ktrace::stream::TraceFile;

/// Bytes of records printed at a time: what one answer holds in text must not take long.
const PIECE: usize = 32 << 10;

/// An open `trace` or `text`.
#[derive(Debug)]
pub(crate) enum Stream {
    /// `trace`: the records.
    Trace(TraceFile),
    /// `text`: their print.
    Text(Box<Text>),
}

/// An open `text`.
#[derive(Debug)]
pub(crate) struct Text {
    file: TraceFile,
    decoder: Decoder,
    printer: Printer,
    /// Records as they were read.
    piece: Vec<u8>,
    /// Text printed and not read yet, from `at` on.
    printed: Vec<u8>,
    at: usize,
}

impl Stream {
    /// `text` of a trace file.
    pub(crate) fn text(file: TraceFile) -> Stream {
        Stream::Text(Box::new(Text {
            file,
            decoder: Decoder::new(),
            printer: Printer::new(Options::default()),
            piece: Vec::new(),
            printed: Vec::new(),
            at: 0,
        }))
    }

    /// Adds at most `max` bytes to `out`. `pid` is the reading process.
    ///
    /// # Errors
    /// Those of [`TraceFile::read`].
    pub(crate) fn read(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> ktrace::Result<Read> {
        match self {
            Stream::Trace(file) => file.read(max, pid, out),
            Stream::Text(text) => text.read(max, pid, out),
        }
    }

    /// Registers `waker` to be called once, when a read would give something of `least` bytes of records, at least one,
    /// or the end; false where that is so already.
    pub(crate) fn arm(&mut self, waker: Waker, least: usize) -> bool {
        match self {
            Stream::Trace(file) => file.arm(waker, least),
            Stream::Text(text) => text.left().is_empty() && text.file.arm(waker, least),
        }
    }

    /// Bytes of records that a read would have to fetch: none while there is text left.
    pub(crate) fn unread(&self) -> usize {
        match self {
            Stream::Text(text) if !text.left().is_empty() => 0,
            Stream::Text(text) => text.file.unread(),
            Stream::Trace(file) => file.unread(),
        }
    }

    /// Whether a read would give data now, and whether EOF is next.
    pub(crate) fn ready(&mut self) -> (bool, bool) {
        match self {
            Stream::Text(text) if !text.left().is_empty() => (true, false),
            Stream::Text(text) => text.file.ready(),
            Stream::Trace(file) => file.ready(),
        }
    }

    /// The sink it reads, once there is one.
    pub(crate) fn sink(&mut self) -> Option<Arc<Sink>> {
        match self {
            Stream::Trace(file) => file.sink().cloned(),
            Stream::Text(text) => text.file.sink().cloned(),
        }
    }

    /// The process whose first sink is waited for.
    pub(crate) fn waits_for(&self) -> Option<Arc<Proc>> {
        match self {
            Stream::Trace(file) => file.waits_for().cloned(),
            Stream::Text(text) => text.file.waits_for().cloned(),
        }
    }
}

impl Text {
    fn read(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> ktrace::Result<Read> {
        while self.left().is_empty() {
            self.piece.clear();
            match self.file.read(PIECE, pid, &mut self.piece)? {
                Read::Data => self.print(),
                other => return Ok(other),
            }
        }
        let left = &self.printed[self.at..];
        let fits = &left[..left.len().min(max)];
        // Whole lines, where one fits: a reader that looks at each answer sees no half one.
        let len = fits.iter().rposition(|b| *b == b'\n').map_or(fits.len(), |at| at + 1);
        out.extend_from_slice(&fits[..len]);
        self.at += len;
        Ok(Read::Data)
    }

    fn print(&mut self) {
        self.printed.clear();
        self.at = 0;
        self.decoder.feed(&self.piece);
        loop {
            match self.decoder.next_record() {
                Ok(Some(record)) => self.printer.record(&record, &mut self.printed),
                Ok(None) => return,
                Err(err) => {
                    // Our own records: a fault of ours, and nothing after it can be read.
                    log::error!("text: {err}");
                    self.decoder = Decoder::new();
                    return;
                }
            }
        }
    }

    fn left(&self) -> &[u8] {
        &self.printed[self.at..]
    }
}

#[cfg(test)]
mod tests;
