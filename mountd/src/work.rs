//! Threads for what may wait for a process: commands, and opens of a trace. The threads that take requests must never wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Threads at the same time.
const THREADS: usize = 64;
/// Jobs that wait for a thread.
const QUEUE: usize = 256;
/// How long a thread without work stays, if it is not the last one.
const IDLE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(2) };

type Job = Box<dyn FnOnce() + Send>;

/// The threads and what waits for them.
#[derive(Debug)]
pub(crate) struct Work {
    /// Of its threads.
    name: &'static str,
    jobs: Sender<Job>,
    taken: Receiver<Job>,
    threads: Arc<AtomicUsize>,
    /// Jobs that are queued or run.
    pending: Arc<AtomicUsize>,
}

impl Work {
    /// No threads yet.
    pub(crate) fn new(name: &'static str) -> Work {
        let (jobs, taken) = bounded(QUEUE);
        Work { name, jobs, taken, threads: Arc::default(), pending: Arc::default() }
    }

    /// Whether the next job would be taken.
    pub(crate) fn has_room(&self) -> bool {
        !self.jobs.is_full()
    }

    /// Has `job` run; false where too much is queued already, and `job` is dropped.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let pending = self.pending.fetch_add(1, Ordering::SeqCst) + 1;
        if self.jobs.try_send(Box::new(job)).is_err() {
            self.pending.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if pending > self.threads.load(Ordering::SeqCst) {
            self.start();
        }
        true
    }

    fn start(&self) {
        let enough = |n: usize| (n < THREADS).then_some(n + 1);
        if self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough).is_err() {
            return;
        }
        let (taken, threads, pending) =
            (self.taken.clone(), Arc::clone(&self.threads), Arc::clone(&self.pending));
        let body = move || {
            loop {
                while let Ok(job) = taken.recv_timeout(IDLE) {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        log::error!("an answer ended with a fault of ours");
                    }
                    pending.fetch_sub(1, Ordering::SeqCst);
                }
                // One stays, so that whoever comes next need not wait until a thread is made.
                let others = |n: usize| (n > 1).then(|| n - 1);
                if threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, others).is_err() {
                    continue;
                }
                // A job that came in this moment counted this thread as one that would take it.
                if taken.is_empty() || threads.fetch_add(1, Ordering::SeqCst) >= THREADS {
                    return;
                }
            }
        };
        if let Err(err) = thread::Builder::new().name(self.name.to_owned()).spawn(body) {
            self.threads.fetch_sub(1, Ordering::SeqCst);
            log::error!("no thread for an answer: {err}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn jobs_that_wait_for_each_other_all_run() {
        let work = Work::new("test");
        let (tx, rx) = bounded(0);
        let (done, all) = bounded(2);
        let sent = done.clone();
        assert!(work.run(move || sent.send(tx.send_timeout((), SOON).is_ok()).expect("the test waits")));
        assert!(work.run(move || done.send(rx.recv_timeout(SOON).is_ok()).expect("the test waits")));
        assert_eq!(all.recv_timeout(SOON), Ok(true));
        assert_eq!(all.recv_timeout(SOON), Ok(true));
    }

    #[test]
    fn too_many_are_refused_and_none_is_lost() {
        let work = Work::new("test");
        let (hold, held) = bounded::<()>(0);
        let (done, all) = bounded(4096);
        let mut accepted = 0;
        for _ in 0..2000 {
            let (held, done) = (held.clone(), done.clone());
            accepted += usize::from(work.run(move || {
                let _ = held.recv();
                let _ = done.send(());
            }));
        }
        assert!((QUEUE..=QUEUE + THREADS).contains(&accepted), "{accepted}");
        drop(hold);
        for _ in 0..accepted {
            all.recv_timeout(SOON).expect("every accepted job runs");
        }
    }

    #[test]
    fn a_fault_in_one_job_does_not_hinder_the_next() {
        let work = Work::new("test");
        let (done, all) = bounded(1);
        assert!(work.run(|| panic!("a fault, made for this test")));
        assert!(work.run(move || done.send(()).expect("the test waits")));
        assert_eq!(all.recv_timeout(SOON), Ok(()));
    }

    #[test]
    fn the_last_thread_stays() {
        let work = Work::new("test");
        let both = Arc::new(Barrier::new(2));
        let (done, ids) = bounded(3);
        let id = || thread::current().id();
        for _ in 0..2 {
            let (both, done) = (Arc::clone(&both), done.clone());
            assert!(work.run(move || {
                both.wait();
                done.send(id()).expect("the test waits");
            }));
        }
        let two = [ids.recv_timeout(SOON).expect("one"), ids.recv_timeout(SOON).expect("another")];
        let by = Instant::now() + SOON;
        while work.threads.load(Ordering::SeqCst) > 1 {
            assert!(Instant::now() < by, "two threads stay");
            thread::yield_now();
        }
        // As long as it would take the other one to go too.
        thread::sleep(2 * IDLE);
        assert!(work.run(move || done.send(id()).expect("the test waits")));
        assert!(two.contains(&ids.recv_timeout(SOON).expect("a third job")), "a new thread");
    }
}
