//! The maps that the daemon and the kernel's side share: who is traced, into which ring, and which calls do what.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError};

use super::load::chain;
use super::places::{Change, Places};
use super::ring::Ring;
use super::sys::Shared;
use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::proc::Trace;
use crate::sink::Policy;
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
/// Words of a filter.
const FILTER: usize = 27;

/// `BPF_EXIST` of the kernel's uapi/linux/bpf.h.
const EXIST: u64 = 2;

/// `struct proc` as its words.
type ProcValue = [u32; 6];
/// `struct thread`.
type ThreadValue = [u64; 2];
/// `struct call`.
type CallValue = [u8; 16];

/// All maps.
pub(super) struct Maps {
    traced: Shared,
    marked: Shared,
    known: Shared,
    inside: Shared,
    sinks: Shared,
    procs: HashMap<MapData, u32, ProcValue>,
    threads: HashMap<MapData, u32, ThreadValue>,
    filters: Array<MapData, [u64; FILTER]>,
    rings: Places,
    /// The filters there are, from slot 1 on.
    made: Vec<Calls>,
}

impl Maps {
    /// Takes them out of a loaded object and fills the table of calls.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(super) fn of(ebpf: &mut Ebpf) -> std::result::Result<Maps, String> {
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
            sinks: mapped(take("sinks")?, SINK * SLOTS as usize)?,
            procs: HashMap::try_from(take("procs")?).map_err(map)?,
            threads: HashMap::try_from(take("threads")?).map_err(map)?,
            filters: Array::try_from(take("filters")?).map_err(map)?,
            rings: Places::of(take("rings")?)?,
            made: Vec::new(),
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
        let filter = trace.calls.as_deref().map_or(Ok(0), |calls| self.filter(calls))?;
        let owner = trace.sink().owner();
        // What a user may see the kernel's side finds out by itself.
        let hide = hidden && owner == 0;
        let flags = [(trace.inherit, INHERIT), (trace.is_roots(), ROOTS), (hide, HIDE), (hidden, HIDDEN)];
        let flags = flags.iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag);
        self.procs
            .insert(
                pid as u32,
                [trace.facs.bits(), flags, slot, filter, owner, 0],
                if known { EXIST } else { 0 },
            )
            .map_err(|error| match error {
                MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                    Error::Gone { pid }
                }
                error => full("processes")(error),
            })?;
        let (word, bit) = place(pid);
        self.traced.word(word).fetch_or(bit, Ordering::SeqCst);
        Ok(())
    }

    /// Of these threads it is not known whether they are in a call: their calls are seen from now on.
    pub(super) fn forget_threads(&self, tids: &[i32]) {
        for tid in tids {
            let (word, bit) = place(*tid);
            self.known.word(word).fetch_and(!bit, Ordering::SeqCst);
            self.inside.word(word).fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Nothing is traced of it any more.
    pub(super) fn release(&mut self, pid: i32) {
        let (word, bit) = place(pid);
        self.traced.word(word).fetch_and(!bit, Ordering::SeqCst);
        // Gone is as good.
        let _ = self.procs.remove(&(pid as u32));
    }

    /// True where the kernel's side still knows it.
    pub(super) fn knows(&self, pid: i32) -> bool {
        self.procs.get(&(pid as u32), 0).is_ok()
    }

    /// The call that this thread is in makes no record of its end (R38).
    pub(super) fn excuse(&mut self, tid: i32) {
        const SKIP: u64 = 1;
        if self.threads.insert(tid as u32, [0, SKIP], 0).is_ok() {
            let (word, bit) = place(tid);
            self.marked.word(word).fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Opens a slot with these rings.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(super) fn open<'a>(
        &mut self,
        slot: u32,
        rings: impl ExactSizeIterator<Item = &'a Ring>,
        policy: Policy,
    ) -> Result<Change> {
        let at = slot as usize * SINK;
        self.sinks.word(at).store(0, Ordering::SeqCst);
        self.sinks.word(at + 8).store(0, Ordering::SeqCst);
        self.sinks.half(at + 16).store(0, Ordering::SeqCst);
        self.sinks.word(at + 24).store(0, Ordering::SeqCst);
        self.set_policy(slot, policy);
        self.put(slot, rings)
    }

    /// Puts rings into a slot: programs that begin from now on write into these, and when the change is done none writes
    /// into what was there.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(super) fn put<'a>(
        &mut self,
        slot: u32,
        rings: impl ExactSizeIterator<Item = &'a Ring>,
    ) -> Result<Change> {
        let (mask, at) = (rings.len() as u32 - 1, slot as usize * SINK + 24);
        let turn = self.sinks.half(at + 4);
        turn.fetch_add(1, Ordering::SeqCst);
        let change = self.rings.put(slot, rings)?;
        self.sinks.half(at).store(mask, Ordering::SeqCst);
        turn.fetch_add(1, Ordering::SeqCst);
        Ok(change)
    }

    /// Takes the rings out of these slots, which are closed, so many of each: when the change is done the kernel has let go
    /// of them.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub(super) fn vacate(&self, slots: &[(u32, u32)]) -> Result<Change> {
        self.rings.vacate(slots)
    }

    /// What a loss means.
    pub(super) fn set_policy(&self, slot: u32, policy: Policy) {
        let stop = u32::from(policy == Policy::Stop);
        self.sinks.half(slot as usize * SINK + 20).store(stop, Ordering::SeqCst);
    }

    /// Nothing more is written into this slot.
    pub(super) fn close(&self, slot: u32) {
        self.sinks.half(slot as usize * SINK + 16).store(libc::EPIPE as u32, Ordering::SeqCst);
    }

    /// True where a loss has ended it.
    pub(super) fn is_dead(&self, slot: u32) -> bool {
        self.sinks.half(slot as usize * SINK + 16).load(Ordering::SeqCst) == libc::EAGAIN as u32
    }

    /// Records and bytes lost that no event has told of; they are told with this.
    pub(super) fn take_lost(&self, slot: u32) -> (u64, u64) {
        let at = slot as usize * SINK;
        match self.sinks.word(at).load(Ordering::SeqCst) {
            0 => (0, 0),
            _ => (
                self.sinks.word(at).swap(0, Ordering::SeqCst),
                self.sinks.word(at + 8).swap(0, Ordering::SeqCst),
            ),
        }
    }

    /// Forgets the filters: nobody uses one.
    pub(super) fn forget_filters(&mut self) {
        self.made.clear();
    }

    fn filter(&mut self, calls: &Calls) -> Result<u32> {
        if let Some(at) = self.made.iter().position(|made| made == calls) {
            return Ok(at as u32 + 1);
        }
        let slot = self.made.len() as u32 + 1;
        if slot >= SLOTS {
            return Err(Error::NoSpace { what: "too many different calls= at once".into() });
        }
        let mut words = [0; FILTER];
        words.iter_mut().zip(calls.words()).for_each(|(word, bits)| *word = bits);
        self.filters.set(slot, words, 0).map_err(full("filters"))?;
        self.made.push(calls.clone());
        Ok(slot)
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

/// What the kernel's side must know of a call: `struct call`.
fn call_value(call: &Syscall) -> CallValue {
    const REMEMBER: u8 = 1;
    const FORK: u8 = 2;
    const ACCESS: u8 = 4;
    const SOCKETCALL: u8 = 8;
    const IPC: u8 = 16;
    let mut value = [0; 16];
    value[0] = call.args.len() as u8;
    value[1] = match call.name {
        "fork" | "vfork" | "clone" | "clone3" => FORK,
        "socketcall" => SOCKETCALL,
        "ipc" => IPC,
        // What stands in the register of the number is another thing at their end.
        "sigreturn" | "rt_sigreturn" => REMEMBER,
        _ if call.args.contains(&Arg::Argv) => REMEMBER,
        name if syscall::changes_access(name) => ACCESS,
        _ => 0,
    };
    if let Some(io) = call.io {
        let (kind, ptr, len) = match io.data {
            Data::Buf { ptr, len } => (1, ptr, len),
            Data::Whole { ptr, len } => (2, ptr, len),
            Data::Msgbuf { ptr, len } => (3, ptr, len),
            Data::Iov { ptr, count } => (4, ptr, count),
            Data::Msg { ptr } => (5, ptr, ptr),
            Data::Mmsg { ptr, count } => (6, ptr, count),
        };
        let dir = match io.dir {
            Dir::Read => 0,
            Dir::Write => 1,
            Dir::Pipe => 2,
        };
        value[2..7].copy_from_slice(&[kind, dir, io.fd.unwrap_or(255), ptr, len]);
    }
    value[7] = match call.name {
        "recvfrom" | "recvmmsg" | "recvmmsg_time64" => 3,
        "recvmsg" => 2,
        _ => 255,
    };
    // Arguments that say where they are themselves.
    let args: [u64; 6] = std::array::from_fn(|i| i as u64);
    let by_argument = call.paths(&args).filter_map(|place| match place {
        Place::String(arg) => Some((1, arg as u8)),
        Place::Sockaddr { addr, .. } => Some((2, addr as u8)),
        Place::Msg(arg) => Some((3, arg as u8)),
        Place::Mmsg { addr, .. } => Some((4, addr as u8)),
        Place::Pointer(_) => None,
    });
    let by_command = match call.name {
        "bpf" => Some((5, 1)),
        "fsconfig" => Some((6, 3)),
        "quotactl" => Some((7, 3)),
        _ => None,
    };
    for (at, (kind, arg)) in by_argument.chain(by_command).take(4).enumerate() {
        value[8 + 2 * at] = kind;
        value[9 + 2 * at] = arg;
    }
    value
}

/// What the kernel's side can give.
pub(super) const FACILITIES: Facs =
    Facs::DEFAULT.union(Facs::EXEC_ARG).union(Facs::EXEC_ENV).union(Facs::CSW);
