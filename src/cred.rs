//! Credentials, and who may trace whom (R33; docs/ktracefs.md, "Who may").
//!
//! The permission has two halves: [`canset`] is the seed's rule, pure; [`linux_allows`] is what Linux itself asks of
//! someone who would trace. Both must say yes.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::proc;
use crate::sys;

/// Who asks: the credentials of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// File system uid.
    pub uid: u32,
    /// File system gid.
    pub gid: u32,
    /// The thread that asks, as the daemon numbers it; 0 where it cannot be seen.
    pub tid: i32,
    /// What /proc says of it: it is looked up once in a request, as the caller waits for us.
    seen: OnceLock<Option<Creds>>,
}

impl Caller {
    /// Who asks with these ids.
    pub fn new(uid: u32, gid: u32, tid: i32) -> Caller {
        Caller { uid, gid, tid, seen: OnceLock::new() }
    }

    /// The thread's credentials; `None` where it is gone, or cannot be seen from here.
    fn creds(&self) -> Option<&Creds> {
        self.seen.get_or_init(|| Creds::of(self.tid).ok().filter(|_| self.tid > 0)).as_ref()
    }

    /// What this caller may do through a file that `opener` has opened: no more than either of them. A program with
    /// privilege writes its messages wherever its user has sent them.
    ///
    /// # Errors
    /// EPERM where another user, who is not root, has opened the file.
    pub fn through(&self, opener: &Caller) -> Result<Caller> {
        if opener.uid != 0 && (opener.uid, opener.gid) != (self.uid, self.gid) {
            let why = format!("uid {} has opened the file, and uid {} writes to it", opener.uid, self.uid);
            return Err(Error::Denied { pid: self.process(), why: why.into() });
        }
        let caps = opener.creds().map_or(0, |creds| creds.caps);
        let seen = self.creds().map(|creds| Creds { caps: creds.caps & caps, ..creds.clone() });
        Ok(Caller { seen: OnceLock::from(seen), ..*self })
    }

    /// Looks at the caller now, who may be another one later.
    #[must_use]
    pub fn looked_at(self) -> Caller {
        self.creds();
        self
    }

    /// The process of the thread, 0 where it is gone.
    pub fn process(&self) -> i32 {
        self.creds().map_or(0, |creds| creds.tgid)
    }
}

/// The ids of a thread or process: real, effective, saved (credentials(7)), and what else decides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Creds {
    /// The process.
    pub tgid: i32,
    /// Its parent.
    pub ppid: i32,
    /// Real, effective and saved uid.
    pub uid: [u32; 3],
    /// Real, effective and saved gid.
    pub gid: [u32; 3],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective capabilities, one bit each (capabilities(7)).
    pub caps: u64,
    /// No program gives it more than it has (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
    /// A zombie of which no thread lives, or one being removed (as [`proc::Stat::is_dead`]).
    pub dead: bool,
}

/// `CAP_SYS_PTRACE` of capabilities(7).
const CAP_SYS_PTRACE: u32 = 19;

impl Creds {
    /// Of a process or thread.
    ///
    /// # Errors
    /// ESRCH.
    pub fn of(tid: i32) -> Result<Creds> {
        let text = proc::status(tid)?;
        Creds::parse(&text).ok_or(Error::Gone { pid: tid })
    }

    fn parse(text: &str) -> Option<Creds> {
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
        let numbers = |name| -> Option<Vec<u32>> {
            field(name)?.split_ascii_whitespace().map(|n| n.parse().ok()).collect()
        };
        let ended = field("State:")?.trim_start().starts_with(['Z', 'X', 'x']);
        let ids = |name| numbers(name)?.get(..3)?.try_into().ok();
        Some(Creds {
            tgid: field("Tgid:")?.trim().parse().ok()?,
            ppid: field("PPid:")?.trim().parse().ok()?,
            uid: ids("Uid:")?,
            gid: ids("Gid:")?,
            groups: numbers("Groups:")?,
            caps: u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?,
            no_new_privs: field("NoNewPrivs:").is_some_and(|set| set.trim() == "1"),
            dead: ended && field("Threads:").is_none_or(|n| matches!(n.trim(), "0" | "1")),
        })
    }

    /// The one uid and gid where real, effective and saved are equal, else root's: whom the files of a process belong to.
    pub fn owner(&self) -> (u32, u32) {
        let same = |ids: [u32; 3]| ids[0] == ids[1] && ids[1] == ids[2];
        if same(self.uid) && same(self.gid) { (self.uid[0], self.gid[0]) } else { (0, 0) }
    }
}

/// `ktrcanset` (R33): whether a caller may trace a process that is, or is not, marked ROOT. Supplementary groups never
/// count (F2). `capable`: uid 0 counts only with CAP_SYS_PTRACE over the process; without, it is a user like others.
///
/// # Errors
/// The reason why not.
pub fn canset(caller: &Creds, capable: bool, target: &Creds, root_marked: bool) -> Result<(), &'static str> {
    let [_, uid, _] = caller.uid;
    let [gid, ..] = caller.gid;
    match () {
        () if uid == 0 && capable => Ok(()),
        () if root_marked => Err("root traces it"),
        () if target.uid[0] != uid || target.uid[2] != uid => Err("it belongs to another user"),
        () if target.gid[0] != gid || target.gid[2] != gid => Err("it has another group"),
        () => Ok(()),
    }
}

fn is_capable(who: &Creds, pid: i32) -> bool {
    who.caps >> CAP_SYS_PTRACE & 1 == 1 && rules_over(who.tgid, pid)
}

/// The whole permission: R33 and Linux. `yama` is what Yama's `ptrace_scope` says, `None` where it does not count. True where
/// what the caller does to the process is done as root (R18): by uid 0 with CAP_SYS_PTRACE over it.
///
/// # Errors
/// EPERM with the reason; ESRCH.
pub fn may_trace(caller: &Caller, pid: i32, root_marked: bool, yama: Option<u8>) -> Result<bool> {
    let denied = |why: &'static str| Error::Denied { pid, why: Cow::Borrowed(why) };
    if caller.tid <= 0 {
        return Err(denied("the caller is in a pid namespace that cannot be seen from here"));
    }
    let mut who = caller.creds().ok_or_else(|| denied("the caller is gone"))?.clone();
    who.uid[1] = caller.uid;
    who.gid[1] = caller.gid;
    let target = Creds::of(pid)?;
    let capable = is_capable(&who, pid);
    canset(&who, capable, &target, root_marked).map_err(denied)?;
    linux_allows(&who, capable, pid, yama)?;
    Ok(caller.uid == 0 && capable)
}

/// What Linux asks: root needs CAP_SYS_PTRACE over the process's user namespace, others must be able to read its
/// environment (ptrace(2), "Ptrace access mode checking"), and Yama may ask for more.
fn linux_allows(caller: &Creds, capable: bool, pid: i32, yama: Option<u8>) -> Result<()> {
    let denied = |why: &'static str| Error::Denied { pid, why: Cow::Borrowed(why) };
    if !capable && !reads_environ(caller, pid)? {
        return Err(denied(match caller.uid[1] {
            0 => "root without CAP_SYS_PTRACE over its user namespace",
            _ => "Linux does not let the caller look into it (it is not dumpable, or its ids differ)",
        }));
    }
    // What the kernel asks beyond the ids (`cap_ptrace_access_check`): the ids of a namespace are worth nothing outside.
    if !capable && in_other_namespaces(caller.tgid, pid) {
        return Err(denied("it is in another user namespace than the caller"));
    }
    let descends = || descends(caller.tgid, pid);
    yama.map_or(Ok(()), |scope| yama_allows(scope, capable, descends).map_err(denied))
}

/// What Yama's `ptrace_scope` says; `None` where the kernel has no Yama.
pub fn yama_scope() -> Option<u8> {
    let text = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    // Whatever a later kernel writes there, it is not less strict than "descendants only".
    Some(text.trim().parse().unwrap_or(1))
}

/// Documentation/admin-guide/LSM/Yama.rst. PR_SET_PTRACER's exceptions cannot be seen from outside and do not count.
fn yama_allows(scope: u8, capable: bool, descends: impl Fn() -> bool) -> Result<(), &'static str> {
    match scope {
        0 => Ok(()),
        1 if capable || descends() => Ok(()),
        1 => Err("Yama (ptrace_scope 1) allows only a process's ancestors to trace it"),
        2 if capable => Ok(()),
        2 => Err("Yama (ptrace_scope 2) demands CAP_SYS_PTRACE"),
        _ => Err("Yama (ptrace_scope 3) allows no tracing"),
    }
}

/// True where `pid` is `ancestor` or one of its descendants.
fn descends(ancestor: i32, pid: i32) -> bool {
    let mut at = pid;
    while at > 0 && at != ancestor {
        at = Creds::of(at).map_or(0, |c| c.ppid);
    }
    at == ancestor
}

/// True where the user namespace of `caller` is that of `pid` or an ancestor of it: there its capabilities count
/// (user_namespaces(7)).
fn rules_over(caller: i32, pid: i32) -> bool {
    let Ok(ours) = user_namespace(caller) else { return false };
    let Ok(mut at) = user_namespace(pid) else { return false };
    while !same(&ours, &at) {
        match sys::parent_namespace(at.as_fd()) {
            Ok(parent) => at = File::from(parent),
            Err(_) => return false,
        }
    }
    true
}

/// True where the two are in different user namespaces: by the namespaces themselves, where a daemon without privilege
/// may not see them by their maps of ids, which everybody may read.
fn in_other_namespaces(a: i32, b: i32) -> bool {
    match (user_namespace(a), user_namespace(b)) {
        (Ok(a), Ok(b)) => !same(&a, &b),
        _ => {
            let maps =
                |pid: i32| ["uid_map", "gid_map"].map(|map| fs::read(format!("/proc/{pid}/{map}")).ok());
            maps(a) != maps(b)
        }
    }
}

fn same(a: &File, b: &File) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn user_namespace(pid: i32) -> std::io::Result<File> {
    File::open(format!("/proc/{pid}/ns/user"))
}

/// Whether this user is to leave room for others in what the daemon has only so much of: all are but root and who runs the daemon.
fn leaves_room(uid: u32) -> bool {
    static DAEMON: OnceLock<u32> = OnceLock::new();
    uid != 0 && uid != *DAEMON.get_or_init(|| nix::unistd::geteuid().as_raw())
}

/// How much of what there is only so much of (`limit`) this user may take yet, where all have `all` of it and the user `own`: as much
/// as leaves no less free than the user has then.
pub fn share_left(limit: usize, all: usize, own: usize, uid: u32) -> usize {
    let free = limit.saturating_sub(all);
    match leaves_room(uid) {
        true => free.saturating_sub(own) / 2,
        false => free,
    }
}

/// Whether the memory of a process that this user traces may be shown to it: Linux shows a tracer without CAP_SYS_PTRACE
/// none that is not dumpable (`ptrace_access_vm` of the kernel's kernel/ptrace.c), be it by prctl(2), by new ids, or by a
/// program that the user may execute and not read. False where the process is gone.
pub fn sees_memory(uid: u32, pid: i32) -> bool {
    match uid {
        // What is not dumpable is root's in /proc: of root without the capability that says nothing.
        0 => Creds::of(pid).and_then(|it| reads_environ(&it, pid)).unwrap_or(false),
        _ => fs::metadata(environ(pid)).is_ok_and(|environ| environ.uid() == uid),
    }
}

/// The file of a process's environment. That of a first thread that has exited before the others is root's: it has no memory
/// any more.
fn environ(pid: i32) -> String {
    let ended = |tid: i32| proc::Stat::of(tid).is_ok_and(|stat| stat.has_exited());
    let lives = |tid: &i32| *tid != pid && !ended(*tid);
    let other = ended(pid).then(|| proc::threads(pid).ok()?.into_iter().find(lives)).flatten();
    other.map_or(format!("/proc/{pid}/environ"), |tid| format!("/proc/{pid}/task/{tid}/environ"))
}

/// Whether the caller could open /proc/pid/environ, by its ids alone: the kernel's own answer to who may look into a
/// process.
fn reads_environ(caller: &Creds, pid: i32) -> Result<bool> {
    let path = environ(pid);
    let open = || File::open(&path);
    let opened = sys::with_ids_only(caller.uid[1], caller.gid[1], &caller.groups, open)
        .map_err(|errno| Error::sys("take the caller's ids", pid, errno))?;
    match opened {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Err(Error::Gone { pid }),
        Err(_) => Ok(false),
    }
}
