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
fn where_many_begin_with_spinning_free_is_tried_later_and_left_early() {
    let cost = |way| if way == Way::Free { 30 } else { 10 };
    let mut judge = Judge::of_many(Way::Spin);
    let [free, _] = run(&mut judge, PATIENCE_SPINNING * WINDOW as u32, cost);
    assert_eq!((free, judge.way), (0, Way::Free), "now it is tried");
    let [free, _] = run(&mut judge, WINDOW as u32, cost);
    assert_eq!((free, judge.way), (EARLY as u32, Way::Spin));
    // For one thread three times as long means nothing yet.
    let mut judge = Judge::between(Way::Near);
    run(&mut judge, WINDOW as u32, |_| 10);
    let [_, near] = run(&mut judge, WINDOW as u32, |_| 30);
    assert_eq!(near, WINDOW as u32);
}

#[test]
fn many_that_gain_nothing_from_spinning_are_waited_for_without() {
    let mut judge = Judge::of_many(Way::Spin);
    let [free, spin] = run(&mut judge, 64_000, |way| if way == Way::Free { 102 } else { 100 });
    assert!(spin * 10 < free, "{spin} spinning, {free} free");
}

#[test]
fn many_leave_at_once_a_way_that_has_become_far_worse_than_the_other_was() {
    let mut judge = Judge::of_many(Way::Free);
    let cost = |way| if way == Way::Free { 10 } else { 20 };
    run(&mut judge, 2 * WINDOW as u32, cost);
    assert_eq!((judge.way, judge.on_trial), (Way::Free, false), "spinning was tried");
    let [free, _] = run(&mut judge, EARLY as u32, |_| 50);
    assert_eq!((free, judge.way), (EARLY as u32, Way::Spin));
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
