//! The seccomp filter of a command that is traced by it (`+seccomp`): of all its calls only those of interest stop.
//!
//! seccomp(2): what returns SECCOMP_RET_TRACE stops for the tracer, and is ENOSYS where there is none. So whoever has such
//! a filter must never be without its tracer (docs/decisions/seccomp.md).

use crate::facility::Facs;
use crate::syscall::{self, Abi, Calls, changes_access};

/// One instruction of classic BPF, as the kernel takes it (`struct sock_filter`).
pub type Instruction = libc::sock_filter;

/// `AUDIT_ARCH_X86_64` of the kernel's uapi/linux/audit.h.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = syscall::X32_BIT as u32;
/// Where `struct seccomp_data` has number and architecture.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The filter for these facilities of these calls, all where `None`. Calls of another ABI than x86-64 all stop: few
/// programs make any.
pub fn program(facs: Facs, calls: Option<&Calls>) -> Vec<Instruction> {
    let one = |code: u32, k: u32, jt: u8, jf: u8| Instruction { code: code as u16, jt, jf, k };
    let mut program = vec![
        one(LOAD, ARCH, 0, 0),
        one(EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        one(RETURN, libc::SECCOMP_RET_TRACE, 0, 0),
        one(LOAD, NUMBER, 0, 0),
        one(AT_LEAST, X32_BIT, 0, 1),
        one(RETURN, libc::SECCOMP_RET_TRACE, 0, 0),
    ];
    for number in wanted(facs, calls) {
        program.push(one(EQUAL, number, 0, 1));
        program.push(one(RETURN, libc::SECCOMP_RET_TRACE, 0, 0));
    }
    program.push(one(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// The numbers of the x86-64 calls that must stop.
fn wanted(facs: Facs, calls: Option<&Calls>) -> Vec<u32> {
    let shows = |number: i64, call: &syscall::Syscall| {
        let chosen = calls.is_none_or(|calls| calls.contains(Abi::Linux, number));
        let shown = facs.intersects(Facs::SYSCALL | Facs::SYSRET)
            || facs.contains(Facs::NAMEI) && call.may_take_path()
            || facs.contains(Facs::GENIO) && call.io.is_some();
        // What else a tracer has to see of a process it sees whatever was chosen.
        chosen && shown || changes_access(call.name)
    };
    let all = (0..syscall::NUMBERS as i64)
        .filter_map(|number| Some((number, syscall::lookup(Abi::Linux, number)?)));
    all.filter(|(number, call)| shows(*number, call)).map(|(number, _)| number as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter returns for a call.
    fn verdict(program: &[Instruction], arch: u32, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let it = &program[at];
            let jump = |taken: bool| usize::from(if taken { it.jt } else { it.jf });
            at += 1;
            match u32::from(it.code) {
                LOAD => loaded = if it.k == ARCH { arch } else { number },
                EQUAL => at += jump(loaded == it.k),
                AT_LEAST => at += jump(loaded >= it.k),
                RETURN => return it.k,
                code => panic!("{code}"),
            }
        }
    }

    #[test]
    fn wanted_calls_stop_and_others_do_not() {
        const I386: u32 = 0x4000_0003;
        let (trace, allow) = (libc::SECCOMP_RET_TRACE, libc::SECCOMP_RET_ALLOW);
        let calls = Calls::parse("openat,getppid").unwrap();
        let narrow = program(Facs::DEFAULT, Some(&calls));
        for (number, is) in [
            (libc::SYS_openat, trace),
            (libc::SYS_getppid, trace),
            (libc::SYS_read, allow),
            (libc::SYS_prctl, trace),
            (libc::SYS_setuid, trace),
            (100_000, allow),
        ] {
            assert_eq!(verdict(&narrow, AUDIT_ARCH_X86_64, number as u32), is, "{number}");
        }
        assert_eq!(verdict(&narrow, I386, 3), trace, "another ABI");
        assert_eq!(verdict(&narrow, AUDIT_ARCH_X86_64, X32_BIT | 39), trace, "x32");
        let paths = program(Facs::NAMEI, None);
        assert_eq!(verdict(&paths, AUDIT_ARCH_X86_64, libc::SYS_openat as u32), trace);
        assert_eq!(verdict(&paths, AUDIT_ARCH_X86_64, libc::SYS_getppid as u32), allow);
        assert!(program(Facs::all(), None).len() < 4096, "BPF_MAXINSNS");
    }
}
