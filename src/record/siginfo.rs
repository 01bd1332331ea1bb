//! From Linux's siginfo to NetBSD's.

use super::{Psig, SigInfo};
use crate::signal;

impl Psig {
    /// Of a signal with this `si_errno`, `si_code` and what follows them in Linux's siginfo from byte 16 on. Handler and
    /// mask are not told by it.
    pub fn of(signo: i32, errno: i32, code: i32, payload: &[u8; 32]) -> Psig {
        let data = netbsd_data(signo, code, payload);
        let info = Some(SigInfo { errno, data });
        Psig { signo, code: signal::netbsd_code(code), info, ..Psig::default() }
    }
}

/// The part of a siginfo that depends on its code, in NetBSD's layout.
fn netbsd_data(signo: i32, code: i32, linux: &[u8; 32]) -> [u8; 24] {
    let mut data = [0; 24];
    match (signo, code) {
        // pid, uid, status as in Linux, then the times, which are 64 bits there and 32 here.
        (libc::SIGCHLD, 1..) => {
            data[..12].copy_from_slice(&linux[..12]);
            data[12..16].copy_from_slice(&linux[16..20]);
            data[16..20].copy_from_slice(&linux[24..28]);
        }
        // Timer id and overrun count stand where NetBSD has pid and uid.
        (_, libc::SI_TIMER) => data[8..16].copy_from_slice(&linux[8..16]),
        (_, libc::SI_USER | libc::SI_TKILL) => data[..8].copy_from_slice(&linux[..8]),
        (_, ..0) => data[..16].copy_from_slice(&linux[..16]),
        // The address of a fault; the trap number is not told.
        (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP, _) => {
            data[..8].copy_from_slice(&linux[..8]);
        }
        // band and fd.
        (libc::SIGIO, _) => data[..12].copy_from_slice(&linux[..12]),
        _ => {}
    }
    data
}
