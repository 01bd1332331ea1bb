use ktrace::{backend::Backend, facility::Facs, policy::Policy, proc::*, ptrace::Ptrace, record::*, sink::*};
use std::{sync::Arc, time::{Duration, Instant}};
fn main() {
    let pid: i32 = std::env::args().nth(1).unwrap().parse().unwrap();
    let secs: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let facs = match std::env::args().nth(3) { Some(s) => Facs::empty().with_letters(&s).unwrap(), None => Facs::DEFAULT };
    let procs = Arc::new(ProcTable::new(Duration::from_secs(5)));
    let b = Ptrace::new(procs.clone());
    let budget = Budget::new(1 << 28);
    let sink = Sink::new(4 << 20, Policy::Stop, 0, &budget, None).unwrap();
    let mut r = sink.reader();
    let id = ProcId::of(pid).unwrap();
    let proc = procs.entry(id);
    let t = Arc::new(Trace { facs, inherit: true, root: true, calls: None, backend: "ptrace", writer: sink.writer() });
    proc.set_trace(Some(t.clone()));
    let t0 = Instant::now();
    let f = b.apply(&proc, Some(t), Instant::now() + Duration::from_secs(1));
    eprintln!("apply {f:?} {:?}", t0.elapsed());
    let end = Instant::now() + Duration::from_secs(secs);
    let mut dec = Decoder::new();
    let mut n = 0;
    let quiet = std::env::args().nth(4).is_some();
    while Instant::now() < end {
        let mut out = vec![];
        match r.read(65536, 1, &mut out) {
            Read::Data => { dec.feed(&out); while let Some(rec) = dec.next_record().unwrap() { n += 1; if !quiet { println!("{} {:?} {:?}", rec.header.stamp.tid, rec.header.stamp.comm, rec.body()); } } }
            Read::Empty => std::thread::sleep(Duration::from_millis(5)),
            Read::Eof => { println!("EOF"); break }
        }
    }
    let t0 = Instant::now();
    proc.set_trace(None);
    let f = b.apply(&proc, None, Instant::now() + Duration::from_secs(1));
    eprintln!("clear {f:?} {:?} records {n} costs {:?}", t0.elapsed(), b.costs(None));
}
