//! The name of a row: its table's id, big-endian, followed by the key, so that byte order is table
//! order, then key order.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

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

/// A row: table and key in one byte string. Short ones lie in place, longer ones share their memory:
/// cloning allocates nothing.
#[derive(Clone)]
pub struct RowKey(Repr);

/// Nobody sees which of the two it is: rows are compared by their bytes.
#[derive(Clone)]
enum Repr {
    /// The row, zeros, and in the last byte the row's length. In words, so that it is copied in words.
    InPlace([u64; 3]),
    Shared(Bytes),
}

const TABLE_BYTES: usize = 4;

/// So much fits into the space that a shared row takes anyway: a key of 19 bytes.
const IN_PLACE_MAX: usize = size_of::<[u64; 3]>() - 1;

const _: () = assert!(size_of::<RowKey>() == size_of::<Bytes>());

impl RowKey {
    /// How many bytes of an encoded row name its table; the key is behind them.
    pub const TABLE_BYTES: usize = TABLE_BYTES;

    /// The row `key` of `table`. Key lengths are the caller's to check.
    pub fn new(table: TableId, key: &[u8]) -> Self {
        let head = table.0.to_be_bytes();
        Self::in_place(&head, key).unwrap_or_else(|| {
            let mut row = Vec::with_capacity(TABLE_BYTES + key.len());
            row.extend_from_slice(&head);
            row.extend_from_slice(key);
            Self(Repr::Shared(Bytes::from(row)))
        })
    }

    /// The row whose encoding is these two parts, if it is short enough to lie in place, and long enough to name a table.
    pub fn in_place(head: &[u8], rest: &[u8]) -> Option<Self> {
        let len = head.len() + rest.len();
        if !(TABLE_BYTES..=IN_PLACE_MAX).contains(&len) {
            return None;
        }
        let mut bytes = [0; IN_PLACE_MAX + 1];
        bytes.get_mut(..head.len())?.copy_from_slice(head);
        bytes.get_mut(head.len()..len)?.copy_from_slice(rest);
        *bytes.last_mut()? = len as u8;
        Some(Self(Repr::InPlace(zerocopy::transmute!(bytes))))
    }

    /// The row whose encoding is `row`; `None` if it is too short to name a table.
    pub fn from_encoded(row: Bytes) -> Option<Self> {
        Self::from_part(&row, || row.clone())
    }

    /// [`RowKey::from_encoded`] for a row that is part of something: `share` gives it as shared memory, and is
    /// asked only for a row that does not fit in place.
    pub fn from_part(row: &[u8], share: impl FnOnce() -> Bytes) -> Option<Self> {
        if row.len() < TABLE_BYTES {
            return None;
        }
        Some(Self::in_place(row, &[]).unwrap_or_else(|| Self(Repr::Shared(share()))))
    }

    /// The row's table.
    pub fn table(&self) -> TableId {
        let head = self.as_bytes().first_chunk::<TABLE_BYTES>();
        TableId(u32::from_be_bytes(
            *head.expect("every constructor wrote a table id"),
        ))
    }

    /// The key within the table.
    pub fn key(&self) -> &[u8] {
        self.as_bytes().get(TABLE_BYTES..).unwrap_or_default()
    }

    /// The key within the table; shares this row's memory if that is not in place.
    pub fn key_bytes(&self) -> Bytes {
        match &self.0 {
            Repr::InPlace(_) => Bytes::copy_from_slice(self.key()),
            Repr::Shared(row) => row.slice(TABLE_BYTES..),
        }
    }

    /// The whole encoding.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::InPlace(words) => {
                let bytes = words.as_bytes();
                let len = bytes.last().copied().unwrap_or_default();
                bytes.get(..usize::from(len)).unwrap_or_default()
            }
            Repr::Shared(row) => row,
        }
    }

    /// The whole encoding; shares this row's memory if that is not in place.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Repr::InPlace(_) => Bytes::copy_from_slice(self.as_bytes()),
            Repr::Shared(row) => row.clone(),
        }
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::InPlace(words), Repr::InPlace(others)) => words == others,
            _ => self.as_bytes() == other.as_bytes(),
        }
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for RowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
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
        assert!(RowKey::in_place(b"ab", b"c").is_none());
        assert!(RowKey::in_place(b"ab", b"cd").is_some());
    }

    #[test]
    fn rows_of_every_length_are_what_they_were_made_of() {
        let key = [7; 40];
        for bytes in 0..=key.len() {
            let key = &key[..bytes];
            let row = RowKey::new(TableId(0x0102_0304), key);
            assert_eq!((row.table(), row.key()), (TableId(0x0102_0304), key));
            assert_eq!(row.as_bytes(), [&[1, 2, 3, 4], key].concat());
            assert_eq!((&*row.to_bytes(), &*row.key_bytes()), (row.as_bytes(), key));
            let again = RowKey::from_encoded(row.to_bytes());
            assert_eq!(again, Some(row.clone()));
            let longer = RowKey::new(TableId(0x0102_0304), &[key, &[0]].concat());
            assert!(row < longer && row != longer, "{bytes}");
        }
    }
}
