//! The columns that every line begins with: process, thread, command, times.

use super::{Options, put, text};
use crate::record::{Comm, Header, Time};

/// Writes them, and remembers what the times are relative to.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    /// Those of the record before that say whose it is: mostly the next one is the same thread's.
    whose: Option<(Whose, Vec<u8>)>,
    first: Option<Time>,
    last: Option<Time>,
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

    pub(super) fn put(&mut self, options: &Options, h: &Header, out: &mut Vec<u8>) {
        let whose = (h.version > 0, h.stamp.pid, h.stamp.tid, h.stamp.comm);
        match &self.whose {
            Some((before, text)) if *before == whose => out.extend_from_slice(text),
            _ => {
                let start = out.len();
                put_whose(out, h);
                self.whose = Some((whose, out[start..].to_vec()));
            }
        }

        let now = h.stamp.time;
        let (scale, digits) = if h.version > 0 { (1, 9) } else { (1000, 6) };
        if options.absolute {
            put!(out, "{}.{:0digits$} ", now.sec, now.nsec / scale);
        }
        let mut since = |then: Time| {
            let nanos = nanos(now) - nanos(then);
            let sign = if nanos < 0 { "-" } else { "" };
            let (nanos, second) = (nanos.unsigned_abs(), 1_000_000_000);
            put!(out, "{sign}{}.{:0digits$} ", nanos / second, nanos % second / scale as u128);
        };
        if options.elapsed {
            since(*self.first.get_or_insert(now));
        }
        if options.relative {
            since(self.last.replace(now).unwrap_or(now));
        }
    }
}

type Whose = (bool, i32, i32, Comm);

fn put_whose(out: &mut Vec<u8>, h: &Header) {
    put!(out, "{:6} ", h.stamp.pid);
    // Version 0 has no threads, and microseconds.
    if h.version > 0 {
        put!(out, "{:6} ", h.stamp.tid);
    }
    let start = out.len();
    text::name(out, h.stamp.comm.as_bytes());
    let pad = 8usize.saturating_sub(out.len() - start);
    put!(out, "{:pad$} ", "");
}

/// A time in nanoseconds, of any two numbers a record can hold.
pub(super) fn nanos(time: Time) -> i128 {
    i128::from(time.sec) * 1_000_000_000 + i128::from(time.nsec)
}
