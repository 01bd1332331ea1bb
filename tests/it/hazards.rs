//! What goes wrong with ptrace, by the numbers of docs/ptrace.md: each hazard has a test that fails where its handling
//! is taken out.

mod births;
mod identity;
mod lives;
mod stops;

use std::fs;

use crate::support::wait_for;

/// The number of the system call a process sleeps in.
fn call_of(pid: i32) -> Option<i64> {
    fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?.split(' ').next()?.parse().ok()
}

fn wait_for_call(pid: i32, number: i64) {
    wait_for("the process to sleep in its call", || call_of(pid) == Some(number));
}

/// State letter of a process.
fn state(pid: i32) -> char {
    ktrace::proc::Stat::of(pid).map_or('X', |stat| stat.state as char)
}
