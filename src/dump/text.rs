//! Bytes as text: vis(3) in its C style, folded lines, and hex.

use super::number::put_first;
use super::put;

/// What each byte of data becomes, as vis(3) writes it in C style: in the low half up to four bytes, then how many, then
/// whether they depend on more than the byte ([`ODD`]). Blanks and tabs stay as they are; newlines, quotes and backslashes
/// do not.
static VIS: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let ([a, b, c, d], len) = seen(byte as u8);
        let odd = matches!(byte as u8, b'\t' | 0) as u8;
        table[byte] = u64::from_le_bytes([a, b, c, d, len, odd, 0, 0]);
        byte += 1;
    }
    table
};
/// A tab, whose width is that of its column, or a NUL, which must not run into a digit.
const ODD: u64 = 1 << 40;

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
    if seen & ODD != 0 && byte == 0 && matches!(next, b'0'..=b'7') { len + 2 } else { len }
}

fn put_vis(out: &mut Vec<u8>, byte: u8, next: u8) {
    let seen = VIS[usize::from(byte)];
    put_first(out, &(seen as u32).to_le_bytes(), seen_len(seen, byte, next));
}

/// Bytes that are looked at together.
const STEP: usize = 16;

/// True of bytes that are all shown as they are, in one column each.
#[inline]
fn plain(bytes: &[u8]) -> bool {
    // No early end: so it is done for many bytes at once.
    let odd = |b: &u8| (b.wrapping_sub(b' ') > b'~' - b' ') | (*b == b'"') | (*b == b'\\');
    let (steps, rest) = bytes.as_chunks::<STEP>();
    steps.iter().all(|step| !step.iter().fold(false, |any, b| any | odd(b))) && !rest.iter().any(odd)
}

/// Data in quotes and a newline, in lines of at most `width` columns that each end in a backslash; `column` is where
/// the first begins.
pub(super) fn folded(out: &mut Vec<u8>, data: &[u8], column: usize, width: usize) {
    let last = width.saturating_sub(2);
    let mut column = column + 1;
    out.push(b'"');
    for (n, step) in data.chunks(STEP).enumerate() {
        if let Ok(step) = <&[u8; STEP]>::try_from(step)
            && column + STEP <= last
            && plain(step)
        {
            out.extend_from_slice(step);
            column += STEP;
            continue;
        }
        let after = data.get((n + 1) * STEP).copied().unwrap_or(0);
        // Of each byte its text, and the end of a line before it. Not into `out`, whose length would be kept for each.
        let mut text = [0; STEP * 7];
        let mut at = 0;
        for (i, &byte) in step.iter().enumerate() {
            let seen = VIS[usize::from(byte)];
            let mut len = (seen >> 32 & 7) as usize;
            let mut end = column + len;
            if seen & ODD != 0 || end > last {
                let tab = byte == b'\t';
                len = seen_len(seen, byte, *step.get(i + 1).unwrap_or(&after));
                end = column + if tab { 8 - (column & 7) } else { len };
                if end > last {
                    text[at..at + 3].copy_from_slice(b"\\\n\t");
                    at += 3;
                    end = 8 + if tab { 8 } else { len };
                }
            }
            text[at..at + 4].copy_from_slice(&(seen as u32).to_le_bytes());
            at += len;
            column = end;
        }
        out.extend_from_slice(&text[..at]);
    }
    out.extend_from_slice(b"\"\n");
}

/// Data in quotes and a newline on one line, cut where `width` columns are full. Tabs are shown as such.
pub(super) fn one_line(out: &mut Vec<u8>, data: &[u8], width: usize) {
    let mut column = 8;
    out.extend_from_slice(b"       \"");
    for (i, &byte) in data.iter().enumerate() {
        let start = out.len();
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => put_vis(out, byte, data.get(i + 1).copied().unwrap_or(0)),
        }
        column += out.len() - start;
        if column + 2 >= width {
            out.truncate(start);
            break;
        }
    }
    out.extend_from_slice(b"\"\n");
}

/// A name out of a record: UTF-8 stays readable, everything that could move a terminal's cursor does not.
pub(super) fn name(out: &mut Vec<u8>, name: &[u8]) {
    // Nearly every name.
    if plain(name) {
        return out.extend_from_slice(name);
    }
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut utf8 = [0; 4];
            let bytes = c.encode_utf8(&mut utf8).as_bytes();
            if c.is_control() || matches!(c, '"' | '\\') {
                bytes.iter().for_each(|&b| vis_no_tab(out, b));
            } else {
                out.extend_from_slice(bytes);
            }
        }
        chunk.invalid().iter().for_each(|&b| vis_no_tab(out, b));
    }
}

fn vis_no_tab(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'\t' => out.extend_from_slice(b"\\t"),
        // Followed by anything, a NUL must not run into a digit.
        _ => put_vis(out, byte, b'0'),
    }
}

/// [`name`] in quotes.
pub(super) fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    name(out, bytes);
    out.push(b'"');
}

/// Data in hex, 16 bytes a line in words of `word` bytes (1, 2, 4, 8 or 16), little-endian, with the characters behind.
/// Lines like the one before are left out.
pub(super) fn hex(out: &mut Vec<u8>, data: &[u8], word: usize) {
    // A word's bytes run together; single bytes stand in two groups of eight.
    let (group, each, gap) = match word {
        1 => (8, 3, 1),
        2 => (2, 2, 2),
        _ => (word, 2, 3),
    };
    let width = 16 * each + 16 / group * gap + if word == 1 { 0 } else { 2 };
    let place = |i: usize| (i / group + 1) * gap + (i ^ (word - 1)) * each;
    let mut before: &[u8] = &[];
    let mut same = 0;
    for (n, line) in data.chunks(16).enumerate() {
        let last = (n + 1) * 16 >= data.len();
        if !last && line == before {
            same += 1;
            continue;
        }
        match same {
            0 => {}
            // So NetBSD shows a single line left out: its place and its characters.
            1 => hex_line(out, (n - 1) * 16, &BLANKS[..width], before),
            _ => {
                let stars = format!("{:3x}", n * 16).len().min(5);
                put!(out, "\t{}\n", &"*****"[..stars]);
            }
        }
        let mut bytes = BLANKS;
        for (i, byte) in line.iter().enumerate() {
            bytes[place(i)..place(i) + 2].copy_from_slice(&hex_of(*byte));
        }
        hex_line(out, n * 16, &bytes[..width], line);
        before = line;
        same = 0;
    }
}

/// No line of hex has more columns.
const BLANKS: [u8; 64] = [b' '; 64];

fn hex_line(out: &mut Vec<u8>, at: usize, bytes: &[u8], chars: &[u8]) {
    put!(out, "\t{:<5}", format!("{at:03x}"));
    out.extend_from_slice(bytes);
    out.extend(chars.iter().map(|c| if c.is_ascii_graphic() { *c } else { b'.' }));
    out.push(b'\n');
}

/// Data in hex, two digits for each byte.
pub(super) fn hex_bytes(out: &mut Vec<u8>, data: &[u8]) {
    data.iter().for_each(|byte| out.extend_from_slice(&hex_of(*byte)));
}

#[inline]
fn hex_of(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)])
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
