//! The text of a PSIG record.

use super::put;
use crate::record::{Psig, SigInfo};
use crate::signal;

/// As NetBSD's kdump has it, closing parenthesis and all, with Linux's names.
pub(super) fn put_psig(out: &mut Vec<u8>, psig: &Psig) {
    put_action(out, psig);
    let Some(info) = &psig.info else {
        if psig.code != 0 {
            put!(out, " code={:#x}", psig.code);
        }
        out.extend_from_slice(if psig.action == 0 { b"\n" } else { b")\n" });
        return;
    };
    out.extend_from_slice(b": code=");
    match signal::code_name(psig.signo, psig.code) {
        Some(name) => put!(out, "{name}"),
        None => put!(out, "{}", psig.code),
    }
    put_info(out, psig, info);
    out.extend_from_slice(b")\n");
}

/// The signal, and what is done about it.
pub(super) fn put_action(out: &mut Vec<u8>, psig: &Psig) {
    match signal::short_name(psig.signo) {
        Some(name) => put!(out, "SIG{name} "),
        None if psig.signo == 0 => put!(out, "SIG 0 "),
        None => put!(out, "SIG*unknown {}* ", psig.signo),
    }
    if psig.action == 0 {
        out.extend_from_slice(b"SIG_DFL");
        return;
    }
    put!(out, "caught handler={:#x} mask=(", psig.action);
    let blocked = (0..128).filter(|bit| psig.mask[bit / 32] >> (bit % 32) & 1 == 1).map(|bit| bit + 1);
    for (i, signo) in blocked.enumerate() {
        put!(out, "{}{signo}", if i == 0 { "" } else { "," });
    }
    out.push(b')');
}

fn put_info(out: &mut Vec<u8>, psig: &Psig, info: &SigInfo) {
    let int = |at: usize| info.data[at..].first_chunk().map_or(0, |b| i32::from_le_bytes(*b));
    let long = |at: usize| info.data[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let (pid, uid) = (int(0), int(4));
    match (psig.code, psig.signo) {
        (0 | -5, _) => put!(out, " sent by pid={pid}, uid={uid}"),
        (-2 | -1, _) => put!(out, " sent by pid={pid}, uid={uid} with sigval {:#x}", long(8)),
        (-4 | -3, _) => put!(out, " with sigval {:#x}", long(8)),
        (..0, _) => {}
        (_, libc::SIGCHLD) => put!(
            out,
            " child pid={pid}, uid={uid},  status={}, utime={}, stime={}",
            int(8),
            int(12) as u32,
            int(16) as u32
        ),
        (1..0x80, libc::SIGILL | libc::SIGFPE | libc::SIGSEGV | libc::SIGBUS | libc::SIGTRAP) => {
            put!(out, ", addr={:#x}, trap={}", long(0), int(8));
        }
        (1..0x80, libc::SIGIO) => put!(out, ", fd={}, band={:x}", int(8), long(0)),
        _ => put!(out, ", errno={}", info.errno),
    }
}
