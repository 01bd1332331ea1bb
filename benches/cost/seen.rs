//! What a reader saw of a stream, and whether it is whole.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

use ktrace::dump::{Check, Emulation};
use ktrace::record::{self, Decoder};
use ktrace::syscall::Abi;

/// What a reader does with the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// Counts them.
    Counts,
    /// Keeps them; when the stream has ended, which is after the load has taken its time, checks them as `kdump --verify`
    /// does.
    Keeps,
    /// Checks them as they come: as much as there may be of them.
    Checks,
}

/// What a reader saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) syscalls: u64,
    pub(crate) sysrets: u64,
    /// Others of the traced's.
    pub(crate) others: u64,
    /// Those of them that are of a signal.
    pub(crate) signals: u64,
    /// Processes that made records. 0 where nobody checked.
    pub(crate) processes: usize,
    /// What the stream tells to be missing.
    pub(crate) lost: u64,
    /// All of them, with those that the stream makes itself.
    all: u64,
    /// The stream's last record was seen.
    ended: bool,
    /// Wrong otherwise: half a call, a time that runs backwards. 0 where nobody checked.
    faults: u64,
}

impl Seen {
    /// Records made, as far as the stream has seen or told of them.
    pub(crate) fn made(&self) -> u64 {
        self.syscalls + self.sysrets + self.others + self.lost
    }

    /// Fails where the stream is not whole, or a record of so many calls is missing that it has not told of; where nothing
    /// may be lost, also where it has.
    pub(crate) fn check(&self, words: &[String], calls: u64, loses: bool) {
        // No record at all is no whole stream: then nothing was traced.
        assert!(self.ended && self.made() > 0 && self.faults == 0, "{words:?}: {self:?}");
        assert!(loses || self.lost == 0, "{words:?}: {self:?}");
        let missing = (2 * calls).saturating_sub(self.syscalls + self.sysrets);
        assert!(missing <= self.lost, "{words:?}: {calls} calls, {self:?}");
    }

    fn note(&mut self, ktr_type: i16, body: &[u8]) {
        self.all += 1;
        match ktr_type {
            record::KTR_SYSCALL => self.syscalls += 1,
            record::KTR_SYSRET => self.sysrets += 1,
            record::KTR_USER => match told(body) {
                Some(Told::Lost(records)) => self.lost += records,
                Some(Told::End { records, lost }) => {
                    assert_eq!(
                        (records, lost),
                        (self.all - 1, self.lost),
                        "records and losses, and their sums"
                    );
                    self.ended = true;
                }
                Some(Told::Other) => {}
                None => self.others += 1,
            },
            record::KTR_PSIG => {
                self.signals += 1;
                self.others += 1;
            }
            _ => self.others += 1,
        }
    }
}

/// Reads a stream to its end.
pub(crate) fn read(file: File, how: How) -> Seen {
    match how {
        How::Counts => count(file),
        How::Checks => check(file),
        How::Keeps => check(&keep(file)[..]),
    }
}

fn keep(mut file: File) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buf = vec![0; 1 << 20];
    while let Ok(n @ 1..) = file.read(&mut buf) {
        kept.extend_from_slice(&buf[..n]);
    }
    kept
}

/// Counts and nothing more: where millions of records come in a second, a reader that does more would be what is measured.
fn count(mut file: File) -> Seen {
    let mut seen = Seen::default();
    let mut buf = vec![0; 1 << 20];
    // The start of a record whose end comes with the next read: where a read is nearly full, one may be cut.
    let mut kept = 0;
    while let Ok(n @ 1..) = file.read(&mut buf[kept..]) {
        let end = kept + n;
        let mut at = 0;
        while let Some(header) = buf[at..end].first_chunk::<{ record::HEADER_LEN }>() {
            let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let ktr_type = i16::from_le_bytes([header[4], header[5]]);
            assert!(len <= record::MAX_BODY, "a record cannot have {len} bytes of body");
            let next = at + record::HEADER_LEN + len;
            if next > end {
                break;
            }
            seen.note(ktr_type, &buf[at + record::HEADER_LEN..next]);
            at = next;
        }
        buf.copy_within(at..end, 0);
        kept = end - at;
    }
    seen
}

pub(crate) fn check(mut from: impl Read) -> Seen {
    let mut seen = Seen::default();
    let mut decoder = Decoder::new();
    let mut check = Check::new(Emulation::Linux(Abi::Linux));
    let mut said = Vec::new();
    let mut processes = HashSet::new();
    let mut buf = vec![0; 1 << 20];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        decoder.feed(&buf[..n]);
        while let Some(record) = decoder.next_record().unwrap() {
            seen.note(record.header.ktr_type, record.raw);
            processes.insert(record.header.stamp.pid);
            check.record(&record, &mut said);
        }
    }
    decoder.finish().unwrap();
    seen.processes = processes.len();
    seen.faults = check.faults();
    if seen.faults > 0 {
        eprint!("{}", String::from_utf8_lossy(&said));
    }
    seen
}

/// What the stream says of itself.
enum Told {
    /// So many records are missing here.
    Lost(u64),
    /// This is the last record; so many came before it, and so many were told to be missing.
    End {
        records: u64,
        lost: u64,
    },
    Other,
}

/// `None` for what the stream does not say itself.
fn told(body: &[u8]) -> Option<Told> {
    let (id, text) = body.split_at_checked(record::USER_ID_LEN)?;
    let text = std::str::from_utf8(text).ok().filter(|_| id.starts_with(record::STREAM_ID))?;
    let number = |text: &str| text.split(' ').next()?.parse().ok();
    if let Some(rest) = text.strip_prefix("lost ") {
        return number(rest).map(Told::Lost);
    }
    let Some(end) = text.strip_prefix("end: ") else { return Some(Told::Other) };
    let lost = end.rsplit_once(", ").and_then(|(_, lost)| number(lost))?;
    Some(Told::End { records: number(end)?, lost })
}
