//! `kdump --verify`: whether anything is missing, from the stream alone.

use std::collections::HashMap;

use super::columns::nanos;
use super::emulation::{Emulation, Emulations, is_exit};
use super::{put, text};
use crate::record::*;

/// Looks at every record of a stream for what is missing: losses that the stream tells of, an end that says other counts,
/// or none, a call or a return without the other, a thread whose time runs backwards.
///
/// A return without its call is no gap where tracing may have begun in between (a new thread, an EMUL record), nor is a
/// call without its return where the thread may have ended in it.
#[derive(Debug)]
pub struct Check {
    emulations: Emulations,
    threads: HashMap<(i32, i32), Thread>,
    records: u64,
    lost: u64,
    /// Records before the first.
    before: u64,
    faults: u64,
    /// Of the stream at hand, since its beginning: a file may hold several, one after the other.
    stream: Counts,
}

/// What was seen of one stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    lost: u64,
}

#[derive(Debug, Default)]
struct Thread {
    call: Option<i32>,
    /// A call or return was seen since tracing last changed; with one kind alone nothing can be paired.
    called: bool,
    returned: bool,
    time: Time,
}

impl Check {
    /// At the start of a stream.
    pub fn new(emulation: Emulation) -> Check {
        let emulations = Emulations::new(emulation);
        Check {
            emulations,
            threads: HashMap::new(),
            records: 0,
            lost: 0,
            before: 0,
            faults: 0,
            stream: Counts::default(),
        }
    }

    /// Takes one record and appends a line for whatever is wrong there.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        self.records += 1;
        let seen = Counts {
            records: self.stream.records + 1,
            bytes: self.stream.bytes + (HEADER_LEN + record.header.len) as u64,
            lost: self.stream.lost,
        };
        let before = std::mem::replace(&mut self.stream, seen);
        let stamp = &record.header.stamp;
        let body = record.body();
        let of_stream = matches!(body, Body::User { id: STREAM_ID, .. });
        // The stream's own records carry the time of their making.
        if !of_stream && !matches!(body, Body::Emul(_)) {
            let thread = self.threads.entry((stamp.pid, stamp.tid)).or_default();
            let before = std::mem::replace(&mut thread.time, stamp.time);
            if nanos(before) > nanos(stamp.time) {
                self.fault(record, out, "its time is before that of the thread's last record");
            }
        }
        match body {
            Body::Syscall { code, .. } => self.call(record, code, out),
            Body::Sysret { code, .. } => self.ret(record, code, out),
            Body::Emul(name) => {
                self.emulations.change(stamp.pid, name);
                self.forget(stamp.pid);
            }
            Body::Psig(psig) => self.emulations.signal(stamp.pid, &psig),
            Body::User { id: STREAM_ID, data } => self.told(record, data, before, out),
            Body::Unknown { ktr_type, .. } if super::printer::label(ktr_type).is_some() => {
                self.fault(record, out, "its body does not fit its type");
            }
            _ => {}
        }
    }

    /// What is wrong so far, losses that the stream tells of apart.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// The end of the stream: appends the verdict. True where nothing is missing.
    pub fn finish(self, out: &mut Vec<u8>) -> bool {
        let whole = self.lost == 0 && self.faults == 0;
        let ended = self.records > 0 && self.stream == Counts::default();
        put!(out, "{} records of {} threads: ", self.records, self.threads.len());
        if whole && !ended {
            put!(
                out,
                "no end: cut, still being written, or not of ktracefs; nothing before is seen to be missing\n"
            );
        } else if whole {
            put!(out, "nothing is missing");
            match self.before {
                0 => put!(out, "\n"),
                before => put!(out, " after the first {before}, which were gone when it was opened\n"),
            }
        } else {
            put!(out, "{} lost, {} faults\n", self.lost, self.faults);
        }
        whole && ended && self.before == 0
    }

    fn call(&mut self, record: &Record<'_>, code: i32, out: &mut Vec<u8>) {
        let stamp = &record.header.stamp;
        let emulation = self.emulations.call(stamp, code);
        let thread = self.threads.entry((stamp.pid, stamp.tid)).or_default();
        let pending = if is_exit(emulation.call(code)) { None } else { Some(code) };
        let before = std::mem::replace(&mut thread.call, pending).filter(|_| thread.returned);
        thread.called = true;
        if let Some(before) = before {
            let name = name(emulation, before);
            self.fault(record, out, &format!("the call before, {name}, has no return"));
        }
    }

    fn ret(&mut self, record: &Record<'_>, code: i16, out: &mut Vec<u8>) {
        let stamp = &record.header.stamp;
        let emulation = self.emulations.ret(stamp, code);
        // The thread that execs takes the number of the first, and all others are gone.
        if emulation.call(code.into()).is_some_and(|call| call.name.starts_with("execve")) {
            self.forget(stamp.pid);
        }
        let thread = self.threads.entry((stamp.pid, stamp.tid)).or_default();
        let (call, called) = (thread.call.take(), thread.called);
        thread.returned = true;
        let name = name(emulation, code.into());
        match call {
            Some(call) if call as i16 == code => {}
            Some(_) => self.fault(record, out, &format!("{name} returns, but another call was made")),
            None if called => self.fault(record, out, &format!("{name} returns without a call")),
            None => {}
        }
    }

    /// The end of a stream, which says how much it should be.
    fn end(&mut self, record: &Record<'_>, said: Counts, seen: Counts, out: &mut Vec<u8>) {
        self.stream = Counts::default();
        // Another one may follow, of the same processes at another time.
        self.threads.values_mut().for_each(|thread| *thread = Thread::default());
        if (said.records, said.bytes) != (seen.records, seen.bytes) {
            let what = format!(
                "the stream should have {} records of {} bytes before its end and has {} of {}",
                said.records, said.bytes, seen.records, seen.bytes
            );
            self.fault(record, out, &what);
        }
        if said.lost != seen.lost {
            self.fault(record, out, &format!("{} were lost, and {} told", said.lost, seen.lost));
        }
    }

    fn told(&mut self, record: &Record<'_>, data: &[u8], before: Counts, out: &mut Vec<u8>) {
        if let Some(said) = Counts::of_end(data) {
            return self.end(record, said, before, out);
        }
        if data.starts_with(b"set ") || data == SHOWN.as_bytes() {
            return self.forget(record.header.stamp.pid);
        }
        put!(out, "byte {}: the stream says: ", record.offset);
        text::name(out, data);
        out.push(b'\n');
        let text = String::from_utf8_lossy(data);
        let count = |prefix| text.strip_prefix(prefix)?.split(' ').next()?.parse::<u64>().ok();
        match (count("lost "), count("begins after ")) {
            (_, Some(before)) => self.before = self.before.saturating_add(before),
            (Some(lost), _) => {
                self.lost = self.lost.saturating_add(lost);
                self.stream.lost = self.stream.lost.saturating_add(lost);
            }
            _ => self.faults += 1,
        }
        // What was lost may be either half of any pair.
        self.threads.values_mut().for_each(Thread::forget);
    }

    fn forget(&mut self, pid: i32) {
        self.threads.iter_mut().filter(|((p, _), _)| *p == pid).for_each(|(_, thread)| thread.forget());
    }

    fn fault(&mut self, record: &Record<'_>, out: &mut Vec<u8>, what: &str) {
        let stamp = &record.header.stamp;
        put!(out, "byte {}: process {} thread {}: {what}\n", record.offset, stamp.pid, stamp.tid);
        self.faults += 1;
    }
}

impl Counts {
    /// From the text `end: N records, M bytes, L lost`.
    fn of_end(text: &[u8]) -> Option<Counts> {
        let text = std::str::from_utf8(text).ok()?.strip_prefix("end: ")?;
        let (records, rest) = text.split_once(" records, ")?;
        let (bytes, rest) = rest.split_once(" bytes, ")?;
        let lost = rest.strip_suffix(" lost")?;
        Some(Counts { records: records.parse().ok()?, bytes: bytes.parse().ok()?, lost: lost.parse().ok()? })
    }
}

impl Thread {
    fn forget(&mut self) {
        *self = Thread { time: self.time, ..Thread::default() };
    }
}

fn name(emulation: Emulation, code: i32) -> String {
    emulation.call(code).map_or_else(|| format!("[{code}]"), |call| call.name.into())
}
