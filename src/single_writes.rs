//! The rows that a transaction wrote one by one, in order. Called by the write set.
//!
//! 1. Few stand in a sorted list: most transactions write some rows, and one row allocates nothing. More become
//!    a tree, once and for all.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::slice;

use bytes::Bytes;
use lockstone_base::RowKey;
use smallvec::SmallVec;

/// Up to here moving half the list costs less than a tree's nodes.
const FEW_MAX: usize = 16;

/// What a write leaves in its row: a value, or nothing.
pub(crate) type Effect = Option<Bytes>;

/// The effects on one row: the newest, and those that a rollback would bring back, each with its
/// sub-transaction.
#[derive(Debug, Clone)]
pub(crate) struct Effects {
    pub(crate) newest: (u32, Effect),
    pub(crate) older: Vec<(u32, Effect)>,
}

/// Rows with their effects.
#[derive(Debug, Clone)]
pub(crate) enum SingleWrites {
    Few(SmallVec<[(RowKey, Effects); 1]>),
    Many(BTreeMap<RowKey, Effects>),
}

impl Default for SingleWrites {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl SingleWrites {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(rows) => rows.len(),
            Self::Many(rows) => rows.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, row: &[u8]) -> Option<&Effects> {
        match self {
            Self::Few(rows) => {
                let at = place(rows, row).ok()?;
                rows.get(at).map(|(_, effects)| effects)
            }
            Self::Many(rows) => rows.get(row),
        }
    }

    pub(crate) fn get_mut(&mut self, row: &[u8]) -> Option<&mut Effects> {
        match self {
            Self::Few(rows) => {
                let at = place(rows, row).ok()?;
                rows.get_mut(at).map(|(_, effects)| effects)
            }
            Self::Many(rows) => rows.get_mut(row),
        }
    }

    /// Adds a row that is not there.
    pub(crate) fn insert(&mut self, row: RowKey, effects: Effects) {
        if let Self::Few(rows) = self {
            if rows.len() < FEW_MAX {
                let at = place(rows, row.as_bytes()).unwrap_or_else(|at| at);
                rows.insert(at, (row, effects));
                return;
            }
            *self = Self::Many(std::mem::take(rows).into_iter().collect());
        }
        if let Self::Many(rows) = self {
            rows.insert(row, effects);
        }
    }

    pub(crate) fn remove(&mut self, row: &[u8]) {
        match self {
            Self::Few(rows) => {
                if let Ok(at) = place(rows, row) {
                    rows.remove(at);
                }
            }
            Self::Many(rows) => drop(rows.remove(row)),
        }
    }

    /// The rows within `bounds`, whose start is not behind their end.
    pub(crate) fn range(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> SingleRows<'_> {
        let rows = match self {
            Self::Many(rows) => return SingleRows::Many(rows.range::<[u8], _>(bounds)),
            Self::Few(rows) => rows,
        };
        let at = |row: &[u8], behind: bool| match place(rows, row) {
            Ok(at) => at + usize::from(behind),
            Err(at) => at,
        };
        let start = match bounds.0 {
            Bound::Included(row) => at(row, false),
            Bound::Excluded(row) => at(row, true),
            Bound::Unbounded => 0,
        };
        let end = match bounds.1 {
            Bound::Included(row) => at(row, true),
            Bound::Excluded(row) => at(row, false),
            Bound::Unbounded => rows.len(),
        };
        SingleRows::Few(rows.get(start..end).unwrap_or_default().iter())
    }

    /// Hands each row with its effects to `take`, in order.
    pub(crate) fn drain(self, take: impl FnMut((RowKey, Effects))) {
        match self {
            Self::Few(rows) => rows.into_iter().for_each(take),
            Self::Many(rows) => rows.into_iter().for_each(take),
        }
    }
}

fn place(rows: &[(RowKey, Effects)], row: &[u8]) -> Result<usize, usize> {
    rows.binary_search_by(|(other, _)| other.as_bytes().cmp(row))
}

/// Walks rows from both ends.
#[derive(Debug, Clone)]
pub(crate) enum SingleRows<'a> {
    Few(slice::Iter<'a, (RowKey, Effects)>),
    Many(btree_map::Range<'a, RowKey, Effects>),
}

impl<'a> Iterator for SingleRows<'a> {
    type Item = (&'a RowKey, &'a Effects);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(rows) => rows.next().map(|(row, effects)| (row, effects)),
            Self::Many(rows) => rows.next(),
        }
    }
}

impl DoubleEndedIterator for SingleRows<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(rows) => rows.next_back().map(|(row, effects)| (row, effects)),
            Self::Many(rows) => rows.next_back(),
        }
    }
}
