//! Which emulation a process is in: the meaning of its numbers.

use std::collections::{BTreeMap, HashMap};

use crate::record::{Body, Psig, Record, Stamp};
use crate::syscall::{self, Abi, Syscall};

/// What EMUL records name, and `kdump -e`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Emulation {
    /// One of Linux's ABIs: names, negative errnos.
    Linux(Abi),
    /// Another system's: numbers without names.
    Foreign,
}

impl Emulation {
    /// The emulation that `kdump -e` knows by this name; `netbsd` and `netbsd32` are foreign.
    pub fn by_name(name: &[u8]) -> Option<Emulation> {
        match name {
            b"netbsd" | b"netbsd32" => Some(Emulation::Foreign),
            _ => Abi::from_name(name).map(Emulation::Linux),
        }
    }

    /// Its name, `?` for a foreign one.
    pub fn name(self) -> &'static str {
        match self {
            Emulation::Linux(abi) => abi.name(),
            Emulation::Foreign => "?",
        }
    }

    /// The call of this number.
    pub(super) fn call(self, code: i32) -> Option<&'static Syscall> {
        match self {
            Emulation::Linux(abi) => syscall::lookup(abi, code.into()),
            Emulation::Foreign => None,
        }
    }
}

/// The emulation of every process of a stream, by its EMUL records, and of every call that has not returned: an exec
/// changes the first while the call is under way.
#[derive(Clone, Debug)]
pub(super) struct Emulations {
    default: Emulation,
    /// Those that differ from the default.
    others: HashMap<i32, Emulation>,
    /// By process and thread, where its slot is another's. With a process's end all of its go: most threads never return from
    /// the call in which they then are.
    calls: BTreeMap<(i32, i32), (i16, Emulation)>,
    /// Each thread's by the end of its number: mostly its last record is the last one there, and nothing is looked up.
    slots: Box<[Slot; SLOTS]>,
}

/// Threads that are told apart by the ends of their numbers.
pub(super) const SLOTS: usize = 32;

/// Which slot is this thread's.
#[inline]
pub(super) fn slot(tid: i32) -> usize {
    tid as usize % SLOTS
}

/// A thread, as it was after its last record.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Process and thread; both 0 at the beginning.
    whose: (i32, i32),
    /// The process's.
    emulation: Emulation,
    /// The call that has not returned.
    call: Option<(i16, Emulation)>,
}

impl Emulations {
    pub(super) fn new(default: Emulation) -> Emulations {
        let slots = Box::new([Slot { whose: (0, 0), emulation: default, call: None }; SLOTS]);
        Emulations { default, others: HashMap::new(), calls: BTreeMap::new(), slots }
    }

    /// The slot of a record's thread, which is this thread's then.
    #[inline]
    fn thread(&mut self, stamp: &Stamp) -> &mut Slot {
        let (at, whose) = (slot(stamp.tid), (stamp.pid, stamp.tid));
        if self.slots[at].whose != whose {
            self.turn_to(at, whose);
        }
        &mut self.slots[at]
    }

    #[cold]
    fn turn_to(&mut self, at: usize, whose: (i32, i32)) {
        if let Some(call) = self.slots[at].call {
            self.calls.insert(self.slots[at].whose, call);
        }
        let emulation = self.others.get(&whose.0).copied().unwrap_or(self.default);
        self.slots[at] = Slot { whose, emulation, call: self.calls.remove(&whose) };
    }

    /// Takes note of any record, and gives the emulation in which it is to be read.
    #[inline(always)]
    pub(super) fn record(&mut self, record: &Record<'_>) -> Emulation {
        let stamp = &record.header.stamp;
        match record.body() {
            Body::Emul(name) => self.change(stamp.pid, name),
            Body::Syscall { code, .. } => return self.call(stamp, code),
            Body::Sysret { code, .. } => return self.ret(stamp, code),
            Body::Psig(psig) => self.signal(stamp.pid, &psig),
            _ => {}
        }
        self.thread(stamp).emulation
    }

    /// An EMUL record.
    pub(super) fn change(&mut self, pid: i32, name: &[u8]) {
        let to = Emulation::by_name(name).unwrap_or(Emulation::Foreign);
        if to == self.default {
            self.others.remove(&pid);
        } else {
            self.others.insert(pid, to);
        }
        let of_pid = self.slots.iter_mut().filter(|slot| slot.whose.0 == pid);
        of_pid.for_each(|slot| slot.emulation = to);
    }

    /// A SYSCALL record: in which emulation.
    #[inline]
    pub(super) fn call(&mut self, stamp: &Stamp, code: i32) -> Emulation {
        let thread = self.thread(stamp);
        let emulation = thread.emulation;
        let call = emulation.call(code);
        thread.call = (!is_exit(call)).then_some((code as i16, emulation));
        if call.is_some_and(|call| call.name == EXIT_GROUP) {
            self.ended(stamp.pid);
        }
        emulation
    }

    /// A PSIG record: without a handler the process ends (R7).
    pub(super) fn signal(&mut self, pid: i32, psig: &Psig) {
        if psig.action == SIG_DFL {
            self.ended(pid);
        }
    }

    /// A process ends. Records that it makes all the same, of other threads, are read in its present emulation.
    #[cold]
    fn ended(&mut self, pid: i32) {
        self.slots.iter_mut().filter(|slot| slot.whose.0 == pid).for_each(|slot| slot.call = None);
        while let Some((&whose, _)) = self.calls.range((pid, i32::MIN)..=(pid, i32::MAX)).next() {
            self.calls.remove(&whose);
        }
    }

    /// A SYSRET record: in which emulation the call was made.
    #[inline]
    pub(super) fn ret(&mut self, stamp: &Stamp, code: i16) -> Emulation {
        let thread = self.thread(stamp);
        match thread.call.take() {
            Some((called, emulation)) if called == code => emulation,
            _ => thread.emulation,
        }
    }
}

const EXIT_GROUP: &str = "exit_group";
const SIG_DFL: u64 = 0;

/// True for the calls that never return.
pub(super) fn is_exit(call: Option<&Syscall>) -> bool {
    call.is_some_and(|call| matches!(call.name, "exit" | EXIT_GROUP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Args, Comm, Time, encode, record_at};

    /// A call of a thread, with more threads after it than there are slots.
    fn calls(emulations: &mut Emulations, pid: i32, code: i32) {
        let stamp = |tid| Stamp { time: Time::default(), pid, tid, comm: Comm::default() };
        for tid in 0..2 * SLOTS as i32 {
            emulations.call(&stamp(pid + tid), code);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_process_that_has_ended() {
        let (futex, exit_group) = (202, 231);
        let end = |emulations: &mut Emulations, pid, body| {
            let stamp = Stamp { time: Time::default(), pid, tid: pid, comm: Comm::default() };
            let mut bytes = Vec::new();
            encode(&mut bytes, &stamp, &body);
            emulations.record(&record_at(&bytes, 0).unwrap().unwrap());
        };
        let psig = Psig { signo: 15, action: SIG_DFL, ..Psig::default() };
        for body in [Body::Syscall { code: exit_group, args: Args::Words(&[]) }, Body::Psig(psig)] {
            let mut emulations = Emulations::new(Emulation::Linux(Abi::Linux));
            for pid in (1..100).map(|n| n * 1000) {
                calls(&mut emulations, pid, futex);
                assert!(emulations.calls.len() >= SLOTS);
                end(&mut emulations, pid, body);
            }
            assert!(emulations.calls.is_empty(), "{}", emulations.calls.len());
        }
    }
}
