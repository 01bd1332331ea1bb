use crossbeam_channel::TryRecvError;

use super::*;
use crate::proc::ProcId;

/// A change for this process, with the command for it.
fn change(waits: bool) -> (Change, Command) {
    let procs = ProcTable::new(Duration::ZERO);
    let proc = procs.entry(ProcId::of(std::process::id() as i32).unwrap());
    Change::new(&proc, None, waits)
}

#[test]
fn who_does_not_wait_until_a_change_is_in_force_is_woken_when_it_has_been_heard_of() {
    // What a tracer thread does with it: somebody must stop yet.
    let heard = |waits| {
        let (change, command) = change(waits);
        let Command::Apply { heard, in_force, told, .. } = command else { panic!("another command") };
        heard.set(Ok(())).unwrap();
        drop(told);
        (change, in_force)
    };
    let (change, _in_force) = heard(false);
    assert_eq!(change.in_force.try_recv(), Err(TryRecvError::Disconnected));
    let (change, in_force) = heard(true);
    assert_eq!(change.in_force.try_recv(), Err(TryRecvError::Empty));
    in_force.send(None).unwrap();
    assert_eq!(change.in_force.try_recv(), Ok(None));
}

#[test]
fn a_change_is_in_force_when_the_last_thread_is_let_go_and_not_when_that_is_told() {
    // This thread is traced by nobody, who is 0.
    let told = |tracer| {
        let (change, command) = change(true);
        let Command::Apply { in_force, .. } = command else { panic!("another command") };
        in_force.send(Some(let_go::LetsGo { tid: sys::gettid(), tracer })).unwrap();
        change.in_force(Instant::now())
    };
    assert_eq!(told(0), InForce::Partly, "that one has it yet");
    assert_eq!(told(1), InForce::All);
}
