//! Which transactions are alive: for listings, for closing, and for how far back the log is needed.
//!
//! 1. S3: a transaction notes where its records begin *before* it appends the first of them. So a
//!    checkpoint that holds the append latch sees every transaction whose records lie below the log's
//!    end: the note was stored before the append, and the append came before the hold.
//! 2. S7: it notes a table *before* it looks at the table's gate for the first time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use lockstone_base::{Lsn, TableId, TxnId};
use lockstone_locks::Owner;
use parking_lot::Mutex;

/// What others may know of a transaction.
#[derive(Debug)]
pub(crate) struct LiveTxn {
    pub(crate) owner: Arc<Owner>,
    pub(crate) begun: Duration,
    pub(crate) locks: AtomicU64,
    pub(crate) writes: AtomicU64,
    first_record: AtomicU64,
    /// The first table that it has locked or written in; most use no other.
    first_table: AtomicU32,
    other_tables: Mutex<Vec<TableId>>,
}

/// No record yet.
const NOTHING_LOGGED: u64 = u64::MAX;
/// No table yet: this one is the engine's own, and no user has a handle of it.
const NO_TABLE: u32 = TableId::ENGINE.0;

impl LiveTxn {
    /// Notes that the first record is about to be appended, at or behind `log_end`.
    pub(crate) fn note_first_record(&self, log_end: Lsn) {
        self.first_record.store(log_end.get(), Ordering::SeqCst);
    }

    /// A position at or below its first record; `None` if it has none.
    pub(crate) fn first_record(&self) -> Option<Lsn> {
        let at = self.first_record.load(Ordering::SeqCst);
        (at != NOTHING_LOGGED).then_some(Lsn::new(at))
    }

    /// Notes that it is about to lock or write in `table`. Only its own thread, and before it looks at the
    /// table's gate: whoever closes that and then looks here sees this, or is seen.
    pub(crate) fn use_table(&self, table: TableId) {
        // Written by its own thread alone: a swap costs less than a store and a fence.
        if self.first_table.load(Ordering::Relaxed) == NO_TABLE {
            self.first_table.swap(table.0, Ordering::SeqCst);
        } else {
            self.other_tables.lock().push(table);
            fence(Ordering::SeqCst);
        }
    }

    /// Takes back the note about `table`, whose gate was closed.
    pub(crate) fn leave_table(&self, table: TableId) {
        if self.first_table.load(Ordering::Relaxed) == table.0 {
            self.first_table.store(NO_TABLE, Ordering::SeqCst);
        } else {
            self.other_tables.lock().retain(|used| *used != table);
        }
    }

    /// Whether it has locked or written in `table`, or is about to.
    pub(crate) fn uses_table(&self, table: TableId) -> bool {
        self.first_table.load(Ordering::SeqCst) == table.0
            || self.other_tables.lock().contains(&table)
    }
}

/// All transactions that have begun and whose handles still exist.
#[derive(Debug, Default)]
pub(crate) struct LiveTxns(Mutex<BTreeMap<TxnId, Arc<LiveTxn>>>);

impl LiveTxns {
    /// A transaction begins at time `begun`.
    pub(crate) fn begin(&self, owner: Arc<Owner>, begun: Duration) -> Arc<LiveTxn> {
        let txn = Arc::new(LiveTxn {
            begun,
            locks: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            first_record: AtomicU64::new(NOTHING_LOGGED),
            first_table: AtomicU32::new(NO_TABLE),
            other_tables: Mutex::default(),
            owner,
        });
        let before = self.0.lock().insert(txn.owner.id(), txn.clone());
        assert!(before.is_none(), "transaction ids are never reused");
        txn
    }

    /// A transaction has ended, and the log is no longer needed for it.
    pub(crate) fn end(&self, id: TxnId) {
        self.0.lock().remove(&id);
    }

    /// The one whose records reach back farthest, and how far.
    pub(crate) fn oldest_in_log(&self) -> Option<(Lsn, Arc<LiveTxn>)> {
        let live = self.0.lock();
        let firsts = live
            .values()
            .filter_map(|txn| Some((txn.first_record()?, txn)));
        firsts
            .min_by_key(|(first, _)| *first)
            .map(|(first, txn)| (first, txn.clone()))
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<LiveTxn>> {
        self.0.lock().values().cloned().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}
