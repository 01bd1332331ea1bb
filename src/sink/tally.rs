//! How many records, and how the stream tells of those it has lost.

use std::ops::{AddAssign, Sub};

use crate::record::{self, Body, Stamp};

/// A number of records and their bytes. What the stream says of itself is no record, but stands for those it tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Tally {
    /// Of one record of the traced.
    pub(super) fn one(len: usize) -> Tally {
        Tally { records: 1, bytes: len as u64 }
    }

    /// How a loss is told.
    pub(super) fn text(self) -> String {
        format!("lost {} records, {} bytes", self.records, self.bytes)
    }

    /// How a stream tells that it begins late.
    pub(super) fn late(self) -> String {
        format!("begins after {} records, {} bytes", self.records, self.bytes)
    }

    /// How the end of a stream is told that was given this.
    pub(super) fn end(self, lost: u64) -> String {
        format!("end: {} records, {} bytes, {lost} lost", self.records, self.bytes)
    }

    /// What a note of the stream about itself tells to be lost: nothing, where it tells of something else.
    pub(super) fn told(note: &[u8]) -> Tally {
        let text =
            note.get(record::HEADER_LEN + record::USER_ID_LEN..).and_then(|b| std::str::from_utf8(b).ok());
        let told = text.and_then(|text| {
            let (records, rest) = text.strip_prefix("lost ")?.split_once(" records, ")?;
            let bytes = rest.strip_suffix(" bytes")?;
            Some(Tally { records: records.parse().ok()?, bytes: bytes.parse().ok()? })
        });
        told.unwrap_or_default()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl Sub for Tally {
    type Output = Tally;

    fn sub(self, other: Tally) -> Tally {
        Tally { records: self.records - other.records, bytes: self.bytes - other.bytes }
    }
}

/// A USER record in which the stream speaks about itself.
pub(super) fn note(stamp: &Stamp, text: &str) -> Vec<u8> {
    let mut record = Vec::new();
    record::encode(&mut record, stamp, &Body::User { id: record::STREAM_ID, data: text.as_bytes() });
    record
}
