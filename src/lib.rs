//! ktrace for Linux, without FUSE and without `main()`.
//!
//! # The map
//!
//! The library is built in floors; a module may use the floors below it, never those above. `tests/it/tidy.rs` holds
//! this.
//!
//! | floor | modules | what is there |
//! |---|---|---|
//! | 0, words | [`facility`] [`record`] [`syscall`] [`signal`] [`errno`] [`policy`] [`ctl`] [`error`] | pure: no I/O, no clock, no threads |
//! | 1, things | [`cred`] [`sink`] [`proc`] [`dump`] | state and mechanism, no policy |
//! | 2, the facility | [`hooks`] [`backend`] [`control`] [`drain`] [`stream`] | what `kern_ktrace.c` is in NetBSD |
//! | 3, sources of events | [`ptrace`] [`ebpf`] | the backends: watch processes and call the hooks |
//! | 3, clients | [`launch`] [`utrace()`] | how the tools find a mount and start a command; a program's own records |
//!
//! The daemon (`mountd/`) and the tools (`src/bin/`) are clients of the public names here.
//!
//! # The two paths
//!
//! *Data*: tracee stop, [`ptrace`] makes it a typed stop, observes it with the [`syscall`] table, calls a hook of
//! [`hooks::Recorder`], which tests the facility before it builds anything, encodes one record and appends it to the
//! [`sink::Sink`]; a [`stream::TraceFile`] reads it from there.
//!
//! *Control*: a line written to a `ctl` file, [`ctl::Command`], [`control::Ktrace::control`], permission per process
//! ([`cred`]), then [`backend::Backend::apply`].

#![deny(unsafe_code)]

pub mod backend;
pub mod control;
pub mod cred;
pub mod ctl;
pub mod drain;
pub mod dump;
pub mod ebpf;
pub mod errno;
pub mod error;
pub mod facility;
pub mod hooks;
pub mod launch;
mod pids;
pub mod policy;
pub mod proc;
pub mod ptrace;
pub mod record;
pub mod seccomp;
pub mod signal;
pub mod sink;
pub mod stream;
mod sys;
pub mod syscall;
mod utrace;

pub use error::{Error, Result};
pub use utrace::utrace;
