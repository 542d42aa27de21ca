//! LMDB, through heed: one writer at a time; unsynced means `MDB_NOSYNC`, after which a crash may ruin the file.

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use super::{Result, Session, Setting, Store};
use crate::rows::{Key, Value};

struct Open {
    env: Env<WithoutTls>,
    rows: Database<'static, Bytes, Bytes>,
}

const MAP_BYTES: usize = 256 << 30;

pub(super) fn open(setting: Setting<'_>) -> Result<Box<dyn Store>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_readers(512);
    let flags = if setting.sync {
        EnvFlags::empty()
    } else {
        EnvFlags::NO_SYNC
    };
    // SAFETY: the directory is this program's own; nobody else maps or writes its file.
    let env = unsafe { options.flags(flags).open(setting.directory)? };
    let txn = env.write_txn()?;
    let created = env.create_databases_and_commit(txn, |creator, txn| {
        creator
            .create_database::<Bytes, Bytes>(txn, None)
            .map(CommitOrAbort::<_, ()>::Commit)
    })?;
    // SAFETY: the handle is used as long as the environment is open, which `Open` keeps beside it.
    let rows = unsafe {
        std::mem::transmute::<Database<'_, Bytes, Bytes>, Database<'static, Bytes, Bytes>>(
            created.unwrap_commit(),
        )
    };
    Ok(Box::new(Open { env, rows }))
}

impl Store for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn settle(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.env.force_sync()?)
    }
}

impl Session for &Open {
    fn insert(&mut self, rows: &[(Key, Value)]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in rows {
            self.rows.put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn get(&mut self, keys: &[Key]) -> Result<u64> {
        let txn = self.env.read_txn()?;
        let mut found = 0;
        for key in keys {
            found += u64::from(self.rows.get(&txn, key)?.is_some());
        }
        Ok(found)
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let txn = self.env.read_txn()?;
        let (mut rows, mut bytes) = (0, 0);
        for row in self.rows.iter(&txn)? {
            let (key, value) = row?;
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        Ok((rows, bytes))
    }

    fn update(&mut self, key: &Key, value: &Value) -> Result<bool> {
        let mut txn = self.env.write_txn()?;
        self.rows.get(&txn, key)?;
        self.rows.put(&mut txn, key, value)?;
        txn.commit()?;
        Ok(true)
    }
}
