//! The live tests once more, on the eBPF backend, and what is to be said of it alone. `main.rs` says what each module
//! proves; a row that makes no sense here says why.
//!
//! | module | proves |
//! |---|---|
//! | [`ebpf`] | the same records as with ptrace, an exact count of what was lost, processes that others trace too |

#![allow(clippy::unwrap_used, reason = "a test that meets a surprise has failed")]

mod control;
mod drain;
mod ebpf;
mod hazards;
mod live;
mod moves;
mod permission;
mod refusals;
mod rules;
mod set_id;
mod shares;
mod support;
mod switches;
mod utrace;

/// The backend of the mounts.
const BACKEND: &str = "ebpf";
