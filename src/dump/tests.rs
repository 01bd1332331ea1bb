//! The text of records that the golden stream has not, and of any bytes at all.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::record::*;

/// A stream of records of one thread, encoded.
#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn with(mut self, tid: i32, body: Body<'_>) -> Stream {
        let stamp = Stamp { time: Time { sec: 1, nsec: 5 }, pid: 9, tid, comm: Comm::new(b"t") };
        encode(&mut self.0, &stamp, &body);
        self
    }

    fn call(self, tid: i32, code: i32, args: &[u64]) -> Stream {
        self.with(tid, Body::Syscall { code, args: Args::Words(args) })
    }

    fn ret(self, tid: i32, code: i16, result: i64) -> Stream {
        let (error, retval) = if result < 0 { (result as i32, 0) } else { (0, result) };
        self.with(tid, Body::Sysret { code, error, retval, retval_1: 0 })
    }

    fn each(&self, mut f: impl FnMut(&Record<'_>, &mut Vec<u8>)) -> String {
        let mut decoder = Decoder::new();
        decoder.feed(&self.0);
        let mut out = Vec::new();
        while let Some(record) = decoder.next_record().unwrap() {
            f(&record, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    fn kdump(&self, options: Options) -> String {
        let mut printer = Printer::new(options);
        self.each(|record, out| printer.record(record, out))
    }

    fn truss(&self, options: Options) -> String {
        let mut truss = Truss::new(options);
        let mut text = self.each(|record, out| truss.record(record, out));
        let mut end = Vec::new();
        truss.finish(&mut end);
        text.push_str(&String::from_utf8(end).unwrap());
        text
    }
}

/// What kdump prints of one record, without the first columns.
fn line(body: Body<'_>) -> String {
    let text = Stream::default().with(9, body).kdump(Options::default());
    text.strip_prefix("     9      9 t        ").unwrap().into()
}

fn call(code: i32, args: &[u64]) -> String {
    line(Body::Syscall { code, args: Args::Words(args) })
}

#[test]
fn arguments_are_shown_by_kind() {
    assert_eq!(call(257, &[0xffff_ff9c, 0x1000, 0x241, 0o644]), "CALL  openat(AT_FDCWD,0x1000,0x241,0644)\n");
    assert_eq!(call(0, &[u64::from(u32::MAX), 0, 4096]), "CALL  read(-1,0,4096)\n");
    assert_eq!(call(62, &[u64::MAX, 15]), "CALL  kill(-1,SIGTERM)\n");
    assert_eq!(call(62, &[100, 0]), "CALL  kill(100,0)\n");
    assert_eq!(call(13, &[36, 0x1000, 0, 8]), "CALL  rt_sigaction(SIGRTMIN+2,0x1000,0,8)\n");
    assert_eq!(call(8, &[3, -5i64 as u64, 1]), "CALL  lseek(3,-5,1)\n");
    assert_eq!(call(16, &[0, 0x5401, 0x1000]), "CALL  ioctl(0,TCGETS,0x1000)\n");
    // Without O_CREAT the register of the mode holds anything.
    assert_eq!(call(2, &[0x1000, 0, 0x7fff_1234_5678]), "CALL  open(0x1000,0,0x7fff12345678)\n");
    assert_eq!(call(39, &[]), "CALL  getpid\n");
    assert_eq!(call(39, &[77]), "CALL  getpid(0x4d)\n", "more arguments than the table has");
    assert_eq!(call(9999, &[5]), "CALL  [9999](5)\n");
}

#[test]
fn each_line_says_whose_it_is() {
    let tids = [1, 1 + 1024, 1, 2, 1, 1 + 1024, -1];
    let stream = tids.iter().fold(Stream::default(), |stream, tid| stream.ret(*tid, 39, 5));
    let text = stream.kdump(Options::default());
    let shown = text.lines().map(|line| line.split_whitespace().nth(1).unwrap().parse::<i32>().unwrap());
    assert_eq!(shown.collect::<Vec<_>>(), tids);
}

#[test]
fn a_process_changes_its_emulation_with_all_its_threads() {
    let stream = Stream::default().call(1, 20, &[]).call(2, 20, &[]).with(1, Body::Emul(b"linux32"));
    let text = stream.call(2, 20, &[]).call(1, 20, &[]).kdump(Options::default());
    let names = text.lines().map(|line| line.split_whitespace().last().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["writev", "writev", "\"linux32\"", "getpid", "getpid"]);
}

#[test]
fn what_comes_again_is_printed_as_by_a_printer_that_has_seen_nothing() {
    let long = [9; 64];
    let bodies = [
        Body::Syscall { code: 4, args: Args::Words(&[1, u64::MAX, 3]) },
        Body::Syscall { code: 4, args: Args::Words(&[1, u64::MAX]) },
        Body::Syscall { code: 4, args: Args::Words(&[]) },
        Body::Syscall { code: 9, args: Args::Words(&[u64::MAX; 6]) },
        Body::Syscall { code: 9, args: Args::Words(&long) },
        // The same bytes.
        Body::Sysret { code: 4, error: 0, retval: 1, retval_1: 7 },
        Body::Syscall { code: 4, args: Args::Words(&[]) },
        Body::Genio { fd: 4, write: false, data: &[1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0] },
        Body::Genio { fd: 4, write: false, data: b"" },
        Body::Genio { fd: 4, write: true, data: b"seen" },
        Body::Genio { fd: 4, write: true, data: b"sean" },
        Body::Genio { fd: 4, write: true, data: &long.map(|_| b'x') },
        Body::Sysret { code: 4, error: -2, retval: 0, retval_1: 0 },
    ];
    let emulations = [&b"linux"[..], b"linux32", b"netbsd"];
    let each = || emulations.iter().flat_map(|emulation| bodies.map(|body| (*emulation, body)));
    for options in [
        Options::default(),
        Options { plain: 2, decimal: true, ..Options::default() },
        Options { abi: true, codes: true, relative: true, word: Some(1), ..Options::default() },
    ] {
        let mut all = Stream::default();
        let mut apart = String::new();
        for (emulation, body) in each().chain(each()).chain(each()) {
            let alone = Stream::default().with(9, Body::Emul(emulation)).with(9, body);
            apart += &alone.kdump(options.clone());
            all.0.extend(alone.0);
        }
        assert_eq!(all.kdump(options), apart);
    }
}

#[test]
fn more_than_can_be_kept_is_each_printed_as_what_it_is() {
    let stream = (0..2000).fold(Stream::default(), |stream, n| stream.ret(1, 39, n));
    let text = stream.kdump(Options { plain: 1, decimal: true, ..Options::default() });
    let values = text.lines().map(|line| line.split_whitespace().last().unwrap().parse::<usize>().unwrap());
    assert_eq!(values.collect::<Vec<_>>(), (0..2000).collect::<Vec<_>>());
}

#[test]
fn a_narrow_abi_has_narrow_numbers() {
    let text = Stream::default()
        .with(9, Body::Emul(b"linux32"))
        .call(9, 4, &[0xffff_ffff, 0xffff_f000, 0xffff_ffff])
        .ret(9, 4, 0xffff_0000)
        .kdump(Options { plain: 0, facs: Some(Facs::SYSCALL | Facs::SYSRET), ..Options::default() });
    assert_eq!(
        text,
        "     9      9 t        CALL  write(-1,0xfffff000,4294967295)\n     9      9 t        RET   write -65536/0xffff0000\n"
    );
}

#[test]
fn results_are_values_errors_or_restarts() {
    let ret = |error, retval, retval_1| line(Body::Sysret { code: 0, error, retval, retval_1 });
    assert_eq!(ret(0, 9, 0), "RET   read 9\n");
    assert_eq!(ret(0, -1, 0), "RET   read -1/0xffffffffffffffff\n");
    assert_eq!(ret(0, 10, 3), "RET   read 10/0xa, 3\n");
    assert_eq!(
        ret(-11, 0, 0),
        "RET   read -1 errno -11 Resource temporarily unavailable
"
    );
    assert_eq!(ret(-4000, 0, 0), "RET   read -1 errno -4000 Unknown error: 4000\n");
    for restart in -516..=-512 {
        assert_eq!(ret(restart, 0, 0), "RET   read RESTART\n");
    }
    assert_eq!(ret(5, 0, 0), "RET   read -1 unknown errno 5\n");
    assert_eq!(ret(i32::MIN, 0, 0), "RET   read -1 errno -2147483648 Unknown error: -2147483648\n");
    let foreign =
        Stream::default().with(9, Body::Emul(b"netbsd")).ret(9, 59, -2).ret(9, 3, -3).ret(9, 3, -35);
    let text = foreign.kdump(Options { facs: Some(Facs::SYSRET), ..Options::default() });
    let words: Vec<_> = text.lines().map(|l| &l[23..]).collect();
    assert_eq!(words, ["RET   [59] JUSTRETURN", "RET   [3] RESTART", "RET   [3] -1 errno -35"]);
}

#[test]
fn signals_say_what_was_done_and_why() {
    let psig = |signo, action, code, info: Option<&[u8]>| {
        let info = info.map(|bytes| {
            let mut data = [0; 24];
            data[..bytes.len()].copy_from_slice(bytes);
            SigInfo { errno: 0, data }
        });
        line(Body::Psig(Psig { signo, action, mask: [0x8000_0002, 0x8000_0000, 0, 0], code, info }))
    };
    let words = |list: &[i32]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    let handler = "caught handler=0x1000 mask=(2,32,64)";
    assert_eq!(psig(15, 0, 0, None), "PSIG  SIGTERM SIG_DFL\n");
    assert_eq!(psig(15, 0, 7, None), "PSIG  SIGTERM SIG_DFL code=0x7\n");
    assert_eq!(psig(64, 0x1000, 0, None), format!("PSIG  SIGRTMAX {handler})\n"));
    let sent = words(&[77, 1000]);
    assert_eq!(
        psig(15, 0, 0, Some(&sent)),
        "PSIG  SIGTERM SIG_DFL: code=SI_USER sent by pid=77, uid=1000)\n"
    );
    assert_eq!(
        psig(10, 0x1000, -5, Some(&sent)),
        format!("PSIG  SIGUSR1 {handler}: code=SI_LWP sent by pid=77, uid=1000)\n")
    );
    assert_eq!(
        psig(34, 0, -1, Some(&words(&[77, 0, 0x1234, 0]))),
        "PSIG  SIGRTMIN SIG_DFL: code=SI_QUEUE sent by pid=77, uid=0 with sigval 0x1234)\n"
    );
    assert_eq!(
        psig(11, 0, 1, Some(&words(&[0x10, 0, 14]))),
        "PSIG  SIGSEGV SIG_DFL: code=SEGV_MAPERR, addr=0x10, trap=14)\n"
    );
    assert_eq!(
        psig(17, 0x1000, 1, Some(&words(&[77, 0, 3, 1, 2]))),
        format!(
            "PSIG  SIGCHLD {handler}: code=CLD_EXITED child pid=77, uid=0,  status=3, utime=1, stime=2)\n"
        )
    );
    assert_eq!(psig(11, 0, 0x80, Some(&[])), "PSIG  SIGSEGV SIG_DFL: code=SI_KERNEL, errno=0)\n");
    assert_eq!(psig(99, 0, -77, Some(&[])), "PSIG  SIG*unknown 99* SIG_DFL: code=-77)\n");
}

#[test]
fn the_other_records_have_their_lines() {
    assert_eq!(line(Body::ExecArg(b"ls")), "ARG   \"ls\"\n");
    assert_eq!(line(Body::ExecEnv(b"A=b\n")), "ENV   \"A=b\\n\"\n");
    assert_eq!(line(Body::ExecFd { fd: 3, dtype: 1 }), "FD    file 3\n");
    assert_eq!(line(Body::ExecFd { fd: 3, dtype: 11 }), "FD    UNKNOWN(11) 3\n");
    assert_eq!(line(Body::Csw { out: false, user: false }), "CSW   resume kernel\n");
    assert_eq!(line(Body::Mib(&[1, 0, 0, 0, 255, 255, 255, 255])), "MIB   1.-1\n");
    assert_eq!(line(Body::Genio { fd: -1, write: true, data: b"x" }), "GIO   wrote 1 bytes\n       \"x\"\n");
    assert_eq!(line(Body::Unknown { ktr_type: KTR_CSW, data: b"x" }).lines().count(), 2);
    let stream = Stream::default().with(9, Body::User { id: b"web", data: b"GET /\n" });
    let options = Options { label: Some(b"web".to_vec()), ..Options::default() };
    assert_eq!(stream.kdump(options), "     9      9 t        MISC  web: GET /\\n\n");
    let options = Options { label: Some(b"db".to_vec()), ..Options::default() };
    assert_eq!(stream.kdump(options), "");
    let options = Options { abi: true, codes: true, ..Options::default() };
    let text = Stream::default().call(9, 39, &[]).kdump(options);
    assert_eq!(text, "     9      9 t        linux    CALL  getpid[39]\n");
}

#[test]
fn data_is_written_as_vis_does() {
    let vis = |data: &[u8]| {
        let mut out = Vec::new();
        vis::folded(&mut out, data, 7, 10_000);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(vis(b"a b\tc\n\r\x08\x07\x0b\x0c"), "\"a b\tc\\n\\r\\b\\a\\v\\f\"\n");
    assert_eq!(vis(b"\"\\'"), "\"\\\"\\\\'\"\n");
    assert_eq!(vis(b"\x001\x009\0"), "\"\\0001\\09\\0\"\n");
    assert_eq!(vis(b"\x01\x1b\x7f\x80\xa0\xe9\xff"), "\"\\^A\\^[\\^?\\M^@\\240\\M-i\\M^?\"\n");
    // A tab at the margin starts the next line with its full width.
    let mut out = Vec::new();
    vis::folded(&mut out, b"12345678\t12345678", 7, 24);
    assert_eq!(String::from_utf8(out).unwrap(), "\"12345678\\\n\t\t123456\\\n\t78\"\n");
}

#[test]
fn hex_leaves_out_lines_like_the_one_before() {
    let hex = |data: &[u8], word| {
        let mut out = Vec::new();
        text::hex(&mut out, data, word);
        String::from_utf8(out).unwrap()
    };
    let three = hex(&[0; 16 * 4], 2);
    let lines: Vec<_> = three.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], "\t000    0000  0000  0000  0000  0000  0000  0000  0000  ................");
    assert_eq!(lines[1], "\t***");
    let two = hex(&[0; 16 * 3], 2);
    assert_eq!(two.lines().nth(1), Some(format!("	010  {:50}................", "").as_str()));
    assert_eq!(hex(b"abcdefgh1", 8), "\t000     6867666564636261                 31  abcdefgh1\n");
    assert_eq!(hex(b"", 1), "");
}

#[test]
fn truss_prints_a_call_when_it_returns() {
    let text = Stream::default()
        .with(9, Body::Emul(b"linux"))
        .call(9, 257, &[0xffff_ff9c, 0x1000, 0x80000, 0])
        // Another thread's call begins and ends meanwhile.
        .call(10, 0, &[3, 0x2000, 64])
        .with(9, Body::Namei(b"/etc/pa\x1bsswd"))
        .with(10, Body::Genio { fd: 3, write: false, data: b"tab\there" })
        .ret(10, 0, 8)
        .ret(9, 257, -2)
        .call(9, 82, &[0x1000, 0x2000])
        .with(9, Body::Namei(b"a"))
        .with(9, Body::Namei(b"b"))
        .ret(9, 82, 0)
        .ret(11, 56, 0)
        .call(9, 9, &[0; 6])
        .ret(9, 9, 0x7000)
        .call(9, 35, &[0x1000, 0])
        .with(9, Body::Psig(Psig { signo: 10, action: 0x1000, ..Psig::default() }))
        .ret(9, 35, -516)
        .with(9, Body::User { id: b"web", data: b"x" })
        .call(10, 0, &[0, 0, 1])
        .call(9, 231, &[1])
        .truss(Options::default());
    let want = [
        r#"     9      9 t        emul(linux)"#,
        r#"     9     10 t        read(3, 0x2000, 64)         = 8"#,
        r#"       "tab\there""#,
        r#"     9      9 t        openat(AT_FDCWD, "/etc/pa\^[sswd", 0x80000, 0) Err#2 ENOENT"#,
        r#"     9      9 t        rename("a", "b")            = 0"#,
        r#"     9     11 t        clone                       = 0"#,
        r#"     9      9 t        mmap(0, 0, 0, 0, 0, 0)      = 0x7000"#,
        r#"     9      9 t        SIGUSR1 caught handler=0x1000 mask=()"#,
        r#"     9      9 t        nanosleep(0x1000, 0)        RESTART"#,
        r#"     9      9 t        user(web, "x")"#,
        r#"     9      9 t        exit_group(1)"#,
        r#"     9     10 t        read(0, 0, 1)               (no return)"#,
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), want);
}

#[test]
fn truss_keeps_little_of_a_call_that_moves_much() {
    let data = [b'x'; 4088];
    let mut stream = Stream::default().call(9, 1, &[1, 0x1000, 40 << 20]);
    for _ in 0..10_000 {
        stream = stream.with(9, Body::Genio { fd: 1, write: true, data: &data });
    }
    let text = stream.ret(9, 1, 40 << 20).truss(Options::default());
    assert!(text.len() < KEPT_MOST, "{} bytes", text.len());
    assert!(text.ends_with(" bytes more\n"));
    let text = stream_of_one(&data).truss(Options { max_data: Some(3), ..Options::default() });
    assert!(text.ends_with("\n       \"xxx\"\n"), "{text}");
    let text = stream_of_one(&data).truss(Options { max_data: Some(0), ..Options::default() });
    assert_eq!(text.lines().count(), 1);
}

const KEPT_MOST: usize = 70 << 10;

fn stream_of_one(data: &[u8]) -> Stream {
    Stream::default().call(9, 1, &[1, 0, 1]).with(9, Body::Genio { fd: 1, write: true, data }).ret(9, 1, 1)
}

proptest! {
    /// Whatever a record holds: no panic, and nothing that moves a terminal's cursor.
    #[test]
    fn no_byte_of_a_record_reaches_the_terminal_raw(
        ktr_type in 0i16..17,
        tid in 0i32..3,
        comm in vec(any::<u8>(), 0..16),
        body in vec(any::<u8>(), 0..300),
        word in prop_oneof![Just(None), Just(Some(1)), Just(Some(4))],
        absolute in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        let stamp = Stamp { time: Time { sec: i64::MIN, nsec: i64::MAX }, pid: -1, tid, comm: Comm::new(&comm) };
        for _ in 0..2 {
            encode(&mut bytes, &stamp, &Body::Unknown { ktr_type, data: &body });
        }
        let options = Options { word, absolute, relative: true, elapsed: true, ..Options::default() };
        let (mut printer, mut truss) = (Printer::new(options.clone()), Truss::new(options.clone()));
        let (mut json, mut summary) = (Json::new(options.clone()), Summary::new(options));
        let mut check = Check::new(Emulation::Foreign);
        let text = Stream(bytes).each(|record, out| {
            printer.record(record, out);
            truss.record(record, out);
            truss.finish(out);
            json.record(record, out);
            summary.record(record);
            check.record(record, out);
        });
        let moves = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
        prop_assert_eq!(text.chars().find(moves), None);
    }
}
