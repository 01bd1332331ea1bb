//! Without a mount: the kernel is the other end of a socket pair.

use std::process::{Child, Command};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use ktrace::facility::Facs;
use ktrace::policy::Policy;
use ktrace::proc::{Proc, ProcId, Trace};
use ktrace::record::{self, Body, Stamp};
use ktrace::sink::{Appended, Budget, Sink};
use ktrace::stream::TraceFile;
use ktrace::syscall::Abi;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::pump;

const SOON: u16 = 10_000;
const NONBLOCK: bool = true;

/// Streams with their pump, and the kernel's side of them.
struct Rig {
    kernel: OwnedFd,
    streams: Arc<Streams>,
    procs: Arc<ProcTable>,
    ended: Arc<AtomicBool>,
    bell: Arc<Bell>,
    pump: Option<thread::JoinHandle<()>>,
}

/// A reply, or a notification.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Data(u64, Vec<u8>),
    Failed(u64, i32),
    Notified(u64),
}

impl Rig {
    fn new() -> Rig {
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (kernel, ours) = pair.unwrap();
        let procs = Arc::new(ProcTable::new(Duration::ZERO));
        let bell = Arc::new(Bell::new().unwrap());
        let device = Arc::new(Device::new(ours));
        let streams = Streams::new(device, Arc::clone(&procs), Arc::clone(&bell));
        let ended = Arc::new(AtomicBool::new(false));
        let (b, s, e) = (Arc::clone(&bell), Arc::clone(&streams), Arc::clone(&ended));
        let pump = Some(thread::spawn(move || pump::run(&b, &s, || {}, &e)));
        Rig { kernel, streams, procs, ended, bell, pump }
    }

    fn open(&self, proc: &Arc<Proc>) -> u64 {
        self.streams.add(Stream::Trace(TraceFile::open(proc, 0).unwrap()))
    }

    fn ourselves(&self) -> Arc<Proc> {
        self.procs.entry(ProcId::of(std::process::id() as i32).unwrap())
    }

    fn read(&self, unique: u64, fh: u64, nonblock: bool) {
        self.streams.read(Read { unique, fh, size: 4096, tid: 0, nonblock }, &mut Vec::new());
    }

    fn hears_within(&self, ms: u16) -> Option<Said> {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&self.kernel), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(ms)).unwrap() == 0 {
            return None;
        }
        let mut b = vec![0; 1 << 16];
        let len = nix::unistd::read(&self.kernel, &mut b).unwrap();
        let int = |at: usize| i32::from_ne_bytes(b[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(b[at..at + 8].try_into().unwrap());
        assert_eq!(int(0) as usize, len, "a message says its own length");
        Some(match (int(4), long(8)) {
            (0, unique) => Said::Data(unique, b[OUT_HEADER..len].to_vec()),
            (1, 0) => Said::Notified(long(OUT_HEADER)),
            (error, unique) => Said::Failed(unique, -error),
        })
    }

    fn hears(&self) -> Said {
        self.hears_within(SOON).expect("an answer in time")
    }

    fn is_silent(&self) {
        // Whatever is to come has come when the pump has heard the bell after it.
        let before = self.bell.rounds();
        self.bell.ring(Bell::SWEEP);
        while self.bell.rounds() < before + 2 {
            self.bell.ring(Bell::SWEEP);
            thread::yield_now();
        }
        assert_eq!(self.hears_within(0), None);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.bell.ring(Bell::SWEEP);
        let _ = self.pump.take().map(thread::JoinHandle::join);
    }
}

fn traced(proc: &Proc) -> Arc<Sink> {
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
    sink
}

fn append(sink: &Sink) {
    let stamp = Stamp { pid: 1, ..Stamp::default() };
    let mut record = Vec::new();
    record::encode(&mut record, &stamp, &Body::Namei(b"/a"));
    assert_eq!(sink.append(&record, &stamp, Abi::Linux), Appended::Whole);
}

fn is_data(said: &Said, of: u64) -> bool {
    matches!(said, Said::Data(unique, bytes) if *unique == of && !bytes.is_empty())
}

fn child() -> Child {
    Command::new("sleep").arg("100").spawn().unwrap()
}

#[test]
fn a_read_waits_for_the_first_sink_and_its_first_record() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let fh = rig.open(&proc);
    rig.read(1, fh, !NONBLOCK);
    rig.is_silent();
    let sink = traced(&proc);
    rig.is_silent();
    append(&sink);
    assert!(is_data(&rig.hears(), 1));
    proc.set_trace(None);
    rig.read(3, fh, !NONBLOCK);
    assert!(is_data(&rig.hears(), 3), "the stream's last word");
    rig.read(2, fh, !NONBLOCK);
    assert_eq!(rig.hears(), Said::Data(2, vec![]), "EOF");
}

#[test]
fn an_interrupt_ends_a_waiting_read_and_eats_no_data() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    rig.read(1, fh, !NONBLOCK);
    rig.streams.interrupt(1);
    assert_eq!(rig.hears(), Said::Failed(1, libc::EINTR));
    rig.streams.interrupt(1);
    append(&sink);
    rig.is_silent();
    rig.read(2, fh, !NONBLOCK);
    assert!(is_data(&rig.hears(), 2));
}

#[test]
fn reads_of_one_open_are_served_in_their_order() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    for unique in 1..=3 {
        rig.read(unique, fh, !NONBLOCK);
    }
    rig.streams.interrupt(2);
    assert_eq!(rig.hears(), Said::Failed(2, libc::EINTR));
    append(&sink);
    assert!(is_data(&rig.hears(), 1));
    rig.is_silent();
    append(&sink);
    assert!(is_data(&rig.hears(), 3));
}

#[test]
fn a_nonblocking_read_never_waits() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let fh = rig.open(&proc);
    rig.read(1, fh, NONBLOCK);
    assert_eq!(rig.hears(), Said::Failed(1, libc::EAGAIN));
    append(&traced(&proc));
    rig.read(2, fh, NONBLOCK);
    assert!(is_data(&rig.hears(), 2));
}

#[test]
fn who_was_given_something_has_not_found_it_empty() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    let empty = || rig.streams.get(fh).unwrap().state.lock().empty.is_some();
    rig.read(1, fh, NONBLOCK);
    assert_eq!(rig.hears(), Said::Failed(1, libc::EAGAIN));
    assert!(empty());
    append(&sink);
    rig.read(2, fh, NONBLOCK);
    assert!(is_data(&rig.hears(), 2));
    assert!(!empty());
}

#[test]
fn who_appends_waits_for_no_lock_of_the_mount() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    rig.read(1, fh, !NONBLOCK);
    thread::scope(|scope| {
        let (open, waiting) = (rig.streams.open.lock(), rig.streams.waiting.lock());
        // By this thread, and at once: the pump waits as well.
        scope.spawn(|| append(&sink));
        assert!(is_data(&rig.hears(), 1));
        drop((open, waiting));
    });
    rig.streams.interrupt(1);
    rig.is_silent();
    rig.read(2, fh, !NONBLOCK);
    assert_eq!(rig.streams.waiting.lock().len(), 1, "the answered one is forgotten");
    append(&sink);
    assert!(is_data(&rig.hears(), 2));
    rig.streams.release(fh);
    assert_eq!(rig.streams.waiting.lock().len(), 0);
}

#[test]
fn who_appends_tells_a_poller_by_itself() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    rig.streams.poll(1, fh, Some(77));
    assert!(matches!(rig.hears(), Said::Data(1, _)));
    thread::scope(|scope| {
        let (open, waiting) = (rig.streams.open.lock(), rig.streams.waiting.lock());
        // The pump cannot: it waits for these.
        scope.spawn(|| append(&sink));
        assert_eq!(rig.hears(), Said::Notified(77));
        drop((open, waiting));
    });
    append(&sink);
    rig.is_silent();
}

#[test]
fn a_poller_hears_of_every_edge() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    let revents = |bits: i32| [(bits as u32).to_ne_bytes(), [0; 4]].concat();
    rig.streams.poll(1, fh, Some(77));
    assert_eq!(rig.hears(), Said::Data(1, revents(0)));
    for unique in 2..5 {
        append(&sink);
        assert_eq!(rig.hears(), Said::Notified(77), "asked for once, told each time");
        rig.read(unique, fh, NONBLOCK);
        assert!(is_data(&rig.hears(), unique));
    }
    append(&sink);
    assert_eq!(rig.hears(), Said::Notified(77));
    rig.streams.poll(9, fh, None);
    assert_eq!(rig.hears(), Said::Data(9, revents((READABLE) as i32)));
    rig.read(10, fh, NONBLOCK);
    assert!(is_data(&rig.hears(), 10));
    proc.set_trace(None);
    assert_eq!(rig.hears(), Said::Notified(77), "the end is an edge too");
    rig.read(12, fh, NONBLOCK);
    assert!(is_data(&rig.hears(), 12), "the stream's last word");
    assert_eq!(rig.hears(), Said::Notified(77), "and what is behind it");
    rig.streams.poll(11, fh, None);
    assert_eq!(rig.hears(), Said::Data(11, revents((READABLE | HANGUP) as i32)));
}

#[test]
fn the_death_of_an_untraced_process_ends_a_wait_for_its_sink() {
    let rig = Rig::new();
    let mut child = child();
    let proc = rig.procs.entry(ProcId::of(child.id() as i32).unwrap());
    let (fh, polled) = (rig.open(&proc), rig.open(&proc));
    rig.read(1, fh, !NONBLOCK);
    rig.streams.poll(2, polled, Some(5));
    assert!(matches!(rig.hears(), Said::Data(2, _)));
    rig.is_silent();
    child.kill().unwrap();
    let mut said = [rig.hears(), rig.hears()];
    said.sort_by_key(|said| matches!(said, Said::Notified(_)));
    assert_eq!(said, [Said::Data(1, vec![]), Said::Notified(5)]);
    child.wait().unwrap();
    let late = rig.open(&proc);
    rig.read(3, late, !NONBLOCK);
    assert_eq!(rig.hears(), Said::Data(3, vec![]), "it was dead before it was opened");
}

#[test]
fn a_process_with_the_number_of_the_dead_one_is_not_waited_for() {
    let rig = Rig::new();
    let now = ProcId::of(std::process::id() as i32).unwrap();
    let proc = rig.procs.entry(ProcId { start: now.start ^ 1, inode: now.inode ^ 1, ..now });
    let fh = rig.open(&proc);
    rig.read(1, fh, !NONBLOCK);
    assert_eq!(rig.hears(), Said::Data(1, vec![]));
}

#[test]
fn closing_gives_everybody_eof() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let (waiting, with_sink) = (rig.open(&proc), rig.open(&proc));
    rig.read(1, waiting, !NONBLOCK);
    rig.streams.close();
    assert_eq!(rig.hears(), Said::Data(1, vec![]));
    rig.read(2, with_sink, !NONBLOCK);
    assert_eq!(rig.hears(), Said::Data(2, vec![]));
    rig.streams.release(waiting);
    rig.streams.release(with_sink);
    assert_eq!(rig.streams.count(), 0);
    rig.read(3, waiting, !NONBLOCK);
    assert_eq!(rig.hears(), Said::Failed(3, libc::EBADF));
}

#[test]
fn a_reader_that_waits_for_each_record_gets_each_however_fast_they_come() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    for unique in 1..=64 {
        rig.read(unique, fh, !NONBLOCK);
        append(&sink);
        assert!(is_data(&rig.hears(), unique));
    }
}

#[test]
fn a_reader_that_always_finds_something_is_held_back_until_it_is_worth_it() {
    let rig = Rig::new();
    let proc = rig.ourselves();
    let sink = traced(&proc);
    let fh = rig.open(&proc);
    let mut unique = 0;
    // As many as there are before it must wait, whatever the time between.
    let mut ask = || {
        unique += 1;
        append(&sink);
        rig.read(unique, fh, !NONBLOCK);
        rig.hears_within(0).is_none().then_some(unique)
    };
    let held = (0..10_000).find_map(|_| ask()).expect("no reader is answered as often as it can ask");
    let enough = Allowance::enough(sink.size());
    for _ in 0..enough / 56 {
        append(&sink);
    }
    assert!(is_data(&rig.hears(), held));
}
