//! Who holds which lock, who waits for whom, and which transactions there are.
//!
//! 1. K9: nobody is stopped for longer than it takes to look at a few hundred rows, so what is listed shows no single moment;
//!    a lock that is held all the while is listed, once.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lockstone_base::{FencingToken, LockMode, Rank, RowKey, TableId, TxnId};
use lockstone_locks::{ListPlace, LockEntry, LockStatus, OwnerState, RowRange, Target, WaitEntry};
use serde::Serialize;

use crate::closing::EngineRef;
use crate::engine::Engine;
use crate::error::Result;
use crate::key_range::{KeyRange, RowBounds, row_bounds};
use crate::live::LiveTxn;
use crate::names::{Cycle, LockKind, RowName};
use crate::naming::{name_cycle, name_target};
use crate::options::Isolation;
use crate::table::Table;

/// Whether a lock is held or waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum LockInfoState {
    /// Held.
    Granted,
    /// Waited for.
    Waiting,
}

/// A lock that is held or waited for.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LockInfo {
    /// The table's name; of a resource or semaphore it is empty.
    pub table: Arc<str>,
    /// The key, the bounds of a range, a resource's path, or a semaphore's name, if it may be shown.
    pub key: Option<String>,
    /// What it protects.
    pub kind: LockKind,
    /// Its mode; of a table `Update` for EXCLUSIVE, and `Share` for SHARED, which is listed while somebody holds or awaits
    /// the table EXCLUSIVE; of a semaphore `Update`.
    pub mode: LockMode,
    /// How many tokens, of a semaphore.
    pub tokens: Option<u64>,
    /// Whose it is.
    pub txn: TxnId,
    /// What its owner calls the transaction.
    pub label: Option<Arc<str>>,
    /// Whether it is held or waited for.
    pub state: LockInfoState,
    /// The fencing token, once the lock's record is in the log.
    pub token: Option<FencingToken>,
}

/// A transaction that has begun and not ended.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TransactionInfo {
    /// Its id.
    pub txn: TxnId,
    /// What its owner calls it.
    pub label: Option<Arc<str>>,
    /// Its isolation level.
    pub isolation: Isolation,
    /// Its priority, once its first lock has settled it.
    pub priority: Option<Rank>,
    /// Where it is in its life.
    pub state: TransactionState,
    /// How many rows it has locked.
    pub locks: u64,
    /// How many of its writes stand. A row that it wrote again counts again only behind a savepoint.
    pub writes: u64,
    /// How long ago it began.
    pub age: Duration,
    /// How long its lease lasts still, if it has one and nobody renews it.
    pub lease_left: Option<Duration>,
    /// The lock that it waits for.
    pub waits_for: Option<WantedLock>,
}

/// Where a transaction is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum TransactionState {
    /// It goes on.
    Active,
    /// It is being prepared.
    Preparing,
    /// It is prepared: it waits for `commit_prepared` or `abort_prepared`, through any crash.
    Prepared,
    /// Its commit is being written.
    Committing,
    /// It has committed, and its handle is about to go.
    Committed,
    /// It was rolled back, and its handle still exists.
    RolledBack,
}

/// A lock that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WantedLock {
    /// What it is for.
    pub row: RowName,
    /// The mode that is asked for.
    pub mode: LockMode,
}

/// Who waits for whom, and the deadlocks of late.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Waits {
    /// Everyone who waits, by row, and in the order of the row's queue.
    pub waits: Vec<Wait>,
    /// The last deadlocks that cost a victim, the newest last.
    pub deadlocks: Vec<Cycle>,
}

/// One who waits.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Wait {
    /// The transaction.
    pub txn: TxnId,
    /// What its owner calls it.
    pub label: Option<Arc<str>>,
    /// What it waits for.
    pub row: RowName,
    /// The mode that it asks for.
    pub mode: LockMode,
    /// For whom: all who hold what is in its way, and of those who only wait ahead of it one, the nearest. Nobody, if it is
    /// just being granted.
    pub blockers: Vec<WaitBlocker>,
}

/// Who stands in a waiter's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitBlocker {
    /// The transaction.
    pub txn: TxnId,
    /// What its owner calls it.
    pub label: Option<Arc<str>>,
    /// The mode that it holds, or asks for ahead of the waiter.
    pub mode: LockMode,
    /// Whether it waits itself, ahead in the queue, and holds nothing.
    pub soft: bool,
}

/// Which locks are asked for: all, unless it is told of a table, keys, or a transaction.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct LockFilter {
    table: Option<TableId>,
    bounds: Option<RowBounds>,
    /// The keys asked for are none.
    empty: bool,
    txn: Option<TxnId>,
}

impl LockFilter {
    /// All locks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this table.
    pub fn table(mut self, table: &Table) -> Self {
        self.table = Some(table.id());
        self
    }

    /// Those of keys of this table within a range.
    pub fn keys(mut self, table: &Table, range: impl KeyRange) -> Self {
        self.table = Some(table.id());
        self.bounds = row_bounds(table.id(), &range);
        self.empty = self.bounds.is_none();
        self
    }

    /// Those that this transaction holds or waits for.
    pub fn txn(mut self, txn: TxnId) -> Self {
        self.txn = Some(txn);
        self
    }

    fn fits(&self, entry: &LockEntry) -> bool {
        let within = |bounds: &RowBounds| match &entry.target {
            Target::Row(row) => range_of(row.table(), bounds).contains(row),
            Target::Range(range) => range_of(range.table(), bounds).overlaps(range),
            Target::Table(_) => true,
            Target::Tokens(_) => false,
        };
        !self.empty
            && self.table.is_none_or(|table| entry.target.table() == table)
            && self.bounds.as_ref().is_none_or(within)
            && self.txn.is_none_or(|txn| entry.txn == txn)
    }
}

fn range_of(table: TableId, (start, end): &RowBounds) -> RowRange {
    let row = |bound: &Bound<Bytes>| match bound {
        Bound::Included(row) => RowKey::from_encoded(row.clone()).map(Bound::Included),
        Bound::Excluded(row) => RowKey::from_encoded(row.clone()).map(Bound::Excluded),
        Bound::Unbounded => None,
    };
    // The bounds were made of whole rows.
    let bound = |bound| row(bound).unwrap_or(Bound::Unbounded);
    RowRange::new(table, bound(start), bound(end))
}

/// So many locks, if there are as many, are put in order of their rows before they are shown: a short list is in order.
const SORTED_MIN: usize = 4096;

/// The locks that fit, some thousands at a time.
pub(crate) fn locks(
    engine: &Arc<EngineRef>,
    filter: LockFilter,
) -> impl Iterator<Item = Result<LockInfo>> + use<> {
    let engine = Arc::clone(engine);
    let mut place = Some(ListPlace::default());
    let stretches = std::iter::from_fn(move || {
        let from = place.as_mut()?;
        if let Err(closed) = engine.check_open() {
            place = None;
            return Some(vec![Err(closed)]);
        }
        let mut entries = engine.locks.list_on(from)?;
        entries.retain(|entry| filter.fits(entry));
        while entries.len() < SORTED_MIN
            && let Some(more) = engine.locks.list_on(from)
        {
            entries.extend(more.into_iter().filter(|entry| filter.fits(entry)));
        }
        // Stable: the order within a row is kept, holders first, then the queue.
        entries.sort_by(|a, b| order(a).cmp(&order(b)));
        let entries = entries.into_iter();
        Some(entries.map(|entry| Ok(lock_info(&engine, entry))).collect())
    });
    stretches.flatten()
}

/// Rows first, then the others, as they come.
fn order(entry: &LockEntry) -> (bool, Option<&RowKey>) {
    let row = entry.target.row();
    (row.is_none(), row)
}

fn lock_info(engine: &Engine, entry: LockEntry) -> LockInfo {
    let RowName { table, key, kind } = name_target(engine, &entry.target);
    let tokens = entry.target.tokens();
    LockInfo {
        tokens: tokens.map(|request| request.tokens),
        table,
        key,
        kind,
        mode: entry.mode,
        txn: entry.txn,
        label: entry.label,
        state: match entry.status {
            LockStatus::Granted => LockInfoState::Granted,
            LockStatus::Waiting => LockInfoState::Waiting,
        },
        token: entry.token,
    }
}

pub(crate) fn waits(engine: &Engine) -> Waits {
    let wait = |entry: WaitEntry| Wait {
        txn: entry.txn,
        label: entry.label,
        row: name_target(engine, &entry.target),
        mode: entry.mode,
        blockers: entry
            .waits_for
            .into_iter()
            .map(|blocker| WaitBlocker {
                txn: blocker.txn,
                label: blocker.label,
                mode: blocker.mode,
                soft: blocker.soft,
            })
            .collect(),
    };
    let deadlocks = engine.locks.recent_deadlocks();
    Waits {
        waits: engine.locks.waits().into_iter().map(wait).collect(),
        deadlocks: deadlocks
            .iter()
            .map(|cycle| name_cycle(engine, cycle))
            .collect(),
    }
}

pub(crate) fn transactions(engine: &Engine) -> Vec<TransactionInfo> {
    let now = engine.ports.clock.now();
    let info = |txn: LiveTxn| TransactionInfo {
        txn: txn.owner.id(),
        label: txn.owner.label().cloned(),
        isolation: txn.notes.isolation,
        priority: txn.owner.rank(),
        state: match txn.owner.state() {
            OwnerState::Active => TransactionState::Active,
            OwnerState::Preparing => TransactionState::Preparing,
            OwnerState::Prepared => TransactionState::Prepared,
            OwnerState::Committing => TransactionState::Committing,
            OwnerState::Released => TransactionState::Committed,
            OwnerState::Ending | OwnerState::Aborted => TransactionState::RolledBack,
        },
        locks: txn.notes.locks.load(Ordering::Relaxed),
        writes: txn.notes.writes.load(Ordering::Relaxed),
        age: now.saturating_sub(txn.notes.begun),
        lease_left: txn
            .notes
            .lease()
            .map(|lease| lease.until().saturating_sub(now)),
        waits_for: engine.locks.waiting(&txn.owner).map(|ticket| WantedLock {
            row: name_target(engine, ticket.target()),
            mode: ticket.mode(),
        }),
    };
    engine.live.all().into_iter().map(info).collect()
}
