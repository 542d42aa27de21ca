//! How many of something the sub-transactions of one transaction did.
//!
//! Kept by `open_txn`.
//! 1. Numbers of sub-transactions only grow, so what a rollback kills is the end.

/// Counts by sub-transaction, ascending.
#[derive(Debug, Default)]
pub(crate) struct Tally(Vec<(u32, u64)>);

impl Tally {
    /// So many, of whichever sub-transactions: none of them is rolled back any more.
    pub(crate) fn of(count: u64) -> Self {
        Self(vec![(0, count)])
    }

    /// One more of sub-transaction `sub`.
    pub(crate) fn add(&mut self, sub: u32) {
        match self.0.last_mut() {
            Some((last, count)) if *last == sub => *count += 1,
            _ => self.0.push((sub, 1)),
        }
    }

    /// Those of sub-transactions from `from` on are dead.
    pub(crate) fn roll_back(&mut self, from: u32) {
        let keep = self.0.partition_point(|(sub, _)| *sub < from);
        self.0.truncate(keep);
    }

    /// There were so many in all, though not all were seen.
    pub(crate) fn complete(&mut self, all: u64) {
        let unseen = all.saturating_sub(self.total());
        self.0.insert(0, (0, unseen));
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        let counts = self.0.iter().map(|(_, count)| *count);
        counts.fold(0, u64::saturating_add)
    }
}
