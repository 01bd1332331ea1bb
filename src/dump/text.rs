//! Bytes as text: vis(3) in its C style, folded lines, and hex.

use super::put;

/// Appends one byte of data as vis(3) writes it in C style; `next` is the byte behind it, 0 at the end. Blanks and tabs
/// stay as they are; newlines, quotes and backslashes do not.
fn vis(out: &mut Vec<u8>, byte: u8, next: u8) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        0x08 => b'b',
        0x07 => b'a',
        0x0b => b'v',
        0x0c => b'f',
        b'"' | b'\\' => byte,
        0 => {
            out.extend_from_slice(if matches!(next, b'0'..=b'7') { b"\\000" } else { b"\\0" });
            return;
        }
        b' '..=b'~' | b'\t' => return out.push(byte),
        _ => 0,
    };
    if short != 0 {
        out.extend_from_slice(&[b'\\', short]);
    } else if byte == b' ' | 0x80 {
        // vis(3) gives the blank with its high bit set in octal, so that no blank stands in the text.
        out.extend_from_slice(b"\\240");
    } else {
        out.push(b'\\');
        if byte & 0x80 != 0 {
            out.push(b'M');
        }
        match byte & 0x7f {
            0x7f => out.extend_from_slice(b"^?"),
            c @ ..0x20 => out.extend_from_slice(&[b'^', c + b'@']),
            c => out.extend_from_slice(&[b'-', c]),
        }
    }
}

/// Data in quotes and a newline, in lines of at most `width` columns that each end in a backslash; `column` is where
/// the first begins.
pub(super) fn folded(out: &mut Vec<u8>, data: &[u8], column: usize, width: usize) {
    let last = width.saturating_sub(2);
    let mut column = column + 1;
    out.push(b'"');
    for (i, &byte) in data.iter().enumerate() {
        let start = out.len();
        vis(out, byte, data.get(i + 1).copied().unwrap_or(0));
        let mut wide = if byte == b'\t' { 8 - (column & 7) } else { out.len() - start };
        if column + wide > last {
            out.splice(start..start, *b"\\\n\t");
            column = 8;
            wide = if byte == b'\t' { 8 } else { wide };
        }
        column += wide;
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
            _ => vis(out, byte, data.get(i + 1).copied().unwrap_or(0)),
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
    if name.iter().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')) {
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
        _ => vis(out, byte, b'0'),
    }
}

/// [`name`] in quotes.
pub(super) fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    name(out, bytes);
    out.push(b'"');
}

/// A number in decimal. This and the next are most of what a stream is printed as: without `write!`, five times as fast.
pub(super) fn decimal(out: &mut Vec<u8>, mut v: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (v % 10) as u8;
        v /= 10;
        if v == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// A number with a sign, in decimal.
pub(super) fn signed(out: &mut Vec<u8>, v: i64) {
    if v < 0 {
        out.push(b'-');
    }
    decimal(out, v.unsigned_abs());
}

/// A number in hex, with `0x`.
pub(super) fn hexadecimal(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(b"0x");
    let digits = (64 - v.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|i| b"0123456789abcdef"[(v >> (4 * i) & 15) as usize]));
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
            1 => hex_line(out, (n - 1) * 16, &vec![b' '; width], before),
            _ => {
                let stars = format!("{:3x}", n * 16).len().min(5);
                put!(out, "\t{}\n", &"*****"[..stars]);
            }
        }
        let mut bytes = vec![b' '; width + gap];
        for (i, byte) in line.iter().enumerate() {
            let at = (i / group + 1) * gap + (i ^ (word - 1)) * each;
            bytes[at..at + 2].copy_from_slice(format!("{byte:02x}").as_bytes());
        }
        hex_line(out, n * 16, &bytes[..width], line);
        before = line;
        same = 0;
    }
}

fn hex_line(out: &mut Vec<u8>, at: usize, bytes: &[u8], chars: &[u8]) {
    put!(out, "\t{:<5}", format!("{at:03x}"));
    out.extend_from_slice(bytes);
    out.extend(chars.iter().map(|c| if c.is_ascii_graphic() { *c } else { b'.' }));
    out.push(b'\n');
}
