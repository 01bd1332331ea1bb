use std::cell::Cell;
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// An event: when its program made room for it, when it was finished, and its time. Made by the run of this number. One that is
/// discarded when it is finished is nobody's.
#[derive(Clone, Copy, Debug)]
struct Event {
    reserved: u64,
    finished: u64,
    time: u64,
    run: usize,
    number: usize,
    discarded: bool,
}

/// A ring whose writers write while it is read: time goes on at each look.
struct Written {
    events: Vec<Event>,
    at: usize,
    told: usize,
    now: Rc<Cell<u64>>,
    pace: u64,
}

impl Written {
    fn look(&self) -> u64 {
        self.now.set(self.now.get() + self.pace);
        self.now.get()
    }
}

impl Source for Written {
    fn produced(&self) -> u64 {
        let now = self.look();
        self.events.iter().take_while(|event| event.reserved <= now).count() as u64
    }

    fn at(&self) -> u64 {
        self.at as u64
    }

    fn next(&mut self, end: u64) -> Next {
        let now = self.look();
        let is_nobodys = |event: &Event| event.discarded && event.finished <= now;
        while (self.at as u64) < end && self.events.get(self.at).is_some_and(is_nobodys) {
            self.at += 1;
        }
        match self.events.get(self.at).filter(|_| (self.at as u64) < end) {
            None => Next::End,
            Some(event) if event.finished > now => Next::Busy,
            Some(event) => Next::At(event.time),
        }
    }

    fn take(&mut self, each: impl FnOnce(&[u8])) {
        each(&self.events[self.at].number.to_le_bytes());
        self.at += 1;
    }

    fn tell(&mut self) {
        self.told = self.at;
    }
}

/// A run of a program: on which cpu, how long after the one before, how long until it has read the clock, and of each of its events
/// how long until there is room for it, until it is finished, whether it went into another ring, and whether it is discarded.
type Run = (usize, u64, u64, Vec<(u64, u64, Option<usize>, bool)>);

/// The rings that these runs write, and all events.
fn write(runs: &[Run], rings: usize) -> (Vec<Vec<Event>>, Vec<Event>) {
    let (mut written, mut all) = (vec![Vec::new(); rings], Vec::new());
    let mut clocks = [1u64; 4];
    for (run, (cpu, after, until, events)) in runs.iter().enumerate() {
        let clock = &mut clocks[*cpu];
        *clock += after + until;
        let (mut time, mut before) = (*clock, None);
        for &(room, finish, other, discarded) in events {
            let ring = other.unwrap_or(*cpu) % rings;
            if before.replace(ring).is_some_and(|before| before != ring) {
                *clock += 1;
                time = *clock;
            }
            let reserved = *clock + 1 + room;
            *clock = reserved + 1 + finish;
            let event = Event { reserved, finished: *clock, time, run, number: all.len(), discarded };
            written[ring].push(event);
            all.push(event);
        }
        *clock += 1;
    }
    written.iter_mut().for_each(|ring| ring.sort_by_key(|event| (event.reserved, event.number)));
    (written, all)
}

/// Reads all, in passes of at most so many, by a reader of this pace.
fn read(written: Vec<Vec<Event>>, all: &[Event], most: usize, pace: u64) -> Vec<Event> {
    let now = Rc::new(Cell::new(0));
    let mut lanes: Vec<_> = written
        .into_iter()
        .map(|events| Lane::new(Written { events, at: 0, told: 0, now: Rc::clone(&now), pace }))
        .collect();
    let there = all.iter().filter(|event| !event.discarded).count();
    let mut got = Vec::new();
    for _ in 0..100_000 {
        if got.len() == there {
            break;
        }
        let before = got.len();
        let number = |bytes: &[u8]| usize::from_le_bytes(bytes.try_into().unwrap());
        let count = merge(&mut lanes, most, |bytes| got.push(all[number(bytes)]));
        assert_eq!(count, got.len() - before);
        assert!(count <= most && lanes.iter().all(|lane| lane.source.told == lane.source.at));
    }
    got
}

/// The first two of which the later one was made when the earlier one was there already, or in the same run after it.
fn reversed(got: &[Event]) -> Option<(Event, Event)> {
    let leads = |one: &Event, other: &Event| {
        one.finished < other.time || (one.run == other.run && one.number < other.number)
    };
    let pairs =
        got.iter().enumerate().flat_map(|(at, one)| got[..at].iter().map(move |before| (one, before)));
    pairs.into_iter().find(|(one, before)| leads(one, before)).map(|(one, before)| (*one, *before))
}

fn runs() -> impl Strategy<Value = Vec<Run>> {
    let other = proptest::option::weighted(0.2, 0..4usize);
    let event = (0..20u64, 0..30u64, other, proptest::bool::weighted(0.1));
    vec((0..4usize, 0..60u64, 0..10u64, vec(event, 1..4)), 1..80)
}

proptest! {
    #[test]
    fn whatever_has_led_to_an_event_comes_before_it(
        runs in runs(), rings in 1..5usize, most in 1..40usize, pace in 1..40u64,
    ) {
        let (written, all) = write(&runs, rings);
        let got = read(written, &all, most, pace);
        prop_assert_eq!(got.len(), all.iter().filter(|event| !event.discarded).count());
        prop_assert!(reversed(&got).is_none(), "{:?}", reversed(&got));
    }
}

fn event(reserved: u64, finished: u64, time: u64) -> Event {
    Event { reserved, finished, time, run: time as usize, number: 0, discarded: false }
}

/// The times of the events of rings, as they are read in one pass at this time.
fn pass(rings: &[&[Event]], now: u64) -> Vec<u64> {
    let mut all = Vec::new();
    let number = |events: &[Event], all: &mut Vec<Event>| {
        let numbered = |event: &Event| {
            all.push(Event { number: all.len(), ..*event });
            all[all.len() - 1]
        };
        events.iter().map(numbered).collect::<Vec<_>>()
    };
    let now = Rc::new(Cell::new(now));
    let mut lanes: Vec<_> = rings
        .iter()
        .map(|events| number(events, &mut all))
        .map(|events| Lane::new(Written { events, at: 0, told: 0, now: Rc::clone(&now), pace: 0 }))
        .collect();
    let mut got = Vec::new();
    let at = |bytes: &[u8]| usize::from_le_bytes(bytes.try_into().unwrap());
    merge(&mut lanes, 100, |bytes| got.push(all[at(bytes)].time));
    got
}

#[test]
fn rings_are_read_in_the_order_of_time() {
    let (one, other) = ([event(2, 3, 1), event(6, 7, 5)], [event(4, 5, 3), event(8, 9, 7)]);
    assert_eq!(pass(&[&one, &other], 100), [1, 3, 5, 7]);
    // One that has got its room late is not before one that had it in time.
    assert_eq!(pass(&[&[event(2, 3, 1), event(20, 21, 4)], &[event(6, 7, 5)]], 100), [1, 4, 5]);
}

#[test]
fn what_is_not_finished_holds_back_what_may_be_later() {
    let (busy, other) = ([event(2, 3, 1), event(6, 200, 5)], [event(4, 5, 3)]);
    // Behind it there may be one that was made before 3.
    assert_eq!(pass(&[&busy, &other], 100), [1]);
    assert_eq!(pass(&[&busy, &other], 200), [1, 3, 5]);
    // What was made before the one that was read last is held back by nothing.
    let busy = [event(6, 7, 5), event(8, 200, 7)];
    assert_eq!(pass(&[&busy, &[event(4, 5, 3)]], 100), [3, 5]);
}

#[test]
fn what_comes_meanwhile_waits_for_the_next_pass() {
    let all: Vec<_> =
        (0..100).map(|n| Event { number: n, ..event(n as u64 * 10, n as u64 * 10, n as u64 * 10) }).collect();
    let now = Rc::new(Cell::new(500));
    let ring =
        |events: Vec<Event>| Lane::new(Written { events, at: 0, told: 0, now: Rc::clone(&now), pace: 5 });
    let mut lanes = [ring(all.clone()), ring(Vec::new())];
    let count = merge(&mut lanes, 1000, |_| {});
    assert_eq!(count, 51);
}

#[test]
fn where_what_is_owed_is_discarded_nothing_is_owed() {
    let discarded = Event { discarded: true, ..event(5, 95, 4) };
    // It is in its ring when that has been looked at, and what it has led to when the next one is.
    let (before, after) = (event(42, 44, 41), Event { number: 1, ..event(55, 56, 50) });
    let now = Rc::new(Cell::new(0));
    let ring =
        |event| Lane::new(Written { events: vec![event], at: 0, told: 0, now: Rc::clone(&now), pace: 10 });
    let mut lanes = [ring(before), ring(after), ring(discarded)];
    let mut got = Vec::new();
    while got.len() < 2 {
        merge(&mut lanes, 100, |bytes| got.push(usize::from_le_bytes(bytes.try_into().unwrap())));
    }
    assert_eq!(got, [0, 1]);
}
