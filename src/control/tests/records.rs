//! The process's own records, and what a file that cannot be written means for those who write to it.

use super::*;
use crate::record::{Body, Decoder};

/// The USER records of its stream: id and data.
fn users(w: &World, id: ProcId) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut file = w.ktrace.open(&w.me, id).unwrap();
    let mut bytes = Vec::new();
    while file.read(1 << 16, 1, &mut bytes) == Ok(Read::Data) {}
    let mut decoder = Decoder::new();
    decoder.feed(&bytes);
    let mut users = Vec::new();
    while let Some(rec) = decoder.next_record().unwrap() {
        if let Body::User { id, data } = rec.body() {
            users.push((record::until_nul(id).to_vec(), data.to_vec()));
        }
    }
    users
}

#[test]
fn r27_what_is_written_becomes_one_record_of_the_process() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set user").unwrap();
    for written in [
        "id some data\n",
        "alone",
        " no id",
        "id  two\n\n",
        "tab\tdata",
        "",
        "twenty-bytes-of-an-id lost",
        "a\0b c",
    ] {
        w.ktrace.user(&w.me, a, written.as_bytes()).unwrap();
    }
    let expected = [
        ("id", "some data"),
        ("alone", ""),
        ("", "no id"),
        ("id", " two\n"),
        ("tab", "data"),
        ("", ""),
        ("", "lost"),
        ("a", "c"),
    ];
    let expected = expected.map(|(id, data)| (id.as_bytes().to_vec(), data.as_bytes().to_vec()));
    assert_eq!(users(&w, a), expected);
}

#[test]
fn what_a_newborn_does_first_may_be_to_write_a_record() {
    let mut w = World::new();
    let (a, b) = (w.sleep(), w.sleep());
    w.tell(Some(a), "set user +inherit").unwrap();
    *w.fake.birth.lock() = Some((a, b));
    w.ktrace.user(&w.me, b, b"born").unwrap();
    assert_eq!(users(&w, b), [(b"born".to_vec(), vec![])]);
}

#[test]
fn r09_an_id_too_long_is_empty_and_nothing_happens_while_the_facility_is_off() {
    let mut w = World::new();
    let a = w.sleep();
    let long = [b"id ".as_slice(), &[b'x'; record::USER_MAX + 1]].concat();
    // Not traced, and traced without it: it succeeds, whatever is written.
    w.ktrace.user(&w.me, a, &long).unwrap();
    w.tell(Some(a), "set syscall").unwrap();
    w.ktrace.user(&w.me, a, &long).unwrap();
    w.ktrace.user(&w.me, a, b"id data").unwrap();
    w.tell(Some(a), "set user").unwrap();
    w.ktrace.user(&w.me, a, b"nineteen-bytes-long data").unwrap();
    w.ktrace.user(&w.me, a, b"twenty-bytes-or-more data").unwrap();
    let seen = users(&w, a);
    assert_eq!(seen[0], (b"nineteen-bytes-long".to_vec(), b"data".to_vec()));
    assert_eq!(seen[1], (b"".to_vec(), b"data".to_vec()));
}

#[test]
fn f7_more_than_2048_bytes_are_enospc() {
    let mut w = World::new();
    let a = w.sleep();
    let long = [b"id ".as_slice(), &[b'x'; record::USER_MAX + 1]].concat();
    w.tell(Some(a), "set user").unwrap();
    assert_eq!(w.ktrace.user(&w.me, a, &long).unwrap_err().errno(), libc::ENOSPC);
    w.ktrace.user(&w.me, a, &long[..long.len() - 1]).unwrap();
    assert_eq!(users(&w, a)[0].1.len(), record::USER_MAX);
}

/// Lines logged by any test.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGGED.lock().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn logged(sink: u64) -> Vec<String> {
    let about = format!("(trace file {sink})");
    LOGGED.lock().iter().filter(|line| line.ends_with(&about)).cloned().collect()
}

fn capture_log() {
    // Another test of this file may have done it.
    let _ = log::set_logger(&Log);
    log::set_max_level(log::LevelFilter::Info);
}

#[test]
fn a_full_file_releases_all_its_writers_and_is_logged_once() {
    capture_log();
    let mut w = World::new();
    let (a, b, c) = (w.sleep(), w.sleep(), w.sleep());
    w.tell(Some(a), "set user +inherit size=16K").unwrap();
    w.tell(Some(c), "set user").unwrap();
    w.fork(a, b);
    let sink = Arc::clone(w.trace(a).unwrap().sink());
    // More than it can hold.
    let written = [b"id ".as_slice(), &[b'x'; 2000]].concat();
    for _ in 0..20 {
        w.ktrace.user(&w.me, b, &written).unwrap();
    }
    assert_eq!(sink.end(), Some(End::GaveUp(libc::EAGAIN)));
    w.wait("both to be released", || w.trace(a).is_none() && w.trace(b).is_none());
    assert!(w.trace(c).is_some(), "another file");
    w.wait("the log", || !logged(sink.id()).is_empty());
    let line =
        format!("ktrace write failed, errno {}, tracing stopped (trace file {})", libc::EAGAIN, sink.id());
    assert_eq!(logged(sink.id()), [line]);
    assert!(w.stat(a, "error").contains("errno 11"));
    let last = users(&w, a).iter().rev().nth(1).cloned().unwrap();
    assert_eq!(last, (b"ktracefs".to_vec(), b"stopped: errno 11 (EAGAIN)".to_vec()));
    w.tell(Some(a), "set user").unwrap();
    assert_eq!(w.stat(a, "error"), "none", "a new file");
}

#[test]
fn epipe_is_silent_and_the_next_set_makes_a_new_file() {
    capture_log();
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set user").unwrap();
    let sink = Arc::clone(w.trace(a).unwrap().sink());
    assert_eq!(w.read(a), Ok(Read::Empty));
    w.ktrace.user(&w.me, a, b"id data").unwrap();
    assert_eq!(sink.end(), Some(End::GaveUp(libc::EPIPE)));
    w.wait("the release", || w.trace(a).is_none());
    w.tell(Some(a), "set user").unwrap();
    assert_ne!(w.sink(a), sink.id());
    assert_eq!(logged(sink.id()), [""; 0]);
}

#[test]
fn a_wedged_process_keeps_no_other_from_being_released() {
    let mut w = World::new();
    let (a, b, c) = (w.sleep(), w.sleep(), w.sleep());
    for id in [a, b] {
        w.tell(Some(id), "set user").unwrap();
    }
    w.tell(Some(a), "set user +inherit").unwrap();
    w.fork(a, c);
    // Somebody changes it and does not come to an end.
    let wedged = w.ktrace.procs().get(a).unwrap();
    let held = wedged.changing.lock();
    for id in [a, b] {
        assert_eq!(w.read(id), Ok(Read::Empty));
        w.ktrace.user(&w.me, id, b"id data").unwrap();
    }
    w.wait("the others", || w.trace(b).is_none() && w.trace(c).is_none());
    assert!(w.trace(a).is_some());
    drop(held);
    w.wait("it too, later", || w.trace(a).is_none());
}

#[test]
fn the_inherit_flag_goes_alone_or_with_the_last_facility() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set user,namei +inherit").unwrap();
    w.tell(Some(a), "clear namei").unwrap();
    assert!(w.trace(a).unwrap().inherit);
    w.tell(Some(a), "clear +inherit").unwrap();
    assert_eq!((w.facs(a), w.trace(a).unwrap().inherit), (Facs::USER, false));
    w.tell(Some(a), "set user +inherit").unwrap();
    w.tell(Some(a), "clear user").unwrap();
    assert!(w.trace(a).is_none(), "the flag alone keeps nothing");
    w.tell(Some(a), "set +inherit").unwrap();
    w.tell(Some(a), "clear +inherit").unwrap();
    assert!(w.trace(a).is_none());
}

#[test]
fn shutdown_leaves_nothing_traced() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set user").unwrap();
    let sink = Arc::clone(w.trace(a).unwrap().sink());
    w.ktrace.shutdown(Instant::now());
    assert!(w.trace(a).is_none());
    assert_eq!(sink.end(), Some(End::Finished));
}
