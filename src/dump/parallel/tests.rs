//! That several threads print what one prints, and end whatever happens.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::dump::{Options, Printer};
use crate::facility::Facs;
use crate::record::{Args, Body, Comm, Decoder, Stamp, Time, encode};

/// A stream of many processes, calls that span pieces, and ABIs that change.
fn long_stream(records: u32) -> Vec<u8> {
    let mut stream = Vec::new();
    for n in 0..records {
        let pid = (n % 7 * 16) as i32;
        let time = Time { sec: 1_000_000 + i64::from(n / 3), nsec: i64::from(n % 3) };
        let stamp = Stamp { time, pid, tid: pid, comm: Comm::new(b"many") };
        let body = match n % 61 {
            0 => Body::Emul([&b"linux"[..], b"linux32", b"netbsd"][(n % 3) as usize]),
            1 => Body::Genio { fd: 3, write: n % 2 == 0, data: &[n as u8; 900] },
            r if r % 2 == 0 => {
                Body::Syscall { code: (n % 300) as i32, args: Args::Words(&[u64::from(n), 2]) }
            }
            _ => Body::Sysret { code: ((n + 293) % 300) as i16, error: 0, retval: i64::from(n), retval_1: 0 },
        };
        encode(&mut stream, &stamp, &body);
    }
    stream
}

/// Bytes as a file that is read at an offset, little at a time.
fn at(bytes: &[u8]) -> impl Fn(&mut [u8], u64) -> io::Result<usize> + Sync {
    |buf, offset| (&bytes[bytes.len().min(offset as usize)..]).take(10_000).read(buf)
}

#[test]
fn several_threads_print_what_one_prints() {
    let mut stream = long_stream(15_000);
    // Longer than the room before a piece, and than pieces.
    for len in [PIECE, 3 * HEAD, 3 * PIECE, 1] {
        encode(&mut stream, &Stamp::default(), &Body::Genio { fd: 1, write: true, data: &vec![7; len] });
        stream.extend(long_stream(2000));
    }
    assert!(stream.len() > 10 * PIECE);
    for options in [
        Options::default(),
        Options { elapsed: true, relative: true, abi: true, ..Options::default() },
        Options { facs: Some(Facs::SYSRET), relative: true, pid: Some(48), ..Options::default() },
    ] {
        for cut in [stream.len(), stream.len() - 5, 10 * PIECE, 0] {
            let bytes = &stream[..cut];
            let mut printer = Printer::new(options.clone());
            let mut decoder = Decoder::new();
            decoder.feed(bytes);
            let mut one = Vec::new();
            while let Some(record) = decoder.next_record().unwrap() {
                printer.record(&record, &mut one);
            }
            let fault = decoder.finish().err().map(|e| e.to_string());
            let mut several = Vec::new();
            let printer = Printer::new(options.clone());
            assert_eq!(print_parallel(at(bytes), printer, 3, &mut several).unwrap(), fault);
            assert!(one == several, "{options:?}");
        }
    }
}

#[test]
fn a_fault_in_the_midst_is_told_after_all_that_is_good() {
    let mut stream = long_stream(30_000);
    let good = stream.len();
    stream.extend_from_slice(&[0xff; 100]);
    stream.extend(long_stream(1000));
    let mut text = Vec::new();
    let fault = print_parallel(at(&stream), Printer::new(Options::default()), 2, &mut text).unwrap();
    assert!(fault.unwrap().starts_with(&format!("byte {good}: ")));
    assert!(text.iter().filter(|&&b| b == b'\n').count() >= 30_000);
}

fn fails_at(bytes: &[u8], from: usize) -> impl Fn(&mut [u8], u64) -> io::Result<usize> + Sync {
    move |buf, offset| match at(&bytes[..from])(buf, offset)? {
        0 if !buf.is_empty() => Err(io::Error::from_raw_os_error(5)),
        n => Ok(n),
    }
}

#[test]
fn an_input_that_fails_is_told_after_all_that_came_before() {
    let stream = long_stream(30_000);
    let print = |from: usize| {
        let mut text = Vec::new();
        let printer = Printer::new(Options::default());
        let fault = print_parallel(fails_at(&stream, from), printer, 3, &mut text).unwrap();
        assert_eq!(fault.as_deref(), Some("Input/output error"));
        text.iter().filter(|&&b| b == b'\n').count()
    };
    assert!(print(stream.len()) >= 30_000);
    assert!(print(stream.len() / 2) >= 10_000);
    assert_eq!(print(0), 0);
}

#[test]
fn an_output_that_fails_ends_it() {
    /// Has room for so many pieces' lines.
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(ErrorKind::BrokenPipe)?;
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let stream = long_stream(60_000);
    for pieces in [0, 1, 5] {
        let read = AtomicU64::new(0);
        let read_at = |buf: &mut [u8], offset| {
            read.fetch_max(offset, Ordering::Relaxed);
            at(&stream)(buf, offset)
        };
        let printed = print_parallel(read_at, Printer::new(Options::default()), 3, &mut Full(pieces));
        assert_eq!(printed.unwrap_err().kind(), ErrorKind::BrokenPipe);
        // What three threads had begun when it failed, and not the rest.
        let read = read.into_inner() as usize / PIECE;
        assert!(read < pieces + 7 && read + 2 < stream.len() / PIECE, "{read} pieces");
    }
}

#[test]
fn a_thread_that_panics_keeps_no_other_waiting() {
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let stream = long_stream(30_000);
        let panics = |buf: &mut [u8], offset: u64| {
            assert!(offset / PIECE as u64 != 1, "as it is meant to");
            at(&stream)(buf, offset)
        };
        let printer = Printer::new(Options::default());
        let printed = catch_unwind(AssertUnwindSafe(|| print_parallel(panics, printer, 3, &mut Vec::new())));
        ended.send(printed.is_err())
    });
    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
}
