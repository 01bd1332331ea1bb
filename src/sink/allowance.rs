//! How often a reader is given what there is: rarely where records come fast, at once where they do not.

use std::time::{Duration, Instant};

/// Answers that may follow each other at once.
const BURST: u32 = 16;
/// Time of waiting for a first record in which a reader earns one more.
const EARN: Duration = Duration::from_micros(100);
/// Shortest and longest time that records are held back.
const GAP_MIN: Duration = Duration::from_millis(1);
const GAP_MAX: Duration = Duration::from_millis(16);

/// What one reader may still be given at once.
///
/// Each wake-up of a reader costs the machine two and a copy, at the cost of the traced process where every cpu is busy. So
/// a reader that found nothing and waited is answered at once, and one that always finds something is held back: a
/// millisecond, and each time twice as long up to 16, unless [`Allowance::enough`] bytes are there before. Then it gets
/// all that is there, in as many answers as it likes.
#[derive(Debug)]
pub struct Allowance {
    left: u32,
    /// Time waited that has not become an answer yet.
    waited: Duration,
    /// Bytes that were there when it was last let in, and not given yet.
    bytes: usize,
    /// The most that may be left.
    burst: u32,
    /// How long the next answer is held back where nothing is left; at first, and at most.
    gap: Duration,
    gaps: (Duration, Duration),
    /// When the last answer was given.
    answered: Instant,
}

impl Allowance {
    /// A full one.
    pub fn new(now: Instant) -> Allowance {
        Allowance::of(BURST, (GAP_MIN, GAP_MAX), now)
    }

    /// For one whom nobody waits for: always so long from one answer to the next, unless there is enough before.
    pub fn unhurried(gap: Duration, now: Instant) -> Allowance {
        Allowance::of(0, (gap, gap), now)
    }

    fn of(burst: u32, gaps: (Duration, Duration), now: Instant) -> Allowance {
        Allowance { left: burst, waited: Duration::ZERO, bytes: 0, burst, gap: gaps.0, gaps, answered: now }
    }

    /// So many bytes are worth an answer at any time: however fast a ring that can hold `most` bytes fills, who is held back
    /// until then has lost no more than an eighth of the time it takes.
    pub fn enough(most: usize) -> usize {
        most / 8
    }

    /// The reader had found nothing, and waited so long.
    pub fn waited(&mut self, waited: Duration) {
        self.bytes = 0;
        // More than a burst is forgotten.
        self.waited = (self.waited + waited).min(EARN * self.burst);
        while self.waited >= EARN {
            self.waited -= EARN;
            self.left = self.burst.min(self.left + 1);
        }
    }

    /// Whether the reader may have the bytes that are `there` for it in a ring that can hold `most`; if not, when at the
    /// latest.
    pub fn turn(&mut self, now: Instant, there: usize, most: usize) -> Option<Instant> {
        if there == 0 || self.bytes > 0 {
            return None;
        }
        let due = self.answered + self.gap;
        if self.left > 0 {
            self.left -= 1;
            self.gap = self.gaps.0;
        } else if due <= now || there >= Allowance::enough(most) {
            self.gap = (self.gap * 2).min(self.gaps.1);
        } else {
            return Some(due);
        }
        self.bytes = there;
        None
    }

    /// It was told that so many bytes are there: it may have them.
    pub fn admit(&mut self, there: usize) {
        self.bytes = self.bytes.max(there);
    }

    /// So many bytes were given.
    pub fn answered(&mut self, now: Instant, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.answered = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;

    /// How often one who always finds a byte is answered, the time standing still.
    fn at_once(allowance: &mut Allowance, now: Instant) -> usize {
        let mut answers = 0;
        while answers < 1000 && allowance.turn(now, 1, SIZE).is_none() {
            allowance.answered(now, 1);
            answers += 1;
        }
        answers
    }

    #[test]
    fn a_reader_that_always_finds_something_comes_ever_more_rarely() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert_eq!(at_once(&mut allowance, now), BURST as usize);
        for gap in [1, 2, 4, 8, 16, 16, 16] {
            let due = allowance.turn(now, 1, SIZE).expect("nothing is left");
            assert_eq!(due, now + Duration::from_millis(gap));
            now = due;
            assert_eq!(at_once(&mut allowance, now), 1);
        }
    }

    #[test]
    fn one_whom_nobody_waits_for_comes_as_rarely_however_long_it_has_waited() {
        let (mut now, gap) = (Instant::now(), Duration::from_millis(10));
        let mut allowance = Allowance::unhurried(gap, now);
        for _ in 0..5 {
            allowance.waited(Duration::from_secs(1));
            assert_eq!(allowance.turn(now, 1, SIZE), Some(now + gap));
            assert_eq!(allowance.turn(now, Allowance::enough(SIZE), SIZE), None, "that is enough");
            allowance.answered(now, Allowance::enough(SIZE));
            now += gap;
            assert_eq!(at_once(&mut allowance, now), 1);
        }
    }

    #[test]
    fn a_reader_that_waits_for_records_is_answered_at_once() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        for _ in 0..1000 {
            assert_eq!(allowance.turn(now, 1, SIZE), None);
            allowance.answered(now, 1);
            now += EARN;
            allowance.waited(EARN);
        }
        assert_eq!(at_once(&mut allowance, now), BURST as usize);
        allowance.waited(EARN / 2);
        allowance.waited(EARN * 3);
        assert_eq!(at_once(&mut allowance, now), 3);
        allowance.waited(EARN / 2);
        assert_eq!(at_once(&mut allowance, now), 1, "halves add up");
        allowance.waited(Duration::from_secs(1000));
        assert_eq!(at_once(&mut allowance, now), BURST as usize);
    }

    #[test]
    fn nobody_is_held_back_for_longer_than_a_part_of_the_time_in_which_the_ring_fills() {
        for per_us in [1, 10, 270, 5000] {
            let mut now = Instant::now();
            let mut allowance = Allowance::new(now);
            at_once(&mut allowance, now);
            let fills_in = SIZE / per_us;
            for _ in 0..100 {
                let (mut there, mut held) = (per_us, 0);
                while allowance.turn(now, there, SIZE).is_some() {
                    now += Duration::from_micros(1);
                    there += per_us;
                    held += 1;
                }
                assert!(held <= fills_in / 8, "{held} of {fills_in} us at {per_us} MB/s");
                allowance.answered(now, there);
            }
        }
    }

    #[test]
    fn who_was_let_in_may_take_all_that_was_there() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        at_once(&mut allowance, now);
        assert_eq!(allowance.turn(now, 0, SIZE), None, "who finds nothing is told so");
        let enough = Allowance::enough(SIZE);
        assert!(allowance.turn(now, enough - 1, SIZE).is_some());
        assert_eq!(allowance.turn(now, enough, SIZE), None);
        allowance.answered(now, enough - 1);
        assert_eq!(allowance.turn(now, 1, SIZE), None);
        allowance.answered(now, 1);
        assert!(allowance.turn(now, 1, SIZE).is_some());
    }
}
