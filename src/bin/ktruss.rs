//! ktruss(1).

fn main() {}
