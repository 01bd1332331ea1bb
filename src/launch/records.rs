//! The file that records are written to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Failure;
use crate::errno::words;
use crate::record::{self, Decoder};

/// A file of records in the layout that was asked for.
#[derive(Debug)]
pub struct Records {
    file: File,
    version: u8,
    decoder: Decoder,
}

impl Records {
    /// Opens `path`, `-` for standard output, to append or from empty, written through to the disk with `sync`, in
    /// `version` 0 to 2.
    ///
    /// # Errors
    /// Those of open(2), and a file that is no regular one (R26).
    pub fn to(path: &Path, append: bool, sync: bool, version: u8) -> Result<Records, Failure> {
        let failed = |e: io::Error| Failure::new(format!("{}: {}", path.display(), words(&e)));
        let file = if path == Path::new("-") {
            File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            // Without O_NONBLOCK a FIFO would wait here for its reader. A regular file does not care.
            let flags = libc::O_NONBLOCK | if sync { libc::O_SYNC } else { 0 };
            let mut options = OpenOptions::new();
            // Emptied below, and appended to in any case (R26): a trace may be written to it already.
            options.create(true).append(true).custom_flags(flags);
            let irregular = || Failure::new(format!("{}: not a regular file", path.display()));
            let file = options.open(path).map_err(|e| match e.raw_os_error() {
                // A FIFO that nobody reads.
                Some(libc::ENXIO) => irregular(),
                _ => failed(e),
            })?;
            if !file.metadata().map_err(failed)?.is_file() {
                return Err(irregular());
            }
            if !append {
                file.set_len(0).map_err(failed)?;
            }
            file
        };
        Ok(Records { file, version, decoder: Decoder::new() })
    }

    /// The file itself, where its layout is the stream's own: then others can write it.
    pub fn as_stream(&self) -> Option<BorrowedFd<'_>> {
        (self.version == record::VERSION).then(|| self.file.as_fd())
    }

    /// Writes the next bytes of a stream. In version 2 they go out as they are.
    ///
    /// # Errors
    /// Those of write(2), and bytes that are no stream.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.version == record::VERSION {
            return self.file.write_all(bytes);
        }
        self.decoder.feed(bytes);
        let mut older = Vec::with_capacity(bytes.len());
        while let Some(record) = self.decoder.next_record().map_err(io::Error::other)? {
            record::encode_as(&mut older, self.version, &record);
        }
        self.file.write_all(&older)
    }
}
