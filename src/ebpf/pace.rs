//! How soon the thread that reads the rings comes back: at once where events come now and then, after a beat where they come
//! fast. Each time that it sleeps in epoll_wait(2) the next event wakes it, at the cost of who makes that event.

use std::time::Duration;

/// Wake-ups that may follow each other at once.
const BURST: u32 = 16;
/// Time asleep in which it earns one more: longer than the time in which a reader earns to be answered at once, so that who is
/// woken for a record can hand it on ([`crate::sink::Allowance`]).
const EARN: Duration = Duration::from_micros(150);
/// Events of a call.
const PAIR: usize = 2;

/// How often it may still be woken at once.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    /// Time asleep that has not become a wake-up yet.
    asleep: Duration,
    /// It has not been woken but has come by itself.
    beats: bool,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { left: BURST, asleep: Duration::ZERO, beats: false }
    }

    /// It has slept for so long until something came.
    pub(super) fn slept(&mut self, asleep: Duration) {
        self.beats = false;
        // More than a burst is forgotten.
        self.asleep = (self.asleep + asleep).min(EARN * BURST);
        while self.asleep >= EARN {
            self.asleep -= EARN;
            self.left = BURST.min(self.left + 1);
        }
    }

    /// It has found so many events, and somebody reads them or not: whether it may sleep until the next one; else it is to come
    /// again after a `beat`.
    pub(super) fn turn(&mut self, events: usize, is_read: bool, beat: Duration) -> bool {
        // Few in a beat: they come slowly again.
        if self.beats && (events / PAIR) as u128 * EARN.as_nanos() <= beat.as_nanos() {
            self.left = self.left.max(1);
        }
        let sleeps = is_read && self.left > 0;
        self.left -= u32::from(sleeps);
        self.beats = !sleeps;
        sleeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(1);

    /// How often it is woken, and how often it comes by itself, while `each` events come so long one after the other.
    fn at(pace: &mut Pace, every: Duration, each: usize) -> (u32, u32) {
        let (mut woken, mut beats) = (0, 0);
        let mut events = each;
        for _ in 0..1000 {
            match pace.turn(events, true, BEAT) {
                true => {
                    woken += 1;
                    pace.slept(every);
                    events = each;
                }
                false => {
                    beats += 1;
                    events = each * (BEAT.as_nanos() / every.as_nanos()) as usize;
                }
            }
        }
        (woken, beats)
    }

    #[test]
    fn what_comes_now_and_then_is_read_at_once() {
        let mut pace = Pace::new();
        for us in [150, 200, 500, 2000] {
            assert_eq!(at(&mut pace, Duration::from_micros(us), 2).1, 0, "{us}");
        }
    }

    #[test]
    fn what_comes_fast_wakes_nobody_and_when_it_ends_all_is_as_before() {
        let mut pace = Pace::new();
        let (woken, beats) = at(&mut pace, Duration::from_micros(1), 2);
        assert!(woken <= BURST + 1, "{woken} wake-ups, {beats} beats");
        let (woken, beats) = at(&mut pace, Duration::from_micros(200), 2);
        assert!(beats <= 1, "{woken} wake-ups, {beats} beats");
    }

    #[test]
    fn nobody_is_woken_for_what_nobody_reads() {
        let mut pace = Pace::new();
        assert!(!pace.turn(1, false, BEAT));
        assert!(pace.turn(1, true, BEAT));
    }
}
