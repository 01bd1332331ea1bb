//! Places among the tracer threads that spin: there are half as many as cpus, and who sleeps needs none.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Those of all tracer threads.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// A place, held or not.
#[derive(Debug)]
pub(super) struct Place {
    taken: &'static AtomicUsize,
    most: usize,
    held: bool,
}

impl Place {
    /// One of half as many as there are cpus, not held yet.
    pub(super) fn among(cpus: usize) -> Place {
        Place::of(&TAKEN, cpus / 2)
    }

    pub(super) fn of(taken: &'static AtomicUsize, most: usize) -> Place {
        Place { taken, most, held: false }
    }

    /// Holds it, if there is one left; true where it is held now.
    pub(super) fn take(&mut self) -> bool {
        if !self.held {
            let one_more = |taken: usize| (taken < self.most).then_some(taken + 1);
            self.held = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        }
        self.held
    }

    /// Leaves it to another one.
    pub(super) fn leave(&mut self) {
        if std::mem::take(&mut self.held) {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}
