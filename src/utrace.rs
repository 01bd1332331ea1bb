//! utrace(2): a record of the calling process's own (R27), for programs. include/utrace.h is the same for C.
//!
//! It costs one write(2) to a file of the mount where one is there, and nothing where none is. It never starts a
//! process, unlike the tools, which ask a mount first whether it answers.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::record::{USER_ID_LEN, USER_MAX};

/// The open file, and of which process it is: a child made by fork(2) needs its own.
static OPEN: Mutex<Option<(u32, File)>> = Mutex::new(None);

/// Makes a USER record of the calling thread, where its process is traced with that facility, and does nothing where
/// it is not, or where no ktracefs is mounted. The mount is `$KTRACE_MOUNT`, else /ktrace, else the first there is.
///
/// `id` has at most 19 bytes; a longer one becomes empty (R9).
///
/// # Errors
/// ENOSPC for more than 2048 bytes of data; EINVAL for an id with a blank, a tab or a newline in it; what the mount says.
pub fn utrace(id: &[u8], data: &[u8]) -> io::Result<()> {
    if data.len() > USER_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    if id.iter().any(|b| b" \t\n".contains(b)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let id = if id.len() < USER_ID_LEN { id } else { b"" };
    // One newline at the end is taken off again, so that data may end in one.
    let record = [id, b" ", data, b"\n"].concat();
    let pid = std::process::id();
    let mut open = OPEN.lock();
    if open.as_ref().is_none_or(|(of, _)| *of != pid) {
        *open = find()?.map(|file| (pid, file));
    }
    let Some((_, file)) = &mut *open else { return Ok(()) };
    file.write_all(&record).inspect_err(|_| {
        // The mount may be another one by now.
        *open = None;
    })
}

fn find() -> io::Result<Option<File>> {
    let named = env::var_os("KTRACE_MOUNT").map(PathBuf::from);
    let usual = Path::new("/ktrace").to_owned();
    for point in named.into_iter().chain([usual]).chain(mounted()) {
        match OpenOptions::new().write(true).open(point.join("self/user")) {
            Ok(file) => return Ok(Some(file)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENOTCONN)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// The first ktracefs of /proc/self/mounts, where its name needs no escapes.
fn mounted() -> Option<PathBuf> {
    let table = fs::read("/proc/self/mounts").ok()?;
    let ours = |line: &&[u8]| line.split(|b| *b == b' ').nth(2) == Some(b"fuse.ktracefs");
    let line = table.split(|b| *b == b'\n').find(ours)?;
    let point = line.split(|b| *b == b' ').nth(1)?;
    (!point.contains(&b'\\')).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(point)))
}
