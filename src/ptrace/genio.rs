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
/// Data is fetched in pieces of this many chunks: what a call moves is bounded only by its program.
const CHUNKS: usize = 16;

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
                self.spans(memory, &[Span { addr: arg(ptr), len: arg(len) }], moved, &mut out);
            }
            Data::Msgbuf { ptr, len } => {
                let text = Span { addr: arg(ptr).wrapping_add(msgbuf_type(call.abi)), len: arg(len) };
                self.spans(memory, &[text], moved, &mut out);
            }
            Data::Iov { ptr, count } => {
                self.spans(memory, &memory.iovecs(arg(ptr), arg(count)), moved, &mut out);
            }
            Data::Msg { ptr } => {
                self.spans(memory, &memory.message(arg(ptr)), moved, &mut out);
            }
            Data::Mmsg { ptr, .. } => {
                for i in 0..moved {
                    let (spans, len) = memory.message_of_many(arg(ptr), i);
                    if !self.spans(memory, &spans, len, &mut out) {
                        break;
                    }
                }
            }
        }
    }

    /// `moved` bytes of these spans, in chunks; false where a fault or the sink ended it.
    fn spans(
        &mut self,
        memory: Memory,
        spans: &[Span],
        moved: u64,
        out: &mut impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut left = moved;
        for span in spans {
            let mut addr = span.addr;
            let mut len = span.len.min(left);
            left -= len;
            while len > 0 {
                let want = len.min((CHUNK * CHUNKS) as u64) as usize;
                self.piece.resize(want, 0);
                let got = memory.read(addr, &mut self.piece).len();
                for chunk in self.piece[..got].chunks(CHUNK) {
                    if !out(chunk) {
                        return false;
                    }
                }
                if got < want {
                    return false;
                }
                addr = addr.wrapping_add(want as u64);
                len -= want as u64;
            }
        }
        true
    }
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
