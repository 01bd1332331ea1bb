//! One open of a trace file: a cursor in the ring, and a stream that is whole by itself.

use std::collections::HashSet;
use std::sync::Arc;

use super::ring::Mark;
use super::tally::{Tally, note};
use super::{Sink, State, Waker};
use crate::record::{self, Body, Stamp};

/// What a read gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// Bytes were added to the buffer.
    Data,
    /// Nothing now.
    Empty,
    /// Nothing ever again.
    Eof,
}

/// One open of a trace file: a cursor, and what this stream has been told already.
#[derive(Debug)]
pub struct Reader {
    sink: Arc<Sink>,
    slot: u64,
    /// The processes whose emulation this stream knows.
    met: HashSet<i32>,
    /// Bytes taken from the ring that did not fit the buffer of the read before.
    rest: Vec<u8>,
    /// How many bytes at the start of `rest` are the end of a record whose start was given out.
    cut: usize,
    /// All that this stream was given, its own words included, and what it was told to have lost.
    given: Tally,
    lost: u64,
    /// Of the last record.
    last: Stamp,
    /// It has read.
    begun: bool,
    /// It was told its end.
    told_end: bool,
    /// It came to the end.
    at_end: bool,
}

impl Reader {
    pub(super) fn new(sink: Arc<Sink>, slot: u64) -> Reader {
        Reader {
            sink,
            slot,
            met: HashSet::new(),
            rest: Vec::new(),
            cut: 0,
            given: Tally::default(),
            lost: 0,
            last: Stamp::default(),
            begun: false,
            told_end: false,
            at_end: false,
        }
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// The sink it reads.
    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }

    /// Adds the next records, at most `max` bytes, to `out`: whole ones, unless `max` is less than one record; then
    /// the rest follows with the next read. `pid` is the reading process.
    pub fn read(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> Read {
        if max == 0 {
            return Read::Data;
        }
        if self.rest.is_empty() {
            let start = out.len();
            match self.fill(max, pid, out) {
                Read::Data => {}
                other => return other,
            }
            if out.len() - start <= max {
                return Read::Data;
            }
            self.rest = out.split_off(start);
        }
        let whole = whole(&self.rest[self.cut..], max - self.cut.min(max));
        let n = match self.cut {
            0 if whole == 0 => max,
            0 => whole,
            cut => cut.min(max),
        };
        self.cut = match self.cut {
            0 if whole == 0 => first_len(&self.rest).unwrap_or(max) - max,
            0 => 0,
            cut => cut - n,
        };
        out.extend(self.rest.drain(..n));
        Read::Data
    }

    fn fill(&mut self, max: usize, pid: i32, out: &mut Vec<u8>) -> Read {
        let start = out.len();
        let mut st = self.sink.state.lock();
        st.had_reader = true;
        let State { ring, slots, last, last_abi, .. } = &mut *st;
        let Some(slot) = slots.get_mut(&self.slot) else { return Read::Eof };
        slot.pid = pid.max(1);
        let (oldest, mark) = ring.oldest().unwrap_or((*last, Mark::record(*last_abi)));
        let mut tell = |text: &str| {
            let mut told = note(&oldest, text);
            // It stands for nothing that is in the ring.
            Mark::record(mark.abi()).put(&mut told);
            out.extend_from_slice(&told);
        };
        if !std::mem::replace(&mut self.begun, true) && slot.met != Tally::default() {
            tell(&slot.met.late());
        }
        if slot.pos < ring.tail() {
            let lost = ring.gone() - slot.met;
            (slot.pos, slot.met) = (ring.tail(), ring.gone());
            tell(&lost.text());
        }
        let told = out.len();
        let pos = slot.pos;
        if pos == ring.head() && told == start {
            return match st.end {
                Some(_) if self.owes_end() => {
                    self.told_end = true;
                    out.extend_from_slice(&note(&self.last, &self.given.end(self.lost)));
                    Read::Data
                }
                Some(_) => {
                    self.at_end = true;
                    Read::Eof
                }
                None => Read::Empty,
            };
        }
        // Copied under the lock, looked at without it.
        ring.copy(pos, max.max(record::HEADER_LEN), out);
        if pos < ring.head() && ring.record_len(pos) > max {
            out.truncate(told);
            ring.copy(pos, ring.record_len(pos), out);
        }
        drop(st);

        let (bytes, given) = self.introduce(out, start, told);

        let mut st = self.sink.state.lock();
        if let Some(slot) = st.slots.get_mut(&self.slot) {
            slot.pos = pos + bytes as u64;
            slot.met += given;
        }
        st.moved();
        self.sink.room.notify_all();
        Read::Data
    }

    /// Cuts off what is no whole record at the end of `out`, puts an EMUL record before the first record of each process and
    /// clears the ring's mark in all of them, from `at` on. Gives the bytes of those from `ring` on, and what they stand for.
    fn introduce(&mut self, out: &mut Vec<u8>, mut at: usize, ring: usize) -> (usize, Tally) {
        let mut given = Tally::default();
        let start = at;
        let (mut places, mut emuls) = (Vec::new(), Vec::new());
        let mut last = None;
        // Millions of records come by here in a second: looked at is what must be.
        while let Some(len) = first_len(&out[at..]).filter(|len| *len <= out.len() - at) {
            let record = &mut out[at..at + len];
            let mark = Mark::take(record);
            let told = match mark.is_note() || at < ring {
                true => Tally::told(record),
                false => Tally::default(),
            };
            // Only the stream itself can say that; a process's own words prove nothing.
            self.lost += told.records;
            if at >= ring {
                given += if mark.is_note() { told } else { Tally::one(len) };
            }
            let pid = record::pid_of(record);
            // Mostly they are of the process of the one before.
            let is_new = last
                .map_or(self.given.records == 0 || pid != self.last.pid, |(_, last)| pid != last)
                && self.met.insert(pid);
            self.given.records += 1;
            if is_new
                && let Ok(Some(header)) = record::decode_header(record)
                && header.ktr_type != record::KTR_EMUL
            {
                places.push((at, emuls.len()));
                record::encode(&mut emuls, &header.stamp, &Body::Emul(mark.abi().name().as_bytes()));
                self.given.records += 1;
            }
            last = Some((at, pid));
            at += len;
        }
        if let Some((last, _)) = last
            && let Ok(Some(header)) = record::decode_header(&out[last..])
        {
            self.last = header.stamp;
        }
        out.truncate(at);
        self.given.bytes += (at - start + emuls.len()) as u64;
        insert(out, &places, &emuls);
        (at - ring, given)
    }

    /// What was given something is told where it ends, once.
    fn owes_end(&self) -> bool {
        self.given.records > 0 && !self.told_end
    }

    /// Registers `waker` to be called once, when there are `least` bytes to read, at least one, or the sink is full or ends;
    /// false where that is so already, and `waker` is not kept.
    pub fn arm(&mut self, waker: Waker, least: usize) -> bool {
        if !self.rest.is_empty() {
            return false;
        }
        let mut st = self.sink.state.lock();
        let (head, is_full) = (st.ring.head(), st.is_full());
        if st.end.is_some() {
            return false;
        }
        match st.slots.get_mut(&self.slot) {
            // Who has read everything makes no room.
            Some(slot) if is_full && head > slot.pos => false,
            Some(slot) if head < slot.pos + least as u64 => {
                slot.armed = Some((slot.pos + least as u64, waker));
                true
            }
            _ => false,
        }
    }

    /// Bytes of the ring that it has not read.
    pub fn unread(&self) -> usize {
        let st = self.sink.state.lock();
        st.slots.get(&self.slot).map_or(0, |slot| (st.ring.head() - slot.pos) as usize)
    }

    /// Whether a read would give data now, and whether EOF is next.
    pub fn ready(&self) -> (bool, bool) {
        if !self.rest.is_empty() {
            return (true, false);
        }
        let st = self.sink.state.lock();
        let data = st.slots.get(&self.slot).is_some_and(|s| s.pos < st.ring.head())
            || (st.end.is_some() && self.owes_end());
        (data, !data && st.end.is_some())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut st = self.sink.state.lock();
        st.slots.remove(&self.slot);
        st.read_out |= self.at_end;
        // Perhaps nobody is left to wait for: the next append finds out.
        st.moved();
        self.sink.room.notify_all();
    }
}

/// Puts the parts of `words` into `out`, each in front of what is at its place; `places` says where and where a part begins. All
/// together, as each alone would move all that is behind it: a read may be of a thousand newborns.
fn insert(out: &mut Vec<u8>, places: &[(usize, usize)], words: &[u8]) {
    let (mut end, mut word_end) = (out.len(), words.len());
    out.resize(end + word_end, 0);
    for &(at, word) in places.iter().rev() {
        out.copy_within(at..end, at + word_end);
        out[at + word..at + word_end].copy_from_slice(&words[word..word_end]);
        (end, word_end) = (at, word);
    }
}

/// Bytes of the whole records at the start of `b`, within its first `max` bytes.
fn whole(b: &[u8], max: usize) -> usize {
    let mut at = 0;
    while let Some(len) = b.get(at..).and_then(first_len) {
        if at + len > b.len().min(max) {
            break;
        }
        at += len;
    }
    at
}

/// Length of the record at the start of `b`, header and body.
fn first_len(b: &[u8]) -> Option<usize> {
    b.first_chunk().map(|len| record::HEADER_LEN + u32::from_le_bytes(*len) as usize)
}
