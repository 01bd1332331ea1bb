//! The memory that all sinks of a daemon share, each owner's part in it, and what those that are gone have counted.
//!
//! A user has no more of it than is free: whatever one does, there is room for the next (docs/decisions/shares.md). Root has all, and
//! so has who runs the daemon.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Counts;
use crate::cred;
use crate::error::Error;

/// The memory that all rings together may use. Rings take it as they fill, in steps.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    /// Never held while another lock is taken.
    sums: Mutex<Sums>,
    past: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Sums {
    all: Sum,
    /// Of each owner that has any.
    own: HashMap<u32, Sum>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sum {
    used: usize,
    /// What rings may use beyond the size they were made with.
    grown: usize,
}

impl Sums {
    fn own(&self, owner: u32) -> Sum {
        self.own.get(&owner).copied().unwrap_or_default()
    }

    /// Changes both sums.
    fn change(&mut self, owner: u32, mut change: impl FnMut(&mut Sum)) {
        change(&mut self.all);
        let own = self.own.entry(owner).or_default();
        change(own);
        if *own == Sum::default() {
            self.own.remove(&owner);
        }
    }
}

impl Budget {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, sums: Mutex::default(), past: Mutex::default() })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.sums.lock().all.used
    }

    /// Most bytes that can be in use.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What sinks that are gone have counted; they have no readers and no memory.
    pub fn past(&self) -> Counts {
        *self.past.lock()
    }

    /// Bytes in use but for what rings have grown by: that is there for a moment, and for them alone.
    pub(super) fn used_at_first(&self) -> usize {
        let all = self.sums.lock().all;
        all.used.saturating_sub(all.grown)
    }

    pub(super) fn remember(&self, counts: Counts) {
        let mut past = self.past.lock();
        past.records += counts.records;
        past.bytes += counts.bytes;
        past.lost += counts.lost;
    }
}

/// A budget as one owner has it.
#[derive(Clone, Debug)]
pub(super) struct Account {
    budget: Arc<Budget>,
    owner: u32,
}

impl Account {
    pub(super) fn new(budget: &Arc<Budget>, owner: u32) -> Account {
        Account { budget: Arc::clone(budget), owner }
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bytes that it may take yet.
    pub(super) fn left(&self) -> usize {
        self.left_of(&self.budget.sums.lock())
    }

    fn left_of(&self, sums: &Sums) -> usize {
        cred::share_left(self.budget.limit, sums.all.used, sums.own(self.owner).used, self.owner)
    }

    pub(super) fn take(&self, bytes: usize) -> bool {
        let mut sums = self.budget.sums.lock();
        let takes = bytes <= self.left_of(&sums);
        if takes {
            sums.change(self.owner, |sum| sum.used += bytes);
        }
        takes
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.budget.sums.lock().change(self.owner, |sum| sum.used -= bytes);
    }

    /// Lets a ring use so much beyond its first size, where all of them together come to no more than half of the limit.
    pub(super) fn let_grow(&self, bytes: usize) -> bool {
        let mut sums = self.budget.sums.lock();
        let half = self.budget.limit / 2;
        let grows = bytes <= cred::share_left(half, sums.all.grown, sums.own(self.owner).grown, self.owner);
        if grows {
            sums.change(self.owner, |sum| sum.grown += bytes);
        }
        grows
    }

    pub(super) fn shrink(&self, bytes: usize) {
        self.budget.sums.lock().change(self.owner, |sum| sum.grown -= bytes);
    }

    /// Why it may not take so much.
    pub(super) fn refusal(&self, bytes: usize) -> Error {
        let sums = self.budget.sums.lock();
        let (limit, owner, own) = (self.budget.limit, self.owner, sums.own(self.owner).used);
        let what = match sums.all.used.saturating_add(bytes) > limit {
            true => format!("the daemon's memory limit of {limit} bytes is reached (mem=)"),
            false => format!(
                "uid {owner} has its share of the daemon's memory (mem=): {own} of {limit} bytes, and may not have more than are free"
            ),
        };
        Error::NoSpace { what: what.into() }
    }
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Room {
    account: Account,
    bytes: usize,
}

impl Room {
    pub(super) fn new(account: &Account, bytes: usize) -> Result<Room, Error> {
        match account.take(bytes) {
            true => Ok(Room { account: account.clone(), bytes }),
            false => Err(account.refusal(bytes)),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}
