//! Reads the log's records into what they mean: who committed what, who was in flight, which tables
//! there are. Called with every record of the chain, in order; decides nothing about the tail.
//!
//! 1. R1: a transaction's writes count exactly when its commit record is there.
//! 2. R3, R4: nobody visits the locks of a transaction in flight: they are counted as they pass by. Those of one that has turned
//!    out to be prepared are kept by a second reading.
//! 3. A commit at or below `flushed_through` is in the runs already: its writes are skipped (S1).
//! 4. A rollback kills the sub-transactions of its interval, whose numbers never come again.
//! 5. S4: what the manifest lists of a transaction that had not ended is where its reading begins; what the log says of the same again
//!    changes nothing.
//! 6. S7: a table that was dropped stays so, whatever is read again of its life before (S4); what was
//!    committed to it and not yet flushed vanishes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use lockstone_base::disk::Disk;
use lockstone_base::{Lsn, TableId, TxnId};
use lockstone_storage::{DeadSubs, DroppedTable, Manifest, Replayed, TableEntry};
use lockstone_wal::{FrameInfo, LogVisitor, ScannedRecord, VisitError};

use crate::error::RecoveryError;
use crate::open_txn::OpenTxn;
pub use crate::open_txn::{Committed, LoggedLock};
use crate::record::{Body, Context, MalformedRecord, Tag};
use crate::report::InFlight;
use crate::survivor::{self, Scene, Survivor};
use crate::unfinished::UnfinishedState;

/// What the log says, record by record.
#[derive(Debug)]
pub struct Analysis {
    flushed_through: Lsn,
    keep: Keep,
    open: HashMap<TxnId, OpenTxn>,
    commits: Vec<Committed>,
    tables: BTreeMap<TableId, TableEntry>,
    table_names: HashSet<String>,
    dropped: BTreeMap<TableId, Lsn>,
    /// Ids below it were given before the manifest: one that it does not list as a table was dropped.
    known_below: u32,
    commit_tail: Lsn,
    committed: u64,
    aborted: u64,
    clean_shutdown: bool,
    boot_epoch: u32,
}

/// Of whom the rows that they had locked are wanted one by one.
#[derive(Debug)]
pub enum Keep {
    /// They are counted.
    Nobody,
    /// Of everybody who was in flight.
    Everybody,
    /// Of these.
    These(BTreeSet<TxnId>),
}

impl Keep {
    fn has(&self, txn: TxnId) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::These(txns) => txns.contains(&txn),
        }
    }
}

impl Analysis {
    /// Nothing read yet but the manifest.
    ///
    /// # Errors
    /// [`RecoveryError`] if what `manifest`, read from `disk`, says of a transaction makes no sense.
    pub fn new(disk: &dyn Disk, manifest: &Manifest, keep: Keep) -> Result<Self, RecoveryError> {
        let open = listed(manifest).map_err(|what| manifest.malformed(disk, what.0))?;
        Ok(Self {
            open,
            ..Self::of_log_alone(manifest, keep)
        })
    }

    /// As [`Analysis::new`], where what the manifest says of transactions cannot be used.
    pub(crate) fn of_log_alone(manifest: &Manifest, keep: Keep) -> Self {
        let (flushed_through, tables) = (manifest.flushed_through, &manifest.tables);
        let dropped = manifest.dropped.iter();
        Self {
            flushed_through,
            keep,
            open: HashMap::new(),
            commits: Vec::new(),
            table_names: tables.iter().map(|table| table.name.clone()).collect(),
            tables: tables
                .iter()
                .map(|table| (table.id, table.clone()))
                .collect(),
            dropped: dropped.map(|table| (table.id, table.at)).collect(),
            known_below: manifest.next_table,
            commit_tail: flushed_through,
            committed: 0,
            aborted: 0,
            clean_shutdown: false,
            boot_epoch: 0,
        }
    }

    /// The LSN of the last commit.
    pub fn commit_tail(&self) -> Lsn {
        self.commit_tail
    }

    /// How many transactions committed behind `flushed_through`, and how many ended without effect.
    pub fn ended(&self) -> (u64, u64) {
        (self.committed, self.aborted)
    }

    /// How many rows the replayed commits had written, and how many there are in the files that they have adopted.
    pub fn rows(&self) -> (u64, u64) {
        let rows = self.commits.iter().map(|commit| commit.rows.len() as u64);
        let adopted = self.commits.iter().flat_map(|commit| &commit.adopted);
        (rows.sum(), adopted.map(|run| run.entry.rows).sum())
    }

    /// Whether the last record says that the engine was closed in order.
    pub fn clean_shutdown(&self) -> bool {
        self.clean_shutdown
    }

    /// The highest boot epoch of any frame.
    pub fn boot_epoch(&self) -> u32 {
        self.boot_epoch
    }

    /// All tables, by id.
    pub fn tables(&self) -> Vec<TableEntry> {
        self.tables.values().cloned().collect()
    }

    /// The tables that were dropped and of which rows may be left, by id.
    pub fn dropped(&self) -> Vec<DroppedTable> {
        let dropped = self.dropped.iter();
        dropped
            .map(|(id, at)| DroppedTable { id: *id, at: *at })
            .collect()
    }

    /// Who was in flight, the oldest first.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let mut open: Vec<_> = self.open.iter().collect();
        open.sort_by_key(|(id, txn)| (txn.first, **id));
        open.into_iter()
            .map(|(id, txn)| txn.in_flight(*id))
            .collect()
    }

    /// The rows that each transaction in flight had locked, if they were kept.
    pub fn locks_in_flight(&self) -> impl Iterator<Item = (TxnId, &LoggedLock)> {
        self.open
            .iter()
            .flat_map(|(id, txn)| txn.locks.iter().map(|lock| (*id, lock)))
    }

    /// Who outlives the crash.
    pub(crate) fn surviving(&self) -> BTreeSet<TxnId> {
        let open = self.open.iter();
        let surviving = open.filter(|(_, txn)| txn.prepared.is_some() || txn.leased.is_some());
        surviving.map(|(id, _)| *id).collect()
    }

    /// They, with all that they hold, the oldest first; their locks were kept.
    ///
    /// # Errors
    /// [`RecoveryError`]: what was found of one is not what it has said of itself.
    pub(crate) fn survivors(&self, scene: &Scene<'_>) -> Result<Vec<Survivor>, RecoveryError> {
        let mut survivors = Vec::new();
        for txn in self.surviving() {
            if let Some(open) = self.open.get(&txn) {
                survivors.extend(survivor::of(scene, txn, open)?);
            }
        }
        Ok(survivors)
    }

    /// What was rolled back of a transaction that was in flight; `None` if this one was not.
    pub(crate) fn rolled_back(&self, txn: TxnId) -> Option<DeadSubs> {
        self.open.get(&txn).map(OpenTxn::rolled_back)
    }

    /// What committed behind `flushed_through`, in commit order. Nobody who could still see the rows of a dropped table is left.
    pub fn into_commits(self) -> Vec<Committed> {
        let (mut commits, dropped) = (self.commits, self.dropped);
        if !dropped.is_empty() {
            for commit in &mut commits {
                let is_there = |row: &Replayed| !dropped.contains_key(&row.row.table());
                commit.rows.retain(is_there);
            }
        }
        commits
    }

    fn read(&mut self, record: &ScannedRecord<'_>) -> Result<(), MalformedRecord> {
        let tag = Tag::try_from(record.tag)?;
        let body = Body::decode(tag, record.body)?;
        self.clean_shutdown = body == Body::CleanShutdown;
        match body {
            Body::CreateTable { id, name } => self.create_table(id, name, record.lsn),
            Body::DropTable { id } => self.drop_table(id, record.lsn),
            Body::CleanShutdown => Ok(()),
            _ => {
                let context = Context::decode(record.context)?;
                self.read_of_txn(context, body, record.lsn)
            }
        }
    }

    fn create_table(
        &mut self,
        id: TableId,
        name: &str,
        created: Lsn,
    ) -> Result<(), MalformedRecord> {
        // Replaying what the manifest has already is harmless (S4), if it says the same.
        if let Some(known) = self.tables.get(&id) {
            return if known.name == name {
                Ok(())
            } else {
                Err(MalformedRecord("table id"))
            };
        }
        // The manifest was written behind its end, and S4 makes that harmless too.
        if self.was_dropped(id) {
            return Ok(());
        }
        // Every manifest must be able to name a higher one (S7).
        if id.0 == u32::MAX {
            return Err(MalformedRecord("table id"));
        }
        if !self.table_names.insert(name.to_owned()) {
            return Err(MalformedRecord("table name"));
        }
        self.tables.insert(
            id,
            TableEntry {
                id,
                name: name.to_owned(),
                created,
            },
        );
        Ok(())
    }

    fn drop_table(&mut self, id: TableId, at: Lsn) -> Result<(), MalformedRecord> {
        // A drop stands in the order of commits: whoever sees it sees no row of the table.
        self.commit_tail = self.commit_tail.max(at);
        if let Some(table) = self.tables.remove(&id) {
            self.table_names.remove(&table.name);
            self.dropped.insert(id, at);
            Ok(())
        } else if self.was_dropped(id) {
            Ok(())
        } else {
            Err(MalformedRecord("table id"))
        }
    }

    /// Whether a table that is not there was there before.
    fn was_dropped(&self, id: TableId) -> bool {
        self.dropped.contains_key(&id) || id.0 < self.known_below
    }

    fn read_of_txn(
        &mut self,
        context: Context,
        body: Body<'_>,
        lsn: Lsn,
    ) -> Result<(), MalformedRecord> {
        if let Body::Commit { rows, adopts } = body {
            let txn = self.open.remove(&context.txn);
            let txn = txn.unwrap_or_else(|| OpenTxn::new(lsn, context.rank));
            return self.commit((context.txn, txn), (rows, adopts), lsn);
        }
        if body == Body::Abort {
            self.open.remove(&context.txn);
            self.aborted += 1;
            return Ok(());
        }
        let keep_locks = self.keep.has(context.txn);
        let txn = self
            .open
            .entry(context.txn)
            .or_insert_with(|| OpenTxn::new(lsn, context.rank));
        txn.saw(&body, lsn);
        match body {
            Body::Begin { label } => txn.begin(label),
            Body::Provisional(provisional) => txn.provisional(&provisional, lsn, keep_locks),
            Body::ProvisionalMany(many) => txn.provisional_many(many, lsn, keep_locks),
            Body::LockMany(many) => txn.lock_many(many, lsn, keep_locks),
            Body::ValuePart(part) => txn.parts.extend_from_slice(part),
            Body::RangeLock(lock) => txn.range(&lock, lsn),
            Body::Tokens(taken) => txn.took(&taken),
            Body::TableLock { table } => txn.exclude(table, lsn),
            Body::TableShared { table } => {
                txn.leased.iter_mut().for_each(|lease| lease.share(table));
            }
            Body::CallOpens { sub } => {
                let leased = txn.leased.iter_mut();
                leased.for_each(|lease| lease.open_call = Some(sub));
            }
            Body::CallCloses => txn
                .leased
                .iter_mut()
                .for_each(|lease| lease.open_call = None),
            Body::Lease(lease) => txn.lease(&lease, lsn)?,
            Body::Spill(spill) => txn.spill(spill)?,
            Body::Prepare(prepare) => txn.prepare(prepare, lsn)?,
            Body::RollbackTo { from, through } => txn.rollback(from, through),
            Body::Commit { .. }
            | Body::Abort
            | Body::CreateTable { .. }
            | Body::DropTable { .. }
            | Body::CleanShutdown => unreachable!("handled above"),
        }
        Ok(())
    }

    fn commit(
        &mut self,
        (id, txn): (TxnId, OpenTxn),
        (rows, adopts): (u64, u32),
        lsn: Lsn,
    ) -> Result<(), MalformedRecord> {
        if lsn <= self.flushed_through {
            return Ok(());
        }
        let commit = txn.into_committed(id, lsn);
        if commit.rows.len() as u64 != rows {
            return Err(MalformedRecord("number of rows"));
        }
        if commit.adopted.len() as u64 != u64::from(adopts) {
            return Err(MalformedRecord("number of adopted files"));
        }
        self.committed += 1;
        if rows > 0 || adopts > 0 {
            self.commit_tail = lsn;
            self.commits.push(commit);
        }
        Ok(())
    }
}

/// S4: the transactions that the manifest lists, with their spills.
fn listed(manifest: &Manifest) -> Result<HashMap<TxnId, OpenTxn>, MalformedRecord> {
    let txns = manifest.unfinished.iter().map(|unfinished| {
        let state = UnfinishedState::decode(&unfinished.state)?;
        Ok((unfinished.txn, OpenTxn::listed(state)))
    });
    let mut txns: HashMap<_, _> = txns.collect::<Result<_, _>>()?;
    for spill in &manifest.spills {
        for part in &spill.parts {
            if let Some(txn) = txns.get_mut(&part.owner) {
                txn.list(spill, part);
            }
        }
    }
    Ok(txns)
}

impl LogVisitor for Analysis {
    fn frame(&mut self, frame: &FrameInfo) {
        if frame.boot_epoch > self.boot_epoch {
            self.boot_epoch = frame.boot_epoch;
            // R1: of records that belong together, what a crash has cut off is no part of what the next run says.
            self.open.values_mut().for_each(|txn| txn.parts.clear());
        }
    }

    fn record(&mut self, record: ScannedRecord<'_>) -> Result<(), VisitError> {
        self.read(&record)
            .map_err(|malformed| VisitError { what: malformed.0 })
    }
}
