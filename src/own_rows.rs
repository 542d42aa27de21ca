//! The rows that a transaction has written within some bounds, in order: what its scans put over the
//! committed ones. Called by the write set.
//!
//! 1. A row that stands in several places of the write set is there once, with its newest effect.
//! 2. Both ends may be used on one iterator; they meet in the middle.

use std::ops::Range;

use lockstone_base::RowKey;
use lockstone_storage::PackedRows;

use crate::single_writes::{Effect, Effects, SingleRows};

/// What one call wrote that writes many rows.
#[derive(Debug, Clone)]
pub(crate) struct ManyWritten {
    /// Its sub-transaction, which wrote nothing else.
    pub(crate) sub: u32,
    pub(crate) rows: PackedRows,
}

/// A row and what the transaction sees in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnRow<'a>(Place<'a>);

#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Single(&'a RowKey, &'a Effects),
    Many(&'a ManyWritten, usize),
}

impl<'a> OwnRow<'a> {
    /// The row's encoding.
    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        match self.0 {
            Place::Single(row, _) => row.as_bytes(),
            Place::Many(many, index) => many.rows.row(index).unwrap_or_default(),
        }
    }

    /// The row.
    pub(crate) fn row(&self) -> RowKey {
        match self.0 {
            Place::Single(row, _) => row.clone(),
            Place::Many(many, index) => many.rows.row_key(index).expect("rows are counted"),
        }
    }

    /// What the transaction sees in it.
    pub(crate) fn effect(&self) -> Effect {
        match self.0 {
            Place::Single(_, effects) => effects.newest.1.clone(),
            Place::Many(many, index) => many.rows.effect(index).flatten(),
        }
    }

    /// The value that the transaction sees in it, where it lies; `None`: nothing.
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        match self.0 {
            Place::Single(_, effects) => effects.newest.1.as_deref(),
            Place::Many(many, index) => many.rows.value(index),
        }
    }

    /// Whether the transaction sees nothing in it.
    pub(crate) fn is_deleted(&self) -> bool {
        match self.0 {
            Place::Single(_, effects) => effects.newest.1.is_none(),
            Place::Many(many, index) => many.rows.value(index).is_none(),
        }
    }

    fn sub(&self) -> u32 {
        match self.0 {
            Place::Single(_, effects) => effects.newest.0,
            Place::Many(many, _) => many.sub,
        }
    }
}

/// Walks the rows.
#[derive(Debug, Clone)]
pub(crate) struct OwnRows<'a> {
    pub(crate) singles: SingleRows<'a>,
    /// Which rows of each are left. The sub-transactions ascend.
    pub(crate) many: Vec<(&'a ManyWritten, Range<usize>)>,
}

impl<'a> OwnRows<'a> {
    /// The next row from one end; `ahead` tells whether a row comes before another from there.
    fn step(&mut self, front: bool, ahead: impl Fn(&[u8], &[u8]) -> bool) -> Option<OwnRow<'a>> {
        let mut next = self.single(front, false);
        for (many, left) in &self.many {
            let Some(row) = end_of(many, left, front) else {
                continue;
            };
            // Of equal rows the newest stays: who wrote many rows wrote nothing else.
            let better = next.is_none_or(|next: OwnRow<'_>| {
                ahead(row.as_bytes(), next.as_bytes())
                    || (row.as_bytes() == next.as_bytes() && row.sub() > next.sub())
            });
            if better {
                next = Some(row);
            }
        }
        let next = next?;
        if self
            .single(front, false)
            .is_some_and(|row| row.as_bytes() == next.as_bytes())
        {
            self.single(front, true);
        }
        for (many, left) in &mut self.many {
            if end_of(many, left, front).is_some_and(|row| row.as_bytes() == next.as_bytes()) {
                if front {
                    left.start += 1;
                } else {
                    left.end -= 1;
                }
            }
        }
        Some(next)
    }

    fn single(&mut self, front: bool, take: bool) -> Option<OwnRow<'a>> {
        let mut looking = self.singles.clone();
        let rows = if take {
            &mut self.singles
        } else {
            &mut looking
        };
        let row = if front { rows.next() } else { rows.next_back() };
        row.map(|(row, effects)| OwnRow(Place::Single(row, effects)))
    }
}

fn end_of<'a>(many: &'a ManyWritten, left: &Range<usize>, front: bool) -> Option<OwnRow<'a>> {
    let index = if front {
        left.start
    } else {
        left.end.checked_sub(1)?
    };
    left.contains(&index)
        .then_some(OwnRow(Place::Many(many, index)))
}

impl<'a> Iterator for OwnRows<'a> {
    type Item = OwnRow<'a>;

    fn next(&mut self) -> Option<OwnRow<'a>> {
        if self.many.is_empty() {
            return self.single(true, true);
        }
        self.step(true, |a, b| a < b)
    }
}

impl DoubleEndedIterator for OwnRows<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.many.is_empty() {
            return self.single(false, true);
        }
        self.step(false, |a, b| a > b)
    }
}
