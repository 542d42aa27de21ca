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
use lockstone_base::{FencingToken, LockMode, Lsn, Rank, RowKey, TxnId};
use lockstone_storage::provisional::{Digest, Kind};
use lockstone_storage::{
    AdoptedRun, DeadSubs, Replayed, RunEntry, SpillEntry, SpillPart, UnfinishedTxn,
};

use crate::record::{
    Body, Effect, Held, HeldTokens, LockMany, MalformedRecord, Prepare, Provisional,
    ProvisionalMany, Spill,
};
use crate::report::{InFlight, Resolution};
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
    locks_by_sub: Vec<(u32, u64)>,
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
    writes_by_sub: Vec<(u32, u64)>,
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
            locks_by_sub: Vec::new(),
            ranges: Vec::new(),
            tokens: Vec::new(),
            tables: 0,
            locks: Vec::new(),
            writes: Vec::new(),
            writes_by_sub: Vec::new(),
            parts: Vec::new(),
            spilled: BTreeMap::new(),
            listed_through: Lsn::ZERO,
            dead: Vec::new(),
            batch: None,
            seen: None,
            begun: None,
            prepared: None,
        }
    }

    /// One whose state the manifest has.
    pub(crate) fn listed(state: UnfinishedState) -> Self {
        let (locks, writes) = state.held;
        Self {
            label: state.label,
            locks_by_sub: vec![(0, locks)],
            writes_by_sub: vec![(0, writes)],
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
        // What a Prepare needs stands right before it: the label, and what did not fit.
        match body {
            Body::Begin { .. } => self.begun = Some(lsn),
            Body::ValuePart(_) | Body::Prepare(_) => drop(self.begun.get_or_insert(lsn)),
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
        count(&mut self.writes_by_sub, write.sub);
        self.writes.push(write);
    }

    /// `at`: the record's position, and that of the fencing token.
    fn locked(&mut self, provisional: &Provisional<'_>, at: (Lsn, Lsn), keep_locks: bool) {
        let sub = provisional.sub;
        if provisional.fresh {
            count(&mut self.locks_by_sub, sub);
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

    /// Numbers only grow, so what a rollback kills is the end of each list. Tables stay locked (K7).
    pub(crate) fn rollback(&mut self, from: u32, through: u32) {
        self.dead.push((from, through));
        let keep = self.writes_by_sub.partition_point(|(sub, _)| *sub < from);
        self.writes_by_sub.truncate(keep);
        let keep = self.locks_by_sub.partition_point(|(sub, _)| *sub < from);
        self.locks_by_sub.truncate(keep);
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
        let sum = |by_sub: &[(u32, u64)]| {
            let counts = by_sub.iter().map(|(_, count)| *count);
            counts.fold(0, u64::saturating_add)
        };
        (sum(&self.locks_by_sub), sum(&self.writes_by_sub))
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
            resolution: match &self.prepared {
                Some(prepared) => Resolution::Prepared {
                    gid: Arc::clone(&prepared.gid),
                },
                None => Resolution::Aborted,
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
        let (locks, writes) = self.held();
        for (by_sub, counted, held) in [
            (&mut self.locks_by_sub, locks, spill.held.0),
            (&mut self.writes_by_sub, writes, spill.held.1),
        ] {
            by_sub.insert(0, (0, held.saturating_sub(counted)));
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
        self.writes.retain(|write| write.lsn > held.through);
        self.locks_by_sub = vec![(0, prepare.rows)];
        self.writes_by_sub = vec![(0, held.writes)];
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

/// One more of sub-transaction `sub`, whose numbers only grow.
fn count(by_sub: &mut Vec<(u32, u64)>, sub: u32) {
    match by_sub.last_mut() {
        Some((last, count)) if *last == sub => *count += 1,
        _ => by_sub.push((sub, 1)),
    }
}

fn row_key(provisional: &Provisional<'_>) -> RowKey {
    let share = || Bytes::copy_from_slice(provisional.row);
    RowKey::from_part(provisional.row, share).expect("the decoder checked the row's length")
}
