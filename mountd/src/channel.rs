//! Our own channel to the kernel: one thread reads /dev/fuse, answers what concerns stream files and what `echo ... > ctl`
//! needs, and passes the rest to fuser over a socket pair; another thread copies fuser's replies back
//! (docs/decisions/own-channel.md).
//!
//! INTERRUPT never reaches fuser: it would answer ENOSYS, and the kernel then interrupts no reader of this mount any
//! more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socketpair, sockopt};
use nix::unistd::{read, write};

use crate::files::Files;
use crate::parked::Streams;
use crate::wire::{self, OUT_HEADER, Request, STREAM, reply};

/// Most bytes of a write that the kernel sends as one request: request and header fit a socket's buffer.
const WRITE_MAX: usize = 128 << 10;
/// Most bytes of a request's header and fixed part, generously.
const REQUEST_HEAD: usize = 4096;
/// The least buffer the kernel reads into (`FUSE_MIN_READ_BUFFER`).
const READ_BUFFER_MIN: usize = 8192;
/// Pages of one read: the kernel's own limit unless somebody changed it.
const READ_PAGES: u16 = 256;

/// /dev/fuse, or what stands for it.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
}

impl Device {
    /// An open /dev/fuse that belongs to a mount.
    pub(crate) fn new(fd: OwnedFd) -> Device {
        Device { fd }
    }

    /// Answers with an errno, or with success and no body where it is 0.
    pub(crate) fn reply(&self, unique: u64, errno: i32) {
        let mut message = [0; OUT_HEADER];
        reply::finish(&mut message, unique, errno);
        self.send(&message);
    }

    /// Sends a whole message.
    pub(crate) fn send(&self, message: &[u8]) {
        match write(&self.fd, message) {
            // The caller is gone, or the mount.
            Ok(_) | Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => log::warn!("reply to the kernel: {errno}"),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The two ends of the way to fuser, and how long a write may be on it.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The channel's end.
    pub(crate) ours: OwnedFd,
    /// fuser's end.
    pub(crate) fusers: OwnedFd,
    /// Most bytes of one write.
    pub(crate) write_max: u32,
}

impl Pair {
    /// Sockets whose buffers hold the longest request.
    ///
    /// # Errors
    /// Those of socketpair(2), or EMSGSIZE where the system allows no buffer that could hold a page.
    pub(crate) fn new() -> io::Result<Pair> {
        let (ours, fusers) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let wanted = 4 * (WRITE_MAX + REQUEST_HEAD);
        let mut room = usize::MAX;
        for fd in [&ours, &fusers] {
            if setsockopt(fd, sockopt::SndBufForce, &wanted).is_err() {
                // What is allowed without privilege is asked for next, and what came of it is looked at.
                let _ = setsockopt(fd, sockopt::SndBuf, &wanted);
            }
            room = room.min(getsockopt(fd, sockopt::SndBuf)?);
        }
        let write_max = (room / 2).saturating_sub(REQUEST_HEAD).min(WRITE_MAX) & !4095;
        if write_max == 0 {
            return Err(Errno::EMSGSIZE.into());
        }
        Ok(Pair { ours, fusers, write_max: write_max as u32 })
    }
}

/// Serves requests until the mount is gone.
///
/// # Errors
/// Those of reading /dev/fuse that do not mean its end.
pub(crate) fn serve(device: &Device, to_fuser: &OwnedFd, streams: &Streams, files: &Files) -> io::Result<()> {
    let mut message = vec![0; READ_BUFFER_MIN.max(WRITE_MAX + REQUEST_HEAD)];
    let mut buf = Vec::new();
    let ended = loop {
        let request = match read(device, &mut message) {
            Ok(0) | Err(Errno::ENODEV | Errno::ECONNABORTED) => break Ok(()),
            Ok(len) => &message[..len],
            // ENOENT: the caller went before we took its request.
            Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => continue,
            Err(errno) => break Err(errno.into()),
        };
        match Request::parse(request) {
            Some(Request::Read(read)) => streams.read(read, &mut buf),
            Some(Request::Poll { unique, fh, notify }) => streams.poll(unique, fh, notify),
            Some(Request::Release { unique, fh }) => {
                match fh & STREAM != 0 {
                    true => streams.release(fh),
                    false => files.release(fh),
                }
                device.reply(unique, 0);
            }
            Some(Request::File(asker, request)) => files.ask(&asker, request),
            Some(Request::Interrupt { of }) => streams.interrupt(of),
            Some(Request::Other) => {
                if let Err(errno) = write(to_fuser, request) {
                    break Err(errno.into());
                }
            }
            None => {
                log::warn!("a request of {} bytes makes no sense", request.len());
                // Who asks would wait for ever, and no signal would end that.
                if let Some(unique) = wire::wants_answer(request) {
                    device.reply(unique, libc::EIO);
                }
            }
        }
    };
    // fuser's loop ends in order; where it has ended already there is nobody to tell.
    let _ = write(to_fuser, &wire::destroy());
    ended
}

/// Copies fuser's replies to the kernel until fuser's end is closed.
pub(crate) fn copy_replies(from_fuser: &OwnedFd, device: &Arc<Device>) {
    // A directory listing is the longest reply, and no longer than this.
    let mut message = vec![0; 2 * WRITE_MAX];
    let mut first = true;
    loop {
        match read(from_fuser, &mut message) {
            Ok(0) | Err(Errno::ECONNRESET) => return,
            Ok(len) => {
                let reply = &mut message[..len];
                if std::mem::take(&mut first) {
                    // The first answer is INIT's: nothing else is asked before it.
                    wire::widen_init_reply(reply, READ_PAGES);
                }
                if !wire::answers_destroy(reply) {
                    device.send(reply);
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => {
                log::error!("replies: {errno}");
                return;
            }
        }
    }
}
