//! Facilities: which events of a process are traced, under the names and bits of NetBSD's `sys/ktrace.h`.
//!
//! Pure words: names, bits and letters, and nothing that traces.

use std::fmt;

bitflags::bitflags! {
    /// A set of facilities. Each bit is `1 << type` of the record type it lets through (`KTRFAC_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Facs: u32 {
        /// `KTRFAC_SYSCALL`: number and arguments of each call.
        const SYSCALL = 1 << 1;
        /// `KTRFAC_SYSRET`: result of each call.
        const SYSRET = 1 << 2;
        /// `KTRFAC_NAMEI`: each path given to a call.
        const NAMEI = 1 << 3;
        /// `KTRFAC_GENIO`: the data that read and write moved.
        const GENIO = 1 << 4;
        /// `KTRFAC_PSIG`: each signal acted on.
        const PSIG = 1 << 5;
        /// `KTRFAC_CSW`: context switches.
        const CSW = 1 << 6;
        /// `KTRFAC_EMUL`: changes of the system call ABI.
        const EMUL = 1 << 7;
        /// `KTRFAC_USER`: records the process writes itself (`utrace`).
        const USER = 1 << 8;
        /// `KTRFAC_EXEC_ARG`: each argument string of an exec.
        const EXEC_ARG = 1 << 10;
        /// `KTRFAC_EXEC_ENV`: each environment string of an exec.
        const EXEC_ENV = 1 << 11;
        /// `KTRFAC_MIB`: NetBSD's sysctl names; nothing on Linux makes one.
        const MIB = 1 << 14;
        /// `KTRFAC_EXEC_FD`: each descriptor open across an exec.
        const EXEC_FD = 1 << 15;
    }
}

impl Facs {
    /// What `default` and the letter `+` mean: syscall sysret namei genio psig emul user (0x1be).
    pub const DEFAULT: Facs = Facs::SYSCALL
        .union(Facs::SYSRET)
        .union(Facs::NAMEI)
        .union(Facs::GENIO)
        .union(Facs::PSIG)
        .union(Facs::EMUL)
        .union(Facs::USER);

    /// The facilities by name, as `ctl` reads and prints them, in the order of their bits.
    pub const NAMES: [(&'static str, Facs); 11] = [
        ("syscall", Facs::SYSCALL),
        ("sysret", Facs::SYSRET),
        ("namei", Facs::NAMEI),
        ("genio", Facs::GENIO),
        ("psig", Facs::PSIG),
        ("csw", Facs::CSW),
        ("emul", Facs::EMUL),
        ("user", Facs::USER),
        ("execarg", Facs::EXEC_ARG),
        ("execenv", Facs::EXEC_ENV),
        ("execfd", Facs::EXEC_FD),
    ];

    /// The letters of `ktrace -t` and `kdump -t` ("Letters" in docs/format.md).
    pub const LETTERS: [(char, Facs); 11] = [
        ('c', Facs::SYSCALL.union(Facs::SYSRET)),
        ('n', Facs::NAMEI),
        ('i', Facs::GENIO),
        ('s', Facs::PSIG),
        ('u', Facs::USER),
        ('w', Facs::CSW),
        ('e', Facs::EMUL),
        ('a', Facs::EXEC_ARG),
        ('v', Facs::EXEC_ENV),
        ('f', Facs::EXEC_FD),
        ('S', Facs::MIB),
    ];

    /// The facility (or group: `all`, `default`) of that name.
    pub fn by_name(name: &str) -> Option<Facs> {
        match name {
            "all" => Some(Facs::all()),
            "default" => Some(Facs::DEFAULT),
            _ => Facs::NAMES.iter().find(|(n, _)| *n == name).map(|(_, f)| *f),
        }
    }

    /// Applies a string of letters to this set: each adds its facilities, `A` adds all, `+` the default set, and after
    /// a `-` letters take theirs away, to the end of the string. `-` as the first letter begins from the default set.
    ///
    /// # Errors
    /// The first letter that is none.
    pub fn with_letters(self, letters: &str) -> Result<Facs, char> {
        let mut facs = if letters.starts_with('-') && self.is_empty() { Facs::DEFAULT } else { self };
        let mut add = true;
        for c in letters.chars() {
            let f = match c {
                '-' => {
                    add = false;
                    continue;
                }
                '+' => {
                    add = true;
                    Facs::DEFAULT
                }
                'A' => Facs::all(),
                _ => Facs::LETTERS.iter().find(|(l, _)| *l == c).map(|(_, f)| *f).ok_or(c)?,
            };
            facs.set(f, add);
        }
        Ok(facs)
    }

    /// The facility whose records have this type, empty for a type that is none.
    pub fn of_type(ktr_type: i16) -> Facs {
        u32::try_from(ktr_type)
            .ok()
            .and_then(|t| 1u32.checked_shl(t))
            .map_or(Facs::empty(), Facs::from_bits_truncate)
    }
}

impl fmt::Display for Facs {
    /// The names, comma separated, in the order of their bits: what `ctl` accepts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for (name, fac) in Facs::NAMES {
            if self.contains(fac) {
                write!(f, "{sep}{name}")?;
                sep = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_netbsds() {
        assert_eq!(Facs::DEFAULT.bits(), 0x1be);
    }

    #[test]
    fn every_name_reads_back() {
        for (name, fac) in Facs::NAMES {
            assert_eq!(Facs::by_name(name), Some(fac));
            assert_eq!(fac.to_string(), name);
        }
        assert_eq!(Facs::by_name("nosuch"), None);
    }

    #[test]
    fn letters_add_and_take_away() {
        let none = Facs::empty();
        assert_eq!(none.with_letters("cn"), Ok(Facs::SYSCALL | Facs::SYSRET | Facs::NAMEI));
        assert_eq!(none.with_letters("+w-u"), Ok((Facs::DEFAULT | Facs::CSW) - Facs::USER));
        assert_eq!(none.with_letters("-e"), Ok(Facs::DEFAULT - Facs::EMUL));
        assert_eq!(none.with_letters("A"), Ok(Facs::all()));
        assert_eq!(none.with_letters("cZ"), Err('Z'));
        assert_eq!(Facs::NAMEI.with_letters("-n"), Ok(none), "several -t add up");
    }

    #[test]
    fn a_type_has_its_bit() {
        assert_eq!(Facs::of_type(1), Facs::SYSCALL);
        assert_eq!(Facs::of_type(99), Facs::empty());
        assert_eq!(Facs::of_type(-1), Facs::empty());
    }
}
