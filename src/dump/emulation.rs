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
    /// By process and thread.
    calls: HashMap<(i32, i32), (i16, Emulation)>,
}

impl Emulations {
    pub(super) fn new(default: Emulation) -> Emulations {
        Emulations { default, others: HashMap::new(), calls: HashMap::new() }
    }

    /// Of the process now.
    pub(super) fn of(&self, pid: i32) -> Emulation {
        self.others.get(&pid).copied().unwrap_or(self.default)
    }

    /// Takes note of any record, and gives the emulation in which it is to be read.
    pub(super) fn record(&mut self, stamp: &Stamp, body: &Body<'_>) -> Emulation {
        match *body {
            Body::Emul(name) => {
                self.change(stamp.pid, name);
                self.of(stamp.pid)
            }
            Body::Syscall { code, .. } => self.call(stamp, code),
            Body::Sysret { code, .. } => self.ret(stamp, code),
            _ => self.of(stamp.pid),
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
    }

    /// A SYSCALL record: in which emulation.
    pub(super) fn call(&mut self, stamp: &Stamp, code: i32) -> Emulation {
        let emulation = self.of(stamp.pid);
        if is_exit(emulation.call(code)) {
            self.calls.remove(&(stamp.pid, stamp.tid));
        } else {
            self.calls.insert((stamp.pid, stamp.tid), (code as i16, emulation));
        }
        emulation
    }

    /// A SYSRET record: in which emulation the call was made.
    pub(super) fn ret(&mut self, stamp: &Stamp, code: i16) -> Emulation {
        match self.calls.remove(&(stamp.pid, stamp.tid)) {
            Some((called, emulation)) if called == code => emulation,
            _ => self.of(stamp.pid),
        }
    }
}

/// True for the calls that never return.
pub(super) fn is_exit(call: Option<&Syscall>) -> bool {
    call.is_some_and(|call| matches!(call.name, "exit" | "exit_group"))
}
