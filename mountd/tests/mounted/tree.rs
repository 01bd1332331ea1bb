//! Names, modes, and what a failed command leaves.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{Running, errno_of, mounted, output};

#[test]
fn the_tree_is_as_documented() {
    let mount = mounted!();
    let mut target = Running::idle();
    let names: Vec<String> = fs::read_dir(mount.point())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["README", "ctl", "stat", "error_log", "self", "1", &target.pid().to_string()] {
        assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
    }
    let dir = mount.path(target.pid().to_string());
    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["ctl", "stat", "text", "trace", "user"]);
    for file in files {
        let meta = dir.join(file).metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, 0));
    }
    assert_eq!(mount.path("stat").metadata().unwrap().permissions().mode() & 0o777, 0o444);
    let me = std::process::id().to_string();
    assert_eq!(fs::read_link(mount.path("self")).unwrap().to_str(), Some(me.as_str()));
    for name in ["nosuch", "0", "01", "+1", "-1", "4294967297", "1 "] {
        assert_eq!(errno_of(mount.path(name).metadata()), libc::ENOENT, "{name}");
    }
    assert_eq!(errno_of(File::create(mount.path("new"))), libc::EACCES);
    target.signal(Signal::SIGKILL);
    target.wait();
    assert_eq!(errno_of(dir.metadata()), libc::ENOENT);
}

#[test]
fn self_is_the_process_also_for_its_threads_and_a_thread_has_no_directory() {
    let mount = mounted!();
    let tid = nix::unistd::gettid();
    assert_ne!(tid, nix::unistd::getpid(), "tests run in threads");
    let me = std::process::id().to_string();
    assert_eq!(fs::read_link(mount.path("self")).unwrap().to_str(), Some(me.as_str()));
    assert_eq!(errno_of(mount.path(tid.to_string()).metadata()), libc::ENOENT);
}

#[test]
fn an_open_ctl_of_a_dead_process_is_esrch() {
    let mount = mounted!();
    let mut target = Running::idle();
    let mut ctl = OpenOptions::new().write(true).open(mount.file(target.pid(), "ctl")).unwrap();
    target.signal(Signal::SIGKILL);
    target.wait();
    assert_eq!(errno_of(ctl.write(b"clear")), libc::ESRCH);
}

#[test]
fn a_failed_command_is_explained_in_error_log() {
    let mount = mounted!();
    let target = Running::idle();
    let ctl = mount.file(target.pid(), "ctl");
    assert_eq!(errno_of(fs::write(&ctl, "set sycall\n")), libc::EINVAL);
    let log = fs::read_to_string(mount.path("error_log")).unwrap();
    let mut lines = log.lines();
    let (line, carets) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(line.ends_with("set sycall"), "{log}");
    assert_eq!(carets.find('^'), line.find("sycall"), "{log}");
    assert!(lines.next().unwrap().starts_with("EINVAL: "), "{log}");
    // Truncated, appended to, at any place of the file: only the line counts.
    for mut options in
        [OpenOptions::new().append(true).to_owned(), OpenOptions::new().write(true).truncate(true).to_owned()]
    {
        let mut file = options.open(&ctl).unwrap();
        assert_eq!(errno_of(file.write(b"bogus")), libc::EINVAL);
        assert_eq!(file.write(b"clear\n").unwrap(), 6);
        assert_eq!(file.write(b"clear\nclear\nbogus\n").unwrap(), 12, "short, before the line that fails");
        assert_eq!(errno_of(file.write(b"bogus\n")), libc::EINVAL);
        options.create(true);
    }
    for _ in 0..20 {
        assert!(fs::write(&ctl, "bogus").is_err());
    }
    let log = fs::read_to_string(mount.path("error_log")).unwrap();
    assert_eq!(log.matches("EINVAL").count(), 8, "the last ones");
}

#[test]
fn another_user_sees_the_list_and_nothing_else() {
    let mount = mounted!();
    let parent = mount.point().parent().unwrap().to_owned();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
    let target = Running::idle();
    let cat = |file: &str| {
        output(Command::new("cat").arg(mount.file(target.pid(), file)).uid(65534).gid(65534)).status.success()
    };
    for file in ["trace", "text", "ctl", "stat"] {
        assert!(!cat(file), "{file}");
    }
    assert!(output(Command::new("ls").arg(mount.point()).uid(65534).gid(65534)).status.success());
    let log = output(Command::new("cat").arg(mount.path("error_log")).uid(65534).gid(65534));
    assert!(log.status.success() && log.stdout.is_empty());
}

#[test]
fn a_listing_has_every_process_and_none_that_has_gone() {
    let mount = mounted!();
    let mut crowd: Vec<Running> = (0..1500).map(|_| Running::idle()).collect();
    let listed = || -> std::collections::HashSet<i32> {
        let names = fs::read_dir(mount.point()).unwrap().map(|e| e.unwrap().file_name());
        names.filter_map(|name| name.to_str()?.parse().ok()).collect()
    };
    let pids: Vec<i32> = crowd.iter().map(Running::pid).collect();
    let there = listed();
    assert!(pids.iter().all(|pid| there.contains(pid)));
    for one in &mut crowd {
        one.signal(Signal::SIGKILL);
        one.wait();
    }
    let left = listed();
    assert!(pids.iter().all(|pid| !left.contains(pid)));
    assert_eq!(errno_of(fs::read_dir(mount.path(pids[0].to_string()))), libc::ENOENT);
}
