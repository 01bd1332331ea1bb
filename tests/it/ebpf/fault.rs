//! What is left where the thread that reads the rings breaks down.

use std::process::Command;

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::{Running, need, wait_for};

#[test]
fn a_fault_of_the_daemon_releases_all_that_is_traced_and_the_mount_goes_on() {
    need!("fuse", "ebpf");
    let Some(mount) = Mount::limited("events=100", &["-o", "backend=auto"]) else { return };
    let idle = Running::spawn(Command::new("sleep").arg("1000"));
    mount.set(idle.pid(), "set syscall policy=drop backend=ebpf");
    let mut tracee = Tracee::start("flood", &["1000"]);
    mount.set(tracee.pid(), "set syscall policy=drop");
    let (mut first, mut second) = (mount.trace(idle.pid()), mount.trace(tracee.pid()));
    tracee.go();
    assert!(tracee.running.wait().success());
    for trace in [&mut first, &mut second] {
        let recs = trace.rest();
        let text = |rec: &Rec| format!("{:?}", rec.body());
        assert!(recs.iter().any(|rec| rec.is_of_stream()), "{:?}", recs.iter().map(text).collect::<Vec<_>>());
    }
    wait_for("all to be released", || mount.read("stat").contains("traced 0\n"));
    let stat = mount.read(format!("{}/stat", idle.pid()));
    assert!(stat.contains("error tracing stopped: errno 5 (EIO)"), "{stat}");
    let stat = mount.read("stat");
    assert!(stat.contains("backend ptrace\n") && stat.contains("no_ebpf a fault of ours: "), "{stat}");
    let (errno, why) = mount.refused(idle.pid(), "set syscall policy=drop backend=ebpf");
    assert_eq!(errno, libc::EOPNOTSUPP);
    assert!(why.contains("the ebpf backend has ended by a fault of ours"), "{why}");
    mount.set(idle.pid(), "set syscall policy=drop");
    assert_ne!(ktrace::proc::tracer_of(idle.pid()), 0);
}
