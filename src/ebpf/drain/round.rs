//! Rounds over the rings, and reading one up to a place: in which order, how much at a time, and when readers are woken.

use std::time::{Duration, Instant};

use super::Drain;
use crate::ebpf::event;
use crate::ebpf::observe::{One, STEP_MIN, offset_now};
use crate::ebpf::slot::Slot;
use crate::sink::{Allowance, Kept, Sink};

/// Events that are read of one sink before the others have their turn.
const TURN: usize = 16384;
/// Of these so many before it is looked whether a reader is to be woken: some 25 microseconds.
const STEP: usize = 256;
/// An event is written in microseconds, by a program that nothing interrupts for long.
const STUCK_MAX: Duration = Duration::from_secs(1);
/// What has been read of the rings, and whether they have all had their turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ebpf) struct Pass {
    pub(in crate::ebpf) events: usize,
    /// One of the sinks has a reader.
    pub(in crate::ebpf) is_read: bool,
    pub(in crate::ebpf) is_last: bool,
}

/// Whose turn it is to be read.
#[derive(Default)]
pub(super) struct Turn {
    at: usize,
    /// So many events have been read in it.
    events: usize,
    /// Where it ends, once it has taken more than a step: what comes meanwhile waits for the next. To run after who makes events
    /// would keep their readers from the cpu.
    until: Vec<u64>,
}

impl Drain {
    /// Reads what is there, of each sink at most a turn, until all have had theirs or a reader is to be woken: who holds the lock
    /// lets go of it then, and comes again.
    pub(in crate::ebpf) fn pass(&mut self) -> Pass {
        let offset = offset_now();
        if (offset - self.out.offset).abs() > STEP_MIN {
            self.out.offset = offset;
        }
        let (mut count, mut is_read) = (0, false);
        while let Some(slot) = self.slots.get_mut(self.turn.at) {
            let at = self.turn.at;
            let mut events = 0;
            if let Some(slot) = slot {
                if self.turn.events == 0 {
                    // Only here: whoever reads up to a place must not find other rings there.
                    slot.tend(at, &mut self.maps, &self.epoll);
                }
                events = self.read(at);
            }
            count += events;
            is_read |= events > 0 && self.slots[at].as_ref().is_some_and(|slot| slot.sink.is_read());
            let over = self.is_over(events);
            let wakes = Kept::any() && (over || self.has_enough(at));
            if over {
                self.turn = Turn { at: at + 1, ..Turn::default() };
            }
            if wakes {
                return Pass { events: count, is_read, is_last: false };
            }
        }
        self.turn = Turn::default();
        Pass { events: count, is_read, is_last: true }
    }

    /// Nobody is to be woken for what comes: the rings are looked at without that. Each wake-up is an interrupt for who makes the event.
    pub(in crate::ebpf) fn hush(&mut self) {
        self.slots.iter_mut().flatten().for_each(Slot::hush);
    }

    /// What comes from now on wakes who waits for it; false where there is something already, which does not.
    pub(in crate::ebpf) fn listen(&mut self) -> bool {
        let mut empty = true;
        for slot in self.slots.iter_mut().flatten() {
            empty &= slot.listen();
        }
        empty
    }

    /// Whether a reader that is to be woken need not wait for the end of the turn: what there is by now is worth an answer. Else it
    /// would be woken for the first step of a beat, and again for the rest.
    fn has_enough(&self, at: usize) -> bool {
        let enough = |sink: &Sink| sink.waiting() >= Allowance::enough(sink.attainable());
        self.slots[at].as_ref().is_none_or(|slot| enough(&slot.sink))
    }

    /// Whether the turn is over in which now so many events have been read.
    fn is_over(&mut self, events: usize) -> bool {
        let Turn { at, events: all, until } = &mut self.turn;
        *all += events;
        let Some(slot) = self.slots[*at].as_ref().filter(|_| events == STEP && *all < TURN) else {
            return true;
        };
        if *all == STEP {
            *until = slot.produced();
        }
        slot.has_read(until)
    }

    /// Reads until all that was in the rings before is in the sink.
    pub(super) fn settle_slot(&mut self, at: usize) {
        let Some(slot) = &self.slots[at] else { return };
        let places = slot.produced();
        let begun = Instant::now();
        Kept::hand_over();
        while self.slots[at].as_ref().is_some_and(|slot| !slot.has_read(&places)) {
            if self.read(at) == 0 {
                if begun.elapsed() > STUCK_MAX {
                    return log::error!("eBPF: an event in a ring is not finished");
                }
                // A program is in the midst of it, on another cpu.
                std::hint::spin_loop();
            }
        }
        self.account(at);
        self.take_in(at);
    }

    /// Reads so many events of a sink as are there, at most a step.
    fn read(&mut self, at: usize) -> usize {
        let Drain { procs, maps, slots, out, limits, .. } = self;
        let Some(slot) = slots[at].as_mut() else { return 0 };
        let count = slot.read(STEP, |sink, watched, bytes| {
            let mut one = One { procs, maps, sink, watched, out, slot: at as u32 };
            if let Some((head, call)) = event::call(bytes) {
                one.call(head, call);
            } else if let Some((head, event)) = event::parse(bytes) {
                one.event(&head, event);
            }
        });
        out.recorder.flush();
        out.events += count as u64;
        assert!(out.events <= limits.events, "more events than a test allows");
        if maps.is_dead(at as u32) && slot.is_read() {
            // R30.
            slot.sink.give_up(libc::EAGAIN);
        }
        count
    }
}
