//! Which mount to use: one that is there and answers, else one of our own for the time of the run.

use std::collections::HashSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::request::PTRACE;
use super::{Failure, PROBE};
use crate::sys;

/// Names the mount to use; empty: a private one.
const VARIABLE: &str = "KTRACE_MOUNT";
/// Where it usually is.
const USUAL: &str = "/ktrace";
/// Its type in /proc/self/mountinfo.
const FSTYPE: &str = "fuse.ktracefs";
/// How long a mount may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a daemon may take to mount, and to unmount.
const DAEMON_MAX: Duration = Duration::from_secs(10);
/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// One mounted ktracefs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mounted {
    /// Where.
    pub point: PathBuf,
    /// Minor number of its device: the name of its FUSE connection in fusectl.
    pub minor: u32,
}

/// Every mounted ktracefs that this process sees, answering or not.
pub fn mounted() -> Vec<Mounted> {
    // Bytes, because a mount point need not be UTF-8.
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|&b| b == b'\n').filter_map(mountinfo_line).collect()
}

fn is_mounted(point: &Path) -> bool {
    mounted().iter().any(|m| m.point == point)
}

/// A line of proc_pid_mountinfo(5), where it is one of ours.
fn mountinfo_line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&b| b == b' ');
    let device = str::from_utf8(fields.nth(2)?).ok()?;
    let point = fields.nth(1)?;
    let mut rest = fields.skip_while(|&field| field != b"-");
    if rest.nth(1)? != FSTYPE.as_bytes() {
        return None;
    }
    let minor = device.split_once(':')?.1.parse().ok()?;
    Some(Mounted { point: unescape(point).into(), minor })
}

/// Space, tab, newline and backslash stand there as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while let Some(&b) = field.get(i) {
        let digits = field.get(i + 1..i + 4).filter(|_| b == b'\\').and_then(|d| str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(b);
                i += 1;
            }
        }
    }
    OsString::from_vec(out)
}

/// A mount that answers, and what is to be done with it at the end.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    daemon: Option<Child>,
    /// Its daemon may stay when the mount is gone.
    daemon_may_stay: bool,
}

impl Mount {
    /// The mount at `$KTRACE_MOUNT`, else at /ktrace, else the first one that answers.
    pub fn find() -> Option<Mount> {
        let named = env::var_os(VARIABLE);
        if named.as_deref() == Some(OsStr::new("")) {
            return None;
        }
        let named = named.map(PathBuf::from);
        let there = mounted().into_iter().map(|m| m.point);
        let (usual, others): (Vec<_>, Vec<_>) = there.partition(|point| point == Path::new(USUAL));
        let mut candidates: Vec<PathBuf> = named.into_iter().chain(usual).chain(others).collect();
        // Each is asked once, however many mounts are stacked there.
        let mut asked = HashSet::new();
        candidates.retain(|point| asked.insert(point.clone()));
        let point = candidates.into_iter().find(|point| answers(point))?;
        Some(Mount { point, daemon: None, daemon_may_stay: false })
    }

    /// The one there is, else a private one; `mask` is the signal mask its daemon begins with.
    pub(super) fn find_or_make(mask: SigSet) -> Result<Mount, Failure> {
        match Mount::find() {
            Some(mount) => Ok(mount),
            None => Mount::private(mask),
        }
    }

    /// Runs a daemon of our own on a directory that only we can enter.
    fn private(mask: SigSet) -> Result<Mount, Failure> {
        let cannot =
            |what: &str, e: std::io::Error| Failure::new(format!("cannot mount privately: {what}: {e}"));
        let dir = nix::unistd::mkdtemp(&env::temp_dir().join("ktracefs.XXXXXX"))
            .map_err(|e| cannot("a directory", e.into()))?;
        let mut mount = Mount { point: dir, daemon: None, daemon_may_stay: false };
        // What the daemon says matters only where it does not mount.
        let log =
            memfd_create("ktracefs.log", MFdFlags::MFD_CLOEXEC).map_err(|e| cannot("a log", e.into()))?;
        let mut log = fs::File::from(log);
        let program = daemon_program();
        let mut command = Command::new(&program);
        command.arg("-f").arg(&mount.point).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log.try_clone().map_err(|e| cannot("a log", e))?);
        sys::end_with_parent(&mut command, mask);
        let daemon = command.spawn().map_err(|e| cannot(&program.to_string_lossy(), e))?;
        let daemon = mount.daemon.insert(daemon);

        let by = Instant::now() + DAEMON_MAX;
        while !is_mounted(&mount.point) {
            let ended = daemon.try_wait().map_err(|e| cannot("wait", e))?;
            if ended.is_none() && Instant::now() < by {
                thread::sleep(PAUSE);
                continue;
            }
            let mut said = String::new();
            // Without its words the message below still says what happened.
            let _ = log.rewind().and_then(|()| log.read_to_string(&mut said));
            let how = ended.map_or("it did not mount in time".to_owned(), |status| status.to_string());
            let said = said.trim_end();
            return Err(Failure::new(format!(
                "cannot mount privately: {}: {how}\n{said}",
                program.display()
            )));
        }
        Ok(mount)
    }

    /// Its daemon is to stay as long as a process needs it that has a filter of ours: at the end only the mount is waited for.
    pub(super) fn let_daemon_stay(&mut self) {
        self.daemon_may_stay = true;
    }

    /// Where it is.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Whether ptrace is what it prefers, as far as it says.
    pub(super) fn is_by_ptrace(&self) -> bool {
        let stat = fs::read_to_string(self.point.join("stat")).unwrap_or_default();
        let best = stat.lines().find_map(|line| line.strip_prefix("backend ")?.split(',').next());
        best.is_none_or(|name| name == PTRACE)
    }

    /// The reason for the caller's last failed command, as `error_log` tells it.
    pub fn last_error(&self) -> Option<String> {
        let log = fs::read(self.point.join("error_log")).ok()?;
        let log = String::from_utf8_lossy(&log);
        let last = log.trim_end().rsplit("\n\n").next()?.trim();
        (!last.is_empty()).then(|| last.to_owned())
    }
}

impl Drop for Mount {
    /// Unmounts what we mounted, and returns in bounded time.
    fn drop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let pid = Pid::from_raw(daemon.id() as i32);
        // It may have ended by itself; what follows finds out.
        let _ = kill(pid, Signal::SIGTERM);
        let by = Instant::now() + DAEMON_MAX;
        let is_needed = || !self.daemon_may_stay || is_mounted(&self.point);
        while is_needed() && matches!(daemon.try_wait(), Ok(None)) {
            if Instant::now() >= by {
                let _ = daemon.kill();
                break;
            }
            thread::sleep(PAUSE);
        }
        if is_mounted(&self.point) {
            let detached = umount2(&self.point, MntFlags::MNT_DETACH);
            if detached.is_err() {
                let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&self.point).status();
            }
        }
        let _ = fs::remove_dir(&self.point);
    }
}

/// The daemon beside this program, else on the PATH.
fn daemon_program() -> PathBuf {
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("ktracefs")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("ktracefs"))
}

/// Whether a mount answers in time. A process of its own asks: whoever asks a wedged mount may never come back.
fn answers(point: &Path) -> bool {
    let asked = Command::new("/proc/self/exe")
        .arg0(PROBE)
        .arg(point)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut asked) = asked else { return false };
    let by = Instant::now() + ANSWER_MAX;
    loop {
        match asked.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < by => thread::sleep(PAUSE),
            _ => {
                // Not waited for: it may be unkillable.
                let _ = asked.kill();
                return false;
            }
        }
    }
}

/// The process that asks. What is not a ktracefs has no `self` with a `ctl`.
pub(super) fn probe(mut args: impl Iterator<Item = OsString>) -> ! {
    let ours = args.next().is_some_and(|point| Path::new(&point).join("self/ctl").symlink_metadata().is_ok());
    std::process::exit(i32::from(!ours));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountinfo_line() {
        let line = b"36 35 0:52 / /mnt/a\\040b rw,nosuid shared:1 - fuse.ktracefs none rw,user_id=0";
        let found = mountinfo_line(line).unwrap();
        assert_eq!(found, Mounted { point: "/mnt/a b".into(), minor: 52 });
        assert_eq!(mountinfo_line(b"36 35 0:52 / /mnt rw - fuse.sshfs none rw"), None);
        for cut in 0..line.len() {
            let _ = mountinfo_line(&line[..cut]);
        }
        assert_eq!(unescape(b"a\\04"), "a\\04");
        assert_eq!(unescape(b"\\777"), "\\777");
    }
}
