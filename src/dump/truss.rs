//! ktruss's lines: one for each call, when it returns.

use std::collections::BTreeMap;

use super::args::Style;
use super::columns::Columns;
use super::emulation::{Emulation, Emulations, is_exit};
use super::printer::{dtype_name, put_csw};
use super::psig::put_action;
use super::{Options, put, text};
use crate::errno;
use crate::record::*;

/// Column of the result.
const RESULT: usize = 50;
/// Most bytes of text kept for a call until it returns.
const KEPT: usize = 64 << 10;

/// Prints records as ktruss does. One for each stream. What belongs to a call (paths, data) is kept until the call
/// returns, so lines of several threads never mix; a call that never returns is told by [`Truss::finish`].
#[derive(Debug)]
pub struct Truss {
    options: Options,
    emulations: Emulations,
    columns: Columns,
    /// By process and thread.
    calls: BTreeMap<(i32, i32), Call>,
}

#[derive(Debug)]
struct Call {
    header: Header,
    code: i32,
    emulation: Emulation,
    args: Vec<u64>,
    paths: Vec<Vec<u8>>,
    /// Lines that follow the call's own.
    after: Vec<u8>,
    /// Bytes of data that `after` had no room for.
    left: usize,
}

impl Truss {
    /// At the start of a stream.
    pub fn new(options: Options) -> Truss {
        let emulations = Emulations::new(options.emulation);
        Truss { options, emulations, columns: Columns::default(), calls: BTreeMap::new() }
    }

    /// Takes one record and appends the lines that are complete now.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let (h, body) = (&record.header, record.body());
        match body {
            Body::Emul(name) => self.emulations.change(h.stamp.pid, name),
            Body::Psig(psig) => self.emulations.signal(h.stamp.pid, &psig),
            _ => {}
        }
        if !self.options.wants(record) {
            return;
        }
        let thread = (h.stamp.pid, h.stamp.tid);
        match body {
            Body::Syscall { code, args } => self.call(h, code, args, out),
            Body::Sysret { code, error, retval, retval_1 } => {
                let emulation = self.emulations.ret(&h.stamp, code);
                self.ret(h, (code, emulation), error, [retval, retval_1], out);
            }
            Body::Namei(path) => {
                if let Some(call) = self.calls.get_mut(&thread) {
                    call.paths.push(path.to_vec());
                } else {
                    self.line(h, out, |out| {
                        out.extend_from_slice(b"namei(");
                        text::quoted(out, path);
                        out.extend_from_slice(b")\n");
                    });
                }
            }
            Body::Genio { data, .. } => self.genio(thread, data, out),
            // The call under way goes on after a signal, or its return says that it does not.
            Body::Psig(psig) => self.line(h, out, |out| {
                put_action(out, &psig);
                put!(
                    out,
                    "{}\n",
                    if psig.code == 0 { String::new() } else { format!(" code={:#x}", psig.code) }
                );
            }),
            Body::Csw { out: gone, user } => self.line(h, out, |out| put_csw(out, gone, user)),
            Body::Emul(name) => self.beside_call(h, out, |out| {
                out.extend_from_slice(b"emul(");
                text::name(out, name);
                out.extend_from_slice(b")\n");
            }),
            // Whoever watches sees that it has ended.
            Body::User { id: STREAM_ID, data } if data.starts_with(STREAM_END) => {}
            Body::User { id, data } => self.line(h, out, |out| {
                out.extend_from_slice(b"user(");
                text::name(out, id);
                out.extend_from_slice(b", ");
                text::quoted(out, data);
                out.extend_from_slice(b")\n");
            }),
            Body::ExecArg(data) | Body::ExecEnv(data) => self.beside_call(h, out, |out| {
                out.extend_from_slice(if matches!(body, Body::ExecArg(_)) { b"arg(" } else { b"env(" });
                text::quoted(out, data);
                out.extend_from_slice(b")\n");
            }),
            Body::ExecFd { fd, dtype } => self.beside_call(h, out, |out| {
                put!(out, "fd({fd}, {})\n", dtype_name(dtype).map_or(dtype.to_string(), str::to_owned));
            }),
            Body::Mib(_) | Body::Unknown { .. } => {}
        }
    }

    /// The end of the stream: tells the calls that have not returned.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        for (_, call) in std::mem::take(&mut self.calls) {
            self.unfinished(&call, out);
        }
    }

    fn call(&mut self, h: &Header, code: i32, args: Args<'_>, out: &mut Vec<u8>) {
        let emulation = self.emulations.call(&h.stamp, code);
        let call = Call {
            header: *h,
            code,
            emulation,
            args: args.iter().collect(),
            paths: Vec::new(),
            after: Vec::new(),
            left: 0,
        };
        let before = if is_exit(emulation.call(code)) {
            self.line(h, out, |_| {});
            self.put_call(&call, out);
            out.push(b'\n');
            self.calls.remove(&(h.stamp.pid, h.stamp.tid))
        } else {
            self.calls.insert((h.stamp.pid, h.stamp.tid), call)
        };
        if let Some(call) = before {
            self.unfinished(&call, out);
        }
    }

    fn ret(
        &mut self,
        h: &Header,
        (code, emulation): (i16, Emulation),
        error: i32,
        values: [i64; 2],
        out: &mut Vec<u8>,
    ) {
        let call = match self.calls.remove(&(h.stamp.pid, h.stamp.tid)) {
            Some(call) if call.code as i16 == code => Some(call),
            Some(other) => {
                self.unfinished(&other, out);
                None
            }
            None => None,
        };
        let start = self.head(h, out);
        match &call {
            Some(call) => self.put_call(call, out),
            // Begun before tracing was, or the new side of a fork.
            None => self.put_name(code.into(), emulation, out),
        }
        pad(start, out);
        self.put_result(code.into(), emulation, error, values, out);
        out.push(b'\n');
        if let Some(call) = call {
            put_after(&call, out);
        }
    }

    fn put_name(&self, code: i32, emulation: Emulation, out: &mut Vec<u8>) {
        match emulation.call(code).filter(|_| !self.options.numeric) {
            Some(call) => put!(out, "{}", call.name),
            None => put!(out, "[{code}]"),
        }
    }

    fn put_call(&self, call: &Call, out: &mut Vec<u8>) {
        let kinds = call.emulation.call(call.code).map_or(&[][..], |call| call.args);
        self.put_name(call.code, call.emulation, out);
        out.push(b'(');
        let style = Style::new(&self.options, call.emulation);
        style.arguments(out, (Args::Words(&call.args), kinds), ", ", &call.paths);
        out.push(b')');
    }

    fn put_result(&self, code: i32, emulation: Emulation, error: i32, values: [i64; 2], out: &mut Vec<u8>) {
        let native = emulation != Emulation::Foreign;
        match error {
            0 => {
                let call = emulation.call(code).map_or("", |call| call.name);
                if matches!(call, "mmap" | "mmap2" | "mremap" | "brk" | "shmat") {
                    put!(out, " = {:#x}", values[0]);
                } else {
                    put!(out, " = {}", values[0]);
                }
                if values[1] != 0 {
                    put!(out, ", {}", values[1]);
                }
            }
            _ if native && errno::is_restart(error) => put!(out, " RESTART"),
            -2 if !native => put!(out, " JUSTRETURN"),
            -3 if !native => put!(out, " RESTART"),
            _ if native => {
                let errno = error.wrapping_neg();
                put!(out, " Err#{errno}");
                if let Some(name) = errno::name(errno) {
                    put!(out, " {name}");
                }
            }
            _ => put!(out, " Err#{error}"),
        }
    }

    fn unfinished(&mut self, call: &Call, out: &mut Vec<u8>) {
        let start = self.head(&call.header, out);
        self.put_call(call, out);
        pad(start, out);
        out.extend_from_slice(b" (no return)\n");
        put_after(call, out);
    }

    fn genio(&mut self, thread: (i32, i32), data: &[u8], out: &mut Vec<u8>) {
        let options = &self.options;
        let lines = |out: &mut Vec<u8>| match options.word {
            _ if options.max_data == Some(0) => {}
            Some(word) => text::hex(out, options.cut(data), word),
            None => text::one_line(out, options.cut(data), options.width),
        };
        match self.calls.get_mut(&thread) {
            Some(call) if call.after.len() > KEPT => call.left += data.len(),
            Some(call) => lines(&mut call.after),
            None => lines(out),
        }
    }

    /// A line of its own, at once.
    fn line(&mut self, h: &Header, out: &mut Vec<u8>, what: impl FnOnce(&mut Vec<u8>)) {
        self.head(h, out);
        what(out);
    }

    /// A line of its own, after that of the call under way.
    fn beside_call(&mut self, h: &Header, out: &mut Vec<u8>, what: impl FnOnce(&mut Vec<u8>)) {
        match self.calls.get_mut(&(h.stamp.pid, h.stamp.tid)) {
            Some(call) if call.after.len() > KEPT => {}
            Some(call) => {
                self.columns.put(&self.options, h, &mut call.after);
                what(&mut call.after);
            }
            None => self.line(h, out, what),
        }
    }

    /// The first columns; gives where the line starts.
    fn head(&mut self, h: &Header, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        self.columns.put(&self.options, h, out);
        start
    }
}

fn pad(start: usize, out: &mut Vec<u8>) {
    while out.len() - start < RESULT {
        out.push(b' ');
    }
}

fn put_after(call: &Call, out: &mut Vec<u8>) {
    out.extend_from_slice(&call.after);
    if call.left > 0 {
        put!(out, "       ... {} bytes more\n", call.left);
    }
}
