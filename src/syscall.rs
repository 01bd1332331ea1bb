//! The system calls of each ABI: number, name, the kind of every argument, and where a call moves user data.
//!
//! One table serves the observer (what to fetch from the tracee) and the printer (how to show an argument).
//! Calls up to Linux 6.18.

mod calls;
mod i386;
mod multiplexer;
mod paths;
mod x86_64;

use std::fmt;
use std::sync::LazyLock;

pub use multiplexer::multiplexed;
pub use paths::Place;

/// Through which door a call came: what ktrace calls an emulation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Abi {
    /// x86-64, `linux`.
    Linux,
    /// i386, `linux32`, also `int 0x80` from 64-bit code.
    Linux32,
    /// x32 (bit 30 of the number), `linuxx32`.
    LinuxX32,
}

impl Abi {
    /// Every one, in the order of `abi as usize`.
    pub const ALL: [Abi; 3] = [Abi::Linux, Abi::Linux32, Abi::LinuxX32];

    /// The emulation's name as EMUL records carry it.
    pub fn name(self) -> &'static str {
        match self {
            Abi::Linux => "linux",
            Abi::Linux32 => "linux32",
            Abi::LinuxX32 => "linuxx32",
        }
    }

    /// The ABI of that emulation name.
    pub fn from_name(name: &[u8]) -> Option<Abi> {
        Abi::ALL.into_iter().find(|abi| abi.name().as_bytes() == name)
    }

    /// Bytes of a pointer or `long` in memory of a process that calls through it.
    pub fn word(self) -> usize {
        if self == Abi::Linux { 8 } else { 4 }
    }
}

/// What an argument is: how to print it, and what to fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A signed number, in decimal.
    Int,
    /// A length or count, in decimal.
    Size,
    /// A file offset, in decimal.
    Off,
    /// A descriptor, in decimal.
    Fd,
    /// A descriptor of a directory or AT_FDCWD.
    DirFd,
    /// Flags or a command without a name here, in hex.
    Flags,
    /// A file mode, in octal.
    Mode,
    /// An address.
    Ptr,
    /// A signal number.
    Sig,
    /// A process or thread id.
    Pid,
    /// A NUL-terminated path: makes a NAMEI record.
    Path,
    /// A `struct sockaddr`, its length in the next argument: makes a NAMEI record where it has a path (unix(7)).
    Sockaddr,
    /// `argv` of an exec.
    Argv,
    /// `envp` of an exec.
    Envp,
    /// The request of an ioctl.
    Ioctl,
}

/// Which way user data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dir {
    /// From the kernel to the process.
    Read,
    /// From the process to the kernel.
    Write,
    /// As the descriptor says: into a pipe through its writing end, out of it through the other (vmsplice).
    Pipe,
}

/// How user data is pointed to; the numbers are argument positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// One buffer; the call's result is the number of bytes moved, or more where a message was cut (MSG_TRUNC).
    Buf {
        /// Its address.
        ptr: u8,
        /// Its length.
        len: u8,
    },
    /// One buffer, moved whole where the call succeeds: the result says nothing of its length (mq_timedsend).
    Whole {
        /// Its address.
        ptr: u8,
        /// Its length.
        len: u8,
    },
    /// The text of a `struct msgbuf`: moved whole where it is written, else the result is the number of bytes moved.
    Msgbuf {
        /// The structure's address.
        ptr: u8,
        /// The text's length.
        len: u8,
    },
    /// An array of `struct iovec`; the result is the number of bytes moved.
    Iov {
        /// Its address.
        ptr: u8,
        /// How many.
        count: u8,
    },
    /// A `struct msghdr` with its iovecs; the result is the number of bytes moved.
    Msg {
        /// Its address.
        ptr: u8,
    },
    /// An array of `struct mmsghdr`; the result is the number of messages, each with its own length.
    Mmsg {
        /// Its address.
        ptr: u8,
        /// How many.
        count: u8,
    },
}

/// User data that a call moves: what GENIO shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Io {
    /// Which way.
    pub dir: Dir,
    /// Position of the descriptor among the arguments; `None` for a call that has none (getrandom: -1 is recorded).
    pub fd: Option<u8>,
    /// Where the data is.
    pub data: Data,
}

/// One system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Syscall {
    /// Its name in Linux.
    pub name: &'static str,
    /// The kinds of its arguments, as many as it takes.
    pub args: &'static [Arg],
    /// The user data it moves.
    pub io: Option<Io>,
}

/// True for the calls after which a process may be dumpable no longer, or again: `PR_SET_DUMPABLE` and those that change
/// ids or capabilities (`commit_creds` of the kernel's kernel/cred.c).
pub fn changes_access(name: &str) -> bool {
    let ids = name.strip_prefix("set").map(|ids| ids.strip_suffix("32").unwrap_or(ids));
    let ids = ids.is_some_and(|ids| ids.ends_with("uid") || ids.ends_with("gid") && ids != "pgid");
    ids || matches!(name, "prctl" | "capset" | "unshare" | "setns")
}

/// Largest number of a call that the tables know, plus one.
pub const NUMBERS: usize = 548;
/// The bit that tells a call of x32 from one of x86-64 (`__X32_SYSCALL_BIT`).
pub const X32_BIT: i64 = 0x4000_0000;

type Table = [Option<&'static Syscall>; NUMBERS];

static TABLES: LazyLock<[Table; 3]> = LazyLock::new(|| Abi::ALL.map(table));

const fn call(name: &'static str, args: &'static [Arg]) -> Syscall {
    Syscall { name, args, io: None }
}

const fn moves(name: &'static str, args: &'static [Arg], dir: Dir, fd: Option<u8>, data: Data) -> Syscall {
    Syscall { name, args, io: Some(Io { dir, fd, data }) }
}

fn table(abi: Abi) -> Table {
    let mut table = [None; NUMBERS];
    let (rows, own): (&[_], &'static [Syscall]) = match abi {
        Abi::Linux => (x86_64::NUMBERS, &[]),
        Abi::Linux32 => (i386::NUMBERS, i386::CALLS),
        Abi::LinuxX32 => (x86_64::NUMBERS, x86_64::X32_CALLS),
    };
    fill(&mut table, rows, own);
    fill(&mut table, calls::NUMBERS, own);
    if abi == Abi::LinuxX32 {
        x86_64::NOT_X32.iter().for_each(|&n| table[n] = None);
        fill(&mut table, x86_64::X32, own);
    }
    table
}

fn fill(table: &mut Table, rows: &[(usize, &str)], own: &'static [Syscall]) {
    let find = |list: &'static [Syscall], name: &str| list.iter().find(|call| call.name == name);
    for (first, names) in rows {
        for (n, name) in names.split(' ').enumerate() {
            table[first + n] = find(own, name).or_else(|| find(calls::CALLS, name));
        }
    }
}

/// The call with this number, `None` for one the tables do not know. x32's may have bit 30 on or off.
pub fn lookup(abi: Abi, number: i64) -> Option<&'static Syscall> {
    let number = if abi == Abi::LinuxX32 { number & !X32_BIT } else { number };
    *TABLES[abi as usize].get(usize::try_from(number).ok()?)?
}

/// The number of the call with this name; x32's with bit 30 off.
pub fn by_name(abi: Abi, name: &str) -> Option<i64> {
    numbers(abi).find(|(_, call)| call.name == name).map(|(n, _)| n)
}

/// Every call of an ABI with its number, in order.
pub fn numbers(abi: Abi) -> impl Iterator<Item = (i64, &'static Syscall)> {
    (0..).zip(&TABLES[abi as usize]).filter_map(|(n, call)| call.map(|call| (n, call)))
}

const WORDS: usize = NUMBERS.div_ceil(64);

/// A choice of system calls by name, for `calls=`.
#[derive(Clone, PartialEq, Eq)]
pub struct Calls {
    /// One bit per number, one row per ABI.
    bits: [[u64; WORDS]; 3],
}

impl Calls {
    /// Reads a list of names, comma separated: each adds its call in every ABI that has it, `!name` takes it away. A
    /// list that begins with `!` starts from every call.
    ///
    /// # Errors
    /// The word that names no call.
    pub fn parse(list: &str) -> Result<Calls, String> {
        let mut calls = Calls { bits: [[0; WORDS]; 3] };
        if list.starts_with('!') {
            Abi::ALL.into_iter().for_each(|abi| numbers(abi).for_each(|(n, _)| calls.set(abi, n, true)));
        }
        for word in list.split(',') {
            let (name, add) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
            let mut known = false;
            for abi in Abi::ALL {
                if let Some(n) = by_name(abi, name) {
                    calls.set(abi, n, add);
                    known = true;
                }
            }
            if !known {
                return Err(word.into());
            }
        }
        Ok(calls)
    }

    /// True where the call is chosen. A number beyond the tables never is.
    pub fn contains(&self, abi: Abi, number: i64) -> bool {
        let number = if abi == Abi::LinuxX32 { number & !X32_BIT } else { number };
        match usize::try_from(number) {
            Ok(n) if n < NUMBERS => self.bits[abi as usize][n / 64] >> (n % 64) & 1 == 1,
            _ => false,
        }
    }

    /// The choice as words: [`NUMBERS`] bits, rounded up to whole words, for each of [`Abi::ALL`].
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.bits.iter().flatten().copied()
    }

    fn set(&mut self, abi: Abi, number: i64, add: bool) {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if add {
            self.bits[abi as usize][word] |= bit;
        } else {
            self.bits[abi as usize][word] &= !bit;
        }
    }
}

impl fmt::Display for Calls {
    /// The shorter of the two lists that [`Calls::parse`] reads back: those chosen, or those that are not, with `!`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lists = [Vec::new(), Vec::new()];
        for abi in Abi::ALL {
            for (n, call) in numbers(abi) {
                lists[usize::from(!self.contains(abi, n))].push(call.name);
            }
        }
        for list in &mut lists {
            list.sort_unstable();
            list.dedup();
        }
        let [chosen, left] = lists;
        let (list, mark) =
            if left.is_empty() || chosen.len() <= left.len() { (chosen, "") } else { (left, "!") };
        for (i, name) in list.iter().enumerate() {
            write!(f, "{}{mark}{name}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calls({self})")
    }
}

#[cfg(test)]
mod tests;
