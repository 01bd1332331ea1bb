//! A trace file, read with a deadline.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use ktrace::record::{Body, Decoder, Header, Record};
use ktrace::syscall::{self, Abi};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::DEADLINE;

/// One record, kept.
#[derive(Clone, Debug)]
pub(crate) struct Rec {
    pub(crate) header: Header,
    raw: Vec<u8>,
    offset: u64,
}

impl Rec {
    pub(crate) fn body(&self) -> Body<'_> {
        Record { header: self.header, raw: &self.raw, offset: self.offset }.body()
    }

    /// Header and body.
    pub(crate) fn len(&self) -> usize {
        self.raw.len() + ktrace::record::HEADER_LEN
    }

    pub(crate) fn pid(&self) -> i32 {
        self.header.stamp.pid
    }

    pub(crate) fn tid(&self) -> i32 {
        self.header.stamp.tid
    }

    /// The name of the call of a SYSCALL record, by the x86-64 table.
    pub(crate) fn call(&self) -> Option<&'static str> {
        match self.body() {
            Body::Syscall { code, .. } => Some(name(Abi::Linux, i64::from(code))),
            _ => None,
        }
    }

    /// The call and the result of a SYSRET record, by the x86-64 table.
    pub(crate) fn result(&self) -> Option<(&'static str, i64)> {
        match self.body() {
            Body::Sysret { code, error, retval, .. } => {
                Some((name(Abi::Linux, i64::from(code)), if error == 0 { retval } else { i64::from(error) }))
            }
            _ => None,
        }
    }

    /// The stream speaks of itself.
    pub(crate) fn is_of_stream(&self) -> bool {
        matches!(self.body(), Body::User { id: ktrace::record::STREAM_ID, .. })
    }

    /// True for a path record with this path.
    pub(crate) fn is_path(&self, path: &str) -> bool {
        self.body() == Body::Namei(path.as_bytes())
    }
}

/// What the stream says of itself.
pub(crate) fn notes(recs: &[Rec]) -> Vec<String> {
    let note = |rec: &Rec| match rec.body() {
        Body::User { id: ktrace::record::STREAM_ID, data } => {
            Some(String::from_utf8_lossy(data).into_owned())
        }
        _ => None,
    };
    recs.iter().filter_map(note).collect()
}

pub(crate) fn name(abi: Abi, code: i64) -> &'static str {
    syscall::lookup(abi, code).map_or("?", |call| call.name)
}

/// The records of a whole file.
pub(crate) fn decode(bytes: &[u8]) -> Vec<Rec> {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    let mut recs = Vec::new();
    while let Some(rec) = decoder.next_record().unwrap() {
        recs.push(keep(&rec));
    }
    decoder.finish().unwrap();
    recs
}

fn keep(rec: &Record<'_>) -> Rec {
    Rec { header: rec.header, raw: rec.raw.to_vec(), offset: rec.offset }
}

/// An open trace file.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
    decoder: Decoder,
    eof: bool,
}

impl Stream {
    pub(crate) fn open(path: &Path) -> Stream {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Stream { file, decoder: Decoder::new(), eof: false }
    }

    /// The next record, waited for; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Rec> {
        let by = Instant::now() + DEADLINE;
        loop {
            if let Some(rec) = self.decoder.next_record().unwrap() {
                return Some(keep(&rec));
            }
            if self.eof {
                self.decoder.finish().unwrap();
                return None;
            }
            self.fill(by);
        }
    }

    fn fill(&mut self, by: Instant) {
        let mut buf = vec![0; 64 << 10];
        match self.file.read(&mut buf) {
            Ok(0) => self.eof = true,
            Ok(n) => self.decoder.feed(&buf[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let left = by.saturating_duration_since(Instant::now());
                assert!(!left.is_zero(), "no record for {DEADLINE:?}");
                let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
                let timeout = PollTimeout::try_from(left).unwrap();
                poll(&mut fds, timeout).unwrap();
            }
            Err(e) => panic!("reading the trace: {e}"),
        }
    }

    /// Takes records up to the first that `found` is looking for.
    pub(crate) fn until(&mut self, what: &str, mut found: impl FnMut(&Rec) -> bool) -> Vec<Rec> {
        let mut recs = Vec::new();
        loop {
            let rec = self.next().unwrap_or_else(|| panic!("the stream ended before {what}: {recs:#?}"));
            let last = found(&rec);
            recs.push(rec);
            if last {
                return recs;
            }
        }
    }

    /// All the rest.
    pub(crate) fn rest(&mut self) -> Vec<Rec> {
        std::iter::from_fn(|| self.next()).collect()
    }
}
