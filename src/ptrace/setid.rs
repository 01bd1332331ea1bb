//! Set-id programs under a tracer without CAP_SYS_PTRACE (hazard 21): the kernel would execute them without their
//! privilege, and sudo would break. So the process is let go before the exec runs.
//!
//! Between our look and the exec the file can be replaced: then the program runs without privilege, as under strace.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::memory::Memory;
use super::task::Call;
use crate::syscall::{Arg, Syscall};

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// True for the calls that execute a program.
pub(super) fn is_exec(call: &Syscall) -> bool {
    call.args.contains(&Arg::Argv)
}

/// True where the program that `call` is about to execute would gain privilege by its file.
pub(super) fn gains(tid: i32, call: &Call) -> bool {
    let Some(path) = program(tid, call) else { return false };
    let Ok(meta) = fs::metadata(&path) else { return false };
    let mode = meta.permissions().mode();
    let me = fs::metadata(format!("/proc/{tid}"));
    let (uid, gid) = me.map_or((u32::MAX, u32::MAX), |m| (m.uid(), m.gid()));
    let set_uid = mode & S_ISUID != 0 && meta.uid() != uid;
    let set_gid = mode & S_ISGID != 0 && mode & S_IXGRP != 0 && meta.gid() != gid;
    set_uid || set_gid || crate::sys::has_file_caps(&path)
}

/// The file, as the process would find it.
fn program(tid: i32, call: &Call) -> Option<PathBuf> {
    let known = call.known?;
    let at = known.args.iter().position(|kind| *kind == Arg::Path)?;
    let mut name = Vec::new();
    if !Memory::of(tid, call.abi).string(call.args[at], &mut name) {
        return None;
    }
    let name = Path::new(std::ffi::OsStr::from_bytes(&name));
    if name.is_absolute() {
        return Some(Path::new(&format!("/proc/{tid}/root")).join(name.strip_prefix("/").ok()?));
    }
    let dir = match call.args[0] as i32 {
        fd if at == 1 && fd != libc::AT_FDCWD => format!("/proc/{tid}/fd/{fd}"),
        _ => format!("/proc/{tid}/cwd"),
    };
    Some(if name.as_os_str().is_empty() { PathBuf::from(dir) } else { Path::new(&dir).join(name) })
}
