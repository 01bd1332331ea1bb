use std::sync::atomic::AtomicUsize;

use super::*;

#[test]
fn a_spinner_that_sleeps_leaves_its_place_to_another() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let spinner = || {
        let mut pace = Pace::new(false);
        (pace.spins, pace.place) = (true, Place::of(&TAKEN, 1));
        pace
    };
    let (mut one, mut other) = (spinner(), spinner());
    assert_eq!(one.spin(), Some(SPIN));
    assert_eq!(one.spin(), Some(SPIN));
    assert_eq!(other.spin(), None, "there is one place");
    one.sleeps();
    assert_eq!(other.spin(), Some(SPIN));
    assert_eq!(one.spin(), None);
    drop(other);
    assert_eq!(one.spin(), Some(SPIN));
}

#[test]
fn several_that_call_fast_begin_with_a_tracer_that_spins() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let way = |gap: Duration, running: fn() -> Option<usize>| {
        let mut pace = Pace::new(true);
        pace.cpus = Some(CpuSet::new());
        pace.place = Place::of(&TAKEN, 1);
        pace.running = running;
        for call in 0..2 * WINDOW as i64 {
            let ns = call * gap.as_nanos() as i64;
            let time = Time { sec: 1 + ns / 1_000_000_000, nsec: ns % 1_000_000_000 };
            pace.called((call % 2) as i32, time);
            pace.pause(time);
        }
        assert!(pace.crowd.is_some());
        (pace.judge.way, pace.spin())
    };
    assert_eq!(way(FAST / 4, || Some(cpus())), (Way::Spin, Some(SPIN)));
    assert_eq!(way(FAST * 4, || Some(cpus())), (Way::Free, None), "they would be waited for in vain");
    assert_eq!(way(FAST / 4, || Some(cpus() + 1)), (Way::Free, None), "they want that cpu");
}

#[test]
fn what_was_measured_long_ago_or_by_another_clock_says_nothing_any_more() {
    let at = |sec| Time { sec, nsec: 0 };
    let spins_at = |now| {
        let mut pace = Pace::new(true);
        (pace.spins, pace.judged) = (true, at(100));
        pace.pause(now);
        pace.spins
    };
    assert!(spins_at(at(100)));
    assert!(!spins_at(at(101)), "a stop of any kind tells that time has passed");
    assert!(!spins_at(at(99)), "the clock was set back");
}

#[test]
fn a_thread_kept_from_its_cpu_tries_near_again_only_where_there_is_a_cpu_to_spare_since() {
    let mut pace = Pace::new(true);
    pace.looked = Some((Instant::now() - SPARE_FOR * 2, Duration::ZERO));
    pace.shy.0 = Instant::now() + Duration::from_secs(60);
    let before = pace.looked;
    assert!(!pace.may_try(), "it was kept from its cpu");
    assert_eq!(pace.looked, before, "what is to spare is reckoned from there, not from each question");
    pace.shy.0 = Instant::now();
    assert!(pace.may_try(), "much was idle since");
}

#[test]
fn what_a_tracer_waits_at_each_stop_is_not_being_kept_from_its_cpu() {
    let ms = Duration::from_millis;
    let credit = CREDIT.as_secs_f64();
    assert!(
        credit_left(credit, ms(100), ms(3), ms(40), 0.0) >= credit,
        "five of fifteen microseconds, as ever"
    );
    assert!(credit_left(credit, ms(10), ms(8), ms(8), 0.0) < 0.0, "another program had the cpu");
}

#[test]
fn a_tracer_that_gains_much_may_be_kept_from_its_cpu_for_part_of_it() {
    let ms = Duration::from_millis;
    // A reader that takes its turn there: 20 of 100 milliseconds beside what is usual.
    let left = |gain| credit_left(CREDIT.as_secs_f64(), ms(100), ms(20), ms(60), gain);
    assert!(left(0.0) < 0.0);
    assert!(left(0.6) >= 0.0);
}
