use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollTimeout};
use parking_lot::MutexGuard;

use super::*;
use crate::backend::Backend;
use crate::ebpf::tests::where_there_is;
use crate::ebpf::{self, Ebpf};
use crate::policy::Policy;
use crate::sink::{Allowance, Budget, Kept, Read};

const DEADLINE: Duration = Duration::from_secs(10);

struct Traced {
    ebpf: Arc<Ebpf>,
    child: Child,
    sink: Arc<Sink>,
}

impl Traced {
    /// A shell that runs this, and whose calls are traced; `None` where there is no eBPF.
    fn new(runs: &str) -> Option<Traced> {
        Traced::limited(runs, Facs::SYSCALL | Facs::SYSRET, Limits::get())
    }

    /// The same, of which this is traced.
    fn limited(runs: &str, facs: Facs, limits: Limits) -> Option<Traced> {
        let procs = Arc::new(ProcTable::new(DEADLINE));
        let ebpf = where_there_is(Ebpf::limited(Arc::clone(&procs), limits))?;
        let budget = Budget::new(64 << 20);
        let sink = Sink::new(4 << 20, Policy::Drop, 0, &budget, None).unwrap();
        let mut shell = Command::new("sh");
        let child = shell.args(["-c", runs]).stdin(Stdio::piped()).spawn().unwrap();
        let proc = procs.entry(ProcId::of(child.id() as i32).unwrap());
        let trace = Arc::new(Trace {
            facs,
            inherit: true,
            root: true,
            seccomp: false,
            calls: None,
            backend: ebpf::NAME,
            writer: sink.writer(),
        });
        assert!(proc.swap_trace(None, Some(Arc::clone(&trace))));
        ebpf.apply(&proc, Some(trace), Instant::now()).unwrap();
        Some(Traced { ebpf, child, sink })
    }

    /// While this is there the thread of the backend reads nothing.
    fn lock(&self) -> MutexGuard<'_, Drain> {
        let drain = self.ebpf.shared.drain.lock();
        // It may not have heard yet that there is something new to be read.
        let _ = self.ebpf.shared.bell.read();
        drain
    }

    /// Has the shell go on from where it reads a line.
    fn go_on(&self) {
        self.child.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
    }

    /// The same, and waits until it is back in the next call, which makes no event until that ends.
    fn turn(&self, drain: &Drain) {
        let before = produced(drain);
        self.go_on();
        until("nothing comes", || produced(drain) > before && self.reads());
    }

    /// It waits in read(2) for a line.
    fn reads(&self) -> bool {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", self.child.id()));
        call.is_ok_and(|call| call.starts_with("0 0x0 "))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.ebpf.shutdown(Instant::now());
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let by = Instant::now() + DEADLINE;
    while !is() {
        assert!(Instant::now() < by, "{what}");
        std::thread::yield_now();
    }
}

/// True where somebody is woken for what is in a ring.
fn wakes(drain: &Drain, most: Duration) -> bool {
    let timeout = EpollTimeout::try_from(most).unwrap();
    drain.epoll.wait(&mut [EpollEvent::empty()], timeout).unwrap() > 0
}

/// Bytes that were ever written into the rings.
fn produced(drain: &Drain) -> u64 {
    drain.slots.iter().flatten().flat_map(Slot::produced).sum()
}

/// Reads all there is, until nobody is woken any more.
fn read_all(drain: &mut Drain) {
    until("it never ends", || {
        while drain.pass().events > 0 || !drain.listen() {}
        !wakes(drain, Duration::ZERO)
    });
}

#[test]
fn who_comes_by_itself_is_woken_for_nothing_and_who_waits_is_woken() {
    let Some(traced) = Traced::new("while read line; do :; done") else { return };
    let mut drain = traced.lock();
    until("it does not read", || traced.reads());
    traced.turn(&drain);
    read_all(&mut drain);
    drain.hush();
    traced.turn(&drain);
    assert!(!wakes(&drain, Duration::ZERO), "an event has woken who comes by itself");
    while drain.pass().events > 0 {}
    traced.turn(&drain);
    assert!(!wakes(&drain, Duration::ZERO), "who comes by itself was told of");
    assert!(!drain.listen(), "for what is there nobody is woken: it is to be read");
    read_all(&mut drain);
    assert!(drain.listen());
    traced.turn(&drain);
    assert!(wakes(&drain, DEADLINE), "an event has not woken who waits for it");
}

#[test]
fn who_waits_behind_a_child_that_is_not_told_of_is_woken() {
    // There is room for the shell, and not for its children.
    let mut limits = Limits::get();
    limits.procs = 2;
    let shell = "while read line; do (:); done";
    let Some(traced) = Traced::limited(shell, Facs::EXEC_ARG, limits) else { return };
    let mut drain = traced.lock();
    until("it does not read", || traced.reads());
    read_all(&mut drain);
    drain.hush();
    traced.turn(&drain);
    assert_eq!(drain.pass().events, 0, "a child is told of");
    traced.turn(&drain);
    assert!(drain.listen(), "there is nothing to be read");
    traced.turn(&drain);
    assert!(wakes(&drain, DEADLINE), "an event has not woken who waits for it");
}

#[test]
fn a_reader_is_woken_for_what_a_beat_brings_and_not_for_a_step_of_it() {
    let Some(traced) = Traced::new("read line; while :; do kill -0 $$; done") else { return };
    let kept = Kept::begin();
    let mut drain = traced.lock();
    let mut reader = traced.sink.reader();
    while reader.read(usize::MAX, 1, &mut Vec::new()) == Read::Data {}
    read_all(&mut drain);
    while reader.read(usize::MAX, 1, &mut Vec::new()) == Read::Data {}
    assert!(reader.arm(Arc::new(|_| {}), 1));
    let begun = produced(&drain);
    traced.go_on();
    let many = 1000;
    until("it does not go on", || produced(&drain) - begun > many * 56);
    let pass = drain.pass();
    assert!(!pass.is_last && Kept::any(), "nobody is to be woken: {pass:?}");
    assert!(pass.events > many as usize / 2, "{pass:?}");
    // Much that waits is worth an answer at once.
    let enough = Allowance::enough(traced.sink.attainable()) as u64;
    until("it does not fill the rings", || produced(&drain) - begun > 2 * enough);
    let mut pass = drain.pass();
    until("the turn does not come", || {
        pass = if pass.events == 0 { drain.pass() } else { pass };
        pass.events > 0
    });
    assert!(!pass.is_last && (traced.sink.waiting() as u64) < 2 * enough, "{pass:?}");
    drop(drain);
    drop(kept);
}
