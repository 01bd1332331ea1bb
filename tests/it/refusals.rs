//! Bad input gets its errno and a reason in words; nothing is lost and nothing hangs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::mount::Mount;
use crate::support::tracee::Tracee;
use crate::support::{Running, command, need, only_on, output, wait_for};

fn sleeper() -> Running {
    Running::spawn(Command::new("sleep").arg("1000"))
}

#[test]
fn a_wrong_word_is_named() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleep = sleeper();
    for (line, word) in [
        ("set nosuch\n", "nosuch"),
        ("sett syscall\n", "sett"),
        ("set syscall policy=maybe\n", "maybe"),
        ("set syscall size=many\n", "many"),
        ("set syscall pid=x\n", "x"),
        ("set syscall +fly\n", "+fly"),
        ("set calls=nosuchcall\n", "nosuchcall"),
    ] {
        let (errno, log) = mount.refused(sleep.pid(), line);
        assert_eq!(errno, libc::EINVAL, "{line:?}");
        let last = log.trim_end().rsplit("\n\n").next().unwrap().to_owned();
        assert!(last.contains(word) && last.contains('^'), "{line:?}: {log}");
    }
    assert_eq!(mount.read(format!("{}/ctl", sleep.pid())).trim(), "clear", "nothing was turned on");
}

#[test]
fn no_facility_is_einval() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleep = sleeper();
    // R35: what is wrong with the file comes first.
    assert_eq!(mount.refused(sleep.pid(), "set fd=99\n").0, libc::EBADF);
    for line in ["set\n", "set policy=drop\n"] {
        let (errno, log) = mount.refused(sleep.pid(), line);
        assert_eq!(errno, libc::EINVAL, "{line:?}: {log}");
    }
}

#[test]
fn a_good_line_before_a_bad_one_is_carried_out() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleep = sleeper();
    let ctl = mount.path(format!("{}/ctl", sleep.pid()));
    let out =
        output(Command::new("bash").args(["-c", "printf 'set namei\\nset nosuch\\n' > \"$0\""]).arg(ctl));
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("Invalid argument"), "{out:?}");
    assert!(mount.read(format!("{}/ctl", sleep.pid())).starts_with("set namei"));
}

#[test]
fn who_is_not_there_is_esrch() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut dead = sleeper();
    dead.0.kill().unwrap();
    dead.wait();
    for line in [format!("set syscall pid={}\n", dead.pid()), "set syscall pid=0\n".to_owned()] {
        let (errno, log) = mount.refused(0, &line);
        assert_eq!(errno, libc::ESRCH, "{line:?}: {log}");
    }
    let (errno, _) = mount.refused(0, &format!("set syscall pgrp={}\n", dead.pid()));
    assert_eq!(errno, libc::ESRCH);
    assert!(!mount.path(dead.pid().to_string()).exists());
}

#[test]
fn a_ctl_held_open_across_death_is_esrch() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let mut sleep = sleeper();
    let ctl = fs::OpenOptions::new().write(true).open(mount.path(format!("{}/ctl", sleep.pid()))).unwrap();
    sleep.0.kill().unwrap();
    sleep.wait();
    let e = nix::unistd::write(&ctl, b"set syscall\n").unwrap_err();
    assert_eq!(e as i32, libc::ESRCH);
}

#[test]
fn kernel_threads_are_refused() {
    need!("fuse", "ptrace");
    // Where this machine shows none, 2 is no kernel thread.
    let Ok(stat) = fs::read_to_string("/proc/2/stat") else { return };
    if !stat.contains("(kthreadd)") {
        return;
    }
    let mount = Mount::new();
    let (errno, log) = mount.refused(2, "set syscall\n");
    assert_eq!(errno, libc::EPERM, "{log}");
    assert!(log.contains("kernel thread"), "{log}");
}

#[test]
fn the_daemon_does_not_trace_itself() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let (errno, log) = mount.refused(mount.daemon(), "set syscall\n");
    assert_eq!(errno, libc::EPERM, "{log}");
    assert!(log.contains("daemon"), "{log}");
}

#[test]
fn a_user_may_trace_neither_init_nor_somebody_elses_process() {
    need!("fuse", "ptrace", "setpriv");
    let mount = Mount::new();
    let sleep = sleeper();
    let as_user = |script: &str| {
        let mut user = Command::new("setpriv");
        user.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script])
            .arg(mount.point());
        output(&mut user)
    };
    // The scratch directory is root's alone; the mount is to be judged, not the way to it.
    fs::set_permissions(mount.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
    for target in [1, sleep.pid()] {
        let out = as_user(&format!("echo 'set syscall pid={target}' > \"$0/ctl\""));
        assert!(!out.status.success());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains("not permitted") || said.contains("denied"), "{target}: {said}");
        assert!(!as_user(&format!("cat \"$0/{target}/trace\"")).status.success());
    }
    let own = as_user("sleep 5 & echo 'set syscall' > \"$0/$!/ctl\" && cat \"$0/$!/ctl\"; kill $!");
    let text = String::from_utf8_lossy(&own.stdout).into_owned();
    assert!(text.starts_with("set syscall"), "its own process: {own:?}");
}

#[test]
fn hazard_18_a_process_held_by_another_tracer_is_busy() {
    only_on!("ptrace", "a process has one tracer and any number of such watchers");
    need!("fuse", "ptrace", "strace");
    let mount = Mount::new();
    let mut tracee = Tracee::start("calls", &[]);
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "-p", &tracee.pid().to_string()]).stderr(Stdio::null());
    let mut strace = Running::spawn(&mut strace);
    let tracer = |pid: i32| ktrace::proc::tracer_of(pid);
    wait_for("strace to attach", || tracer(tracee.pid()) == strace.pid());
    let (errno, log) = mount.refused(tracee.pid(), "set syscall\n");
    assert_eq!(errno, libc::EBUSY, "{log}");
    assert!(log.contains(&strace.pid().to_string()), "it names the tracer: {log}");
    strace.signal(nix::sys::signal::Signal::SIGINT);
    strace.wait();
    wait_for("strace to let go", || tracer(tracee.pid()) == 0);
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), "set syscall\n");
    tracee.go();
    assert!(trace.rest().iter().any(|rec| rec.call() == Some("getppid")));
    assert_eq!(tracee.running.wait().code(), Some(7));
}

#[test]
fn hazard_18_a_process_held_by_gdb_is_busy() {
    only_on!("ptrace", "a process has one tracer and any number of such watchers");
    need!("fuse", "ptrace", "gdb");
    let mount = Mount::new();
    let tracee = Tracee::start("calls", &[]);
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-p", &tracee.pid().to_string()]);
    let gdb = Running::spawn(gdb.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("gdb to attach", || ktrace::proc::tracer_of(tracee.pid()) == gdb.pid());
    let (errno, log) = mount.refused(tracee.pid(), "set syscall\n");
    assert_eq!(errno, libc::EBUSY, "{log}");
    assert!(log.contains("gdb") || log.contains(&gdb.pid().to_string()), "{log}");
}

#[test]
fn what_no_backend_gives_is_eopnotsupp() {
    need!("fuse", "ptrace");
    let mount = Mount::new();
    let sleep = sleeper();
    let (errno, log) = mount.refused(sleep.pid(), "set syscall backend=nosuch\n");
    assert!(errno == libc::EINVAL || errno == libc::EOPNOTSUPP, "{log}");
}

#[test]
fn kdump_says_where_garbage_begins() {
    let dir = crate::support::mount::scratch("kdump");
    let file = dir.join("file");
    let kdump = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        output(command("kdump").arg("-f").arg(&file))
    };
    let garbage: Vec<u8> = (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let out = kdump(&garbage);
    assert!(!out.status.success() && !out.stderr.is_empty(), "{out:?}");
    assert!(!String::from_utf8_lossy(&out.stderr).contains("panicked"), "{out:?}");

    let mut stream = Vec::new();
    let stamp = ktrace::record::Stamp::default();
    ktrace::record::encode(&mut stream, &stamp, &ktrace::record::Body::Namei(b"/whole"));
    let whole = stream.len();
    ktrace::record::encode(&mut stream, &stamp, &ktrace::record::Body::Namei(b"/cut short"));
    for cut in whole + 1..stream.len() {
        let out = kdump(&stream[..cut]);
        assert!(!out.status.success(), "cut at {cut}: {out:?}");
        assert!(String::from_utf8_lossy(&out.stdout).contains("/whole"), "nothing before the cut is lost");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains(&whole.to_string()), "where: {said}");
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_number_that_is_used_again_is_esrch_through_what_was_opened_before() {
    need!("fuse", "ptrace");
    let dir = crate::support::mount::scratch("again");
    let point = dir.join("m");
    fs::create_dir(&point).unwrap();
    // In a pid namespace of its own: nobody else takes numbers there. The new process begins within the same tick of
    // its start time as the old one, mostly.
    let script = "\"$0\" \"$1\" || exit 1\n\
        sleep 1000 & old=$!\n\
        exec 7> \"$1/$old/ctl\"\n\
        kill -9 $old; wait $old 2> /dev/null\n\
        echo $((old - 1)) > /proc/sys/kernel/ns_last_pid\n\
        sleep 1000 & new=$!\n\
        [ $new = $old ] && echo again\n\
        echo set syscall >&7 || echo refused\n\
        cat \"$1/$new/ctl\"\n\
        echo set namei > \"$1/$new/ctl\" && cat \"$1/$new/ctl\"\n\
        kill $new; exec 7>&-; umount \"$1\"";
    for _ in 0..5 {
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--fork",
            "--pid",
            "--mount-proc",
            "timeout",
            "--foreground",
            "60",
            "bash",
            "-c",
            script,
        ]);
        let out = output(unshare.arg(crate::support::mount::program()).arg(&point));
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..3], ["again", "refused", "clear"], "{out:?}");
        assert!(lines[3].starts_with("set namei"), "{out:?}");
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn root_may_trace_init() {
    need!("fuse", "ptrace");
    let dir = crate::support::mount::scratch("init");
    let point = dir.join("m");
    fs::create_dir(&point).unwrap();
    // In a pid namespace of its own, whose init is this shell.
    let script = "\"$0\" \"$1\" && echo 'set namei' > \"$1/1/ctl\" && cat \"$1/1/ctl\"; umount \"$1\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--fork", "--pid", "--mount-proc", "timeout", "--foreground", "60", "bash", "-c"]);
    unshare.args([format!("exec bash -c '{}' \"$0\" \"$1\"", script.replace('\'', "'\\''"))]);
    let out = output(unshare.arg(crate::support::mount::program()).arg(&point));
    fs::remove_dir_all(&dir).unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("set namei"), "{out:?}");
}
