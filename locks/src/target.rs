//! What can be locked: a row, a range of rows, a table; and what can be taken of a semaphore.
//!
//! Named by tickets, listings and deadlocks.
//! 1. A range lies within one table. It holds keys that are there and keys that are not.
//!
//! Crash: holds no state.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::{RowKey, TableId};

/// What a lock protects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A row; it need not exist.
    Row(RowKey),
    /// All rows between two bounds, present or absent.
    Range(Arc<RowRange>),
    /// A table: `Update` stands for EXCLUSIVE, `Share` for SHARED.
    Table(TableId),
    /// Tokens of a semaphore; `Update` stands for having some.
    Tokens(Arc<TokenRequest>),
}

/// So many tokens of a semaphore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The row that says how many tokens there are.
    pub semaphore: RowKey,
    /// How many there are.
    pub limit: u64,
    /// How many are wanted, or held.
    pub tokens: u64,
}

impl Target {
    /// The table in which it lies.
    pub fn table(&self) -> TableId {
        match self {
            Self::Row(row) => row.table(),
            Self::Range(range) => range.table(),
            Self::Table(table) => *table,
            Self::Tokens(request) => request.semaphore.table(),
        }
    }

    /// The row, if it is one.
    pub fn row(&self) -> Option<&RowKey> {
        match self {
            Self::Row(row) => Some(row),
            Self::Range(_) | Self::Table(_) | Self::Tokens(_) => None,
        }
    }

    /// The tokens, if it is these.
    pub fn tokens(&self) -> Option<&Arc<TokenRequest>> {
        match self {
            Self::Tokens(request) => Some(request),
            Self::Row(_) | Self::Range(_) | Self::Table(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(row) => write!(f, "{row:?}"),
            Self::Range(range) => range.fmt(f),
            Self::Table(table) => write!(f, "table {table}"),
            Self::Tokens(request) => {
                write!(f, "{} tokens of {:?}", request.tokens, request.semaphore)
            }
        }
    }
}

/// The rows of one table between two bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRange {
    table: TableId,
    start: Bound<RowKey>,
    end: Bound<RowKey>,
}

impl RowRange {
    /// The rows of `table` from `start` to `end`; a start behind the end is an empty range.
    pub fn new(table: TableId, start: Bound<RowKey>, end: Bound<RowKey>) -> Self {
        Self { table, start, end }
    }

    /// Its table.
    pub fn table(&self) -> TableId {
        self.table
    }

    /// Where it starts; unbounded: with the table.
    pub fn start(&self) -> Bound<&RowKey> {
        self.start.as_ref()
    }

    /// Where its rows begin, among those of all tables.
    pub(crate) fn first_row(&self) -> Bound<RowKey> {
        match &self.start {
            Bound::Unbounded => Bound::Included(RowKey::new(self.table, &[])),
            bound => bound.clone(),
        }
    }

    /// Where it ends; unbounded: with the table.
    pub fn end(&self) -> Bound<&RowKey> {
        self.end.as_ref()
    }

    /// Whether the row lies in it.
    pub fn contains(&self, row: &RowKey) -> bool {
        let point = Bound::Included(row);
        row.table() == self.table
            && Self::reaches(self.start(), point)
            && Self::reaches(point, self.end())
    }

    /// Whether the target is a row in it, or a range that overlaps it. Nothing else does.
    pub(crate) fn meets(&self, target: &Target) -> bool {
        match target {
            Target::Row(row) => self.contains(row),
            Target::Range(range) => self.overlaps(range),
            Target::Table(_) | Target::Tokens(_) => false,
        }
    }

    /// Whether some row may lie in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let pairs = [
            (self.start(), other.end()),
            (other.start(), self.end()),
            (self.start(), self.end()),
            (other.start(), other.end()),
        ];
        let meets = |(start, end)| Self::reaches(start, end);
        self.table == other.table && pairs.into_iter().all(meets)
    }

    /// Whether something may lie between the two bounds.
    pub(crate) fn reaches(start: Bound<&RowKey>, end: Bound<&RowKey>) -> bool {
        match (start, end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
            (Bound::Included(start), Bound::Included(end)) => start <= end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start < end,
        }
    }

    /// Whether every row in it lies in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        let starts = match (self.start(), other.start()) {
            (_, Bound::Unbounded) => true,
            (Bound::Unbounded, _) => false,
            (Bound::Excluded(own), Bound::Included(from) | Bound::Excluded(from))
            | (Bound::Included(own), Bound::Included(from)) => own >= from,
            (Bound::Included(own), Bound::Excluded(from)) => own > from,
        };
        let ends = match (self.end(), other.end()) {
            (_, Bound::Unbounded) => true,
            (Bound::Unbounded, _) => false,
            (Bound::Excluded(own), Bound::Included(to) | Bound::Excluded(to))
            | (Bound::Included(own), Bound::Included(to)) => own <= to,
            (Bound::Included(own), Bound::Excluded(to)) => own < to,
        };
        self.table == other.table && starts && ends
    }
}

impl fmt::Display for RowRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.table)?;
        match self.start() {
            Bound::Included(row) => write!(f, "[{}", row.key().escape_ascii())?,
            Bound::Excluded(row) => write!(f, "({}", row.key().escape_ascii())?,
            Bound::Unbounded => f.write_str("(")?,
        }
        f.write_str("..")?;
        match self.end() {
            Bound::Included(row) => write!(f, "{}]", row.key().escape_ascii()),
            Bound::Excluded(row) => write!(f, "{})", row.key().escape_ascii()),
            Bound::Unbounded => f.write_str(")"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TABLE: TableId = TableId(3);

    /// Bounds at a few keys, with and without them, and none.
    pub(crate) fn bounds() -> Vec<Bound<RowKey>> {
        let mut bounds = vec![Bound::Unbounded];
        for key in 1..4_u8 {
            // Every second key, so that something lies between any two.
            let row = RowKey::new(TABLE, &[key * 2]);
            bounds.extend([Bound::Included(row.clone()), Bound::Excluded(row)]);
        }
        bounds
    }

    /// Whatever the bounds are, the three questions are answered as by looking at each row.
    #[test]
    fn ranges_are_the_rows_in_them() {
        let rows: Vec<RowKey> = (0..9).map(|key| RowKey::new(TABLE, &[key])).collect();
        let mut ranges = Vec::new();
        for start in bounds() {
            for end in bounds() {
                let range = RowRange::new(TABLE, start.clone(), end);
                let within: Vec<bool> = rows.iter().map(|row| range.contains(row)).collect();
                ranges.push((range, within));
            }
        }
        for (one, of_one) in &ranges {
            assert!(!one.contains(&RowKey::new(TableId(4), &[3])));
            for (other, of_other) in &ranges {
                let pairs = || of_one.iter().zip(of_other);
                let shared = pairs().any(|(a, b)| *a && *b);
                assert_eq!(one.overlaps(other), shared, "{one} {other}");
                let is_empty = !of_one.contains(&true);
                let within = pairs().all(|(a, b)| !*a || *b);
                assert!(is_empty || one.is_within(other) == within, "{one} {other}");
            }
        }
    }
}
