//! Without a mount, and with a backend that only says yes.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ktrace::backend::{Backend, Costs, InForce, Want};
use ktrace::control::Options;
use ktrace::facility::Facs;
use ktrace::policy::Policy;
use ktrace::proc::{Proc, Trace};
use ktrace::record::{self, Body, Decoder, Stamp};
use ktrace::sink::Read;
use ktrace::syscall::Abi;

use super::*;
use crate::inode::ROOT;

struct Yes;

impl Backend for Yes {
    fn name(&self) -> &'static str {
        "yes"
    }

    fn facilities(&self) -> Facs {
        Facs::all()
    }

    fn can(&self, _want: &Want) -> ktrace::Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Arc<Proc>, _: Option<Arc<Trace>>, _: Instant) -> ktrace::Result<InForce> {
        Ok(InForce::All)
    }

    fn settle(&self, _: &Arc<Proc>, _: Instant) -> ktrace::Result<()> {
        Ok(())
    }

    fn costs(&self, _: Option<&Proc>) -> Costs {
        Costs::default()
    }

    fn shutdown(&self, _: Instant) {}
}

fn fs() -> Fs {
    let options = Options {
        size: Some(64 << 10),
        mem: 1 << 20,
        linger: Duration::from_secs(3600),
        policy: Policy::Stop,
        backend: None,
        ignore_yama: true,
        mountpoint: None,
    };
    Fs::new(Ktrace::new(options, |_| vec![Arc::new(Yes)]), None)
}

fn me() -> Caller {
    Caller::new(
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
        nix::unistd::gettid().as_raw(),
    )
}

/// A process that waits, and is killed and reaped at the end.
struct Target(Child);

impl Target {
    fn new() -> Target {
        Target(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn die(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn dir(fs: &Fs, pid: i32) -> u64 {
    fs.lookup(ROOT, pid.to_string().as_bytes()).unwrap().ino
}

fn file(fs: &Fs, pid: i32, name: &str) -> u64 {
    fs.lookup(dir(fs, pid), name.as_bytes()).unwrap().ino
}

fn open(fs: &Fs, ino: u64, flags: i32) -> u64 {
    match fs.open(&me(), ino, flags).unwrap() {
        Opened::Plain(fh) => fh,
        Opened::Stream(_) => panic!("a stream"),
    }
}

fn read(fs: &Fs, ino: u64) -> String {
    let fh = open(fs, ino, libc::O_RDONLY);
    let text = fs.read(&me(), fh, 0, usize::MAX, <[u8]>::to_vec).unwrap();
    fs.release(fh);
    String::from_utf8(text).unwrap()
}

fn write(fs: &Fs, ino: u64, data: &[u8]) -> Result<usize> {
    let fh = open(fs, ino, libc::O_WRONLY);
    let done = fs.write(&me(), fh, data);
    fs.release(fh);
    done
}

fn names(fs: &Fs, ino: u64) -> Vec<String> {
    let fh = fs.opendir(ino).unwrap();
    let mut names = Vec::new();
    fs.readdir(fh, 0, |_, entry| {
        names.push(entry.name.clone());
        true
    })
    .unwrap();
    fs.release(fh);
    names
}

#[test]
fn a_process_has_a_directory_while_it_lives() {
    let fs = fs();
    let mut target = Target::new();
    let ino = dir(&fs, target.pid());
    assert_eq!(fs.attr(ino).unwrap().kind, Kind::Dir);
    assert!(names(&fs, ROOT).contains(&target.pid().to_string()));
    assert_eq!(names(&fs, ino), [".", "..", "ctl", "trace", "text", "user", "stat"]);
    target.die();
    assert_eq!(fs.attr(ino), Err(Errno::ESRCH));
    assert_eq!(fs.lookup(ROOT, target.pid().to_string().as_bytes()), Err(Errno::ENOENT));
    assert_eq!(fs.lookup(ino, b"ctl"), Err(Errno::ENOENT));
}

#[test]
fn only_names_as_proc_writes_them_are_processes() {
    let fs = fs();
    for name in ["", "0", "01", "+1", "-1", " 1", "1 ", "99999999999999999999", "x", "\u{661}"] {
        assert_eq!(fs.lookup(ROOT, name.as_bytes()), Err(Errno::ENOENT), "{name:?}");
    }
    let tid = nix::unistd::gettid().to_string();
    assert_eq!(fs.lookup(ROOT, tid.as_bytes()), Err(Errno::ENOENT), "a thread, not a process");
    assert_eq!(fs.lookup(file(&fs, 1, "ctl"), b"x"), Err(Errno::ENOTDIR));
}

#[test]
fn what_is_set_reads_back_as_the_command_that_sets_it() {
    let fs = fs();
    let target = Target::new();
    let ctl = file(&fs, target.pid(), "ctl");
    assert_eq!(read(&fs, ctl), "clear\n");
    assert_eq!(write(&fs, ctl, b"set syscall,namei +inherit\n"), Ok(27));
    let state = read(&fs, ctl);
    assert!(state.starts_with("set syscall,namei +inherit"), "{state}");
    assert_eq!(write(&fs, ctl, b"clear"), Ok(5));
    assert_eq!(read(&fs, ctl), "clear\n");
    assert_eq!(write(&fs, ctl, state.as_bytes()), Ok(state.len()));
    assert_eq!(read(&fs, ctl), state);
}

#[test]
fn lines_are_commands_and_the_first_that_fails_ends_the_write() {
    let fs = fs();
    let target = Target::new();
    let ctl = file(&fs, target.pid(), "ctl");
    assert_eq!(write(&fs, ctl, b"set namei\n\nset syscall"), Ok(22));
    assert!(read(&fs, ctl).starts_with("set syscall,namei"));
    assert_eq!(write(&fs, ctl, b"clear\nbogus\nset user\n"), Ok(6), "short, before the line that fails");
    assert_eq!(read(&fs, ctl), "clear\n");
    assert_eq!(write(&fs, ctl, b"bogus\nset user\n"), Err(Errno::EINVAL));
    assert_eq!(read(&fs, ctl), "clear\n", "nothing after it was done");
    assert_eq!(write(&fs, ctl, b"clear\xff"), Err(Errno::EINVAL));
    let log = read(&fs, fs.lookup(ROOT, b"error_log").unwrap().ino);
    assert_eq!(log.matches("EINVAL").count(), 3, "{log}");
    assert!(log.starts_with(&format!("{}/ctl: bogus\n", target.pid())), "{log}");
}

#[test]
fn the_root_ctl_names_its_target() {
    let fs = fs();
    let target = Target::new();
    let ctl = fs.lookup(ROOT, b"ctl").unwrap();
    assert_eq!(ctl.mode, 0o222);
    let line = format!("set namei pid={}", target.pid());
    assert_eq!(write(&fs, ctl.ino, line.as_bytes()), Ok(line.len()));
    assert!(read(&fs, file(&fs, target.pid(), "ctl")).starts_with("set namei"));
    assert_eq!(write(&fs, ctl.ino, b"set namei"), Err(Errno::EINVAL), "nobody named");
    assert_eq!(write(&fs, ctl.ino, b"set namei pid=2147483647"), Err(Errno::ESRCH));
}

#[test]
fn an_open_handle_of_a_dead_process_is_esrch_but_nonsense_is_einval_first() {
    let fs = fs();
    let mut target = Target::new();
    let files = ["ctl", "user"].map(|name| open(&fs, file(&fs, target.pid(), name), libc::O_RDWR));
    target.die();
    assert_eq!(fs.write(&me(), files[0], b"clear"), Err(Errno::ESRCH));
    assert_eq!(fs.write(&me(), files[0], b"set namei"), Err(Errno::ESRCH));
    assert_eq!(fs.write(&me(), files[0], b"bogus"), Err(Errno::EINVAL), "R35");
    assert_eq!(fs.write(&me(), files[1], b"id data"), Err(Errno::ESRCH));
    assert_eq!(fs.read(&me(), files[0], 0, 100, <[u8]>::to_vec), Err(Errno::ESRCH));
}

#[test]
fn only_what_makes_sense_can_be_opened_for_writing() {
    let fs = fs();
    let pid = std::process::id() as i32;
    for name in ["trace", "text", "stat"] {
        let got = fs.open(&me(), file(&fs, pid, name), libc::O_RDWR).map(drop);
        assert_eq!(got, Err(Errno::EACCES), "{name}");
    }
    assert_eq!(fs.open(&me(), dir(&fs, pid), libc::O_RDONLY).map(drop), Err(Errno::EISDIR));
    assert_eq!(fs.opendir(file(&fs, pid, "ctl")), Err(Errno::ENOTDIR));
    let stat = open(&fs, file(&fs, pid, "stat"), libc::O_RDONLY);
    assert_eq!(fs.write(&me(), stat, b"x"), Err(Errno::EBADF));
}

#[test]
fn a_text_is_read_in_pieces_and_made_anew_from_its_start() {
    let fs = fs();
    let target = Target::new();
    let ctl = file(&fs, target.pid(), "ctl");
    let fh = open(&fs, ctl, libc::O_RDWR);
    let piece = |offset| String::from_utf8(fs.read(&me(), fh, offset, 3, <[u8]>::to_vec).unwrap()).unwrap();
    assert_eq!((piece(0), piece(3), piece(6)), ("cle".into(), "ar\n".into(), String::new()));
    fs.write(&me(), fh, b"set namei").unwrap();
    assert_eq!(piece(3), "ar\n", "as it was when its start was read");
    assert_eq!((piece(0), piece(u64::MAX)), ("set".into(), String::new()));
    fs.release(fh);
    assert_eq!(fs.read(&me(), fh, 0, 3, <[u8]>::to_vec), Err(Errno::EBADF));
}

#[test]
fn a_listing_is_one_moment_and_can_be_begun_anew() {
    let fs = fs();
    let fh = fs.opendir(ROOT).unwrap();
    let mut first = Vec::new();
    let mut next = 0;
    loop {
        let before = first.len();
        fs.readdir(fh, next, |offset, entry| {
            first.push(entry.clone());
            next = offset;
            !first.len().is_multiple_of(3)
        })
        .unwrap();
        if first.len() == before {
            break;
        }
    }
    let mut names: Vec<&str> = first.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names[..7], [".", "..", "README", "ctl", "stat", "error_log", "self"]);
    assert!(names.contains(&"1"));
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "nothing twice");
    assert!(first.iter().all(|e| e.ino != 0));
    let target = Target::new();
    let pid = target.pid().to_string();
    let mut seen = false;
    fs.readdir(fh, 0, |_, entry| {
        seen |= entry.name == pid;
        true
    })
    .unwrap();
    assert!(seen, "rewound, it shows what is there now");
}

#[test]
fn a_dead_process_stays_while_its_records_are_unread() {
    let fs = fs();
    let mut target = Target::new();
    let pid = target.pid();
    write(&fs, file(&fs, pid, "ctl"), b"set namei").unwrap();
    let proc = fs.ktrace.procs().get_pid(pid).unwrap();
    let stamp = Stamp { pid, tid: pid, ..Stamp::default() };
    let mut bytes = Vec::new();
    record::encode(&mut bytes, &stamp, &Body::Namei(b"/x"));
    proc.trace().unwrap().sink().append(&bytes, &stamp, Abi::Linux);
    target.die();
    fs.ktrace.procs().exit(&proc);
    drop(proc);
    fs.ktrace.sweep();

    assert!(names(&fs, ROOT).contains(&pid.to_string()));
    let Opened::Stream(mut stream) = fs.open(&me(), file(&fs, pid, "trace"), libc::O_RDONLY).unwrap() else {
        panic!("trace is a stream")
    };
    let mut out = Vec::new();
    while stream.read(4096, 1, &mut out).unwrap() == Read::Data {}
    let mut decoder = Decoder::new();
    decoder.feed(&out);
    let mut paths = 0;
    while let Some(record) = decoder.next_record().unwrap() {
        paths += usize::from(record.body() == Body::Namei(b"/x"));
    }
    assert_eq!(paths, 1);
    drop(stream);
    fs.ktrace.sweep();
    assert!(!names(&fs, ROOT).contains(&pid.to_string()), "read to its end and closed");
    assert_eq!(fs.lookup(ROOT, pid.to_string().as_bytes()), Err(Errno::ENOENT));
}

#[test]
fn self_leads_to_the_callers_process() {
    let fs = fs();
    let link = fs.lookup(ROOT, b"self").unwrap();
    assert_eq!(link.kind, Kind::Link);
    assert_eq!(fs.readlink(&me(), link.ino), Ok(std::process::id().to_string()));
    assert_eq!(fs.readlink(&Caller::new(me().uid, me().gid, 0), link.ino), Err(Errno::ENOENT));
    assert_eq!(fs.readlink(&me(), ROOT), Err(Errno::EINVAL));
}

#[test]
fn a_number_that_was_forgotten_is_stale() {
    let fs = fs();
    let target = Target::new();
    let ino = dir(&fs, target.pid());
    fs.forget(ino, 1);
    assert_eq!(fs.attr(ino), Err(Errno::ESTALE));
    assert_ne!(dir(&fs, target.pid()), ino);
}
