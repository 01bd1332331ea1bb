//! The paths that a call is given, as NAMEI records (R4): as they stand in memory when the call begins, whatever the
//! kernel will make of them.

use super::memory::Memory;
use super::task::Call;
use crate::hooks::{At, Recorder};
use crate::syscall::Place;

/// Fetches paths. One per tracer thread.
#[derive(Default)]
pub(super) struct Namei {
    path: Vec<u8>,
}

impl Namei {
    /// Each path of a call, in the order of its arguments. One that cannot be read, or has no end within `PATH_MAX`,
    /// makes none: the kernel gets no path from it either.
    pub(super) fn record(&mut self, recorder: &mut Recorder, at: At<'_>, memory: Memory, call: &Call) {
        let (known, args) = call.inner(memory);
        for place in known.into_iter().flat_map(|known| known.paths(&args)) {
            if let Place::Mmsg { addr, count } = place {
                for i in 0..count.min(Memory::VECTORS_MAX) {
                    self.one(recorder, at, memory, Place::Msg(memory.message_at(addr, i)));
                }
            } else {
                self.one(recorder, at, memory, place);
            }
        }
    }

    fn one(&mut self, recorder: &mut Recorder, at: At<'_>, memory: Memory, place: Place) {
        let path = &mut self.path;
        let found = match place {
            Place::String(addr) => memory.string(addr, path),
            Place::Pointer(addr) => memory.pointer(addr).is_some_and(|addr| memory.string(addr, path)),
            Place::Sockaddr { addr, len } => memory.unix_path(addr, len, path),
            Place::Msg(addr) => {
                memory.message_name(addr).is_some_and(|(addr, len)| memory.unix_path(addr, len, path))
            }
            Place::Mmsg { .. } => false,
        };
        if found {
            recorder.namei(at, path);
        }
    }
}
