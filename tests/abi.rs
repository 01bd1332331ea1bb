//! The layout of records by a C compiler: it reads what we write.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ktrace::record::*;

/// What the C program prints of a stream; `None` without a C compiler.
fn read_by_c(stream: &[u8]) -> Option<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/abi.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi");
    let built = Command::new("cc").args(["-Wall", "-Werror", "-o"]).arg(&program).arg(source).status();
    match built {
        Err(_) => {
            eprintln!("SKIP: no C compiler");
            return None;
        }
        Ok(status) => assert!(status.success()),
    }
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stream).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn c_reads_what_we_write() {
    let stamp =
        Stamp { time: Time { sec: 1 << 40, nsec: 999_999_999 }, pid: 7, tid: 8, comm: Comm::new(b"cat") };
    let mut data = [0; 24];
    for (i, word) in [21, 22, 23, 24, 25, 26i32].into_iter().enumerate() {
        data[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
    let info = Some(SigInfo { errno: 5, data });
    let psig = Psig { signo: 11, action: 0x40_1136, mask: [2, 4, 0, 0], code: 1, info };
    let mut stream = Vec::new();
    let bodies = [
        Body::Syscall { code: 257, args: Args::Words(&[u64::MAX, 2]) },
        Body::Sysret { code: 257, error: -2, retval: 3, retval_1: 4 },
        Body::Namei(b"/etc/passwd"),
        Body::Genio { fd: 3, write: true, data: b"abc" },
        Body::Psig(psig),
        Body::Psig(Psig { info: None, ..psig }),
        Body::Csw { out: true, user: false },
        Body::User { id: b"label", data: b"text" },
        Body::ExecFd { fd: 3, dtype: 2 },
    ];
    bodies.iter().for_each(|body| encode(&mut stream, &stamp, body));
    // The same header as version 1: a 32-bit time before the nanoseconds.
    let last = stream.len();
    encode(&mut stream, &Stamp { time: Time { sec: 5, nsec: 6 }, ..stamp }, &Body::Emul(b"linux"));
    stream[last + 6] = 1;
    let Some(text) = read_by_c(&stream) else { return };
    let at = |line: &str| line.replace('@', "7 cat 1099511627776 999999999 8:");
    let want = [
        "sizes 56 8 24 40 128 20",
        "24 1 2 @ 257 0xffffffffffffffff 0x2",
        "24 2 2 @ 257 0 -2 3 4",
        "11 3 2 @ /etc/passwd",
        "11 4 2 @ 3 1 abc",
        "168 5 2 @ 11 0x401136 0x2 0x4 1 11 1 5 21 22 0x1800000017 23 0x1600000015 23 94489280533 23",
        "40 5 2 @ 11 0x401136 0x2 0x4 1",
        "8 6 2 @ 1 0",
        "24 8 2 @ label text",
        "8 15 2 @ 3 2",
        "5 7 1 7 cat 5 6 8: linux",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), want.map(at));
}
