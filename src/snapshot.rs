//! A read-only view of one moment: never blocks, never blocked.
//!
//! 1. W6: it never sees what a crash could take back, unless a `Buffered` commit was acknowledged past it.
//! 2. W7: it is registered before its LSN is read, so nobody drops what it sees.
//! 3. W11: it still works when the log is poisoned.

use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_storage::Current;

use crate::closing::EngineRef;
use crate::error::Result;
use crate::key_range::{KeyRange, row_bounds};
use crate::key_value::Value;
use crate::range::Range;
use crate::snapshots::Pin;
use crate::table::Table;

/// All rows as of one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pin: Pin,
    engine: Arc<EngineRef>,
}

impl Snapshot {
    pub(crate) fn new(engine: Arc<EngineRef>) -> Self {
        let pin = engine.snapshots.pin(|| engine.snapshot_lsn());
        Self { pin, engine }
    }

    /// The moment: every commit at or below it is seen, none above.
    pub fn lsn(&self) -> Lsn {
        self.pin.lsn()
    }

    /// The value that `key` had.
    ///
    /// # Errors
    /// A key or table that cannot be used; [`Error::Closed`](crate::Error::Closed);
    /// [`Error::Corrupt`](crate::Error::Corrupt) and [`Error::Io`](crate::Error::Io) for a row that cannot
    /// be read.
    pub fn get(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let row = table.row(&self.engine, key.as_ref())?;
        table.check_at(self.lsn())?;
        let version = self.sources()?.get(row.as_bytes(), self.lsn())?;
        Ok(version.and_then(|version| version.value).map(Value::new))
    }

    /// The values that `keys` had, in their order. Looked up together: what each waits for, in memory or on the
    /// device, overlaps.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        table: &Table,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        let sources = self.sources()?;
        table.check_at(self.lsn())?;
        let rows: Vec<_> = keys
            .into_iter()
            .map(|key| table.row(&self.engine, key.as_ref()))
            .collect::<Result<_>>()?;
        let versions = sources.get_many(&rows, self.lsn()).into_iter();
        versions
            .map(|version| Ok(version?.and_then(|version| version.value).map(Value::new)))
            .collect()
    }

    /// The rows of a range, in order of their keys, in both directions.
    ///
    /// # Errors
    /// As [`Snapshot::get`]; each step of the iterator too.
    pub fn range(&self, table: &Table, range: impl KeyRange) -> Result<Range<'_>> {
        let bounds = row_bounds(table.id_in(&self.engine)?, &range);
        table.check_at(self.lsn())?;
        let sources = self.sources()?;
        Ok(Range::of_snapshot(
            &self.engine,
            &sources,
            bounds,
            self.lsn(),
        ))
    }

    fn sources(&self) -> Result<Current> {
        self.engine.check_open()?;
        Ok(self.engine.sources_at(&self.pin))
    }
}
