use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use nix::sched::sched_getcpu;

use super::*;

#[test]
fn who_waits_for_one_that_is_let_go_looks_itself_whether_it_is() {
    let last = LetsGo { tid: 1, tracer: 2 };
    let looks = Cell::new(0);
    let let_go_after = |least: u32| {
        looks.set(0);
        let by = Instant::now() + Duration::from_secs(60);
        let is_held = |of: &LetsGo| {
            assert_eq!(*of, last);
            looks.set(looks.get() + 1);
            looks.get() <= least
        };
        (last.wait(by, is_held), looks.get())
    };
    assert_eq!(let_go_after(0), (InForce::All, 1));
    assert_eq!(let_go_after(LOOKS + 2), (InForce::All, LOOKS + 3));
    assert_eq!(last.wait(Instant::now(), |_| true), InForce::Partly);
    assert_eq!(last.wait(Instant::now(), |_| false), InForce::All);
}

#[test]
fn a_thread_is_held_as_long_as_that_tracer_has_it_and_it_lives() {
    // Nobody, who is 0, traces this thread.
    let me = LetsGo { tid: sys::gettid(), tracer: 0 };
    assert!(me.is_held());
    assert!(!LetsGo { tracer: 1, ..me }.is_held(), "another one has it");
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    let pid = dead.id() as i32;
    let by = Instant::now() + Duration::from_secs(10);
    while !Stat::of(pid).unwrap().has_exited() {
        assert!(Instant::now() < by, "it does not end");
        thread::yield_now();
    }
    assert!(!LetsGo { tid: pid, tracer: 0 }.is_held(), "it is dead, and not reaped");
    dead.wait().unwrap();
    assert!(!LetsGo { tid: pid, tracer: 0 }.is_held(), "it is gone");
}

/// A thread that wants its cpu all the time, until this is dropped.
struct Busy {
    tid: i32,
    cpu: usize,
    over: Arc<AtomicBool>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn busy() -> Busy {
    let (tell, told) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    thread::spawn(move || {
        let cpu = sched_getcpu().unwrap();
        assert!(sys::run_on(cpu));
        tell.send((sys::gettid(), cpu)).unwrap();
        while !is_over.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    let (tid, cpu) = told.recv().unwrap();
    Busy { tid, cpu, over }
}

/// Whether this thread may go before others.
fn may() -> bool {
    sys::run_first(true) && sys::run_first(false)
}

#[test]
fn a_caller_that_has_its_answer_and_no_cpu_is_given_that_of_the_one_let_go() {
    // It stands for both: it wants a cpu, and has one.
    let both = busy();
    let tid = both.tid;
    assert!(!answered(tid), "nobody was let go");
    LET_GO.set(Some(tid));
    assert_eq!(answered(tid), may());
    assert!(!answered(tid), "once is enough");
    let (sleeps, slept) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let asleep = thread::spawn(move || {
        tell.send(sys::gettid()).unwrap();
        let _ = slept.recv();
    });
    let caller = told.recv().unwrap();
    let by = Instant::now() + Duration::from_secs(10);
    while Stat::of(caller).unwrap().state != b'S' {
        assert!(Instant::now() < by, "it does not sleep");
        thread::yield_now();
    }
    LET_GO.set(Some(tid));
    assert!(!answered(caller), "it wants no cpu");
    drop(sleeps);
    asleep.join().unwrap();
}

#[test]
fn a_cpu_is_taken_for_a_moment_only() {
    let other = busy();
    let cpu = other.cpu;
    let cpus = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let taken = take_for_a_moment(cpu, || assert_eq!(sched_getcpu(), Ok(cpu), "though another one wants it"));
    assert_eq!(taken, may());
    assert_eq!(sched_getaffinity(Pid::from_raw(0)), Ok(cpus));
}
