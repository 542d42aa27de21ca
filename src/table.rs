//! The handle of a table: what every call that names a table asks first.
//!
//! 1. S7: whoever locks or writes in a table for the first time notes that it uses the table, *and then* looks at
//!    the gate. From then on the table stays until the transaction has ended.
//! 2. Whoever only reads looks at the gate behind the read: a table that is there then was there before.

use std::sync::Arc;
use std::time::Duration;

use lockstone_base::{Lsn, RowKey, TableId};

use crate::catalog::CatalogEntry;
use crate::closing::EngineRef;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::gate::Passage;
use crate::key_range::{KeyRange, RowBounds, row_bounds};
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

    /// The row `key`, for a transaction that is about to lock or write it: the table stays until that ends.
    ///
    /// # Errors
    /// As [`Table::row`]; [`Error::UnknownTable`], [`Error::TableBeingDropped`].
    pub(crate) fn row_to_lock(
        &self,
        engine: &Engine,
        txn: &mut TxnState,
        key: &[u8],
    ) -> Result<RowKey> {
        let row = self.row(engine, key)?;
        self.enter(engine, txn)?;
        Ok(row)
    }

    /// The rows of a range of keys, for a transaction that is about to lock some of them.
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
        self.enter(engine, txn)?;
        Ok(row_bounds(self.id_in(engine)?, range))
    }

    /// Keeps the table for a transaction that is about to lock or write in it.
    ///
    /// While the table is being dropped, a transaction that holds nothing waits for the outcome, as long as its
    /// policy lets it wait. One that holds locks is refused: the drop may be waiting for somebody who waits for
    /// one of these.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::TableBeingDropped`]; those of a transaction that has ended.
    pub(crate) fn enter(&self, engine: &Engine, txn: &mut TxnState) -> Result<()> {
        let id = self.id_in(engine)?;
        if txn.tables.contains(&id) {
            return Ok(());
        }
        let begun = engine.ports.clock.now();
        loop {
            txn.live.use_table(id);
            match self.entry.gate.passage() {
                Passage::Open => {
                    txn.tables.push(id);
                    return Ok(());
                }
                Passage::Dropped => {
                    txn.live.leave_table(id);
                    return Err(self.unknown());
                }
                Passage::Closed => txn.live.leave_table(id),
            }
            // A drop cannot be wounded: what wounds waits as long as it would before it does.
            let limit = match txn.policy {
                OnConflict::NoWait | OnConflict::SkipLocked | OnConflict::Wound => {
                    Some(Duration::ZERO)
                }
                OnConflict::Wait { timeout } => timeout,
                OnConflict::WoundAfter(while_waiting) => Some(while_waiting),
            };
            let waited = engine.ports.clock.now().saturating_sub(begun);
            let waits = limit.is_none_or(|limit| waited < limit);
            if !waits || txn.is_logged() {
                return Err(Error::TableBeingDropped {
                    table: self.entry.name.clone(),
                });
            }
            engine.ports.clock.sleep(LOOK);
            txn.check(engine)?;
        }
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

/// How often a transaction looks whether a table was dropped after all.
const LOOK: Duration = Duration::from_millis(1);
