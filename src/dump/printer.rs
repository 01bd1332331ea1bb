//! kdump's lines.

use super::again::{Again, Short};
use super::args::Style;
use super::columns::Columns;
use super::emulation::{Emulation, Emulations};
use super::psig::put_psig;
use super::{Options, number, put, text, vis};
use crate::errno;
use crate::record::*;

/// Prints records as kdump does. One for each stream: it follows the emulation of each process, and the times.
#[derive(Debug)]
pub struct Printer {
    options: Options,
    emulations: Emulations,
    columns: Columns,
    again: Again,
}

impl Printer {
    /// At the start of a stream.
    pub fn new(options: Options) -> Printer {
        let emulations = Emulations::new(options.emulation);
        Printer { options, emulations, columns: Columns::default(), again: Again::default() }
    }

    /// One that goes on from here. What was printed before it knows from `again`, which must be of the same options.
    pub(super) fn going_on(&self, again: Again) -> Printer {
        let Printer { options, emulations, columns, .. } = self;
        let (options, emulations, columns) = (options.clone(), emulations.clone(), columns.clone());
        Printer { options, emulations, columns, again }
    }

    /// What was printed, for another printer.
    pub(super) fn into_again(self) -> Again {
        self.again
    }

    /// Appends the lines of one record, none where the options hide it. A hidden one counts all the same: EMUL changes
    /// the meaning of what follows.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let h = &record.header;
        let emulation = self.emulations.record(record);
        if !self.shows(record) {
            return;
        }
        let start = out.len();
        self.columns.put(&self.options, h, out);
        if self.options.abi {
            put!(out, "{:<8} ", emulation.name());
        }
        let short = Short::new(record, emulation);
        if short.as_ref().is_some_and(|short| self.again.put(short, out)) {
            return;
        }
        let text = out.len();
        self.labelled(record, emulation, start, out);
        if let Some(short) = short {
            self.again.keep(&short, &out[text..]);
        }
    }

    /// The word for the type, and the body; the line begins at `start`.
    fn labelled(&self, record: &Record<'_>, emulation: Emulation, start: usize, out: &mut Vec<u8>) {
        let ktr_type = record.header.ktr_type;
        match padded(ktr_type) {
            Some(label) => out.extend_from_slice(label),
            None => put!(out, "UNKNOWN({ktr_type})  "),
        }
        self.body(record.body(), emulation, out.len() - start, out);
    }

    /// Takes note of a record that is printed elsewhere: those after it come out as if it had been printed here.
    #[inline]
    pub(super) fn pass(&mut self, record: &Record<'_>) {
        if matches!(record.header.ktr_type, KTR_SYSCALL | KTR_SYSRET | KTR_EMUL | KTR_PSIG) {
            self.emulations.record(record);
        }
        if (self.options.elapsed || self.options.relative) && self.shows(record) {
            self.columns.pass(&self.options, &record.header);
        }
    }

    #[inline]
    fn shows(&self, record: &Record<'_>) -> bool {
        // That a stream has ended is seen without it: only --verify needs it.
        self.options.wants(record) && !(record.header.ktr_type == KTR_USER && is_end(record))
    }

    fn body(&self, body: Body<'_>, emulation: Emulation, column: usize, out: &mut Vec<u8>) {
        match body {
            Body::Syscall { code, args } => self.call(code, args, emulation, out),
            Body::Sysret { code, error, retval, retval_1 } => {
                self.call_name(code.into(), emulation, self.options.plain > 1, out);
                out.push(b' ');
                self.result(error, [retval, retval_1], emulation, out);
            }
            Body::Namei(name) | Body::Emul(name) => {
                text::quoted(out, name);
                out.push(b'\n');
            }
            Body::Genio { fd, write, data } => self.genio(fd, write, data, out),
            Body::Psig(psig) => put_psig(out, &psig),
            Body::Csw { out: gone, user } => put_csw(out, gone, user),
            Body::User { id, data } => self.user(id, data, out),
            Body::ExecArg(data) | Body::ExecEnv(data) => vis::folded(out, data, column, self.options.width),
            Body::ExecFd { fd, dtype } => put_exec_fd(out, fd, dtype),
            Body::Mib(data) => {
                let names = data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).to_string());
                put!(out, "{}\n", names.collect::<Vec<_>>().join("."));
            }
            Body::Unknown { data, .. } => {
                out.push(b'\n');
                text::hex(out, data, self.options.word.unwrap_or(1));
            }
        }
    }

    fn call_name(&self, code: i32, emulation: Emulation, numeric: bool, out: &mut Vec<u8>) {
        let name = emulation.call(code).filter(|_| !numeric && !self.options.numeric).map(|call| call.name);
        out.extend_from_slice(name.unwrap_or_default().as_bytes());
        if name.is_none() || self.options.codes {
            out.push(b'[');
            number::signed(out, code.into());
            out.push(b']');
        }
    }

    fn call(&self, code: i32, args: Args<'_>, emulation: Emulation, out: &mut Vec<u8>) {
        self.call_name(code, emulation, false, out);
        if !args.is_empty() {
            let kinds = emulation.call(code).map_or(&[][..], |call| call.args);
            out.push(b'(');
            Style::new(&self.options, emulation).arguments(out, (args, kinds), ",", &[]);
            out.push(b')');
        }
        out.push(b'\n');
    }

    fn result(&self, error: i32, values: [i64; 2], emulation: Emulation, out: &mut Vec<u8>) {
        let native = emulation != Emulation::Foreign;
        match error {
            0 => {
                self.value(values[0], emulation, out);
                if values[1] != 0 {
                    out.extend_from_slice(b", ");
                    self.value(values[1], emulation, out);
                }
            }
            _ if native && errno::is_restart(error) => put!(out, "RESTART"),
            _ if native && error > 0 => put!(out, "-1 unknown errno {error}"),
            -2 if !native => put!(out, "JUSTRETURN"),
            -3 if !native => put!(out, "RESTART"),
            _ => {
                out.extend_from_slice(b"-1 errno ");
                number::signed(out, error.into());
                if native && self.options.plain == 0 {
                    out.push(b' ');
                    out.extend_from_slice(errno::message(error.wrapping_neg()).as_bytes());
                }
            }
        }
        out.push(b'\n');
    }

    fn value(&self, value: i64, emulation: Emulation, out: &mut Vec<u8>) {
        let (style, value) = (Style::new(&self.options, emulation), value as u64);
        if self.options.plain > 0 {
            return style.number(out, value);
        }
        style.signed(out, value);
        if value >= 10 {
            out.push(b'/');
            Style { decimal: false, ..style }.number(out, value);
        }
    }

    fn genio(&self, fd: i32, write: bool, data: &[u8], out: &mut Vec<u8>) {
        if fd != -1 {
            out.extend_from_slice(b"fd ");
            number::signed(out, fd.into());
            out.push(b' ');
        }
        out.extend_from_slice(if write { b"wrote " } else { b"read " });
        number::decimal(out, data.len() as u64);
        out.extend_from_slice(b" bytes\n");
        let shown = self.options.cut(data);
        if self.options.max_data == Some(0) {
            return;
        }
        match self.options.word {
            Some(word) => text::hex(out, shown, word),
            None => {
                out.extend_from_slice(b"       ");
                vis::folded(out, shown, 7, self.options.width);
            }
        }
    }

    fn user(&self, id: &[u8], data: &[u8], out: &mut Vec<u8>) {
        text::name(out, id);
        out.push(b':');
        if self.options.label.is_some() {
            out.push(b' ');
            text::name(out, data);
            out.push(b'\n');
        } else if let Some(word) = self.options.word {
            out.push(b'\n');
            text::hex(out, data, word);
        } else {
            put!(out, " {}, ", data.len());
            text::hex_bytes(out, data);
            out.push(b'\n');
        }
    }
}

#[cold]
fn is_end(record: &Record<'_>) -> bool {
    matches!(record.body(), Body::User { id: STREAM_ID, data } if data.starts_with(STREAM_END))
}

/// The word for a record type, as wide as its column; `None` for one without.
#[inline]
fn padded(ktr_type: i16) -> Option<&'static [u8; 6]> {
    Some(match ktr_type {
        KTR_SYSCALL => b"CALL  ",
        KTR_SYSRET => b"RET   ",
        KTR_NAMEI => b"NAMI  ",
        KTR_GENIO => b"GIO   ",
        KTR_PSIG => b"PSIG  ",
        KTR_CSW => b"CSW   ",
        KTR_EMUL => b"EMUL  ",
        KTR_USER => b"MISC  ",
        KTR_EXEC_ARG => b"ARG   ",
        KTR_EXEC_ENV => b"ENV   ",
        KTR_EXEC_FD => b"FD    ",
        KTR_MIB => b"MIB   ",
        _ => return None,
    })
}

/// The same without the blanks.
pub(super) fn label(ktr_type: i16) -> Option<&'static str> {
    str::from_utf8(padded(ktr_type)?.trim_ascii_end()).ok()
}

pub(super) fn put_csw(out: &mut Vec<u8>, gone: bool, user: bool) {
    let (what, mode) = (if gone { "stop" } else { "resume" }, if user { "user" } else { "kernel" });
    put!(out, "{what} {mode}\n");
}

/// NetBSD's `DTYPE_NAMES`.
const DTYPES: [&str; 11] =
    ["0", "file", "socket", "pipe", "kqueue", "misc", "crypto", "mqueue", "semaphore", "eventfd", "timerfd"];

/// The word for a descriptor's type.
pub(super) fn dtype_name(dtype: u32) -> Option<&'static str> {
    DTYPES.get(dtype as usize).copied()
}

pub(super) fn put_exec_fd(out: &mut Vec<u8>, fd: i32, dtype: u32) {
    match dtype_name(dtype) {
        Some(name) => put!(out, "{name} {fd}\n"),
        None => put!(out, "UNKNOWN({dtype}) {fd}\n"),
    }
}
