//! Nobody but root takes what the daemon has for all: a user has no more of it than is free.

use crate::support::mount::Mount;
use crate::support::user::{AS_A, AS_B, sets, sleeper};
use crate::support::{Running, need, wait_for};

#[test]
fn a_user_who_takes_all_the_memory_there_is_leaves_some_for_others() {
    need!("fuse", "ptrace", "setpriv");
    /// More than there is room for: each has 64 KiB at least.
    const MANY: usize = 32;
    let mount = Mount::with(&["-o", "mem=1M,linger=1"]);
    let mut own: Vec<Running> = Vec::new();
    let why = loop {
        let sleeper = sleeper(AS_A);
        let said = sets(&mount, AS_A, sleeper.pid());
        own.push(sleeper);
        match said {
            Ok(()) => assert!(own.len() < MANY, "nothing is refused"),
            Err(why) => break why,
        }
    };
    assert!(why.contains("ENOSPC: uid 61001 has its share of the daemon's memory (mem=)"), "{why}");
    assert!(own.len() > 2, "{}", own.len());
    // Another user has the same trouble later, and root none.
    let (other, roots) = (sleeper(AS_B), sleeper("env"));
    assert_eq!(sets(&mount, AS_B, other.pid()), Ok(()));
    mount.set(roots.pid(), "set namei");
    // What is given back may be taken again: who has gone leaves its records for a second here.
    let last = own.last().map_or(0, Running::pid);
    own.drain(..2);
    drop((other, roots));
    wait_for("a share", || sets(&mount, AS_A, last).is_ok());
}
