//! Lockstone: reads at a snapshot, updates under a row lock.

use std::ops::ControlFlow;
use std::time::Duration;

use lockstone::{Database, Durability, LockMode, Options, Table, TxnOptions};

use super::{Result, Session, Setting, Store};
use crate::rows::{Key, Value};

struct Open {
    db: Database,
    table: Table,
    options: TxnOptions,
}

pub(super) fn open(setting: Setting<'_>) -> Result<Box<dyn Store>> {
    let db = Options::new().open(setting.directory)?;
    let table = db.create_table("rows")?;
    let durability = if setting.sync {
        Durability::Sync
    } else {
        Durability::Buffered
    };
    Ok(Box::new(Open {
        db,
        table,
        options: TxnOptions::new().durability(durability),
    }))
}

impl Store for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn settle(&self) -> Result<()> {
        while self.db.stats().compaction_debt_bytes > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.close()?)
    }
}

impl Session for &Open {
    fn insert(&mut self, rows: &[(Key, Value)]) -> Result<()> {
        let mut txn = self.db.begin_with(self.options.clone());
        txn.put_many(&self.table, rows.iter().map(|(key, value)| (key, value)))?;
        txn.commit()?;
        Ok(())
    }

    fn get(&mut self, keys: &[Key]) -> Result<u64> {
        let snapshot = self.db.snapshot();
        if let [key] = keys {
            return Ok(snapshot.get(&self.table, key)?.is_some().into());
        }
        let values = snapshot.multi_get(&self.table, keys)?;
        Ok(values.iter().flatten().count() as u64)
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let (mut rows, mut bytes) = (0, 0);
        let snapshot = self.db.snapshot();
        let _ = snapshot.range(&self.table, ..)?.visit(|key, value| {
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
            ControlFlow::<()>::Continue(())
        })?;
        Ok((rows, bytes))
    }

    fn update(&mut self, key: &Key, value: &Value) -> Result<bool> {
        let mut txn = self.db.begin_with(self.options.clone());
        txn.get_for(&self.table, key, LockMode::Update)?;
        txn.put(&self.table, key, value)?;
        txn.commit()?;
        Ok(true)
    }
}
