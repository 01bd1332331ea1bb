//! Tables by the number of a process or thread. The kernel gives the numbers, nobody can choose them so that they
//! collide, and one is looked up for each event: so a quick hash will do.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Something of each process or thread.
pub(crate) type Pids<T> = HashMap<i32, T, BuildHasherDefault<ByPid>>;
/// Processes or threads.
pub(crate) type PidSet = HashSet<i32, BuildHasherDefault<ByPid>>;

#[derive(Default, Debug)]
pub(crate) struct ByPid(u64);

impl Hasher for ByPid {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_i32(i32::from(byte)));
    }

    fn write_i32(&mut self, pid: i32) {
        self.0 = (self.0 ^ pid as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
