//! A process that ends while it is about to be traced: nobody tells of that end any more.

use crate::support::mount::Mount;
use crate::support::tracee::Tracee;
use crate::support::{need, wait_for};

#[test]
fn who_is_ending_when_it_is_set_is_not_traced_and_leaves_nothing_for_the_next_with_its_number() {
    need!("fuse", "ebpf");
    let mount = Mount::new();
    let mut refused = 0;
    for _ in 0..10 {
        let mut tracee = Tracee::start("big", &[]);
        let pid = tracee.pid();
        tracee.go();
        wait_for("its end to begin", || ktrace::proc::is_ending(pid));
        refused += u32::from(mount.ctl(pid, "set syscall,psig policy=drop").is_err());
        assert!(tracee.running.wait().success());
    }
    assert_eq!(refused, 10);
    assert!(mount.read("stat").starts_with("traced 0\n"));
}
