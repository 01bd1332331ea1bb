//! The pump: one thread that completes waiting reads and polls, notices the death of processes that somebody waits
//! for, and when a reader has closed has the library forget what nobody needs.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::parked::Streams;

/// The token of the bell itself among those of watched processes.
const BELL: u64 = 0;

/// How the pump is called. Each stream rings at most once for each time it was armed and for each read that waits, so what
/// is pending is bounded by what is open.
#[derive(Debug)]
pub(crate) struct Bell {
    pending: Sender<u64>,
    taken: Receiver<u64>,
    rung: AtomicBool,
    event: EventFd,
    epoll: Epoll,
    #[cfg(test)]
    rounds: AtomicU64,
}

impl Bell {
    /// In place of a handle: a reader closed.
    pub(crate) const SWEEP: u64 = 0;

    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// Those of eventfd(2) and epoll(7).
    pub(crate) fn new() -> io::Result<Bell> {
        let (pending, taken) = unbounded();
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Bell {
            pending,
            taken,
            rung: AtomicBool::new(false),
            event,
            epoll,
            #[cfg(test)]
            rounds: AtomicU64::new(0),
        })
    }

    /// The stream `fh` has something, or ended. Never waits: it is called by threads that trace, under a sink's lock.
    pub(crate) fn ring(&self, fh: u64) {
        // The other end is in the same struct.
        let _ = self.pending.send(fh);
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Full only after 2^64 - 2 rings unheard.
            let _ = self.event.write(1);
        }
    }

    /// How often the pump has taken everything that was pending.
    #[cfg(test)]
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }

    /// Has `fh` told when the process of this pidfd dies, once per call of [`Bell::watch`]; false where that fails.
    pub(crate) fn watch(&self, pidfd: &impl AsFd, fh: u64) -> bool {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, fh);
        self.epoll.add(pidfd, event).is_ok()
    }
}

/// For epoll_wait(2), which counts in milliseconds and must not come back early.
fn until(due: Instant) -> EpollTimeout {
    let left = due.saturating_duration_since(Instant::now()).as_millis() as u16;
    EpollTimeout::from(left.saturating_add(1))
}

/// Works until `ended` is set and the bell rung. `sweep` is called when a reader has closed.
pub(crate) fn run(bell: &Arc<Bell>, streams: &Streams, sweep: impl Fn(), ended: &AtomicBool) {
    let mut events = [EpollEvent::empty(); 64];
    let mut buf = Vec::new();
    // Streams that gather, and when each is due.
    let mut later = HashMap::new();
    while !ended.load(Ordering::SeqCst) {
        let timeout = later.values().min().map_or(EpollTimeout::NONE, |due| until(*due));
        let count = match bell.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return log::error!("epoll: {errno}"),
        };
        for event in &events[..count] {
            match event.data() {
                BELL => {
                    // Counted down before the handles are taken: a ring after this is heard in the next round.
                    let _ = bell.event.read();
                    bell.rung.store(false, Ordering::SeqCst);
                }
                fh => streams.died(fh),
            }
        }
        let now = Instant::now();
        let mut due: Vec<u64> = later.iter().filter(|(_, due)| **due <= now).map(|(fh, _)| *fh).collect();
        due.extend(bell.taken.try_iter());
        let sweeps = due.contains(&Bell::SWEEP);
        for fh in due {
            match streams.complete(fh, &mut buf) {
                Some(due) => drop(later.insert(fh, due)),
                None => drop(later.remove(&fh)),
            }
        }
        if sweeps {
            sweep();
        }
        #[cfg(test)]
        bell.rounds.fetch_add(1, Ordering::SeqCst);
    }
}
