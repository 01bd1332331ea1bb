//! Commands that come while a set-id program is executed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::process::Stdio;

use ktrace::record::Body;

use crate::support::mount::{Mount, scratch};
use crate::support::stream::{Rec, decode};
use crate::support::tracee::Tracee;
use crate::support::user::{A, AS_A, copy, under};
use crate::support::{Running, need};

/// How often a user's command meets the exec: in some of these it comes in its midst.
const ROUNDS: usize = 60;

/// Whatever A sets and clears (`commands`, as fast as it can, with descriptors 3 and 4) while its shell executes a set-uid
/// program: the records that A gets.
fn race(commands: &str) -> Vec<Rec> {
    let dir = scratch("race");
    let id = copy(&dir, "/usr/bin/id", "id", 0o4755);
    let files = [dir.join("3"), dir.join("4")];
    for file in &files {
        fs::write(file, "").unwrap();
        chown(file, Some(A), Some(A)).unwrap();
    }
    let mount = Mount::new();
    for _ in 0..ROUNDS {
        let mut shell = under(AS_A);
        // It takes a different time each round.
        let script = "read x; for i in $(seq 0 $((RANDOM % 10))); do :; done; exec \"$0\" -u";
        let mut tracee = Tracee::command(shell.args(["bash", "-c", script]).arg(&id));
        let script = format!(
            "exec 3>>$1 4>>$2 5>$0/{}/ctl 2>/dev/null; echo; while {commands}; do :; done",
            tracee.pid()
        );
        let mut setter = under(AS_A);
        setter.args(["bash", "-c", &script]).arg(mount.point()).args(&files);
        let mut setter = Running::spawn(setter.stdout(Stdio::piped()));
        BufReader::new(setter.0.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        tracee.go();
        assert!(tracee.running.wait().success());
        setter.wait();
    }
    // With the mount the files are complete.
    drop(mount);
    let recs = files.iter().flat_map(|file| decode(&fs::read(file).unwrap())).collect();
    fs::remove_dir_all(&dir).unwrap();
    recs
}

/// What the program did. That there was a set is no secret of its, also where it came when the program had its name, which is
/// a moment before the exec is done.
fn of_the_program(recs: &[Rec]) -> Vec<&Rec> {
    let did = |rec: &&Rec| !rec.is_of_stream() && !matches!(rec.body(), Body::Emul(_));
    recs.iter().filter(did).filter(|rec| rec.header.stamp.comm.as_bytes() == b"id").collect()
}

#[test]
fn a_first_set_shows_nothing_of_a_set_id_program_that_comes_at_the_same_time() {
    need!("fuse", "ebpf", "setpriv");
    let recs = race("echo set default fd=3 >&5 && echo clear >&5");
    assert!(recs.len() > ROUNDS, "nothing was traced: {}", recs.len());
    assert!(of_the_program(&recs).is_empty(), "{:#?}", of_the_program(&recs));
}

#[test]
fn a_change_lets_in_nobody_whom_a_set_id_program_has_ended() {
    need!("fuse", "ebpf", "setpriv");
    let recs = race("echo set default fd=3 >&5 && echo set default fd=4 >&5");
    assert!(recs.len() > ROUNDS, "nothing was traced: {}", recs.len());
    assert!(of_the_program(&recs).is_empty(), "{:#?}", of_the_program(&recs));
}
