//! fjall: an LSM store with optimistic transactions; a conflict is found at commit.

use fjall::{
    KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace, PersistMode, Readable,
};

use super::{Result, Session, Setting, Store};
use crate::rows::{Key, Value};

struct Open {
    db: OptimisticTxDatabase,
    rows: OptimisticTxKeyspace,
    mode: PersistMode,
}

pub(super) fn open(setting: Setting<'_>) -> Result<Box<dyn Store>> {
    let builder = OptimisticTxDatabase::builder(setting.directory);
    let db = builder.cache_size(setting.cache_bytes).open()?;
    let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
    let mode = if setting.sync {
        PersistMode::SyncData
    } else {
        PersistMode::Buffer
    };
    Ok(Box::new(Open { db, rows, mode }))
}

impl Store for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn settle(&self) -> Result<()> {
        Ok(self.rows.inner().rotate_memtable_and_wait()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}

impl Session for &Open {
    fn insert(&mut self, rows: &[(Key, Value)]) -> Result<()> {
        let mut txn = self.db.write_tx()?.durability(Some(self.mode));
        for (key, value) in rows {
            txn.insert(&self.rows, *key, *value);
        }
        txn.commit()?.map_err(|_| "a lone writer met a conflict")?;
        Ok(())
    }

    fn get(&mut self, keys: &[Key]) -> Result<u64> {
        if let [key] = keys {
            return Ok(self.rows.get(key)?.is_some().into());
        }
        let txn = self.db.read_tx();
        let mut found = 0;
        for key in keys {
            found += u64::from(txn.get(&self.rows, key)?.is_some());
        }
        Ok(found)
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let (mut rows, mut bytes) = (0, 0);
        for row in self.db.read_tx().iter(&self.rows) {
            let (key, value) = row.into_inner()?;
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        Ok((rows, bytes))
    }

    fn update(&mut self, key: &Key, value: &Value) -> Result<bool> {
        let mut txn = self.db.write_tx()?.durability(Some(self.mode));
        txn.get(&self.rows, key)?;
        txn.insert(&self.rows, *key, *value);
        Ok(txn.commit()?.is_ok())
    }
}
