//! The handle of a table.

use std::sync::Arc;

use lockstone_base::limits::KEY_BYTES_MAX;
use lockstone_base::{RowKey, TableId};

use crate::catalog::CatalogEntry;
use crate::closing::EngineRef;
use crate::engine::Engine;
use crate::error::{Error, Result};

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

    /// Its number, for an engine that must be its own.
    pub(crate) fn id_in(&self, engine: &Engine) -> Result<TableId> {
        if std::ptr::eq(&raw const **self.engine, &raw const *engine) {
            Ok(self.entry.id)
        } else {
            Err(Error::ForeignTable {
                name: self.name().to_owned(),
            })
        }
    }

    /// The row `key`, if table and key may be used.
    pub(crate) fn row(&self, engine: &Engine, key: &[u8]) -> Result<RowKey> {
        let table = self.id_in(engine)?;
        match key.len() {
            0 => Err(Error::KeyEmpty),
            bytes if bytes > KEY_BYTES_MAX => Err(Error::KeyTooLong {
                bytes,
                max: KEY_BYTES_MAX,
            }),
            _ => Ok(RowKey::new(table, key)),
        }
    }
}
