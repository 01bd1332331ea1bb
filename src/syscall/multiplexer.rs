//! The calls of i386 that stand for others: socketcall(2) and ipc(2).

use super::{Syscall, calls};

/// By the first argument of socketcall(2), from 1 on: `SYS_SOCKET` and so on of the kernel's uapi/linux/net.h, each with
/// the number of its arguments. `send` and `recv` are `sendto` and `recvfrom` to nobody.
const SOCKET_CALLS: [(&str, usize); 20] = [
    ("socket", 3),
    ("bind", 3),
    ("connect", 3),
    ("listen", 2),
    ("accept", 3),
    ("getsockname", 3),
    ("getpeername", 3),
    ("socketpair", 4),
    ("sendto", 4),
    ("recvfrom", 4),
    ("sendto", 6),
    ("recvfrom", 6),
    ("shutdown", 2),
    ("setsockopt", 5),
    ("getsockopt", 5),
    ("sendmsg", 3),
    ("recvmsg", 3),
    ("accept4", 4),
    ("recvmmsg", 5),
    ("sendmmsg", 4),
];
/// `MSGSND` and `MSGRCV` of the kernel's uapi/linux/ipc.h; the version of the interface stands above them.
const MSGSND: u64 = 11;
const MSGRCV: u64 = 12;

/// The call behind a multiplexer and its arguments; `None` where `call` is none, or one that neither moves data nor
/// takes a path. `words` reads so many words of 4 bytes at an address, fewer where they cannot be read.
pub fn multiplexed(
    call: &Syscall,
    args: &[u64; 6],
    words: impl Fn(u64, usize) -> Vec<u64>,
) -> Option<(&'static Syscall, [u64; 6])> {
    let [first, ..] = *args;
    let mut inner = [0; 6];
    let name = match call.name {
        "socketcall" => {
            let (name, count) = *SOCKET_CALLS.get(usize::try_from(first).ok()?.checked_sub(1)?)?;
            let read = words(args[1], count);
            if read.len() < count {
                return None;
            }
            inner[..count].copy_from_slice(&read);
            name
        }
        "ipc" => {
            let [which, id, size, third, ptr, fifth] = *args;
            match (which & 0xffff, which >> 16) {
                (MSGSND, _) => {
                    inner = [id, ptr, size, third, 0, 0];
                    "msgsnd"
                }
                (MSGRCV, 0) => {
                    // The old interface has the buffer's address and the type in a structure.
                    let read = words(ptr, 2);
                    inner = [id, *read.first()?, size, *read.get(1)?, third, 0];
                    "msgrcv"
                }
                (MSGRCV, _) => {
                    inner = [id, ptr, size, fifth, third, 0];
                    "msgrcv"
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    let at = calls::CALLS.binary_search_by(|call| call.name.cmp(name)).ok()?;
    Some((&calls::CALLS[at], inner))
}
