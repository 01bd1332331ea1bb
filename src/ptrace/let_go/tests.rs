use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use nix::sched::sched_getcpu;

use super::*;

#[test]
fn who_waits_for_one_that_is_let_go_looks_itself_whether_it_is() {
    let last = LetsGo { tid: 1, tracer: 2 };
    let looks = std::cell::Cell::new(0);
    let let_go_after = |least: u32| {
        looks.set(0);
        let by = Instant::now() + Duration::from_secs(60);
        let tracer_of = |tid| {
            assert_eq!(tid, 1);
            looks.set(looks.get() + 1);
            if looks.get() > least { 0 } else { 2 }
        };
        (last.wait(by, tracer_of), looks.get())
    };
    assert_eq!(let_go_after(0), (InForce::All, 1));
    assert_eq!(let_go_after(LOOKS + 2), (InForce::All, LOOKS + 3));
    assert_eq!(last.wait(Instant::now(), |_| 2), InForce::Partly, "it is traced yet");
    assert_eq!(last.wait(Instant::now(), |_| 3), InForce::All, "by another one already");
}

/// A thread that wants a cpu all the time, with that cpu.
fn busy(over: &'static AtomicBool) -> (i32, usize) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut one = CpuSet::new();
        let cpu = sched_getcpu().unwrap();
        one.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        tell.send((sys::gettid(), cpu)).unwrap();
        while !over.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    told.recv().unwrap()
}

/// Whether this thread may go before others.
fn may() -> bool {
    sys::run_first(true) && sys::run_first(false)
}

#[test]
fn a_caller_that_has_its_answer_and_no_cpu_is_given_that_of_the_one_let_go() {
    static OVER: AtomicBool = AtomicBool::new(false);
    // It stands for both: it wants a cpu, and has one.
    let (tid, _) = busy(&OVER);
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
    OVER.store(true, Ordering::Relaxed);
    drop(sleeps);
    asleep.join().unwrap();
}

#[test]
fn a_cpu_is_taken_for_a_moment_only() {
    static OVER: AtomicBool = AtomicBool::new(false);
    let (_, cpu) = busy(&OVER);
    let cpus = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let taken = take_for_a_moment(cpu, || assert_eq!(sched_getcpu(), Ok(cpu), "though another one wants it"));
    assert_eq!(taken, may());
    assert_eq!(sched_getaffinity(Pid::from_raw(0)), Ok(cpus));
    OVER.store(true, Ordering::Relaxed);
}
