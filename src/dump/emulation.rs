//! Which emulation a process is in: the meaning of its numbers.

use std::collections::HashMap;

use crate::record::{Body, Stamp};
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
    /// By process and thread; that of the last record's thread stands there.
    calls: HashMap<(i32, i32), (i16, Emulation)>,
    last: Last,
}

/// The thread of the last record: mostly the next one is the same thread's, and nothing is looked up.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// Process and thread.
    whose: (i32, i32),
    /// The process's.
    emulation: Emulation,
    /// The call that has not returned.
    call: Option<(i16, Emulation)>,
}

impl Emulations {
    pub(super) fn new(default: Emulation) -> Emulations {
        let last = Last { whose: (0, 0), emulation: default, call: None };
        Emulations { default, others: HashMap::new(), calls: HashMap::new(), last }
    }

    /// The thread of this record, which is the last one then.
    #[inline]
    fn thread(&mut self, stamp: &Stamp) -> &mut Last {
        let whose = (stamp.pid, stamp.tid);
        if self.last.whose != whose {
            self.turn_to(whose);
        }
        &mut self.last
    }

    #[cold]
    fn turn_to(&mut self, whose: (i32, i32)) {
        if let Some(call) = self.last.call {
            self.calls.insert(self.last.whose, call);
        }
        let emulation = self.others.get(&whose.0).copied().unwrap_or(self.default);
        self.last = Last { whose, emulation, call: self.calls.remove(&whose) };
    }

    /// Takes note of any record, and gives the emulation in which it is to be read.
    #[inline]
    pub(super) fn record(&mut self, stamp: &Stamp, body: &Body<'_>) -> Emulation {
        match *body {
            Body::Emul(name) => {
                self.change(stamp.pid, name);
                self.thread(stamp).emulation
            }
            Body::Syscall { code, .. } => self.call(stamp, code),
            Body::Sysret { code, .. } => self.ret(stamp, code),
            _ => self.thread(stamp).emulation,
        }
    }

    /// An EMUL record.
    pub(super) fn change(&mut self, pid: i32, name: &[u8]) {
        let to = Emulation::by_name(name).unwrap_or(Emulation::Foreign);
        if to == self.default {
            self.others.remove(&pid);
        } else {
            self.others.insert(pid, to);
        }
        if self.last.whose.0 == pid {
            self.last.emulation = to;
        }
    }

    /// A SYSCALL record: in which emulation.
    #[inline]
    pub(super) fn call(&mut self, stamp: &Stamp, code: i32) -> Emulation {
        let thread = self.thread(stamp);
        let emulation = thread.emulation;
        thread.call = (!is_exit(emulation.call(code))).then_some((code as i16, emulation));
        emulation
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

/// True for the calls that never return.
pub(super) fn is_exit(call: Option<&Syscall>) -> bool {
    call.is_some_and(|call| matches!(call.name, "exit" | "exit_group"))
}
