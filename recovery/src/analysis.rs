//! Reads the log's records into what they mean: who committed what, who was in flight, which tables
//! there are. Called with every record of the chain, in order; decides nothing about the tail.
//!
//! 1. R1: a transaction's writes count exactly when its commit record is there.
//! 2. R3, R4: nobody visits the locks of a transaction in flight: they are counted as they pass by.
//! 3. A commit at or below `flushed_through` is in the runs already: its writes are skipped (S1).
//! 4. A rollback kills the sub-transactions of its interval, whose numbers never come again.
//! 5. S7: a table that was dropped stays so, whatever is read again of its life before (S4); what was
//!    committed to it and not yet flushed vanishes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::{LockMode, Lsn, Rank, RowKey, TableId, TxnId};
use lockstone_storage::{DroppedTable, Manifest, Replayed, TableEntry};
use lockstone_wal::{FrameInfo, LogVisitor, ScannedRecord, VisitError};

use crate::record::{
    Body, Context, Effect, LockMany, MalformedRecord, Provisional, ProvisionalMany, Tag,
};
use crate::report::{InFlight, Resolution};

/// A lock of a transaction in flight, as its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedLock {
    /// The row.
    pub row: RowKey,
    /// The mode that the record granted.
    pub mode: LockMode,
    /// The record's position, which is the fencing token.
    pub lsn: Lsn,
    sub: u32,
}

/// What the log says, record by record.
#[derive(Debug)]
pub struct Analysis {
    flushed_through: Lsn,
    keep_locks: bool,
    open: HashMap<TxnId, OpenTxn>,
    commits: Vec<Vec<Replayed>>,
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

#[derive(Debug)]
struct OpenTxn {
    first: Lsn,
    rank: Rank,
    label: Option<Arc<str>>,
    locks_by_sub: Vec<(u32, u64)>,
    /// The sub-transactions that locked ranges.
    ranges: Vec<u32>,
    /// How many tables it had locked.
    tables: u64,
    locks: Vec<LoggedLock>,
    writes: Vec<Write>,
    parts: Vec<u8>,
}

#[derive(Debug)]
struct Write {
    row: RowKey,
    sub: u32,
    value: Option<Bytes>,
}

impl Analysis {
    /// Nothing read yet but the manifest; `keep_locks` says whether the rows that transactions in flight
    /// had locked are wanted one by one.
    pub fn new(manifest: &Manifest, keep_locks: bool) -> Self {
        let (flushed_through, tables) = (manifest.flushed_through, &manifest.tables);
        let dropped = manifest.dropped.iter();
        Self {
            flushed_through,
            keep_locks,
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

    /// How many rows the replayed commits had written.
    pub fn rows(&self) -> u64 {
        self.commits.iter().map(|writes| writes.len() as u64).sum()
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

    /// What committed behind `flushed_through`: a list of writes for each commit, in commit order. Nobody
    /// who could still see the rows of a dropped table is left.
    pub fn into_commits(self) -> Vec<Vec<Replayed>> {
        let (mut commits, dropped) = (self.commits, self.dropped);
        if !dropped.is_empty() {
            for writes in &mut commits {
                writes.retain(|write| !dropped.contains_key(&write.row.table()));
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
        if let Body::Commit { rows } = body {
            let txn = self.open.remove(&context.txn);
            return self.commit(txn, rows, lsn);
        }
        if body == Body::Abort {
            self.open.remove(&context.txn);
            self.aborted += 1;
            return Ok(());
        }
        let keep_locks = self.keep_locks;
        let txn = self
            .open
            .entry(context.txn)
            .or_insert_with(|| OpenTxn::new(lsn, context.rank));
        match body {
            Body::Begin { label } => txn.label = (!label.is_empty()).then(|| label.into()),
            Body::Provisional(provisional) => txn.provisional(&provisional, lsn, keep_locks),
            Body::ProvisionalMany(many) => txn.provisional_many(many, lsn, keep_locks),
            Body::LockMany(many) => txn.lock_many(many, lsn, keep_locks),
            Body::ValuePart(part) => txn.parts.extend_from_slice(part),
            Body::RangeLock(lock) => txn.ranges.push(lock.sub),
            Body::TableLock { .. } => txn.tables += 1,
            Body::RollbackTo { from, .. } => txn.rollback(from),
            Body::Commit { .. }
            | Body::Abort
            | Body::CreateTable { .. }
            | Body::DropTable { .. }
            | Body::CleanShutdown => unreachable!("handled above"),
        }
        Ok(())
    }

    fn commit(&mut self, txn: Option<OpenTxn>, rows: u64, lsn: Lsn) -> Result<(), MalformedRecord> {
        if lsn <= self.flushed_through {
            return Ok(());
        }
        let writes = txn.map(|txn| txn.into_replayed(lsn)).unwrap_or_default();
        if writes.len() as u64 != rows {
            return Err(MalformedRecord("number of rows"));
        }
        self.committed += 1;
        if rows > 0 {
            self.commit_tail = lsn;
            self.commits.push(writes);
        }
        Ok(())
    }
}

impl LogVisitor for Analysis {
    fn frame(&mut self, frame: &FrameInfo) {
        self.boot_epoch = self.boot_epoch.max(frame.boot_epoch);
    }

    fn record(&mut self, record: ScannedRecord<'_>) -> Result<(), VisitError> {
        self.read(&record)
            .map_err(|malformed| VisitError { what: malformed.0 })
    }
}

impl OpenTxn {
    fn new(first: Lsn, rank: Rank) -> Self {
        Self {
            first,
            rank,
            label: None,
            locks_by_sub: Vec::new(),
            ranges: Vec::new(),
            tables: 0,
            locks: Vec::new(),
            writes: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn provisional(&mut self, provisional: &Provisional<'_>, lsn: Lsn, keep_locks: bool) {
        self.locked(provisional, lsn, keep_locks);
        let parts = std::mem::take(&mut self.parts);
        let value = match provisional.effect {
            Effect::Lock => return,
            Effect::Delete => None,
            Effect::Put(value) if parts.is_empty() => Some(Bytes::copy_from_slice(value)),
            Effect::Put(value) => Some(Bytes::from([&parts, value].concat())),
        };
        self.writes.push(Write {
            row: row_key(provisional),
            sub: provisional.sub,
            value,
        });
    }

    fn locked(&mut self, provisional: &Provisional<'_>, lsn: Lsn, keep_locks: bool) {
        let sub = provisional.sub;
        if provisional.fresh {
            match self.locks_by_sub.last_mut() {
                Some((last, count)) if *last == sub => *count += 1,
                _ => self.locks_by_sub.push((sub, 1)),
            }
        }
        if keep_locks {
            self.locks.push(LoggedLock {
                row: row_key(provisional),
                mode: provisional.mode,
                lsn,
                sub,
            });
        }
    }

    /// All at once: the values share one copy of the record.
    fn provisional_many(&mut self, many: ProvisionalMany<'_>, lsn: Lsn, keep_locks: bool) {
        let shared = Bytes::copy_from_slice(many.rows);
        let copied = ProvisionalMany {
            rows: &shared,
            ..many
        };
        for provisional in copied.rows() {
            let Effect::Put(value) = provisional.effect else {
                continue;
            };
            self.locked(&provisional, lsn, keep_locks);
            self.writes.push(Write {
                row: RowKey::from_part(provisional.row, || shared.slice_ref(provisional.row))
                    .expect("the decoder checked the row's length"),
                sub: provisional.sub,
                value: Some(shared.slice_ref(value)),
            });
        }
    }

    fn lock_many(&mut self, many: LockMany<'_>, lsn: Lsn, keep_locks: bool) {
        for row in many.rows() {
            self.locked(&row, lsn, keep_locks);
        }
    }

    /// Numbers only grow, so what a rollback kills is the end of each list. Tables stay locked (K7).
    fn rollback(&mut self, from: u32) {
        let keep = self.locks_by_sub.partition_point(|(sub, _)| *sub < from);
        self.locks_by_sub.truncate(keep);
        let keep = self.locks.partition_point(|lock| lock.sub < from);
        self.locks.truncate(keep);
        let keep = self.ranges.partition_point(|sub| *sub < from);
        self.ranges.truncate(keep);
        let keep = self.writes.partition_point(|write| write.sub < from);
        self.writes.truncate(keep);
        self.parts.clear();
    }

    fn in_flight(&self, txn: TxnId) -> InFlight {
        InFlight {
            txn,
            label: self.label.clone(),
            priority: self.rank,
            locks: self.locks_by_sub.iter().map(|(_, count)| count).sum(),
            ranges: self.ranges.len() as u64,
            tables: self.tables,
            writes: self.writes.len() as u64,
            resolution: Resolution::Aborted,
        }
    }

    /// The newest write of each row, in row order.
    fn into_replayed(self, stamp: Lsn) -> Vec<Replayed> {
        let newest: BTreeMap<RowKey, Option<Bytes>> = self
            .writes
            .into_iter()
            .map(|write| (write.row, write.value))
            .collect();
        newest
            .into_iter()
            .map(|(row, value)| Replayed { row, stamp, value })
            .collect()
    }
}

fn row_key(provisional: &Provisional<'_>) -> RowKey {
    let share = || Bytes::copy_from_slice(provisional.row);
    RowKey::from_part(provisional.row, share).expect("the decoder checked the row's length")
}
