//! A daemon of our own, built as this bench is.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktrace::record;

/// A mount, gone with this.
#[derive(Debug)]
pub(crate) struct Mount {
    point: PathBuf,
    daemon: Child,
}

impl Mount {
    /// With this backend alone, and so much memory for rings.
    pub(crate) fn new(backend: &str, mem: &str) -> Mount {
        let program = Path::new(env!("CARGO_BIN_EXE_kdump")).with_file_name("ktracefs");
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--release", "-p", "mountd", "--bin", "ktracefs"])
            .status();
        assert!(built.unwrap().success(), "the daemon does not build");
        let point = std::env::temp_dir().join(format!("ktrace-bench-{}", std::process::id()));
        fs::create_dir_all(&point).unwrap();
        let daemon = Command::new(program)
            .args(["-f", "-o", &format!("backend={backend},mem={mem}")])
            .arg(&point)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let by = Instant::now() + Duration::from_secs(10);
        while !ktrace::launch::mounted().iter().any(|m| m.point == point) {
            assert!(Instant::now() < by, "the daemon does not mount");
            thread::sleep(Duration::from_millis(5));
        }
        Mount { point, daemon }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// Process id of the daemon.
    pub(crate) fn daemon(&self) -> u32 {
        self.daemon.id()
    }

    /// Writes one command to a process's ctl.
    pub(crate) fn ctl(&self, pid: i32, line: &str) {
        let mut ctl = OpenOptions::new().write(true).open(self.path(&format!("{pid}/ctl"))).unwrap();
        if let Err(e) = ctl.write_all(line.as_bytes()) {
            let why = fs::read_to_string(self.path("error_log")).unwrap_or_default();
            panic!("{line}: {e}\n{why}");
        }
    }

    /// Reads the trace of a process to its end, and counts.
    pub(crate) fn reader(&self, pid: i32) -> JoinHandle<Counted> {
        let file = File::open(self.path(&format!("{pid}/trace"))).unwrap();
        thread::spawn(move || count(file))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.daemon.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.daemon.wait();
        let _ = fs::remove_dir(&self.point);
    }
}

/// What a reader saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) bytes: u64,
    pub(crate) syscalls: u64,
    pub(crate) sysrets: u64,
    /// Others of the traced's.
    pub(crate) others: u64,
    /// What the stream tells to be missing.
    pub(crate) lost: u64,
}

impl Counted {
    /// Records made, as far as the stream has seen or told of them.
    pub(crate) fn made(&self) -> u64 {
        self.syscalls + self.sysrets + self.others + self.lost
    }

    /// Fails where a record of so many calls is missing that the stream has not told of.
    pub(crate) fn check(&self, words: &[String], calls: u64) {
        let missing = (2 * calls).saturating_sub(self.syscalls + self.sysrets);
        assert!(missing <= self.lost, "{words:?}: {calls} calls, {self:?}");
    }
}

fn count(mut file: File) -> Counted {
    let mut counted = Counted::default();
    let mut buf = vec![0; 1 << 20];
    // The start of a record whose end comes with the next read: where a read is nearly full, one may be cut.
    let mut kept = 0;
    while let Ok(n @ 1..) = file.read(&mut buf[kept..]) {
        counted.bytes += n as u64;
        let end = kept + n;
        let mut at = 0;
        while let Ok(Some(header)) = record::decode_header(&buf[at..end]) {
            if at + record::HEADER_LEN + header.len > end {
                break;
            }
            match header.ktr_type {
                record::KTR_SYSCALL => counted.syscalls += 1,
                record::KTR_SYSRET => counted.sysrets += 1,
                record::KTR_USER => match told(&buf[at + record::HEADER_LEN..][..header.len]) {
                    Some(Told::Lost(records)) => counted.lost += records,
                    Some(Told::End(lost)) => assert_eq!(lost, counted.lost, "losses and their sum"),
                    Some(Told::Other) => {}
                    None => counted.others += 1,
                },
                _ => counted.others += 1,
            }
            at += record::HEADER_LEN + header.len;
        }
        buf.copy_within(at..end, 0);
        kept = end - at;
    }
    counted
}

/// What the stream says of itself.
enum Told {
    /// So many records are missing here.
    Lost(u64),
    /// This is the last record; so many were told to be missing.
    End(u64),
    Other,
}

/// `None` for what the stream does not say itself.
fn told(body: &[u8]) -> Option<Told> {
    let (id, text) = body.split_at_checked(record::USER_ID_LEN)?;
    let text = std::str::from_utf8(text).ok().filter(|_| id.starts_with(record::STREAM_ID))?;
    let number = |text: &str| text.split(' ').next()?.parse().ok();
    if let Some(rest) = text.strip_prefix("lost ") {
        return number(rest).map(Told::Lost);
    }
    match text.rsplit_once(", ").filter(|_| text.starts_with("end: ")) {
        Some((_, lost)) => number(lost).map(Told::End),
        None => Some(Told::Other),
    }
}
