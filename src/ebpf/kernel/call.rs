//! What the programs know of each call.

use super::*;

/// What the kernel's side must know of a call: `struct call`.
pub(super) fn call_value(call: &Syscall) -> CallValue {
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
