//! Where somebody waits for a transaction: what brings its end, or its rollback, to them.
//!
//! Kept by `owner`, filled by others under the latch of what is waited for.
//! 1. K4: a row is here once for its holder, and once for each range around it in whose way somebody waits there.
//! 2. Each is here once, and leaves in the time of a look: what others gave up leaves nothing behind that grows.
//!
//! Crash: memory only.

use std::collections::{BTreeMap, BTreeSet};

use lockstone_base::{RowKey, TableId};

/// A row and its hash, the hash first: that is compared in one step.
pub(crate) type HashedRow = (u64, RowKey);

/// A range or a table that is to be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wider {
    /// The range of this number.
    Range(u64),
    /// The table.
    Table(TableId),
}

/// All that concerns one owner.
#[derive(Debug, Default)]
pub(crate) struct Contended {
    /// By the number of the owner's range for whose sake they are here; `None`: it holds the rows themselves.
    rows: BTreeMap<Option<u64>, BTreeSet<HashedRow>>,
    wide: BTreeSet<Wider>,
}

impl Contended {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.wide.is_empty()
    }

    pub(crate) fn push_row(&mut self, within: Option<u64>, row: HashedRow) {
        self.rows.entry(within).or_default().insert(row);
    }

    pub(crate) fn forget_row(&mut self, within: Option<u64>, row: &HashedRow) {
        if let Some(rows) = self.rows.get_mut(&within) {
            rows.remove(row);
            if rows.is_empty() {
                self.rows.remove(&within);
            }
        }
    }

    /// The rows that are here for the sake of one range, which is given back.
    pub(crate) fn take_rows_within(&mut self, range: u64) -> BTreeSet<HashedRow> {
        self.rows.remove(&Some(range)).unwrap_or_default()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &HashedRow> {
        self.rows.values().flatten()
    }

    pub(crate) fn push_wide(&mut self, wider: Wider) {
        self.wide.insert(wider);
    }

    pub(crate) fn forget_wide(&mut self, wider: Wider) {
        self.wide.remove(&wider);
    }

    pub(crate) fn wide(&self) -> impl Iterator<Item = Wider> {
        self.wide.iter().copied()
    }
}
