//! Where the calls that return EINTR keep a timeout that counts from their start, and how to give them less of it.

use libc::user_regs_struct;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::descriptor::socket;
use super::sys;
use super::task::{Changed, Register};

/// Bytes below the stack pointer that a leaf function may use (System V ABI), with room for a timespec and more.
const BELOW_STACK: u64 = 128 + 384;
const AGAIN: i64 = -(libc::EAGAIN as i64);

/// The timeout of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout {
    place: Place,
    /// What the call returns when it is over.
    result: i64,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Milliseconds in the register, negative for none.
    Millis(Register),
    /// Two numbers of so many bytes, seconds and nanoseconds, that the register points to; 0 for none.
    Timespec(Register, usize),
    /// SO_RCVTIMEO of the socket.
    Receive(i32),
    /// SO_SNDTIMEO of the socket.
    Send(i32),
}

impl Timeout {
    /// Of the call in these registers, `None` for one that has none. By the numbers of x86-64 and i386; which of the two
    /// is the code segment's word (`__USER_CS`, `__USER32_CS`).
    pub(super) fn of(regs: &user_regs_struct) -> Option<Timeout> {
        let (place, result) = match regs.cs {
            0x33 => of_x86_64(regs)?,
            0x23 => of_i386(regs)?,
            _ => return None,
        };
        Some(Timeout { place, result })
    }

    /// What the call returns when the time is over.
    pub(super) fn result(&self) -> i64 {
        self.result
    }

    /// True where [`Timeout::shorten`] can do something.
    pub(super) fn is_in_register(&self) -> bool {
        matches!(self.place, Place::Millis(_) | Place::Timespec(..))
    }

    /// The whole of it in nanoseconds, `None` where it never ends.
    pub(super) fn nanos(&self, regs: &mut user_regs_struct, pid: i32, tid: i32) -> Option<i64> {
        match self.place {
            Place::Millis(register) => {
                i64::from(*register.of(regs) as i32).checked_mul(1_000_000).filter(|&ns| ns > 0)
            }
            Place::Timespec(register, word) => {
                let mut spec = [0; 16];
                let spec = &mut spec[..2 * word];
                let addr = *register.of(regs);
                if addr == 0 || sys::read_memory(tid, addr, spec) != Ok(2 * word) {
                    return None;
                }
                let number = |b: &[u8]| b.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b)) as i64;
                number(&spec[..word]).checked_mul(1_000_000_000)?.checked_add(number(&spec[word..]))
            }
            Place::Receive(fd) => ends(getsockopt(&socket(pid, fd)?, sockopt::ReceiveTimeout)),
            Place::Send(fd) => ends(getsockopt(&socket(pid, fd)?, sockopt::SendTimeout)),
        }
    }

    /// Gives the restarted call `left` nanoseconds of it.
    pub(super) fn shorten(&self, left: i64, regs: &mut user_regs_struct, tid: i32) -> Option<Changed> {
        let (register, value) = match self.place {
            // Rounded up: a sleep is never too short.
            Place::Millis(register) => (register, (left as u64).div_ceil(1_000_000)),
            Place::Timespec(register, word) => {
                let mut spec = Vec::with_capacity(16);
                for number in [left / 1_000_000_000, left % 1_000_000_000] {
                    spec.extend_from_slice(&number.to_le_bytes()[..word]);
                }
                let place = regs.rsp.wrapping_sub(BELOW_STACK) & !15;
                if sys::write_memory(tid, place, &spec) != Ok(spec.len()) {
                    return None;
                }
                (register, place)
            }
            Place::Receive(_) | Place::Send(_) => return None,
        };
        let was = std::mem::replace(register.of(regs), value);
        Some(Changed { register, was })
    }
}

fn of_x86_64(regs: &user_regs_struct) -> Option<(Place, i64)> {
    const IO_PGETEVENTS: i64 = 333;
    let fd = regs.rdi as i32;
    Some(match regs.orig_rax as i64 {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (Place::Millis(Register::R10), 0),
        libc::SYS_epoll_pwait2 => (Place::Timespec(Register::R10, 8), 0),
        libc::SYS_semtimedop => (Place::Timespec(Register::R10, 8), AGAIN),
        libc::SYS_rt_sigtimedwait => (Place::Timespec(Register::Rdx, 8), AGAIN),
        libc::SYS_io_getevents | IO_PGETEVENTS => (Place::Timespec(Register::R8, 8), 0),
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_accept
        | libc::SYS_accept4 => (Place::Receive(fd), AGAIN),
        libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_sendmmsg => {
            (Place::Send(fd), AGAIN)
        }
        libc::SYS_connect => (Place::Send(fd), -i64::from(libc::EINPROGRESS)),
        _ => return None,
    })
}

/// The arguments stand in ebx, ecx, edx, esi and edi.
fn of_i386(regs: &user_regs_struct) -> Option<(Place, i64)> {
    let fd = regs.rbx as i32;
    Some(match regs.orig_rax as u32 {
        // epoll_wait, epoll_pwait.
        256 | 319 => (Place::Millis(Register::Rsi), 0),
        // epoll_pwait2.
        441 => (Place::Timespec(Register::Rsi, 8), 0),
        // rt_sigtimedwait with 32-bit and 64-bit times.
        177 => (Place::Timespec(Register::Rdx, 4), AGAIN),
        421 => (Place::Timespec(Register::Rdx, 8), AGAIN),
        // semtimedop_time64.
        420 => (Place::Timespec(Register::Rsi, 8), AGAIN),
        // read, readv, accept4, recvfrom, recvmsg, recvmmsg.
        3 | 145 | 364 | 371 | 372 | 337 => (Place::Receive(fd), AGAIN),
        // write, writev, sendto, sendmsg, sendmmsg.
        4 | 146 | 369 | 370 | 345 => (Place::Send(fd), AGAIN),
        // connect.
        362 => (Place::Send(fd), -i64::from(libc::EINPROGRESS)),
        _ => return None,
    })
}

/// A socket's timeout; 0 is none, and an error is no socket.
fn ends(timeout: nix::Result<TimeVal>) -> Option<i64> {
    timeout.ok().map(|t| t.num_nanoseconds()).filter(|&ns| ns > 0)
}
