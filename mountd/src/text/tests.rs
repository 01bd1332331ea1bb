//! The print of a stream, whatever the size of the reads.

use ktrace::facility::Facs;
use ktrace::policy::Policy;
use ktrace::proc::{ProcId, ProcTable, Trace};
use ktrace::record::{self, Body, Comm, Stamp};
use ktrace::sink::{Budget, Sink};
use ktrace::syscall::Abi;

use super::*;

fn open() -> (Arc<Sink>, Stream, Arc<Proc>) {
    let procs = ProcTable::new(std::time::Duration::ZERO);
    let proc = procs.entry(ProcId { pid: 1, start: 1, inode: 0 });
    let sink = Sink::new(1 << 20, Policy::Stop, 0, &Budget::new(1 << 24), None).unwrap();
    let trace = Trace {
        facs: Facs::DEFAULT,
        inherit: false,
        root: true,
        seccomp: false,
        calls: None,
        backend: "none",
        writer: sink.writer(),
    };
    proc.set_trace(Some(Arc::new(trace)));
    proc.bind();
    let stream = Stream::text(TraceFile::open(&proc, 0).unwrap());
    (sink, stream, proc)
}

fn append(sink: &Sink, path: &[u8]) {
    let stamp = Stamp { pid: 1, tid: 1, comm: Comm::new(b"init"), ..Stamp::default() };
    let mut record = Vec::new();
    record::encode(&mut record, &stamp, &Body::Namei(path));
    sink.append(&record, &stamp, Abi::Linux);
}

fn read(stream: &mut Stream, max: usize) -> (Read, String) {
    let mut out = Vec::new();
    let got = stream.read(max, 1, &mut out).unwrap();
    assert!(out.len() <= max);
    (got, String::from_utf8(out).unwrap())
}

#[test]
fn records_come_as_kdump_prints_them() {
    let (sink, mut stream, _proc) = open();
    assert_eq!(read(&mut stream, 4096), (Read::Empty, String::new()));
    append(&sink, b"/etc/passwd");
    let (got, text) = read(&mut stream, 4096);
    assert_eq!(got, Read::Data);
    assert!(text.lines().any(|line| line.contains("NAMI") && line.ends_with("\"/etc/passwd\"")), "{text}");
    assert_eq!(read(&mut stream, 4096).0, Read::Empty);
}

#[test]
fn small_reads_get_whole_lines_while_one_fits_and_lose_nothing() {
    let (sink, mut whole, proc) = open();
    for _ in 0..100 {
        append(&sink, b"/a/path");
    }
    let want = read(&mut whole, usize::MAX).1;
    for max in [1, 7, 50, 100, 4096] {
        let mut stream = Stream::text(TraceFile::open(&proc, 0).unwrap());
        let mut all = String::new();
        while stream.ready().0 {
            let (_, text) = read(&mut stream, max);
            assert!(max < 100 || text.ends_with('\n'), "{text:?}");
            assert!(!stream.ready().0 || !stream.arm(Arc::new(|_| {}), 1), "armed with text left");
            all.push_str(&text);
        }
        assert_eq!(all, want, "{max} bytes at a time");
    }
}
