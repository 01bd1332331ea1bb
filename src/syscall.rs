//! The system calls of each ABI: number, name, the kind of every argument, and where a call moves user data.
//!
//! One table serves the observer (what to fetch from the tracee) and the printer (how to show an argument).

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
        [Abi::Linux, Abi::Linux32, Abi::LinuxX32].into_iter().find(|abi| abi.name().as_bytes() == name)
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
}

/// How user data is pointed to; the numbers are argument positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// One buffer; the call's result is the number of bytes moved.
    Buf {
        /// Its address.
        ptr: u8,
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

/// Largest number of a call that the tables know, plus one.
pub const NUMBERS: usize = 512;

/// The call with this number, `None` for one the tables do not know.
pub fn lookup(abi: Abi, number: i64) -> Option<&'static Syscall> {
    let _ = (abi, number);
    None
}

/// A choice of system calls by name, for `calls=`.
#[derive(Clone, PartialEq, Eq)]
pub struct Calls {
    /// One bit per number, one row per ABI.
    bits: [[u64; NUMBERS / 64]; 3],
}

impl Calls {
    /// True where the call is chosen. A number beyond the tables never is.
    pub fn contains(&self, abi: Abi, number: i64) -> bool {
        match usize::try_from(number) {
            Ok(n) if n < NUMBERS => self.bits[abi as usize][n / 64] >> (n % 64) & 1 == 1,
            _ => false,
        }
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls")
    }
}
