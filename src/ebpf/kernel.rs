//! The maps that the daemon and the kernel's side share: who is traced, into which ring, and which calls do what.

mod call;
mod filters;
mod shares;
mod sinks;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError};

use self::call::call_value;
use self::filters::Filter;
use super::load::{Limits, chain};
use super::places::{Change, Places};
use super::ring::Ring;
use super::sys::Shared;
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::proc::Trace;
use crate::sink::{Policy, Sink};
use crate::syscall::{self, Abi, Arg, Calls, Data, Dir, Place, Syscall};

/// Slots of sinks, and of filters: the first filter is none.
pub(super) const SLOTS: u32 = 1024;
/// Bytes of `struct bits`, of `struct sink`.
const BITS: usize = 4_194_304 / 8;
const SINK: usize = 64;
/// Flags of `struct proc`.
const INHERIT: u32 = 1;
const ROOTS: u32 = 2;
const HIDE: u32 = 4;
const HIDDEN: u32 = 8;
const UNTOLD: u32 = 16;
const ROOT: u32 = 32;
/// Words of a filter.
const FILTER: usize = 27;

/// `BPF_EXIST` of the kernel's uapi/linux/bpf.h.
const EXIST: u64 = 2;

/// Bytes of `shares`.
const SHARES: usize = 8 * (1 + SLOTS as usize);

/// `struct proc` as its words.
type ProcValue = [u32; 6];
/// `struct thread`.
type ThreadValue = [u64; 2];
/// `struct fatal`.
type FatalValue = [u64; 7];
/// `THREAD_SKIP`.
const SKIP: u64 = 1;
/// `struct call`.
type CallValue = [u8; 16];

/// All maps.
pub(super) struct Maps {
    traced: Shared,
    marked: Shared,
    known: Shared,
    inside: Shared,
    fated: Shared,
    sinks: Shared,
    shares: Shared,
    /// How often `procs` was changed: the programs believe their copies of its entries until then.
    changes: Shared,
    procs: HashMap<MapData, u32, ProcValue>,
    threads: HashMap<MapData, u32, ThreadValue>,
    fatals: HashMap<MapData, u32, FatalValue>,
    filters: Array<MapData, [u64; FILTER]>,
    rings: Places,
    /// The number of the sink in each slot, or of the last one there.
    ids: Vec<u32>,
    /// The filters there are, from slot 1 on.
    made: Vec<Option<Filter>>,
    /// The owners that have entries in `procs`, from the first share on.
    owners: Vec<u32>,
    /// Most entries in `procs`.
    most: u32,
    /// Most filters.
    filters_max: usize,
}

/// What the kernel's side has of a process that is traced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) facs: u32,
    pub(super) flags: u32,
    pub(super) filter: u32,
}

impl Entry {
    pub(super) fn is_hidden(self) -> bool {
        self.flags & HIDDEN != 0
    }
}

impl Maps {
    /// Takes them out of a loaded object and fills the table of calls.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(super) fn of(ebpf: &mut Ebpf, limits: &Limits) -> std::result::Result<Maps, String> {
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| format!("the object has no map {name}"));
        let map = |error: MapError| chain(&error);
        let mut calls: Array<MapData, CallValue> = Array::try_from(take("calls")?).map_err(map)?;
        for (at, abi) in Abi::ALL.into_iter().enumerate() {
            for (number, call) in syscall::numbers(abi) {
                let key = (at * syscall::NUMBERS) as u32 + number as u32;
                calls.set(key, call_value(call), 0).map_err(map)?;
            }
        }
        Ok(Maps {
            traced: mapped(take("traced")?, BITS)?,
            marked: mapped(take("marked")?, BITS)?,
            known: mapped(take("known")?, BITS)?,
            inside: mapped(take("inside")?, BITS)?,
            fated: mapped(take("fated")?, BITS)?,
            sinks: mapped(take("sinks")?, SINK * SLOTS as usize)?,
            shares: mapped(take("shares")?, SHARES)?,
            changes: mapped(take("changes")?, size_of::<u64>())?,
            procs: HashMap::try_from(take("procs")?).map_err(map)?,
            threads: HashMap::try_from(take("threads")?).map_err(map)?,
            fatals: HashMap::try_from(take("fatals")?).map_err(map)?,
            filters: Array::try_from(take("filters")?).map_err(map)?,
            rings: Places::of(take("rings")?)?,
            ids: (0..SLOTS).collect(),
            made: Vec::new(),
            owners: Vec::new(),
            most: limits.procs,
            filters_max: limits.filters,
        })
    }

    /// Brings what is traced of a process to this; `hidden`: its memory must not be read. `known`: it is traced already, and
    /// must not be again where the kernel's side has let it go meanwhile (R23).
    ///
    /// # Errors
    /// ENOSPC where there are too many processes or filters; ESRCH where a known one was let go.
    pub(super) fn trace(
        &mut self,
        pid: i32,
        trace: &Trace,
        slot: u32,
        hidden: bool,
        known: bool,
    ) -> Result<()> {
        let owner = trace.sink().owner();
        let filter = trace.calls.as_deref().map_or(Ok(0), |calls| self.filter(calls, owner))?;
        let (inherit, root) = (trace.inherit, trace.root);
        // What a user may see the kernel's side finds out by itself.
        let hide = hidden && owner == 0;
        let flags =
            [(inherit, INHERIT), (trace.is_roots(), ROOTS), (hide, HIDE), (hidden, HIDDEN), (root, ROOT)];
        let flags = flags.iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag);
        let value = [trace.facs.bits(), flags, self.ids[slot as usize], filter, owner, 0];
        self.enter(pid, value, known)
    }

    /// Of this process only an exec that gives privilege is seen: then it is not known any more.
    ///
    /// # Errors
    /// ENOSPC.
    pub(super) fn hold(&mut self, pid: i32, trace: &Trace, slot: u32) -> Result<()> {
        self.enter(pid, [0, 0, self.ids[slot as usize], 0, trace.sink().owner(), 0], false)
    }

    fn enter(&mut self, pid: i32, mut value: ProcValue, known: bool) -> Result<()> {
        let owner = value[4];
        if !known {
            // Somebody's whose end nobody saw. Only who takes an entry out counts it out: it may be going at this moment.
            self.take_out(pid);
        }
        let former = self.procs.get(&(pid as u32), 0).ok().map(|former| former[5]);
        let share = self.share(owner).filter(|&share| former.is_some() || self.has_share(share));
        value[5] = share.ok_or_else(|| Error::NoSpace {
            what: format!("too many processes are traced for uid {owner}").into(),
        })?;
        if !known {
            // Of a former process, or of an earlier trace.
            self.forget_fatal(pid);
        }
        let entered = self.procs.insert(pid as u32, value, if known { EXIST } else { 0 });
        entered.map_err(|error| match error {
            MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Error::Gone { pid }
            }
            error => full("processes")(error),
        })?;
        self.procs_changed();
        self.count(value[5], 1);
        if let Some(former) = former {
            self.count(former, -1);
        }
        let (word, bit) = place(pid);
        self.traced.word(word).fetch_or(bit, Ordering::SeqCst);
        Ok(())
    }

    /// Of these threads it is not known whether they are in a call: their calls are seen from now on.
    pub(super) fn forget_threads(&mut self, tids: &[i32]) {
        for tid in tids {
            let (word, bit) = place(*tid);
            self.known.word(word).fetch_and(!bit, Ordering::SeqCst);
            self.inside.word(word).fetch_and(!bit, Ordering::SeqCst);
            self.forget_call(*tid, false);
        }
    }

    /// What is remembered of the call that this thread is in, of its excuse only where that is taken back.
    pub(super) fn forget_call(&mut self, tid: i32, excuse: bool) {
        let (word, bit) = place(tid);
        if self.marked.word(word).load(Ordering::SeqCst) & bit == 0 {
            return;
        }
        if self.threads.get(&(tid as u32), 0).is_ok_and(|thread| (thread[1] & SKIP != 0) != excuse) {
            return;
        }
        self.marked.word(word).fetch_and(!bit, Ordering::SeqCst);
        // Gone is as good.
        let _ = self.threads.remove(&(tid as u32));
    }

    /// What is remembered of all calls, of nobody any more.
    pub(super) fn forget_calls(&mut self) {
        let tids: Vec<u32> = self.threads.keys().flatten().collect();
        for tid in tids {
            self.forget_call(tid as i32, false);
        }
    }

    /// Nothing is traced of it any more.
    pub(super) fn release(&mut self, pid: i32) {
        let (word, bit) = place(pid);
        self.traced.word(word).fetch_and(!bit, Ordering::SeqCst);
        self.take_out(pid);
        self.forget_fatal(pid);
    }

    fn take_out(&mut self, pid: i32) {
        // Gone is as good.
        if let Ok(former) = self.procs.get(&(pid as u32), 0)
            && self.procs.remove(&(pid as u32)).is_ok()
        {
            self.procs_changed();
            self.count(former[5], -1);
        }
    }

    fn changes(&self) -> u64 {
        self.changes.word(0).load(Ordering::SeqCst)
    }

    /// To be called after each change: a program that begins from now on sees it.
    fn procs_changed(&self) {
        self.changes.word(0).fetch_add(1, Ordering::SeqCst);
    }

    /// The signal that was to end it.
    fn forget_fatal(&mut self, pid: i32) {
        let (word, bit) = place(pid);
        if self.fated.word(word).load(Ordering::SeqCst) & bit != 0 {
            self.fated.word(word).fetch_and(!bit, Ordering::SeqCst);
            // Gone is as good.
            let _ = self.fatals.remove(&(pid as u32));
        }
    }

    /// True where the kernel's side still knows it.
    pub(super) fn knows(&self, pid: i32) -> bool {
        self.procs.get(&(pid as u32), 0).is_ok()
    }

    /// What is traced of a process, into the sink that its entry is of.
    pub(super) fn trace_of(&self, entry: Entry, sink: &Arc<Sink>) -> Trace {
        let at = (entry.filter as usize).checked_sub(1);
        Trace {
            facs: Facs::from_bits_truncate(entry.facs),
            inherit: entry.flags & INHERIT != 0,
            root: entry.flags & ROOT != 0,
            seccomp: false,
            calls: at.and_then(|at| self.made.get(at)?.as_ref()).map(|filter| Arc::new(filter.calls.clone())),
            backend: super::NAME,
            writer: sink.writer(),
        }
    }

    /// The processes of this slot whose birth had no room in the ring, where there may be any that have not been asked for.
    pub(super) fn untold(&self, slot: u32) -> Vec<(i32, Entry)> {
        let at = slot as usize * SINK + 52;
        if self.sinks.half(at).load(Ordering::SeqCst) == 0
            || self.sinks.half(at).swap(0, Ordering::SeqCst) == 0
        {
            return Vec::new();
        }
        let id = self.ids[slot as usize];
        let is_one = |value: &ProcValue| value[2] == id && value[1] & UNTOLD != 0;
        // Where entries go meanwhile it may begin anew: that has an end too.
        let all = self.procs.iter().take(2 * self.most as usize).flatten();
        all.filter(|(_, value)| is_one(value))
            .map(|(pid, [facs, flags, _, filter, ..])| (pid as i32, Entry { facs, flags, filter }))
            .collect()
    }

    /// The call that this thread is in makes no record of its end (R38).
    pub(super) fn excuse(&mut self, tid: i32) {
        if self.threads.insert(tid as u32, [0, SKIP], 0).is_ok() {
            let (word, bit) = place(tid);
            self.marked.word(word).fetch_or(bit, Ordering::SeqCst);
        }
    }
}

fn full(what: &'static str) -> impl Fn(MapError) -> Error {
    move |error| Error::NoSpace { what: format!("{what} in the kernel: {}", chain(&error)).into() }
}

/// Where the bit of a process or thread is: the word's offset in bytes, and the bit.
fn place(pid: i32) -> (usize, u64) {
    let pid = pid as usize;
    (pid / 64 * 8 % BITS, 1 << (pid % 64))
}

fn mapped(map: Map, len: usize) -> std::result::Result<Shared, String> {
    let Map::Array(data) = map else { return Err("not an array".into()) };
    Shared::of(data.fd().as_fd(), 0, len, true).map_err(|error| format!("mapping a map: {error}"))
}

/// What the kernel's side can give.
pub(super) const FACILITIES: Facs =
    Facs::DEFAULT.union(Facs::EXEC_ARG).union(Facs::EXEC_ENV).union(Facs::CSW);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::load::{Calls, Programs};
    use crate::ebpf::tests::where_there_is;

    #[test]
    fn what_was_counted_wrong_is_right_when_nobody_is_traced_any_more() {
        let mut limits = Limits::get();
        limits.procs = 2;
        let loaded = Programs::load(Calls::of_this_kernel(), &limits);
        let Some(mut programs) = where_there_is(loaded) else { return };
        let mut maps = Maps::of(programs.ebpf(), &limits).unwrap();
        let pid = i32::MAX;
        maps.enter(pid, [0; 6], false).unwrap();
        assert!(!maps.has_share(1), "with one more it would have more than are free");
        maps.count(1, 1);
        maps.release(pid);
        assert!(!maps.has_share(1));
        maps.recount();
        assert!(maps.has_share(1));
        maps.enter(pid, [0; 6], false).unwrap();
        maps.recount();
        assert!(!maps.has_share(1), "who is there is counted");
        // One that is entered anew is one.
        maps.enter(pid, [0; 6], false).unwrap();
        maps.release(pid);
        assert!(maps.has_share(1));
    }
}
