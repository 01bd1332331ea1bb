use super::*;

/// A request as the kernel makes it, of inode 11 by uid 12 and gid 13.
pub(crate) fn request(opcode: u32, unique: u64, tid: u32, body: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![0; IN_HEADER];
    message[4..8].copy_from_slice(&opcode.to_ne_bytes());
    message[8..16].copy_from_slice(&unique.to_ne_bytes());
    message[16..24].copy_from_slice(&11u64.to_ne_bytes());
    message[24..28].copy_from_slice(&12u32.to_ne_bytes());
    message[28..32].copy_from_slice(&13u32.to_ne_bytes());
    message[32..36].copy_from_slice(&tid.to_ne_bytes());
    message.extend(body.concat());
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message
}

pub(crate) fn read(unique: u64, fh: u64, size: u32, flags: i32) -> Vec<u8> {
    let (fh, size, flags) = (fh.to_ne_bytes(), size.to_ne_bytes(), flags.to_ne_bytes());
    request(READ, unique, 7, &[&fh, &[0; 8], &size, &[0; 12], &flags, &[0; 4]])
}

#[test]
fn a_read_of_a_stream_is_ours() {
    let want = Read { unique: 5, fh: STREAM | 9, size: 4096, tid: 7, nonblock: true };
    let got = read(5, STREAM | 9, 4096, libc::O_NONBLOCK);
    assert_eq!(Request::parse(&got), Some(Request::Read(want)));
    assert_eq!(Request::parse(&read(5, 9, 4096, 0)), Some(Request::Other), "not a stream's handle");
}

#[test]
fn a_poll_names_its_notification_where_one_is_wanted() {
    for (flags, notify) in [(1u32, Some(77)), (0, None)] {
        let body = [(STREAM | 1).to_ne_bytes(), 77u64.to_ne_bytes()].concat();
        let poll = request(POLL, 6, 7, &[&body, &flags.to_ne_bytes(), &[0; 4]]);
        assert_eq!(Request::parse(&poll), Some(Request::Poll { unique: 6, fh: STREAM | 1, notify }));
    }
}

#[test]
fn an_interrupt_names_its_request() {
    let interrupt = request(INTERRUPT, 3, 0, &[&2u64.to_ne_bytes()]);
    assert_eq!(Request::parse(&interrupt), Some(Request::Interrupt { of: 2 }));
}

#[test]
fn a_short_message_is_refused_wherever_it_is_cut() {
    let whole = read(5, STREAM | 9, 4096, 0);
    for len in 0..IN_HEADER + 36 {
        assert_eq!(Request::parse(&whole[..len]), None, "{len} bytes");
    }
}

#[test]
fn what_makes_no_sense_is_answered_where_somebody_waits() {
    for opcode in [READ, POLL, RELEASE, LOOKUP, SETATTR, OPEN, WRITE] {
        let cut = request(opcode, 3, 0, &[]);
        assert_eq!((Request::parse(&cut), wants_answer(&cut)), (None, Some(3)), "{opcode}");
    }
    for opcode in [INTERRUPT, FORGET, BATCH_FORGET] {
        let cut = request(opcode, 3, 0, &[]);
        assert_eq!((Request::parse(&cut), wants_answer(&cut)), (None, None), "{opcode}");
    }
    assert_eq!(wants_answer(&[0; 15]), None, "nobody can be named");
}

#[test]
fn only_the_answer_to_init_is_widened() {
    let mut answer = vec![0; INIT_REPLY];
    widen_init_reply(&mut answer, 256);
    assert_eq!(answer[MAX_PAGES..MAX_PAGES + 2], 256u16.to_ne_bytes());
    let mut refusal = vec![0; OUT_HEADER];
    reply::finish(&mut refusal, 1, libc::EIO);
    let before = refusal.clone();
    widen_init_reply(&mut refusal, 256);
    assert_eq!(refusal, before);
}

#[test]
fn what_concerns_names_and_files_says_who_asks() {
    let asker = Asker { unique: 3, ino: 11, uid: 12, gid: 13, tid: 7 };
    let parsed = |opcode, body: &[u8]| match Request::parse(&request(opcode, 3, 7, &[body]))? {
        Request::File(who, it) => {
            assert_eq!(who, asker);
            Some(format!("{it:?}"))
        }
        other => Some(format!("{other:?}")),
    };
    let is = |opcode, body: &[u8], want: FileRequest<'_>| {
        assert_eq!(parsed(opcode, body), Some(format!("{want:?}")));
    };
    is(LOOKUP, b"ctl\0", FileRequest::Lookup(b"ctl"));
    is(FORGET, &5u64.to_ne_bytes(), FileRequest::Forget(5));
    is(GETATTR, &[0; 16], FileRequest::Getattr);
    is(OPEN, &[1, 0, 0, 0, 0, 0, 0, 0], FileRequest::Open(libc::O_WRONLY));
    for (valid, mode_or_ids) in [(1u32, true), (2, true), (4, true), (8, false)] {
        let body = [&valid.to_ne_bytes()[..], &[0; 84]].concat();
        is(SETATTR, &body, FileRequest::Setattr { mode_or_ids });
    }
    let write = [&9u64.to_ne_bytes()[..], &[0; 8], &5u32.to_ne_bytes(), &[0; 20], b"clear"].concat();
    is(WRITE, &write, FileRequest::Write { fh: 9, data: b"clear" });
    for len in 0..write.len() {
        assert_eq!(parsed(WRITE, &write[..len]), None, "{len} bytes");
    }
    assert_eq!(parsed(LOOKUP, b"ctl"), None, "a name without its end");
    assert_eq!(parsed(1000, b""), Some("Other".to_owned()));
}

#[test]
fn many_are_forgotten_at_once() {
    let body = [&2u32.to_ne_bytes()[..], &[0; 4], &[1u64, 2, 3, 4].map(u64::to_ne_bytes).concat()].concat();
    let whole = request(BATCH_FORGET, 3, 0, &[&body]);
    let Some(Request::File(_, FileRequest::ForgetMany(many))) = Request::parse(&whole) else {
        panic!("{whole:?}");
    };
    assert_eq!(many.all().collect::<Vec<_>>(), [(1, 2), (3, 4)]);
    assert_eq!(Request::parse(&whole[..whole.len() - 1]), None, "one is cut");
}
