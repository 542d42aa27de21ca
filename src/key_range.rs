//! Ranges of keys: what `range` and its kin accept, and the rows that they name.
//!
//! A start behind the end is an empty range, never an error.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use bytes::Bytes;
use lockstone_base::{RowKey, TableId};

/// A range of keys within a table: `..`, `a..b`, `a..=b`, `a..`, `..b`, `..=b`, or a pair of
/// [`Bound`]s, over anything that is bytes: `&[u8]`, `&[u8; N]`, `&str`, `Vec<u8>`, `&Vec<u8>`.
pub trait KeyRange {
    /// Where it starts.
    fn start(&self) -> Bound<&[u8]>;
    /// Where it ends.
    fn end(&self) -> Bound<&[u8]>;
}

macro_rules! key_range {
    ($range:ty, $self:ident, $start:expr, $end:expr) => {
        impl<K: AsRef<[u8]>> KeyRange for $range {
            fn start(&$self) -> Bound<&[u8]> {
                $start
            }
            fn end(&$self) -> Bound<&[u8]> {
                $end
            }
        }
    };
}

key_range!(
    Range<K>,
    self,
    Bound::Included(self.start.as_ref()),
    Bound::Excluded(self.end.as_ref())
);
key_range!(
    RangeInclusive<K>,
    self,
    Bound::Included(self.start().as_ref()),
    Bound::Included(self.end().as_ref())
);
key_range!(
    RangeFrom<K>,
    self,
    Bound::Included(self.start.as_ref()),
    Bound::Unbounded
);
key_range!(
    RangeTo<K>,
    self,
    Bound::Unbounded,
    Bound::Excluded(self.end.as_ref())
);
key_range!(
    RangeToInclusive<K>,
    self,
    Bound::Unbounded,
    Bound::Included(self.end.as_ref())
);
key_range!(
    (Bound<K>, Bound<K>),
    self,
    self.0.as_ref().map(AsRef::as_ref),
    self.1.as_ref().map(AsRef::as_ref)
);

impl KeyRange for RangeFull {
    fn start(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }
    fn end(&self) -> Bound<&[u8]> {
        Bound::Unbounded
    }
}

/// The keys that begin with some bytes: what [`prefix`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    start: Vec<u8>,
    /// The first key behind them; `None` if there is none.
    end: Option<Vec<u8>>,
}

/// All keys that begin with `bytes`: a range for scans and locks.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
/// use lockstone::{LockMode, prefix};
///
/// let users = db.create_table("users")?;
/// let mut txn = db.begin();
/// txn.lock_range(&users, prefix("alice/"), LockMode::Share)?;
/// assert_eq!(txn.range(&users, prefix("alice/"))?.count(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn prefix(bytes: impl AsRef<[u8]>) -> Prefix {
    let start = bytes.as_ref().to_vec();
    let mut end = start.clone();
    while end.pop_if(|last| *last == u8::MAX).is_some() {}
    let last = end.last_mut();
    let end = last.map(|last| *last += 1).map(|()| end);
    Prefix { start, end }
}

impl KeyRange for Prefix {
    fn start(&self) -> Bound<&[u8]> {
        Bound::Included(&self.start)
    }
    fn end(&self) -> Bound<&[u8]> {
        match &self.end {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        }
    }
}

/// A range of rows, never empty by its bounds alone: what `BTreeMap::range` takes without panic.
pub(crate) type RowBounds = (Bound<Bytes>, Bound<Bytes>);

/// The rows of `table` whose keys lie in `range`; `None` if the bounds leave no room for one.
pub(crate) fn row_bounds(table: TableId, range: &impl KeyRange) -> Option<RowBounds> {
    let row = |key: &[u8]| RowKey::new(table, key).to_bytes();
    let start = match range.start() {
        Bound::Included(key) => Bound::Included(row(key)),
        Bound::Excluded(key) => Bound::Excluded(row(key)),
        Bound::Unbounded => Bound::Included(row(&[])),
    };
    let end = match (range.end(), table.0.checked_add(1)) {
        (Bound::Included(key), _) => Bound::Included(row(key)),
        (Bound::Excluded(key), _) => Bound::Excluded(row(key)),
        (Bound::Unbounded, Some(next)) => {
            Bound::Excluded(RowKey::new(TableId(next), &[]).to_bytes())
        }
        (Bound::Unbounded, None) => Bound::Unbounded,
    };
    between(start, end)
}

/// The bounds, as they lie.
pub(crate) fn borrowed((start, end): &RowBounds) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (
        start.as_ref().map(|row| &**row),
        end.as_ref().map(|row| &**row),
    )
}

/// The rows between two bounds; `None` if they leave no room for one.
pub(crate) fn between<T: Ord>(start: Bound<T>, end: Bound<T>) -> Option<(Bound<T>, Bound<T>)> {
    let empty = match (&start, &end) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        _ => false,
    };
    (!empty).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_pair_of_bounds_makes_an_ordered_set_panic() {
        let keys: [&[u8]; 4] = [b"", b"a", b"b", b"\xff"];
        let mut bounds = vec![Bound::Unbounded];
        for key in keys {
            bounds.extend([Bound::Included(key), Bound::Excluded(key)]);
        }
        let rows = keys
            .iter()
            .map(|key| RowKey::new(TableId(7), key).to_bytes());
        let rows: BTreeSet<Bytes> = rows.collect();
        for start in &bounds {
            for end in &bounds {
                let naive = keys.iter().filter(|key| {
                    let above = match start {
                        Bound::Included(from) => *key >= from,
                        Bound::Excluded(from) => *key > from,
                        Bound::Unbounded => true,
                    };
                    above
                        && match end {
                            Bound::Included(to) => *key <= to,
                            Bound::Excluded(to) => *key < to,
                            Bound::Unbounded => true,
                        }
                });
                let found = row_bounds(TableId(7), &(*start, *end))
                    .map_or(0, |found| rows.range(found).count());
                assert_eq!(found, naive.count(), "{start:?} to {end:?}");
            }
        }
    }

    #[test]
    fn a_prefix_is_all_keys_that_begin_with_it() {
        let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
        for byte in [0, b'a', b'b', 0xfe, 0xff] {
            for next in [None, Some(0), Some(b'a'), Some(0xff)] {
                keys.push([Some(byte), next].into_iter().flatten().collect());
            }
        }
        let row = |key: &Vec<u8>| RowKey::new(TableId(7), key).to_bytes();
        let rows: BTreeSet<Bytes> = keys.iter().map(row).collect();
        for start in &keys {
            let begin_so = keys.iter().filter(|key| key.starts_with(start));
            let found = row_bounds(TableId(7), &prefix(start)).expect("it has a first key");
            assert_eq!(rows.range(found).count(), begin_so.count(), "{start:?}");
        }
    }

    #[test]
    fn a_range_stays_within_its_table() {
        let (start, end) = row_bounds(TableId(u32::MAX), &..).expect("the last table has room");
        assert_eq!(start, Bound::Included(Bytes::from_static(&[0xff; 4])));
        assert_eq!(end, Bound::Unbounded);
        let (_, end) = row_bounds(TableId(1), &(b"a"..)).expect("not empty");
        assert_eq!(end, Bound::Excluded(Bytes::from_static(&[0, 0, 0, 2])));
    }

    #[test]
    fn every_kind_of_key_bytes_makes_a_range() {
        let vec = b"a".to_vec();
        assert!(row_bounds(TableId(1), &("a".."b")).is_some());
        assert!(row_bounds(TableId(1), &(b"a"..b"b")).is_some());
        assert!(row_bounds(TableId(1), &(b"a".as_slice()..b"c")).is_some());
        assert!(row_bounds(TableId(1), &(..=&vec)).is_some());
        assert!(row_bounds(TableId(1), &(vec.clone()..)).is_some());
        assert!(row_bounds(TableId(1), &("b".."a")).is_none());
        assert!(row_bounds(TableId(1), &("a".."a")).is_none());
        assert!(row_bounds(TableId(1), &("a"..="a")).is_some());
    }
}
