//! Set-id programs under a tracer without CAP_SYS_PTRACE (hazard 21): the kernel would execute them without their
//! privilege, and sudo would break. So the process is let go before the exec runs.
//!
//! Between our look and the exec the file can be replaced: then the program runs without privilege, as under strace.

#[cfg(test)]
mod tests;

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::memory::Memory;
use super::task::Call;
use crate::cred::Creds;
use crate::syscall::{Arg, Syscall};

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;
/// As far as the kernel reads a script's first line (`BINPRM_BUF_SIZE`).
const LINE: u64 = 256;
/// How many interpreters the kernel follows (`exec_binprm` of its fs/exec.c).
const INTERPRETERS: usize = 5;

/// True for the calls that execute a program.
pub(super) fn is_exec(call: &Syscall) -> bool {
    call.args.contains(&Arg::Argv)
}

/// True where the program that `call` is about to execute would gain privilege by its file.
pub(super) fn gains(tid: i32, call: &Call) -> bool {
    let Some(path) = program(tid, call) else { return false };
    let Ok(creds) = Creds::of(tid) else { return false };
    !creds.no_new_privs && executed(tid, path).is_some_and(|path| privileged(&creds, &path))
}

/// True where these ids are others after the program's bits, or it carries capabilities.
fn privileged(creds: &Creds, path: &Path) -> bool {
    let Ok(meta) = path.metadata() else { return false };
    if statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOSUID)) {
        return false;
    }
    changes_ids(creds, &meta) || crate::sys::has_file_caps(path)
}

/// The kernel takes privilege for gained where the new effective id is not the real one (`cap_bprm_creds_from_file`).
fn changes_ids(creds: &Creds, file: &Metadata) -> bool {
    let mode = file.permissions().mode();
    let set_uid = mode & S_ISUID != 0 && file.uid() != creds.uid[0];
    // Without the group's right to execute, the bit means something else.
    let set_gid = mode & S_ISGID != 0 && mode & S_IXGRP != 0 && file.gid() != creds.gid[0];
    set_uid || set_gid
}

/// The file whose bits count: of a script it is its interpreter, and the script's own bits count for nothing.
fn executed(tid: i32, mut path: PathBuf) -> Option<PathBuf> {
    for _ in 0..=INTERPRETERS {
        match interpreter(&path) {
            Some(name) => path = found(tid, &name, format!("/proc/{tid}/cwd")),
            None => return Some(path),
        }
    }
    // The kernel goes no further either: ELOOP.
    None
}

/// What the first line of a script names.
fn interpreter(path: &Path) -> Option<Vec<u8>> {
    // Not every file can be read at once, or twice.
    if !path.metadata().is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut line = Vec::new();
    file.take(LINE).read_to_end(&mut line).ok()?;
    named(&line)
}

fn named(line: &[u8]) -> Option<Vec<u8>> {
    let rest = line.strip_prefix(b"#!")?;
    let rest = rest.split(|&b| b == b'\n' || b == 0).next()?;
    let name = rest.split(|b| matches!(b, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(name.to_vec())
}

/// The file, as the process would find it.
fn program(tid: i32, call: &Call) -> Option<PathBuf> {
    let known = call.known?;
    let at = known.args.iter().position(|kind| *kind == Arg::Path)?;
    let mut name = Vec::new();
    if !Memory::of(tid, call.abi).string(call.args[at], &mut name) {
        return None;
    }
    let dir = match call.args[0] as i32 {
        fd if at == 1 && fd != libc::AT_FDCWD => format!("/proc/{tid}/fd/{fd}"),
        _ => format!("/proc/{tid}/cwd"),
    };
    Some(found(tid, &name, dir))
}

/// Where a name leads from `dir`.
fn found(tid: i32, name: &[u8], dir: String) -> PathBuf {
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    match name.strip_prefix("/") {
        Ok(inside) => Path::new(&format!("/proc/{tid}/root")).join(inside),
        Err(_) if name.as_os_str().is_empty() => PathBuf::from(dir),
        Err(_) => Path::new(&dir).join(name),
    }
}
