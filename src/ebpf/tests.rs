use std::process::{Child, Command};
use std::sync::mpsc::channel;

use super::event::{Event, Head};
use super::observe::Watched;
use super::*;
use crate::proc::ProcId;
use crate::record::Comm;
use crate::sink::{Budget, Held, Sink, Waker};
use crate::syscall::Abi;

/// How long a waker may wait for a lock that nobody holds for long.
const DEADLINE: Duration = Duration::from_secs(10);

/// What could be made; `None`, visibly, where there is no eBPF and it may be missing.
pub(super) fn where_there_is<T>(made: std::result::Result<T, String>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(why) if std::env::var("KTRACE_TEST_REQUIRE").is_ok_and(|all| all.contains("ebpf")) => {
            panic!("{why}")
        }
        Err(why) => {
            eprintln!("skipped, ebpf is not there: {why}");
            None
        }
    }
}

struct Asleep(Child);

impl Drop for Asleep {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nobody_waits_for_the_answer_to_a_reader() {
    let procs = Arc::new(ProcTable::new(DEADLINE));
    let Some(ebpf) = where_there_is(Ebpf::new(Arc::clone(&procs))) else { return };
    let budget = Budget::new(64 << 20);
    let sink = Sink::new(1 << 20, Policy::Drop, 0, &budget, None).unwrap();
    let asleep = Asleep(Command::new("sleep").arg("1000").spawn().unwrap());
    let proc = procs.entry(ProcId::of(asleep.0.id() as i32).unwrap());
    let mut reader = sink.reader();
    let (said, hears) = channel();
    let shared = Arc::clone(&ebpf.shared);
    let waker: Waker = Arc::new(move |held| {
        // By its own thread's lock it would be kept waiting in vain.
        let free = held == Held::Locks || shared.drain.try_lock_for(DEADLINE).is_some();
        said.send((thread::current().name().map(str::to_owned), held, free)).unwrap();
    });
    let mut woken = |by: &mut dyn FnMut()| {
        while reader.read(usize::MAX, 1, &mut Vec::new()) == crate::sink::Read::Data {}
        assert!(reader.arm(Arc::clone(&waker), 1));
        by();
        hears.recv_timeout(2 * DEADLINE).unwrap()
    };
    let trace = |facs| Trace {
        facs,
        inherit: false,
        root: true,
        seccomp: false,
        calls: None,
        backend: NAME,
        writer: sink.writer(),
    };
    // The thread that sets writes its first record...
    let set = &mut || {
        let trace = Arc::new(trace(Facs::EMUL | Facs::PSIG));
        assert!(proc.swap_trace(None, Some(Arc::clone(&trace))));
        ebpf.apply(&proc, Some(trace), Instant::now()).unwrap();
    };
    let own = thread::current().name().map(str::to_owned);
    assert_eq!(woken(set), (own, Held::Nothing, true));
    // ... and the one that reads the rings what happens.
    let signal = &mut || {
        let pid = nix::unistd::Pid::from_raw(proc.id.pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    };
    assert_eq!(woken(signal), (Some("ebpf".to_owned()), Held::Nothing, true));
    ebpf.shutdown(Instant::now());
}

#[test]
fn what_a_preempted_program_tells_is_not_before_the_switches_of_its_thread() {
    let budget = Budget::new(64 << 20);
    let sink = Sink::new(1 << 20, Policy::Drop, 0, &budget, None).unwrap();
    let facs = Facs::CSW | Facs::EMUL;
    let (writer, backend) = (sink.writer(), NAME);
    let trace = Trace { facs, inherit: false, root: true, seccomp: false, calls: None, backend, writer };
    let mut watched = Watched::new(Arc::new(trace), Abi::Linux);
    let mut time = |tid, ktime, event: &Event<'_>| {
        let head = Head { abi: Abi::Linux, flag: 0, pid: 1, tid, word: 0, ktime, comm: Comm::new(b"sh") };
        watched.time_of(&head, event)
    };
    let csw = Event::Csw { out: false, user: true };
    assert_eq!(time(1, 20, &csw), 20);
    assert_eq!(time(1, 10, &Event::Exec), 20);
    assert_eq!(time(1, 30, &Event::Exec), 30);
    // What others do says nothing of it.
    assert_eq!(time(2, 10, &Event::Exec), 10);
}
