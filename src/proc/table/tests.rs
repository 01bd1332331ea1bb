//! What the table keeps, and for how long.

use super::*;
use crate::facility::Facs;
use crate::policy::Policy;
use crate::record::{self, Body, Stamp};
use crate::sink::{Budget, Read, SIZE_MIN};

const LONG: Duration = Duration::from_secs(3600);

fn trace(inherit: bool) -> Arc<Trace> {
    let sink = Sink::new(SIZE_MIN, Policy::Stop, 0, &Budget::new(1 << 20), None).unwrap();
    let writer = sink.writer();
    Arc::new(Trace {
        facs: Facs::all(),
        inherit,
        root: true,
        seccomp: false,
        calls: None,
        backend: "fake",
        writer,
    })
}

fn write(sink: &Sink) {
    let mut record = Vec::new();
    record::encode(&mut record, &Stamp::default(), &Body::Namei(b"path"));
    sink.append(&record, &Stamp::default(), Abi::Linux);
}

fn us() -> ProcId {
    ProcId::of(std::process::id() as i32).unwrap()
}

/// A process that is no more.
const GONE: ProcId = ProcId { pid: i32::MAX, start: 1, inode: 0 };

fn holds(procs: &ProcTable, id: ProcId) -> bool {
    procs.sweep();
    procs.get(id).is_some()
}

#[test]
fn an_entry_stays_while_there_is_a_reason() {
    let procs = ProcTable::new(LONG);
    let proc = procs.entry(us());
    assert!(holds(&procs, us()), "somebody has it in hand");
    let binding = proc.wait_for_sink();
    drop(proc);
    assert!(holds(&procs, us()), "an open waits for its first sink");
    drop(binding);
    assert!(!holds(&procs, us()));
    procs.entry(us()).set_trace(Some(trace(false)));
    assert!(holds(&procs, us()), "it is traced");
    procs.entry(us()).set_trace(None);
    assert!(!holds(&procs, us()), "an ended sink without a record is nothing to keep");
}

#[test]
fn an_ended_sink_stays_until_a_reader_came_to_its_end_and_closed() {
    let procs = ProcTable::new(LONG);
    let t = trace(false);
    let sink = Arc::clone(t.sink());
    write(&sink);
    procs.entry(GONE).set_trace(Some(t));
    procs.exit(&procs.get(GONE).unwrap());
    assert!(holds(&procs, GONE));
    let mut out = Vec::new();
    let mut first = sink.reader();
    first.read(1 << 10, 1, &mut out);
    drop(first);
    assert!(holds(&procs, GONE), "it did not come to the end");
    let mut second = sink.reader();
    while second.read(1 << 10, 1, &mut out) != Read::Eof {}
    assert!(holds(&procs, GONE), "it did not close");
    drop(second);
    assert!(!holds(&procs, GONE));
}

#[test]
fn an_ended_sink_stays_no_longer_than_linger() {
    let procs = ProcTable::new(Duration::ZERO);
    let t = trace(false);
    let child = t.sink().writer();
    write(t.sink());
    procs.entry(GONE).set_trace(Some(t));
    procs.exit(&procs.get(GONE).unwrap());
    assert!(holds(&procs, GONE), "another process writes to it: it is not over, whatever the clock says");
    drop(child);
    let by = Instant::now() + Duration::from_secs(30);
    while holds(&procs, GONE) {
        assert!(Instant::now() < by);
    }
}

#[test]
fn a_sink_that_its_readers_left_is_gone_at_once() {
    let procs = ProcTable::new(LONG);
    let t = trace(false);
    let sink = Arc::clone(t.sink());
    let proc = procs.entry(us());
    proc.set_trace(Some(t));
    write(&sink);
    let mut reader = sink.reader();
    reader.read(9, 1, &mut Vec::new());
    drop(reader);
    assert!(proc.sink().is_some());
    write(&sink);
    assert_eq!(sink.end(), Some(End::GaveUp(libc::EPIPE)));
    assert!(proc.sink().is_none(), "an open waits for the next sink");
    proc.set_trace(None);
    drop(proc);
    assert!(!holds(&procs, us()));
}

#[test]
fn a_used_number_does_not_bring_back_the_process_before() {
    let procs = ProcTable::new(LONG);
    let older = ProcId { start: us().start ^ 1, inode: us().inode ^ 1, ..us() };
    let proc = procs.entry(older);
    let t = trace(false);
    let sink = Arc::clone(t.sink());
    proc.set_trace(Some(t));
    let binding = proc.wait_for_sink();
    procs.entry(us());
    assert!(procs.get(older).is_none() && proc.trace().is_none());
    assert_eq!(sink.end(), Some(End::Finished));
    assert!(matches!(binding.get(), Bound::Never));
}

#[test]
fn only_what_is_still_so_is_swapped_and_a_revert_leaves_no_trace() {
    let procs = ProcTable::new(LONG);
    let proc = procs.entry(us());
    let (a, b) = (trace(false), trace(false));
    assert!(!proc.swap_trace(Some(&a), Some(Arc::clone(&b))));
    assert!(proc.swap_trace(None, Some(Arc::clone(&a))));
    assert!(!proc.swap_trace(None, Some(Arc::clone(&b))));
    let binding = proc.wait_for_sink();
    proc.revert_trace(&b, None);
    assert!(proc.trace().is_some(), "that was not it");
    proc.revert_trace(&a, None);
    assert!(proc.sink().is_none(), "nothing is left to read of what never was");
    assert!(matches!(binding.get(), Bound::Waiting));
    procs.exit(&proc);
    assert!(!proc.swap_trace(None, Some(b)), "the dead are not traced");
}

#[test]
fn a_child_has_the_parents_flags_and_file_only_with_inherit() {
    let procs = ProcTable::new(LONG);
    let parent = procs.entry(GONE);
    assert!(procs.fork(&parent, us()).is_none(), "an untraced parent");
    parent.set_trace(Some(trace(false)));
    assert!(procs.fork(&parent, us()).is_none());
    let t = trace(true);
    parent.set_trace(Some(Arc::clone(&t)));
    parent.set_abi(Abi::Linux32);
    let waiting = procs.entry(us()).wait_for_sink();
    let (child, inherited) = procs.fork(&parent, us()).unwrap();
    assert_eq!((child.id, child.abi()), (us(), Abi::Linux32));
    assert_eq!((inherited.facs, inherited.inherit, inherited.root), (t.facs, true, true));
    assert!(matches!(waiting.get(), Bound::To(sink) if Arc::ptr_eq(&sink, t.sink())));
    drop((t, inherited));
    procs.exit(&parent);
    assert_eq!(child.trace().unwrap().sink().end(), None, "R20: one more reference");
    procs.exit(&child);
    assert_eq!(child.sink().unwrap().end(), Some(End::Finished));
    assert!(procs.fork(&parent, us()).is_none(), "a dead parent");
}

#[test]
fn a_late_birth_takes_its_number_from_nobody_who_has_it_now() {
    let procs = ProcTable::new(LONG);
    let gone = ProcId { inode: us().inode + 1, start: us().start + 1, ..us() };
    let proc = procs.entry(us());
    assert!(procs.newborn(gone).is_none());
    assert!(proc.died().is_none() && procs.get(us()).is_some());
    // And the other way round: who has it now was born, and nobody has noticed the end of the other.
    let other = procs.entry(gone);
    assert!(procs.newborn(us()).is_some_and(|proc| proc.id == us()));
    assert!(other.died().is_some());
    procs.entry(gone).die();
    assert!(procs.newborn(GONE).is_some(), "who may be gone has an entry where nobody else has its number");
}
