//! Data as vis(3) writes it in its C style, in lines that are folded.

use super::number::put_first;

/// What each byte of data becomes, as vis(3) writes it in C style: in the low half up to four bytes, then how many, then
/// whether they depend on more than the byte ([`NUL`], [`TAB`]). Blanks and tabs stay as they are; newlines, quotes and backslashes
/// do not.
static VIS: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let ([a, b, c, d], len) = seen(byte as u8);
        let (tab, nul) = ((byte as u8 == b'\t') as u8, (byte == 0) as u8);
        table[byte] = u64::from_le_bytes([a, b, c, d, len, 0, nul, tab]);
        byte += 1;
    }
    table
};
/// A NUL, which must not run into a digit.
const NUL: u64 = 1 << 48;
/// A tab, whose width is that of its column.
const TAB: u64 = 1 << 56;

const fn seen(byte: u8) -> ([u8; 4], u8) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        0x08 => b'b',
        0x07 => b'a',
        0x0b => b'v',
        0x0c => b'f',
        b'"' | b'\\' => byte,
        // The first two, where no octal digit follows.
        0 => return (*b"\\000", 2),
        b' '..=b'~' | b'\t' => return ([byte, 0, 0, 0], 1),
        // vis(3) gives the blank with its high bit set in octal, so that no blank stands in the text.
        0xa0 => return (*b"\\240", 4),
        _ => 0,
    };
    if short != 0 {
        return ([b'\\', short, 0, 0], 2);
    }
    let (mark, char) = match byte & 0x7f {
        0x7f => (b'^', b'?'),
        c @ ..0x20 => (b'^', c + b'@'),
        c => (b'-', c),
    };
    if byte & 0x80 == 0 { ([b'\\', mark, char, 0], 3) } else { ([b'\\', b'M', mark, char], 4) }
}

/// The length of a byte's text; `next` is the byte behind it, 0 at the end.
#[inline]
fn seen_len(seen: u64, byte: u8, next: u8) -> usize {
    let len = (seen >> 32 & 7) as usize;
    if byte == 0 && matches!(next, b'0'..=b'7') { len + 2 } else { len }
}

pub(super) fn put_vis(out: &mut Vec<u8>, byte: u8, next: u8) {
    let seen = VIS[usize::from(byte)];
    put_first(out, &(seen as u32).to_le_bytes(), seen_len(seen, byte, next));
}

/// Bytes that are looked at together, where all are plain.
const STEP: usize = 16;
/// And where not.
const HALF: usize = 8;

/// True of a byte that is not shown as it is.
#[inline(always)]
fn odd(b: u8) -> bool {
    (b.wrapping_sub(b' ') > b'~' - b' ') | (b == b'"') | (b == b'\\')
}

/// All bits of each byte that is not shown as it is.
#[inline(always)]
fn odds(step: &[u8; STEP]) -> u128 {
    u128::from_le_bytes(step.map(|b| if odd(b) { 0xff } else { 0 }))
}

/// True of bytes that are all shown as they are, in one column each.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    steps.iter().all(|step| odds(step) == 0) && !rest.iter().any(|b| odd(*b))
}

/// Data in quotes and a newline, in lines of at most `width` columns that each end in a backslash; `column` is where
/// the first begins.
pub(super) fn folded(out: &mut Vec<u8>, data: &[u8], column: usize, width: usize) {
    let last = width.saturating_sub(2);
    let mut column = column + 1;
    let mut data = data;
    out.push(b'"');
    while !data.is_empty() {
        let start = out.len();
        out.resize(start + ROOM + STEP, 0);
        let mut end = start;
        if let Some(room) = out[start..].first_chunk_mut() {
            let at;
            (data, at, column) = fill(room, data, column, last);
            end += at;
        }
        out.truncate(end);
    }
    out.extend_from_slice(b"\"\n");
}

/// Bytes of text that are made at once, a power of two.
const ROOM: usize = 512;
/// Most bytes of text that [`one_by_one`] makes of so many: each byte's, and the end of a line before each.
const HALF_MAX: usize = HALF * 7;
/// The column that a line begins at, but for the first.
const MARGIN: usize = 8;
/// The end of a line, and the margin of the next.
const FOLD: [u8; 3] = *b"\\\n\t";

type Room = [u8; ROOM + STEP];

/// Puts bytes at this place.
#[inline(always)]
fn put_at<const N: usize>(room: &mut Room, at: usize, bytes: [u8; N]) {
    // So it is seen to be within.
    let at = at & (ROOM - 1);
    room[at..at + N].copy_from_slice(&bytes);
}

/// As much text as there is room for: the data that is left, the length of the text, and the column behind it.
#[inline]
fn fill<'a>(room: &mut Room, mut data: &'a [u8], mut column: usize, last: usize) -> (&'a [u8], usize, usize) {
    let mut at = 0;
    // Where a line may not have room for one byte, everything is done one by one.
    let wide = last >= MARGIN + 4;
    while at <= ROOM - HALF_MAX && !data.is_empty() {
        if wide && let Some((step, rest)) = data.split_first_chunk::<STEP>() {
            put_at(room, at, *step);
            let odd = odds(step);
            if odd == 0 {
                let fit = last.saturating_sub(column);
                if fit >= STEP {
                    (data, at, column) = (rest, at + STEP, column + STEP);
                } else {
                    put_at(room, at + fit, FOLD);
                    (data, at, column) = (&data[fit..], at + fit + FOLD.len(), MARGIN);
                }
                continue;
            }
        }
        if wide && let Some((bytes, rest)) = data.split_first_chunk::<HALF>() {
            let next = rest.first().copied().unwrap_or(0);
            // In the low bytes the place of the text; above them is counted what needs more than that.
            let mut sum = at as u64;
            for byte in bytes {
                let seen = VIS[usize::from(*byte)];
                put_at(room, sum as usize, (seen as u32).to_le_bytes());
                sum += seen >> 32;
            }
            if sum < NUL >> 32 || (sum < TAB >> 32 && !nul_before_digit(bytes, next)) {
                let end = (sum & ((NUL >> 32) - 1)) as usize;
                if column + (end - at) <= last {
                    (data, at, column) = (rest, end, column + (end - at));
                } else {
                    let fit = fitting(bytes, last.saturating_sub(column));
                    at += fit.1;
                    put_at(room, at, FOLD);
                    (data, at, column) = (&data[fit.0..], at + FOLD.len(), MARGIN);
                }
                continue;
            }
        }
        let (bytes, rest) = data.split_at(data.len().min(HALF));
        (at, column) = one_by_one(room, bytes, rest.first().copied().unwrap_or(0), (at, column), last);
        data = rest;
    }
    (data, at, column)
}

/// How many of these bytes have text of no more columns than these, and of how many.
#[inline(always)]
fn fitting(bytes: &[u8; HALF], columns: usize) -> (usize, usize) {
    let mut fit = (0, 0);
    for byte in bytes {
        let len = (VIS[usize::from(*byte)] >> 32 & 7) as usize;
        if fit.1 + len > columns {
            break;
        }
        fit = (fit.0 + 1, fit.1 + len);
    }
    fit
}

/// The text of any bytes, [`HALF`] at most; `next` is the one behind them.
#[inline(never)]
fn one_by_one(
    room: &mut Room,
    bytes: &[u8],
    next: u8,
    (mut at, mut column): (usize, usize),
    last: usize,
) -> (usize, usize) {
    for (i, &byte) in bytes.iter().enumerate() {
        let seen = VIS[usize::from(byte)];
        let len = seen_len(seen, byte, *bytes.get(i + 1).unwrap_or(&next));
        let columns = |column: usize| if byte == b'\t' { 8 - (column & 7) } else { len };
        if column + columns(column) > last {
            put_at(room, at, FOLD);
            at += FOLD.len();
            column = MARGIN;
        }
        put_at(room, at, (seen as u32).to_le_bytes());
        at += len;
        column += columns(column);
    }
    (at, column)
}

/// True where a NUL stands before an octal digit; `next` is the byte behind all.
#[inline]
fn nul_before_digit(bytes: &[u8; HALF], next: u8) -> bool {
    let word = u64::from_le_bytes(*bytes);
    let after = word >> 8 | u64::from(next) << 56;
    zeros(word) & zeros((after ^ (EACH * 0x30)) & (EACH * 0xf8)) != 0
}

/// 1 in each byte.
const EACH: u64 = u64::MAX / 0xff;

/// The highest bit of each byte that is 0.
#[inline]
fn zeros(word: u64) -> u64 {
    let sevens = EACH * 0x7f;
    !(((word & sevens) + sevens) | word | sevens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte after byte, as vis(3) is told: what [`folded`] does for several at once.
    fn one_by_one(data: &[u8], column: usize, width: usize) -> Vec<u8> {
        let mut out = vec![b'"'];
        let mut column = column + 1;
        for (i, &byte) in data.iter().enumerate() {
            let octal = matches!(data.get(i + 1), Some(b'0'..=b'7'));
            let text = match byte {
                b'\n' => "\\n".into(),
                b'\r' => "\\r".into(),
                7 => "\\a".into(),
                8 => "\\b".into(),
                11 => "\\v".into(),
                12 => "\\f".into(),
                0 if octal => "\\000".into(),
                0 => "\\0".into(),
                0xa0 => "\\240".into(),
                b'"' | b'\\' => format!("\\{}", char::from(byte)),
                b' '..=b'~' | b'\t' => char::from(byte).to_string(),
                0x7f => "\\^?".into(),
                0xff => "\\M^?".into(),
                1..0x20 => format!("\\^{}", char::from(byte + b'@')),
                0x80..0xa0 => format!("\\M^{}", char::from(byte - 0x80 + b'@')),
                0xa1.. => format!("\\M-{}", char::from(byte - 0x80)),
            };
            let wide = |column: usize| if byte == b'\t' { 8 - column % 8 } else { text.len() };
            if column + wide(column) > width - 2 {
                out.extend_from_slice(b"\\\n\t");
                column = 8;
            }
            column += wide(column);
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(b"\"\n");
        out
    }

    fn runs() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0), b'0'..=b'9', Just(b'\t'), any::<u8>()];
        let run = prop_oneof![
            prop::collection::vec(byte, 0..40),
            prop::collection::vec(b'#'..=b'[', 0..60),
            prop::collection::vec(b' '..=b'~', 0..60),
        ];
        prop::collection::vec(run, 0..8).prop_map(|runs| runs.concat())
    }

    proptest! {
        #[test]
        fn data_is_folded_as_byte_after_byte(data in runs(), column in 0_usize..100, width in 3_usize..140) {
            let mut out = b"before".to_vec();
            folded(&mut out, &data, column, width);
            let want = [&b"before"[..], &one_by_one(&data, column, width)].concat();
            prop_assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(want).unwrap());
        }
    }
}
