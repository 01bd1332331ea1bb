//! A reader that is late: the ring of the default size grows for it, one of a size that was asked for does not.

use std::fs::File;
use std::io::Read;

use ktrace::record::Body;
use ktrace::sink::SIZE_DEFAULT;

use crate::support::mount::Mount;
use crate::support::stream::{Rec, decode};
use crate::support::tracee::Tracee;
use crate::support::{need, wait_for};

/// A busy process, and a reader that has read a little: this.
fn late(mount: &Mount, line: &str) -> (Tracee, File, Vec<u8>) {
    let mut tracee = Tracee::start("threads", &["1", "100000000"]);
    let pid = tracee.pid();
    mount.set(pid, line);
    tracee.go();
    let mut reader = File::open(mount.path(format!("{pid}/trace"))).unwrap();
    let mut first = vec![0; 100];
    reader.read_exact(&mut first).unwrap();
    (tracee, reader, first)
}

fn bytes(mount: &Mount, pid: i32) -> u64 {
    let stat = mount.read(format!("{pid}/stat"));
    stat.lines().find_map(|line| line.strip_prefix("bytes ")?.parse().ok()).unwrap_or(0)
}

fn is_call(rec: &Rec) -> bool {
    matches!(rec.body(), Body::Syscall { .. })
}

#[test]
fn who_reads_the_default_ring_late_misses_nothing() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (tracee, mut reader, mut stream) = late(&mount, "set syscall backend=ptrace");
    let most = SIZE_DEFAULT as u64 * 3 / 2;
    wait_for("more than the ring had at first", || bytes(&mount, tracee.pid()) > most);
    mount.set(tracee.pid(), "clear");
    reader.read_to_end(&mut stream).unwrap();
    let recs = decode(&stream);
    assert!(recs.iter().map(Rec::len).sum::<usize>() as u64 > most - 1000);
    assert!(recs.iter().any(is_call));
    let end = recs.last().filter(|rec| rec.is_of_stream()).expect("the stream's last word");
    let Body::User { data, .. } = end.body() else { panic!("{end:?}") };
    let end = String::from_utf8_lossy(data).into_owned();
    assert!(end.starts_with("end: ") && end.ends_with(", 0 lost"), "{end}");
}

#[test]
fn a_size_that_was_asked_for_is_kept() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (tracee, mut reader, mut stream) = late(&mount, "set syscall backend=ptrace size=4M");
    let pid = tracee.pid();
    wait_for("the trace to be given up", || mount.read(format!("{pid}/ctl")) == "clear\n");
    reader.read_to_end(&mut stream).unwrap();
    assert!(stream.len() <= SIZE_DEFAULT + 1000, "{}", stream.len());
    assert!(String::from_utf8_lossy(&stream).contains("stopped: errno 11 (EAGAIN)"));
}
