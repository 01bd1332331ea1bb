//! The stream in the layout of older versions, for `-v` of ktrace and ktruss (docs/format.md, "Versions").

use super::{HEADER_LEN, KTR_SYSRET, Record, header};

/// The newest version: what [`super::encode`] makes.
pub const VERSION: u8 = 2;

/// Bytes of a SYSRET body in version 0, which has one value.
const SYSRET_0: usize = 16;

/// Appends `record` to `out` in the layout of `version`, 0 to 2. What a version has no field for is left out: the
/// thread in 0, nanoseconds below a microsecond in 0, seconds beyond 32 bits in 0 and 1.
pub fn encode_as(out: &mut Vec<u8>, version: u8, record: &Record<'_>) {
    let stamp = &record.header.stamp;
    let mut h = header(stamp, record.header.ktr_type);
    h[6] = version;
    let sec = (stamp.time.sec as i32).to_le_bytes();
    if version < 2 {
        h[32..40].fill(0);
        h[32..36].copy_from_slice(&sec);
    }
    if version == 0 {
        h[40..48].copy_from_slice(&(stamp.time.nsec / 1000).to_le_bytes());
        h[48..HEADER_LEN].fill(0);
    }
    let body = match record.raw.get(..SYSRET_0) {
        Some(short) if version == 0 && record.header.ktr_type == KTR_SYSRET => short,
        _ => record.raw,
    };
    h[..4].copy_from_slice(&(body.len() as i32).to_le_bytes());
    out.extend_from_slice(&h);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::super::{Body, Comm, Decoder, Stamp, Time, encode};
    use super::*;

    fn decoded<T>(bytes: &[u8], look: impl FnOnce(&Record<'_>) -> T) -> T {
        let mut decoder = Decoder::new();
        decoder.feed(bytes);
        look(&decoder.next_record().unwrap().unwrap())
    }

    #[test]
    fn older_versions_say_what_they_can() {
        let stamp = Stamp {
            time: Time { sec: 1_700_000_000, nsec: 123_456_789 },
            pid: 7,
            tid: 8,
            comm: Comm::new(b"cat"),
        };
        let body = Body::Sysret { code: 39, error: 0, retval: -5, retval_1: 0 };
        let mut newest = Vec::new();
        encode(&mut newest, &stamp, &body);
        for version in 0..=VERSION {
            let mut out = Vec::new();
            decoded(&newest, |record| encode_as(&mut out, version, record));
            decoded(&out, |record| {
                assert_eq!(record.header.version, i16::from(version));
                assert_eq!(record.body(), body);
                assert_eq!(record.raw.len(), if version == 0 { 16 } else { 24 });
                let got = record.header.stamp;
                assert_eq!((got.pid, got.comm, got.time.sec), (7, stamp.comm, 1_700_000_000));
                assert_eq!(got.tid, if version == 0 { 0 } else { 8 });
                assert_eq!(got.time.nsec, if version == 0 { 123_456_000 } else { 123_456_789 });
            });
            if version == VERSION {
                assert_eq!(out, newest);
            }
        }
    }
}
