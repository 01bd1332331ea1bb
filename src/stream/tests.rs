//! An open before the first sink, and whose sinks one may open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::facility::Facs;
use crate::policy::Policy;
use crate::proc::{ProcId, ProcTable, Trace};
use crate::sink::{Budget, SIZE_MIN, Sink};

const OWNER: u32 = 7;

fn trace() -> Arc<Trace> {
    let sink = Sink::new(SIZE_MIN, Policy::Stop, OWNER, &Budget::new(1 << 20), None).unwrap();
    let writer = sink.writer();
    Arc::new(Trace {
        facs: Facs::all(),
        inherit: false,
        root: false,
        seccomp: false,
        calls: None,
        backend: "fake",
        writer,
    })
}

fn proc() -> (ProcTable, Arc<Proc>) {
    let procs = ProcTable::new(Duration::from_secs(60));
    let proc = procs.entry(ProcId::of(std::process::id() as i32).unwrap());
    (procs, proc)
}

fn counter() -> (Arc<AtomicUsize>, Waker) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let waker = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    (calls, waker)
}

#[test]
fn an_open_waits_and_is_bound_to_the_first_sink() {
    let (_procs, proc) = proc();
    let mut file = TraceFile::open(&proc, OWNER).unwrap();
    assert!(file.waits_for().is_some());
    assert_eq!((file.ready(), file.read(9, 1, &mut Vec::new())), ((false, false), Ok(Read::Empty)));
    let (calls, waker) = counter();
    assert!(file.arm(waker.clone(), 1));
    let (first, second) = (trace(), trace());
    proc.set_trace(Some(Arc::clone(&first)));
    assert!(file.waits_for().is_some(), "what is not in force binds nobody");
    proc.bind();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(file.arm(waker, 1), "bound, and nothing to read yet");
    assert!(file.waits_for().is_none());
    proc.set_trace(Some(second));
    proc.bind();
    drop(first);
    assert_eq!(file.ready(), (false, true), "the first sink has ended, the second is another file");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(file.read(9, 1, &mut Vec::new()), Ok(Read::Eof));
}

#[test]
fn a_sink_belongs_to_its_maker_and_root() {
    let (_procs, proc) = proc();
    let mut waiting = TraceFile::open(&proc, OWNER + 1).unwrap();
    proc.set_trace(Some(trace()));
    proc.bind();
    assert_eq!(TraceFile::open(&proc, OWNER + 1).unwrap_err().errno(), libc::EACCES);
    assert!(TraceFile::open(&proc, OWNER).is_ok() && TraceFile::open(&proc, 0).is_ok());
    assert_eq!(waiting.ready(), (true, false), "an error is there to be read");
    assert_eq!(waiting.read(9, 1, &mut Vec::new()).unwrap_err().errno(), libc::EACCES);
    assert!(!waiting.arm(counter().1, 1));
}

#[test]
fn the_death_of_an_untraced_process_is_the_end() {
    let (procs, proc) = proc();
    let mut file = TraceFile::open(&proc, OWNER).unwrap();
    let (calls, waker) = counter();
    assert!(file.arm(waker, 1));
    procs.exit(&proc);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(file.read(9, 1, &mut Vec::new()), Ok(Read::Eof));
    assert_eq!(file.ready(), (false, true));
    let mut late = TraceFile::open(&proc, OWNER).unwrap();
    assert_eq!(late.read(9, 1, &mut Vec::new()), Ok(Read::Eof));
}
