//! Drains of descriptors of our own: a caller that is this process.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};

use crossbeam_channel::bounded as channel;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crossbeam_channel::Receiver;

use super::*;
use crate::policy::Policy;
use crate::record::{self, Body, Comm, Decoder, Stamp, Time};
use crate::sink::{Appended, Budget, File as SinkFile, SIZE_DEFAULT};
use crate::syscall::Abi;

const SOON: Duration = Duration::from_secs(20);

fn me() -> Caller {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    Caller::new(uid, gid, nix::unistd::gettid().as_raw())
}

fn taken(fd: &impl AsFd) -> Result<Descriptor> {
    take(&me(), fd.as_fd().as_raw_fd(), None)
}

fn record(n: u64, len: usize) -> (Vec<u8>, Stamp) {
    let stamp = Stamp { time: Time { sec: n as i64, nsec: 0 }, pid: 7, tid: 7, comm: Comm::new(b"test") };
    let mut out = Vec::new();
    record::encode(&mut out, &stamp, &Body::Namei(&vec![b'x'; len]));
    (out, stamp)
}

fn append(sink: &Sink, n: u64, len: usize) -> Appended {
    let (bytes, stamp) = record(n, len);
    sink.append(&bytes, &stamp, Abi::Linux)
}

/// A sink that is drained to `fd`; the receiver hangs up when the drain has ended.
fn drained(fd: &impl AsFd, policy: Policy) -> (Arc<Sink>, Receiver<()>) {
    let sink = Sink::new(SIZE_DEFAULT, policy, me().uid, &Budget::new(64 << 20), None).unwrap();
    let (alive, ended) = channel(0);
    let to = taken(fd).unwrap();
    sink.set_file(SinkFile { id: to.id(), name: to.name().to_owned() });
    start(&sink, to, &me(), alive).unwrap();
    (sink, ended)
}

fn has_ended(ended: &Receiver<()>) {
    assert_eq!(ended.recv_timeout(SOON), Err(crossbeam_channel::RecvTimeoutError::Disconnected));
}

/// Sequence numbers of the paths of a stream, which must be whole.
fn numbers(bytes: &[u8]) -> Vec<i64> {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    let mut numbers = Vec::new();
    while let Some(rec) = decoder.next_record().unwrap() {
        if matches!(rec.body(), Body::Namei(_)) {
            numbers.push(rec.header.stamp.time.sec);
        }
    }
    decoder.finish().expect("no part of a record");
    numbers
}

fn temporary() -> File {
    let path = std::env::temp_dir().join(format!("ktrace-drain-{:?}", std::thread::current().id()));
    let file = OpenOptions::new().read(true).append(true).create(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

fn flags(fd: &impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap())
}

#[test]
fn r25_a_descriptor_that_is_not_open_for_writing_is_ebadf() {
    let read_only = File::open("/dev/null").unwrap();
    assert_eq!(taken(&read_only).unwrap_err(), Error::BadFd { fd: read_only.as_raw_fd() });
    let by_name = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/dev/null").unwrap();
    assert_eq!(taken(&by_name).unwrap_err().errno(), libc::EBADF);
    assert_eq!(take(&me(), 1_000_000, None).unwrap_err().errno(), libc::EBADF);
    let write_only = OpenOptions::new().write(true).open("/dev/null").unwrap();
    assert_eq!(taken(&write_only).unwrap().name(), "/dev/null");
}

#[test]
fn r11_a_request_makes_the_sink_non_blocking_and_not_the_callers_file() {
    let (reader, writer) = std::io::pipe().unwrap();
    let before = flags(&writer);
    let (sink, ended) = drained(&writer, Policy::Stop);
    let all = sink.writer();
    // More than the pipe takes: whoever wrote to it waiting would never be seen again.
    for n in 0..100 {
        append(&sink, n, 4000);
    }
    assert_eq!(flags(&writer), before, "the caller's own open file waits as before");
    drop(all);
    has_ended(&ended);
    drop((reader, writer));
}

#[test]
fn f3_a_slow_pipe_does_not_end_tracing_while_the_ring_has_room() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (sink, ended) = drained(&writer, Policy::Stop);
    let all = sink.writer();
    drop(writer);
    for n in 0..500 {
        assert_eq!(append(&sink, n, 4000), Appended::Whole, "record {n}");
    }
    drop(all);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(numbers(&bytes), (0..500).collect::<Vec<_>>());
    has_ended(&ended);
}

#[test]
fn records_reach_the_file_whole_and_in_order() {
    let file = temporary();
    let (sink, ended) = drained(&file, Policy::Stop);
    let all = sink.writer();
    let mut expected = 0;
    for n in 0..2000 {
        assert_eq!(append(&sink, n, (n as usize * 37) % 4000), Appended::Whole);
        expected += 1;
    }
    assert!(sink.wait_written(Instant::now() + SOON));
    let so_far = std::fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    assert_eq!(numbers(&so_far).len(), expected, "written before anybody was told so");
    drop(all);
    has_ended(&ended);
    let bytes = std::fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    assert_eq!(numbers(&bytes), (0..2000).collect::<Vec<_>>());
}

#[test]
fn what_goes_into_a_file_gathers_from_one_write_to_the_next() {
    let file = temporary();
    let (sink, ended) = drained(&file, Policy::Stop);
    let all = sink.writer();
    let begun = Instant::now();
    for n in 0..3 {
        let before = file.metadata().unwrap().len();
        assert_eq!(append(&sink, n, 10), Appended::Whole);
        while file.metadata().unwrap().len() == before {
            assert!(begun.elapsed() < SOON, "it never comes");
            std::thread::yield_now();
        }
        assert!(begun.elapsed() >= GATHER * n as u32, "write {n}");
    }
    append(&sink, 3, 10);
    drop(all);
    has_ended(&ended);
}

#[test]
fn f1_a_record_that_was_begun_is_finished_after_giving_up() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (sink, ended) = drained(&writer, Policy::Stop);
    let all = sink.writer();
    drop(writer);
    let mut n = 0;
    // Sizes that no pipe buffer is a multiple of, until nobody has room.
    while append(&sink, n, 3001) == Appended::Whole {
        n += 1;
    }
    sink.give_up(libc::EAGAIN);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(numbers(&bytes).len(), n as usize);
    has_ended(&ended);
    drop(all);
}

#[test]
fn a_part_that_cannot_be_finished_is_taken_back() {
    let file = temporary();
    let to = taken(&file).unwrap();
    let (whole, _) = record(1, 100);
    assert_eq!(to.write(&whole), Ok(whole.len()));
    assert_eq!(to.write(&whole[..70]), Ok(70));
    to.take_back(part(&[whole.clone(), whole.clone()].concat(), whole.len() + 70));
    assert_eq!(file.metadata().unwrap().len(), whole.len() as u64);
}

#[test]
fn a_reader_that_leaves_is_epipe() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (sink, ended) = drained(&writer, Policy::Stop);
    let all = sink.writer();
    drop((reader, writer));
    assert_eq!(append(&sink, 1, 10), Appended::Whole);
    has_ended(&ended);
    assert_eq!(sink.end(), Some(crate::sink::End::GaveUp(libc::EPIPE)));
    drop(all);
}

#[test]
fn a_device_that_is_full_is_its_errno() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (sink, ended) = drained(&full, Policy::Stop);
    let all = sink.writer();
    append(&sink, 1, 10);
    has_ended(&ended);
    assert_eq!(sink.end(), Some(crate::sink::End::GaveUp(libc::ENOSPC)));
    drop(all);
}

#[test]
fn a_stream_socket_gets_the_bytes() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (sink, ended) = drained(&theirs, Policy::Stop);
    let all = sink.writer();
    drop(theirs);
    for n in 0..300 {
        append(&sink, n, 4000);
    }
    drop(all);
    let mut bytes = Vec::new();
    ours.read_to_end(&mut bytes).unwrap();
    assert_eq!(numbers(&bytes).len(), 300);
    has_ended(&ended);
}

#[test]
fn r28_a_record_is_header_and_body_in_one_write() {
    // A socket that keeps messages apart shows what one write was.
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(SOON)).unwrap();
    let (sink, ended) = drained(&theirs, Policy::Stop);
    let all = sink.writer();
    for n in 0..50 {
        append(&sink, n, 1000);
    }
    let mut seen = Vec::new();
    let mut buf = [0; 1 << 16];
    while seen.len() < 50 {
        let n = ours.recv(&mut buf).unwrap();
        let header = record::decode_header(&buf[..n]).unwrap().unwrap();
        assert_eq!(n, record::HEADER_LEN + header.len, "one record, and all of it");
        seen.extend(numbers(&buf[..n]));
    }
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
    drop(all);
    has_ended(&ended);
}

#[test]
fn another_reader_beside_takes_nothing_away() {
    let (mut pipe, writer) = std::io::pipe().unwrap();
    let (sink, ended) = drained(&writer, Policy::Stop);
    let all = sink.writer();
    drop(writer);
    let mut beside = sink.reader();
    let mut n = 0;
    while append(&sink, n, 4000) == Appended::Whole {
        n += 1;
        let mut out = Vec::new();
        while beside.read(1 << 20, 99, &mut out) == Read::Data {}
    }
    assert!(n > 900, "the ring was filled though the other reader kept up: {n}");
    drop((beside, all));
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    assert_eq!(numbers(&bytes), (0..n as i64).collect::<Vec<_>>());
    has_ended(&ended);
}
