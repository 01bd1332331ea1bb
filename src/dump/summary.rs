//! `kdump --summary`: counts, errors and times by call.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::columns::nanos;
use super::emulation::{Emulation, Emulations};
use super::{Options, put};
use crate::errno;
use crate::record::*;

/// Counts the calls of a stream.
#[derive(Debug)]
pub struct Summary {
    options: Options,
    emulations: Emulations,
    /// When the call under way began, by process and thread.
    began: HashMap<(i32, i32), Time>,
    rows: HashMap<String, Row>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Row {
    calls: u64,
    errors: u64,
    nanos: i128,
}

impl Summary {
    /// At the start of a stream; the options say which records count.
    pub fn new(options: Options) -> Summary {
        let emulations = Emulations::new(options.emulation);
        Summary { options, emulations, began: HashMap::new(), rows: HashMap::new() }
    }

    /// Takes one record.
    pub fn record(&mut self, record: &Record<'_>) {
        let stamp = &record.header.stamp;
        let thread = (stamp.pid, stamp.tid);
        match record.body() {
            Body::Emul(name) => self.emulations.change(stamp.pid, name),
            Body::Psig(psig) => self.emulations.signal(stamp.pid, &psig),
            Body::Syscall { code, .. } => {
                let emulation = self.emulations.call(stamp, code);
                if self.options.wants(record) {
                    self.row(emulation, code).calls += 1;
                    self.began.insert(thread, stamp.time);
                }
            }
            Body::Sysret { code, error, .. } => {
                let emulation = self.emulations.ret(stamp, code);
                let began = self.began.remove(&thread);
                if self.options.wants(record) {
                    let row = self.row(emulation, code.into());
                    row.errors += u64::from(error != 0 && !errno::is_restart(error));
                    row.nanos += began.map_or(0, |began| nanos(stamp.time) - nanos(began));
                }
            }
            _ => {}
        }
    }

    /// The end of the stream: appends the table, the calls that took most time first.
    pub fn finish(self, out: &mut Vec<u8>) {
        let mut rows: Vec<_> = self.rows.into_iter().collect();
        rows.sort_by(|(a, x), (b, y)| {
            (Reverse(x.nanos), Reverse(x.calls), a).cmp(&(Reverse(y.nanos), Reverse(y.calls), b))
        });
        let mut total = Row::default();
        put!(out, "     calls     errors      seconds  call\n");
        for (name, row) in &rows {
            put_row(out, name, *row);
            total.calls += row.calls;
            total.errors += row.errors;
            total.nanos += row.nanos;
        }
        put_row(out, "total", total);
    }

    fn row(&mut self, emulation: Emulation, code: i32) -> &mut Row {
        let name = emulation.call(code).map_or_else(|| format!("[{code}]"), |call| call.name.into());
        self.rows.entry(name).or_default()
    }
}

fn put_row(out: &mut Vec<u8>, name: &str, row: Row) {
    put!(out, "{:10} {:10} {:12.6}  {name}\n", row.calls, row.errors, row.nanos as f64 / 1e9);
}
