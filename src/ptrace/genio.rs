//! The data that a call has moved, as GENIO records (R6): iovec by iovec, in chunks of at most a page, as far as it can
//! be read. It is taken when the call returns, for only then is known how much was moved.

use super::descriptor;
use super::memory::{Memory, Span};
use super::task::{Call, Task};
use crate::hooks::{At, Recorder};
use crate::record::GENIO_MAX;
use crate::syscall::{Abi, Data, Dir};

/// Largest data of one GENIO record (R6: fd and rw take 8 bytes of the page).
const CHUNK: usize = GENIO_MAX - 8;
/// Data is fetched in pieces of 16 chunks: what a call moves is bounded only by its program.
const PIECE: usize = 16 * CHUNK;

/// Fetches data. One per tracer thread.
#[derive(Default)]
pub(super) struct Genio {
    piece: Vec<u8>,
}

impl Genio {
    /// The data of a call that has not failed; `result` is what it returned.
    pub(super) fn record(
        &mut self,
        recorder: &mut Recorder,
        at: At<'_>,
        task: &Task,
        call: &Call,
        result: u64,
    ) {
        let memory = Memory::of(task.tid, call.abi);
        let (known, args) = call.inner(memory);
        let Some(known) = known else { return };
        let Some(io) = known.io else { return };
        let arg = |i: u8| args[usize::from(i)];
        let fd = io.fd.map_or(-1, |i| arg(i) as i32);
        let write = match io.dir {
            Dir::Read => false,
            Dir::Write => true,
            Dir::Pipe => descriptor::is_writable(task.tid, fd),
        };
        let moved = match io.data {
            Data::Whole { len, .. } => arg(len),
            Data::Msgbuf { len, .. } if write => arg(len),
            _ => result,
        };
        if moved == 0 || (discards(known.name, &args) && descriptor::is_tcp(task.pid, fd)) {
            return;
        }
        let mut out = |chunk: &[u8]| recorder.genio(at, fd, write, chunk);
        match io.data {
            Data::Buf { ptr, len } | Data::Whole { ptr, len } => {
                self.spans(memory, &mut [Span { addr: arg(ptr), len: arg(len) }], moved, &mut out);
            }
            Data::Msgbuf { ptr, len } => {
                let text = Span { addr: arg(ptr).wrapping_add(msgbuf_type(call.abi)), len: arg(len) };
                self.spans(memory, &mut [text], moved, &mut out);
            }
            Data::Iov { ptr, count } => {
                self.spans(memory, &mut memory.iovecs(arg(ptr), arg(count)), moved, &mut out);
            }
            Data::Msg { ptr } => {
                self.spans(memory, &mut memory.message(arg(ptr)), moved, &mut out);
            }
            Data::Mmsg { ptr, .. } => {
                for i in 0..moved {
                    let (mut spans, len) = memory.message_of_many(arg(ptr), i);
                    if !self.spans(memory, &mut spans, len, &mut out) {
                        break;
                    }
                }
            }
        }
    }

    /// `moved` bytes of these spans, in chunks; false where a fault or the sink ended it. As many spans as fit in a piece are
    /// fetched at once.
    fn spans(
        &mut self,
        memory: Memory,
        spans: &mut [Span],
        moved: u64,
        out: &mut impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let (mut left, mut used) = (moved, 0);
        for span in spans.iter_mut() {
            if left == 0 {
                break;
            }
            span.len = span.len.min(left);
            left -= span.len;
            used += 1;
        }
        let mut rest = &spans[..used];
        while !rest.is_empty() {
            let (group, others) = rest.split_at(together(rest));
            rest = others;
            let goes_on = match self.fetch(memory, group) {
                true => self.pieces(group, out),
                false => group.iter().all(|span| self.span(memory, *span, out)),
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    /// All of these spans, if they fit in a piece and can be read.
    fn fetch(&mut self, memory: Memory, spans: &[Span]) -> bool {
        let len: u64 = spans.iter().map(|span| span.len).sum();
        len <= PIECE as u64 && {
            self.piece.resize(len as usize, 0);
            memory.read_all(spans, &mut self.piece)
        }
    }

    /// What was fetched of these spans.
    fn pieces(&self, spans: &[Span], out: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let mut at = 0;
        spans.iter().all(|span| {
            let data = &self.piece[at..at + span.len as usize];
            at += data.len();
            data.chunks(CHUNK).all(&mut *out)
        })
    }

    /// One span, as far as it can be read.
    fn span(&mut self, memory: Memory, span: Span, out: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let Span { mut addr, mut len } = span;
        while len > 0 {
            let want = len.min(PIECE as u64) as usize;
            self.piece.resize(want, 0);
            let got = memory.read(addr, &mut self.piece).len();
            if !self.piece[..got].chunks(CHUNK).all(&mut *out) || got < want {
                return false;
            }
            addr = addr.wrapping_add(want as u64);
            len -= want as u64;
        }
        true
    }
}

/// How many of the first spans fit in a piece together: one at least.
fn together(spans: &[Span]) -> usize {
    let mut len = 0u64;
    let fits = |span: &&Span| {
        len = len.saturating_add(span.len);
        len <= PIECE as u64
    };
    spans.iter().take_while(fits).count().max(1)
}

/// True for a call that receives with MSG_TRUNC.
fn discards(name: &str, args: &[u64; 6]) -> bool {
    let flags = match name {
        "recvfrom" | "recvmmsg" | "recvmmsg_time64" => args[3],
        "recvmsg" => args[2],
        _ => 0,
    };
    flags & libc::MSG_TRUNC as u64 != 0
}

/// Bytes of a `struct msgbuf` before its text: a long, which in x32 is the kernel's.
fn msgbuf_type(abi: Abi) -> u64 {
    if abi == Abi::Linux32 { 4 } else { 8 }
}
