//! A command that is traced from its exec on.
//!
//! This program starts itself again as a *launcher*, which waits for its one line, writes it to its own `ctl` and calls
//! execve(2) once, with everything made ready before: so the first record is the CALL of that execve.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access};

use super::mount::Mount;
use super::request::{Request, Target};
use super::{Failure, LAUNCHER};
use crate::facility::Facs;
use crate::seccomp;
use crate::sys::{self, Image};
use crate::syscall::Calls;

/// At which step a launcher failed: the first byte of its answer; the errno follows.
const STEP_CTL: u8 = b'c';
const STEP_EXEC: u8 = b'x';

/// A launcher that waits for its line.
#[derive(Debug)]
pub(super) struct Launcher {
    child: Child,
    link: UnixStream,
    name: String,
}

/// Why the command does not run.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// The `ctl` file refused, with this errno.
    Ctl(Errno),
    /// It could not be run.
    Other(Failure),
}

impl Launcher {
    /// Starts one for `command`, found as a shell finds it. It has `file` under the same number, and the command will
    /// not.
    pub(super) fn start(command: &[OsString], file: Option<BorrowedFd<'_>>) -> Result<Launcher, Failure> {
        let path = find(&command[0])?;
        let name = command[0].to_string_lossy().into_owned();
        let failed = |e: std::io::Error| Failure::new(format!("cannot start {name}: {e}"));
        let (link, theirs) = UnixStream::pair().map_err(failed)?;
        for fd in [Some(theirs.as_fd()), file].into_iter().flatten() {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| failed(e.into()))?;
        }
        let child = Command::new("/proc/self/exe")
            .arg0(LAUNCHER)
            .arg(theirs.as_raw_fd().to_string())
            .arg(file.map_or(-1, |file| file.as_raw_fd()).to_string())
            .arg(path)
            .args(command)
            .spawn()
            .map_err(failed)?;
        Ok(Launcher { child, link, name })
    }

    /// The process that becomes the command.
    pub(super) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Lets it write what is asked for to its `ctl` under `mount`, and become the command.
    pub(super) fn go(mut self, mount: &Mount, request: &Request) -> Result<Child, NotStarted> {
        let mut message = mount.point().as_os_str().as_bytes().to_vec();
        let room = request.room(mount.is_by_ptrace(), true);
        for part in [request.filter(), request.set_line(Target::Own, &room)] {
            message.push(0);
            message.extend_from_slice(part.as_bytes());
        }
        let mut answer = Vec::new();
        let talked = (&self.link)
            .write_all(&message)
            .and_then(|()| self.link.shutdown(Shutdown::Write))
            .and_then(|()| (&self.link).read_to_end(&mut answer));
        let why = match (talked, answer.split_first()) {
            (Ok(_), None) => return Ok(self.child),
            (Ok(_), Some((&step, errno))) => {
                let errno = Errno::from_raw(errno.first_chunk().map_or(0, |e| i32::from_le_bytes(*e)));
                match step {
                    STEP_CTL => NotStarted::Ctl(errno),
                    _ => NotStarted::Other(cannot_run(&self.name, errno)),
                }
            }
            (Err(e), _) => NotStarted::Other(Failure::new(format!("cannot start {}: {e}", self.name))),
        };
        // It has said why and is ending by itself.
        let _ = self.child.wait();
        Err(why)
    }

    /// The launcher ends when its link closes without a line.
    pub(super) fn cancel(mut self) {
        drop(self.link);
        let _ = self.child.wait();
    }
}

/// Like a shell: 127 where there is no such file, 126 where it cannot be run.
fn cannot_run(name: &str, errno: Errno) -> Failure {
    let status = if errno == Errno::ENOENT { 127 } else { 126 };
    Failure { what: format!("{name}: {}", errno.desc()), status }
}

/// The file that a shell would run for this word.
fn find(word: &OsStr) -> Result<PathBuf, Failure> {
    let name = word.to_string_lossy();
    if word.is_empty() {
        return Err(cannot_run("''", Errno::ENOENT));
    }
    if word.as_bytes().contains(&b'/') {
        let path = PathBuf::from(word);
        return match runnable(&path) {
            Ok(()) => Ok(path),
            Err(errno) => Err(cannot_run(&name, errno)),
        };
    }
    let mut why = Errno::ENOENT;
    let dirs = env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    for dir in env::split_paths(&dirs) {
        let path = if dir.as_os_str().is_empty() { Path::new(".").join(word) } else { dir.join(word) };
        match runnable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => why = errno,
        }
    }
    if why == Errno::ENOENT {
        return Err(Failure { what: format!("{name}: command not found"), status: 127 });
    }
    Err(cannot_run(&name, why))
}

fn runnable(path: &Path) -> Result<(), Errno> {
    let meta = path.metadata().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    if meta.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

/// The launcher: arguments are the number of its link, that of the file handed over or -1, the program, and the
/// command's own.
pub(super) fn become_it(mut args: impl Iterator<Item = OsString>) -> ! {
    // It comes back only where the command does not run; who started us was told why.
    let _ = run(&mut args);
    std::process::exit(126);
}

fn run(args: &mut dyn Iterator<Item = OsString>) -> Option<()> {
    let number: i32 = args.next()?.to_str()?.parse().ok()?;
    let link: OwnedFd = sys::inherited(number).ok()?;
    fcntl(&link, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    let mut link = UnixStream::from(link);
    let file: i32 = args.next()?.to_str()?.parse().ok()?;
    // Standard output the command has anyway.
    if file > 2 {
        // Kept open to the exec, and no further.
        let file = std::mem::ManuallyDrop::new(sys::inherited(file).ok()?);
        fcntl(&*file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    }
    let path = args.next()?;
    let env = env::vars_os().map(|(name, value)| {
        let mut pair = name.into_vec();
        pair.push(b'=');
        pair.extend(value.into_vec());
        pair
    });
    let image = Image::new(path.into_vec(), args.map(OsString::into_vec), env)?;
    // The first record carries the tool's name, not that of the link it was started by.
    let tool = env::current_exe().ok()?.file_name()?.to_owned();
    nix::sys::prctl::set_name(&CString::new(tool.into_vec()).ok()?).ok()?;
    // The runtime of this program ignores it; the command must not.
    sys::default_action(Signal::SIGPIPE).ok()?;

    let mut message = Vec::new();
    link.read_to_end(&mut message).ok()?;
    let mut parts = message.splitn(3, |&b| b == 0);
    let (mount, words, line) = (parts.next()?, parts.next()?, parts.next()?);
    let ctl = Path::new(OsStr::from_bytes(mount)).join("self/ctl");
    let filter = filter(words);
    let (step, errno) = match OpenOptions::new().write(true).open(ctl) {
        Err(e) => (STEP_CTL, Errno::from_raw(e.raw_os_error().unwrap_or(0))),
        Ok(ctl) => match nix::unistd::write(&ctl, line) {
            Err(errno) => (STEP_CTL, errno),
            // From here to the exec nothing else may be called: it would be recorded.
            Ok(_) => match filter.as_deref().map_or(Ok(()), sys::install_filter) {
                Ok(()) => (STEP_EXEC, image.exec()),
                Err(errno) => (STEP_EXEC, errno),
            },
        },
    };
    let mut answer = vec![step];
    answer.extend_from_slice(&(errno as i32).to_le_bytes());
    link.write_all(&answer).ok()
}

/// The filter that [`Request::filter`] asks for.
fn filter(words: &[u8]) -> Option<Vec<seccomp::Instruction>> {
    let (facs, calls) = std::str::from_utf8(words).ok()?.split_once(' ')?;
    let facs = Facs::from_bits_truncate(facs.parse().ok()?);
    // The daemon has refused what cannot be read.
    let calls = Some(calls).filter(|calls| !calls.is_empty()).and_then(|calls| Calls::parse(calls).ok());
    Some(seccomp::program(facs, calls.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        assert_eq!(find(OsStr::new("/bin/sh")).unwrap(), Path::new("/bin/sh"));
        assert!(find(OsStr::new("sh")).unwrap().ends_with("sh"));
        assert_eq!(find(OsStr::new("no-such-command-here")).unwrap_err().status, 127);
        assert_eq!(find(OsStr::new("/no/such/file")).unwrap_err().status, 127);
        assert_eq!(find(OsStr::new("")).unwrap_err().status, 127);
        assert_eq!(find(OsStr::new("/etc/passwd")).unwrap_err().status, 126);
        assert_eq!(find(OsStr::new("/etc")).unwrap_err().status, 126);
    }
}
