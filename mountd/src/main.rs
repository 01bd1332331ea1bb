//! ktracefs(8), the daemon.

#![forbid(unsafe_code)]

fn main() {}
