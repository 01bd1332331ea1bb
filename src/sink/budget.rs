//! The memory that all sinks of a daemon share, and what those that are gone have counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Counts;

/// The memory that all rings together may use. Rings take it as they fill, in steps.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// What rings may use beyond the size they were made with.
    grown: AtomicUsize,
    past: Mutex<Counts>,
}

impl Budget {
    /// At most `limit` bytes.
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget {
            limit,
            used: AtomicUsize::new(0),
            grown: AtomicUsize::new(0),
            past: Mutex::default(),
        })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Most bytes that can be in use.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What sinks that are gone have counted; they have no readers and no memory.
    pub fn past(&self) -> Counts {
        *self.past.lock()
    }

    pub(super) fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lets a ring use so much beyond its first size, where all of them together come to no more than half of the limit.
    pub(super) fn let_grow(&self, bytes: usize) -> bool {
        let fits = |grown: usize| grown.checked_add(bytes).filter(|&sum| sum <= self.limit / 2);
        self.grown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    pub(super) fn shrink(&self, bytes: usize) {
        self.grown.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes in use but for what rings have grown by: that is there for a moment, and for them alone.
    pub(super) fn used_at_first(&self) -> usize {
        self.used().saturating_sub(self.grown.load(Ordering::Relaxed))
    }

    pub(super) fn remember(&self, counts: Counts) {
        let mut past = self.past.lock();
        past.records += counts.records;
        past.bytes += counts.bytes;
        past.lost += counts.lost;
    }
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Room {
    pub(super) fn new(budget: &Arc<Budget>, bytes: usize) -> Option<Room> {
        budget.take(bytes).then(|| Room { budget: Arc::clone(budget), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}
