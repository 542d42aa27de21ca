//! Where a row's entry is: its shard, and its node there. Four bytes, so that a million locks' undo list is small.
//!
//! 1. A place stays the row's while the row is held or waited for; then it may become another's. Whoever comes by a
//!    place that an ended transaction left looks whose it is now.
//!
//! Crash: memory only.

/// Bits for the node within its shard: 33 million rows in each.
pub(crate) const NODE_BITS: u32 = 25;

/// The entry of a row that is held or waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

impl Place {
    /// Of a lock that is no row's, or a row's within an own range: it has no entry.
    pub(crate) const NONE: Self = Self(u32::MAX);

    pub(crate) fn new(shard: usize, node: u32) -> Self {
        Self((shard as u32) << NODE_BITS | node)
    }

    pub(crate) fn shard(self) -> usize {
        (self.0 >> NODE_BITS) as usize
    }

    pub(crate) fn node(self) -> u32 {
        self.0 & ((1 << NODE_BITS) - 1)
    }
}
