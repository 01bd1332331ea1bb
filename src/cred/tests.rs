//! Who may, as a table and with real processes.

use super::*;
use nix::unistd::{self, Gid, Uid};
use std::process::{Child, Command, Stdio};

fn creds(uid: [u32; 3], gid: [u32; 3]) -> Creds {
    Creds { uid, gid, ..Creds::default() }
}

#[test]
fn r33_who_may_by_ids() {
    let user = || creds([7, 7, 7], [8, 8, 8]);
    let target = |uid, gid| creds(uid, gid);
    let same = target([7, 7, 7], [8, 8, 8]);
    // caller, target, marked ROOT, allowed
    #[rustfmt::skip]
    let table = [
        (user(), same.clone(), false, true),
        (user(), same.clone(), true, false),
        (user(), target([9, 7, 7], [8, 8, 8]), false, false),
        (user(), target([7, 7, 9], [8, 8, 8]), false, false),
        (user(), target([7, 9, 7], [8, 8, 8]), false, true), // Linux refuses this one by itself
        (user(), target([7, 7, 7], [9, 8, 8]), false, false),
        (user(), target([7, 7, 7], [8, 8, 9]), false, false),
        (user(), target([0, 0, 0], [0, 0, 0]), false, false),
        (creds([9, 7, 9], [8, 9, 9]), same.clone(), false, true), // effective uid and real gid count
        (creds([7, 9, 7], [8, 8, 8]), same.clone(), false, false),
        (creds([7, 7, 7], [9, 8, 8]), same.clone(), false, false),
        (creds([7, 0, 7], [8, 8, 8]), target([9, 9, 9], [9, 9, 9]), true, true),
        (creds([0, 7, 0], [8, 8, 8]), target([9, 9, 9], [9, 9, 9]), false, false),
    ];
    for (caller, target, root, allowed) in table {
        assert_eq!(canset(&caller, true, &target, root).is_ok(), allowed, "{caller:?} {target:?} {root}");
    }
}

#[test]
fn f2_supplementary_groups_widen_nothing() {
    let caller = Creds { groups: vec![9], ..creds([7; 3], [8; 3]) };
    assert!(canset(&caller, true, &creds([7; 3], [9; 3]), false).is_err());
    let target = Creds { groups: vec![8], ..creds([7; 3], [9; 3]) };
    assert!(canset(&caller, true, &target, false).is_err());
}

#[test]
fn yama_is_read_with_the_caller_as_the_tracer() {
    for (scope, capable, descends, allowed) in [
        (0, false, false, true),
        (1, false, false, false),
        (1, false, true, true),
        (1, true, false, true),
        (2, false, true, false),
        (2, true, false, true),
        (3, true, true, false),
    ] {
        assert_eq!(yama_allows(scope, capable, || descends).is_ok(), allowed, "{scope} {capable} {descends}");
    }
}

#[test]
fn a_status_file_is_read_and_rubbish_is_not() {
    let text = "Name:\tx\nState:\tS (sleeping)\nTgid:\t5\nPPid:\t4\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t0000000000080000\n";
    let creds = Creds::parse(text).unwrap();
    assert_eq!((creds.uid, creds.gid, creds.groups.as_slice()), ([1, 2, 3], [5, 6, 7], &[9, 10][..]));
    assert_eq!((creds.tgid, creds.ppid, creds.caps), (5, 4, 1 << CAP_SYS_PTRACE));
    assert_eq!(creds.owner(), (0, 0), "ids that differ belong to root");
    assert_eq!(Creds { uid: [3; 3], gid: [4; 3], ..creds }.owner(), (3, 4));
    let dead = |state: &str, threads: &str| {
        let text = text.replace("S (sleeping)", state) + "Threads:\t" + threads + "\n";
        Creds::parse(&text).unwrap().dead
    };
    assert!(dead("Z (zombie)", "1") && dead("X (dead)", "0"));
    assert!(!dead("S (sleeping)", "1"));
    assert!(!dead("Z (zombie)", "2"), "its first thread alone has ended");
    for name in ["State:", "Tgid:", "PPid:", "Uid:", "Gid:", "Groups:", "CapEff:"] {
        assert_eq!(Creds::parse(&text.replace(name, "X:")), None, "without {name}");
    }
    assert_eq!(Creds::parse(&text.replace("1\t2", "1\tx")), None);
}

/// Set for the processes that a test starts from its own program.
const PART: &str = "KTRACE_TEST_PART";

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn new(program: &str, args: &[&str]) -> Sleeper {
        Sleeper(Command::new(program).args(args).env(PART, "1").stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Until the given program has taken the place of the first.
    fn running(self, name: &str) -> Sleeper {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let comm = || fs::read_to_string(format!("/proc/{}/comm", self.pid())).unwrap_or_default();
        while comm().trim() != name {
            assert!(std::time::Instant::now() < deadline, "{} is not {name}", comm());
            std::thread::yield_now();
        }
        self
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("KTRACE_TEST_REQUIRE").is_none(), "root is required");
        eprintln!("SKIP: needs root");
    }
    root
}

const NOBODY: &[&str] = &["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "1000"];

#[test]
fn linux_asks_for_a_dumpable_target_of_the_same_ids() {
    if !is_root() {
        return;
    }
    let nobody = Sleeper::new("setpriv", NOBODY).running("sleep");
    let other = Sleeper::new("setpriv", NOBODY).running("sleep");
    let root = Sleeper::new("sleep", &["1000"]).running("sleep");
    let caller = Caller::new(65534, 65534, other.pid());
    assert_eq!(may_trace(&caller, nobody.pid(), false, None), Ok(false));
    assert_eq!(may_trace(&caller, nobody.pid(), true, None).unwrap_err().errno(), libc::EPERM);
    assert_eq!(may_trace(&caller, root.pid(), false, None).unwrap_err().errno(), libc::EPERM);
    assert_eq!(may_trace(&caller, nobody.pid(), false, Some(1)).unwrap_err().errno(), libc::EPERM);
    assert_eq!(may_trace(&caller, other.pid(), false, Some(1)), Ok(false), "oneself is no stranger");
    // R33 alone would allow this: the same ids, but whoever changes them is not dumpable until it executes a program.
    let us = std::env::current_exe().unwrap();
    let args = ["--exact", "cred::tests::changes_its_ids_and_waits", "--ignored", "--nocapture"];
    let hidden = Sleeper::new(us.to_str().unwrap(), &args).running("undumpable");
    assert_eq!(may_trace(&caller, hidden.pid(), false, None).unwrap_err().errno(), libc::EPERM);
    let who = Creds::of(other.pid()).unwrap();
    assert!(reads_environ(&who, nobody.pid()).unwrap());
    assert!(!reads_environ(&who, root.pid()).unwrap());
    assert_eq!(reads_environ(&who, i32::MAX).unwrap_err().errno(), libc::ESRCH);
    // The ids were those of another thread: ours are as before.
    assert_eq!(Creds::of(std::process::id() as i32).unwrap().uid, [0; 3]);
    assert!(fs::read(format!("/proc/{}/environ", root.pid())).is_ok());
}

/// Not a test: the process that the test above looks at.
#[test]
#[ignore = "a part of another test"]
fn changes_its_ids_and_waits() {
    if std::env::var_os(PART).is_none() {
        return;
    }
    let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
    unistd::setgroups(&[]).unwrap();
    unistd::setresgid(gid, gid, gid).unwrap();
    unistd::setresuid(uid, uid, uid).unwrap();
    fs::write(format!("/proc/self/task/{}/comm", std::process::id()), "undumpable").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn uid_0_counts_only_with_the_capability_over_the_targets_user_namespace() {
    if !is_root() {
        return;
    }
    let target = Sleeper::new("sleep", &["1000"]).running("sleep");
    let plain = Sleeper::new("sleep", &["1000"]).running("sleep");
    let root = |tid| Caller::new(0, 0, tid);
    assert_eq!(may_trace(&root(plain.pid()), target.pid(), true, Some(2)), Ok(true));
    let bare = Sleeper::new("setpriv", &["--inh-caps=-all", "--bounding-set=-sys_ptrace", "sleep", "1000"])
        .running("sleep");
    assert_eq!(may_trace(&root(bare.pid()), target.pid(), false, None).unwrap_err().errno(), libc::EPERM);
    let contained = Sleeper::new("unshare", &["--user", "--map-root-user", "sleep", "1000"]).running("sleep");
    let inside = Creds::of(contained.pid()).unwrap();
    assert_eq!(inside.caps >> CAP_SYS_PTRACE & 1, 1, "root of its own namespace");
    assert_eq!(
        may_trace(&root(contained.pid()), target.pid(), false, None).unwrap_err().errno(),
        libc::EPERM
    );
    assert_eq!(
        may_trace(&root(plain.pid()), contained.pid(), false, None),
        Ok(true),
        "an ancestor's root may"
    );
}

#[test]
fn a_caller_that_cannot_be_seen_is_refused_with_the_reason() {
    let us = std::process::id() as i32;
    let error = may_trace(&Caller::new(0, 0, 0), us, false, None).unwrap_err();
    assert_eq!(error.errno(), libc::EPERM);
    assert!(error.to_string().contains("namespace"), "{error}");
}

#[test]
fn uid_0_without_its_capability_is_a_user_like_others() {
    let (root, other) = (creds([0; 3], [0; 3]), creds([7; 3], [7; 3]));
    assert!(canset(&root, false, &root, false).is_ok());
    assert!(canset(&root, false, &other, false).is_err());
    assert!(canset(&root, false, &root, true).is_err());
    assert!(canset(&root, true, &other, true).is_ok());
}
