//! Mounting and unmounting: mount(2) as root, `fusermount3` else. fuser does neither (docs/decisions/own-channel.md).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::statfs;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::options::Options;

/// The type under which mount(8), findmnt(8) and /proc/mounts know us.
pub(crate) const TYPE: &str = "fuse.ktracefs";

/// A mount of ours.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
    /// As mountinfo gives it: `major:minor`.
    dev: String,
    privileged: bool,
}

impl Mount {
    /// Mounts at `at`, which [`resolve`] gave; the descriptor is the /dev/fuse of the mount.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub(crate) fn new(source: &str, at: &Path, options: &Options) -> Result<(Mount, OwnedFd), String> {
        clear_dead(at)?;
        if is_ours(at) {
            return Err(format!("{}: a ktracefs is mounted there", at.display()));
        }
        let meta = fs::metadata(at).map_err(|err| format!("{}: {err}", at.display()))?;
        if !meta.is_dir() {
            return Err(format!("{}: not a directory", at.display()));
        }
        let privileged = nix::unistd::geteuid().is_root();
        let fd = match privileged {
            true => by_ourselves(source, at, &meta, options)?,
            false => by_fusermount(source, at, options)?,
        };
        let dev = device_of(at).unwrap_or_default();
        Ok((Mount { at: at.to_owned(), dev, privileged }, fd))
    }

    /// True while the mount, or another one of the same file system, is in our mount namespace.
    pub(crate) fn is_there(&self) -> bool {
        mounts().iter().any(|m| m.dev == self.dev)
    }

    /// Takes the mount away; those who have files open there keep them.
    pub(crate) fn unmount(&self) {
        if self.is_there() {
            unmount(&self.at, self.privileged);
        }
    }
}

/// The absolute path of a mount point, also where a dead mount lies on it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn resolve(at: &Path) -> Result<PathBuf, String> {
    let failed = |err: io::Error| format!("{}: {err}", at.display());
    match fs::canonicalize(at) {
        Ok(path) => Ok(path),
        Err(err) if err.raw_os_error() == Some(libc::ENOTCONN) => {
            let at = std::path::absolute(at).map_err(failed)?;
            let parent = at.parent().unwrap_or(Path::new("/"));
            let name = at.file_name().ok_or_else(|| failed(err))?;
            Ok(fs::canonicalize(parent).map_err(failed)?.join(name))
        }
        Err(err) => Err(failed(err)),
    }
}

/// Takes away what a daemon that died without unmounting left at `at`.
fn clear_dead(at: &Path) -> Result<(), String> {
    // Several may lie on each other; a bound, for what cannot be taken away would be found again for ever.
    for _ in 0..16 {
        // Always a question to the daemon; what stat(2) says may be remembered.
        match statfs(at) {
            Err(Errno::ENOTCONN) => {
                if !is_ours(at) {
                    return Err(format!("{}: a dead mount of another file system is there", at.display()));
                }
                unmount(at, nix::unistd::geteuid().is_root());
            }
            _ => return Ok(()),
        }
    }
    Err(format!("{}: the dead mount there cannot be taken away", at.display()))
}

fn unmount(at: &Path, privileged: bool) {
    let done = match privileged {
        true => umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(io::Error::from),
        false => Command::new("fusermount3").args(["-u", "-z", "--"]).arg(at).status().map(drop),
    };
    if let Err(err) = done {
        log::warn!("unmounting {}: {err}", at.display());
    }
}

fn by_ourselves(source: &str, at: &Path, meta: &fs::Metadata, options: &Options) -> Result<OwnedFd, String> {
    let fuse: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|err| format!("/dev/fuse: {err}"))?;
    let data = format!(
        "fd={},rootmode={:o},user_id=0,group_id=0,default_permissions,allow_other",
        fuse.as_raw_fd(),
        meta.mode() & libc::S_IFMT,
    );
    let flags = options.flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(source), at, Some(TYPE), flags, Some(data.as_str()))
        .map_err(|errno| format!("mounting on {}: {}", at.display(), errno.desc()))?;
    Ok(fuse.into())
}

/// The protocol of fusermount3(1): it mounts, and sends the descriptor over the socket whose number it is given.
fn by_fusermount(source: &str, at: &Path, options: &Options) -> Result<OwnedFd, String> {
    // Without SOCK_CLOEXEC, so that the child has its end; no other thread runs yet that could start a child.
    let (ours, its) = nix::sys::socket::socketpair(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        None,
        nix::sys::socket::SockFlag::empty(),
    )
    .map_err(|errno| format!("socketpair: {errno}"))?;
    let source = source.replace([',', '\\'], "_");
    let mut list = format!("fsname={source},subtype=ktracefs,nosuid,nodev,default_permissions");
    for (name, set) in [
        ("allow_other", options.allow_other),
        ("ro", options.flags.contains(MsFlags::MS_RDONLY)),
        ("noexec", options.flags.contains(MsFlags::MS_NOEXEC)),
    ] {
        if set {
            list.push(',');
            list.push_str(name);
        }
    }
    let mut child = Command::new("fusermount3")
        .args(["-o", &list, "--"])
        .arg(at)
        .env("_FUSE_COMMFD", its.as_raw_fd().to_string())
        .spawn()
        .map_err(|err| format!("fusermount3 (package fuse3), which mounts for users: {err}"))?;
    drop(its);
    let fd = receive(&ours);
    let status = child.wait().map_err(|err| format!("fusermount3: {err}"))?;
    match fd {
        Some(fd) if status.success() => Ok(fd),
        _ => Err(format!("fusermount3 failed: {status}")),
    }
}

fn receive(socket: &impl AsFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    while let Err(errno) = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut messages, flags) {
        if errno != rustix::io::Errno::INTR {
            return None;
        }
    }
    messages.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

struct Mounted {
    dev: String,
    at: PathBuf,
    kind: String,
}

/// The mounts of our namespace, a later one over an earlier.
fn mounts() -> Vec<Mounted> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(parse_mount).collect()
}

/// One line of /proc/pid/mountinfo (proc_pid_mountinfo(5)).
fn parse_mount(line: &str) -> Option<Mounted> {
    let (fixed, after) = line.split_once(" - ")?;
    let mut field = fixed.split(' ').skip(2);
    let dev = field.next()?.to_owned();
    let at = unescape(field.nth(1)?);
    let kind = after.split(' ').next()?.to_owned();
    Some(Mounted { dev, at, kind })
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from(std::ffi::OsStr::from_bytes(&bytes)))
}

fn is_ours(at: &Path) -> bool {
    mounts().iter().rfind(|m| m.at == at).is_some_and(|m| m.kind == TYPE)
}

/// From mountinfo and not by stat(2), which would ask the daemon that is not serving yet.
fn device_of(at: &Path) -> Result<String, Errno> {
    mounts().into_iter().rfind(|m| m.at == at).map(|m| m.dev).ok_or(Errno::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line =
            r"97 29 0:52 / /mnt/a\040b\134c rw,nosuid,nodev shared:5 - fuse.ktracefs ktracefs rw,user_id=0";
        let got = parse_mount(line).expect("a mount");
        assert_eq!((got.dev.as_str(), got.kind.as_str()), ("0:52", "fuse.ktracefs"));
        assert_eq!(got.at, PathBuf::from(r"/mnt/a b\c"));
        for broken in ["", " - ", "1 2 3 - x", r"97 29 0:52 / /x\04"] {
            let _ = parse_mount(broken);
        }
    }
}
