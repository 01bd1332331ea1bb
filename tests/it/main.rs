//! The tests of the whole: what is here needs more than one module, mostly the real daemon on a real mount. Those of the
//! live programs run on ptrace here, and once more on eBPF in `on_ebpf.rs`.
//!
//! | module | proves |
//! |---|---|
//! | [`documents`] | the session of the README works, tests named as proofs exist |
//! | [`blocked`] | policy block holds up its process and nobody else |
//! | [`control`] | commands on processes that do not stand still; after an accident |
//! | [`drain`] | `fd=` and `ktrace -f FILE`: the records go to the caller's descriptor |
//! | [`hazards`] | what goes wrong with ptrace, by number, and does not |
//! | [`launch`] | `ktrace COMMAND` and `ktruss COMMAND`: status, signals, private mounts |
//! | [`late`] | a ring grows for a reader that is late |
//! | [`live`] | real programs, traced through the files, show what strace shows |
//! | [`moves`] | every call that takes a path or moves data shows it |
//! | [`permission`] | who may, over real credentials, beside what the kernel says |
//! | [`refusals`] | bad input gets its errno and a reason, and nothing hangs |
//! | [`rules`] | rules that only a real process proves, and recursion |
//! | [`seccomp`] | calls that are not wanted do not stop, and nobody is hurt by the filter |
//! | [`set_id`] | privilege and hidden memory do not reach a user's trace |
//! | [`shares`] | a user leaves room for others in what there is only so much of |
//! | [`switches`] | context switches, and not those that tracing makes |
//! | [`tidy`] | the floors, where unsafe stands, sizes, words |
//! | [`utrace`] | records that programs make of themselves |
//! | [`support`] | what these share: a mount, a tracee, a stream with a deadline |

#![allow(clippy::unwrap_used, reason = "a test that meets a surprise has failed")]

mod blocked;
mod control;
mod documents;
mod drain;
mod hazards;
mod late;
mod launch;
mod live;
mod moves;
mod permission;
mod refusals;
mod rules;
mod seccomp;
mod set_id;
mod shares;
mod support;
mod switches;
mod tidy;
mod utrace;

/// The backend of the mounts.
const BACKEND: &str = "ptrace";
