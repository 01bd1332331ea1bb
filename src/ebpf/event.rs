//! What the kernel's side sends: the structures of `bpf/events.h`, taken apart.

use super::kernel::Entry;
use crate::record::Comm;
use crate::syscall::Abi;

/// Bytes of `struct head`.
const HEAD: usize = 40;
/// Where its ktime is.
pub(super) const KTIME: usize = 16;

/// What every event begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) abi: Abi,
    pub(super) flag: u8,
    pub(super) pid: i32,
    pub(super) tid: i32,
    /// Number of a call, of a signal, of a child, length of a string: as the kind has it.
    pub(super) word: u32,
    /// Of its record: CLOCK_MONOTONIC in nanoseconds.
    pub(super) ktime: u64,
    pub(super) comm: Comm,
}

/// A call begins, with its arguments as they stand in its record; or ends. Most events are that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call<'a> {
    Begins { args: &'a [u8] },
    Ends { result: i64 },
}

/// What else has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event<'a> {
    Namei(&'a [u8]),
    Genio { fd: i32, data: &'a [u8] },
    Psig { action: u64, mask: u64, info: &'a [u8] },
    Csw { out: bool, user: bool },
    Fork { inode: u64 },
    Exec,
    ExecArg(&'a [u8]),
    ExecEnv(&'a [u8]),
    Exit,
    Lost { records: u64, bytes: u64 },
    Access,
    Birth(Entry),
}

/// The exec gave privilege, and the kernel's side has let the process go.
pub(super) const ENDED: u8 = 1;
/// From this exec or call on the memory may not be shown to whom the trace belongs to.
pub(super) const HIDDEN: u8 = 2;
/// The switch was made in the midst of an exec.
pub(super) const IN_EXEC: u8 = 1;
/// The thread does not come back from this switch.
pub(super) const LAST: u8 = 2;
/// The string goes on in the thread's next event.
pub(super) const MORE: u8 = 1;
/// It is the rest of the string in the one before.
pub(super) const REST: u8 = 2;

/// Takes an event of a call apart; `None` for any other. Inlined: so most of what it gives is never in memory.
#[inline(always)]
pub(super) fn call(bytes: &[u8]) -> Option<(Head, Call<'_>)> {
    let head = bytes.first_chunk()?;
    let body = &bytes[HEAD..];
    let call = match head[0] {
        1 => Call::Begins { args: &body[..(8 * usize::from(head[3])).min(body.len())] },
        2 => Call::Ends { result: long(body, 0)? as i64 },
        _ => return None,
    };
    Some((parse_head(head)?, call))
}

/// Takes any other event apart; `None` for what is none.
pub(super) fn parse(bytes: &[u8]) -> Option<(Head, Event<'_>)> {
    let head = bytes.first_chunk()?;
    let parsed = parse_head(head)?;
    Some((parsed, other(head[0], parsed.word, &bytes[HEAD..])?))
}

#[inline(always)]
fn parse_head(head: &[u8; HEAD]) -> Option<Head> {
    Some(Head {
        abi: *Abi::ALL.get(usize::from(head[2]))?,
        flag: head[3],
        pid: half(head, 4)? as i32,
        tid: half(head, 8)? as i32,
        word: half(head, 12)?,
        ktime: long(head, KTIME)?,
        comm: Comm::new(&head[24..]),
    })
}

fn other(kind: u8, word: u32, body: &[u8]) -> Option<Event<'_>> {
    let string = || body.get(..word as usize);
    Some(match kind {
        3 => Event::Namei(string()?),
        4 => Event::Genio { fd: half(body, 0)? as i32, data: body.get(8..8 + word as usize)? },
        5 => Event::Psig { action: long(body, 0)?, mask: long(body, 8)?, info: body.get(16..64)? },
        6 => Event::Csw { out: half(body, 0)? != 0, user: half(body, 4)? != 0 },
        7 => Event::Fork { inode: long(body, 0)? },
        8 => Event::Exec,
        9 => Event::ExecArg(string()?),
        10 => Event::ExecEnv(string()?),
        11 => Event::Exit,
        12 => Event::Lost { records: long(body, 0)?, bytes: long(body, 8)? },
        13 => Event::Access,
        14 => Event::Birth(Entry { facs: word, flags: half(body, 0)?, filter: half(body, 4)? }),
        _ => return None,
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_taken_apart_without_harm() {
        let mut bytes = [0xffu8; 128];
        for kind in 0..=255 {
            bytes[0] = kind;
            bytes[2] = kind % 4;
            for len in 0..bytes.len() {
                let _ = (call(&bytes[..len]), parse(&bytes[..len]));
            }
        }
    }

    #[test]
    fn a_return_is_read() {
        let mut bytes = [0u8; 48];
        bytes[0] = 2;
        bytes[4] = 7;
        bytes[8] = 8;
        bytes[12] = 39;
        bytes[24..28].copy_from_slice(b"comm");
        bytes[40..48].copy_from_slice(&(-2i64).to_le_bytes());
        let (head, call) = call(&bytes).unwrap();
        assert_eq!((head.pid, head.tid, head.word), (7, 8, 39));
        assert_eq!(head.comm.as_bytes(), b"comm");
        assert_eq!(call, Call::Ends { result: -2 });
    }

    #[test]
    fn of_a_call_as_many_arguments_are_read_as_it_has_and_as_there_are() {
        let mut bytes = [7u8; HEAD + 24];
        (bytes[0], bytes[2]) = (1, 0);
        for (says, there) in [(0, 0), (2, 2), (3, 3), (6, 3), (255, 3)] {
            bytes[3] = says;
            let (_, call) = call(&bytes).unwrap();
            assert_eq!(call, Call::Begins { args: &[7; 24][..8 * there] });
        }
        assert_eq!(parse(&bytes), None, "that is another's");
    }
}
