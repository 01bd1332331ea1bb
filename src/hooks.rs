//! The hooks: where an event of a traced process becomes a record, or does not. The `ktr_*` of `kern_ktrace.c`.
//!
//! Each tests its facility before it builds anything, encodes one record and appends it whole. What a full or ended
//! sink means is decided here, and only here.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::facility::Facs;
use crate::proc::{Proc, ProcTable, Stat, Trace};
use crate::record::{self, Args, Body, Psig, Stamp};
use crate::sink::{Appended, Batch, Policy, Sink};
use crate::syscall::Abi;

/// R29: three tries in all.
const TRIES: u32 = 3;
/// How long policy block lets a traced process wait for its readers.
pub const BLOCK_MAX: Duration = Duration::from_secs(5);

/// Records wait for others up to this part of a ring, and so many bytes, which the cpu has at hand.
const GATHERED: usize = 16;
const GATHERED_MOST: usize = 32 << 10;

/// Makes records. Each thread that watches has its own.
#[derive(Debug)]
pub struct Recorder {
    procs: Arc<ProcTable>,
    buf: Vec<u8>,
    /// Records that wait, and for which sink.
    batch: Batch,
    to: Option<Arc<Sink>>,
    /// So many bytes at most.
    most: usize,
    gathers: bool,
}

/// Whose record, and into which file: what every hook is given.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// What is traced, and the sink.
    pub trace: &'a Trace,
    /// The event's own time and thread.
    pub stamp: &'a Stamp,
    /// The ABI of the call, or of the last one.
    pub abi: Abi,
}

impl Recorder {
    /// For processes of this table.
    pub fn new(procs: Arc<ProcTable>) -> Recorder {
        let buf = Vec::with_capacity(record::HEADER_LEN + record::GENIO_MAX);
        Recorder { procs, buf, batch: Batch::default(), to: None, most: 0, gathers: false }
    }

    /// Records from here on may wait for others, to take the sink's lock together.
    #[inline]
    pub fn gather(&mut self) {
        self.gathers = true;
    }

    /// All that wait are appended, and none waits from here on: to be called before anything else is done with a sink, and
    /// before anybody may rely on a record being there.
    #[inline]
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.gathers) {
            self.append_batch();
            self.to = None;
        }
    }

    fn append_batch(&mut self) {
        let Some(sink) = &self.to else { return };
        if sink.append_all(&mut self.batch) == Appended::Full {
            while let Some((record, stamp, abi)) = self.batch.first() {
                self.write(sink, record, &stamp, abi);
                self.batch.skip();
            }
        }
    }

    /// R2: number and arguments of a call.
    #[inline(always)]
    pub fn syscall(&mut self, at: At<'_>, code: i32, args: Args<'_>) {
        self.record(at, Facs::SYSCALL, &Body::Syscall { code, args });
    }

    /// R3: result of a call. `result` is the kernel's: a negative errno, or the value.
    #[inline(always)]
    pub fn sysret(&mut self, at: At<'_>, code: i32, result: i64) {
        let (error, retval) = match result {
            -4095..=-1 => (result as i32, 0),
            _ => (0, result),
        };
        self.record(at, Facs::SYSRET, &Body::Sysret { code: code as i16, error, retval, retval_1: 0 });
    }

    /// R4: a path, as the process passed it.
    pub fn namei(&mut self, at: At<'_>, path: &[u8]) {
        self.record(at, Facs::NAMEI, &Body::Namei(path));
    }

    /// R6: one chunk of data; false where the remaining chunks of the call are not wanted.
    pub fn genio(&mut self, at: At<'_>, fd: i32, write: bool, data: &[u8]) -> bool {
        self.record(at, Facs::GENIO, &Body::Genio { fd, write, data })
    }

    /// R7: a signal acted on.
    pub fn psig(&mut self, at: At<'_>, psig: Psig) {
        self.record(at, Facs::PSIG, &Body::Psig(psig));
    }

    /// R8: a context switch.
    pub fn csw(&mut self, at: At<'_>, out: bool, user: bool) {
        self.record(at, Facs::CSW, &Body::Csw { out, user });
    }

    /// R5, R31: the ABI's name.
    pub fn emul(&mut self, at: At<'_>) {
        self.record(at, Facs::EMUL, &Body::Emul(at.abi.name().as_bytes()));
    }

    /// R9, R27: the process's own record. An id that fills its field without a NUL becomes empty.
    pub fn user(&mut self, at: At<'_>, id: &[u8], data: &[u8]) {
        let id = if id.len() >= record::USER_ID_LEN { b"" } else { id };
        self.record(at, Facs::USER, &Body::User { id, data });
    }

    /// One argument of an exec.
    pub fn exec_arg(&mut self, at: At<'_>, arg: &[u8]) {
        self.record(at, Facs::EXEC_ARG, &Body::ExecArg(arg));
    }

    /// One environment string of an exec.
    pub fn exec_env(&mut self, at: At<'_>, env: &[u8]) {
        self.record(at, Facs::EXEC_ENV, &Body::ExecEnv(env));
    }

    /// One descriptor open across an exec.
    pub fn exec_fd(&mut self, at: At<'_>, fd: i32, dtype: u32) {
        self.record(at, Facs::EXEC_FD, &Body::ExecFd { fd, dtype });
    }

    /// The stream says something about itself, whatever the facilities (docs/format.md, "What we add").
    pub fn note(&mut self, at: At<'_>, text: &str) {
        self.put(at, &Body::User { id: record::STREAM_ID, data: text.as_bytes() });
    }

    #[inline(always)]
    fn record(&mut self, at: At<'_>, fac: Facs, body: &Body<'_>) -> bool {
        if !at.trace.facs.intersects(fac) {
            return false;
        }
        self.put(at, body)
    }

    #[inline(always)]
    fn put(&mut self, at: At<'_>, body: &Body<'_>) -> bool {
        if !self.gathers {
            return self.put_now(at, body);
        }
        let sink = at.trace.sink();
        if !self.to.as_ref().is_some_and(|to| Arc::ptr_eq(to, sink)) {
            self.gather_for(sink);
        }
        self.batch.push(at.stamp, body, at.abi);
        if self.batch.len() >= self.most {
            self.append_batch();
        }
        true
    }

    fn put_now(&mut self, at: At<'_>, body: &Body<'_>) -> bool {
        self.buf.clear();
        record::encode(&mut self.buf, at.stamp, body);
        self.write(at.trace.sink(), &self.buf, at.stamp, at.abi)
    }

    fn gather_for(&mut self, sink: &Arc<Sink>) {
        self.append_batch();
        self.to = Some(Arc::clone(sink));
        self.most = (sink.size() / GATHERED).min(GATHERED_MOST);
    }

    /// `ktrwrite` (R28 to R30): the record goes out whole, or the sink's policy decides.
    fn write(&self, sink: &Arc<Sink>, record: &[u8], stamp: &Stamp, abi: Abi) -> bool {
        let mut deadline = None;
        for tries in 1.. {
            match sink.append(record, stamp, abi) {
                Appended::Whole => return true,
                Appended::Lost | Appended::Ended => return false,
                Appended::Full if sink.policy() == Policy::Block => {
                    let by = *deadline.get_or_insert_with(|| Instant::now() + BLOCK_MAX);
                    if !self.somebody_reads(sink) || !sink.wait_for_room(by, || self.is_held(stamp)) {
                        sink.lose(record.len());
                        return false;
                    }
                }
                Appended::Full if tries < TRIES => thread::yield_now(),
                Appended::Full => {
                    sink.give_up(libc::EAGAIN);
                    return false;
                }
            }
        }
        false
    }

    /// A thread that was killed, or whose process is to be let go, must not be kept waiting for a reader. Whether the
    /// process has died cannot be seen while we have not reaped its threads.
    fn is_held(&self, stamp: &Stamp) -> bool {
        let released = self.procs.get_pid(stamp.pid).is_some_and(|proc| proc.is_releasing());
        !released && Stat::of(stamp.tid).is_ok_and(|stat| !stat.has_exited())
    }

    /// A reader that we ourselves hold stopped can make no room: waiting for it would be a deadlock.
    fn somebody_reads(&self, sink: &Sink) -> bool {
        let pids = sink.reader_pids();
        pids.is_empty() || pids.iter().any(|&pid| !self.procs.is_traced(pid))
    }
}

/// At an exec, before any record of the new program: false where tracing of the process ends, because the exec gave it
/// privilege and the trace is not root's, flag and file (R23). `secure` says that ids or capabilities have changed.
pub fn exec(proc: &Proc, trace: &Trace, secure: bool) -> bool {
    if secure && !trace.is_roots() {
        log::info!("process {}: a set-id program was executed, tracing stopped", proc.id.pid);
        return false;
    }
    true
}
