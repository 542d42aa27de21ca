//! The handle of a table of typed rows.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use lockstone_base::{FencingToken, LockMode};

use crate::error::Result;
use crate::key_range::KeyRange;
use crate::key_value::Value;
use crate::range::Range;
use crate::snapshot::Snapshot;
use crate::table::Table;
use crate::transaction::Transaction;

use super::key::{AsKey, KeyPrefix, KeyWriter, TableKey};
use super::range::{Decoder, TypedRange, TypedRangeFor};
use super::value::{AsValue, TableValue};

/// A table whose keys are of type `K` and whose values are of type `V`: a view of a [`Table`], as cheap as that.
/// Its calls take the transaction; those that read take a [`Snapshot`] as well.
///
/// Keys are ordered as their type is. The types are not recorded in the database: whoever opens the table with
/// others finds [`Error::Undecodable`](crate::Error::Undecodable), or values that were never written.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
/// use lockstone::LockMode;
///
/// let orders = db.typed_table::<(String, u32), i64>("orders")?;
/// let mut txn = db.begin();
/// for (customer, number, cents) in [("bob", 7, 1_250), ("alice", 12, 99), ("alice", 9, -40)] {
///     orders.put(&mut txn, &(customer.to_owned(), number), &cents)?;
/// }
/// let key = ("bob".to_owned(), 7);
/// let cents = orders.get_for(&mut txn, &key, LockMode::Update)?.unwrap_or_default();
/// orders.put(&mut txn, &key, &(cents + 50))?;
/// txn.commit()?;
///
/// let now = db.snapshot();
/// assert_eq!(orders.get(&now, &key)?, Some(1_300));
/// let of_alice = orders.prefix(&now, &("alice".to_owned(),))?;
/// let numbers: Vec<u32> = of_alice.map(|row| row.map(|(key, _)| key.1)).collect::<Result<_, _>>()?;
/// assert_eq!(numbers, [9, 12]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TypedTable<K, V> {
    table: Table,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for TypedTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            table: self.table.clone(),
            types: PhantomData,
        }
    }
}

impl<K, V> fmt::Debug for TypedTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedTable").field(&self.table).finish()
    }
}

/// What rows can be read through: a [`Transaction`] or a [`Snapshot`]. The two are the only ones.
pub trait Read: sealed::Sealed {
    /// The value of `key`.
    ///
    /// # Errors
    /// As [`Transaction::get`] and [`Snapshot::get`].
    fn get(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<Option<Value>>;

    /// The rows of a range.
    ///
    /// # Errors
    /// As [`Transaction::range`] and [`Snapshot::range`].
    fn range(&self, table: &Table, range: impl KeyRange) -> Result<Range<'_>>;

    /// The values of `keys`, in their order, all at one moment.
    ///
    /// # Errors
    /// As [`Transaction::multi_get`] and [`Snapshot::multi_get`].
    fn multi_get<K: AsRef<[u8]>>(
        &self,
        table: &Table,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Transaction {}
    impl Sealed for super::Snapshot {}
}

macro_rules! read {
    ($reader:ty) => {
        impl Read for $reader {
            fn get(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
                Self::get(self, table, key)
            }
            fn range(&self, table: &Table, range: impl KeyRange) -> Result<Range<'_>> {
                Self::range(self, table, range)
            }
            fn multi_get<K: AsRef<[u8]>>(
                &self,
                table: &Table,
                keys: impl IntoIterator<Item = K>,
            ) -> Result<Vec<Option<Value>>> {
                Self::multi_get(self, table, keys)
            }
        }
    };
}

read!(Transaction);
read!(Snapshot);

impl Table {
    /// This table with typed keys and values. The types are the caller's word: nothing is checked before a row is
    /// read.
    pub fn typed<K: TableKey, V: TableValue>(&self) -> TypedTable<K, V> {
        TypedTable {
            table: self.clone(),
            types: PhantomData,
        }
    }
}

impl<K: TableKey, V: TableValue> TypedTable<K, V> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.table.name()
    }

    /// The table below: the same rows as bytes.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The value of `key`, as [`Transaction::get`].
    ///
    /// # Errors
    /// As there; [`Error::Undecodable`](crate::Error::Undecodable).
    pub fn get(&self, reader: &impl Read, key: &(impl AsKey<K> + ?Sized)) -> Result<Option<V>> {
        let key = KeyWriter::of(key);
        let value = reader.get(&self.table, &key)?;
        self.decoded(&key, value)
    }

    /// The values of `keys`, in their order, as [`Transaction::multi_get`].
    ///
    /// # Errors
    /// As [`TypedTable::get`].
    pub fn multi_get<'k, Q: AsKey<K> + ?Sized + 'k>(
        &self,
        reader: &impl Read,
        keys: impl IntoIterator<Item = &'k Q>,
    ) -> Result<Vec<Option<V>>> {
        let keys: Vec<_> = keys.into_iter().map(|key| KeyWriter::of(key)).collect();
        let values = reader.multi_get(&self.table, &keys)?;
        let pairs = keys.iter().zip(values);
        pairs.map(|(key, value)| self.decoded(key, value)).collect()
    }

    /// Locks `key` in `mode`, then reads its newest value, as [`Transaction::get_for`].
    ///
    /// # Errors
    /// As there, and as [`TypedTable::get`]; then the lock stays.
    pub fn get_for(
        &self,
        txn: &mut Transaction,
        key: &(impl AsKey<K> + ?Sized),
        mode: LockMode,
    ) -> Result<Option<V>> {
        let key = KeyWriter::of(key);
        let value = txn.get_for(&self.table, &key, mode)?;
        self.decoded(&key, value)
    }

    /// Locks `key` in `mode`, as [`Transaction::lock`]. The row need not exist.
    ///
    /// # Errors
    /// As there.
    pub fn lock(
        &self,
        txn: &mut Transaction,
        key: &(impl AsKey<K> + ?Sized),
        mode: LockMode,
    ) -> Result<FencingToken> {
        txn.lock(&self.table, KeyWriter::of(key), mode)
    }

    /// Gives `key` a value, as [`Transaction::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(
        &self,
        txn: &mut Transaction,
        key: &(impl AsKey<K> + ?Sized),
        value: &(impl AsValue<V> + ?Sized),
    ) -> Result<()> {
        value.with_bytes(|bytes| txn.put(&self.table, KeyWriter::of(key), bytes))
    }

    /// Gives many keys a value, as [`Transaction::put_many`]: any order, sorted is fastest; of a key that comes twice
    /// the last value counts.
    ///
    /// # Errors
    /// As there.
    pub fn put_many<QK, QV>(
        &self,
        txn: &mut Transaction,
        rows: impl IntoIterator<Item = (QK, QV)>,
    ) -> Result<()>
    where
        QK: Borrow<K>,
        QV: Borrow<V>,
    {
        let encoded = |(key, value): (QK, QV)| {
            let mut bytes = Vec::new();
            value.borrow().encode_value(&mut bytes);
            (KeyWriter::of::<K>(key.borrow()), bytes)
        };
        txn.put_many(&self.table, rows.into_iter().map(encoded))
    }

    /// Gives `key` a value if it has none, as [`Transaction::insert_new`]; whether it had none.
    ///
    /// # Errors
    /// As there.
    pub fn insert_new(
        &self,
        txn: &mut Transaction,
        key: &(impl AsKey<K> + ?Sized),
        value: &(impl AsValue<V> + ?Sized),
    ) -> Result<bool> {
        value.with_bytes(|bytes| txn.insert_new(&self.table, KeyWriter::of(key), bytes))
    }

    /// Removes `key`, as [`Transaction::delete`]; whether it existed.
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, txn: &mut Transaction, key: &(impl AsKey<K> + ?Sized)) -> Result<bool> {
        txn.delete(&self.table, KeyWriter::of(key))
    }

    /// The rows of a range, in order of their keys, from both ends, as [`Transaction::range`].
    ///
    /// # Errors
    /// As there; each step gives [`Error::Undecodable`](crate::Error::Undecodable) for a row of other types.
    pub fn range<'a>(
        &self,
        reader: &'a impl Read,
        keys: impl RangeBounds<K>,
    ) -> Result<TypedRange<'a, K, V>> {
        self.over(reader.range(&self.table, encoded(&keys))?)
    }

    /// The rows whose keys begin with these parts: `("alice".to_owned(),)` of keys that are pairs.
    ///
    /// # Errors
    /// As [`TypedTable::range`].
    pub fn prefix<'a>(
        &self,
        reader: &'a impl Read,
        parts: &impl KeyPrefix<K>,
    ) -> Result<TypedRange<'a, K, V>> {
        let mut low = KeyWriter::default();
        parts.write_prefix(&mut low);
        let high = behind(low.as_ref()).map_or(Bound::Unbounded, Bound::Excluded);
        let bounds = (Bound::Included(low.as_ref().to_vec()), high);
        self.over(reader.range(&self.table, bounds)?)
    }

    /// A cursor over the rows of a range that locks each row in `mode` as it yields it, as
    /// [`Transaction::range_for`].
    ///
    /// # Errors
    /// As there, and as [`TypedTable::range`].
    pub fn range_for<'a>(
        &self,
        txn: &'a mut Transaction,
        keys: impl RangeBounds<K>,
        mode: LockMode,
    ) -> Result<TypedRangeFor<'a, K, V>> {
        Ok(TypedRangeFor {
            rows: txn.range_for(&self.table, encoded(&keys), mode)?,
            decoder: self.decoder(),
            types: PhantomData,
        })
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "it ends both calls that open a range"
    )]
    fn over<'a>(&self, rows: Range<'a>) -> Result<TypedRange<'a, K, V>> {
        Ok(TypedRange {
            rows,
            decoder: self.decoder(),
            types: PhantomData,
        })
    }

    fn decoded(&self, key: &KeyWriter, value: Option<Value>) -> Result<Option<V>> {
        let decode = |value: Value| self.decoder().value(key.as_ref(), &value);
        value.map(decode).transpose()
    }

    fn decoder(&self) -> Decoder {
        Decoder {
            table: self.table.shared_name(),
            redact: self.table.redacts(),
        }
    }
}

/// The range of bytes that a range of keys is.
fn encoded<K: TableKey>(keys: &impl RangeBounds<K>) -> (Bound<KeyWriter>, Bound<KeyWriter>) {
    let encode = |key: &K| KeyWriter::of::<K>(key);
    (keys.start_bound().map(encode), keys.end_bound().map(encode))
}

/// The smallest bytes above everything that begins with `prefix`; `None` if there are none.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut behind = prefix.get(..=kept)?.to_vec();
    *behind.last_mut()? += 1;
    Some(behind)
}
