//! The real daemon, mounted.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::explicit_write,
    reason = "a test fails where it is; a skip is said past the runner"
)]

mod life;
mod readers;
mod support;
mod traced;
mod tree;
