//! Bytes to records: what a header says, and a stream cut into records as it comes.

use std::fmt;

use super::{Comm, HEADER_LEN, Header, MAX_BODY, Record, Stamp, Time};

/// Why bytes are not a stream, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Offset of the record at fault, in bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for DecodeError {}

/// Cuts a stream into records as its bytes come: [`Decoder::feed`] any piece of it, then take records with
/// [`Decoder::next_record`] until there is none whole. Where the pieces are cut makes no difference.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of the stream up to `end`, and room.
    buf: Vec<u8>,
    /// Where in `buf` the next record begins.
    at: usize,
    end: usize,
    /// Stream offset of `buf[0]`.
    base: u64,
}

impl Decoder {
    /// At the start of a stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.came(bytes.len());
    }

    /// Room for the next `len` bytes of the stream: whoever reads into it saves the copy that [`Decoder::feed`] makes.
    /// [`Decoder::came`] says how many have come.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        self.buf.copy_within(self.at..self.end, 0);
        self.base += self.at as u64;
        self.end -= self.at;
        self.at = 0;
        if self.buf.len() < self.end + len {
            self.buf.resize(self.end + len, 0);
        }
        &mut self.buf[self.end..self.end + len]
    }

    /// So many bytes of the room given last are of the stream now.
    pub fn came(&mut self, len: usize) {
        self.end = (self.end + len).min(self.buf.len());
    }

    /// The next whole record, `None` where more bytes are needed.
    ///
    /// # Errors
    /// The bytes at this place are no record. The decoder stays there: nothing after it can be trusted.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, DecodeError> {
        let record = record_at(&self.buf[self.at..self.end], self.base + self.at as u64)?;
        self.at += record.map_or(0, |record| HEADER_LEN + record.raw.len());
        Ok(record)
    }

    /// Bytes of the stream that were whole records so far.
    pub fn taken(&self) -> u64 {
        self.base + self.at as u64
    }

    /// To be called at the end of the stream: bytes left over are a record cut short.
    ///
    /// # Errors
    /// Says how much of the last record is there.
    pub fn finish(&self) -> Result<(), DecodeError> {
        nothing_left(&self.buf[self.at..self.end], self.taken())
    }
}

/// The record at the start of `bytes`, which stand at this offset of the stream; `None` where it is not whole.
///
/// # Errors
/// The bytes are no record.
#[inline(always)]
pub fn record_at(bytes: &[u8], offset: u64) -> Result<Option<Record<'_>>, DecodeError> {
    let Some(h) = bytes.first_chunk() else { return Ok(None) };
    // Built in its place: to be moved, it would be read back from where its parts were just written.
    let (len, version) = match checked(h) {
        Ok(checked) => checked,
        Err(what) => return Err(DecodeError { offset, what }),
    };
    match bytes.get(HEADER_LEN..HEADER_LEN + len) {
        Some(raw) => Ok(Some(Record { header: header_of(h, len, version), raw, offset })),
        None => Ok(None),
    }
}

/// What is left of a stream at its end, which stands at this offset of it: nothing, or a record cut short.
///
/// # Errors
/// Says how much of it is there.
pub(crate) fn nothing_left(left: &[u8], offset: u64) -> Result<(), DecodeError> {
    if left.is_empty() {
        return Ok(());
    }
    let want = match decode_header(left) {
        Ok(Some(h)) => format!("{} bytes", HEADER_LEN + h.len),
        _ => format!("a header of {HEADER_LEN} bytes"),
    };
    let what = format!("the stream ends inside a record: {} bytes of {want}", left.len());
    Err(DecodeError { offset, what })
}

/// The header at the start of `b`; `None` where `b` is too short for one.
///
/// # Errors
/// What makes it no header: its length or its version.
pub fn decode_header(b: &[u8]) -> Result<Option<Header>, String> {
    let Some(h) = b.first_chunk() else { return Ok(None) };
    checked(h).map(|(len, version)| Some(header_of(h, len, version)))
}

/// The body's length and the version, or what is wrong with them.
#[inline]
fn checked(h: &[u8; HEADER_LEN]) -> Result<(usize, i16), String> {
    #[cold]
    fn no_length(len: i32) -> String {
        format!("a record cannot have {len} bytes of body")
    }
    #[cold]
    fn no_version(version: i16) -> String {
        format!("version {version} is not known")
    }
    let len = int(h, 0);
    let version = i16::from_le_bytes([h[6], h[7]]);
    match usize::try_from(len) {
        Ok(len) if len <= MAX_BODY && matches!(version, 0..=2) => Ok((len, version)),
        Ok(len) if len <= MAX_BODY => Err(no_version(version)),
        _ => Err(no_length(len)),
    }
}

/// Of one whose length and version are as they should be.
#[inline]
fn header_of(h: &[u8; HEADER_LEN], len: usize, version: i16) -> Header {
    let (sec, nsec, tid) = (long(h, 32), long(h, 40), int(h, 48));
    let (time, tid) = match version {
        2.. => (Time { sec, nsec }, tid),
        1 => (Time { sec: sec as i32 as i64, nsec }, tid),
        _ => (Time { sec: sec as i32 as i64, nsec: nsec.wrapping_mul(1000) }, 0),
    };
    let stamp = Stamp { time, pid: int(h, 8), tid, comm: Comm::new(&h[12..28]) };
    Header { len, ktr_type: i16::from_le_bytes([h[4], h[5]]), version, stamp }
}

#[inline]
fn int(h: &[u8; HEADER_LEN], at: usize) -> i32 {
    i32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]])
}

#[inline]
fn long(h: &[u8; HEADER_LEN], at: usize) -> i64 {
    i64::from(int(h, at) as u32) | i64::from(int(h, at + 4)) << 32
}
