//! Bytes as text: on one line, names, and hex.

use super::put;
use super::vis::{plain, put_vis};

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
