//! The locks that transactions in flight had when the run before ended: in the log, and in the files of their spills.
//!
//! Called by `inspect`.
//! 1. A file is a transaction's by what it says of itself: whether the log still names it or not, and whether or not it was
//!    published. One that a crash has cut off says nothing, and its locks are in the log.
//! 2. L9: what was rolled back is not shown, as far as the log still knows of it.

use std::sync::Arc;

use lockstone_base::disk::Disk;
use lockstone_base::{LockMode, Lsn, RowKey, TxnId};
use lockstone_storage::provisional::ProvisionalRun;
use lockstone_storage::{Manifest, RunFile, StorageError};

use crate::analysis::Analysis;
use crate::error::RecoveryError;

/// A lock that a transaction held when the run before ended. Nobody holds it now, unless the transaction is prepared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLock {
    /// Who held it.
    pub txn: TxnId,
    /// The row.
    pub row: RowKey,
    /// The table's name, if it still has one.
    pub table: Option<String>,
    /// The mode that the record granted.
    pub mode: LockMode,
    /// The record's position: the fencing token.
    pub lsn: Lsn,
}

/// All of them, by row.
pub(crate) fn of(
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
    analysis: &Analysis,
) -> Result<Vec<DeadLock>, RecoveryError> {
    let names = analysis.tables();
    let table = |row: &RowKey| {
        let found = names.iter().find(|table| table.id == row.table());
        found.map(|table| table.name.clone())
    };
    let dead_lock = |txn, row: RowKey, mode, lsn| DeadLock {
        txn,
        table: table(&row),
        row,
        mode,
        lsn,
    };
    let logged = analysis.locks_in_flight();
    let logged = logged.map(|(txn, lock)| dead_lock(txn, lock.row.clone(), lock.mode, lock.lsn));
    let mut locks: Vec<_> = logged.collect();
    let names = disk.list().map_err(StorageError::from)?;
    for name in names.iter().filter(|name| name.starts_with("spill-")) {
        let Ok(run) = open(disk, manifest, name) else {
            continue;
        };
        let parts = run.owners().iter().map(|part| part.owner);
        let parts = parts.filter_map(|txn| Some((txn, analysis.rolled_back(txn)?)));
        for (txn, dead) in parts {
            let mut records = run.with_dead(txn, &dead).records();
            while let Some(record) = records.next()? {
                let row = RowKey::from_part(record.row, || record.row.to_vec().into());
                if let Some(row) = row.filter(|_| record.owner == txn) {
                    locks.push(dead_lock(txn, row, record.mode, record.token.lsn()));
                }
            }
        }
    }
    // A row's last record says the mode that its holder had.
    locks.sort_by(|a, b| (&a.row, a.txn, b.lsn).cmp(&(&b.row, b.txn, a.lsn)));
    locks.dedup_by(|later, kept| later.row == kept.row && later.txn == kept.txn);
    Ok(locks)
}

fn open(
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
    name: &str,
) -> Result<ProvisionalRun, StorageError> {
    let entry = RunFile::open(disk, name)?.entry().clone();
    ProvisionalRun::open(disk, manifest.identity(), &entry)
}
