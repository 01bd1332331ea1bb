//! Records on their way into one sink, which take its lock together.

use super::ring::Mark;
use super::tally::Tally;
use super::wakes::wake;
use super::{Appended, Policy, Sink, State};
use crate::record::{self, Body, HEADER_LEN, Stamp};
use crate::syscall::Abi;

/// Whole records that wait to be appended. Each is there, or lost and counted, once [`Sink::append_all`] has taken them.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the first one begins.
    from: usize,
    records: u64,
    /// Where the last one begins.
    last: usize,
}

impl Batch {
    /// Adds one; `abi` as for [`Sink::append`].
    #[inline(always)]
    pub fn push(&mut self, stamp: &Stamp, body: &Body<'_>, abi: Abi) {
        let at = self.bytes.len();
        record::encode(&mut self.bytes, stamp, body);
        Mark::record(abi).put(&mut self.bytes[at..]);
        self.records += 1;
        self.last = at;
    }

    /// Bytes of all.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first one, with its stamp and its ABI.
    pub fn first(&self) -> Option<(&[u8], Stamp, Abi)> {
        self.at(self.from)
    }

    fn at(&self, at: usize) -> Option<(&[u8], Stamp, Abi)> {
        let rest = &self.bytes[at..];
        let header = record::decode_header(rest).ok()??;
        let record = rest.get(..HEADER_LEN + header.len)?;
        Some((record, header.stamp, Mark::of(record).abi()))
    }

    /// Takes the first one out.
    pub fn skip(&mut self) {
        match self.first().map(|(record, ..)| record.len()) {
            Some(len) => {
                self.from += len;
                self.records -= 1;
            }
            None => self.clear(),
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        (self.from, self.records) = (0, 0);
    }
}

impl Sink {
    /// Appends all records of the batch, in their order, as [`Sink::append`] would each of them, and takes out of it those of
    /// which it is known what became: all of them, unless this is [`Appended::Full`]. With policy drop those that come after one
    /// without room are lost with it: who brings more than is read has no time to look at each. Never waits.
    pub fn append_all(&self, batch: &mut Batch) -> Appended {
        if batch.is_empty() {
            return Appended::Whole;
        }
        let Some(mut st) = self.admit() else {
            batch.clear();
            return Appended::Ended;
        };
        let mut worst = Appended::Whole;
        st.append_whole(batch);
        // The first one may be told a loss, and find room for all.
        let mut retries = 1;
        while let Some((record, stamp, abi)) = batch.first() {
            let appended = st.append(record, &stamp, abi);
            if appended != Appended::Whole {
                worst = appended;
            }
            if appended == Appended::Full {
                break;
            }
            // One that is too large for the ring says nothing of the others.
            let lost = appended == Appended::Lost && st.ever_fits(record.len());
            batch.skip();
            if lost && st.policy == Policy::Drop {
                st.lose_whole(batch);
            } else if retries > 0 {
                retries -= 1;
                st.append_whole(batch);
            }
        }
        if batch.is_empty() {
            batch.clear();
        }
        let wakers = st.wakers(worst);
        drop(st);
        wake(wakers);
        worst
    }
}

impl State {
    /// Appends all of the batch, where there is room for all and no loss to be told before.
    fn append_whole(&mut self, batch: &mut Batch) {
        if batch.is_empty() || !self.has_room(batch.len()) {
            return;
        }
        self.ring.push_all(&batch.bytes[batch.from..], batch.records);
        if let Some((_, stamp, abi)) = batch.at(batch.last) {
            (self.last, self.last_abi) = (stamp, abi);
        }
        self.counts.records += batch.records;
        self.counts.bytes += batch.len() as u64;
        batch.clear();
    }

    fn lose_whole(&mut self, batch: &mut Batch) {
        if let Some((_, stamp, _)) = batch.at(batch.last).filter(|_| !batch.is_empty()) {
            self.last = stamp;
        }
        self.lose_many(Tally { records: batch.records, bytes: batch.len() as u64 });
        batch.clear();
    }
}
