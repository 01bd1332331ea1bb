//! Linux's signals: number to name, what each does by default (signal(7)), and `si_code` in NetBSD's numbering.

use std::borrow::Cow;

/// What a signal does where no handler runs and it is not ignored (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ends the process.
    Terminate,
    /// Ends the process with a core dump.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Lets a stopped process go on.
    Continue,
}

/// Largest signal number.
pub const MAX: i32 = 64;
/// The first real-time signal that a program may use; the C library keeps 32 and 33.
pub const RTMIN: i32 = 34;

const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The name without its `SIG`, as the shell's `kill -l` has it: `TERM`, `RTMIN+2`, `RTMAX-1`; 32 and 33, which have
/// none, are numbers. `None` for what is no signal.
pub fn short_name(signo: i32) -> Option<Cow<'static, str>> {
    Some(match signo {
        1..=31 => NAMES[signo as usize].into(),
        32 | 33 => signo.to_string().into(),
        RTMIN => "RTMIN".into(),
        35..=49 => format!("RTMIN+{}", signo - RTMIN).into(),
        50..=63 => format!("RTMAX-{}", MAX - signo).into(),
        MAX => "RTMAX".into(),
        _ => return None,
    })
}

/// What `signo` does by default; real-time signals, and what is no signal, end the process.
pub fn default_action(signo: i32) -> Action {
    match signo {
        libc::SIGQUIT | libc::SIGILL | libc::SIGTRAP | libc::SIGABRT | libc::SIGBUS | libc::SIGFPE => {
            Action::Core
        }
        libc::SIGSEGV | libc::SIGXCPU | libc::SIGXFSZ | libc::SIGSYS => Action::Core,
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH => Action::Ignore,
        libc::SIGCONT => Action::Continue,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Action::Stop,
        _ => Action::Terminate,
    }
}

/// Linux's `si_code` in NetBSD's numbering, which PSIG carries (docs/format.md). Its own inverse: MESGQ and ASYNCIO
/// change places, and so do TKILL, which NetBSD calls LWP, and SIGIO, which it has not.
pub fn netbsd_code(code: i32) -> i32 {
    match code {
        -3 => -4,
        -4 => -3,
        -5 => -6,
        -6 => -5,
        _ => code,
    }
}

/// The name of a code of `signo`, which is in NetBSD's numbering.
pub fn code_name(signo: i32, code: i32) -> Option<&'static str> {
    let at = |names: &[&'static str]| {
        usize::try_from(code).ok().and_then(|i| names.get(i.wrapping_sub(1)).copied())
    };
    match code {
        0 => return Some("SI_USER"),
        -1 => return Some("SI_QUEUE"),
        -2 => return Some("SI_TIMER"),
        -3 => return Some("SI_ASYNCIO"),
        -4 => return Some("SI_MESGQ"),
        -5 => return Some("SI_LWP"),
        -6 => return Some("SI_SIGIO"),
        0x80 => return Some("SI_KERNEL"),
        _ => {}
    }
    match signo {
        libc::SIGILL => at(&[
            "ILL_ILLOPC",
            "ILL_ILLOPN",
            "ILL_ILLADR",
            "ILL_ILLTRP",
            "ILL_PRVOPC",
            "ILL_PRVREG",
            "ILL_COPROC",
            "ILL_BADSTK",
            "ILL_BADIADDR",
        ]),
        libc::SIGFPE => at(&[
            "FPE_INTDIV",
            "FPE_INTOVF",
            "FPE_FLTDIV",
            "FPE_FLTOVF",
            "FPE_FLTUND",
            "FPE_FLTRES",
            "FPE_FLTINV",
            "FPE_FLTSUB",
        ]),
        libc::SIGSEGV => at(&[
            "SEGV_MAPERR",
            "SEGV_ACCERR",
            "SEGV_BNDERR",
            "SEGV_PKUERR",
            "SEGV_ACCADI",
            "SEGV_ADIDERR",
            "SEGV_ADIPERR",
            "SEGV_MTEAERR",
            "SEGV_MTESERR",
            "SEGV_CPERR",
        ]),
        libc::SIGBUS => at(&["BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"]),
        libc::SIGTRAP => {
            at(&["TRAP_BRKPT", "TRAP_TRACE", "TRAP_BRANCH", "TRAP_HWBKPT", "TRAP_UNK", "TRAP_PERF"])
        }
        libc::SIGCHLD => {
            at(&["CLD_EXITED", "CLD_KILLED", "CLD_DUMPED", "CLD_TRAPPED", "CLD_STOPPED", "CLD_CONTINUED"])
        }
        libc::SIGIO => at(&["POLL_IN", "POLL_OUT", "POLL_MSG", "POLL_ERR", "POLL_PRI", "POLL_HUP"]),
        libc::SIGSYS => at(&["SYS_SECCOMP", "SYS_USER_DISPATCH"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kill() {
        let name = |n| short_name(n).unwrap();
        assert_eq!((name(1), name(15), name(31)), ("HUP".into(), "TERM".into(), "SYS".into()));
        assert_eq!((name(34), name(36), name(49)), ("RTMIN".into(), "RTMIN+2".into(), "RTMIN+15".into()));
        assert_eq!((name(50), name(63), name(64)), ("RTMAX-14".into(), "RTMAX-1".into(), "RTMAX".into()));
        assert!([0, -1, 65, i32::MAX, i32::MIN].iter().all(|&n| short_name(n).is_none()));
        for n in 1..=31 {
            let nix = nix::sys::signal::Signal::try_from(n).unwrap();
            assert_eq!(nix.as_str(), format!("SIG{}", name(n)));
        }
    }

    #[test]
    fn defaults_are_those_of_signal_7() {
        assert_eq!(default_action(libc::SIGTERM), Action::Terminate);
        assert_eq!(default_action(libc::SIGSEGV), Action::Core);
        assert_eq!(default_action(libc::SIGCHLD), Action::Ignore);
        assert_eq!(default_action(libc::SIGTSTP), Action::Stop);
        assert_eq!(default_action(libc::SIGCONT), Action::Continue);
        assert_eq!(default_action(40), Action::Terminate);
    }

    #[test]
    fn codes_change_places_and_back() {
        assert_eq!((netbsd_code(-6), netbsd_code(-3), netbsd_code(-4)), (-5, -4, -3));
        assert_eq!((netbsd_code(0), netbsd_code(1), netbsd_code(0x80)), (0, 1, 0x80));
        assert!((-10..200).all(|code| netbsd_code(netbsd_code(code)) == code));
        assert_eq!(code_name(libc::SIGSEGV, 1), Some("SEGV_MAPERR"));
        assert_eq!(code_name(libc::SIGUSR1, -5), Some("SI_LWP"));
        assert_eq!(code_name(libc::SIGUSR1, 7), None);
        assert_eq!(code_name(libc::SIGSEGV, i32::MIN), None);
    }
}
