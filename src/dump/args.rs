//! The arguments of a call, each by its kind.

use super::emulation::Emulation;
use super::ioctl::Request;
use super::{Options, number, put, text};
use crate::record::Args;
use crate::signal;
use crate::syscall::{Abi, Arg};

/// How to show arguments and results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// By kind; else as NetBSD shows any number.
    pub(super) typed: bool,
    /// `-d`.
    pub(super) decimal: bool,
    /// Numbers have 32 bits.
    pub(super) narrow: bool,
}

impl Style {
    pub(super) fn new(options: &Options, emulation: Emulation) -> Style {
        Style {
            typed: options.plain == 0 && !options.numeric,
            decimal: options.decimal,
            narrow: emulation == Emulation::Linux(Abi::Linux32),
        }
    }

    /// A number as NetBSD shows it: one digit in decimal, the others in hex unless `-d`.
    pub(super) fn number(self, out: &mut Vec<u8>, v: u64) {
        match v {
            0..10 => number::decimal(out, v),
            _ if self.decimal => self.signed(out, v),
            _ if self.narrow => number::hexadecimal(out, u64::from(v as u32)),
            _ => number::hexadecimal(out, v),
        }
    }

    pub(super) fn signed(self, out: &mut Vec<u8>, v: u64) {
        number::signed(out, if self.narrow { i64::from(v as i32) } else { v as i64 });
    }

    /// One argument, by its kind where there is one.
    fn argument(self, out: &mut Vec<u8>, v: u64, kind: Option<Arg>) {
        // A C int has 32 bits; what stands above them in the register means nothing.
        let int = v as i32;
        match kind.filter(|_| self.typed) {
            Some(Arg::DirFd) if int == libc::AT_FDCWD => out.extend_from_slice(b"AT_FDCWD"),
            Some(Arg::Int | Arg::Fd | Arg::DirFd | Arg::Pid) => number::signed(out, int.into()),
            Some(Arg::Size) => number::decimal(out, if self.narrow { u64::from(v as u32) } else { v }),
            Some(Arg::Off) => self.signed(out, v),
            // Where the call makes no file, the mode is whatever stood in the register.
            Some(Arg::Mode) if !self.decimal && (0o10..=0o177_777).contains(&v) => put!(out, "0{v:o}"),
            Some(Arg::Sig) => match signal::short_name(int) {
                Some(name) => put!(out, "SIG{name}"),
                None => put!(out, "{int}"),
            },
            Some(Arg::Ioctl) if self.decimal => put!(out, "{:#}", Request(v as u32)),
            Some(Arg::Ioctl) => put!(out, "{}", Request(v as u32)),
            _ => self.number(out, v),
        }
    }

    /// All arguments of a call, `between` between them. A path is shown by its NAMEI record as far as `paths` go.
    pub(super) fn arguments(
        self,
        out: &mut Vec<u8>,
        (args, kinds): (Args<'_>, &[Arg]),
        between: &str,
        paths: &[Vec<u8>],
    ) {
        match args {
            Args::Words(words) => self.each(out, words.iter().copied(), kinds, between, paths),
            Args::Bytes(bytes) => {
                let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
                self.each(out, words, kinds, between, paths);
            }
        }
    }

    #[inline]
    fn each(
        self,
        out: &mut Vec<u8>,
        args: impl Iterator<Item = u64>,
        kinds: &[Arg],
        between: &str,
        paths: &[Vec<u8>],
    ) {
        let mut paths = paths.iter();
        for (i, v) in args.enumerate() {
            if i > 0 {
                out.extend_from_slice(between.as_bytes());
            }
            let kind = kinds.get(i).copied();
            // No path is looked up at address 0, so none was recorded.
            let path = if kind == Some(Arg::Path) && v != 0 { paths.next() } else { None };
            match path {
                Some(path) => text::quoted(out, path),
                None => self.argument(out, v, kind),
            }
        }
    }
}
