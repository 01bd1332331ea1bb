//! ktrace(1).

fn main() {}
