//! Answers, whole messages as they are written to /dev/fuse.

use std::time::{Duration, SystemTime};

use super::OUT_HEADER;
use crate::fs::{Attr, Kind};

/// `FUSE_NOTIFY_POLL`.
const NOTIFY_POLL: i32 = 1;
/// `FOPEN_DIRECT_IO`, `FOPEN_STREAM` and `FOPEN_NOFLUSH`.
const DIRECT_IO: u32 = 1;
const STREAM: u32 = 1 << 4;
const NOFLUSH: u32 = 1 << 5;
/// Bytes of the longest body here, `fuse_entry_out`.
const BODY_MAX: usize = 128;

/// Writes the header of a reply into the first bytes of `message`, the rest of which is its body. `errno` is positive
/// or 0; one of 512 or more the kernel would refuse, and the caller would wait for ever.
pub(crate) fn finish(message: &mut [u8], unique: u64, errno: i32) {
    let errno = if (0..512).contains(&errno) { errno } else { libc::EIO };
    header(message, unique, -errno);
}

/// The answer to a poll.
pub(crate) fn poll(unique: u64, revents: u32) -> Vec<u8> {
    Body::new().u32(revents).u32(0).answer(unique)
}

/// Tells the kernel that what an earlier poll asked about has changed.
pub(crate) fn poll_notification(notify: u64) -> Vec<u8> {
    let mut message = Body::new().u64(notify).0;
    header(&mut message, 0, NOTIFY_POLL);
    message
}

/// The answer to a lookup. `time` is that of every file.
pub(crate) fn entry(unique: u64, attr: &Attr, time: SystemTime) -> Vec<u8> {
    let (name, rest) = (attr.name_lasts, attr.lasts);
    // No number is ever used again, so all are of one generation.
    let body = Body::new().u64(attr.ino).u64(0).u64(name.as_secs()).u64(rest.as_secs());
    body.u32(name.subsec_nanos()).u32(rest.subsec_nanos()).attr(attr, time).answer(unique)
}

/// The answer to a getattr or setattr.
pub(crate) fn attr(unique: u64, attr: &Attr, time: SystemTime) -> Vec<u8> {
    let lasts = attr.lasts;
    Body::new().u64(lasts.as_secs()).u32(lasts.subsec_nanos()).u32(0).attr(attr, time).answer(unique)
}

/// The answer to an open. Nothing is cached of a file, whose length nobody knows, and a close waits for nothing.
pub(crate) fn opened(unique: u64, fh: u64, is_stream: bool) -> Vec<u8> {
    let flags = DIRECT_IO | NOFLUSH | if is_stream { STREAM } else { 0 };
    Body::new().u64(fh).u32(flags).u32(0).answer(unique)
}

/// The answer to a write.
pub(crate) fn written(unique: u64, len: usize) -> Vec<u8> {
    Body::new().u32(len as u32).u32(0).answer(unique)
}

/// A message whose body grows field by field.
struct Body(Vec<u8>);

impl Body {
    fn new() -> Body {
        let mut message = Vec::with_capacity(OUT_HEADER + BODY_MAX);
        message.resize(OUT_HEADER, 0);
        Body(message)
    }

    fn u32(mut self, n: u32) -> Body {
        self.0.extend(n.to_ne_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Body {
        self.0.extend(n.to_ne_bytes());
        self
    }

    /// `fuse_attr`.
    fn attr(self, attr: &Attr, time: SystemTime) -> Body {
        let (kind, nlink) = match attr.kind {
            Kind::File => (libc::S_IFREG, 1),
            Kind::Dir => (libc::S_IFDIR, 2),
            Kind::Link => (libc::S_IFLNK, 1),
        };
        let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (sec, nsec) = (time.as_secs(), time.subsec_nanos());
        // Number, size and blocks; three times; mode, links and owner; device, size of a block, flags.
        let body = self.u64(attr.ino).u64(0).u64(0).u64(sec).u64(sec).u64(sec).u32(nsec).u32(nsec).u32(nsec);
        let body = body.u32(kind | u32::from(attr.mode)).u32(nlink).u32(attr.uid).u32(attr.gid);
        body.u32(0).u32(4096).u32(0)
    }

    fn answer(self, unique: u64) -> Vec<u8> {
        let mut message = self.0;
        finish(&mut message, unique, 0);
        message
    }
}

fn header(message: &mut [u8], unique: u64, error: i32) {
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message[4..8].copy_from_slice(&error.to_ne_bytes());
    message[8..16].copy_from_slice(&unique.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_the_kernel_refuses_becomes_eio() {
        let mut message = [0; OUT_HEADER];
        finish(&mut message, 1, 512);
        assert_eq!(message[4..8], (-libc::EIO).to_ne_bytes());
        finish(&mut message, 1, libc::EINTR);
        assert_eq!(message[4..8], (-libc::EINTR).to_ne_bytes());
        assert_eq!(message[..4], 16u32.to_ne_bytes());
    }

    #[test]
    fn bodies_are_as_long_as_the_kernel_has_them() {
        // It refuses any other length, and the caller gets EIO.
        let it = Attr {
            ino: 9,
            kind: Kind::Dir,
            mode: 0o555,
            uid: 1,
            gid: 2,
            name_lasts: Duration::from_millis(1500),
            lasts: Duration::ZERO,
        };
        let time = SystemTime::UNIX_EPOCH + Duration::new(7, 5);
        let messages = [
            (entry(3, &it, time), 128),
            (attr(3, &it, time), 104),
            (opened(3, 1, false), 16),
            (written(3, 4), 8),
            (poll(3, 1), 8),
        ];
        for (message, len) in messages {
            assert_eq!(message.len(), OUT_HEADER + len);
            assert_eq!(message[..4], (message.len() as u32).to_ne_bytes());
            assert_eq!(message[8..16], 3u64.to_ne_bytes());
        }
    }
}
