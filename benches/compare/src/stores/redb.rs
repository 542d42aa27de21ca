//! redb: one writer at a time.

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::{Result, Session, Setting, Store};
use crate::rows::{KEY_BYTES, Key, VALUE_BYTES, Value};

const ROWS: TableDefinition<'_, &[u8; KEY_BYTES], &[u8; VALUE_BYTES]> =
    TableDefinition::new("rows");

struct Open {
    db: Database,
    sync: bool,
}

pub(super) fn open(setting: Setting<'_>) -> Result<Box<dyn Store>> {
    let mut builder = Database::builder();
    builder.set_cache_size(setting.cache_bytes as usize);
    let db = builder.create(setting.directory.join("rows.redb"))?;
    let open = Open {
        db,
        sync: setting.sync,
    };
    let txn = open.begin()?;
    txn.open_table(ROWS)?;
    txn.commit()?;
    Ok(Box::new(open))
}

impl Open {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut txn = self.db.begin_write()?;
        if !self.sync {
            txn.set_durability(Durability::None)?;
        }
        Ok(txn)
    }
}

impl Store for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn settle(&self) -> Result<()> {
        Ok(self.db.begin_write()?.commit()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Session for &Open {
    fn insert(&mut self, rows: &[(Key, Value)]) -> Result<()> {
        let txn = self.begin()?;
        let mut table = txn.open_table(ROWS)?;
        for (key, value) in rows {
            table.insert(key, value)?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn get(&mut self, keys: &[Key]) -> Result<u64> {
        let table = self.db.begin_read()?.open_table(ROWS)?;
        let mut found = 0;
        for key in keys {
            found += u64::from(table.get(key)?.is_some());
        }
        Ok(found)
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let table = self.db.begin_read()?.open_table(ROWS)?;
        let (mut rows, mut bytes) = (0, 0);
        for row in table.iter()? {
            let (key, value) = row?;
            rows += 1;
            bytes += (key.value().len() + value.value().len()) as u64;
        }
        Ok((rows, bytes))
    }

    fn update(&mut self, key: &Key, value: &Value) -> Result<bool> {
        let txn = self.begin()?;
        let mut table = txn.open_table(ROWS)?;
        table.get(key)?;
        table.insert(key, value)?;
        drop(table);
        txn.commit()?;
        Ok(true)
    }
}
