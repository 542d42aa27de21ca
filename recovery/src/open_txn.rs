//! A transaction of which the log has no end yet: what its records say of it so far.
//!
//! Kept by `analysis`, record by record.
//! 1. Numbers of sub-transactions only grow, so what a rollback kills is the end of each list.
//! 2. V1: what it has written before it spilled is in the files of the spill, which its commit adopts.
//! 3. R2: who is prepared has said all that it holds, but rows and writes; its record counts, whatever was said before.
//! 4. S4: a spill that the manifest lists is one that the log names, and is read there again without harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::{FencingToken, LockMode, Lsn, Rank, RowKey, TableId, TxnId};
use lockstone_storage::provisional::{Digest, Kind};
use lockstone_storage::{
    AdoptedRun, DeadSubs, Replayed, RunEntry, SpillEntry, SpillPart, UnfinishedTxn,
};

use crate::open_lease::OpenLease;
use crate::record::{
    Body, Effect, Held, HeldTokens, Lease, LockMany, MalformedRecord, Prepare, Provisional,
    ProvisionalMany, RangeLock, Spill, Tokens,
};
use crate::report::{InFlight, Resolution};
use crate::tally::Tally;
use crate::unfinished::UnfinishedState;

/// A lock of a transaction in flight, as its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedLock {
    /// The row.
    pub row: RowKey,
    /// The mode that the record granted.
    pub mode: LockMode,
    /// The record's position, which is the fencing token.
    pub lsn: Lsn,
    pub(crate) sub: u32,
    /// The transaction did not hold it before.
    pub(crate) fresh: bool,
    pub(crate) writes: bool,
    /// What the lock's fencing token is, if the record has strengthened it.
    pub(crate) token: FencingToken,
}

/// That a transaction is prepared.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) gid: Arc<str>,
    /// Its record's position, and that of the first record which belongs to it.
    pub(crate) at: Lsn,
    pub(crate) from: Lsn,
    pub(crate) rows: u64,
    pub(crate) digest: Digest,
    pub(crate) held: Held,
}

/// What is known of it.
#[derive(Debug)]
pub(crate) struct OpenTxn {
    pub(crate) first: Lsn,
    pub(crate) rank: Rank,
    pub(crate) label: Option<Arc<str>>,
    lock_count: Tally,
    /// The sub-transactions that locked ranges.
    pub(crate) ranges: Vec<u32>,
    /// The tokens that it took.
    pub(crate) tokens: Vec<HeldTokens>,
    /// How many tables it had locked.
    pub(crate) tables: u64,
    pub(crate) locks: Vec<LoggedLock>,
    /// Those that were not spilled since.
    writes: Vec<Write>,
    /// All that were made.
    write_count: Tally,
    pub(crate) parts: Vec<u8>,
    /// The files of its spills, by their numbers.
    spilled: BTreeMap<u64, SpilledFile>,
    /// Its provisional records up to here are superseded by spills that the manifest lists.
    listed_through: Lsn,
    /// The sub-transactions that were rolled back.
    dead: Vec<(u32, u32)>,
    /// The sub-transaction that wrote many rows last, and the first of its records.
    batch: Option<(u32, Lsn)>,
    /// The first of its records that was read; of those that belong to the next whole one, the first.
    pub(crate) seen: Option<Lsn>,
    begun: Option<Lsn>,
    pub(crate) prepared: Option<Prepared>,
    pub(crate) leased: Option<OpenLease>,
}

/// What a transaction has committed.
#[derive(Debug)]
pub struct Committed {
    /// The commit's stamp.
    pub stamp: Lsn,
    /// Who it was.
    pub txn: UnfinishedTxn,
    /// What it has adopted: older than its rows.
    pub adopted: Vec<AdoptedRun>,
    /// The rows that it had not spilled, in row order.
    pub rows: Vec<Replayed>,
}

/// A file that it has spilled.
#[derive(Debug)]
struct SpilledFile {
    kind: Kind,
    /// Its number among the transaction's spills.
    spill: u64,
    through: Lsn,
    entry: RunEntry,
}

#[derive(Debug)]
struct Write {
    /// Its record's position.
    lsn: Lsn,
    row: RowKey,
    sub: u32,
    value: Option<Bytes>,
}

impl OpenTxn {
    pub(crate) fn new(first: Lsn, rank: Rank) -> Self {
        Self {
            first,
            rank,
            label: None,
            lock_count: Tally::default(),
            ranges: Vec::new(),
            tokens: Vec::new(),
            tables: 0,
            locks: Vec::new(),
            writes: Vec::new(),
            write_count: Tally::default(),
            parts: Vec::new(),
            spilled: BTreeMap::new(),
            listed_through: Lsn::ZERO,
            dead: Vec::new(),
            batch: None,
            seen: None,
            begun: None,
            prepared: None,
            leased: None,
        }
    }

    /// One whose state the manifest has.
    pub(crate) fn listed(state: UnfinishedState) -> Self {
        let (locks, writes) = state.held;
        Self {
            label: state.label,
            lock_count: Tally::of(locks),
            write_count: Tally::of(writes),
            ..Self::new(Lsn::ZERO, state.rank)
        }
    }

    /// S4: the manifest lists this spill, which supersedes as its record in the log does.
    pub(crate) fn list(&mut self, spill: &SpillEntry, part: &SpillPart) {
        let file = SpilledFile {
            kind: spill.kind,
            spill: part.spill,
            through: part.through,
            entry: spill.run.clone(),
        };
        self.spilled.insert(spill.run.number, file);
        self.listed_through = self.listed_through.max(part.through);
        self.dead.extend(part.dead.intervals());
    }

    /// Whether a record is superseded, which counted before its spill did.
    fn is_superseded(&mut self, lsn: Lsn) -> bool {
        let is_superseded = lsn <= self.listed_through;
        if is_superseded {
            self.parts.clear();
        }
        is_superseded
    }

    /// A record of it is read.
    pub(crate) fn saw(&mut self, body: &Body<'_>, lsn: Lsn) {
        self.seen.get_or_insert(lsn);
        // What a Prepare or a Lease needs stands right before it: the label, and what did not fit.
        match body {
            Body::Begin { .. } => self.begun = Some(lsn),
            Body::ValuePart(_) | Body::Prepare(_) | Body::Lease(_) => {
                self.begun.get_or_insert(lsn);
            }
            _ => self.begun = None,
        }
    }

    pub(crate) fn begin(&mut self, label: &str) {
        self.label = (!label.is_empty()).then(|| label.into());
    }

    pub(crate) fn provisional(
        &mut self,
        provisional: &Provisional<'_>,
        lsn: Lsn,
        keep_locks: bool,
    ) {
        if self.is_superseded(lsn) {
            return;
        }
        self.locked(provisional, (lsn, lsn), keep_locks);
        let parts = std::mem::take(&mut self.parts);
        let value = match provisional.effect {
            Effect::Lock => return,
            Effect::Delete => None,
            Effect::Put(value) if parts.is_empty() => Some(Bytes::copy_from_slice(value)),
            Effect::Put(value) => Some(Bytes::from([&parts, value].concat())),
        };
        self.wrote(Write {
            lsn,
            row: row_key(provisional),
            sub: provisional.sub,
            value,
        });
    }

    fn wrote(&mut self, write: Write) {
        self.write_count.add(write.sub);
        self.writes.push(write);
    }

    /// `at`: the record's position, and that of the fencing token.
    fn locked(&mut self, provisional: &Provisional<'_>, at: (Lsn, Lsn), keep_locks: bool) {
        let sub = provisional.sub;
        if provisional.fresh {
            self.lock_count.add(sub);
        }
        if keep_locks {
            self.locks.push(LoggedLock {
                row: row_key(provisional),
                mode: provisional.mode,
                lsn: at.0,
                sub,
                fresh: provisional.fresh,
                writes: provisional.effect != Effect::Lock,
                token: FencingToken::new(at.1),
            });
        }
    }

    /// All at once: the values share one copy of the record.
    pub(crate) fn provisional_many(
        &mut self,
        many: ProvisionalMany<'_>,
        lsn: Lsn,
        keep_locks: bool,
    ) {
        if self.is_superseded(lsn) {
            return;
        }
        // The first record of several has the token of them all.
        let token = match self.batch.filter(|(sub, _)| *sub == many.sub) {
            Some((_, first)) => first,
            None => lsn,
        };
        self.batch = Some((many.sub, token));
        let shared = Bytes::copy_from_slice(many.rows);
        let copied = ProvisionalMany {
            rows: &shared,
            ..many
        };
        for provisional in copied.rows() {
            let Effect::Put(value) = provisional.effect else {
                continue;
            };
            self.locked(&provisional, (lsn, token), keep_locks);
            self.wrote(Write {
                lsn,
                row: RowKey::from_part(provisional.row, || shared.slice_ref(provisional.row))
                    .expect("the decoder checked the row's length"),
                sub: provisional.sub,
                value: Some(shared.slice_ref(value)),
            });
        }
    }

    pub(crate) fn lock_many(&mut self, many: LockMany<'_>, lsn: Lsn, keep_locks: bool) {
        if self.is_superseded(lsn) {
            return;
        }
        for row in many.rows() {
            self.locked(&row, (lsn, lsn), keep_locks);
        }
    }

    pub(crate) fn range(&mut self, lock: &RangeLock<'_>, at: Lsn) {
        self.ranges.push(lock.sub);
        if let Some(leased) = &mut self.leased {
            leased.range(lock, at);
        }
    }

    pub(crate) fn took(&mut self, taken: &Tokens<'_>) {
        self.tokens.push(HeldTokens::of(taken));
        if let Some(leased) = &mut self.leased {
            leased.tokens(taken);
        }
    }

    pub(crate) fn exclude(&mut self, table: TableId, at: Lsn) {
        self.tables += 1;
        if let Some(leased) = &mut self.leased {
            leased.exclude(table, at);
        }
    }

    /// R2: it outlives the crash; what it holds is what this says, if it says anything, and what is said from here on.
    pub(crate) fn lease(&mut self, lease: &Lease<'_>, at: Lsn) -> Result<(), MalformedRecord> {
        let parts = std::mem::take(&mut self.parts);
        let held = lease.held(&parts)?;
        let from = self.begun.unwrap_or(at);
        if let Some(held) = &held {
            self.restate(held);
        }
        self.leased = Some(OpenLease {
            lasts_ms: lease.lasts_ms(),
            open_call: lease.open_call(),
            from,
            held: held.unwrap_or_default(),
        });
        Ok(())
    }

    /// Numbers only grow, so what a rollback kills is the end of each list. Tables stay locked (K7).
    pub(crate) fn rollback(&mut self, from: u32, through: u32) {
        self.dead.push((from, through));
        if let Some(leased) = &mut self.leased {
            leased.rollback(from, through);
        }
        self.write_count.roll_back(from);
        self.lock_count.roll_back(from);
        let keep = self.locks.partition_point(|lock| lock.sub < from);
        self.locks.truncate(keep);
        let keep = self.ranges.partition_point(|sub| *sub < from);
        self.ranges.truncate(keep);
        let keep = self.tokens.partition_point(|taken| taken.sub < from);
        self.tokens.truncate(keep);
        let keep = self.writes.partition_point(|write| write.sub < from);
        self.writes.truncate(keep);
        self.parts.clear();
    }

    /// How many locks and writes it has.
    fn held(&self) -> (u64, u64) {
        (self.lock_count.total(), self.write_count.total())
    }

    fn state(&self) -> UnfinishedState {
        UnfinishedState {
            rank: self.rank,
            label: self.label.clone(),
            held: self.held(),
        }
    }

    pub(crate) fn in_flight(&self, txn: TxnId) -> InFlight {
        let (locks, writes) = self.held();
        InFlight {
            txn,
            label: self.label.clone(),
            priority: self.rank,
            locks,
            ranges: self.ranges.len() as u64,
            tokens: self.tokens.iter().map(|taken| taken.tokens).sum(),
            tables: self.tables,
            writes,
            resolution: match (&self.prepared, &self.leased) {
                (Some(prepared), _) => Resolution::Prepared {
                    gid: Arc::clone(&prepared.gid),
                },
                (None, Some(leased)) => Resolution::Leased {
                    lease_ms: leased.lasts_ms,
                },
                (None, None) => Resolution::Aborted,
            },
        }
    }

    /// The sub-transactions that were rolled back.
    pub(crate) fn rolled_back(&self) -> DeadSubs {
        DeadSubs::new(self.dead.iter().copied())
    }

    /// V1: what it has written up to there is in files, or dead.
    pub(crate) fn spill(&mut self, spill: Spill<'_>) -> Result<(), MalformedRecord> {
        self.writes.retain(|write| write.lsn > spill.through);
        // Where reading began behind some of its records, the spill knows how many there were.
        self.lock_count.complete(spill.held.0);
        self.write_count.complete(spill.held.1);
        if let Some(leased) = &mut self.leased {
            leased.spill(&spill);
        }
        let files = spill.files()?;
        // V3: what was merged is in these now.
        for number in &files.replaces {
            self.spilled.remove(number);
        }
        let files = files.files.into_iter();
        let files = files.map(|(kind, entry)| SpilledFile {
            kind,
            spill: spill.number,
            through: spill.through,
            entry,
        });
        self.spilled
            .extend(files.map(|file| (file.entry.number, file)));
        Ok(())
    }

    /// R2: it outlives the crash, with all that this says, whatever of it was said before.
    pub(crate) fn prepare(&mut self, prepare: Prepare<'_>, at: Lsn) -> Result<(), MalformedRecord> {
        let parts = std::mem::take(&mut self.parts);
        let held = Held::decode(&[&parts, prepare.held].concat())?;
        self.restate(&held);
        self.lock_count = Tally::of(prepare.rows);
        self.prepared = Some(Prepared {
            gid: prepare.gid.into(),
            at,
            from: self.begun.unwrap_or(at),
            rows: prepare.rows,
            digest: prepare.digest,
            held,
        });
        Ok(())
    }

    /// What it holds besides rows is this, whatever was said before.
    fn restate(&mut self, held: &Held) {
        self.writes.retain(|write| write.lsn > held.through);
        self.write_count = Tally::of(held.writes);
        self.ranges = held.ranges.iter().map(|range| range.sub).collect();
        self.tables = held.exclusive.len() as u64;
        self.tokens.clone_from(&held.tokens);
        self.dead.clone_from(&held.dead);
        let files = held.files.iter().map(|(spill, kind, entry)| SpilledFile {
            kind: *kind,
            spill: *spill,
            through: held.through,
            entry: entry.clone(),
        });
        self.spilled = files.map(|file| (file.entry.number, file)).collect();
    }

    /// Its files of which anything is alive, each with the number of its spill.
    pub(crate) fn files(&self) -> impl Iterator<Item = (u64, &RunEntry)> {
        let dead = self.rolled_back();
        let alive = self.spilled.values();
        let alive = alive.filter(move |file| !file.entry.is_dead(&dead));
        alive.map(|file| (file.spill, &file.entry))
    }

    /// Its writes that are in no file, with their sub-transactions, the oldest first.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (&RowKey, u32, Option<&Bytes>)> {
        let writes = self.writes.iter();
        writes.map(|write| (&write.row, write.sub, write.value.as_ref()))
    }

    /// What it has adopted; and of each row that it had not spilled the newest write, in row order.
    pub(crate) fn into_committed(self, txn: TxnId, stamp: Lsn) -> Committed {
        let state = self.state().encode();
        let dead = DeadSubs::new(self.dead);
        let adopted = self.spilled.into_values();
        let adopted = adopted.filter(|file| file.kind == Kind::Write);
        // V4: a file that has nothing else is gone.
        let adopted = adopted.filter(|file| !file.entry.is_dead(&dead));
        let adopted = adopted.map(|file| AdoptedRun {
            entry: file.entry,
            spill: file.spill,
            through: file.through,
            dead: dead.clone(),
        });
        let newest: BTreeMap<RowKey, Option<Bytes>> = self
            .writes
            .into_iter()
            .map(|write| (write.row, write.value))
            .collect();
        let rows = newest.into_iter();
        Committed {
            stamp,
            txn: UnfinishedTxn { txn, state },
            adopted: adopted.collect(),
            rows: rows
                .map(|(row, value)| Replayed { row, stamp, value })
                .collect(),
        }
    }
}

fn row_key(provisional: &Provisional<'_>) -> RowKey {
    let share = || Bytes::copy_from_slice(provisional.row);
    RowKey::from_part(provisional.row, share).expect("the decoder checked the row's length")
}
