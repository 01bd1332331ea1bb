//! How many entries in `procs` each owner has.

use super::*;

impl Maps {
    /// Where the entries of this owner are counted.
    pub(super) fn share(&mut self, owner: u32) -> Option<u32> {
        let unused = |at: usize| self.shares.word(8 * (at + 1)).load(Ordering::SeqCst) as i64 <= 0;
        let at = match self.owners.iter().position(|&one| one == owner) {
            Some(at) => at,
            None => (0..SLOTS as usize).find(|&at| unused(at))?,
        };
        if at >= self.owners.len() {
            self.owners.push(owner);
        }
        self.owners[at] = owner;
        Some(at as u32 + 1)
    }

    /// As the programs do it: no owner has more entries than are free.
    pub(super) fn has_share(&self, share: u32) -> bool {
        // One that ended while it was entered may have been counted out twice: less than none is none.
        let count = |at: u32| self.shares.word(8 * at as usize).load(Ordering::SeqCst) as i64;
        count(0).saturating_add(count(share)) < i64::from(self.most)
    }

    /// Counts the entries anew, where nobody enters any: one whose owner changed when it ended may be counted out of the share
    /// that it had before.
    pub(in crate::ebpf) fn recount(&self) {
        (0..=SLOTS as usize).for_each(|at| self.shares.word(8 * at).store(0, Ordering::SeqCst));
        self.procs.iter().flatten().for_each(|(_, value)| self.count(value[5], 1));
    }

    pub(super) fn count(&self, share: u32, by: i64) {
        for at in [0, share] {
            // Modulo 2^64: less one is a sum too.
            self.shares.word(8 * at as usize).fetch_add(by as u64, Ordering::SeqCst);
        }
    }
}
