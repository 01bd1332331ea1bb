use std::sync::atomic::AtomicUsize;

use super::*;

/// Feeds round trips of what each way costs, and counts those by each way.
fn run(judge: &mut Judge, calls: u32, cost: impl Fn(Way) -> u64) -> [u32; 2] {
    let mut by = [0; 2];
    for _ in 0..calls {
        by[judge.at()] += 1;
        judge.take(cost(judge.way));
    }
    by
}

#[test]
fn the_cheaper_way_is_found_and_kept() {
    let mut judge = Judge::between(Way::Near);
    run(&mut judge, 1000, |way| if way == Way::Near { 10 } else { 50 });
    let [free, near] = run(&mut judge, 100_000, |way| if way == Way::Near { 10 } else { 50 });
    assert!(free * 100 < near, "{free} free, {near} near");
}

#[test]
fn a_way_that_is_worse_is_tried_ever_more_rarely() {
    let mut judge = Judge::between(Way::Near);
    let [_, first] = run(&mut judge, 10_000, |way| if way == Way::Near { 5000 } else { 10 });
    assert!(first > 0 && first < 40, "{first}");
    let [_, later] = run(&mut judge, 100_000, |way| if way == Way::Near { 5000 } else { 10 });
    assert!(later < 20, "{later}");
}

#[test]
fn when_the_cpu_is_wanted_by_others_the_tracer_leaves() {
    let mut judge = Judge::between(Way::Near);
    run(&mut judge, 10_000, |way| if way == Way::Near { 10 } else { 50 });
    assert_eq!(judge.way, Way::Near);
    run(&mut judge, 2 * WINDOW as u32, |way| if way == Way::Near { 5000 } else { 60 });
    assert_eq!(judge.way, Way::Free);
}

#[test]
fn calls_that_wait_say_nothing_about_us() {
    let mut judge = Judge::between(Way::Near);
    let mut n = 0;
    for _ in 0..10_000 {
        n += 1;
        let waits = n % 2 == 0;
        judge.take(match judge.way {
            _ if waits => 1_000_000,
            Way::Near => 10,
            _ => 50,
        });
    }
    assert_eq!(judge.way, Way::Near);
}

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

#[test]
fn what_near_saves_is_known_when_both_ways_are() {
    let mut judge = Judge::between(Way::Near);
    assert_eq!(judge.gain(), 0.0);
    judge.cost = [40.0, 0.0];
    assert_eq!(judge.gain(), 0.0);
    judge.cost = [40.0, 10.0];
    assert_eq!(judge.gain(), 0.75);
    judge.cost = [10.0, 40.0];
    assert_eq!(judge.gain(), 0.0);
}

#[test]
fn a_call_is_far_from_what_near_takes_where_it_takes_what_free_does() {
    let mut judge = Judge::between(Way::Near);
    judge.cost = [33.0, 18.0];
    assert!(judge.far() > 20.0 && judge.far() < 33.0, "{}", judge.far());
    judge.cost = [18.0, 18.0];
    assert_eq!(judge.far(), 18.0 * MOVED_NEAR);
    judge.cost = [900.0, 18.0];
    assert_eq!(judge.far(), 18.0 * MOVED_FAR);
}
