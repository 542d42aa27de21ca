//! What a transaction reads without locking: rows and ranges, as its view has them, under its own writes.
//!
//! 1. W10: the transaction's state is checked again behind each read, so one that was rolled back meanwhile never returns
//!    what it has read.
//! 2. W8: a serializable transaction's view notes each row and each walk before its result is given out.

use lockstone_base::RowKey;

use crate::error::Result;
use crate::key_range::{KeyRange, row_bounds};
use crate::key_value::Value;
use crate::range::Range;
use crate::table::Table;
use crate::transaction::Transaction;

impl Transaction {
    /// The value of `key` as the transaction's [`Isolation`](crate::Isolation) has it, or what this transaction has written. Locks
    /// nothing, never waits.
    ///
    /// # Errors
    /// A key or table that cannot be used: [`Outcome::Unchanged`](crate::Outcome). The error that ended
    /// the transaction, if one did. [`Error::Corrupt`](crate::Error::Corrupt) and [`Error::Io`](crate::Error::Io) for a row that cannot be read.
    pub fn get(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.state().note(self.read(table, key.as_ref()))
    }

    /// The values of `keys`, in their order, all at one moment.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        table: &Table,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        let txn = self.state();
        let read = || {
            txn.check(&self.engine)?;
            let (at, sources) = txn.sources(&self.engine);
            let rows: Vec<_> = keys
                .into_iter()
                .map(|key| table.row(&self.engine, key.as_ref()))
                .collect::<Result<_>>()?;
            let versions = sources.get_many(&rows, at);
            let values = rows.iter().zip(versions).map(|(row, version)| {
                let own = txn.writes.get(row.as_bytes());
                let value = if let Some(own) = own {
                    own
                } else {
                    txn.view.note_row(row);
                    version?.and_then(|version| version.value)
                };
                Ok(value.map(Value::new))
            });
            let values = values.collect::<Result<_>>()?;
            txn.saw(at);
            table.check_seen(txn)?;
            txn.check(&self.engine)?;
            Ok(values)
        };
        txn.note(read())
    }

    /// The rows of a range, all as of one moment, in order of their keys; from
    /// the back with `rev` or `next_back`. Locks nothing.
    ///
    /// # Errors
    /// As [`Transaction::get`]; each step of the iterator too. A damaged block gives one error, and the
    /// iterator goes on behind it.
    pub fn range(&self, table: &Table, range: impl KeyRange) -> Result<Range<'_>> {
        let txn = self.state();
        let open = || {
            txn.check(&self.engine)?;
            let bounds = row_bounds(table.id_in(&self.engine)?, &range);
            let (at, sources) = txn.sources(&self.engine);
            table.check_seen(txn)?;
            txn.saw(at);
            Ok(Range::of_transaction(
                &self.engine,
                txn,
                &sources,
                bounds,
                at,
            ))
        };
        txn.note(open())
    }

    fn read(&self, table: &Table, key: &[u8]) -> Result<Option<Value>> {
        self.state().check(&self.engine)?;
        let row = table.row(&self.engine, key)?;
        self.read_row(table, &row)
    }

    /// What it sees in `row` of `table`.
    pub(crate) fn read_row(&self, table: &Table, row: &RowKey) -> Result<Option<Value>> {
        let txn = self.state();
        txn.check(&self.engine)?;
        let value = txn.read(&self.engine, row)?;
        table.check_seen(txn)?;
        txn.check(&self.engine)?;
        Ok(value.map(Value::new))
    }
}
