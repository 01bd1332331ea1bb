//! What a full ring means.

use std::fmt;
use std::str::FromStr;

/// What happens when the ring is full (docs/ktracefs.md, "Policies").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// Three tries, then tracing ends: the rule of the seed (R29, R30).
    #[default]
    Stop,
    /// The record is lost and counted; a USER record at the place of the loss says how many.
    Drop,
    /// The traced process waits, for a bounded time.
    Block,
    /// The oldest records go: a flight recorder, which survives its readers.
    Overwrite,
}

impl Policy {
    const NAMES: [(&'static str, Policy); 4] = [
        ("stop", Policy::Stop),
        ("drop", Policy::Drop),
        ("block", Policy::Block),
        ("overwrite", Policy::Overwrite),
    ];
}

impl FromStr for Policy {
    type Err = ();

    fn from_str(s: &str) -> std::result::Result<Policy, ()> {
        Policy::NAMES.iter().find(|(name, _)| *name == s).map(|(_, p)| *p).ok_or(())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Policy::NAMES.iter().find(|(_, p)| p == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}
