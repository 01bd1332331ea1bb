//! Inode numbers: one block of them for each process, taken from a counter and never used again, so that a number of a
//! dead process can never mean the next one with its process id.

use std::collections::HashMap;

use ktrace::proc::ProcId;

/// A place in the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Node {
    /// `/ktrace` itself.
    Root,
    /// `README`.
    Readme,
    /// The `ctl` of the root.
    Ctl,
    /// The `stat` of the root.
    Stat,
    /// `error_log`.
    ErrorLog,
    /// `self`.
    SelfLink,
    /// `<pid>`.
    Dir(ProcId),
    /// A file of a process.
    File(ProcId, PidFile),
}

/// The files of a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum PidFile {
    /// Commands, and the present state.
    Ctl,
    /// Binary records.
    Trace,
    /// The same as kdump prints it.
    Text,
    /// USER records.
    User,
    /// Counters.
    Stat,
}

/// The files of the root by name, in the order of a listing.
pub(crate) const ROOT_FILES: [(&str, Node); 5] = [
    ("README", Node::Readme),
    ("ctl", Node::Ctl),
    ("stat", Node::Stat),
    ("error_log", Node::ErrorLog),
    ("self", Node::SelfLink),
];

/// The files of a process by name, in the order of a listing.
pub(crate) const PID_FILES: [(&str, PidFile); 5] = [
    ("ctl", PidFile::Ctl),
    ("trace", PidFile::Trace),
    ("text", PidFile::Text),
    ("user", PidFile::User),
    ("stat", PidFile::Stat),
];

/// The root's number, given by FUSE.
pub(crate) const ROOT: u64 = 1;
/// Numbers of a block: the directory and its files. Block 0 is the root's.
const BLOCK: u64 = 8;

/// The processes whose numbers the kernel knows.
#[derive(Debug, Default)]
pub(crate) struct Inodes {
    blocks: HashMap<u64, Known>,
    by_id: HashMap<ProcId, u64>,
    last: u64,
}

#[derive(Debug)]
struct Known {
    id: ProcId,
    /// How often the kernel was told one of the block's numbers, less what it has forgotten.
    lookups: u64,
}

impl Inodes {
    /// The number of a node that the kernel is now told: to be forgotten once for each call.
    pub(crate) fn remember(&mut self, node: Node) -> u64 {
        let Some(id) = id_of(node) else { return slot(node) };
        let block = *self.by_id.entry(id).or_insert_with(|| {
            self.last += 1;
            self.last
        });
        self.blocks.entry(block).or_insert(Known { id, lookups: 0 }).lookups += 1;
        block * BLOCK + slot(node)
    }

    /// The number of a node, 0 where the kernel knows none.
    pub(crate) fn number(&self, node: Node) -> u64 {
        match id_of(node) {
            None => slot(node),
            Some(id) => self.by_id.get(&id).map_or(0, |block| block * BLOCK + slot(node)),
        }
    }

    /// The node of a number that the kernel was told and has not forgotten.
    pub(crate) fn node(&self, ino: u64) -> Option<Node> {
        let (block, slot) = (ino / BLOCK, ino % BLOCK);
        if block == 0 {
            return match slot {
                ROOT => Some(Node::Root),
                _ => ROOT_FILES.get(slot.checked_sub(2)? as usize).map(|(_, node)| *node),
            };
        }
        let id = self.blocks.get(&block)?.id;
        match slot {
            0 => Some(Node::Dir(id)),
            _ => PID_FILES.get(slot as usize - 1).map(|(_, file)| Node::File(id, *file)),
        }
    }

    /// The kernel has forgotten a number `lookups` times.
    pub(crate) fn forget(&mut self, ino: u64, lookups: u64) {
        let block = ino / BLOCK;
        let Some(known) = self.blocks.get_mut(&block) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0 {
            self.by_id.remove(&known.id);
            self.blocks.remove(&block);
        }
    }
}

fn id_of(node: Node) -> Option<ProcId> {
    match node {
        Node::Dir(id) | Node::File(id, _) => Some(id),
        _ => None,
    }
}

/// The place of a node in its block.
fn slot(node: Node) -> u64 {
    let at = match node {
        Node::Root => return ROOT,
        Node::Dir(_) => return 0,
        Node::File(_, file) => PID_FILES.iter().position(|(_, f)| *f == file).map(|i| i + 1),
        _ => ROOT_FILES.iter().position(|(_, n)| *n == node).map(|i| i + 2),
    };
    at.unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProcId = ProcId { pid: 10, start: 1, inode: 0 };
    const B: ProcId = ProcId { pid: 10, start: 2, inode: 0 };

    #[test]
    fn every_node_has_a_number_that_leads_back() {
        let mut inodes = Inodes::default();
        let files = PID_FILES.iter().map(|(_, f)| Node::File(A, *f));
        let nodes: Vec<Node> = ROOT_FILES
            .iter()
            .map(|(_, n)| *n)
            .chain([Node::Root, Node::Dir(A), Node::Dir(B)])
            .chain(files)
            .collect();
        let numbers: Vec<u64> = nodes.iter().map(|n| inodes.remember(*n)).collect();
        for (node, number) in nodes.iter().zip(&numbers) {
            assert_eq!(inodes.node(*number), Some(*node));
            assert_eq!(inodes.number(*node), *number);
            assert_eq!(numbers.iter().filter(|n| *n == number).count(), 1, "{node:?} shares its number");
        }
        assert_eq!(inodes.node(7), None);
        assert_eq!(inodes.node(u64::MAX), None);
    }

    #[test]
    fn a_number_is_never_used_again() {
        let mut inodes = Inodes::default();
        let first = inodes.remember(Node::Dir(A));
        inodes.forget(first, 1);
        assert_eq!(inodes.node(first), None);
        assert_ne!(inodes.remember(Node::Dir(B)), first);
        assert_ne!(inodes.remember(Node::Dir(A)), first);
    }

    #[test]
    fn the_block_stays_until_its_last_lookup_is_forgotten() {
        let mut inodes = Inodes::default();
        let dir = inodes.remember(Node::Dir(A));
        let ctl = inodes.remember(Node::File(A, PidFile::Ctl));
        inodes.forget(dir, 1);
        assert_eq!(inodes.node(ctl), Some(Node::File(A, PidFile::Ctl)));
        inodes.forget(ctl, 5);
        assert_eq!(inodes.node(ctl), None);
        inodes.forget(ctl, 1);
    }
}
