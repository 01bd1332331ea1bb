//! Privilege that comes with a program, and memory that a process hides: what of it reaches a user's trace.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use ktrace::record::{Body, HIDDEN, SHOWN};

use crate::support::mount::{Mount, program, scratch};
use crate::support::stream::{Rec, Stream, notes};
use crate::support::tracee::{self, Tracee};
use crate::support::user::{AS_A, copy, set, under};
use crate::support::{command, need, output};

/// A's shell, which waits and then carries out `script`; `$0` is `first`.
fn shell(first: &Path, script: &str) -> Tracee {
    let mut shell = under(AS_A);
    shell.args(["sh", "-c", &format!("read x; {script}")]).arg(first);
    Tracee::command(&mut shell)
}

fn said(tracee: Tracee) -> String {
    String::from_utf8_lossy(&tracee.running.output().stdout).into_owned()
}

/// Lets it go under what these callers set, one after the other; gives the records and what it printed.
fn traced_by(mount: &Mount, mut tracee: Tracee, callers: &[&str], line: &str) -> (Vec<Rec>, String) {
    let pid = tracee.pid();
    callers.iter().for_each(|caller| set(mount, caller, pid, line));
    let mut stream = mount.trace(pid);
    tracee.go();
    (stream.rest(), said(tracee))
}

fn is_by(rec: &Rec, comm: &str) -> bool {
    rec.header.stamp.comm.as_bytes() == comm.as_bytes()
}

/// The user whose name fusermount3 asks for.
const NOBODY: u32 = 65534;

#[test]
fn of_a_program_that_the_user_cannot_read_calls_are_shown_and_no_memory() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let secret = copy(mount.scratch(), "/usr/bin/cat", "secret", 0o711);
    for (caller, hides) in [(AS_A, true), ("", false)] {
        let tracee = shell(&secret, "exec \"$0\" /proc/self/status");
        let (recs, said) = traced_by(&mount, tracee, &[caller], "set all");
        assert!(said.contains("Name:\tsecret"));
        let calls = recs.iter().filter(|rec| is_by(rec, "secret") && rec.call().is_some()).count();
        assert!(calls > 5, "its calls are shown: {calls}");
        let memory = |rec: &&Rec| {
            is_by(rec, "secret")
                && matches!(
                    rec.body(),
                    Body::Namei(_)
                        | Body::Genio { .. }
                        | Body::ExecArg(_)
                        | Body::ExecEnv(_)
                        | Body::ExecFd { .. }
                )
        };
        assert_eq!(recs.iter().filter(memory).count() == 0, hides, "{recs:#?}");
        assert_eq!(notes(&recs).contains(&HIDDEN.to_owned()), hides);
    }
}

#[test]
fn what_makes_itself_undumpable_hides_its_memory_until_it_is_dumpable_again() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let may = copy(mount.scratch(), tracee::program("may").to_str().unwrap(), "may", 0o755);
    // Whether root joins the user's trace makes no difference: the user reads it.
    for (callers, hides) in [(vec![AS_A], true), (vec![AS_A, ""], true), (vec![""], false)] {
        let mut hider = under(AS_A);
        let tracee = Tracee::command(hider.arg(&may).arg("hides"));
        let (recs, _) = traced_by(&mount, tracee, &callers, "set default");
        assert!(recs.iter().any(|rec| rec.is_path("/shown")), "{recs:#?}");
        assert_eq!(recs.iter().any(|rec| rec.is_path("/hidden")), !hides, "{recs:#?}");
        assert_eq!(
            notes(&recs).iter().filter(|note| [HIDDEN, SHOWN].contains(&note.as_str())).count(),
            2 * usize::from(hides)
        );
        let calls = recs.iter().filter(|rec| rec.call() == Some("access")).count();
        assert!(calls >= 2, "the calls are shown: {recs:#?}");
    }
}

#[test]
fn a_set_gid_program_ends_the_users_trace() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let id = copy(mount.scratch(), "/usr/bin/id", "id", 0o755);
    chown(&id, None, Some(4)).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o2755)).unwrap();
    let (recs, said) = traced_by(&mount, shell(&id, "exec \"$0\" -g"), &[AS_A], "set all");
    assert_eq!(said, "4\n", "it has its privilege");
    assert!(!recs.iter().any(|rec| is_by(rec, "id")), "{recs:#?}");
}

#[test]
fn a_file_with_capabilities_counts_as_set_id_and_an_open_stream_ends() {
    need!("fuse", "ptrace", "setpriv", "setcap");
    let mount = Mount::new();
    let capable = copy(mount.scratch(), "/usr/bin/cat", "capable", 0o755);
    assert!(Command::new("setcap").arg("cap_net_raw+ep").arg(&capable).status().unwrap().success());
    let tracee = shell(&capable, "exec \"$0\" /proc/self/status");
    let (recs, said) = traced_by(&mount, tracee, &[AS_A], "set default");
    // CAP_NET_RAW is bit 13: it has its privilege.
    assert!(said.contains("CapEff:\t0000000000002000"));
    assert!(recs.iter().any(|rec| rec.is_path(capable.to_str().unwrap())), "the exec itself is the user's");
    assert!(!recs.iter().any(|rec| is_by(rec, "capable")), "and nothing after it: {recs:#?}");
}

#[test]
fn a_set_uid_program_ends_a_trace_that_root_has_joined_and_not_roots_own() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let id = copy(mount.scratch(), "/usr/bin/id", "id", 0o4755);
    for (callers, goes_on) in [(vec![AS_A, ""], false), (vec![""], true)] {
        let (recs, said) = traced_by(&mount, shell(&id, "exec \"$0\" -u"), &callers, "set default");
        assert_eq!(said, "0\n", "it has its privilege");
        assert_eq!(recs.iter().any(|rec| is_by(rec, "id")), goes_on, "{recs:#?}");
    }
}

/// The records of exec.c's program, with these arguments, under A's trace.
fn executes(how: &[&str]) -> (Vec<Rec>, String, i32) {
    let mount = Mount::new();
    let id = copy(mount.scratch(), "/usr/bin/id", "id", 0o4755);
    let exec = copy(mount.scratch(), tracee::program("exec").to_str().unwrap(), "exec", 0o755);
    let mut program = under(AS_A);
    let tracee = Tracee::command(program.arg(exec).arg(id).args(how));
    let pid = tracee.pid();
    let (recs, said) = traced_by(&mount, tracee, &[AS_A], "set all +inherit");
    (recs, said, pid)
}

#[test]
fn a_set_uid_program_that_another_thread_executes_ends_the_trace() {
    need!("fuse", "ptrace", "setpriv");
    let (recs, said, pid) = executes(&[]);
    assert!(said.contains("euid=0"), "{said}");
    assert!(recs.iter().any(|rec| rec.tid() != pid && rec.call() == Some("execve")), "{recs:#?}");
    assert!(!recs.iter().any(|rec| is_by(rec, "id")), "{recs:#?}");
}

#[test]
fn a_set_uid_program_in_a_child_ends_the_childs_trace_and_not_its_parents() {
    need!("fuse", "ptrace", "setpriv");
    for how in ["fork", "vfork"] {
        let (recs, said, pid) = executes(&[how]);
        assert!(said.contains("euid=0"), "{how}: {said}");
        assert!(recs.iter().any(|rec| rec.pid() != pid && rec.call() == Some("execve")), "{how}: {recs:#?}");
        assert!(!recs.iter().any(|rec| is_by(rec, "id")), "{how}: {recs:#?}");
        assert!(recs.iter().any(|rec| rec.pid() == pid && rec.is_path("/after")), "{how}: {recs:#?}");
    }
}

/// What `script` prints as user `nobody` with a mount of its own, `m`, in a directory of its own, and the records it leaves in
/// `records` there. Where /dev/fuse is root's alone, it is everybody's in there.
fn unprivileged(script: &str, prepare: impl FnOnce(&Path)) -> (String, Vec<Rec>) {
    let dir = scratch("unprivileged");
    for program in [program(), Path::new(command("kdump").get_program())] {
        copy(&dir, program.to_str().unwrap(), program.file_name().unwrap().to_str().unwrap(), 0o755);
    }
    prepare(&dir);
    for (name, file) in [("m", false), ("records", true)] {
        let path = dir.join(name);
        if file {
            drop(fs::File::create(&path).unwrap())
        } else {
            fs::create_dir(&path).unwrap()
        }
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let outer = "cd \"$0\" && mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse && \
                 exec setpriv --reuid=nobody --regid=nogroup --clear-groups bash -c \"$1\"";
    let inner = format!("./ktracefs m || exit; {script}; fusermount3 -u m");
    let mut namespace = Command::new("unshare");
    let out = output(namespace.args(["-m", "bash", "-c", outer]).arg(&dir).arg(inner));
    assert!(out.status.success(), "{out:?}");
    let mut stream = Stream::open(&dir.join("records"));
    let recs = stream.rest();
    fs::remove_dir_all(&dir).unwrap();
    (String::from_utf8_lossy(&out.stdout).into_owned(), recs)
}

/// The script of [`unprivileged`] that traces a shell with these commands, and its children.
fn traced(commands: &str) -> String {
    format!(
        "mkfifo go; sh -c 'read x; {commands}' < go 2>/dev/null & p=$!
        exec 9> go
        echo 'set default +inherit' > m/$p/ctl || cat m/error_log
        exec 8< m/$p/trace; cat <&8 > records & c=$!; exec 8<&-
        echo go >&9; wait $p $c"
    )
}

#[test]
fn hazard_21_under_a_users_own_daemon_privileged_programs_keep_their_privilege() {
    need!("fuse", "ptrace", "setpriv", "setcap", "unshare", "mknod", "fusermount3");
    let script = traced("./id -u; ./capable /proc/self/status; : < /after");
    let (said, recs) = unprivileged(&script, |dir| {
        copy(dir, "/usr/bin/id", "id", 0o4755);
        let capable = copy(dir, "/usr/bin/cat", "capable", 0o755);
        assert!(Command::new("setcap").arg("cap_net_raw+ep").arg(capable).status().unwrap().success());
    });
    assert!(said.starts_with("0\n"), "set-uid root: {said}");
    assert!(said.contains("CapEff:\t0000000000002000"), "CAP_NET_RAW: {said}");
    assert!(!recs.iter().any(|rec| is_by(rec, "id") || is_by(rec, "capable")), "{recs:#?}");
    assert!(recs.iter().any(|rec| rec.is_path("/after")), "the shell's goes on: {recs:#?}");
}

#[test]
fn hazard_21_of_a_script_the_bits_of_its_interpreter_count_and_its_own_do_not() {
    need!("fuse", "ptrace", "setpriv", "unshare", "mknod", "fusermount3");
    let script = traced("./gains; ./plain; setpriv --no-new-privs ./gains");
    let (said, recs) = unprivileged(&script, |dir| {
        copy(dir, "/usr/bin/cat", "privileged", 0o4755);
        for (name, interpreter, mode) in [("gains", "./privileged", 0o755), ("plain", "/usr/bin/cat", 0o4755)]
        {
            fs::write(dir.join(name), format!("#!{interpreter} /proc/self/status\n")).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    });
    let uids: Vec<_> =
        said.lines().filter_map(|line| line.strip_prefix("Uid:\t65534\t")?.split('\t').next()).collect();
    assert_eq!(uids, ["0", "65534", "65534"], "{said}");
    // What is run with no more privilege than before is seen.
    let seen = recs.iter().filter(|rec| rec.is_path("/proc/self/status")).count();
    assert_eq!(seen, 2, "{recs:#?}");
}
