//! Programs repeat themselves: what a body is printed as is kept, to be copied where the same body comes again.

use super::emulation::Emulation;
use super::number::put_first;
use crate::record::{KTR_GENIO, KTR_SYSCALL, KTR_SYSRET, Record};

/// How many are kept: with real programs two of three calls are among so many, and four of five returns.
const KEPT: usize = 1 << BITS;
const BITS: u32 = 9;
/// Words of the longest body that is kept: that of a call with six arguments.
const WORDS: usize = 7;
/// The longest body of data that is kept, in bytes: what is longer has more text than is kept.
const DATA: usize = 40;
/// The longest text. Those of few calls are longer.
const TEXT: usize = 63;

/// The texts of bodies, each in the place that the body gives, until another body comes to the same.
///
/// For what is printed from type, emulation and body alone, with the same options always.
#[derive(Clone, Debug)]
pub(super) struct Again(Box<[Kept; KEPT]>);

/// Two lines of a cpu's cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Kept {
    /// 0 before the first: no record has this type.
    what: u64,
    words: [u64; WORDS],
    text: [u8; TEXT],
    text_len: u8,
}

/// A body that may come again, in words.
pub(super) struct Short<'a> {
    /// Type, emulation and length.
    what: u64,
    words: &'a [[u8; 8]],
    /// The bytes behind them, 0 where there are none.
    rest: u64,
}

impl<'a> Short<'a> {
    /// Of what programs do over and over, and is printed the same wherever in a line it stands.
    #[inline(always)]
    pub(super) fn new(record: &Record<'a>, emulation: Emulation) -> Option<Short<'a>> {
        let raw = record.raw;
        let most = match record.header.ktr_type {
            KTR_SYSCALL | KTR_SYSRET => 8 * WORDS,
            KTR_GENIO => DATA,
            _ => return None,
        };
        let last = raw.last_chunk().filter(|_| raw.len() <= most)?;
        let (words, rest) = raw.as_chunks();
        let rest = match rest.len() {
            0 => 0,
            len => u64::from_le_bytes(*last) >> (64 - 8 * len),
        };
        let emulation = match emulation {
            Emulation::Linux(abi) => abi as u64,
            Emulation::Foreign => 0xff,
        };
        let what = record.header.ktr_type as u64 | emulation << 16 | (raw.len() as u64) << 32;
        Some(Short { what, words, rest })
    }

    /// Where its text is kept.
    #[inline(always)]
    fn place(&self) -> usize {
        // Two instructions a word, and what they leave to be mixed is mixed once.
        let words = self.words.iter().map(|word| u64::from_le_bytes(*word));
        let sum = words.fold(self.rest ^ self.what, |sum, word| sum.rotate_left(11) ^ word);
        ((sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BITS)) as usize
    }
}

impl Default for Again {
    fn default() -> Again {
        let none = Kept { what: 0, words: [0; WORDS], text: [0; TEXT], text_len: 0 };
        Again(Box::new([none; KEPT]))
    }
}

impl Again {
    /// Appends the text of a body, and says whether it is known.
    #[inline(always)]
    pub(super) fn put(&self, body: &Short<'_>, out: &mut Vec<u8>) -> bool {
        let kept = &self.0[body.place()];
        let same = |(word, kept): (&[u8; 8], &u64)| u64::from_le_bytes(*word) == *kept;
        let known = kept.what == body.what
            // The word behind the whole ones.
            && kept.words.get(body.words.len()).copied().unwrap_or(0) == body.rest
            && body.words.iter().zip(&kept.words).all(same);
        if known {
            put_first(out, &kept.text, kept.text_len.into());
        }
        known
    }

    /// Keeps the text of a body, where it is short.
    pub(super) fn keep(&mut self, body: &Short<'_>, printed: &[u8]) {
        let mut text = [0; TEXT];
        let Some(room) = text.get_mut(..printed.len()) else { return };
        room.copy_from_slice(printed);
        let mut words = [0; WORDS];
        let rest = [body.rest.to_le_bytes()];
        for (to, from) in words.iter_mut().zip(body.words.iter().chain(&rest)) {
            *to = u64::from_le_bytes(*from);
        }
        self.0[body.place()] = Kept { what: body.what, words, text, text_len: printed.len() as u8 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Printer, vis};
    use crate::record::{Args, Body, Stamp, encode, record_at};

    /// What a printer that has printed others prints of this one, without the columns before it.
    fn printed(printer: &mut Printer, body: &Body<'_>) -> String {
        let (mut bytes, mut text) = (Vec::new(), Vec::new());
        encode(&mut bytes, &Stamp::default(), body);
        printer.record(&record_at(&bytes, 0).unwrap().unwrap(), &mut text);
        String::from_utf8(text).unwrap().split_off("     0      0          ".len())
    }

    /// For each byte so many bodies that are told apart by it alone that some come to the same place.
    #[test]
    fn data_is_told_apart_by_each_byte() {
        let mut printer = Printer::new(Options::default());
        for len in [1, 7, 8, 9, 16, 31, 32] {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut data = vec![b'x'; len];
                    data[at] = byte;
                    let mut want = format!("GIO   fd 3 read {len} bytes\n       ").into_bytes();
                    vis::folded(&mut want, &data, 7, 80);
                    let text = printed(&mut printer, &Body::Genio { fd: 3, write: false, data: &data });
                    assert_eq!(text.as_bytes(), want);
                }
            }
        }
    }

    #[test]
    fn calls_are_told_apart_by_each_argument() {
        let mut printer = Printer::new(Options { plain: 1, ..Options::default() });
        for at in 0..6 {
            for bits in (0..64).flat_map(|a| (0..a).map(move |b| 1_u64 << a | 1 << b)) {
                let mut args = [0; 6];
                args[at] = bits;
                let shown = args.map(|v| if v < 10 { v.to_string() } else { format!("{v:#x}") }).join(",");
                let text = printed(&mut printer, &Body::Syscall { code: 9, args: Args::Words(&args) });
                assert_eq!(text, format!("CALL  mmap({shown})\n"));
            }
        }
    }
}
