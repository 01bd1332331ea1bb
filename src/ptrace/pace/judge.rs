//! The judgement alone, without a thread: which of two ways costs less, by what calls take.

#[cfg(test)]
mod tests;

/// Measures of one judgement.
pub(super) const WINDOW: usize = 32;
/// Of a trial, after so many it may be clear that it is bad: all of them so many times worse. A change unsettles where the
/// threads run, so a little means nothing.
const EARLY: usize = 4;
const FAR: f64 = 4.0;
/// Of the means of several calls less will do, and whether it is on trial or has become so.
const FAR_OF_MANY: f64 = 2.0;
/// A way must be so much better to be worth a change, and so much worse to be left.
const MARGIN: f64 = 1.1;
/// Spinning takes a cpu: free may even be a little worse.
const FREE_MARGIN: f64 = 0.97;
/// Windows from one trial of the other way to the next: at first, and at most. Doubled by each that was in vain.
const PATIENCE: u32 = 1;
const PATIENCE_MAX: u32 = 1024;
/// The first, where it begins with spinning: free takes several times as long there, and each of its calls is lost time.
const PATIENCE_SPINNING: u32 = 16;
/// And after one that was a success.
const PATIENCE_WON: u32 = 64;
/// What a call takes at least whose tracee is no longer near, in what it takes near: at most, and at least.
const MOVED_FAR: f64 = 3.0;
const MOVED_NEAR: f64 = 1.3;

/// How to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Anywhere, as an ordinary thread.
    Free,
    /// On the tracee's cpu, giving way to it.
    Near,
    /// Anywhere, and awake for a while.
    Spin,
}

/// Measures, and what they say.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) way: Way,
    /// The choice beside [`Way::Free`].
    choice: Way,
    window: Vec<u64>,
    /// What is measured of free and of the other, nanoseconds; 0 where it was never tried.
    pub(super) cost: [f64; 2],
    pub(super) on_trial: bool,
    /// Windows until the next trial.
    wait: u32,
    patience: u32,
    /// Each measure is the mean of several calls.
    many: bool,
}

impl Judge {
    /// Between free, at first, and this.
    pub(super) fn between(choice: Way) -> Judge {
        Judge {
            way: Way::Free,
            choice,
            window: Vec::with_capacity(WINDOW),
            cost: [0.0; 2],
            on_trial: false,
            wait: PATIENCE,
            patience: PATIENCE,
            many: false,
        }
    }

    /// Between free and spinning, where each measure is the mean of several calls of several threads. They begin with `way`.
    pub(super) fn of_many(way: Way) -> Judge {
        let patience = if way == Way::Spin { PATIENCE_SPINNING } else { PATIENCE };
        Judge { way, many: true, wait: patience, patience, ..Judge::between(Way::Spin) }
    }

    /// The other way cannot be had here.
    pub(super) fn give_up(&mut self) {
        self.way = Way::Free;
        self.on_trial = false;
        self.patience = PATIENCE_MAX;
        self.wait = PATIENCE_MAX;
    }

    /// It is no time for a trial.
    pub(super) fn put_off(&mut self) {
        self.way = Way::Free;
        self.on_trial = false;
        self.wait = self.patience;
    }

    fn turn(&mut self) {
        self.way = if self.way == Way::Free { self.choice } else { Way::Free };
        self.window.clear();
    }

    /// The share of a call's time that the other way saves beside free, as far as both are known.
    pub(super) fn gain(&self) -> f64 {
        let [free, other] = self.cost;
        if other > 0.0 && other < free { 1.0 - other / free } else { 0.0 }
    }

    /// What a call takes at least whose tracee is no longer near: between what both ways cost.
    pub(super) fn far(&self) -> f64 {
        let [free, near] = self.cost;
        (free * near).sqrt().clamp(near * MOVED_NEAR, near * MOVED_FAR)
    }

    /// Place of the present way among the costs.
    fn at(&self) -> usize {
        usize::from(self.way != Way::Free)
    }

    /// Takes one measure; true where it has judged.
    pub(super) fn take(&mut self, ns: u64) -> bool {
        self.window.push(ns);
        let other = self.cost[1 - self.at()];
        if self.window.len() == EARLY && other > 0.0 && (self.on_trial || self.many) {
            let least = self.window.iter().min().map_or(0.0, |&ns| ns as f64);
            let far = if self.many { FAR_OF_MANY } else { FAR };
            if least > other * far {
                let at = self.at();
                self.cost[at] = least;
                match self.on_trial {
                    true => self.failed(),
                    false => self.try_other(),
                }
                return true;
            }
        }
        if self.window.len() < WINDOW {
            return false;
        }
        self.window.sort_unstable();
        let now = self.window[WINDOW / 4] as f64;
        self.window.clear();
        let at = self.at();
        let cost = &mut self.cost[at];
        *cost = if *cost == 0.0 || self.on_trial { now } else { (*cost * 3.0 + now) / 4.0 };
        let cost = *cost;
        if self.on_trial {
            if cost * self.worth() > other {
                self.failed();
            } else {
                self.on_trial = false;
                self.patience = PATIENCE_WON;
                self.wait = self.patience;
            }
            return true;
        }
        self.wait -= 1;
        // It has become worse than what the other was: that is worth a trial now.
        if self.wait == 0 || (other > 0.0 && cost > other * MARGIN * MARGIN) {
            self.try_other();
        }
        true
    }

    /// By how much the way on trial must be better.
    fn worth(&self) -> f64 {
        if self.many && self.way == Way::Free { FREE_MARGIN } else { MARGIN }
    }

    fn try_other(&mut self) {
        self.turn();
        self.on_trial = true;
    }

    /// The trial was in vain: back, and longer until the next.
    fn failed(&mut self) {
        self.turn();
        self.on_trial = false;
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        self.wait = self.patience;
    }
}
