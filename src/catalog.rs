//! Which tables there are: by name for users, by id for messages.
//!
//! 1. S7: ids are never reused: the next one only grows, and manifests carry it.
//! 2. Only tables whose creation is durable are here, and of the dropped ones those whose drop is.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstone_base::limits::{TABLE_NAME_BYTES_MAX, TABLES_MAX};
use lockstone_base::{Lsn, TableId};
use lockstone_storage::{DroppedTable, TableEntry};
use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::gate::Gate;

/// A table as the catalog knows it.
#[derive(Debug, Clone)]
pub(crate) struct CatalogEntry {
    pub(crate) id: TableId,
    pub(crate) name: Arc<str>,
    pub(crate) created: Lsn,
    pub(crate) gate: Arc<Gate>,
}

impl CatalogEntry {
    /// A table that is there.
    pub(crate) fn new(id: TableId, name: Arc<str>, created: Lsn) -> Self {
        Self {
            id,
            name,
            created,
            gate: Arc::new(Gate::open(id)),
        }
    }
}

/// All tables.
#[derive(Debug)]
pub(crate) struct Catalog(RwLock<Tables>);

#[derive(Debug)]
struct Tables {
    by_name: BTreeMap<Arc<str>, CatalogEntry>,
    names: BTreeMap<TableId, Arc<str>>,
    /// Of which rows may be left, with the moment of the drop.
    dropped: BTreeMap<TableId, Lsn>,
    next: TableId,
}

impl Catalog {
    /// The tables that recovery found, and the dropped ones; `next` is an id never used before.
    pub(crate) fn new(entries: &[TableEntry], dropped: &[DroppedTable], next: TableId) -> Self {
        let catalog = Self(RwLock::new(Tables {
            by_name: BTreeMap::new(),
            names: BTreeMap::new(),
            dropped: dropped.iter().map(|table| (table.id, table.at)).collect(),
            next,
        }));
        for entry in entries {
            assert!(
                entry.id < next,
                "S7: the next table id lies above all ids in use"
            );
            let name = entry.name.as_str().into();
            catalog.insert(CatalogEntry::new(entry.id, name, entry.created));
        }
        catalog
    }

    /// The table called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<CatalogEntry> {
        self.0.read().by_name.get(name).cloned()
    }

    /// The table with this id.
    pub(crate) fn by_id(&self, id: TableId) -> Option<CatalogEntry> {
        let tables = self.0.read();
        let name = tables.names.get(&id)?;
        tables.by_name.get(name).cloned()
    }

    /// All tables, by name.
    pub(crate) fn all(&self) -> Vec<CatalogEntry> {
        self.0.read().by_name.values().cloned().collect()
    }

    /// The name of table `id`, for messages.
    pub(crate) fn name(&self, id: TableId) -> Arc<str> {
        self.0
            .read()
            .names
            .get(&id)
            .cloned()
            .unwrap_or_else(|| format!("#{id}").into())
    }

    /// An id that no table ever had.
    pub(crate) fn take_id(&self) -> Result<TableId> {
        let mut tables = self.0.write();
        if tables.by_name.len() >= TABLES_MAX {
            return Err(Error::invalid(format!(
                "there are {TABLES_MAX} tables: no more are allowed"
            )));
        }
        let id = tables.next;
        let next =
            id.0.checked_add(1)
                .ok_or_else(|| Error::invalid("all 4294967295 table ids are used"))?;
        tables.next = TableId(next);
        Ok(id)
    }

    /// The id that the next table will get, for the manifest.
    pub(crate) fn next_id(&self) -> TableId {
        self.0.read().next
    }

    /// Makes a table visible whose creation is durable.
    pub(crate) fn insert(&self, entry: CatalogEntry) {
        let mut tables = self.0.write();
        tables.names.insert(entry.id, entry.name.clone());
        let taken = tables.by_name.insert(entry.name.clone(), entry);
        assert!(taken.is_none(), "one table per name");
    }

    /// Forgets a table whose drop at `at` is durable; that rows of it may be left is remembered.
    pub(crate) fn remove(&self, id: TableId, at: Lsn) {
        let mut tables = self.0.write();
        let name = tables
            .names
            .remove(&id)
            .expect("S7: a table is dropped once");
        tables.by_name.remove(&name);
        tables.dropped.insert(id, at);
    }

    /// Forgets a dropped table of which no row is left.
    pub(crate) fn forget(&self, id: TableId) {
        self.0.write().dropped.remove(&id);
    }

    /// The dropped tables of which rows may be left, by id.
    pub(crate) fn dropped(&self) -> Vec<DroppedTable> {
        let tables = self.0.read();
        let dropped = tables.dropped.iter();
        dropped
            .map(|(id, at)| DroppedTable { id: *id, at: *at })
            .collect()
    }
}

/// Refuses a name that no table may have.
pub(crate) fn check_table_name(name: &str) -> Result<()> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > TABLE_NAME_BYTES_MAX {
        "it has more than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("table name {name:?}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_only_grow_and_names_are_found() {
        let entry = TableEntry {
            id: TableId(4),
            name: "old".into(),
            created: Lsn::new(1),
        };
        let catalog = Catalog::new(&[entry], &[], TableId(9));
        let id = catalog.take_id().expect("ids are left");
        catalog.insert(CatalogEntry::new(id, "new".into(), Lsn::new(2)));
        assert_eq!((id, catalog.next_id()), (TableId(9), TableId(10)));
        assert_eq!(catalog.get("old").map(|found| found.id), Some(TableId(4)));
        assert_eq!(&*catalog.name(TableId(9)), "new");
        assert_eq!(&*catalog.name(TableId(77)), "#77");
        assert_eq!(catalog.all().len(), 2);

        catalog.remove(TableId(9), Lsn::new(3));
        assert!(catalog.get("new").is_none());
        assert_eq!(&*catalog.name(TableId(9)), "#9");
        let at = Lsn::new(3);
        assert_eq!(catalog.dropped(), [DroppedTable { id, at }]);
        assert_eq!(catalog.take_id().expect("ids are left"), TableId(10));
    }

    #[test]
    fn names_that_no_table_may_have_are_refused() {
        assert!(check_table_name("accounts").is_ok());
        assert!(check_table_name(&"x".repeat(255)).is_ok());
        for name in ["", "a\nb", &"x".repeat(256)] {
            assert!(check_table_name(name).is_err(), "{name:?}");
        }
    }
}
