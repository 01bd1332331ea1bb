//! The auxiliary vector (getauxval(3)).

use crate::syscall::Abi;

/// `AT_SECURE` of the kernel's uapi/linux/auxvec.h: the exec changed ids or capabilities.
const AT_SECURE: u64 = 23;

/// What the kernel told a program at its start.
pub(crate) struct Auxv {
    pub(crate) abi: Abi,
    pub(crate) secure: bool,
}

impl Auxv {
    pub(crate) fn of(pid: i32) -> Auxv {
        let bytes = super::read(pid, "auxv").unwrap_or_default();
        let number = |b: &[u8]| b.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        // The first key is a small number: in a 32-bit process the upper half of its first 8 bytes is a value, an
        // address.
        let wide = bytes.get(..8).is_none_or(|b| number(b) < 1 << 16);
        let (abi, word) = if wide { (Abi::Linux, 8) } else { (Abi::Linux32, 4) };
        let secure =
            bytes.chunks_exact(2 * word).any(|e| number(&e[..word]) == AT_SECURE && number(&e[word..]) != 0);
        Auxv { abi, secure }
    }
}
