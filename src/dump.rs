//! Records to text: of kdump, column by column as NetBSD prints it, of ktruss, one line for each call, and of the
//! checks and counts that kdump adds.
//!
//! Pure, but for [`print_parallel`]: a record goes in, bytes are appended to a buffer. Whatever a record holds, no byte of it reaches a terminal
//! as a control character.

mod again;
mod args;
mod check;
mod columns;
mod emulation;
mod ioctl;
mod json;
mod number;
mod parallel;
mod printer;
mod psig;
mod summary;
mod text;
mod truss;
mod vis;

pub use check::Check;
pub use emulation::Emulation;
pub use json::Json;
pub use parallel::print_parallel;
pub use printer::Printer;
pub use summary::Summary;
pub use truss::Truss;

use crate::facility::Facs;
use crate::record::{Body, Record};
use crate::syscall::Abi;

/// `write!` to a `Vec<u8>`, which cannot fail.
macro_rules! put {
    ($out:expr, $($what:tt)*) => {{
        use std::io::Write as _;
        _ = write!($out, $($what)*);
    }};
}
use put;

/// What is shown, and how: kdump's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// `-t`: these only; `None` shows every record, also of types without a name.
    pub facs: Option<Facs>,
    /// `-p`: records of this process or thread only.
    pub pid: Option<i32>,
    /// `-u`: USER records of this id only, their data as text.
    pub label: Option<Vec<u8>>,
    /// `-d`: numbers in decimal.
    pub decimal: bool,
    /// `-n`: 1, arguments and errors as bare numbers; 2, also the call of a RET.
    pub plain: u8,
    /// `-N`: calls as numbers.
    pub numeric: bool,
    /// `-S`: the number of a call behind its name.
    pub codes: bool,
    /// `-A`: the emulation as a column.
    pub abi: bool,
    /// `-T`: a column with the time.
    pub absolute: bool,
    /// `-E`: a column with the time since the first record shown.
    pub elapsed: bool,
    /// `-R`: a column with the time since the record shown before.
    pub relative: bool,
    /// `-m`: most bytes of data shown, all where `None`.
    pub max_data: Option<usize>,
    /// `-x`, `-X`: data in hex, in words of 1, 2, 4, 8 or 16 bytes.
    pub word: Option<usize>,
    /// Columns of the screen.
    pub width: usize,
    /// `-e`: the emulation of processes without an EMUL record.
    pub emulation: Emulation,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            facs: None,
            pid: None,
            label: None,
            decimal: false,
            plain: 0,
            numeric: false,
            codes: false,
            abi: false,
            absolute: false,
            elapsed: false,
            relative: false,
            max_data: None,
            word: None,
            width: 80,
            emulation: Emulation::Linux(Abi::Linux),
        }
    }
}

impl Options {
    /// Whether a record is to be shown.
    #[inline]
    pub fn wants(&self, record: &Record<'_>) -> bool {
        let h = &record.header;
        // As NetBSD's kdump, whose shift takes the type modulo 32: a type without a name goes with another facility.
        let facility = 1u32 << (h.ktr_type & 31);
        self.facs.is_none_or(|facs| facs.bits() & facility != 0)
            && self.pid.is_none_or(|pid| pid == h.stamp.pid || pid == h.stamp.tid)
            && self.label.as_deref().is_none_or(|want| has_label(record, want))
    }

    /// The part of `data` to be shown.
    fn cut<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[..self.max_data.unwrap_or(usize::MAX).min(data.len())]
    }
}

#[cold]
fn has_label(record: &Record<'_>, want: &[u8]) -> bool {
    matches!(record.body(), Body::User { id, .. } if id == want)
}

#[cfg(test)]
mod tests;
