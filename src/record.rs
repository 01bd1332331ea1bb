//! The record stream (docs/format.md): NetBSD's ktrace records, version 2 out, versions 0 to 2 in.
//!
//! Pure: bytes to records and back. Decoding takes any bytes without panic and says what is wrong and where.
//! Constants keep their C names so that a search crosses into NetBSD's `sys/sys/ktrace.h`.

mod decode;
mod older;
mod siginfo;

use std::fmt;

pub(crate) use decode::nothing_left;
pub use decode::{DecodeError, Decoder, decode_header, record_at};
pub use older::{VERSION, encode_as};

/// Length of a record header in bytes, in every version.
pub const HEADER_LEN: usize = 56;
/// Most bytes of body a decoder believes. Real bodies stay near a page; a larger length is garbage.
pub const MAX_BODY: usize = 1 << 20;
/// Most bytes of a GENIO body (fd, rw and data): one page (R6).
pub const GENIO_MAX: usize = 4096;
/// Bytes of a USER record's id field; the last is always NUL.
pub const USER_ID_LEN: usize = 20;
/// Most bytes of data in a USER record (R9, `KTR_USER_MAXLEN`).
pub const USER_MAX: usize = 2048;

/// System call: code and arguments.
pub const KTR_SYSCALL: i16 = 1;
/// Return from a system call.
pub const KTR_SYSRET: i16 = 2;
/// A path given to a call.
pub const KTR_NAMEI: i16 = 3;
/// Data moved by a call.
pub const KTR_GENIO: i16 = 4;
/// A signal acted on.
pub const KTR_PSIG: i16 = 5;
/// A context switch.
pub const KTR_CSW: i16 = 6;
/// The emulation (here: the system call ABI) changed.
pub const KTR_EMUL: i16 = 7;
/// Data from the traced program itself.
pub const KTR_USER: i16 = 8;
/// One argument string of an exec.
pub const KTR_EXEC_ARG: i16 = 10;
/// One environment string of an exec.
pub const KTR_EXEC_ENV: i16 = 11;
/// NetBSD's sysctl names.
pub const KTR_MIB: i16 = 14;
/// A descriptor open across an exec.
pub const KTR_EXEC_FD: i16 = 15;

/// The id of the USER records in which the stream speaks about itself.
pub const STREAM_ID: &[u8] = b"ktracefs";
/// What a stream says where the memory of a process must not be seen any more by whom its trace belongs to.
pub const HIDDEN: &str = "paths and data are not shown: the process is not dumpable";
/// And where it may again.
pub const SHOWN: &str = "paths and data are shown again";
/// With this begins the data of the last record of a stream.
pub const STREAM_END: &[u8] = b"end: ";

/// A time of CLOCK_REALTIME.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nsec: i64,
}

/// A command name: at most 16 bytes, NUL padded (`ktr_comm` without the byte that is always NUL).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The first 16 bytes of `name`, up to a NUL.
    pub fn new(name: &[u8]) -> Comm {
        let mut comm = [0; 16];
        match name.first_chunk() {
            Some(whole) => comm = *whole,
            None => comm[..name.len()].copy_from_slice(name),
        }
        // It is done for each record: by words, the second only where the name goes on in it.
        let word = u128::from_le_bytes(comm);
        let (low, high) = (word as u64, (word >> 64) as u64);
        let kept = match (first_nul(low), first_nul(high)) {
            (0, 0) => word,
            (0, nul) => u128::from(low) | u128::from(high & (nul >> 7).wrapping_sub(1)) << 64,
            (nul, _) => u128::from(low & (nul >> 7).wrapping_sub(1)),
        };
        Comm(kept.to_le_bytes())
    }

    /// The name without its padding.
    pub fn as_bytes(&self) -> &[u8] {
        until_nul(&self.0)
    }
}

/// The highest bit of the first byte that is 0; no bit where none is.
#[inline(always)]
fn first_nul(word: u64) -> u64 {
    let nuls = word.wrapping_sub(u64::MAX / 0xff) & !word & (u64::MAX / 0xff * 0x80);
    nuls & nuls.wrapping_neg()
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Whose event a record tells of, and when it happened: the event's own time and thread, not the writer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// When.
    pub time: Time,
    /// Process (thread group) id.
    pub pid: i32,
    /// Thread id (`ktr_lid`).
    pub tid: i32,
    /// Command name of the thread.
    pub comm: Comm,
}

/// A decoded header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Length of the body in bytes.
    pub len: usize,
    /// Record type, one of the `KTR_*` or anything else.
    pub ktr_type: i16,
    /// Version of the layout, 0 to 2.
    pub version: i16,
    /// Whose, and when. The thread is 0 in version 0, which has none.
    pub stamp: Stamp,
}

/// The arguments of a SYSCALL record.
#[derive(Clone, Copy)]
pub enum Args<'a> {
    /// As given to the encoder.
    Words(&'a [u64]),
    /// As they stand in a record: 8 bytes each, little-endian.
    Bytes(&'a [u8]),
}

impl<'a> Args<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Args::Words(w) => w.len(),
            Args::Bytes(b) => b.len() / 8,
        }
    }

    /// True where the call has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Argument `i`.
    pub fn get(&self, i: usize) -> Option<u64> {
        match self {
            Args::Words(w) => w.get(i).copied(),
            Args::Bytes(b) => b.get(i * 8..).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b)),
        }
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + use<'a> {
        let args = *self;
        (0..args.len()).filter_map(move |i| args.get(i))
    }
}

impl PartialEq for Args<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A PSIG body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Psig {
    /// Signal number, the recording kernel's own.
    pub signo: i32,
    /// 0 default action, 1 ignored, else the handler's address.
    pub action: u64,
    /// Mask in force when it was delivered, bit n-1 of the 128 for signal n.
    pub mask: [u32; 4],
    /// `si_code`, NetBSD's numbering.
    pub code: i32,
    /// The rest of the siginfo, where the record has one.
    pub info: Option<SigInfo>,
}

/// NetBSD's siginfo as PSIG carries it: 128 bytes, of which these have a meaning (docs/format.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SigInfo {
    /// `si_errno`.
    pub errno: i32,
    /// The bytes from offset 16 on, whose layout depends on the code: pid and uid, value, address and trap, ...
    pub data: [u8; 24],
}

/// Most arguments of a call, but for what other systems may have recorded.
const ARGS_MAX: usize = 6;
const SYSRET_LEN: usize = 24;
const SIGINFO_LEN: usize = 128;
const PSIG_LEN: usize = 40;

/// What a record says. Anything malformed or unknown is [`Body::Unknown`], with its bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Body<'a> {
    /// `KTR_SYSCALL`.
    Syscall {
        /// Number of the call, in the numbering of the emulation.
        code: i32,
        /// Its arguments, exactly as many as it takes.
        args: Args<'a>,
    },
    /// `KTR_SYSRET`.
    Sysret {
        /// Number of the call, 16 bits.
        code: i16,
        /// 0, or the emulation's errno: negative for Linux (-2 is ENOENT; -512 to -516 are restarts).
        error: i32,
        /// The value, 0 where the call failed.
        retval: i64,
        /// A second value, which Linux has not.
        retval_1: i64,
    },
    /// `KTR_NAMEI`: the path as the process passed it, without NUL.
    Namei(&'a [u8]),
    /// `KTR_GENIO`.
    Genio {
        /// Descriptor.
        fd: i32,
        /// True for data written by the process, false for data it read.
        write: bool,
        /// The bytes moved.
        data: &'a [u8],
    },
    /// `KTR_PSIG`.
    Psig(Psig),
    /// `KTR_CSW`.
    Csw {
        /// True where the thread left its cpu, false where it came to one.
        out: bool,
        /// True for an involuntary switch (NetBSD's "user").
        user: bool,
    },
    /// `KTR_EMUL`: the emulation's name.
    Emul(&'a [u8]),
    /// `KTR_USER`.
    User {
        /// Up to the first NUL, at most 20 bytes where another system wrote it; ours have 19 at most.
        id: &'a [u8],
        /// At most 2048 bytes where a kernel kept R9.
        data: &'a [u8],
    },
    /// `KTR_EXEC_ARG`.
    ExecArg(&'a [u8]),
    /// `KTR_EXEC_ENV`.
    ExecEnv(&'a [u8]),
    /// `KTR_EXEC_FD`.
    ExecFd {
        /// Descriptor.
        fd: i32,
        /// NetBSD's `DTYPE_*`.
        dtype: u32,
    },
    /// `KTR_MIB`: i32 names.
    Mib(&'a [u8]),
    /// A type without a name, or a body that does not fit its type.
    Unknown {
        /// The record's type.
        ktr_type: i16,
        /// The body as it stands.
        data: &'a [u8],
    },
}

impl Body<'_> {
    /// The record type this body belongs to.
    pub fn ktr_type(&self) -> i16 {
        match self {
            Body::Syscall { .. } => KTR_SYSCALL,
            Body::Sysret { .. } => KTR_SYSRET,
            Body::Namei(_) => KTR_NAMEI,
            Body::Genio { .. } => KTR_GENIO,
            Body::Psig(_) => KTR_PSIG,
            Body::Csw { .. } => KTR_CSW,
            Body::Emul(_) => KTR_EMUL,
            Body::User { .. } => KTR_USER,
            Body::ExecArg(_) => KTR_EXEC_ARG,
            Body::ExecEnv(_) => KTR_EXEC_ENV,
            Body::ExecFd { .. } => KTR_EXEC_FD,
            Body::Mib(_) => KTR_MIB,
            Body::Unknown { ktr_type, .. } => *ktr_type,
        }
    }
}

/// Appends one record, version 2, to `out`. Every padding byte is zero.
///
/// A USER id is cut to 19 bytes and ends at its first NUL.
#[inline(always)]
pub fn encode(out: &mut Vec<u8>, stamp: &Stamp, body: &Body<'_>) {
    match *body {
        // The two of each call are written where they will be, word by word.
        Body::Syscall { code, args } if args.len() <= ARGS_MAX => {
            let len = 8 * args.len();
            let record = room::<{ HEADER_LEN + 8 }>(out);
            put_header(record, stamp, KTR_SYSCALL, 8 + len);
            put(record, HEADER_LEN, (u64::from(code as u32) | (len as u64) << 32).to_le_bytes());
            if len > 0 {
                let start = out.len();
                let record = room::<{ 8 * ARGS_MAX }>(out);
                for (to, arg) in record.as_chunks_mut().0.iter_mut().zip(args.iter()) {
                    *to = arg.to_le_bytes();
                }
                out.truncate(start + len);
            }
        }
        Body::Sysret { code, error, retval, retval_1 } => {
            let record = room::<{ HEADER_LEN + SYSRET_LEN }>(out);
            put_header(record, stamp, KTR_SYSRET, SYSRET_LEN);
            let first = u64::from(code as u16) | u64::from(error as u32) << 32;
            put(record, HEADER_LEN, first.to_le_bytes());
            put(record, HEADER_LEN + 8, retval.to_le_bytes());
            put(record, HEADER_LEN + 16, retval_1.to_le_bytes());
        }
        _ => encode_other(out, stamp, body),
    }
}

/// So many zero bytes more.
#[inline(always)]
fn room<const N: usize>(out: &mut Vec<u8>) -> &mut [u8; N] {
    let start = out.len();
    out.extend_from_slice(&[0; N]);
    out[start..].first_chunk_mut().expect("they have just been added")
}

/// Puts bytes into a record at this place.
#[inline(always)]
fn put<const N: usize, const M: usize>(record: &mut [u8; N], at: usize, bytes: [u8; M]) {
    record[at..at + M].copy_from_slice(&bytes);
}

/// A version 2 header of a body of `len` bytes. All of it, by words: what was there before need not be written, and a word that is
/// read as two halves would have to wait for both.
#[inline(always)]
fn put_header<const N: usize>(record: &mut [u8; N], stamp: &Stamp, ktr_type: i16, len: usize) {
    let comm = u128::from_le_bytes(stamp.comm.0);
    let words = [
        len as u64 | u64::from(ktr_type as u16) << 32 | 2 << 48,
        u64::from(stamp.pid as u32) | (comm as u64) << 32,
        (comm >> 32) as u64,
        (comm >> 96) as u64,
        stamp.time.sec as u64,
        stamp.time.nsec as u64,
        u64::from(stamp.tid as u32),
    ];
    for (at, word) in words.iter().enumerate() {
        put(record, 8 * at, word.to_le_bytes());
    }
}

/// A version 2 header with length 0.
fn header(stamp: &Stamp, ktr_type: i16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    put_header(&mut header, stamp, ktr_type, 0);
    header
}

fn encode_other(out: &mut Vec<u8>, stamp: &Stamp, body: &Body<'_>) {
    let start = out.len();
    out.extend_from_slice(&header(stamp, body.ktr_type()));
    match *body {
        Body::Syscall { code, args } => {
            out.extend_from_slice(&code.to_le_bytes());
            out.extend_from_slice(&(args.len() as i32 * 8).to_le_bytes());
            match args {
                Args::Words(words) => words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes())),
                Args::Bytes(bytes) => out.extend_from_slice(&bytes[..args.len() * 8]),
            }
        }
        Body::Sysret { .. } => unreachable!("written by its caller"),
        Body::Genio { fd, write, data } => {
            out.extend_from_slice(&fd.to_le_bytes());
            out.extend_from_slice(&i32::from(write).to_le_bytes());
            out.extend_from_slice(data);
        }
        Body::Psig(psig) => encode_psig(out, &psig),
        Body::Csw { out: gone, user } => {
            out.extend_from_slice(&i32::from(gone).to_le_bytes());
            out.extend_from_slice(&i32::from(user).to_le_bytes());
        }
        Body::User { id, data } => {
            let mut field = [0; USER_ID_LEN];
            let id = until_nul(&id[..id.len().min(USER_ID_LEN - 1)]);
            field[..id.len()].copy_from_slice(id);
            out.extend_from_slice(&field);
            out.extend_from_slice(data);
        }
        Body::ExecFd { fd, dtype } => {
            out.extend_from_slice(&fd.to_le_bytes());
            out.extend_from_slice(&dtype.to_le_bytes());
        }
        Body::Namei(data)
        | Body::Emul(data)
        | Body::ExecArg(data)
        | Body::ExecEnv(data)
        | Body::Mib(data)
        | Body::Unknown { data, .. } => out.extend_from_slice(data),
    }
    let len = (out.len() - start - HEADER_LEN) as i32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn encode_psig(out: &mut Vec<u8>, psig: &Psig) {
    let mut b = [0; PSIG_LEN + SIGINFO_LEN];
    b[0..4].copy_from_slice(&psig.signo.to_le_bytes());
    b[8..16].copy_from_slice(&psig.action.to_le_bytes());
    for (i, word) in psig.mask.iter().enumerate() {
        b[16 + 4 * i..20 + 4 * i].copy_from_slice(&word.to_le_bytes());
    }
    b[32..36].copy_from_slice(&psig.code.to_le_bytes());
    let len = match &psig.info {
        None => PSIG_LEN,
        Some(info) => {
            let si = &mut b[PSIG_LEN..];
            si[0..4].copy_from_slice(&psig.signo.to_le_bytes());
            si[4..8].copy_from_slice(&psig.code.to_le_bytes());
            si[8..12].copy_from_slice(&info.errno.to_le_bytes());
            si[16..40].copy_from_slice(&info.data);
            PSIG_LEN + SIGINFO_LEN
        }
    };
    out.extend_from_slice(&b[..len]);
}

/// One record of a stream, its body still raw.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Record<'a> {
    /// The header.
    pub header: Header,
    /// The body as it stands.
    pub raw: &'a [u8],
    /// Where the record begins, in bytes from the start of the stream.
    pub offset: u64,
}

impl<'a> Record<'a> {
    /// The body by its type. Never fails: what does not fit its type is [`Body::Unknown`].
    #[inline(always)]
    pub fn body(&self) -> Body<'a> {
        let b = self.raw;
        let unknown = Body::Unknown { ktr_type: self.header.ktr_type, data: b };
        match self.header.ktr_type {
            KTR_SYSCALL => match (i32_at(b, 0), i32_at(b, 4)) {
                (Some(code), Some(size)) if size >= 0 && size % 8 == 0 && b.len() - 8 >= size as usize => {
                    Body::Syscall { code, args: Args::Bytes(&b[8..8 + size as usize]) }
                }
                _ => unknown,
            },
            KTR_SYSRET => match (i32_at(b, 0), i32_at(b, 4), i64_at(b, 8)) {
                (Some(word), Some(error), Some(retval)) => {
                    Body::Sysret { code: word as i16, error, retval, retval_1: i64_at(b, 16).unwrap_or(0) }
                }
                _ => unknown,
            },
            KTR_NAMEI => Body::Namei(b),
            KTR_GENIO => match (i32_at(b, 0), i32_at(b, 4)) {
                (Some(fd), Some(rw @ (0 | 1))) => Body::Genio { fd, write: rw == 1, data: &b[8..] },
                _ => unknown,
            },
            KTR_PSIG if b.len() == PSIG_LEN || b.len() == PSIG_LEN + SIGINFO_LEN => {
                decode_psig(b).unwrap_or(unknown)
            }
            KTR_CSW => match (i32_at(b, 0), i32_at(b, 4)) {
                (Some(out), Some(user)) => Body::Csw { out: out != 0, user: user != 0 },
                _ => unknown,
            },
            KTR_EMUL => Body::Emul(b),
            KTR_USER if b.len() >= USER_ID_LEN => {
                Body::User { id: until_nul(&b[..USER_ID_LEN]), data: &b[USER_ID_LEN..] }
            }
            KTR_EXEC_ARG => Body::ExecArg(b),
            KTR_EXEC_ENV => Body::ExecEnv(b),
            KTR_EXEC_FD => match (i32_at(b, 0), i32_at(b, 4)) {
                (Some(fd), Some(dtype)) => Body::ExecFd { fd, dtype: dtype as u32 },
                _ => unknown,
            },
            KTR_MIB => Body::Mib(b),
            _ => unknown,
        }
    }
}

fn decode_psig(b: &[u8]) -> Option<Body<'_>> {
    let mut mask = [0; 4];
    for (i, word) in mask.iter_mut().enumerate() {
        *word = i32_at(b, 16 + 4 * i)? as u32;
    }
    let info = match b.get(PSIG_LEN + 16..PSIG_LEN + 40).and_then(|d| d.first_chunk()) {
        Some(data) => Some(SigInfo { errno: i32_at(b, PSIG_LEN + 8)?, data: *data }),
        None => None,
    };
    let (signo, action, code) = (i32_at(b, 0)?, i64_at(b, 8)? as u64, i32_at(b, 32)?);
    Some(Body::Psig(Psig { signo, action, mask, code, info }))
}

/// The process of a whole record of version 2.
pub(crate) fn pid_of(record: &[u8]) -> i32 {
    i32_at(record, 8).unwrap_or(0)
}

fn i32_at(b: &[u8], at: usize) -> Option<i32> {
    b.get(at..)?.first_chunk().map(|b| i32::from_le_bytes(*b))
}

fn i64_at(b: &[u8], at: usize) -> Option<i64> {
    b.get(at..)?.first_chunk().map(|b| i64::from_le_bytes(*b))
}

/// The bytes before the first NUL, all where there is none.
pub fn until_nul(b: &[u8]) -> &[u8] {
    &b[..b.iter().position(|&b| b == 0).unwrap_or(b.len())]
}

#[cfg(test)]
mod tests;
