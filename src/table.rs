//! The handle of a table: what every call that names a table asks first.
//!
//! 1. S7: whoever locks or writes in a table for the first time takes it SHARED (K7), *and then* looks whether it is there.
//!    From then on the table stays until the transaction has ended.
//! 2. Whoever only reads looks at the gate behind the read: a table that is there then was there before.

use std::sync::Arc;

use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_locks::TableLock;
use lockstone_recovery::record::Body;

use crate::catalog::CatalogEntry;
use crate::closing::EngineRef;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::key_range::{KeyRange, RowBounds, row_bounds};
use crate::lock_request::{self, InLine};
use crate::log_step::{append, lost};
use crate::options::OnConflict;
use crate::row_limits::check_key;
use crate::txn_state::TxnState;

/// A table: an ordered map from keys to values. A cheap handle, shared freely between threads.
#[derive(Debug, Clone)]
pub struct Table {
    engine: Arc<EngineRef>,
    entry: CatalogEntry,
}

impl Table {
    pub(crate) fn new(engine: &Arc<EngineRef>, entry: CatalogEntry) -> Self {
        Self {
            engine: engine.clone(),
            entry,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Its name, to be kept.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.entry.name.clone()
    }

    /// Whether messages may not show its keys.
    pub(crate) fn redacts(&self) -> bool {
        self.engine.options.redact
    }

    /// Its number.
    pub(crate) fn id(&self) -> TableId {
        self.entry.id
    }

    /// Its number, for an engine that must be its own.
    pub(crate) fn id_in(&self, engine: &Engine) -> Result<TableId> {
        self.entry_in(engine).map(|entry| entry.id)
    }

    /// What the catalog knows of it, for an engine that must be its own.
    pub(crate) fn entry_in(&self, engine: &Engine) -> Result<&CatalogEntry> {
        if std::ptr::eq(&raw const **self.engine, &raw const *engine) {
            Ok(&self.entry)
        } else {
            Err(Error::ForeignTable {
                name: self.name().to_owned(),
            })
        }
    }

    /// The row `key`, if table and key may be used.
    pub(crate) fn row(&self, engine: &Engine, key: &[u8]) -> Result<RowKey> {
        let table = self.id_in(engine)?;
        check_key(key)?;
        Ok(RowKey::new(table, key))
    }

    /// Its lock.
    pub(crate) fn lock(&self) -> &Arc<TableLock> {
        self.entry.gate.lock()
    }

    /// The row `key`, for a transaction that is about to lock or write it: the table stays until that ends.
    ///
    /// # Errors
    /// As [`Table::row`] and [`Table::enter`].
    pub(crate) fn row_to_lock(
        &self,
        engine: &Engine,
        txn: &mut TxnState,
        key: &[u8],
        explicit: bool,
    ) -> Result<RowKey> {
        let row = self.row(engine, key)?;
        self.enter(engine, txn, explicit)?;
        Ok(row)
    }

    /// The rows of a range of keys, for a transaction that is about to lock some of them. None, for one that skips what is locked, if
    /// somebody holds or awaits the table EXCLUSIVE: then all of them are.
    ///
    /// # Errors
    /// As [`Table::row_to_lock`].
    pub(crate) fn rows_to_lock(
        &self,
        engine: &Engine,
        txn: &mut TxnState,
        range: &impl KeyRange,
    ) -> Result<Option<RowBounds>> {
        txn.check(engine)?;
        match self.enter(engine, txn, true) {
            Err(Error::WouldBlock { .. }) if txn.policy == OnConflict::SkipLocked => {
                engine.counters.skip();
                return Ok(None);
            }
            entered => entered?,
        }
        Ok(row_bounds(self.id_in(engine)?, range))
    }

    /// Keeps the table for a transaction that is about to lock or write in it: takes it SHARED, which waits only while
    /// somebody holds or awaits it EXCLUSIVE. `explicit`: as
    /// of the lock that follows.
    ///
    /// # Errors
    /// [`Error::UnknownTable`]; those of a lock that is not had, and of a transaction that has ended.
    pub(crate) fn enter(&self, engine: &Engine, txn: &mut TxnState, explicit: bool) -> Result<()> {
        if let Some(in_line) = self.ask_to_enter(engine, txn, explicit)? {
            let shared = in_line.wait(engine, txn);
            shared.map_err(|error| lost(engine, txn, error))?;
            self.ask_to_enter(engine, txn, explicit)?;
        }
        Ok(())
    }

    /// [`Table::enter`], but for the wait: once that is over, the call is made again.
    pub(crate) fn ask_to_enter(
        &self,
        engine: &Engine,
        txn: &mut TxnState,
        explicit: bool,
    ) -> Result<Option<InLine>> {
        let id = self.id_in(engine)?;
        if txn.tables.contains(&id) {
            return Ok(None);
        }
        let shared = lock_request::share(engine, txn, self.lock(), explicit);
        let in_line = shared.map_err(|error| lost(engine, txn, error))?;
        if in_line.is_none() {
            self.check_there()?;
            txn.tables_held(id);
            if txn.live.lease().is_some() {
                // R2: a record of a row says it too, but there may be none.
                append(engine, txn, Body::TableShared { table: id })?;
            }
        }
        Ok(in_line)
    }

    /// Refuses what was read in a table that is gone.
    pub(crate) fn check_there(&self) -> Result<()> {
        if self.entry.gate.is_gone() {
            Err(self.unknown())
        } else {
            Ok(())
        }
    }

    /// Refuses what `txn` has read here if for it the table is gone. Behind the read.
    pub(crate) fn check_seen(&self, txn: &TxnState) -> Result<()> {
        txn.view.note_table(&self.entry);
        match txn.view.fixed_at() {
            None => self.check_there(),
            Some(at) => self.check_at(at),
        }
    }

    /// Refuses a read at `at` if the table was dropped at or below.
    pub(crate) fn check_at(&self, at: Lsn) -> Result<()> {
        if self.entry.gate.is_gone_at(at) {
            Err(self.unknown())
        } else {
            Ok(())
        }
    }

    fn unknown(&self) -> Error {
        Error::UnknownTable {
            name: self.name().to_owned(),
        }
    }
}
