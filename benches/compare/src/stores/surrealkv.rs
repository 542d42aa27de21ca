//! SurrealKV: an LSM store with optimistic transactions; a conflict is found at commit.

use std::time::Duration;

use surrealkv::{Durability, Error, LSMIterator, Mode, Options, Tree, TreeBuilder};
use tokio::runtime::Runtime;

use super::{Result, Session, Setting, Store};
use crate::rows::{KEY_BYTES, Key, Value};

struct Open {
    tree: Tree,
    runtime: Runtime,
    durability: Durability,
}

pub(super) fn open(setting: Setting<'_>) -> Result<Box<dyn Store>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let options = Options::default()
        .with_path(setting.directory.to_owned())
        .with_block_cache_capacity(setting.cache_bytes)
        .with_wal_preallocation(true);
    let entered = runtime.enter();
    let tree = TreeBuilder::with_options(options).build()?;
    drop(entered);
    let durability = if setting.sync {
        Durability::Immediate
    } else {
        Durability::Eventual
    };
    Ok(Box::new(Open {
        tree,
        runtime,
        durability,
    }))
}

impl Store for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.tree.close())?)
    }
}

impl Session for &Open {
    fn insert(&mut self, rows: &[(Key, Value)]) -> Result<()> {
        loop {
            let mut txn = self.tree.begin()?;
            txn.set_durability(self.durability);
            for (key, value) in rows {
                txn.set(key, value)?;
            }
            match self.runtime.block_on(txn.commit()) {
                Err(Error::WriteStall { .. }) => std::thread::sleep(Duration::from_millis(5)),
                done => return Ok(done?),
            }
        }
    }

    fn get(&mut self, keys: &[Key]) -> Result<u64> {
        let txn = self.tree.begin_with_mode(Mode::ReadOnly)?;
        let mut found = 0;
        for key in keys {
            found += u64::from(txn.get(key)?.is_some());
        }
        Ok(found)
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let txn = self.tree.begin_with_mode(Mode::ReadOnly)?;
        let mut cursor = txn.range(&[0; KEY_BYTES], &[0xff; KEY_BYTES])?;
        let (mut rows, mut bytes) = (0, 0);
        let mut valid = cursor.seek_first()?;
        while valid {
            rows += 1;
            bytes += (cursor.key().user_key().len() + cursor.value_encoded()?.len()) as u64;
            valid = cursor.next()?;
        }
        Ok((rows, bytes))
    }

    fn update(&mut self, key: &Key, value: &Value) -> Result<bool> {
        let mut txn = self.tree.begin()?;
        txn.set_durability(self.durability);
        txn.get_for_update(key)?;
        txn.set(key, value)?;
        match self.runtime.block_on(txn.commit()) {
            Ok(()) => Ok(true),
            Err(
                Error::TransactionWriteConflict
                | Error::TransactionRetry
                | Error::WriteStall { .. },
            ) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
