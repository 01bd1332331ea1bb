//! placeholder
use crate::Options;
pub(crate) fn run(_: &Options) {}
