//! Processes: what /proc says of them, their identity, and the table of the traced ones.

mod auxv;
mod table;

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;

use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::pids::{PidSet, Pids};
use crate::record::Comm;
use crate::sink::{Sink, Writer};
use crate::syscall::Calls;

pub(crate) use auxv::Auxv;
pub use table::{Binding, Bound, Proc, ProcTable};

/// Which process, for good: a number alone is used again (invariant 6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ProcId {
    /// Process id.
    pub pid: i32,
    /// Inode number of its pidfd, which no other process ever has (pidfs, Linux 6.9); 0 on older kernels.
    pub inode: u64,
    /// Where that is 0, its start time in clock ticks since boot (field 22 of /proc/pid/stat): good but for a number that is
    /// used again within one tick.
    pub start: u64,
}

impl ProcId {
    /// The process that has this number now.
    ///
    /// # Errors
    /// ESRCH where there is none, or the number is a thread's; EMFILE, ENFILE and ENOMEM, which say nothing of it.
    pub fn of(pid: i32) -> Result<ProcId> {
        // It refuses a thread that leads no process. Far cheaper than anything in /proc.
        let fd = crate::sys::pidfd_open(pid).map_err(|errno| gone("pidfd_open", pid, errno))?;
        Ok(match inode(&fd) {
            0 => ProcId { pid, inode: 0, start: Stat::of(pid)?.start },
            inode => ProcId { pid, inode, start: 0 },
        })
    }

    /// That this is still the process with that number, and that it is not dead.
    ///
    /// # Errors
    /// ESRCH.
    pub fn check(self) -> Result<Stat> {
        self.stat().and_then(|stat| match stat.is_dead() {
            false => Ok(stat),
            true => Err(Error::Gone { pid: self.pid }),
        })
    }

    /// What /proc says of this very process, be it a zombie.
    ///
    /// # Errors
    /// ESRCH.
    pub fn stat(self) -> Result<Stat> {
        let stat = Stat::of(self.pid)?;
        self.is_it(Some(&stat))?;
        Ok(stat)
    }

    /// That this very process has that number still, be it a zombie: what was read by the number before this was its.
    /// Mostly needs nothing of /proc.
    ///
    /// # Errors
    /// ESRCH.
    pub fn is_there(self) -> Result<()> {
        self.is_it(None)
    }

    fn is_it(self, stat: Option<&Stat>) -> Result<()> {
        let is_it = match (self.inode, stat) {
            (0, Some(stat)) => stat.start == self.start,
            (0, None) => Stat::of(self.pid)?.start == self.start,
            (mine, _) => inode(&pidfd(self.pid)?) == mine,
        };
        if is_it { Ok(()) } else { Err(Error::Gone { pid: self.pid }) }
    }
}

/// What it means that a process cannot be looked at: it is gone, unless it is we who lack something.
fn gone(op: &'static str, pid: i32, errno: Errno) -> Error {
    match errno {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Error::sys(op, pid, errno),
        _ => Error::Gone { pid },
    }
}

/// The same of an error of the standard library.
fn gone_io(pid: i32, error: &io::Error) -> Error {
    gone("open in /proc", pid, Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// Inode number of a pidfd, 0 where it says nothing of the process.
fn inode(pidfd: &OwnedFd) -> u64 {
    /// `PID_FS_MAGIC` of the kernel's uapi/linux/magic.h. Before pidfs all pidfds had one inode.
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    static HAS_PIDFS: OnceLock<bool> = OnceLock::new();
    let of_pidfs = || fstatfs(pidfd).is_ok_and(|fs| fs.filesystem_type().0 == PID_FS_MAGIC);
    match HAS_PIDFS.get_or_init(of_pidfs) {
        true => fstat(pidfd).map_or(0, |stat| stat.st_ino),
        false => 0,
    }
}

/// What /proc/pid/stat says (proc_pid_stat(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Command name.
    pub comm: Comm,
    /// State letter.
    pub state: u8,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgrp: i32,
    /// Kernel flags of the process (`PF_*`).
    pub flags: u32,
    /// Number of threads.
    pub threads: u32,
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// The cpu that it runs on, or ran on last.
    pub cpu: usize,
    /// Its scheduling policy (sched(7)).
    pub policy: i32,
}

/// `PF_EXITING` of the kernel's sched.h: set before anybody is told that the thread ends.
const PF_EXITING: u32 = 0x0000_0004;
/// `PF_KTHREAD`.
const PF_KTHREAD: u32 = 0x0020_0000;

impl Stat {
    /// Of a process or thread.
    ///
    /// # Errors
    /// ESRCH.
    pub fn of(pid: i32) -> Result<Stat> {
        Stat::parse(&read(pid, "stat")?).ok_or(Error::Gone { pid })
    }

    fn parse(text: &[u8]) -> Option<Stat> {
        // The name may hold anything, parentheses too: it ends at the last one.
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        let comm = Comm::new(text.get(open + 1..close)?);
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let mut field = rest.split_ascii_whitespace();
        let state = *field.next()?.as_bytes().first()?;
        let ppid = field.next()?.parse().ok()?;
        let pgrp = field.next()?.parse().ok()?;
        let flags = field.nth(3)?.parse().ok()?;
        let threads = field.nth(10)?.parse().ok()?;
        let start = field.nth(1)?.parse().ok()?;
        let cpu = field.nth(16)?.parse().ok()?;
        let policy = field.nth(1)?.parse().ok()?;
        Some(Stat { comm, state, ppid, pgrp, flags, threads, start, cpu, policy })
    }

    /// Kernel threads have no memory of their own and cannot be traced.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// A thread that has exited, or is on its way out.
    pub fn is_ending(&self) -> bool {
        self.flags & PF_EXITING != 0
    }

    /// Of the fair class of sched(7), in which every thread has its share.
    pub fn is_fair(&self) -> bool {
        matches!(self.policy, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE)
    }

    /// A process of which no thread lives: a zombie, or one being removed. One whose first thread has exited before the
    /// others looks like a zombie, but has more threads than that.
    pub fn is_dead(&self) -> bool {
        self.has_exited() && self.threads <= 1
    }

    /// A thread that has exited, though its process may live on.
    pub fn has_exited(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// /proc/pid/status, whatever bytes the command name in it has.
pub(crate) fn status(pid: i32) -> Result<String> {
    let text = read(pid, "status")?;
    Ok(String::from_utf8(text).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// A file of /proc/pid, in as few reads as it takes: these files say that they are empty.
pub(crate) fn read(pid: i32, name: &str) -> Result<Vec<u8>> {
    const ROOM: usize = 4096;
    let mut text = Vec::with_capacity(ROOM);
    let file = fs::File::open(format!("/proc/{pid}/{name}"));
    // Through `take`, as a file's own read_to_end asks for its size first.
    file.and_then(|file| file.take(u64::MAX).read_to_end(&mut text)).map_err(|e| gone_io(pid, &e))?;
    Ok(text)
}

/// One field of /proc/pid/status, its text after the colon.
///
/// # Errors
/// ESRCH.
pub fn status_field(pid: i32, name: &str) -> Result<String> {
    let text = status(pid)?;
    let field = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(field.unwrap_or("").trim().to_owned())
}

/// The process that thread `tid` belongs to. A process id from FUSE is a thread's.
///
/// # Errors
/// ESRCH.
pub fn tgid(tid: i32) -> Result<i32> {
    status_field(tid, "Tgid")?.parse().map_err(|_| Error::Gone { pid: tid })
}

/// The tracer of a thread, 0 for none.
pub fn tracer_of(tid: i32) -> i32 {
    status_field(tid, "TracerPid").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The living threads of a process.
///
/// # Errors
/// ESRCH.
pub fn threads(pid: i32) -> Result<Vec<i32>> {
    numbers(&format!("/proc/{pid}/task")).map_err(|e| gone_io(pid, &e))
}

/// Whether every thread of this process is on its way out, or it is gone. It is no zombie yet while its memory is taken down.
pub fn is_ending(pid: i32) -> bool {
    let ends = |tid: &i32| Stat::of(*tid).map_or(true, |stat| stat.is_ending());
    // Mostly the first says it.
    ends(&pid) && threads(pid).map_or(true, |tids| tids.iter().all(ends))
}

/// Whether `tid` is a thread of the process `pid`, be it a zombie. Needs no descriptor.
pub(crate) fn has_thread(pid: i32, tid: i32) -> bool {
    fs::metadata(format!("/proc/{pid}/task/{tid}")).is_ok()
}

/// Every process id there is.
///
/// # Errors
/// Those of reading /proc.
pub fn pids() -> io::Result<Vec<i32>> {
    numbers("/proc")
}

fn numbers(dir: &str) -> io::Result<Vec<i32>> {
    let names = fs::read_dir(dir)?;
    Ok(names.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// All living descendants of these processes, parents before their children, themselves not among them.
pub fn descendants(of: &[i32]) -> Vec<i32> {
    let mut children: Pids<Vec<i32>> = Pids::default();
    for pid in pids().unwrap_or_default() {
        if let Ok(stat) = Stat::of(pid) {
            children.entry(stat.ppid).or_default().push(pid);
        }
    }
    below(of, children)
}

/// Those below these processes by who has which children, in time that grows with their number alone: whoever asks may hold a
/// lock, and a tree may have thousands.
fn below(of: &[i32], mut children: Pids<Vec<i32>>) -> Vec<i32> {
    let mut met: PidSet = of.iter().copied().collect();
    let mut found = of.to_vec();
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let new = children.remove(parent).unwrap_or_default();
        found.extend(new.into_iter().filter(|pid| met.insert(*pid)));
        next += 1;
    }
    found.split_off(of.len())
}

/// The members of a process group.
pub fn group(pgrp: i32) -> Vec<i32> {
    let member = |pid: &i32| Stat::of(*pid).is_ok_and(|s| s.pgrp == pgrp && !s.is_dead());
    pids().unwrap_or_default().into_iter().filter(member).collect()
}

/// What is traced of a process, and into which file: `p_traceflag` and `p_tracep` of the seed. Never changed: a change
/// is a new one.
#[derive(Debug)]
pub struct Trace {
    /// The facilities.
    pub facs: Facs,
    /// `KTRFAC_INHERIT`: new children get the same.
    pub inherit: bool,
    /// `KTRFAC_ROOT`: set by uid 0, and kept across a set-id exec (R18, R23).
    pub root: bool,
    /// What is not wanted does not stop, once the process has a filter of its own for that ([`crate::seccomp`]).
    pub seccomp: bool,
    /// Only these system calls, all where `None`.
    pub calls: Option<Arc<Calls>>,
    /// Name of the backend that watches.
    pub backend: &'static str,
    /// The trace file, kept open by this.
    pub writer: Writer,
}

impl Trace {
    /// The trace file.
    pub fn sink(&self) -> &Arc<Sink> {
        self.writer.sink()
    }

    /// True where it is root's, flag and file: root may have joined a user's trace file, and that user reads it.
    pub fn is_roots(&self) -> bool {
        self.root && self.sink().owner() == 0
    }

    /// The same into the same file, for an inheriting child.
    pub fn inherited(&self) -> Trace {
        Trace {
            facs: self.facs,
            inherit: self.inherit,
            root: self.root,
            seccomp: self.seccomp,
            calls: self.calls.clone(),
            backend: self.backend,
            writer: self.sink().writer(),
        }
    }
}

/// A pidfd: readable when the process is dead.
///
/// # Errors
/// ESRCH, or what pidfd_open(2) says.
pub fn pidfd(pid: i32) -> Result<OwnedFd> {
    crate::sys::pidfd_open(pid).map_err(|errno| Error::sys("pidfd_open", pid, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_no_process() {
        let pid = std::process::id() as i32;
        assert_eq!(ProcId::of(pid).map(|id| id.pid), Ok(pid));
        let tid = nix::unistd::gettid().as_raw();
        assert_ne!(tid, pid, "tests run in threads");
        assert_eq!(tgid(tid), Ok(pid));
        assert_eq!(ProcId::of(tid), Err(Error::Gone { pid: tid }));
        assert_eq!(ProcId::of(0), Err(Error::Gone { pid: 0 }));
    }

    #[test]
    fn a_zombie_is_there_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcId::of(child.id() as i32).unwrap();
        let by = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while id.check().is_ok() {
            assert!(std::time::Instant::now() < by, "it does not end");
            std::thread::yield_now();
        }
        // As on a kernel whose pidfds say nothing.
        let old = ProcId { inode: 0, start: Stat::of(id.pid).unwrap().start, ..id };
        let other = [ProcId { inode: id.inode + 1, ..id }, ProcId { start: old.start + 1, ..old }];
        assert_eq!([id, old].map(|id| id.is_there().is_ok()), [true; 2]);
        assert_eq!(other.map(|id| id.is_there().is_ok()), [false; 2]);
        child.wait().unwrap();
        assert_eq!(id.is_there().unwrap_err().errno(), libc::ESRCH);
    }

    #[test]
    fn who_is_below_is_found_once_and_after_its_parent() {
        let tree = |pairs: &[(i32, i32)]| {
            let mut children: Pids<Vec<i32>> = Pids::default();
            pairs.iter().for_each(|(pid, ppid)| children.entry(*ppid).or_default().push(*pid));
            children
        };
        let pairs = [(2, 1), (3, 2), (4, 2), (5, 4), (6, 1), (9, 8)];
        assert_eq!(below(&[2], tree(&pairs)), [3, 4, 5]);
        assert_eq!(below(&[4, 2, 2], tree(&pairs)), [5, 3], "who is asked for is not below");
        assert_eq!(below(&[7], tree(&pairs)), []);
        // Looked at one after the other, a number may be used again: then they seem to be each other's.
        assert_eq!(below(&[1], tree(&[(2, 1), (3, 2), (2, 3)])), [2, 3]);
    }

    #[test]
    fn to_find_who_is_below_takes_no_longer_for_each_however_many_there_are() {
        // To look at all of them for each would take so long that nobody waits for it.
        const MANY: i32 = 300_000;
        let chain = (1..MANY).map(|pid| (pid, vec![pid + 1])).collect();
        assert!(below(&[1], chain).into_iter().eq(2..=MANY));
        let star = [(1, (2..=MANY).collect())].into_iter().collect();
        assert_eq!(below(&[1], star).len(), MANY as usize - 1);
    }

    #[test]
    fn a_command_name_may_be_any_bytes() {
        let name = b"\xff) R (\n\xfe";
        fs::write("/proc/thread-self/comm", name).unwrap();
        let tid = nix::unistd::gettid().as_raw();
        assert_eq!(Stat::of(tid).map(|s| s.comm), Ok(Comm::new(name)));
        assert_eq!(tgid(tid), Ok(std::process::id() as i32));
    }
}
