//! The hooks: which events become records, and what a full or ended sink means.

use super::*;
use crate::proc::ProcId;
use crate::record::{Args, Comm, Decoder, Time};
use crate::sink::{Budget, End, Read, Reader, SIZE_MIN};

/// A process that is always there.
const PID: i32 = 1;

fn trace(facs: Facs, policy: Policy, root: bool, owner: u32) -> Trace {
    let sink = Sink::new(SIZE_MIN, policy, owner, &Budget::new(1 << 20), None).unwrap();
    Trace { facs, inherit: false, root, seccomp: false, calls: None, backend: "fake", writer: sink.writer() }
}

fn stamp() -> Stamp {
    Stamp { time: Time { sec: 1, nsec: 2 }, pid: PID, tid: PID, comm: Comm::new(b"name") }
}

fn recorder() -> Recorder {
    Recorder::new(Arc::new(ProcTable::new(Duration::ZERO)))
}

fn read(reader: &mut Reader) -> Vec<u8> {
    let mut out = Vec::new();
    while reader.read(1 << 20, 1, &mut out) == Read::Data {}
    out
}

/// Every record after the introduction, in words.
fn seen(trace: &Trace) -> Vec<String> {
    let bytes = read(&mut trace.sink().reader());
    let mut decoder = Decoder::new();
    decoder.feed(&bytes);
    let mut words = Vec::new();
    while let Some(rec) = decoder.next_record().unwrap() {
        assert_eq!(rec.header.stamp, stamp(), "R1: the event's own stamp");
        words.push(format!("{:?}", rec.body()));
    }
    words.split_off(1.min(words.len()))
}

/// One of each, and the facility it needs.
fn each(recorder: &mut Recorder, at: At<'_>) {
    recorder.syscall(at, 1, Args::Words(&[2, 3]));
    recorder.sysret(at, 1, 4);
    recorder.namei(at, b"path");
    recorder.genio(at, 5, true, b"data");
    recorder.psig(at, Psig { signo: 6, action: 7, mask: [8, 0, 0, 0], code: 9, info: None });
    recorder.csw(at, true, false);
    recorder.user(at, b"id", b"text");
    recorder.exec_arg(at, b"arg");
    recorder.exec_env(at, b"env");
    recorder.exec_fd(at, 10, 1);
}

#[test]
fn an_event_whose_facility_is_off_makes_nothing() {
    let facs = [
        Facs::SYSCALL,
        Facs::SYSRET,
        Facs::NAMEI,
        Facs::GENIO,
        Facs::PSIG,
        Facs::CSW,
        Facs::USER,
        Facs::EXEC_ARG,
        Facs::EXEC_ENV,
        Facs::EXEC_FD,
    ];
    let all = trace(Facs::all(), Policy::Stop, false, 0);
    let stamp = stamp();
    each(&mut recorder(), At { trace: &all, stamp: &stamp, abi: Abi::Linux });
    let all = seen(&all);
    assert_eq!(all.len(), facs.len());
    for (fac, record) in facs.into_iter().zip(all) {
        let one = trace(fac, Policy::Stop, false, 0);
        each(&mut recorder(), At { trace: &one, stamp: &stamp, abi: Abi::Linux });
        assert_eq!(seen(&one), [record], "{fac}");
    }
    let none = trace(Facs::empty(), Policy::Stop, false, 0);
    each(&mut recorder(), At { trace: &none, stamp: &stamp, abi: Abi::Linux });
    assert_eq!(seen(&none), [""; 0]);
}

#[test]
fn r02_a_call_has_its_code_and_exactly_its_arguments() {
    let t = trace(Facs::all(), Policy::Stop, false, 0);
    let (stamp, mut r) = (stamp(), recorder());
    let at = At { trace: &t, stamp: &stamp, abi: Abi::Linux };
    let mut expected = Vec::new();
    for count in 0..=6 {
        let args: Vec<u64> = (0..count).map(|n| u64::MAX - n).collect();
        r.syscall(at, 257, Args::Words(&args));
        let bytes: Vec<u8> = args.iter().flat_map(|a| a.to_le_bytes()).collect();
        expected.push(format!("{:?}", Body::Syscall { code: 257, args: Args::Bytes(&bytes) }));
    }
    assert_eq!(seen(&t), expected);
}

#[test]
fn r03_a_return_has_code_error_and_value_and_a_failed_one_no_value() {
    let t = trace(Facs::all(), Policy::Stop, false, 0);
    let (stamp, mut r) = (stamp(), recorder());
    let at = At { trace: &t, stamp: &stamp, abi: Abi::Linux };
    for result in [-2, -4095, -4096, -514, 7, i64::MIN] {
        r.sysret(at, 257, result);
    }
    let ret = |error, retval| format!("{:?}", Body::Sysret { code: 257, error, retval, retval_1: 0 });
    let expected = [ret(-2, 0), ret(-4095, 0), ret(0, -4096), ret(-514, 0), ret(0, 7), ret(0, i64::MIN)];
    assert_eq!(seen(&t), expected);
}

#[test]
fn r05_emul_carries_the_name_of_the_abi() {
    let t = trace(Facs::EMUL, Policy::Stop, false, 0);
    let (stamp, mut r) = (stamp(), recorder());
    for abi in Abi::ALL {
        r.emul(At { trace: &t, stamp: &stamp, abi });
    }
    let bytes = read(&mut t.sink().reader());
    let mut decoder = Decoder::new();
    decoder.feed(&bytes);
    let mut names = Vec::new();
    while let Some(rec) = decoder.next_record().unwrap() {
        if let Body::Emul(name) = rec.body() {
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    assert_eq!(names, ["linux", "linux32", "linuxx32"]);
}

#[test]
fn a_user_id_that_fills_its_field_becomes_empty() {
    let t = trace(Facs::USER, Policy::Stop, false, 0);
    let (stamp, mut r) = (stamp(), recorder());
    let at = At { trace: &t, stamp: &stamp, abi: Abi::Linux };
    r.user(at, &[b'x'; 19], b"");
    r.user(at, &[b'x'; 20], b"kept");
    let bytes = read(&mut t.sink().reader());
    let mut decoder = Decoder::new();
    decoder.feed(&bytes);
    let mut users = Vec::new();
    while let Some(rec) = decoder.next_record().unwrap() {
        if let Body::User { id, data } = rec.body() {
            users.push((record::until_nul(id).to_vec(), data.to_vec()));
        }
    }
    assert_eq!(users, [(vec![b'x'; 19], vec![]), (vec![], b"kept".to_vec())]);
}

fn full(policy: Policy) -> (Trace, Recorder) {
    let (t, mut r) = (trace(Facs::all(), policy, true, 0), recorder());
    let stamp = stamp();
    let at = At { trace: &t, stamp: &stamp, abi: Abi::Linux };
    // As many as fit: a sink of the same size under policy drop knows the number.
    let drop = trace(Facs::all(), Policy::Drop, false, 0);
    while r.genio(At { trace: &drop, ..at }, 1, false, &[0; 1000]) {
        assert!(r.genio(at, 1, false, &[0; 1000]));
    }
    assert_eq!(t.sink().end(), None);
    (t, r)
}

#[test]
fn r29_a_full_file_is_tried_three_times_and_given_up_without_waiting() {
    let (t, mut r) = full(Policy::Stop);
    let stamp = stamp();
    let at = At { trace: &t, stamp: &stamp, abi: Abi::Linux };
    let began = Instant::now();
    assert!(!r.genio(at, 1, false, &[0; 1000]), "R6: the remaining chunks are not wanted");
    assert!(began.elapsed() < BLOCK_MAX, "R29: it never waits");
    assert_eq!(t.sink().end(), Some(End::GaveUp(libc::EAGAIN)), "R30: ROOT or not");
    r.namei(at, b"nothing is recorded any more");
    let seen = seen(&t);
    assert!(seen.iter().all(|w| !w.starts_with("Namei")));
    assert_eq!(
        seen.iter().filter(|w| w.starts_with("User")).count(),
        2,
        "the last record says so, before the end"
    );
}

#[test]
fn policy_block_waits_until_a_reader_has_made_room() {
    let (t, mut r) = full(Policy::Block);
    let mut reader = t.sink().reader();
    let sink = Arc::clone(t.sink());
    let writing = thread::spawn(move || {
        let stamp = stamp();
        let at = At { trace: &t, stamp: &stamp, abi: Abi::Linux };
        let whole = r.genio(at, 1, false, &[0; 1000]);
        (whole, t)
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(100) {
        assert!(!writing.is_finished(), "it did not wait");
        thread::yield_now();
    }
    let by = Instant::now() + Duration::from_secs(30);
    let mut got = 0;
    while !writing.is_finished() {
        assert!(Instant::now() < by, "it waits on though there is room");
        got += read(&mut reader).len();
        thread::yield_now();
    }
    let (whole, _t) = writing.join().unwrap();
    got += read(&mut reader).len();
    assert!(whole && got > SIZE_MIN / 2, "{got}");
    assert_eq!(sink.counts().lost, 0);
}

#[test]
fn policy_block_never_waits_for_a_reader_that_is_traced_itself() {
    let (t, mut r) = full(Policy::Block);
    // The reader is this process, and it is traced.
    let us = ProcId::of(std::process::id() as i32).unwrap();
    let other = trace(Facs::all(), Policy::Drop, false, 0);
    r.procs.entry(us).set_trace(Some(Arc::new(other)));
    let mut reader = t.sink().reader();
    let mut out = Vec::new();
    reader.read(1, us.pid, &mut out);
    let stamp = stamp();
    let began = Instant::now();
    // What the reader has taken makes room for some; then it is full again.
    while r.genio(At { trace: &t, stamp: &stamp, abi: Abi::Linux }, 1, false, &[0; 1000]) {}
    assert!(began.elapsed() < BLOCK_MAX, "that would be a deadlock");
    assert_eq!(t.sink().counts().lost, 1);
    assert_eq!(t.sink().end(), None);
}

#[test]
fn r23_a_set_id_exec_ends_tracing_unless_flag_and_file_are_roots() {
    let procs = ProcTable::new(Duration::ZERO);
    let proc = procs.entry(ProcId { pid: PID, start: 1, inode: 0 });
    for (secure, root, owner, kept) in [
        (false, false, 7, true),
        (true, false, 7, false),
        (true, false, 0, false),
        (true, true, 0, true),
        (true, true, 7, false),
    ] {
        let t = trace(Facs::all(), Policy::Stop, root, owner);
        assert_eq!(exec(&proc, &t, secure), kept, "{secure} {root} {owner}");
    }
}

#[test]
fn records_that_wait_for_others_are_those_that_do_not() {
    let stamp = stamp();
    for policy in [Policy::Stop, Policy::Drop, Policy::Overwrite] {
        for count in [0, 1, 5, 100, 300] {
            let streams = [false, true].map(|gathers| {
                let (t, mut r) = (trace(Facs::all(), policy, false, 0), recorder());
                let at = At { trace: &t, stamp: &stamp, abi: Abi::Linux };
                if gathers {
                    r.gather();
                }
                for n in 0..count {
                    r.syscall(at, n, Args::Words(&[1, 2]));
                    r.sysret(at, n, 3);
                }
                r.flush();
                (t.sink().counts().lost, t.sink().end(), seen(&t))
            });
            assert_eq!(streams[0].0, streams[1].0, "{policy}, {count}");
            assert_eq!(streams[0].1, streams[1].1, "{policy}, {count}");
            let [(.., alone), (.., together)] = &streams;
            match policy {
                // Some more may have gone with those that had to; what the stream says first is of how many.
                Policy::Overwrite => {
                    let newest = |all: &[String]| {
                        all[all.len().min(1)..].iter().rev().take(100).cloned().collect::<Vec<_>>()
                    };
                    assert_eq!(newest(alone), newest(together), "{count}");
                }
                _ => assert_eq!(alone, together, "{policy}, {count}"),
            }
        }
    }
}

#[test]
fn records_of_two_files_wait_for_their_own_only() {
    let (stamp, mut r) = (stamp(), recorder());
    let two = [0, 1].map(|_| trace(Facs::all(), Policy::Stop, false, 0));
    r.gather();
    for n in 0..20 {
        r.sysret(At { trace: &two[n % 2], stamp: &stamp, abi: Abi::Linux }, n as i32, 0);
    }
    r.flush();
    for (which, t) in two.iter().enumerate() {
        let ret = |n| format!("{:?}", Body::Sysret { code: n, error: 0, retval: 0, retval_1: 0 });
        assert_eq!(seen(t), (0..20).filter(|n| *n as usize % 2 == which).map(ret).collect::<Vec<_>>());
    }
}
