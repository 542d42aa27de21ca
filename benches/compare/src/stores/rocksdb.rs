//! RocksDB: `TransactionDB`, whose row locks are pessimistic; bulk insertion by write batches.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, ErrorKind, MultiThreaded, Options, TransactionDB,
    TransactionDBOptions, TransactionOptions, WriteBatchWithTransaction, WriteOptions,
};

use super::{Result, Session, Setting, Store};
use crate::rows::{Key, Value};

struct Open {
    db: TransactionDB<MultiThreaded>,
    sync: bool,
}

const FILTER_BITS: f64 = 10.0;
const BACKGROUND_JOBS: i32 = 2;

pub(super) fn open(setting: Setting<'_>) -> Result<Box<dyn Store>> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::None);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(setting.cache_bytes as usize));
    blocks.set_bloom_filter(FILTER_BITS, false);
    options.set_block_based_table_factory(&blocks);
    let db = TransactionDB::open(
        &options,
        &TransactionDBOptions::default(),
        setting.directory,
    )?;
    Ok(Box::new(Open {
        db,
        sync: setting.sync,
    }))
}

impl Open {
    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        options
    }
}

impl Store for Open {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        let jobs = [
            "compaction-pending",
            "num-running-compactions",
            "num-running-flushes",
            "mem-table-flush-pending",
        ];
        loop {
            let mut busy = 0;
            for job in jobs {
                busy += self
                    .db
                    .property_int_value(&format!("rocksdb.{job}"))?
                    .unwrap_or(0);
            }
            if busy == 0 {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl Session for &Open {
    fn insert(&mut self, rows: &[(Key, Value)]) -> Result<()> {
        let mut batch = WriteBatchWithTransaction::<true>::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.write_options())?)
    }

    fn get(&mut self, keys: &[Key]) -> Result<u64> {
        let mut found = 0;
        for key in keys {
            found += u64::from(self.db.get_pinned(key)?.is_some());
        }
        Ok(found)
    }

    fn scan(&mut self) -> Result<(u64, u64)> {
        let (mut rows, mut bytes) = (0, 0);
        let mut cursor = self.db.raw_iterator();
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
            cursor.next();
        }
        cursor.status()?;
        Ok((rows, bytes))
    }

    fn update(&mut self, key: &Key, value: &Value) -> Result<bool> {
        let txn = self
            .db
            .transaction_opt(&self.write_options(), &TransactionOptions::default());
        let done = txn
            .get_pinned_for_update(key, true)
            .map(|_| ())
            .and_then(|()| txn.put(key, value))
            .and_then(|()| txn.commit());
        match done {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Busy | ErrorKind::TimedOut | ErrorKind::TryAgain
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
