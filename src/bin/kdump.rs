//! kdump(1).

fn main() {}
