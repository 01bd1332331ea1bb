//! The stream: round trips, any bytes, any cut, and the golden file.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A body that owns its bytes.
#[derive(Clone, Debug)]
enum Owned {
    Syscall(i32, Vec<u64>),
    Sysret(i16, i32, i64, i64),
    Bytes(i16, Vec<u8>),
    Genio(i32, bool, Vec<u8>),
    Psig(Psig),
    Csw(bool, bool),
    User(Vec<u8>, Vec<u8>),
    ExecFd(i32, u32),
}

impl Owned {
    fn body(&self) -> Body<'_> {
        match self {
            Owned::Syscall(code, args) => Body::Syscall { code: *code, args: Args::Words(args) },
            Owned::Sysret(code, error, retval, retval_1) => {
                Body::Sysret { code: *code, error: *error, retval: *retval, retval_1: *retval_1 }
            }
            Owned::Bytes(KTR_NAMEI, data) => Body::Namei(data),
            Owned::Bytes(KTR_EMUL, data) => Body::Emul(data),
            Owned::Bytes(KTR_EXEC_ARG, data) => Body::ExecArg(data),
            Owned::Bytes(KTR_EXEC_ENV, data) => Body::ExecEnv(data),
            Owned::Bytes(KTR_MIB, data) => Body::Mib(data),
            Owned::Bytes(ktr_type, data) => Body::Unknown { ktr_type: *ktr_type, data },
            Owned::Genio(fd, write, data) => Body::Genio { fd: *fd, write: *write, data },
            Owned::Psig(psig) => Body::Psig(*psig),
            Owned::Csw(out, user) => Body::Csw { out: *out, user: *user },
            Owned::User(id, data) => Body::User { id, data },
            Owned::ExecFd(fd, dtype) => Body::ExecFd { fd: *fd, dtype: *dtype },
        }
    }
}

fn bodies() -> impl Strategy<Value = Owned> {
    let data = || vec(any::<u8>(), 0..200);
    // A code of 0 is user's; the rest is any 24 bytes.
    let info = (any::<i32>(), any::<[u8; 24]>()).prop_map(|(errno, data)| SigInfo { errno, data });
    let psig = (any::<i32>(), any::<u64>(), any::<[u32; 4]>(), any::<i32>(), proptest::option::of(info))
        .prop_map(|(signo, action, mask, code, info)| Owned::Psig(Psig { signo, action, mask, code, info }));
    let plain = prop_oneof![
        Just(KTR_NAMEI),
        Just(KTR_EMUL),
        Just(KTR_EXEC_ARG),
        Just(KTR_EXEC_ENV),
        Just(KTR_MIB),
        Just(0),
        Just(99),
        Just(-1),
    ];
    prop_oneof![
        (any::<i32>(), vec(any::<u64>(), 0..9)).prop_map(|(code, args)| Owned::Syscall(code, args)),
        (any::<i16>(), any::<i32>(), any::<i64>(), any::<i64>())
            .prop_map(|(c, e, r, s)| Owned::Sysret(c, e, r, s)),
        (plain, data()).prop_map(|(ktr_type, data)| Owned::Bytes(ktr_type, data)),
        (any::<i32>(), any::<bool>(), data()).prop_map(|(fd, write, data)| Owned::Genio(fd, write, data)),
        psig,
        (any::<bool>(), any::<bool>()).prop_map(|(out, user)| Owned::Csw(out, user)),
        (vec(1u8.., 0..20), data()).prop_map(|(id, data)| Owned::User(id, data)),
        (any::<i32>(), any::<u32>()).prop_map(|(fd, dtype)| Owned::ExecFd(fd, dtype)),
    ]
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (any::<i64>(), any::<i64>(), any::<i32>(), any::<i32>(), vec(any::<u8>(), 0..20)).prop_map(
        |(sec, nsec, pid, tid, comm)| Stamp { time: Time { sec, nsec }, pid, tid, comm: Comm::new(&comm) },
    )
}

/// The same record with a header of an older version; NetBSD's of that time (docs/format.md).
fn age(record: &mut [u8], version: i16) {
    record[6..8].copy_from_slice(&version.to_le_bytes());
    // The upper half of the seconds is padding there.
    record[36..40].fill(0xa5);
    if version == 0 {
        // A pointer of the kernel's.
        record[48..56].copy_from_slice(&0xffff_8000_dead_beef_u64.to_le_bytes());
    }
}

/// What a decoder makes of `stream` cut at these places: header, body and offset of each record, and the error.
fn decode(stream: &[u8], cuts: &[usize]) -> (Vec<String>, Option<DecodeError>) {
    let mut decoder = Decoder::new();
    let mut records = Vec::new();
    let mut at = 0;
    for cut in cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]) {
        let to = cut.max(at);
        decoder.feed(&stream[at..to]);
        at = to;
        loop {
            match decoder.next_record() {
                Ok(Some(r)) => records.push(format!("{:?} {:?} {}", r.header, r.body(), r.offset)),
                Ok(None) => break,
                Err(e) => return (records, Some(e)),
            }
        }
    }
    (records, decoder.finish().err())
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(stamp in stamps(), owned in bodies()) {
        let mut bytes = vec![0xee; 3];
        encode(&mut bytes, &stamp, &owned.body());
        let mut decoder = Decoder::new();
        decoder.feed(&bytes[3..]);
        let record = decoder.next_record().unwrap().unwrap();
        prop_assert_eq!(record.body(), owned.body());
        prop_assert_eq!(record.header.stamp, stamp);
        prop_assert_eq!((record.header.version, record.offset), (2, 0));
        prop_assert_eq!(record.header.ktr_type, owned.body().ktr_type());
        prop_assert_eq!(decoder.next_record(), Ok(None));
        prop_assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn older_headers_are_decoded(stamp in stamps(), owned in bodies(), version in 0i16..2) {
        let mut bytes = Vec::new();
        encode(&mut bytes, &stamp, &owned.body());
        age(&mut bytes, version);
        let mut decoder = Decoder::new();
        decoder.feed(&bytes);
        let record = decoder.next_record().unwrap().unwrap();
        let sec = i64::from(stamp.time.sec as i32);
        let time = match version {
            0 => Time { sec, nsec: stamp.time.nsec.wrapping_mul(1000) },
            _ => Time { sec, nsec: stamp.time.nsec },
        };
        let tid = if version == 0 { 0 } else { stamp.tid };
        prop_assert_eq!(record.header.stamp, Stamp { time, tid, ..stamp });
        prop_assert_eq!(record.body(), owned.body());
    }

    #[test]
    fn any_cut_gives_the_same(
        list in vec((stamps(), bodies()), 0..6),
        tail in vec(any::<u8>(), 0..80),
        mut cuts in vec(any::<usize>(), 0..12),
    ) {
        let mut stream = Vec::new();
        list.iter().for_each(|(stamp, owned)| encode(&mut stream, stamp, &owned.body()));
        stream.extend_from_slice(&tail);
        cuts.iter_mut().for_each(|cut| *cut %= stream.len() + 1);
        cuts.sort_unstable();
        prop_assert_eq!(decode(&stream, &cuts), decode(&stream, &[]));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..400)) {
        decode(&bytes, &[]);
    }

    /// As above, behind a header that is one, so that the bytes reach the bodies.
    #[test]
    fn no_body_makes_it_panic(ktr_type in 0i16..17, body in vec(any::<u8>(), 0..200)) {
        let mut stream = Vec::new();
        encode(&mut stream, &Stamp::default(), &Body::Unknown { ktr_type, data: &body });
        let (records, error) = decode(&stream, &[]);
        prop_assert_eq!((records.len(), error), (1, None));
    }
}

/// The stream that NetBSD's kdump was given, from the values it printed.
#[test]
fn the_golden_stream_is_encoded_byte_for_byte() {
    let golden = include_bytes!("../../tests/golden/small.v2");
    let genio = [&b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\0\x01"[..], &[b'Q'; 40]].concat();
    let call = |code, args: &'static [u64]| Body::Syscall { code, args: Args::Words(args) };
    let ret = |code, error, retval| Body::Sysret { code, error, retval, retval_1: 0 };
    let cat = [
        Body::Emul(b"linux"),
        call(257, &[0xffff_ff9c, 0x7ffd_1000, 0x80000, 0]),
        Body::Namei(b"/etc/passwd"),
        ret(257, 0, 3),
        call(0, &[3, 0x7ffd_2000, 0x40]),
        Body::Genio { fd: 3, write: false, data: &genio },
        ret(0, 0, 66),
        call(2, &[1, 0]),
        ret(2, -2, 0),
        call(16, &[1, 0x5413, 5]),
        ret(16, 0, 0),
        Body::Psig(Psig { signo: 15, action: 0x401136, mask: [2, 0, 0, 0], code: 0, info: None }),
        Body::Csw { out: true, user: true },
        Body::User { id: STREAM_ID, data: b"lost 1 records" },
        call(39, &[]),
        ret(39, 0, 100),
        Body::Unknown { ktr_type: 99, data: b"abcdef" },
    ];
    let oth = [Body::Emul(b"linux"), call(39, &[]), ret(39, 0, 7)];
    let cat = cat.iter().map(|body| (100, &b"cat"[..], body));
    let oth = oth.iter().map(|body| (7, &b"oth"[..], body));
    let mut stream = Vec::new();
    for ((pid, comm, body), n) in cat.chain(oth).zip(1..) {
        let time = Time { sec: 1_700_000_000, nsec: n * 1_234_567 };
        encode(&mut stream, &Stamp { time, pid, tid: pid, comm: Comm::new(comm) }, body);
    }
    assert_eq!(stream, golden);
}

#[test]
fn r01_a_header_is_zero_but_for_what_it_says() {
    let stamp =
        Stamp { time: Time { sec: 0x0102, nsec: 0x0304 }, pid: 0x05, tid: 0x06, comm: Comm::new(b"ab") };
    // Whatever was in the room before.
    let mut bytes = vec![0xff; 200];
    bytes.clear();
    encode(&mut bytes, &stamp, &Body::Namei(b""));
    let mut expected = [0; HEADER_LEN];
    (expected[4], expected[6], expected[8]) = (KTR_NAMEI as u8, VERSION, 5);
    expected[12..14].copy_from_slice(b"ab");
    (expected[32], expected[33], expected[40], expected[41]) = (2, 1, 4, 3);
    expected[48] = 6;
    assert_eq!(bytes, expected);
}

#[test]
fn f8_a_signal_number_is_not_cut_to_a_char() {
    let psig = Psig { signo: 0x0123_4567, action: 0, mask: [0; 4], code: 0, info: None };
    let mut bytes = Vec::new();
    encode(&mut bytes, &Stamp::default(), &Body::Psig(psig));
    let mut decoder = Decoder::new();
    decoder.feed(&bytes);
    let record = decoder.next_record().unwrap().unwrap();
    assert!(matches!(record.body(), Body::Psig(Psig { signo: 0x0123_4567, .. })), "{record:?}");
}

#[test]
fn f6_no_padding_carries_anything() {
    let stamp =
        Stamp { time: Time { sec: -1, nsec: -1 }, pid: -1, tid: -1, comm: Comm::new(b"0123456789abcdefgh") };
    let info = Some(SigInfo { errno: -1, data: [0xff; 24] });
    let mut bytes = Vec::new();
    encode(
        &mut bytes,
        &stamp,
        &Body::Psig(Psig { signo: -1, action: u64::MAX, mask: [!0; 4], code: -1, info }),
    );
    assert_eq!(bytes.len(), 56 + 168);
    let zero = [56 + 4..56 + 8, 56 + 36..56 + 40, 96 + 12..96 + 16, 96 + 40..96 + 128];
    for range in zero {
        assert!(bytes[range.clone()].iter().all(|&b| b == 0), "{range:?}");
    }
    assert_eq!(&bytes[12..28], b"0123456789abcdef");
}

#[test]
fn a_return_of_the_seed_has_one_value() {
    let mut body = vec![39, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&100i64.to_le_bytes());
    let mut stream = Vec::new();
    encode(&mut stream, &Stamp::default(), &Body::Unknown { ktr_type: KTR_SYSRET, data: &body });
    age(&mut stream, 0);
    let mut decoder = Decoder::new();
    decoder.feed(&stream);
    let body = decoder.next_record().unwrap().unwrap().body();
    assert_eq!(body, Body::Sysret { code: 39, error: 0, retval: 100, retval_1: 0 });
}

#[test]
fn a_length_beyond_belief_is_an_error_with_its_place() {
    let mut stream = Vec::new();
    encode(&mut stream, &Stamp::default(), &Body::Namei(b"x"));
    let first = stream.len();
    encode(&mut stream, &Stamp::default(), &Body::Namei(b"y"));
    stream[first..first + 4].copy_from_slice(&(MAX_BODY as i32 + 1).to_le_bytes());
    let (records, error) = decode(&stream, &[]);
    let what = "a record cannot have 1048577 bytes of body".to_owned();
    assert_eq!((records.len(), error), (1, Some(DecodeError { offset: first as u64, what })));
}

#[test]
fn the_golden_streams_of_older_versions_are_read_and_written_byte_for_byte() {
    let golden = |version: u8| {
        let file = format!("{}/tests/golden/small.v{version}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(file).unwrap()
    };
    let newest = golden(2);
    for version in 0..=VERSION {
        let old = golden(version);
        let (mut new_records, mut old_records) = (Decoder::new(), Decoder::new());
        new_records.feed(&newest);
        old_records.feed(&old);
        let mut written = Vec::new();
        while let Some(new) = new_records.next_record().unwrap() {
            encode_as(&mut written, version, &new);
            let old = old_records.next_record().unwrap().unwrap();
            assert_eq!(old.header.version, i16::from(version));
            assert_eq!(old.body(), new.body());
            let (then, now) = (old.header.stamp, new.header.stamp);
            assert_eq!((then.pid, then.comm, then.time.sec), (now.pid, now.comm, now.time.sec));
            let (nsec, tid) =
                if version == 0 { (now.time.nsec / 1000 * 1000, 0) } else { (now.time.nsec, now.tid) };
            assert_eq!((then.time.nsec, then.tid), (nsec, tid), "what the version can say");
        }
        assert_eq!(old_records.next_record(), Ok(None));
        old_records.finish().unwrap();
        assert!(written == old, "version {version}");
    }
}

#[test]
fn a_command_name_ends_at_its_first_nul() {
    for len in 0..=16 {
        let mut name = *b"\x01\x80\xff/bcdefghijklmn";
        name.iter_mut().skip(len).step_by(3).for_each(|byte| *byte = 0);
        let comm = Comm::new(&name);
        assert_eq!(comm.as_bytes(), &name[..len]);
        assert!(comm.0[len..].iter().all(|byte| *byte == 0), "{name:?}");
    }
}
