//! Commands on processes that do not stand still, and what is left after an accident.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use ktrace::proc::{self, ProcId};
use ktrace::record::Body;
use nix::sys::signal::Signal;

use crate::support::mount::Mount;
use crate::support::stream::notes;
use crate::support::tracee::Tracee;
use crate::support::{IS_EBPF, Running, command, need, output, wait_for};

#[test]
fn descend_reaches_a_tree_that_forks_all_the_time_and_hurts_nobody() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    // Three levels, each of which checks the status of the next.
    let script = "i=0; while [ $i -lt 300 ]; do
        sh -c 'sh -c \"(exit 3); exit \\$?\"; [ $? = 3 ] || exit 1; exit 4' & wait $!; [ $? = 4 ] || exit 1; i=$((i+1)); done; exit 7";
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", &format!("read x; {script}")]));
    let pid = tracee.pid();
    tracee.go();
    wait_for("a tree", || proc::descendants(&[pid]).len() > 1);
    mount.set(pid, "set syscall,sysret +descend +inherit policy=overwrite");
    for _ in 0..20 {
        for child in proc::descendants(&[pid]) {
            let Ok(id) = ProcId::of(child) else { continue };
            let state = fs::read_to_string(mount.path(format!("{child}/ctl"))).unwrap_or_default();
            // One that has died meanwhile, or has no memory any more, says nothing.
            let lives =
                id.check().is_ok() && fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|c| !c.is_empty());
            assert!(state.starts_with("set ") || state.is_empty() || !lives, "{child}: {state:?}");
        }
    }
    assert_eq!(tracee.running.wait().code(), Some(7), "each status came through");
}

#[test]
fn many_clients_at_once_get_their_answers() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut group = Running::spawn(
        Command::new("sh").args(["-c", "sleep 1000 & sleep 1000 & while :; do :; kill -0 $$; done"]),
    );
    wait_for("the group", || proc::group(group.pid()).len() == 3);
    let pid = group.pid();
    thread::scope(|scope| {
        for client in 0..4 {
            let mount = &mount;
            scope.spawn(move || {
                for turn in 0..25 {
                    let (to, line) = match (client + turn) % 4 {
                        0 => (pid, "set syscall,namei +inherit".to_owned()),
                        1 => (pid, "clear".to_owned()),
                        2 => (0, format!("set psig policy=drop pgrp={pid}")),
                        _ => (0, format!("clear pgrp={pid}")),
                    };
                    match mount.ctl(to, &line) {
                        Ok(()) => {}
                        // Said in words: another change was under way.
                        Err(e) => assert_eq!(
                            e.raw_os_error(),
                            Some(libc::EBUSY),
                            "{line}: {}",
                            mount.read("error_log")
                        ),
                    }
                }
            });
        }
    });
    mount.set(0, &format!("clear pgrp={pid}"));
    for member in proc::group(pid) {
        assert_eq!(mount.read(format!("{member}/ctl")), "clear\n");
    }
    assert!(group.0.try_wait().unwrap().is_none(), "nobody was hurt");
}

#[test]
fn a_flight_recorder_is_read_after_the_accident() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let busy = Running::spawn(
        Command::new("sh").args(["-c", "while :; do :; kill -0 $$; done"]).stdout(Stdio::null()),
    );
    let pid = busy.pid();
    mount.set(pid, "set default policy=overwrite size=64K");
    let field = |name: &str| -> u64 {
        let stat = mount.read(format!("{pid}/stat"));
        stat.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok()).unwrap()
    };
    wait_for("many laps of the ring", || field("bytes ") > 2 << 20);
    assert!(field("memory ") <= 64 << 10, "however long it has run");
    busy.signal(Signal::SIGSEGV);
    wait_for("the accident", || ProcId::of(pid).and_then(ProcId::check).is_err());
    let recs = mount.trace(pid).rest();
    assert!(matches!(recs[0].body(), Body::Emul(b"linux")), "{:?}", recs[0]);
    assert!(recs.len() > 100);
    let last = recs.iter().rfind(|rec| !rec.is_of_stream()).unwrap();
    assert!(matches!(last.body(), Body::Psig(psig) if psig.signo == libc::SIGSEGV), "{last:?}");
}

#[test]
fn what_is_lost_and_what_is_seen_are_all_that_was_made() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let script = "i=0; while [ $i -lt 3000 ]; do kill -0 $$; i=$((i+1)); done";
    let mut tracee = Tracee::command(Command::new("sh").args(["-c", &format!("read x; {script}")]));
    let pid = tracee.pid();
    mount.set(pid, "set syscall,sysret policy=drop size=16K");
    // It has read, and then stands still: the ring is full soon.
    let mut slow = mount.trace(pid);
    tracee.go();
    slow.next().unwrap();
    tracee.running.wait();
    let recs = slow.rest();
    let lost: u64 = recs
        .iter()
        .filter_map(|rec| match rec.body() {
            Body::User { id: ktrace::record::STREAM_ID, data } => {
                String::from_utf8_lossy(data).strip_prefix("lost ")?.split(' ').next()?.parse::<u64>().ok()
            }
            _ => None,
        })
        .sum();
    let seen = recs.iter().filter(|rec| !rec.is_of_stream()).count() as u64;
    assert!(lost > 0);
    let kills = seen + lost;
    assert!((6000..6200).contains(&kills), "{seen} seen, {lost} lost");
}

#[test]
fn verify_says_of_real_programs_that_nothing_is_missing() {
    need!("fuse", "ptrace", "git", "make");
    let mount = Mount::new();
    let makefile = mount.scratch().join("Makefile");
    fs::write(&makefile, "all: a b c\na b c:\n\techo $@ | sed s/a/b/ | sort\n").unwrap();
    let file = mount.scratch().join("out");
    let make = makefile.to_str().unwrap();
    for program in
        [vec!["make", "-j2", "-f", make], vec!["git", "--version"], vec!["sh", "-c", "ls / | sort | head -3"]]
    {
        let mut tool = command("ktrace");
        tool.env("KTRACE_MOUNT", mount.point()).arg("-f").arg(&file).args(["-t", "A", "-i"]).args(&program);
        assert!(output(&mut tool).status.success(), "{program:?}");
        let mut verified = None;
        // The last children may end after the command.
        wait_for("a whole stream", || {
            let out = output(command("kdump").arg("--verify").arg("-f").arg(&file));
            let whole = out.status.success();
            verified = Some(String::from_utf8_lossy(&out.stdout).into_owned());
            whole || !verified.as_ref().unwrap().contains("no end")
        });
        assert!(verified.as_ref().unwrap().contains("nothing is missing"), "{program:?}: {verified:?}");
    }
}

#[test]
fn without_emul_a_note_tells_of_each_change_and_not_of_the_beginning() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("calls", &[]);
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), "set syscall,sysret");
    mount.set(tracee.pid(), "set namei");
    mount.set(tracee.pid(), "clear sysret");
    tracee.go();
    let told = notes(&trace.rest());
    assert_eq!(told[..told.len() - 1], ["set syscall,sysret,namei", "set syscall,namei"]);
}

#[test]
fn stat_says_how_often_and_how_long_a_process_was_stopped() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let busy = Running::spawn(Command::new("sh").args(["-c", "while :; do kill -0 $$; done"]));
    let pid = busy.pid();
    mount.set(pid, "set syscall,sysret policy=overwrite");
    let number = |stat: &str, name: &str| -> u64 {
        stat.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
    };
    wait_for("records", || number(&mount.read(format!("{pid}/stat")), "records") > 1000);
    let stat = mount.read(format!("{pid}/stat"));
    let [stops, ns, each] = ["stops", "stopped_ns", "ns_per_stop"].map(|name| number(&stat, name));
    if IS_EBPF {
        return assert_eq!((stops, ns, each), (0, 0, 0), "nobody is");
    }
    assert!(stops > 500 && each > 0 && ns >= stops * each && ns < stops * (each + 1), "{stat}");
    drop(busy);
    let total = mount.read("stat");
    assert!(number(&total, "stops") >= stops && number(&total, "stopped_ns") >= ns, "{total}");
}
