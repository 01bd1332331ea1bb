//! `kdump --format=json`: one object for each record, one on each line.

use super::emulation::{Emulation, Emulations};
use super::printer::{dtype_name, label};
use super::{Options, put, text};
use crate::errno;
use crate::record::*;
use crate::signal;

/// Prints records as JSON. Bytes that are no UTF-8 become U+FFFD in strings; data, which is bytes, is in hex.
#[derive(Debug)]
pub struct Json {
    options: Options,
    emulations: Emulations,
}

impl Json {
    /// At the start of a stream.
    pub fn new(options: Options) -> Json {
        let emulations = Emulations::new(options.emulation);
        Json { options, emulations }
    }

    /// Appends the line of one record, none where the options hide it.
    pub fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        let (h, body) = (&record.header, record.body());
        let emulation = self.emulations.record(record);
        if !self.options.wants(record) {
            return;
        }
        let s = &h.stamp;
        put!(out, "{{\"pid\":{},\"tid\":{},\"comm\":", s.pid, s.tid);
        string(out, s.comm.as_bytes());
        put!(out, ",\"sec\":{},\"nsec\":{},\"type\":", s.time.sec, s.time.nsec);
        match label(h.ktr_type) {
            Some(label) => string(out, label.as_bytes()),
            None => put!(out, "{}", h.ktr_type),
        }
        self.fields(body, emulation, out);
        out.extend_from_slice(b"}\n");
    }

    fn fields(&self, body: Body<'_>, emulation: Emulation, out: &mut Vec<u8>) {
        match body {
            Body::Syscall { code, args } => {
                call(code, emulation, out);
                let args: Vec<_> = args.iter().map(|v| v.to_string()).collect();
                put!(out, ",\"args\":[{}]", args.join(","));
            }
            Body::Sysret { code, error, retval, .. } => {
                call(code.into(), emulation, out);
                put!(out, ",\"error\":{error},\"retval\":{retval}");
                if let Some(name) =
                    errno::name(error.wrapping_neg()).filter(|_| emulation != Emulation::Foreign)
                {
                    put!(out, ",\"errno\":\"{name}\"");
                }
            }
            Body::Namei(path) => field(out, "path", path),
            Body::Genio { fd, write, data } => {
                put!(out, ",\"fd\":{fd},\"write\":{write}");
                bytes(out, self.options.cut(data));
            }
            Body::Psig(psig) => {
                put!(out, ",\"signo\":{},\"action\":{},\"code\":{}", psig.signo, psig.action, psig.code);
                if let Some(name) = signal::short_name(psig.signo) {
                    put!(out, ",\"signal\":\"SIG{name}\"");
                }
            }
            Body::Csw { out: gone, user } => put!(out, ",\"out\":{gone},\"user\":{user}"),
            Body::Emul(name) => field(out, "emul", name),
            Body::User { id, data } => {
                field(out, "id", id);
                bytes(out, data);
            }
            Body::ExecArg(data) | Body::ExecEnv(data) => field(out, "text", data),
            Body::ExecFd { fd, dtype } => {
                put!(out, ",\"fd\":{fd},\"dtype\":{dtype}");
                if let Some(name) = dtype_name(dtype) {
                    field(out, "kind", name.as_bytes());
                }
            }
            Body::Mib(data) | Body::Unknown { data, .. } => bytes(out, data),
        }
    }
}

fn call(code: i32, emulation: Emulation, out: &mut Vec<u8>) {
    put!(out, ",\"code\":{code}");
    if let Some(call) = emulation.call(code) {
        field(out, "call", call.name.as_bytes());
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put!(out, ",\"{name}\":");
    string(out, value);
}

fn bytes(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(b",\"data\":\"");
    text::hex_bytes(out, data);
    out.push(b'"');
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' | '\\' => put!(out, "\\{c}"),
            c if c.is_control() => put!(out, "\\u{:04x}", u32::from(c)),
            c => put!(out, "{c}"),
        }
    }
    out.push(b'"');
}
