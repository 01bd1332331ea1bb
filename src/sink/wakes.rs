//! Who wakes a reader that waits: the thread that has something for it, at once; or when it has let go of a lock for which others
//! wait, as to answer a read may take until the scheduler comes back to it.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::{Held, Waker};

/// What the thread does with a waker that is due.
enum Way {
    Keeps(Vec<Waker>),
    HandsOver,
}

thread_local! {
    /// `None`: it calls it.
    static WAY: RefCell<Option<Way>> = const { RefCell::new(None) };
}

/// While this is there, the readers for which this thread has something are not woken; when it is dropped, they are, and may be
/// served on the spot. To be made before a lock is taken, so that it is dropped after it.
#[derive(Debug)]
pub struct Kept {
    /// It is of this thread.
    _of: PhantomData<*const ()>,
}

impl Kept {
    /// From now on. One in another would end it.
    pub fn begin() -> Kept {
        WAY.with_borrow_mut(|way| {
            debug_assert!(way.is_none(), "the thread keeps its wakers already");
            *way = Some(Way::Keeps(Vec::new()));
        });
        Kept { _of: PhantomData }
    }

    /// True where this thread keeps one: it is time to let go of the lock.
    pub fn any() -> bool {
        WAY.with_borrow(|way| matches!(way, Some(Way::Keeps(kept)) if !kept.is_empty()))
    }

    /// This thread will not let go of its lock for long: those that it keeps, and those to come, have another one serve their
    /// readers. Does nothing where it keeps none.
    pub fn hand_over() {
        let kept = WAY.with_borrow_mut(|way| way.as_mut().map(|way| std::mem::replace(way, Way::HandsOver)));
        if let Some(Way::Keeps(kept)) = kept {
            kept.iter().for_each(|waker| waker(Held::Locks));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(Way::Keeps(kept)) = WAY.take() {
            kept.iter().for_each(|waker| waker(Held::Nothing));
        }
    }
}

/// Calls wakers that are due, or keeps them; the caller holds no lock of a sink.
pub(super) fn wake(wakers: Vec<Waker>) {
    let held = WAY.with_borrow_mut(|way| match way {
        None => Some((Held::Nothing, wakers)),
        Some(Way::HandsOver) => Some((Held::Locks, wakers)),
        Some(Way::Keeps(kept)) => {
            kept.extend(wakers);
            None
        }
    });
    if let Some((held, wakers)) = held {
        wakers.iter().for_each(|waker| waker(held));
    }
}
