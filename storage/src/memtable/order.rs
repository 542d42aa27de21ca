//! The rows of single versions in order: made when somebody scans, not when somebody writes.
//!
//! Called by `singles`, which keeps it behind a latch that no writer takes.
//! 1. It has every row whose first version's number is below `through`. A scan that may see more adds the
//!    rest first.
//! 2. Rows only, not versions: a row that is written often is there once.
//! 3. Leaves of up to [`LEAF_ROWS_MAX`] rows, none empty. A row stands there with its first bytes, so that
//!    a search seldom has to go to the rows themselves.

use std::cmp::Ordering;

use super::entry::Entry;

/// Half of it moves when a row is added; the leaves' number is what a search's first half goes over.
const LEAF_ROWS_MAX: usize = 256;

/// What a leaf gets when many rows are added at once: room for some more.
const LEAF_ROWS_AIM: usize = 192;

/// As many new rows as one in this many, and more than a leaf has: the leaves are made anew.
const MANY: usize = 8;

/// Rows in order.
#[derive(Debug, Default)]
pub(super) struct Order {
    leaves: Vec<Vec<Ordered>>,
    through: u32,
}

/// A row: its first bytes, and the number of its root.
#[derive(Debug, Clone, Copy)]
struct Ordered {
    first: (u64, u64),
    root: u32,
}

/// A place between two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    leaf: usize,
    /// How many of the leaf's rows stand before it.
    index: usize,
}

impl Spot {
    /// The place before all rows.
    pub(super) const START: Self = Self { leaf: 0, index: 0 };
}

/// The first 16 bytes of a row, with zeros behind a shorter one: where these of two rows differ, the rows
/// are ordered as they are.
fn first_bytes(row: &[u8]) -> (u64, u64) {
    let mut first = [0; 16];
    for (to, from) in first.iter_mut().zip(row) {
        *to = *from;
    }
    let first = u128::from_be_bytes(first);
    ((first >> 64) as u64, first as u64)
}

/// The entries that an order speaks of.
pub(super) trait Entries {
    fn entry(&self, number: u32) -> &Entry;
}

impl Order {
    /// Up to which number of an entry it has the rows.
    pub(super) fn through(&self) -> u32 {
        self.through
    }

    /// Adds the rows of entries below `through`.
    pub(super) fn extend(&mut self, entries: &impl Entries, through: u32) {
        let mut added: Vec<_> = (self.through..through)
            .filter(|number| entries.entry(*number).is_root())
            .map(|root| Ordered {
                first: first_bytes(entries.entry(root).row()),
                root,
            })
            .collect();
        self.through = self.through.max(through);
        if added.len() < LEAF_ROWS_MAX || added.len() < self.rows() / MANY {
            for row in added {
                self.insert(entries, row);
            }
        } else {
            added.sort_unstable_by(|a, b| compare(entries, a, b));
            self.rebuild(entries, added);
        }
    }

    fn rows(&self) -> usize {
        self.leaves.iter().map(Vec::len).sum()
    }

    fn insert(&mut self, entries: &impl Entries, row: Ordered) {
        let spot = self.place(|other| compare(entries, other, &row).is_lt());
        // A row between two leaves goes to the end of the former.
        let Some(leaf) = self.leaves.get_mut(spot.leaf) else {
            self.leaves.push(vec![row]);
            return;
        };
        leaf.insert(spot.index, row);
        if leaf.len() > LEAF_ROWS_MAX {
            let behind = leaf.split_off(LEAF_ROWS_MAX / 2);
            self.leaves.insert(spot.leaf + 1, behind);
        }
    }

    fn rebuild(&mut self, entries: &impl Entries, added: Vec<Ordered>) {
        let mut before = std::mem::take(&mut self.leaves)
            .into_iter()
            .flatten()
            .peekable();
        let mut leaf = Vec::with_capacity(LEAF_ROWS_MAX + 1);
        let mut push = |row| {
            leaf.push(row);
            if leaf.len() == LEAF_ROWS_AIM {
                let full = std::mem::replace(&mut leaf, Vec::with_capacity(LEAF_ROWS_MAX + 1));
                self.leaves.push(full);
            }
        };
        for row in added {
            while let Some(smaller) = before.next_if(|other| compare(entries, other, &row).is_lt())
            {
                push(smaller);
            }
            push(row);
        }
        before.for_each(&mut push);
        if !leaf.is_empty() {
            self.leaves.push(leaf);
        }
    }

    /// The place before `row`, or behind it.
    pub(super) fn find(&self, entries: &impl Entries, row: &[u8], behind: bool) -> Spot {
        let first = first_bytes(row);
        self.place(|other| {
            let order = other
                .first
                .cmp(&first)
                .then_with(|| entries.entry(other.root).row().cmp(row));
            order.is_lt() || behind && order.is_eq()
        })
    }

    /// The place behind the rows for which `is_before` holds: all up to some row.
    fn place(&self, is_before: impl Fn(&Ordered) -> bool) -> Spot {
        let leaf = self
            .leaves
            .partition_point(|leaf| leaf.first().is_some_and(&is_before))
            .saturating_sub(1);
        let index = self
            .leaves
            .get(leaf)
            .map_or(0, |leaf| leaf.partition_point(is_before));
        Spot { leaf, index }
    }

    /// The place behind all rows.
    pub(super) fn end(&self) -> Spot {
        let leaf = self.leaves.len().saturating_sub(1);
        let index = self.leaves.get(leaf).map_or(0, Vec::len);
        Spot { leaf, index }
    }

    /// The roots of the rows between two places, in order, from both ends.
    pub(super) fn between(
        &self,
        from: Spot,
        to: Spot,
    ) -> impl DoubleEndedIterator<Item = u32> + '_ {
        let leaves = self.leaves.get(from.leaf..=to.leaf).unwrap_or_default();
        leaves
            .iter()
            .enumerate()
            .flat_map(move |(number, leaf)| {
                let number = number + from.leaf;
                let start = if number == from.leaf { from.index } else { 0 };
                let end = if number == to.leaf {
                    to.index
                } else {
                    leaf.len()
                };
                leaf.get(start..end).unwrap_or_default()
            })
            .map(|row| row.root)
    }
}

fn compare(entries: &impl Entries, a: &Ordered, b: &Ordered) -> Ordering {
    a.first
        .cmp(&b.first)
        .then_with(|| entries.entry(a.root).row().cmp(entries.entry(b.root).row()))
}
