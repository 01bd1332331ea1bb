//! Programs repeat themselves: what a body is printed as is kept, to be copied where the same body comes again.

use super::emulation::Emulation;
use super::number::put_first;
use crate::record::Record;

/// How many are kept: with real programs two of three calls are among so many, and four of five returns.
const KEPT: usize = 1 << BITS;
const BITS: u32 = 8;
/// The longest body that is kept: that of a call with six arguments.
const BODY: usize = 56;
/// The longest text. Those of few calls are longer.
const TEXT: usize = 64;

/// The texts of bodies, each in the place that the body gives, until another body comes to the same.
///
/// For what is printed from type, emulation and body alone, with the same options always.
#[derive(Clone, Debug)]
pub(super) struct Again(Box<[Kept; KEPT]>);

#[derive(Clone, Copy, Debug)]
struct Kept {
    ktr_type: i16,
    emulation: Emulation,
    body: [u8; BODY],
    body_len: u8,
    text: [u8; TEXT],
    /// 0 before the first.
    text_len: u8,
}

impl Default for Again {
    fn default() -> Again {
        let none = Kept {
            ktr_type: 0,
            emulation: Emulation::Foreign,
            body: [0; BODY],
            body_len: 0,
            text: [0; TEXT],
            text_len: 0,
        };
        Again(Box::new([none; KEPT]))
    }
}

impl Again {
    /// Appends the text of a record's body, and says whether it is known.
    #[inline]
    pub(super) fn put(&self, record: &Record<'_>, emulation: Emulation, out: &mut Vec<u8>) -> bool {
        let raw = record.raw;
        let kept = &self.0[place(raw)];
        let known = kept.text_len > 0
            && kept.ktr_type == record.header.ktr_type
            && kept.emulation == emulation
            && usize::from(kept.body_len) == raw.len()
            && kept.body[..raw.len()] == *raw;
        if known {
            put_first(out, &kept.text, kept.text_len.into());
        }
        known
    }

    /// Keeps the text of a record's body, where both are short.
    pub(super) fn keep(&mut self, record: &Record<'_>, emulation: Emulation, printed: &[u8]) {
        let raw = record.raw;
        if raw.len() > BODY || printed.len() > TEXT {
            return;
        }
        let kept = &mut self.0[place(raw)];
        kept.ktr_type = record.header.ktr_type;
        kept.emulation = emulation;
        kept.body[..raw.len()].copy_from_slice(raw);
        kept.body_len = raw.len() as u8;
        kept.text[..printed.len()].copy_from_slice(printed);
        kept.text_len = printed.len() as u8;
    }
}

/// Where a body's text is kept.
#[inline]
fn place(body: &[u8]) -> usize {
    // Of long ones the beginning will do: the others are not kept.
    let (words, _) = body[..body.len().min(BODY)].as_chunks();
    let last = body.last_chunk().copied().unwrap_or_default();
    let mixed = words.iter().chain([&last]).fold(0_u64, |mixed, word| {
        (mixed.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (mixed >> (u64::BITS - BITS)) as usize
}
