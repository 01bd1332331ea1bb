//! Mounting, and every way in which a mount ends.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount, umount2};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::support::{Mount, PROGRAM, Running, errno_of, mounted, output, wait_for};

#[test]
fn umount_ends_the_daemon() {
    let mut mount = mounted!();
    umount(&mount.point()).unwrap();
    assert!(mount.daemon.as_mut().unwrap().wait().success());
}

#[test]
fn a_lazy_umount_gives_readers_eof_and_ends_the_daemon() {
    let mut mount = mounted!();
    let target = Running::idle();
    let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
    assert_eq!(umount(&mount.point()), Err(nix::errno::Errno::EBUSY));
    umount2(&mount.point(), MntFlags::MNT_DETACH).unwrap();
    assert!(reader.wait().success());
    assert!(mount.daemon.as_mut().unwrap().wait().success());
}

#[test]
fn sigterm_gives_readers_eof_unmounts_and_ends_the_daemon_in_two_seconds() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut mount = mounted!();
        let target = Running::idle();
        let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
        // Somebody who keeps a file open cannot hold the daemon up.
        let kept = File::open(mount.file(target.pid(), "trace")).unwrap();
        let sent = Instant::now();
        mount.daemon.as_ref().unwrap().signal(signal);
        assert!(reader.wait().success());
        assert!(mount.daemon.as_mut().unwrap().wait().success());
        assert!(sent.elapsed() < Duration::from_secs(2));
        assert!(!mount.is_mounted());
        drop(kept);
    }
}

#[test]
fn what_a_killed_daemon_left_is_cleared() {
    let mut mount = mounted!();
    let target = Running::idle();
    let mut reader = mount.cat(&mount.file(target.pid(), "trace"));
    let daemon = mount.daemon.as_mut().unwrap();
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(!reader.wait().success(), "ECONNABORTED");
    assert_eq!(errno_of(fs::read_dir(mount.point())), libc::ENOTCONN);
    mount.start(&[]);
    assert!(mount.path("README").exists());
    umount(&mount.point()).unwrap();
    assert!(!mount.is_mounted(), "only one is there");
}

#[test]
fn a_second_mount_on_the_same_place_is_refused() {
    let mount = mounted!();
    let second = output(Command::new(PROGRAM).arg(mount.point()));
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is mounted there"));
    assert!(mount.path("README").exists());
}

/// The daemon of a mount that was started in the background.
fn daemon_of(mount: &Mount) -> i32 {
    let point = mount.point();
    let name = point.to_str().unwrap();
    let found = fs::read_dir("/proc").unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_it = cmdline.split(|b| *b == 0).any(|word| word == name.as_bytes());
        entry.file_name().to_str()?.parse().ok().filter(|_| is_it)
    });
    found.expect("a daemon runs")
}

#[test]
fn in_the_background_the_parent_returns_when_it_is_mounted() {
    let Some(mount) = Mount::point_only() else { return };
    let started = output(Command::new(PROGRAM).arg(mount.point()));
    assert!(started.status.success(), "{started:?}");
    assert!(mount.path("README").exists());
    let daemon = daemon_of(&mount);
    assert_eq!(fs::read_to_string(format!("/proc/{daemon}/comm")).unwrap(), "ktracefs\n");
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap().to_str(), Some("/"));
    for fd in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{daemon}/fd/{fd}")).unwrap().to_str(), Some("/dev/null"));
    }
    let sid = nix::unistd::getsid(Some(Pid::from_raw(daemon))).unwrap();
    assert_eq!(sid.as_raw(), daemon, "a session of its own");
    umount(&mount.point()).unwrap();
    wait_for("the daemon's end", || !fs::exists(format!("/proc/{daemon}")).unwrap());
}

#[test]
fn what_goes_wrong_in_the_background_is_said_in_front() {
    let Some(mount) = Mount::point_only() else { return };
    for (place, words) in [(mount.path("nosuch"), "No such file"), ("/etc/passwd".into(), "not a directory")]
    {
        let started = output(Command::new(PROGRAM).arg(&place));
        assert_eq!(started.status.code(), Some(1), "{place:?}");
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(said.starts_with("ktracefs: ") && said.contains(words), "{said}");
    }
}

#[test]
fn as_a_helper_of_mount_it_mounts_and_pretends() {
    let Some(mount) = Mount::point_only() else { return };
    let helper = mount.point().with_file_name("mount.ktracefs");
    symlink(PROGRAM, &helper).unwrap();
    let run = |options: &[&str]| {
        output(Command::new(&helper).arg("none").arg(mount.point()).args(options)).status.code()
    };
    assert_eq!(run(&["-f", "-o", "rw"]), Some(0));
    assert!(!mount.is_mounted(), "-f only pretends");
    assert_eq!(run(&["-n", "-v", "-o", "rw,nosuchoption"]), Some(2));
    assert_eq!(run(&["-n", "-v", "-o", "rw,dev,suid,size=1M"]), Some(0));
    assert!(mount.path("README").exists());
    let daemon = daemon_of(&mount);
    umount(&mount.point()).unwrap();
    wait_for("the daemon's end", || !fs::exists(format!("/proc/{daemon}")).unwrap());
}

#[test]
fn mount_by_every_type_that_names_us() {
    let Some(mount) = Mount::point_only() else { return };
    if !crate::support::has("mount.fuse3") {
        return;
    }
    let extra = mount.point().with_file_name("sbin");
    fs::create_dir(&extra).unwrap();
    symlink(PROGRAM, extra.join("ktracefs")).unwrap();
    symlink(PROGRAM, extra.join("mount.ktracefs")).unwrap();
    // In a mount namespace of its own, where the program is installed as a package would.
    let script = "set -e\n\
        mount -t overlay overlay -o lowerdir=\"$1:/usr/sbin\" /usr/sbin\n\
        for how in 'fuse ktracefs' 'fuse.ktracefs none' 'ktracefs none'; do\n\
            mount -t $how \"$2\"\n\
            findmnt -n -t fuse.ktracefs -o FSTYPE \"$2\"\n\
            head -1 \"$2/README\" > /dev/null\n\
            umount \"$2\"\n\
        done";
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "timeout", "60", "bash", "-c", script, "sh"]).arg(&extra).arg(mount.point());
    let out = output(&mut unshare);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "fuse.ktracefs\n".repeat(3), "{}: {said}", out.status);
}

#[test]
fn a_user_mounts_traces_and_unmounts_through_fusermount3() {
    let Some(mount) = Mount::point_only() else { return };
    if !["fusermount3", "setpriv", "mknod"].into_iter().all(crate::support::has) {
        return;
    }
    let dir = mount.point().parent().unwrap().to_owned();
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(mount.point(), Some(65534), Some(65534)).unwrap();
    fs::copy(PROGRAM, dir.join("ktracefs")).unwrap();
    // In a mount namespace of its own: this machine's /dev/fuse need not be open to users. Root may not look in.
    let script = "set -e\n\
        mknod -m 666 \"$1/fuse\" c 10 229\n\
        mount --bind \"$1/fuse\" /dev/fuse\n\
        setpriv --reuid=65534 --regid=65534 --clear-groups bash -ec '\n\
            \"$0/ktracefs\" \"$1\"\n\
            findmnt -n -o FSTYPE \"$1\"\n\
            sleep 1000 & pid=$!\n\
            echo set syscall > \"$1/$pid/ctl\"\n\
            cat \"$1/$pid/ctl\"\n\
            kill $pid\n\
            timeout 10 cat \"$1/$pid/trace\" | head -c 4 | od -An -tu4\n\
            echo set syscall > \"$1/1/ctl\" || echo refused\n\
            fusermount3 -u \"$1\"\n\
        ' \"$1\" \"$2\"\n\
        ls \"$2\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "timeout", "60", "bash", "-c", script, "sh"]).arg(&dir).arg(mount.point());
    let out = output(&mut unshare);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let failed = || format!("{}: {said}{}", out.status, String::from_utf8_lossy(&out.stderr));
    assert_eq!(lines.len(), 4, "{}", failed());
    assert_eq!(lines[0], "fuse.ktracefs");
    assert!(lines[1].starts_with("set syscall"), "{}", failed());
    assert_eq!(lines[2], "5", "the first record is EMUL \"linux\"");
    assert_eq!(lines[3], "refused");
}
