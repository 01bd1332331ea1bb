//! The ring itself: bytes in a circle, cut into records, with no idea of readers or policies.
//!
//! Positions count bytes since the start and never wrap; only the index into the memory does. Growth moves the bytes, and no
//! position.

use std::collections::VecDeque;

use memmap2::MmapMut;

use super::budget::Account;
use super::tally::Tally;
use crate::error::{Error, Result};
use crate::record::{self, HEADER_LEN, Stamp};
use crate::syscall::Abi;

/// Bytes taken from the budget at a time.
const STEP: usize = 64 << 10;
/// Bytes of records that are let go together, where the ring is not so small that this were more than a part of it, and they have not
/// come together.
const GROUP: usize = 16 << 10;
/// That part.
const GROUPS: usize = 64;
/// A padding byte of the header that, inside the ring, holds the record's [`Mark`]. It is zero in every stream.
const MARK: usize = 29;

/// What the ring keeps with each record: the ABI it was made under, and whether the stream speaks about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark(u8);

impl Mark {
    const NOTE: u8 = 0x80;

    pub(super) fn record(abi: Abi) -> Mark {
        Mark(abi as u8)
    }

    pub(super) fn note(abi: Abi) -> Mark {
        Mark(abi as u8 | Mark::NOTE)
    }

    pub(super) fn is_note(self) -> bool {
        self.0 & Mark::NOTE != 0
    }

    pub(super) fn abi(self) -> Abi {
        match self.0 & !Mark::NOTE {
            1 => Abi::Linux32,
            2 => Abi::LinuxX32,
            _ => Abi::Linux,
        }
    }

    /// Puts it into a record made outside the ring.
    pub(super) fn put(self, record: &mut [u8]) {
        record[MARK] = self.0;
    }

    /// That of a record with it.
    pub(super) fn of(record: &[u8]) -> Mark {
        Mark(record[MARK])
    }

    /// Takes it out of a record copied from the ring.
    pub(super) fn take(record: &mut [u8]) -> Mark {
        Mark(std::mem::take(&mut record[MARK]))
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    /// A mapping of its own, zeroed by the kernel on first touch: memory is used only as far as `granted`. An allocator may
    /// give, and then has to clear, what was used before.
    mem: MmapMut,
    /// The position that stands at the start of `mem`.
    base: u64,
    /// Bytes of `mem` in the budget, and the modulus of every position from `base` on once the first lap is over.
    granted: usize,
    /// True while more can be asked for: nothing has wrapped yet.
    growing: bool,
    account: Account,
    /// Bytes of `mem` beyond its first size.
    grown: usize,
    tail: u64,
    /// What was ever let go.
    gone: Tally,
    head: u64,
    /// All that it holds but the notes, from the oldest on: to let go of a group none of it is looked at, which nobody has
    /// for long, so that it is far from the cpu.
    groups: VecDeque<Group>,
}

/// Records that came one after the other, none of which is a note.
#[derive(Debug)]
struct Group {
    at: u64,
    what: Tally,
}

impl Group {
    fn end(&self) -> u64 {
        self.at + self.what.bytes
    }
}

impl Ring {
    /// A ring of `size` bytes.
    ///
    /// # Errors
    /// ENOSPC where the budget, or the machine, has no room for it.
    pub(super) fn new(size: usize, account: &Account) -> Result<Ring> {
        let granted = size.min(STEP);
        let none =
            |error| Error::NoSpace { what: format!("memory for a ring of {size} bytes: {error}").into() };
        let mem = MmapMut::map_anon(size).map_err(none)?;
        if !account.take(granted) {
            return Err(account.refusal(granted));
        }
        Ok(Ring {
            mem,
            base: 0,
            granted,
            growing: granted < size,
            account: account.clone(),
            grown: 0,
            tail: 0,
            gone: Tally::default(),
            head: 0,
            groups: VecDeque::new(),
        })
    }

    pub(super) fn memory(&self) -> usize {
        self.granted
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// What was ever let go, and what had no room: all that is before the oldest record held.
    pub(super) fn gone(&self) -> Tally {
        self.gone
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Free bytes without letting go of anything or asking for more.
    pub(super) fn free(&self) -> usize {
        self.granted - self.held()
    }

    /// Bytes it holds.
    fn held(&self) -> usize {
        (self.head - self.tail) as usize
    }

    /// The most bytes it could hold by the memory that is left now.
    pub(super) fn attainable(&self) -> usize {
        let more = if self.growing { (self.mem.len() - self.granted).min(self.account.left()) } else { 0 };
        self.granted + more
    }

    /// The most bytes it can ever hold, as far as is known.
    pub(super) fn most(&self) -> usize {
        if self.growing { self.mem.len() } else { self.granted }
    }

    /// Makes `len` bytes free: asks the budget for more memory on the first lap, then lets go of the oldest records
    /// that end at or before `droppable`, the start of a record: where it can, some more at once. Lets go of none where that
    /// does not suffice.
    pub(super) fn make_room(&mut self, len: usize, droppable: u64) -> bool {
        while self.growing && self.free() < len {
            let more = STEP.min(self.mem.len() - self.granted);
            if more == 0 || !self.account.take(more) {
                self.growing = false;
            } else {
                self.granted += more;
            }
        }
        let kept = self.head - self.tail.max(droppable);
        if self.granted - (kept as usize) < len {
            return false;
        }
        self.let_go(len, droppable);
        true
    }

    /// Makes it twice as large, but no larger than `most`, and keeps what it holds; false where that cannot be. Growth of all
    /// rings is half of the budget at most, and what the first size allows is used first.
    pub(super) fn grow(&mut self, most: usize) -> bool {
        let size = (self.mem.len() * 2).min(most);
        // Where it has not all of its first size it is the budget that has no more.
        if self.granted < self.mem.len() || size <= self.mem.len() {
            return false;
        }
        let more = size - self.mem.len();
        if !self.account.let_grow(more) {
            return false;
        }
        let Ok(mut mem) = MmapMut::map_anon(size) else {
            self.account.shrink(more);
            return false;
        };
        let (first, rest) = self.slices(self.tail, self.held());
        mem[..first.len()].copy_from_slice(first);
        mem[first.len()..first.len() + rest.len()].copy_from_slice(rest);
        (self.mem, self.base, self.growing) = (mem, self.tail, true);
        self.grown += more;
        true
    }

    /// Lets go of the oldest records until `len` bytes are free, of those up to `droppable`.
    fn let_go(&mut self, len: usize, droppable: u64) {
        while self.free() < len {
            match self.groups.front() {
                Some(group) if group.end() <= self.tail => drop(self.groups.pop_front()),
                Some(group) if group.at == self.tail && group.end() <= droppable => {
                    self.gone += group.what;
                    self.tail = group.end();
                }
                _ => self.let_go_one(),
            }
        }
    }

    fn let_go_one(&mut self) {
        let at = self.at(self.tail);
        let len = HEADER_LEN + self.body_len(at);
        self.gone += match Mark(self.mem[self.wrap(at + MARK)]).is_note() {
            true => {
                let mut note = Vec::with_capacity(len);
                self.copy(self.tail, len, &mut note);
                Tally::told(&note)
            }
            false => Tally::one(len),
        };
        self.tail += len as u64;
    }

    /// Adds a record; [`Ring::make_room`] has made sure of the room.
    pub(super) fn push(&mut self, record: &[u8], mark: Mark) {
        // While the ring can still grow nothing has been let go, so what fits does not wrap: the modulus may change.
        debug_assert!(self.free() >= record.len());
        self.write(self.head, record);
        let at = self.at(self.head + MARK as u64);
        self.mem[at] = mark.0;
        if !mark.is_note() {
            self.count(Tally::one(record.len()));
        }
        self.head += record.len() as u64;
    }

    /// Adds so many records that have their marks, none of them a note; room as for [`Ring::push`].
    pub(super) fn push_all(&mut self, bytes: &[u8], records: u64) {
        debug_assert!(self.free() >= bytes.len());
        self.count(Tally { records, bytes: bytes.len() as u64 });
        self.write(self.head, bytes);
        self.head += bytes.len() as u64;
    }

    /// Adds to the last group what comes at the end.
    fn count(&mut self, what: Tally) {
        let most = GROUP.min(self.granted / GROUPS) as u64;
        match self.groups.back_mut() {
            Some(group) if group.end() == self.head && group.what.bytes + what.bytes <= most => {
                group.what += what
            }
            _ => self.groups.push_back(Group { at: self.head, what }),
        }
    }

    fn write(&mut self, pos: u64, bytes: &[u8]) {
        let at = self.at(pos);
        let first = bytes.len().min(self.granted - at);
        self.mem[at..at + first].copy_from_slice(&bytes[..first]);
        self.mem[..bytes.len() - first].copy_from_slice(&bytes[first..]);
    }

    /// Adds up to `max` bytes from `pos` on to `out`.
    pub(super) fn copy(&self, pos: u64, max: usize, out: &mut Vec<u8>) {
        let (first, rest) = self.slices(pos, max.min((self.head - pos) as usize));
        out.extend_from_slice(first);
        out.extend_from_slice(rest);
    }

    /// The `len` bytes from `pos` on, in two pieces where they wrap.
    fn slices(&self, pos: u64, len: usize) -> (&[u8], &[u8]) {
        let at = self.at(pos);
        let first = len.min(self.granted - at);
        (&self.mem[at..at + first], &self.mem[..len - first])
    }

    /// Where a position stands in the memory.
    fn at(&self, pos: u64) -> usize {
        (pos - self.base) as usize % self.granted
    }

    /// Bytes of the record at `pos`, header and body.
    pub(super) fn record_len(&self, pos: u64) -> usize {
        HEADER_LEN + self.body_len(self.at(pos))
    }

    /// Bytes of the body of the record that stands there in the memory.
    fn body_len(&self, at: usize) -> usize {
        let len = match self.mem[at..self.granted].first_chunk() {
            Some(len) => *len,
            None => [0, 1, 2, 3].map(|i| self.mem[self.wrap(at + i)]),
        };
        u32::from_le_bytes(len) as usize
    }

    /// Where that is, less than a lap behind the end: a division would take longer.
    fn wrap(&self, at: usize) -> usize {
        if at < self.granted { at } else { at - self.granted }
    }

    /// Whose and when the oldest record is, and its mark.
    pub(super) fn oldest(&self) -> Option<(Stamp, Mark)> {
        let mut header = Vec::with_capacity(HEADER_LEN);
        self.copy(self.tail, HEADER_LEN, &mut header);
        let stamp = record::decode_header(&header).ok().flatten()?.stamp;
        Some((stamp, Mark::take(&mut header)))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.account.give_back(self.granted);
        self.account.shrink(self.grown);
    }
}
