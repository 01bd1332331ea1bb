//! The few messages of the FUSE protocol that the channel understands itself (linux/fuse.h): everything else passes
//! through unread.
//!
//! Numbers are in the byte order of the machine.

/// Set in the handle of every stream file: its reads, polls and release stay in the channel.
pub(crate) const STREAM: u64 = 1 << 63;

/// Length of a request's header in bytes.
pub(crate) const IN_HEADER: usize = 40;
/// Length of a reply's header in bytes.
pub(crate) const OUT_HEADER: usize = 16;

const READ: u32 = 15;
const RELEASE: u32 = 18;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const POLL: u32 = 40;
/// `FUSE_NOTIFY_POLL`.
const NOTIFY_POLL: i32 = 1;
/// `FUSE_POLL_SCHEDULE_NOTIFY`.
const SCHEDULE_NOTIFY: u32 = 1;
/// Bytes from the start of an INIT reply to its `max_pages`, and the length of the reply.
const MAX_PAGES: usize = OUT_HEADER + 28;
const INIT_REPLY: usize = OUT_HEADER + 64;

/// What a request asks of the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Read from a stream file.
    Read(Read),
    /// poll(2) of a stream file.
    Poll {
        /// Identifies the request.
        unique: u64,
        /// The open file.
        fh: u64,
        /// What a notification names; `None` where none is wanted.
        notify: Option<u64>,
    },
    /// The last descriptor of a stream file was closed.
    Release {
        /// Identifies the request.
        unique: u64,
        /// The open file.
        fh: u64,
    },
    /// The caller of a request got a signal, or was stopped by a tracer.
    Interrupt {
        /// Which request.
        of: u64,
    },
    /// Somebody else's.
    Other,
}

/// A read of a stream file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    /// Identifies the request.
    pub(crate) unique: u64,
    /// The open file.
    pub(crate) fh: u64,
    /// Room in the caller's buffer, bytes.
    pub(crate) size: usize,
    /// The thread that reads, 0 where it cannot be seen.
    pub(crate) tid: i32,
    /// O_NONBLOCK, as it is now.
    pub(crate) nonblock: bool,
}

impl Request {
    /// Reads what the kernel sent; `None` where it is shorter than it must be.
    pub(crate) fn parse(message: &[u8]) -> Option<Request> {
        let opcode = u32_at(message, 4)?;
        let unique = u64_at(message, 8)?;
        let tid = u32_at(message, 32)? as i32;
        let body = message.get(IN_HEADER..)?;
        if opcode == INTERRUPT {
            return Some(Request::Interrupt { of: u64_at(body, 0)? });
        }
        if !matches!(opcode, READ | RELEASE | POLL) || u64_at(body, 0)? & STREAM == 0 {
            return Some(Request::Other);
        }
        let fh = u64_at(body, 0)?;
        Some(match opcode {
            READ => Request::Read(Read {
                unique,
                fh,
                size: u32_at(body, 16)? as usize,
                tid,
                nonblock: u32_at(body, 32)? & libc::O_NONBLOCK as u32 != 0,
            }),
            POLL => Request::Poll {
                unique,
                fh,
                notify: (u32_at(body, 16)? & SCHEDULE_NOTIFY != 0).then_some(u64_at(body, 8)?),
            },
            _ => Request::Release { unique, fh },
        })
    }
}

/// Writes the header of a reply into the first bytes of `message`, the rest of which is its body. `errno` is positive
/// or 0; one of 512 or more the kernel would refuse, and the caller would wait for ever.
pub(crate) fn finish_reply(message: &mut [u8], unique: u64, errno: i32) {
    let errno = if (0..512).contains(&errno) { errno } else { libc::EIO };
    header(message, unique, -errno);
}

/// The answer to a poll.
pub(crate) fn poll_reply(unique: u64, revents: u32) -> [u8; OUT_HEADER + 8] {
    let mut message = [0; OUT_HEADER + 8];
    message[OUT_HEADER..OUT_HEADER + 4].copy_from_slice(&revents.to_ne_bytes());
    finish_reply(&mut message, unique, 0);
    message
}

/// Tells the kernel that what an earlier poll asked about has changed.
pub(crate) fn poll_notification(notify: u64) -> [u8; OUT_HEADER + 8] {
    let mut message = [0; OUT_HEADER + 8];
    message[OUT_HEADER..].copy_from_slice(&notify.to_ne_bytes());
    header(&mut message, 0, NOTIFY_POLL);
    message
}

/// Raises the pages of one request in the answer to INIT: that much fits one read. What is no such answer stays.
pub(crate) fn widen_init_reply(message: &mut [u8], pages: u16) {
    if message.len() >= INIT_REPLY && u32_at(message, 4) == Some(0) {
        message[MAX_PAGES..MAX_PAGES + 2].copy_from_slice(&pages.to_ne_bytes());
    }
}

/// The request that ends a session, which the kernel itself sends to none but block device mounts.
pub(crate) fn destroy() -> [u8; IN_HEADER] {
    let mut message = [0; IN_HEADER];
    message[..4].copy_from_slice(&(IN_HEADER as u32).to_ne_bytes());
    message[4..8].copy_from_slice(&DESTROY.to_ne_bytes());
    message
}

/// Whether this is the answer to [`destroy`], which the kernel did not ask for.
pub(crate) fn answers_destroy(reply: &[u8]) -> bool {
    u64_at(reply, 8) == Some(0) && u32_at(reply, 4) == Some(0)
}

fn header(message: &mut [u8], unique: u64, error: i32) {
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message[4..8].copy_from_slice(&error.to_ne_bytes());
    message[8..16].copy_from_slice(&unique.to_ne_bytes());
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    b.get(at..)?.first_chunk().map(|b| u64::from_ne_bytes(*b))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request as the kernel makes it.
    pub(crate) fn request(opcode: u32, unique: u64, tid: u32, body: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![0; IN_HEADER];
        message[4..8].copy_from_slice(&opcode.to_ne_bytes());
        message[8..16].copy_from_slice(&unique.to_ne_bytes());
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
        let got = Request::parse(&read(5, STREAM | 9, 4096, libc::O_NONBLOCK));
        let want = Read { unique: 5, fh: STREAM | 9, size: 4096, tid: 7, nonblock: true };
        assert_eq!(got, Some(Request::Read(want)));
        assert_eq!(Request::parse(&read(5, 9, 4096, 0)), Some(Request::Other), "not a stream's handle");
    }

    #[test]
    fn a_poll_names_its_notification_where_one_is_wanted() {
        let poll = |flags: u32| {
            let body = [(STREAM | 1).to_ne_bytes(), 77u64.to_ne_bytes()].concat();
            Request::parse(&request(POLL, 6, 7, &[&body, &flags.to_ne_bytes(), &[0; 4]]))
        };
        assert_eq!(poll(1), Some(Request::Poll { unique: 6, fh: STREAM | 1, notify: Some(77) }));
        assert_eq!(poll(0), Some(Request::Poll { unique: 6, fh: STREAM | 1, notify: None }));
    }

    #[test]
    fn an_interrupt_names_its_request() {
        let got = Request::parse(&request(INTERRUPT, 3, 0, &[&2u64.to_ne_bytes()]));
        assert_eq!(got, Some(Request::Interrupt { of: 2 }));
    }

    #[test]
    fn a_short_message_is_refused_wherever_it_is_cut() {
        let whole = read(5, STREAM | 9, 4096, 0);
        for len in 0..IN_HEADER + 36 {
            assert_eq!(Request::parse(&whole[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn an_errno_the_kernel_refuses_becomes_eio() {
        let mut message = [0; OUT_HEADER];
        finish_reply(&mut message, 1, 512);
        assert_eq!(message[4..8], (-libc::EIO).to_ne_bytes());
        finish_reply(&mut message, 1, libc::EINTR);
        assert_eq!(message[4..8], (-libc::EINTR).to_ne_bytes());
        assert_eq!(message[..4], 16u32.to_ne_bytes());
    }

    #[test]
    fn only_the_answer_to_init_is_widened() {
        let mut answer = vec![0; INIT_REPLY];
        widen_init_reply(&mut answer, 256);
        assert_eq!(answer[MAX_PAGES..MAX_PAGES + 2], 256u16.to_ne_bytes());
        let mut refusal = vec![0; OUT_HEADER];
        finish_reply(&mut refusal, 1, libc::EIO);
        let before = refusal.clone();
        widen_init_reply(&mut refusal, 256);
        assert_eq!(refusal, before);
    }
}
