//! The rules of control, with a backend that only notes what it is told. Processes are real, and nobody traces them.

mod files;
mod records;
mod whom;

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::backend::{InForce, Want};
use crate::ctl;
use crate::facility::Facs;
use crate::policy::Policy;
use crate::proc::{self, Proc, ProcTable, Trace};
use crate::sink::{End, Read};

/// A backend like the others, but that nothing happens.
struct Fake {
    name: &'static str,
    /// Process and facilities of each change, none for a detach.
    told: Mutex<Vec<(i32, Option<Facs>)>>,
    refused: Mutex<Vec<i32>>,
    /// Processes that cannot be stopped in time.
    wedged: Mutex<Vec<i32>>,
    /// What happens to a process while it is attached.
    meanwhile: Mutex<Option<fn(&Proc)>>,
    /// A birth, parent and child, of which it tells no sooner than it must.
    birth: Mutex<Option<(ProcId, ProcId)>>,
    procs: OnceLock<Arc<ProcTable>>,
}

impl Fake {
    fn new(name: &'static str) -> Arc<Fake> {
        Arc::new(Fake {
            name,
            told: Mutex::default(),
            refused: Mutex::default(),
            wedged: Mutex::default(),
            meanwhile: Mutex::default(),
            birth: Mutex::default(),
            procs: OnceLock::new(),
        })
    }
}

impl Backend for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn facilities(&self) -> Facs {
        Facs::DEFAULT
    }

    fn can(&self, want: &Want) -> Result<()> {
        match (want.facs - Facs::DEFAULT).is_empty() {
            true => Ok(()),
            false => Err(Error::Unsupported { what: "not this one".into() }),
        }
    }

    fn apply(&self, proc: &Arc<Proc>, trace: Option<Arc<Trace>>, by: Instant) -> Result<InForce> {
        if trace.is_some() && self.refused.lock().contains(&proc.id.pid) {
            return Err(Error::Busy { pid: proc.id.pid, why: "another tracer".into() });
        }
        self.told.lock().push((proc.id.pid, trace.map(|t| t.facs)));
        if let Some(meanwhile) = *self.meanwhile.lock() {
            meanwhile(proc);
        }
        if self.wedged.lock().contains(&proc.id.pid) {
            std::thread::sleep(by.saturating_duration_since(Instant::now()));
            return Ok(InForce::Partly);
        }
        Ok(InForce::All)
    }

    fn settle(&self, _proc: &Arc<Proc>, _by: Instant) -> Result<()> {
        Ok(())
    }

    fn catch_up(&self, _pid: i32) {
        if let (Some((parent, child)), Some(procs)) = (self.birth.lock().take(), self.procs.get()) {
            procs.fork(&procs.entry(parent), child);
        }
    }

    fn costs(&self, _proc: Option<&Proc>) -> Costs {
        Costs::default()
    }

    fn shutdown(&self, _by: Instant) {}
}

struct World {
    ktrace: Arc<Ktrace>,
    fake: Arc<Fake>,
    /// The second best.
    other: Arc<Fake>,
    me: Caller,
    children: Vec<Child>,
}

impl World {
    fn new() -> World {
        World::with(|_| ())
    }

    fn with(choose: impl FnOnce(&mut Options)) -> World {
        let (fake, other) = (Fake::new("fake"), Fake::new("other"));
        let mut options = Options {
            size: Some(1 << 20),
            mem: 64 << 20,
            linger: Duration::from_secs(60),
            policy: Policy::Stop,
            backend: None,
            ignore_yama: true,
            mountpoint: None,
        };
        choose(&mut options);
        let backends: Vec<Arc<dyn Backend>> = vec![Arc::clone(&fake) as _, Arc::clone(&other) as _];
        let ktrace = Ktrace::new(options, |_| backends);
        fake.procs.get_or_init(|| Arc::clone(ktrace.procs()));
        let me = Caller::new(
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
            nix::unistd::gettid().as_raw(),
        );
        World { ktrace, fake, other, me, children: Vec::new() }
    }

    fn spawn(&mut self, command: &mut Command) -> ProcId {
        // Whoever waits for the end of our output must not wait for these.
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        self.children.push(child);
        ProcId::of(pid).unwrap()
    }

    fn sleep(&mut self) -> ProcId {
        self.spawn(Command::new("sleep").arg("1000"))
    }

    fn tell(&self, target: Option<ProcId>, line: &str) -> Result<()> {
        self.ktrace.control(&self.me, target, &ctl::parse(line)?)
    }

    fn errno(&self, target: Option<ProcId>, line: &str) -> i32 {
        self.tell(target, line).expect_err(line).errno()
    }

    fn trace(&self, id: ProcId) -> Option<Arc<Trace>> {
        self.ktrace.procs().get(id)?.trace()
    }

    fn facs(&self, id: ProcId) -> Facs {
        self.trace(id).map_or(Facs::empty(), |t| t.facs)
    }

    /// What an open of its trace file has for a reader now.
    fn read(&self, id: ProcId) -> Result<Read> {
        self.ktrace.open(&self.me, id)?.read(1 << 16, 1, &mut Vec::new())
    }

    /// The value in a line of its `stat`.
    fn stat(&self, id: ProcId, name: &str) -> String {
        let text = self.ktrace.proc_stat(id).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }

    /// As if it had been a child of the other, which has the inherit flag.
    fn fork(&self, parent: ProcId, child: ProcId) {
        let parent = self.ktrace.procs().get(parent).unwrap();
        self.ktrace.procs().fork(&parent, child).unwrap();
    }

    fn sink(&self, id: ProcId) -> u64 {
        self.trace(id).unwrap().sink().id()
    }

    /// Waits for what another thread is to do.
    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let by = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < by, "in vain: {what}");
            std::thread::yield_now();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let parents: Vec<i32> = self.children.iter().map(|child| child.id() as i32).collect();
        for pid in proc::descendants(&parents) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn r10_clearfile_releases_every_process_of_the_file_and_no_other() {
    let mut w = World::new();
    let (a, b, c) = (w.sleep(), w.sleep(), w.sleep());
    w.tell(Some(a), "set syscall").unwrap();
    w.tell(Some(c), "set syscall").unwrap();
    let shared = Trace { facs: Facs::SYSCALL, ..w.trace(a).unwrap().inherited() };
    w.ktrace.procs().entry(b).set_trace(Some(Arc::new(shared)));
    w.tell(Some(b), "clearfile").unwrap();
    assert!(w.trace(a).is_none() && w.trace(b).is_none() && w.trace(c).is_some());
    w.tell(Some(a), "clearfile").unwrap();
}

#[test]
fn r12_no_facility_is_einval_and_the_inherit_flag_counts_as_one() {
    let mut w = World::new();
    let a = w.sleep();
    assert_eq!(w.errno(Some(a), "set"), libc::EINVAL);
    w.tell(Some(a), "set +inherit").unwrap();
    assert!(w.trace(a).unwrap().inherit);
    assert_eq!(w.errno(None, "set syscall pid=999999999"), libc::ESRCH);
    assert_eq!(w.errno(None, "set syscall pgrp=999999999"), libc::ESRCH);
}

#[test]
fn r14_descend_reaches_all_descendants() {
    let mut w = World::new();
    let a = w.spawn(Command::new("sh").args(["-c", "sh -c 'sleep 1000 & wait' & wait"]));
    w.wait("the tree to grow", || {
        let tree = proc::descendants(&[a.pid]);
        tree.iter().any(|&pid| Stat::of(pid).is_ok_and(|s| s.comm.as_bytes() == b"sleep"))
    });
    let tree = proc::descendants(&[a.pid]);
    w.tell(Some(a), "set syscall +descend").unwrap();
    for pid in tree.iter().copied().chain([a.pid]) {
        let id = ProcId::of(pid).unwrap();
        assert_eq!((w.facs(id), w.sink(id)), (Facs::SYSCALL, w.sink(a)));
    }
    w.tell(Some(a), "clear +descend").unwrap();
    assert!(tree.iter().all(|&pid| w.trace(ProcId::of(pid).unwrap()).is_none()));
}

#[test]
fn r15_one_that_could_be_changed_is_success_and_none_is_the_errno() {
    use std::os::unix::process::CommandExt;
    let mut w = World::new();
    let a = w.spawn(Command::new("sleep").arg("1000").process_group(0));
    let b = w.spawn(Command::new("sleep").arg("1000").process_group(a.pid));
    w.fake.refused.lock().push(b.pid);
    w.tell(None, &format!("set syscall pgrp={}", a.pid)).unwrap();
    w.fake.refused.lock().push(a.pid);
    assert_eq!(w.errno(None, &format!("set syscall pgrp={}", a.pid)), libc::EBUSY);
}

#[test]
fn r17_into_the_same_file_facilities_add_up_into_another_nothing_stays() {
    use std::os::unix::process::CommandExt;
    let mut w = World::new();
    let a = w.spawn(Command::new("sleep").arg("1000").process_group(0));
    w.tell(Some(a), "set syscall").unwrap();
    let first = w.sink(a);
    w.tell(Some(a), "set namei").unwrap();
    assert_eq!((w.facs(a), w.sink(a)), (Facs::SYSCALL | Facs::NAMEI, first));
    // A group gets a file of its own.
    w.tell(None, &format!("set genio pgrp={}", a.pid)).unwrap();
    assert_eq!(w.facs(a), Facs::GENIO);
    assert_ne!(w.sink(a), first);
}

#[test]
fn r18_a_set_by_root_marks_the_process_and_by_others_not() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set syscall").unwrap();
    assert_eq!(w.trace(a).unwrap().root, w.me.uid == 0);
}

#[test]
fn r19_clear_takes_the_named_facilities_away_and_with_the_last_one_tracing_ends() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set syscall,namei,psig").unwrap();
    w.tell(Some(a), "clear syscall").unwrap();
    assert_eq!(w.facs(a), Facs::NAMEI | Facs::PSIG);
    w.tell(Some(a), "clear namei,psig,user").unwrap();
    assert!(w.trace(a).is_none());
    assert_eq!(w.fake.told.lock().last(), Some(&(a.pid, None)));
}

#[test]
fn r20_the_file_closes_with_its_last_reference() {
    let mut w = World::new();
    let (a, b) = (w.sleep(), w.sleep());
    w.tell(Some(a), "set syscall +inherit").unwrap();
    let parent = w.ktrace.procs().get(a).unwrap();
    w.ktrace.procs().fork(&parent, b).unwrap();
    let sink = Arc::clone(w.trace(a).unwrap().sink());
    w.tell(Some(a), "clear").unwrap();
    assert_eq!(sink.end(), None, "the child writes to it");
    w.tell(Some(b), "clear").unwrap();
    assert_eq!(sink.end(), Some(End::Finished));
}

#[test]
fn r22_fork_gives_the_child_flags_and_file_only_with_inherit() {
    let mut w = World::new();
    let (a, b) = (w.sleep(), w.sleep());
    w.tell(Some(a), "set syscall").unwrap();
    let parent = w.ktrace.procs().get(a).unwrap();
    assert!(w.ktrace.procs().fork(&parent, b).is_none());
    w.tell(Some(a), "set namei +inherit").unwrap();
    let (_, trace) = w.ktrace.procs().fork(&parent, b).unwrap();
    assert_eq!((trace.facs, trace.inherit), (Facs::SYSCALL | Facs::NAMEI, true));
    assert_eq!(w.sink(b), w.sink(a));
}

#[test]
fn r24_exit_releases() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set syscall").unwrap();
    let proc = w.ktrace.procs().get(a).unwrap();
    w.ktrace.procs().exit(&proc);
    assert!(w.trace(a).is_none() && proc.died().is_some());
}

#[test]
fn r30_giving_a_file_up_releases_every_process_that_writes_to_it() {
    let mut w = World::new();
    let (a, b) = (w.sleep(), w.sleep());
    w.tell(Some(a), "set user +inherit").unwrap();
    let parent = w.ktrace.procs().get(a).unwrap();
    w.ktrace.procs().fork(&parent, b).unwrap();
    let mut file = w.ktrace.open(&w.me, a).unwrap();
    let mut out = Vec::new();
    assert_eq!(file.read(4096, 1, &mut out), Ok(Read::Empty));
    drop(file);
    // The next write finds that the last reader has gone (EPIPE).
    w.ktrace.user(&w.me, b, b"id data").unwrap();
    w.wait("both to be released", || w.trace(a).is_none() && w.trace(b).is_none());
    w.wait("the sink to be gone at once", || {
        let mut file = w.ktrace.open(&w.me, a).unwrap();
        file.read(4096, 1, &mut Vec::new()) == Ok(Read::Empty)
    });
}

#[test]
fn r34_clear_of_an_untraced_process_succeeds() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "clear").unwrap();
    w.tell(None, &format!("clear namei pid={}", a.pid)).unwrap();
}

#[test]
fn f4_clear_with_descend_needs_no_file() {
    let mut w = World::new();
    let a = w.sleep();
    w.tell(Some(a), "set syscall").unwrap();
    w.tell(Some(a), "clear syscall +descend").unwrap();
    assert!(w.trace(a).is_none());
}

#[test]
fn r35_einval_comes_before_esrch_and_the_file_before_both() {
    let w = World::new();
    assert_eq!(w.errno(None, "set pid=999999999"), libc::EINVAL);
    assert_eq!(w.errno(None, "set syscall size=2048M pid=999999999"), libc::EINVAL);
    assert_eq!(w.errno(None, "set syscall fd=1000000 size=2048M pid=999999999"), libc::EBADF);
    assert_eq!(w.errno(None, "set syscall pid=999999999"), libc::ESRCH);
}

#[test]
fn r37_pid_0_is_nobody() {
    let w = World::new();
    for line in ["set syscall pid=0", "clear pid=0", "set syscall pgrp=0"] {
        assert_eq!(w.errno(None, line), libc::ESRCH, "{line}");
    }
}

#[test]
fn a_facility_that_cannot_be_given_is_refused_by_name_and_left_out_of_all() {
    let mut w = World::new();
    let a = w.sleep();
    assert_eq!(w.errno(Some(a), "set csw"), libc::EOPNOTSUPP);
    assert_eq!(w.errno(Some(a), "set syscall backend=ebpf"), libc::EOPNOTSUPP);
    w.tell(Some(a), "set all").unwrap();
    assert_eq!(w.facs(a), Facs::DEFAULT);
}

#[test]
fn the_state_that_is_read_can_be_written() {
    let mut w = World::new();
    let a = w.sleep();
    assert_eq!(w.ktrace.state(a).unwrap().trim(), "clear");
    w.tell(Some(a), "set syscall,user +inherit policy=drop size=64K").unwrap();
    let state = w.ktrace.state(a).unwrap();
    w.tell(Some(a), "clear").unwrap();
    w.tell(Some(a), state.trim()).unwrap();
    assert_eq!(w.ktrace.state(a).unwrap(), state);
    assert!(state.starts_with("set syscall,user +inherit"), "{state}");
}

#[test]
fn a_process_that_is_another_one_now_is_esrch() {
    let mut w = World::new();
    let a = w.sleep();
    let older = ProcId { start: a.start ^ 1, inode: a.inode ^ 1, ..a };
    assert_eq!(w.errno(Some(older), "set syscall"), libc::ESRCH);
    assert_eq!(w.ktrace.open(&w.me, older).unwrap_err().errno(), libc::ESRCH);
}
