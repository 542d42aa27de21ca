//! The iterators over typed rows: those over bytes, decoded.
//!
//! 1. A row that is none of the types is yielded as an error, and the iterator goes on behind it.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key_value::{Key, Value};
use crate::names::RowName;
use crate::range::Range;
use crate::range_for::RangeFor;

use super::key::{KeyReader, TableKey};
use super::value::{AsValue, TableValue};

/// What decodes the rows of a table, and names those that it cannot.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    pub(super) table: Arc<str>,
    pub(super) redact: bool,
}

impl Decoder {
    pub(super) fn row<K: TableKey, V: TableValue>(&self, row: (Key, Value)) -> Result<(K, V)> {
        let (key, value) = row;
        let decoded = KeyReader::whole(&key).ok_or_else(|| self.undecodable::<K>(&key, "key"))?;
        Ok((decoded, self.value(&key, &value)?))
    }

    pub(super) fn value<V: TableValue>(&self, key: &[u8], value: &[u8]) -> Result<V> {
        V::decode_value(value).ok_or_else(|| self.undecodable::<V>(key, "value"))
    }

    fn undecodable<T>(&self, key: &[u8], what: &'static str) -> Error {
        Error::Undecodable {
            row: RowName::new(self.table.clone(), key, self.redact),
            what,
            type_name: type_name::<T>(),
        }
    }
}

/// The rows of a range of a [`TypedTable`](crate::TypedTable), from both ends.
#[derive(Debug)]
pub struct TypedRange<'a, K, V> {
    pub(super) rows: Range<'a>,
    pub(super) decoder: Decoder,
    pub(super) types: PhantomData<fn() -> (K, V)>,
}

impl<K: TableKey, V: TableValue> Iterator for TypedRange<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(row.and_then(|row| self.decoder.row(row)))
    }
}

impl<K: TableKey, V: TableValue> DoubleEndedIterator for TypedRange<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.rows.next_back()?;
        Some(row.and_then(|row| self.decoder.row(row)))
    }
}

/// A cursor over the rows of a range of a [`TypedTable`](crate::TypedTable) that locks what it yields; `put` and
/// `delete` act on the row last yielded, by either end.
#[derive(Debug)]
pub struct TypedRangeFor<'a, K, V> {
    pub(super) rows: RangeFor<'a>,
    pub(super) decoder: Decoder,
    pub(super) types: PhantomData<fn() -> (K, V)>,
}

impl<K: TableKey, V: TableValue> TypedRangeFor<'_, K, V> {
    /// Gives the row last yielded a value.
    ///
    /// # Errors
    /// As [`RangeFor::put`].
    pub fn put(&mut self, value: &(impl AsValue<V> + ?Sized)) -> Result<()> {
        value.with_bytes(|bytes| self.rows.put(bytes))
    }

    /// Removes the row last yielded.
    ///
    /// # Errors
    /// As [`RangeFor::delete`].
    pub fn delete(&mut self) -> Result<()> {
        self.rows.delete()
    }
}

impl<K: TableKey, V: TableValue> Iterator for TypedRangeFor<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(row.and_then(|row| self.decoder.row(row)))
    }
}

impl<K: TableKey, V: TableValue> DoubleEndedIterator for TypedRangeFor<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.rows.next_back()?;
        Some(row.and_then(|row| self.decoder.row(row)))
    }
}
