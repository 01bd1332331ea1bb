//! The columns that every line begins with: process, thread, command, times.

use super::emulation::{SLOTS, slot};
use super::number::put_first;
use super::{Options, number, put, text};
use crate::record::{Comm, Header, Stamp, Time};

/// Most bytes of the columns that say whose a record is: two numbers, and a name of 16 bytes that each become four.
const WHOSE_MAX: usize = 96;
/// Nearly always they have no more.
const WHOSE: usize = 32;

/// Writes them, and remembers what the times are relative to.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// Those of each thread's last record, by the end of the thread's number: mostly the next one has the same.
    slots: Box<[Slot; SLOTS]>,
    first: Option<Time>,
    last: Option<Time>,
}

/// Whose a record is, and the columns that say it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    whose: Whose,
    text: [u8; WHOSE_MAX],
    /// 0 before the first.
    len: usize,
}

impl Default for Columns {
    fn default() -> Columns {
        let empty = Slot { whose: Whose::default(), text: [0; WHOSE_MAX], len: 0 };
        Columns { slots: Box::new([empty; SLOTS]), first: None, last: None }
    }
}

impl Columns {
    /// Takes note of a record that is shown elsewhere.
    pub(super) fn pass(&mut self, options: &Options, h: &Header) {
        if options.elapsed {
            self.first.get_or_insert(h.stamp.time);
        }
        if options.relative {
            self.last = Some(h.stamp.time);
        }
    }

    #[inline]
    pub(super) fn put(&mut self, options: &Options, h: &Header, out: &mut Vec<u8>) {
        let Stamp { pid, tid, comm, .. } = h.stamp;
        let slot = &mut self.slots[slot(tid)];
        let w = &slot.whose;
        if w.pid != pid || w.tid != tid || w.comm != comm || w.threads != (h.version > 0) || slot.len == 0 {
            slot.turn_to(Whose { threads: h.version > 0, pid, tid, comm });
        }
        match slot.text.first_chunk::<WHOSE>() {
            Some(text) if slot.len <= WHOSE => put_first(out, text, slot.len),
            _ => out.extend_from_slice(&slot.text[..slot.len]),
        }
        if options.absolute || options.elapsed || options.relative {
            self.times(options, h, out);
        }
    }

    fn times(&mut self, options: &Options, h: &Header, out: &mut Vec<u8>) {
        let Stamp { time: now, .. } = h.stamp;
        // Version 0 has microseconds.
        let (scale, digits) = if h.version > 0 { (1, 9) } else { (1000, 6) };
        if options.absolute {
            match u64::try_from(now.nsec) {
                Ok(nsec @ 0..SECOND) => {
                    number::signed(out, now.sec);
                    out.push(b'.');
                    number::fraction(out, nsec / scale, digits);
                    out.push(b' ');
                }
                _ => put!(out, "{}.{:0digits$} ", now.sec, now.nsec / scale as i64),
            }
        }
        let mut since = |then: Time| {
            let nanos = nanos(now) - nanos(then);
            if nanos < 0 {
                out.push(b'-');
            }
            match u64::try_from(nanos.unsigned_abs()) {
                Ok(nanos) => {
                    number::decimal(out, nanos / SECOND);
                    out.push(b'.');
                    number::fraction(out, nanos % SECOND / scale, digits);
                    out.push(b' ');
                }
                Err(_) => {
                    let (nanos, second) = (nanos.unsigned_abs(), u128::from(SECOND));
                    put!(out, "{}.{:0digits$} ", nanos / second, nanos % second / u128::from(scale));
                }
            }
        };
        if options.elapsed {
            since(*self.first.get_or_insert(now));
        }
        if options.relative {
            since(self.last.replace(now).unwrap_or(now));
        }
    }
}

impl Slot {
    fn turn_to(&mut self, whose: Whose) {
        let mut out = Vec::with_capacity(WHOSE_MAX);
        put_whose(&mut out, whose);
        self.len = out.len().min(WHOSE_MAX);
        self.text[..self.len].copy_from_slice(&out[..self.len]);
        self.whose = whose;
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Whose {
    pid: i32,
    tid: i32,
    comm: Comm,
    /// False in version 0, which has none.
    threads: bool,
}

fn put_whose(out: &mut Vec<u8>, Whose { pid, tid, comm, threads }: Whose) {
    number::aligned(out, pid, 6);
    out.push(b' ');
    if threads {
        number::aligned(out, tid, 6);
        out.push(b' ');
    }
    let start = out.len();
    text::name(out, comm.as_bytes());
    out.resize(out.len().max(start + 8), b' ');
    out.push(b' ');
}

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A time in nanoseconds, of any two numbers a record can hold.
pub(super) fn nanos(time: Time) -> i128 {
    i128::from(time.sec) * 1_000_000_000 + i128::from(time.nsec)
}
