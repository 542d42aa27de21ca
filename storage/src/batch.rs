//! The write set of one transaction, ready to be applied.
//!
//! Built by the write path before the commit LSN is known, handed to `Store::apply` in the hold that gives
//! the LSN (W2).
//! 1. Sorted by row, one version per row.
//! 2. What applying it costs is known beforehand: [`WriteBatch::bytes`].

use bytes::Bytes;
use lockstone_base::RowKey;
use smallvec::SmallVec;

use crate::packed_rows::{PackedRows, RowPacker};

/// Up to this many rows are inserted one by one; a larger batch becomes a chunk, in constant time (W2).
pub(crate) const SINGLE_ROWS_MAX: usize = 64;

/// What an entry of a memtable costs beside its row and value, in bytes: its slot (64), its cells in the
/// index's tables (26 to 51), its place in the order once that is made (32). Measured: 95 to 115, and 32.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 128;

/// What a row of a chunk costs beside what it is packed in, in bytes: its cell in the table (13 to 26).
const CHUNK_ENTRY_BYTES: usize = 26;

/// Rows that are inserted one by one. Most commits write one.
pub(crate) type Singles = SmallVec<[(RowKey, Option<Bytes>); 1]>;

/// A transaction's writes: sorted by row, one version per row.
#[derive(Debug, Default)]
pub struct WriteBatch {
    rows: Rows,
    bytes: usize,
}

/// As many as become a chunk are packed.
#[derive(Debug)]
pub(crate) enum Rows {
    Singles(Singles),
    Chunk(PackedRows),
}

impl WriteBatch {
    /// The batch of `rows`, which ascend strictly; `None` deletes a row.
    pub fn from_sorted(rows: impl IntoIterator<Item = (RowKey, Option<Bytes>)>) -> Self {
        let rows: Singles = rows.into_iter().collect();
        if rows.len() > SINGLE_ROWS_MAX {
            let mut packer = RowPacker::default();
            for (row, value) in rows {
                packer.add(&row, value);
            }
            return Self::packed(packer.finish());
        }
        assert!(
            rows.is_sorted_by(|a, b| a.0 < b.0),
            "W2: a write set is sorted and has one version per row"
        );
        let bytes = rows
            .iter()
            .map(|(row, value)| entry_bytes(row, value.as_ref()))
            .sum();
        Self {
            rows: Rows::Singles(rows),
            bytes,
        }
    }

    /// The batch of `rows`, which ascend strictly. They are not copied if they become a chunk.
    pub fn packed(rows: PackedRows) -> Self {
        assert!(
            rows.is_sorted(),
            "W2: a write set is sorted and has one version per row"
        );
        if rows.len() > SINGLE_ROWS_MAX {
            return Self {
                bytes: chunk_bytes(&rows),
                rows: Rows::Chunk(rows),
            };
        }
        let singles =
            (0..rows.len()).filter_map(|index| Some((rows.row_key(index)?, rows.effect(index)?)));
        Self::from_sorted(singles)
    }

    /// How many rows it writes.
    pub fn rows(&self) -> usize {
        match &self.rows {
            Rows::Singles(rows) => rows.len(),
            Rows::Chunk(rows) => rows.len(),
        }
    }

    /// How much memory it will take in the memtable, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    pub(crate) fn into_rows(self) -> Rows {
        self.rows
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self::Singles(Singles::new())
    }
}

/// What a chunk of `rows` costs in memory, in bytes.
pub(crate) fn chunk_bytes(rows: &PackedRows) -> usize {
    rows.bytes() + rows.len() * CHUNK_ENTRY_BYTES
}

/// What one entry costs in memory, in bytes.
fn entry_bytes(row: &RowKey, value: Option<&Bytes>) -> usize {
    row.as_bytes().len() + value.map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstone_base::TableId;

    fn row(key: &[u8]) -> RowKey {
        RowKey::new(TableId(1), key)
    }

    #[test]
    fn a_batch_knows_what_it_costs() {
        let batch = WriteBatch::from_sorted(vec![
            (row(b"a"), Some(Bytes::from_static(b"12345"))),
            (row(b"b"), None),
        ]);
        assert_eq!(batch.rows(), 2);
        assert_eq!(batch.bytes(), 5 + 5 + 5 + 2 * ENTRY_OVERHEAD_BYTES);
    }

    #[test]
    #[should_panic(expected = "W2")]
    fn two_versions_of_a_row_are_refused() {
        WriteBatch::from_sorted(vec![(row(b"a"), None), (row(b"a"), None)]);
    }
}
