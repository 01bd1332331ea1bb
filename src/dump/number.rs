//! Numbers as text: most of what a stream is printed as, so without `write!` and digit by digit in no case. Digits are
//! made eight at a time in a word, and copied with a length that is known beforehand, which no call is needed for.

/// `10^8`: one more than eight digits can say.
const EIGHT: u64 = 100_000_000;
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// Appends the first `len` of these bytes.
#[inline(always)]
pub(super) fn put_first<const N: usize>(out: &mut Vec<u8>, bytes: &[u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(bytes);
    out.truncate(end);
}

/// The eight decimal digits of `v`, which is below [`EIGHT`], one in a byte: the first in the lowest.
#[inline]
fn eight(v: u64) -> u64 {
    // Two lanes of four digits, then four of two, then eight of one; a division by 100 and by 10 is a product that is
    // exact for as many digits.
    let fours = (v / 10_000) | ((v % 10_000) << 32);
    let hundreds = (fours * 10_486) >> 20 & 0x7f_0000_007f;
    let twos = hundreds | (fours - 100 * hundreds) << 16;
    let tens = (twos * 103) >> 10 & 0x000f_000f_000f_000f;
    tens | (twos - 10 * tens) << 8
}

/// A number in decimal.
#[inline]
pub(super) fn decimal(out: &mut Vec<u8>, v: u64) {
    match v {
        0..10 => out.push(b'0' + v as u8),
        _ => digits(out, v),
    }
}

fn digits(out: &mut Vec<u8>, v: u64) {
    match v {
        0..10 => out.push(b'0' + v as u8),
        10..EIGHT => {
            let digits = eight(v);
            let zeros = digits.trailing_zeros() / 8;
            put_first(out, &((digits | ZEROS) >> (8 * zeros)).to_le_bytes(), 8 - zeros as usize);
        }
        _ => {
            digits(out, v / EIGHT);
            out.extend_from_slice(&(eight(v % EIGHT) | ZEROS).to_le_bytes());
        }
    }
}

/// The last `digits` digits of a number, up to nine: a fraction.
pub(super) fn fraction(out: &mut Vec<u8>, v: u64, digits: usize) {
    let mut text = [b'0'; 9];
    text[0] += (v / EIGHT % 10) as u8;
    text[1..].copy_from_slice(&(eight(v % EIGHT) | ZEROS).to_le_bytes());
    out.extend_from_slice(&text[9 - digits.min(9)..]);
}

/// A number with a sign, in decimal.
#[inline]
pub(super) fn signed(out: &mut Vec<u8>, v: i64) {
    if v < 0 {
        out.push(b'-');
    }
    decimal(out, v.unsigned_abs());
}

/// Right-aligned in so many columns, as `{:6}` is.
pub(super) fn aligned(out: &mut Vec<u8>, v: i32, columns: usize) {
    let start = out.len();
    signed(out, v.into());
    let wide = out.len() - start;
    if let Some(pad) = columns.checked_sub(wide) {
        out.resize(start + columns, b' ');
        out.copy_within(start..start + wide, start + pad);
        out[start..start + pad].fill(b' ');
    }
}

/// The eight hex digits of `v` as text, the last in the lowest byte.
#[inline]
fn eight_hex(v: u32) -> u64 {
    let v = u64::from(v);
    let v = (v << 16 | v) & 0x0000_ffff_0000_ffff;
    let v = (v << 8 | v) & 0x00ff_00ff_00ff_00ff;
    let v = (v << 4 | v) & 0x0f0f_0f0f_0f0f_0f0f;
    // One in each byte of a digit above 9.
    let letters = (v + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    v + ZEROS + letters * u64::from(b'a' - b'9' - 1)
}

/// A number in hex, with `0x`.
#[inline]
pub(super) fn hexadecimal(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(b"0x");
    let (high, low) = ((v >> 32) as u32, v as u32);
    if high == 0 {
        return some_hex(out, low);
    }
    some_hex(out, high);
    out.extend_from_slice(&eight_hex(low).to_be_bytes());
}

/// Without zeros before it.
#[inline]
fn some_hex(out: &mut Vec<u8>, v: u32) {
    let zeros = (v | 1).leading_zeros() / 4;
    put_first(out, &(eight_hex(v) << (8 * zeros)).to_be_bytes(), 8 - zeros as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// Numbers about each power of two and of ten, and every one of four digits.
    fn numbers() -> impl Iterator<Item = u64> {
        let powers = (0..64).map(|bit| 1 << bit).chain((0..20).map(|n| 10_u64.pow(n)));
        let about = |v: u64| [v.wrapping_sub(1), v, v + 1, v | 0x5a5a, v.wrapping_mul(0x9e37_79b9_7f4a_7c15)];
        (0..10_000).chain((0..10_000).map(|v| v * 10_000)).chain(powers.flat_map(about)).chain([u64::MAX])
    }

    #[test]
    fn numbers_are_written_as_the_library_writes_them() {
        for v in numbers() {
            assert_eq!(text(|out| decimal(out, v)), v.to_string());
            assert_eq!(text(|out| signed(out, v as i64)), (v as i64).to_string());
            assert_eq!(text(|out| hexadecimal(out, v)), format!("{v:#x}"));
            assert_eq!(text(|out| aligned(out, v as i32, 6)), format!("{:6}", v as i32));
            let nanos = v % 1_000_000_000;
            assert_eq!(text(|out| fraction(out, nanos, 9)), format!("{nanos:09}"));
            assert_eq!(text(|out| fraction(out, nanos / 1000, 6)), format!("{:06}", nanos / 1000));
        }
    }
}
