//! The name of a row: its table's id, big-endian, followed by the key, so that byte order is table
//! order, then key order.

use std::borrow::Borrow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A table's number. Never reused; table 0 is the engine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl TableId {
    /// The engine's own table.
    pub const ENGINE: Self = Self(0);
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A row: table and key in one byte string. Cloning shares the memory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(Bytes);

const TABLE_BYTES: usize = 4;

impl RowKey {
    /// The row `key` of `table`. Key lengths are the caller's to check.
    pub fn new(table: TableId, key: &[u8]) -> Self {
        let mut row = Vec::with_capacity(TABLE_BYTES + key.len());
        row.extend_from_slice(&table.0.to_be_bytes());
        row.extend_from_slice(key);
        Self(Bytes::from(row))
    }

    /// The row whose encoding is `row`; `None` if it is too short to name a table.
    pub fn from_encoded(row: Bytes) -> Option<Self> {
        (row.len() >= TABLE_BYTES).then_some(Self(row))
    }

    /// The row's table.
    pub fn table(&self) -> TableId {
        let head = self.0.first_chunk::<TABLE_BYTES>();
        TableId(u32::from_be_bytes(
            *head.expect("every constructor wrote a table id"),
        ))
    }

    /// The key within the table.
    pub fn key(&self) -> &[u8] {
        self.0.get(TABLE_BYTES..).unwrap_or_default()
    }

    /// The key within the table, sharing this row's memory.
    pub fn key_bytes(&self) -> Bytes {
        self.0.slice(TABLE_BYTES..)
    }

    /// The whole encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole encoding, sharing this row's memory.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table(), self.key().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_order_by_table_then_key() {
        let mut rows = [
            RowKey::new(TableId(256), b""),
            RowKey::new(TableId(1), b"b"),
            RowKey::new(TableId(1), b"a\xff"),
            RowKey::new(TableId(1), b"a"),
        ];
        rows.sort();
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.table().0, row.key().to_vec()))
            .collect();
        assert_eq!(
            shown,
            [
                (1, b"a".to_vec()),
                (1, b"a\xff".to_vec()),
                (1, b"b".to_vec()),
                (256, vec![])
            ]
        );
    }

    #[test]
    fn an_encoding_without_a_table_is_refused() {
        assert!(RowKey::from_encoded(Bytes::from_static(b"abc")).is_none());
        assert!(RowKey::from_encoded(Bytes::from_static(b"abcd")).is_some());
    }
}
