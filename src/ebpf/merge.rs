//! The events of several rings in one order. Each cpu writes into a ring of its own, so that they do not wait for each other;
//! what one event has led to must not be read before it.
//!
//! A program reads the clock, and only then makes room in a ring (bpf/emit.h). So an event that is finished before another begins
//! has an earlier time, and is in its ring before the other is in any. Merged by time are, then, all events that were there
//! when it was asked where the writers are: asked twice, so that whatever comes before one of those that the first answer
//! tells of is among those that the second does.

/// What comes next in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Nothing, up to where it was to be looked.
    End,
    /// One that its program has not finished.
    Busy,
    /// One of this time.
    At(u64),
}

/// A ring, by where its events begin.
pub(super) trait Source {
    /// Where the next event will be written: what comes before has begun already.
    fn produced(&self) -> u64;

    /// Where the next event is read.
    fn at(&self) -> u64;

    /// What is there, up to `end`.
    fn next(&mut self, end: u64) -> Next;

    /// Gives the next event to `each`, one that [`next`](Source::next) has found.
    fn take(&mut self, each: impl FnOnce(&[u8]));

    /// Tells the writers how far it has been read.
    fn tell(&mut self);
}

/// A ring among others.
#[derive(Debug)]
pub(super) struct Lane<S> {
    pub(super) source: S,
    /// What the first answer tells of, and the second.
    first: u64,
    end: u64,
    next: Next,
    /// What comes next in this ring was put there after this time.
    since: u64,
}

impl<S: Source> Lane<S> {
    pub(super) fn new(source: S) -> Lane<S> {
        Lane { source, first: 0, end: 0, next: Next::End, since: 0 }
    }

    /// True while not all is read that the first answer told of.
    fn owes(&self) -> bool {
        self.source.at() < self.first
    }
}

/// Gives up to `most` of the events that are there now to `each`, in their order; tells how many there were.
///
/// What comes meanwhile waits for the next time: to run after the writers event by event would cost them a wake-up for
/// each. The kernel wakes us for what it adds after it has seen that we have come to the end.
pub(super) fn merge<S: Source>(lanes: &mut [Lane<S>], most: usize, mut each: impl FnMut(&[u8])) -> usize {
    for lane in &mut *lanes {
        lane.first = lane.source.produced();
    }
    for lane in &mut *lanes {
        lane.end = lane.source.produced();
        lane.next = lane.source.next(lane.end);
    }
    let (mut count, mut latest) = (0, 0);
    let mut owing = lanes.iter().filter(|lane| lane.owes()).count();
    while count < most && owing > 0 {
        let Some((at, until)) = earliest(lanes, &mut owing) else { break };
        let lane = &mut lanes[at];
        let others = owing - usize::from(lane.owes());
        while let Next::At(time) = lane.next
            && time <= until
            && count < most
            && (others > 0 || lane.owes())
        {
            lane.source.take(&mut each);
            count += 1;
            lane.since = lane.since.max(time);
            lane.next = lane.source.next(lane.end);
        }
        latest = latest.max(lane.since);
        owing = others + usize::from(lane.owes());
    }
    for lane in lanes {
        if lane.source.at() >= lane.end {
            // It was empty after all of those were written.
            lane.since = lane.since.max(latest);
        }
        lane.source.tell();
    }
    count
}

/// The ring whose next event is the earliest, and up to which time it may be read; `None` where that depends on one that is not
/// finished: what is behind that one may be earlier than anything after its `since`. `owing` is how many rings owe something.
fn earliest<S: Source>(lanes: &mut [Lane<S>], owing: &mut usize) -> Option<(usize, u64)> {
    let mut first: Option<(u64, usize)> = None;
    let mut until = u64::MAX;
    for (at, lane) in lanes.iter_mut().enumerate() {
        if lane.next == Next::Busy {
            let owed = lane.owes();
            lane.next = lane.source.next(lane.end);
            // It may have been discarded.
            *owing -= usize::from(owed && !lane.owes());
        }
        match (lane.next, first) {
            (Next::End, _) => {}
            (Next::Busy, _) => until = until.min(lane.since),
            (Next::At(time), Some((least, _))) if least <= time => until = until.min(time),
            (Next::At(time), before) => {
                first = Some((time, at));
                until = before.map_or(until, |(least, _)| until.min(least));
            }
        }
    }
    first.filter(|(time, _)| *time <= until).map(|(_, at)| (at, until))
}

#[cfg(test)]
mod tests;
