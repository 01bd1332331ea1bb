//! What a stop says of its call. All unsafe code of the bench is here.

#![allow(unsafe_code, reason = "the kernel's answer is a union")]

/// Where in a call a thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum At {
    Entry { number: i64, args: [u64; 6] },
    Exit { result: i64 },
}

/// What PTRACE_GET_SYSCALL_INFO has said; `None` at a stop of another kind.
pub(crate) fn at(info: &libc::ptrace_syscall_info) -> Option<At> {
    match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `op` says which of them the kernel has filled in.
            let entry = unsafe { info.u.entry };
            Some(At::Entry { number: entry.nr as i64, args: entry.args })
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: as above.
            let exit = unsafe { info.u.exit };
            Some(At::Exit { result: exit.sval })
        }
        _ => None,
    }
}
