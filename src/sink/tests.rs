//! The sink's rules, without processes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::unbounded;
use proptest::prelude::*;

use super::*;
use crate::record::{self, Body, Comm, Decoder, Time};

const READER: i32 = 77;

fn stamp(pid: i32, n: u64) -> Stamp {
    Stamp { time: Time { sec: n as i64, nsec: 0 }, pid, tid: pid, comm: Comm::new(b"test") }
}

/// A record with `len` bytes of path, the first eight of which are its number.
fn record(pid: i32, n: u64, len: usize) -> Vec<u8> {
    let mut path = n.to_le_bytes().to_vec();
    path.resize(len.max(8), b'x');
    let mut out = Vec::new();
    record::encode(&mut out, &stamp(pid, n), &Body::Namei(&path));
    out
}

fn sink(policy: Policy) -> Arc<Sink> {
    Sink::new(SIZE_MIN, policy, 0, &Budget::new(1 << 20), None).unwrap()
}

fn append(sink: &Sink, pid: i32, n: u64, len: usize) -> Appended {
    sink.append(&record(pid, n, len), &stamp(pid, n), Abi::Linux)
}

/// What a stream says, in words: numbers of records, `emul`, and what it tells of itself.
fn words(bytes: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    let mut words = Vec::new();
    while let Some(rec) = decoder.next_record().unwrap() {
        assert_eq!(bytes[rec.offset as usize + 29..][..3], [0; 3], "padding is zero");
        words.push(match rec.body() {
            Body::Namei(path) => u64::from_le_bytes(*path.first_chunk().unwrap()).to_string(),
            Body::Emul(name) => format!("emul {}", String::from_utf8_lossy(name)),
            Body::User { data, .. } => String::from_utf8_lossy(data).into_owned(),
            other => format!("{other:?}"),
        });
    }
    decoder.finish().unwrap();
    words
}

fn read_all(reader: &mut Reader) -> Vec<u8> {
    let mut out = Vec::new();
    while reader.read(5000, READER, &mut out) == Read::Data {}
    out
}

/// But for the end, which [`the_end_says_what_the_stream_has`] looks at.
fn read(reader: &mut Reader) -> Vec<String> {
    let mut out = Vec::new();
    while reader.read(1 << 20, READER, &mut out) == Read::Data {}
    let mut words = words(&out);
    words.retain(|word| !word.starts_with("end: "));
    words
}

/// Fills the ring, and gives the number of the first record that had no room.
fn fill(sink: &Sink, from: u64) -> (u64, Appended) {
    for n in from.. {
        match append(sink, 1, n, 500) {
            Appended::Whole => {}
            other => return (n, other),
        }
        assert!(n < from + 10_000, "5 MB are more than any ring here has");
    }
    unreachable!()
}

#[test]
fn each_open_is_a_cursor_of_its_own_and_a_late_one_starts_at_the_oldest_record() {
    let sink = sink(Policy::Stop);
    let (mut a, mut b) = (sink.reader(), sink.reader());
    append(&sink, 1, 1, 8);
    append(&sink, 1, 2, 8);
    assert_eq!(read(&mut a), ["emul linux", "1", "2"]);
    append(&sink, 1, 3, 8);
    assert_eq!(read(&mut a), ["3"]);
    assert_eq!(read(&mut b), ["emul linux", "1", "2", "3"]);
    assert_eq!(read(&mut sink.reader()), ["emul linux", "1", "2", "3"]);
}

#[test]
fn each_process_is_introduced_by_its_own_abi() {
    let sink = sink(Policy::Stop);
    let mut reader = sink.reader();
    append(&sink, 1, 1, 8);
    sink.append(&record(2, 2, 8), &stamp(2, 2), Abi::Linux32);
    append(&sink, 1, 3, 8);
    assert_eq!(read(&mut reader), ["emul linux", "1", "emul linux32", "2", "3"]);
}

#[test]
fn a_read_gives_whole_records_unless_its_buffer_is_smaller_than_one() {
    let sink = sink(Policy::Stop);
    let mut reader = sink.reader();
    for n in 0..3 {
        append(&sink, 1, n, 100);
    }
    let one = record::HEADER_LEN + 100;
    let mut out = Vec::new();
    // The introduction and one record fit, a second does not.
    reader.read(61 + one + 10, READER, &mut out);
    assert_eq!(out.len(), 61 + one);
    let before = out.len();
    reader.read(10, READER, &mut out);
    assert_eq!(out.len() - before, 10, "a small buffer gets a part");
    reader.read(1000, READER, &mut out);
    assert_eq!(out.len() - before, one, "then the rest of that record alone");
    reader.read(1000, READER, &mut out);
    assert_eq!(words(&out), ["emul linux", "0", "1", "2"]);
}

#[test]
fn a_full_ring_under_policy_stop_is_given_up_and_says_so() {
    let (tell, told) = unbounded();
    let sink = Sink::new(SIZE_MIN, Policy::Stop, 0, &Budget::new(1 << 20), Some(tell)).unwrap();
    let (first, why) = fill(&sink, 0);
    assert_eq!(why, Appended::Full);
    sink.give_up(libc::EAGAIN);
    assert_eq!(append(&sink, 1, first, 8), Appended::Ended);
    assert_eq!(told.try_recv(), Ok(sink.id()));
    assert_eq!(sink.end(), Some(End::GaveUp(libc::EAGAIN)));
    let seen = read(&mut sink.reader());
    assert_eq!(seen.len() as u64, first + 2);
    assert_eq!(seen.last().unwrap(), "stopped: errno 11 (EAGAIN)");
}

#[test]
fn policy_drop_tells_at_the_place_of_the_loss_how_many() {
    let sink = sink(Policy::Drop);
    let mut reader = sink.reader();
    let (first, why) = fill(&sink, 0);
    assert_eq!(why, Appended::Lost);
    append(&sink, 1, first + 1, 500);
    let len = record(1, 0, 500).len();
    assert_eq!(read(&mut reader).len() as u64, first + 1);
    append(&sink, 1, first + 2, 8);
    assert_eq!(read(&mut reader), [format!("lost 2 records, {} bytes", 2 * len), (first + 2).to_string()]);
    assert_eq!(sink.counts().lost, 2);
}

#[test]
fn policy_overwrite_lets_the_oldest_go_and_survives_its_readers() {
    let sink = sink(Policy::Overwrite);
    drop(read(&mut sink.reader()));
    for n in 0..200 {
        assert_eq!(append(&sink, 1, n, 500), Appended::Whole);
    }
    let seen = read(&mut sink.reader());
    assert_eq!((seen[0].as_str(), seen.last().unwrap().as_str()), ("emul linux", "199"));
    let numbers: Vec<u64> = seen[2..].iter().map(|w| w.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]), "whole and in order: {numbers:?}");
    let late = format!(
        "begins after {} records, {} bytes",
        numbers[0],
        numbers[0] * (record::HEADER_LEN as u64 + 500)
    );
    assert!(seen[1].ends_with(&late), "{} and not {late}", seen[1]);
}

#[test]
fn policy_block_waits_for_a_reader_and_not_again_where_that_was_in_vain() {
    let sink = sink(Policy::Block);
    let mut reader = sink.reader();
    assert_eq!(fill(&sink, 0).1, Appended::Full);
    assert!(!sink.wait_for_room(Instant::now() + Duration::from_millis(1), || true));
    let asked = Instant::now() + Duration::from_secs(20);
    assert!(!sink.wait_for_room(asked, || true) && Instant::now() < asked, "at once");
    read(&mut reader);
    assert_eq!(append(&sink, 1, 9, 500), Appended::Whole);
}

#[test]
fn policy_block_does_not_miss_the_reader_that_came_first() {
    let later = || Instant::now() + Duration::from_secs(20);
    for what in ["reads", "leaves", "another policy"] {
        let sink = sink(Policy::Block);
        let mut reader = sink.reader();
        assert_eq!(fill(&sink, 0).1, Appended::Full);
        // Between the append and the wait, and while the wait asks whether it is worth it.
        let change = |reader: &mut Reader| match what {
            "reads" => drop(read(reader)),
            "leaves" => drop(std::mem::replace(reader, sink.reader())),
            _ => sink.set_policy(Policy::Drop),
        };
        change(&mut reader);
        let by = later();
        assert!(sink.wait_for_room(by, || panic!("{what}: there may be room already")));
        let (first, _) = fill(&sink, 1000);
        assert!(first >= 1000);
        sink.set_policy(Policy::Block);
        assert_eq!(fill(&sink, 2000).1, Appended::Full);
        let reader = Mutex::new(reader);
        let worth = || {
            change(&mut reader.lock());
            true
        };
        assert!(sink.wait_for_room(by, worth) && Instant::now() < by, "{what}");
    }
}

#[test]
fn a_record_larger_than_the_ring_is_lost_and_counted_and_ends_nothing() {
    for policy in [Policy::Stop, Policy::Drop, Policy::Block, Policy::Overwrite] {
        let sink = sink(policy);
        append(&sink, 1, 1, 8);
        assert_eq!(append(&sink, 1, 2, SIZE_MIN), Appended::Lost, "{policy}");
        append(&sink, 1, 3, 8);
        let lost = format!("lost 1 records, {} bytes", record(1, 2, SIZE_MIN).len());
        assert_eq!(read(&mut sink.reader()), ["emul linux", "1", &lost, "3"], "{policy}");
    }
}

#[test]
fn a_slow_reader_is_moved_forward_and_told_while_another_keeps_up() {
    let sink = sink(Policy::Stop);
    let (mut slow, mut fast) = (sink.reader(), sink.reader());
    append(&sink, 1, 0, 500);
    assert_eq!(read(&mut slow).len(), 2);
    for n in 1..100 {
        assert_eq!(append(&sink, 1, n, 500), Appended::Whole, "a slow reader ends nobody's tracing");
        read(&mut fast);
    }
    let seen = read(&mut slow);
    let first: u64 = seen[1].parse().unwrap();
    let len = record(1, 0, 500).len() as u64;
    assert_eq!(seen[0], format!("lost {} records, {} bytes", first - 1, (first - 1) * len));
    assert_eq!(seen.last().unwrap(), "99");
}

#[test]
fn the_last_reader_to_leave_makes_the_next_write_epipe() {
    let sink = sink(Policy::Stop);
    let (mut a, mut b) = (sink.reader(), sink.reader());
    append(&sink, 1, 1, 8);
    read(&mut a);
    read(&mut b);
    drop(a);
    assert_eq!(append(&sink, 1, 2, 8), Appended::Whole);
    drop(b);
    assert_eq!(sink.end(), None);
    assert_eq!(append(&sink, 1, 3, 8), Appended::Ended);
    assert_eq!(sink.end(), Some(End::GaveUp(libc::EPIPE)));
}

#[test]
fn an_open_and_close_alone_is_no_reader() {
    let sink = sink(Policy::Stop);
    drop(sink.reader());
    assert_eq!(append(&sink, 1, 1, 8), Appended::Whole);
    assert_eq!(sink.counts().readers, 0);
}

#[test]
fn eof_comes_when_nobody_writes_and_all_was_read() {
    let sink = sink(Policy::Stop);
    let mut reader = sink.reader();
    let (a, b) = (sink.writer(), sink.writer());
    append(&sink, 1, 1, 8);
    drop(a);
    let mut out = Vec::new();
    assert_eq!(reader.read(4096, READER, &mut out), Read::Data);
    assert_eq!(reader.read(4096, READER, &mut out), Read::Empty);
    drop(b);
    assert_eq!(reader.ready(), (true, false), "the stream's last word");
    assert_eq!(reader.read(4096, READER, &mut out), Read::Data);
    assert_eq!(reader.ready(), (false, true));
    assert_eq!(reader.read(4096, READER, &mut out), Read::Eof);
}

#[test]
fn the_end_says_what_the_stream_has() {
    let sink = sink(Policy::Drop);
    let (mut early, mut silent) = (sink.reader(), sink.reader());
    let writer = sink.writer();
    let mut out = Vec::new();
    let (first, _) = fill(&sink, 0);
    while early.read(5000, READER, &mut out) == Read::Data {}
    append(&sink, 2, first + 1, 8);
    let mut late = sink.reader();
    drop(writer);
    out.extend(read_all(&mut early));
    for mut bytes in [out, read_all(&mut late), read_all(&mut silent)] {
        let whole = bytes.len();
        let end = words(&bytes).pop().unwrap();
        let note = record::HEADER_LEN + record::USER_ID_LEN + end.len();
        bytes.truncate(whole - note);
        let said = words(&bytes);
        let lost: u64 =
            said.iter().filter_map(|w| w.strip_prefix("lost ")?.split(' ').next()?.parse::<u64>().ok()).sum();
        assert_eq!(end, format!("end: {} records, {} bytes, {lost} lost", said.len(), bytes.len()));
    }
    // Who was given nothing is told nothing.
    let empty = Sink::new(SIZE_MIN, Policy::Stop, 0, &Budget::new(1 << 20), None).unwrap();
    drop(empty.writer());
    assert_eq!(read_all(&mut empty.reader()), b"");
}

#[test]
fn a_waker_is_called_once_at_data_and_at_the_end() {
    let sink = sink(Policy::Stop);
    let mut reader = sink.reader();
    let writer = sink.writer();
    let calls = Arc::new(AtomicUsize::new(0));
    let waker = || -> Waker {
        let calls = Arc::clone(&calls);
        Arc::new(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
        })
    };
    assert!(reader.arm(waker(), 1));
    append(&sink, 1, 1, 8);
    append(&sink, 1, 2, 8);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(!reader.arm(waker(), 1), "there is something to read");
    read(&mut reader);
    assert!(reader.arm(waker(), 1));
    drop(writer);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert!(!reader.arm(waker(), 1), "it has ended");
}

#[test]
fn memory_is_taken_as_the_ring_fills_and_never_over_the_limit() {
    let budget = Budget::new(100 << 10);
    let sink = Sink::new(1 << 20, Policy::Drop, 0, &budget, None).unwrap();
    assert_eq!(budget.used(), 64 << 10);
    let error = Sink::new(1 << 20, Policy::Drop, 0, &budget, None).unwrap_err();
    assert_eq!(error.errno(), libc::ENOSPC);
    for n in 0..1000 {
        append(&sink, 1, n, 500);
    }
    assert!(budget.used() <= budget.limit());
    assert!(sink.counts().lost > 0);
    drop(sink);
    assert_eq!(budget.used(), 0);
}

proptest! {
    #[test]
    fn whatever_is_appended_and_read_nothing_is_torn_and_every_loss_is_told(
        steps in prop::collection::vec((0u8..5, 8usize..4000, 1usize..6000), 1..200),
        overwrite in any::<bool>(),
        grows in prop::collection::vec(any::<bool>(), 200),
        together in 1u64..60,
    ) {
        let lossy = if overwrite { Policy::Overwrite } else { Policy::Drop };
        let sink = sink(lossy);
        sink.let_grow(SIZE_MIN * 5);
        let mut readers: HashMap<u8, (Reader, Vec<u8>)> =
            (0..2).map(|i| (i, (sink.reader(), Vec::new()))).collect();
        let mut appended = 0u64;
        let writer = sink.writer();
        for (what, len, max) in steps {
            match what {
                0 | 1 => {
                    // It may grow for this record alone.
                    let stops = grows[appended as usize % grows.len()] && sink.counts().memory < SIZE_MIN * 5;
                    sink.set_policy(if stops { Policy::Stop } else { lossy });
                    if append(&sink, 1 + i32::from(what), appended, len) == Appended::Full {
                        sink.lose(record(1, 0, len).len());
                    }
                    sink.set_policy(lossy);
                    appended += 1;
                }
                4 => {
                    let mut batch = Batch::default();
                    for n in appended..appended + together {
                        let path = [n.to_le_bytes().as_slice(), &[b'x'; 200][..len % 200]].concat();
                        batch.push(&stamp(1, n), &Body::Namei(&path), Abi::Linux);
                    }
                    sink.append_all(&mut batch);
                    prop_assert!(batch.is_empty());
                    appended += together;
                }
                who => {
                    let (reader, out) = readers.get_mut(&(who - 2)).unwrap();
                    reader.read(max, READER, out);
                }
            }
        }
        drop(writer);
        for (mut reader, mut out) in readers.into_values() {
            while reader.read(1 << 20, READER, &mut out) == Read::Data {}
            let mut accounted = 0;
            for word in words(&out) {
                if let Some(lost) = word.strip_prefix("lost ") {
                    accounted += lost.split(' ').next().unwrap().parse::<u64>().unwrap();
                } else if let Ok(number) = word.parse::<u64>() {
                    prop_assert_eq!(number, accounted, "every record before it was seen or told");
                    accounted += 1;
                }
            }
            prop_assert_eq!(accounted, appended);
        }
    }
}

#[test]
fn who_waits_for_more_is_called_when_no_more_fits() {
    let budget = Budget::new(64 << 10);
    let sink = Sink::new(1 << 20, Policy::Stop, 0, &budget, None).unwrap();
    assert_eq!(sink.attainable(), 64 << 10, "by the memory there is");
    let mut reader = sink.reader();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let waker: Waker = Arc::new(move |held| {
        assert_eq!(held, Held::Nothing);
        counted.fetch_add(1, Ordering::Relaxed);
    });
    assert!(reader.arm(waker, 1 << 19), "more than can come");
    let stamp = Stamp { pid: 1, ..Stamp::default() };
    let mut record = Vec::new();
    record::encode(&mut record, &stamp, &Body::Namei(&[b'x'; 1000]));
    while sink.append(&record, &stamp, Abi::Linux) == Appended::Whole {
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn nobody_waits_for_more_to_gather_in_a_ring_that_was_found_full() {
    for policy in [Policy::Stop, Policy::Block, Policy::Drop] {
        let sink = sink(policy);
        let (mut reader, mut drain) = (sink.reader(), sink.drain());
        let nobody: Waker = Arc::new(|_| ());
        read(&mut reader);
        for n in 0..8 {
            append(&sink, 1, n, 100);
        }
        assert!(reader.arm(Arc::clone(&nobody), SIZE_MIN), "few are there");
        assert_ne!(append(&sink, 1, 8, SIZE_MIN - 600), Appended::Whole);
        assert!(!reader.arm(Arc::clone(&nobody), SIZE_MIN), "{policy:?}");
        assert!(!drain.arm(Arc::clone(&nobody), SIZE_MIN), "{policy:?}");
        read(&mut reader);
        assert_ne!(append(&sink, 1, 9, SIZE_MIN - 600), Appended::Whole, "the drain has not read");
        assert!(reader.arm(Arc::clone(&nobody), 1), "it has nothing to read");
        assert!(!drain.arm(nobody, SIZE_MIN));
    }
}

#[test]
fn a_ring_grows_for_a_late_reader_and_keeps_all_that_it_holds() {
    let sink = sink(Policy::Stop);
    sink.let_grow(SIZE_MIN * 8);
    let (mut slow, mut reader) = (sink.reader(), sink.reader());
    assert_eq!(read(&mut reader), [""; 0]);
    // Not from the ring's start: what is moved wraps.
    (0..20).for_each(|n| assert_eq!(append(&sink, 1, n, 500), Appended::Whole));
    assert_eq!(read(&mut reader).len(), 21, "and its emulation");
    let (end, _) = fill(&sink, 20);
    let held = (end - 20) as usize * record(1, 0, 500).len();
    assert!(held > SIZE_MIN * 8 - 2048, "{held} bytes");
    assert_eq!(sink.counts().memory, SIZE_MIN * 8);
    assert_eq!(sink.size(), SIZE_MIN, "what was asked for");
    let want: Vec<String> = (20..end).map(|n| n.to_string()).collect();
    assert_eq!(read(&mut reader), want);
    let told = read(&mut slow);
    assert_eq!(told.last(), want.last(), "who has never read has the same ring");
    assert_eq!(append(&sink, 1, end, 500), Appended::Whole, "and goes on");
}

#[test]
fn a_ring_does_not_grow_where_nobody_reads_or_the_policy_has_another_answer_or_memory_is_short() {
    let grown = |policy, limit, reads: bool| {
        let sink = Sink::new(SIZE_MIN, policy, 0, &Budget::new(limit), None).unwrap();
        sink.let_grow(SIZE_MIN * 8);
        let mut reader = sink.reader();
        if reads {
            read(&mut reader);
        }
        for n in 0..1000 {
            if append(&sink, 1, n, 500) != Appended::Whole {
                break;
            }
        }
        sink.counts().memory / SIZE_MIN
    };
    assert_eq!(grown(Policy::Stop, 1 << 20, true), 8);
    assert_eq!(grown(Policy::Stop, 1 << 20, false), 1, "nobody has read");
    assert_eq!(grown(Policy::Block, 1 << 20, true), 1, "it waits for its reader");
    assert_eq!(grown(Policy::Drop, 1 << 20, true), 1, "it loses, and tells");
    assert_eq!(grown(Policy::Overwrite, 1 << 20, true), 1, "it lets go of the oldest");
    assert_eq!(grown(Policy::Stop, SIZE_MIN * 8, true), 4, "half of the memory is for others");
}

#[test]
fn grown_rings_leave_half_of_the_memory_and_their_growth_makes_nobody_elses_ring_small() {
    let budget = Budget::new(SIZE_MIN * 64);
    let mut kept = Vec::new();
    for _ in 0..24 {
        let sink = Sink::new(SIZE_MIN, Policy::Stop, 0, &budget, None).unwrap();
        sink.let_grow(SIZE_MIN * 8);
        let mut reader = sink.reader();
        read(&mut reader);
        kept.push((sink, reader));
    }
    for (sink, _) in &kept {
        fill(sink, 0);
    }
    assert!(budget.used() <= SIZE_MIN * 24 + budget.limit() / 2, "{} bytes", budget.used());
    let grown = kept.split_off(4);
    drop(grown);
    assert!(budget.used() > budget.limit() / 4);
    assert!(kept[0].0.has_plenty(), "four rings of the first size would be a sixteenth");
    drop(kept);
    assert_eq!((budget.used(), budget.used_at_first()), (0, 0));
}

#[test]
fn a_ring_that_lacks_memory_does_not_grow_and_keeps_growth_from_nobody() {
    const SIZE: usize = 160 << 10;
    let budget = Budget::new(1 << 20);
    let sink = Sink::new(SIZE, Policy::Stop, 0, &budget, None).unwrap();
    sink.let_grow(SIZE * 2);
    let mut reader = sink.reader();
    read(&mut reader);
    let left = 32 << 10;
    let _others = sink.room(budget.limit() - budget.used() - left).unwrap();
    fill(&sink, 0);
    assert!(sink.counts().memory < SIZE, "it has not got all that it was to have");
    assert_eq!(budget.used_at_first(), budget.used(), "and so does not ask for more");
}

/// Two users of the machine.
const USER: u32 = 61_001;
const OTHER: u32 = 61_002;

#[test]
fn a_user_has_no_more_memory_than_is_free_and_root_has_all() {
    const LIMIT: usize = 4 << 20;
    let budget = Budget::new(LIMIT);
    let ring = |owner| Sink::new(8 * LIMIT, Policy::Stop, owner, &budget, None).unwrap();
    let filled = |owner| {
        let sink = ring(owner);
        fill(&sink, 0);
        let memory = sink.counts().memory;
        (sink, memory)
    };
    let (users, half) = filled(USER);
    assert_eq!(half, LIMIT / 2);
    let (_others, quarter) = filled(OTHER);
    assert_eq!(quarter, LIMIT / 4);
    for refused in [Sink::new(SIZE_MIN, Policy::Stop, USER, &budget, None).map(drop), users.room(1).map(drop)]
    {
        let error = refused.unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC);
        assert!(error.to_string().contains("uid 61001 has its share"), "{error}");
    }
    let (_roots, rest) = filled(0);
    assert_eq!(rest, LIMIT / 4, "all that is left");
    let error = Sink::new(SIZE_MIN, Policy::Stop, 0, &budget, None).unwrap_err();
    assert!(error.to_string().contains("the daemon's memory limit"), "{error}");
    // It is given back.
    drop(users);
    assert_eq!(filled(USER).1, LIMIT / 4, "and root has had a quarter of it");
}

#[test]
fn a_user_leaves_growth_for_others() {
    let budget = Budget::new(SIZE_MIN * 64);
    let grown = |owner| {
        let sink = Sink::new(SIZE_MIN, Policy::Stop, owner, &budget, None).unwrap();
        sink.let_grow(SIZE_MIN * 64);
        let mut reader = sink.reader();
        read(&mut reader);
        fill(&sink, 0);
        let memory = sink.counts().memory / SIZE_MIN;
        (sink, reader, memory)
    };
    // All rings together may grow by 32 times as much.
    let users = grown(USER);
    assert_eq!(users.2, 16);
    let others = grown(OTHER);
    assert_eq!(others.2, 8);
    assert_eq!(grown(0).2, 8, "to 16 there would be too little left");
    drop((users, others));
    assert_eq!((budget.used(), budget.used_at_first()), (0, 0));
}

#[test]
fn who_holds_a_lock_wakes_nobody_before_it_has_let_go_or_has_others_do_it() {
    let sink = sink(Policy::Drop);
    let mut reader = sink.reader();
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut arms = || {
        let to = Arc::clone(&woken);
        read(&mut reader);
        assert!(reader.arm(Arc::new(move |held| to.lock().push(held)), 1));
    };
    arms();
    let kept = Kept::begin();
    assert!(!Kept::any());
    append(&sink, 1, 0, 100);
    assert!(Kept::any() && woken.lock().is_empty());
    drop(kept);
    assert_eq!(woken.lock().split_off(0), [Held::Nothing]);

    arms();
    let kept = Kept::begin();
    append(&sink, 1, 1, 100);
    Kept::hand_over();
    assert!(!Kept::any());
    assert_eq!(woken.lock().split_off(0), [Held::Locks], "those kept before");
    arms();
    append(&sink, 1, 2, 100);
    assert_eq!(woken.lock().split_off(0), [Held::Locks], "and those to come");
    drop(kept);
    assert!(woken.lock().is_empty());

    arms();
    // Without a lock there is nothing to hand over.
    Kept::hand_over();
    append(&sink, 1, 3, 100);
    assert_eq!(woken.lock().split_off(0), [Held::Nothing]);
}

#[test]
fn of_a_batch_with_no_room_is_left_what_was_not_appended() {
    let sink = sink(Policy::Stop);
    let mut batch = Batch::default();
    let count = 2 * SIZE_MIN as u64 / 100;
    (0..count).for_each(|n| batch.push(&stamp(1, n), &Body::Namei(&n.to_le_bytes()), Abi::Linux));
    assert_eq!(sink.append_all(&mut batch), Appended::Full);
    let left = batch.first().unwrap().1.time.sec as u64;
    assert_eq!(sink.counts().records, left);
    let mut reader = sink.reader();
    let numbers: Vec<String> = (0..left).map(|n| n.to_string()).collect();
    assert_eq!(read(&mut reader)[1..], numbers);
    assert_eq!(sink.append_all(&mut batch), Appended::Whole, "the reader has made room");
    assert!(batch.is_empty());
    let numbers: Vec<String> = (left..count).map(|n| n.to_string()).collect();
    assert_eq!(read(&mut reader), numbers);
}

#[test]
fn records_that_came_together_go_together_and_are_counted() {
    let sink = sink(Policy::Overwrite);
    let mut reader = sink.reader();
    let each = 20;
    let laps = 5 * SIZE_MIN as u64 / (each * 64);
    for first in (0..laps).map(|n| n * (each + 1)) {
        let mut batch = Batch::default();
        (first..first + each)
            .for_each(|n| batch.push(&stamp(1, n), &Body::Namei(&n.to_le_bytes()), Abi::Linux32));
        assert_eq!(sink.append_all(&mut batch), Appended::Whole);
        append(&sink, 1, first + each, 0);
    }
    let words = read(&mut reader);
    assert_eq!(words[0], "emul linux32");
    let lost: u64 = words[1].strip_prefix("lost ").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(words[2], lost.to_string());
    assert_eq!(lost + words.len() as u64 - 2, laps * (each + 1));
}

#[test]
fn with_one_that_has_no_room_goes_what_came_after_it_and_all_are_counted() {
    let sink = sink(Policy::Drop);
    let mut reader = sink.reader();
    let mut batch = Batch::default();
    let large = vec![b'x'; SIZE_MIN / 4];
    (0..5).for_each(|n| batch.push(&stamp(1, n), &Body::Namei(&large), Abi::Linux));
    // There would be room for these.
    (5..8).for_each(|n| batch.push(&stamp(1, n), &Body::Namei(&n.to_le_bytes()), Abi::Linux));
    assert_eq!(sink.append_all(&mut batch), Appended::Lost);
    assert!(batch.is_empty());
    assert_eq!((sink.counts().records, sink.counts().lost), (3, 5));
    assert_eq!(read(&mut reader).len(), 1 + 3, "the emulation, and those that had room");
    // The next batch is told of it, and there all at once.
    (8..40).for_each(|n| batch.push(&stamp(1, n), &Body::Namei(&n.to_le_bytes()), Abi::Linux));
    assert_eq!(sink.append_all(&mut batch), Appended::Whole);
    let words = read(&mut reader);
    assert!(words[0].starts_with("lost 5 "), "{words:?}");
    assert_eq!(words[1..], (8..40).map(|n| n.to_string()).collect::<Vec<_>>());
}
