//! What a transaction has moved out of memory, as others find it: its runs, and how the lock table asks them.
//!
//! Kept with the transaction's notes; filled by `spill`, and by `idle`, where another spills for it; emptied when it ends.
//! 1. V3: a run never changes. What became of its sub-transactions since is asked of the lock table, not of it.
//! 2. What holds locks alone goes with the transaction, committed or not; what holds writes is adopted by its commit.
//!
//! Crash: the log names the files, and adopts them if it has the commit; else the next open sweeps them (S6).

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use lockstone_base::{Lsn, RowKey, TableId, TxnId};
use lockstone_locks::{LockRun, Owner, RunId, SpilledLock, Unreadable};
use lockstone_recovery::UnfinishedState;
use lockstone_recovery::record::Held;
use lockstone_storage::provisional::{Digest, Kind, ProvisionalRun, Record, Sought};
use lockstone_storage::{
    AdoptedRun, DeadSubs, Direction, OpenSpills, RunEntry, SpillEntry, SpillPart, StorageError,
    UnfinishedTxn,
};
use parking_lot::Mutex;

/// Files, each with the number of its spill and its kind.
type SpilledFiles = Vec<(u64, Kind, RunEntry)>;

/// What one transaction has spilled.
#[derive(Debug, Default)]
pub(crate) struct Spilled(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    /// The oldest first.
    runs: Vec<SpilledRun>,
    spills: u64,
    /// How many locks and writes the transaction had at the last of them.
    held: (u64, u64),
    /// The sub-transactions that were rolled back since the first spill.
    dead: Vec<(u32, u32)>,
    /// V2: where others have spilled its locks; how many in each.
    parts: Vec<(Arc<Mixed>, u64)>,
    /// It has ended, and takes no part in anything any more.
    has_ended: bool,
}

/// V2: files that have locks of many, for whom another has spilled them. They go with the last who has a part in them.
#[derive(Debug)]
pub(crate) struct Mixed {
    runs: Vec<ProvisionalRun>,
    /// What the table of locks calls them.
    ids: Vec<RunId>,
}

impl Mixed {
    pub(crate) fn new(runs: Vec<ProvisionalRun>, ids: Vec<RunId>) -> Self {
        Self { runs, ids }
    }

    pub(crate) fn runs(&self) -> &[ProvisionalRun] {
        &self.runs
    }

    pub(crate) fn ids(&self) -> &[RunId] {
        &self.ids
    }

    /// Those that nobody needs any more.
    pub(crate) fn let_go(self: Arc<Self>) -> Vec<ProvisionalRun> {
        Arc::into_inner(self).map_or_else(Vec::new, |mixed| mixed.runs)
    }
}

#[derive(Debug)]
struct SpilledRun {
    run: ProvisionalRun,
    /// The number of its spill, and what of the log that supersedes.
    spill: u64,
    through: Lsn,
    /// How often its records were merged.
    tier: u8,
    /// What the table of locks calls it.
    id: Option<RunId>,
}

impl Inside {
    fn of_writes(&self) -> impl Iterator<Item = &SpilledRun> {
        let all = self.runs.iter();
        all.filter(|spilled| spilled.run.kind() == Kind::Write)
    }

    /// The last spills of this kind, if they are to be merged.
    fn due(&self, kind: Kind) -> Option<Tier> {
        let of_kind = self.runs.iter().filter(|run| run.run.kind() == kind);
        let of_kind: Vec<_> = of_kind.collect();
        let spills: Vec<_> = of_kind.chunk_by(|a, b| a.spill == b.spill).collect();
        let last = spills.get(spills.len().checked_sub(MERGED_AT_ONCE)?..)?;
        let newest = last.last()?.first()?;
        let bytes: u64 = (last.iter().copied().flatten())
            .map(|run| run.run.entry().bytes)
            .sum();
        let is_one_tier = last.iter().flat_map(|spill| spill.iter());
        let is_one_tier = { is_one_tier }.all(|run| run.tier == newest.tier);
        let overlap = |pair: &[&[&SpilledRun]]| match pair {
            [older, newer] => overlap(older, newer),
            _ => false,
        };
        if !is_one_tier || bytes > MERGED_BYTES_MAX || !last.windows(2).any(overlap) {
            return None;
        }
        let inputs = || last.iter().copied().flatten();
        Some(Tier {
            kind,
            note: SpillNote {
                number: newest.spill,
                through: newest.through,
                held: self.held,
                tier: newest.tier + 1,
            },
            inputs: Gone {
                runs: inputs().map(|run| run.run.clone()).collect(),
                ids: inputs().filter_map(|run| run.id).collect(),
            },
            spills: inputs().map(|run| run.spill).collect(),
            dead: self.dead(),
        })
    }

    fn dead(&self) -> DeadSubs {
        DeadSubs::new(self.dead.iter().copied())
    }
}

/// Whether two spills may have a row in common.
fn overlap(older: &[&SpilledRun], newer: &[&SpilledRun]) -> bool {
    let ends = |spill: &[&SpilledRun]| {
        let (first, last) = (spill.first()?.run.entry(), spill.last()?.run.entry());
        Some((first.smallest.clone(), last.largest.clone()))
    };
    let ends = ends(older).zip(ends(newer));
    ends.is_some_and(|(older, newer)| older.0 <= newer.1 && newer.0 <= older.1)
}

/// V3: so many spills of one tier become one of the next.
const MERGED_AT_ONCE: usize = 4;
/// No more is merged at once: a call of the user waits for it.
const MERGED_BYTES_MAX: u64 = 256 << 20;

/// Runs that are needed no more, for nothing of them is alive, or others are in their place; and what the table of locks calls them.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    pub(crate) runs: Vec<ProvisionalRun>,
    pub(crate) ids: Vec<RunId>,
}

impl Gone {
    /// The numbers of their files.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().map(|run| run.entry().number)
    }
}

/// Spills that are to be merged.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) kind: Kind,
    /// What comes in their place.
    pub(crate) note: SpillNote,
    /// Their runs, the oldest first.
    pub(crate) inputs: Gone,
    /// The number of each run's spill.
    pub(crate) spills: Vec<u64>,
    pub(crate) dead: DeadSubs,
}

/// A spill that is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpillNote {
    /// Its number among the transaction's.
    pub(crate) number: u64,
    /// It supersedes the transaction's records in the log up to here.
    pub(crate) through: Lsn,
    /// How many locks and writes the transaction has.
    pub(crate) held: (u64, u64),
    /// How often its records were merged.
    pub(crate) tier: u8,
}

impl Spilled {
    /// The number of the next spill.
    pub(crate) fn next_number(&self) -> u64 {
        self.0.lock().spills + 1
    }

    /// A spill is published, in the place of some others if it merges these.
    pub(crate) fn publish(&self, note: SpillNote, runs: Vec<ProvisionalRun>, replaced: &Gone) {
        let mut inside = self.0.lock();
        assert!(
            (inside.spills < note.number) == replaced.runs.is_empty(),
            "V3: a later spill has a higher number, a merged one the highest of its parts"
        );
        (inside.spills, inside.held) = (inside.spills.max(note.number), note.held);
        let replaced: BTreeSet<_> = replaced.numbers().collect();
        let is_left = |run: &SpilledRun| !replaced.contains(&run.run.entry().number);
        inside.runs.retain(is_left);
        let runs = runs.into_iter().map(|run| SpilledRun {
            run,
            spill: note.number,
            through: note.through,
            tier: note.tier,
            id: None,
        });
        inside.runs.extend(runs);
        inside.runs.sort_by_key(|run| run.spill);
    }

    /// V3: what is to be merged.
    pub(crate) fn due(&self) -> Option<Tier> {
        let inside = self.0.lock();
        let kinds = [Kind::Write, Kind::Lock];
        kinds.into_iter().find_map(|kind| inside.due(kind))
    }

    /// The table of locks calls the runs of the last spill so, in their order.
    pub(crate) fn named(&self, ids: Vec<RunId>) {
        let mut inside = self.0.lock();
        let unnamed = inside.runs.iter_mut().filter(|run| run.id.is_none());
        for (run, id) in unnamed.zip(ids) {
            run.id = Some(id);
        }
    }

    /// S4: what a manifest says of `owner`, whose spills these are, if it has ever spilled. A run that was rolled back as a whole
    /// is gone, whatever the log still says of it.
    pub(crate) fn open(&self, owner: &Owner) -> Option<OpenSpills> {
        let inside = self.0.lock();
        let state = UnfinishedState {
            rank: owner.rank().filter(|_| inside.spills > 0)?,
            label: owner.label().cloned(),
            held: inside.held,
        };
        let dead = inside.dead();
        let spills = inside.runs.iter().map(|spilled| SpillEntry {
            kind: spilled.run.kind(),
            run: spilled.run.entry().clone(),
            parts: vec![SpillPart {
                owner: owner.id(),
                spill: spilled.spill,
                through: spilled.through,
                dead: dead.clone(),
            }],
        });
        Some(OpenSpills {
            txn: UnfinishedTxn {
                txn: owner.id(),
                state: state.encode(),
            },
            spills: spills.collect(),
        })
    }

    /// R2: as it was before the crash.
    pub(crate) fn restore(&self, files: &[(u64, ProvisionalRun)], held: &Held, locks: u64) {
        let mut inside = self.0.lock();
        let runs = files.iter().map(|(spill, run)| SpilledRun {
            run: run.clone(),
            spill: *spill,
            through: held.through,
            tier: 0,
            id: None,
        });
        inside.runs.extend(runs);
        inside.spills = files.last().map_or(0, |(spill, _)| *spill);
        inside.held = (locks, held.writes);
        inside.dead.extend_from_slice(&held.dead);
    }

    /// V2: another has spilled so many of its locks into `mixed`. Whether it needs that still.
    pub(crate) fn take_part(&self, mixed: &Arc<Mixed>, locks: u64) -> bool {
        let mut inside = self.0.lock();
        if !inside.has_ended {
            inside.parts.push((Arc::clone(mixed), locks));
        }
        !inside.has_ended
    }

    /// Whether there are files in which it has a part.
    pub(crate) fn has_parts(&self) -> bool {
        !self.0.lock().parts.is_empty()
    }

    /// These.
    pub(crate) fn parts(&self) -> Vec<Arc<Mixed>> {
        let inside = self.0.lock();
        let parts = inside.parts.iter();
        parts.map(|(mixed, _)| Arc::clone(mixed)).collect()
    }

    /// It needs its part of these no more; those that nobody does.
    pub(crate) fn leave_part(&self, mixed: Arc<Mixed>) -> Vec<ProvisionalRun> {
        let is_other = |(other, _): &(Arc<Mixed>, u64)| !Arc::ptr_eq(other, &mixed);
        self.0.lock().parts.retain(is_other);
        mixed.let_go()
    }

    /// What of its log its last spill supersedes.
    pub(crate) fn through(&self) -> Lsn {
        let inside = self.0.lock();
        let through = inside.runs.iter().map(|run| run.through);
        through.max().unwrap_or(Lsn::ZERO)
    }

    /// Whether anything of it is in files of its own.
    pub(crate) fn has_files(&self) -> bool {
        !self.0.lock().runs.is_empty()
    }

    /// R2: its files, each with the number of its spill and its kind; and what is dead of them.
    pub(crate) fn listed(&self) -> (SpilledFiles, Vec<(u32, u32)>) {
        let inside = self.0.lock();
        let files = inside.runs.iter().map(|spilled| {
            let run = &spilled.run;
            (spilled.spill, run.kind(), run.entry().clone())
        });
        let mut files: SpilledFiles = files.collect();
        files.sort_by_key(|(spill, ..)| *spill);
        (files, inside.dead.clone())
    }

    /// R2: how many records these have of the transaction, and the digest of them all.
    pub(crate) fn digest(&self, txn: TxnId) -> (u64, Digest) {
        let inside = self.0.lock();
        let parts = inside.runs.iter().flat_map(|spilled| spilled.run.owners());
        let own = parts.filter(|part| part.owner == txn);
        own.fold((0, Digest::default()), |(records, mut digest), part| {
            digest += part.digest;
            (records + part.records, digest)
        })
    }

    /// V4: these sub-transactions, from the first to the last, are dead. If anything was spilled that is: the runs that have nothing
    /// else, each with its name in the table of locks.
    pub(crate) fn roll_back(&self, from: u32, through: u32) -> Option<Gone> {
        let mut inside = self.0.lock();
        let newest = |spilled: &SpilledRun| spilled.run.owners().first().map(|own| own.subs.1);
        let newest = inside.runs.iter().filter_map(newest).max();
        newest.filter(|newest| *newest >= from)?;
        inside.dead.push((from, through));
        let dead = inside.dead();
        let is_dead = |spilled: &mut SpilledRun| spilled.run.entry().is_dead(&dead);
        let dead = inside.runs.extract_if(.., is_dead);
        let dead = dead.map(|spilled| (spilled.run, spilled.id));
        let (runs, ids): (_, Vec<_>) = dead.unzip();
        let ids = ids.into_iter().flatten().collect();
        Some(Gone { runs, ids })
    }

    /// How many locks it has spilled, those included that were rolled back since.
    pub(crate) fn locks(&self) -> u64 {
        let inside = self.0.lock();
        let rows = inside.runs.iter().map(|spilled| spilled.run.entry().rows);
        let parts = inside.parts.iter().map(|(_, locks)| *locks);
        rows.chain(parts).sum()
    }

    /// The runs that hold writes, as a commit adopts them, of the spills behind number `behind`.
    pub(crate) fn to_adopt(&self, behind: u64) -> Vec<AdoptedRun> {
        let inside = self.0.lock();
        let dead = inside.dead();
        let later = inside.of_writes().filter(|run| run.spill > behind);
        let adopted = later.map(|spilled| AdoptedRun {
            entry: spilled.run.entry().clone(),
            spill: spilled.spill,
            through: spilled.through,
            dead: dead.clone(),
        });
        adopted.collect()
    }

    /// The tables of the rows that these hold.
    pub(crate) fn tables(&self) -> BTreeSet<TableId> {
        let inside = self.0.lock();
        let tables = inside.of_writes().flat_map(|spilled| spilled.run.tables());
        tables.copied().collect()
    }

    /// What nobody needs when it has ended: all, unless its commit has `adopted` what holds writes.
    pub(crate) fn take(&self, adopted: bool) -> Vec<ProvisionalRun> {
        let mut inside = self.0.lock();
        inside.has_ended = true;
        let runs = std::mem::take(&mut inside.runs).into_iter();
        let parts = std::mem::take(&mut inside.parts).into_iter();
        let runs = runs.map(|spilled| spilled.run);
        runs.filter(|run| !adopted || run.kind() != Kind::Write)
            .chain(parts.flat_map(|(mixed, _)| mixed.let_go()))
            .collect()
    }
}

/// A provisional run as the lock table asks it.
#[derive(Debug)]
pub(crate) struct RunOfLocks {
    run: ProvisionalRun,
    /// The database's.
    salt: u64,
}

impl RunOfLocks {
    pub(crate) fn new(run: ProvisionalRun, salt: u64) -> Self {
        Self { run, salt }
    }

    fn lock(&self, record: &Record<'_>) -> SpilledLock {
        let owners = self.run.owners();
        let owner = owners.binary_search_by_key(&record.owner, |part| part.owner);
        SpilledLock {
            owner: owner.expect("a record names one of the run's owners") as u32,
            mode: record.mode,
            writes: record.writes,
            sub: record.sub,
            token: record.token,
        }
    }
}

impl LockRun for RunOfLocks {
    fn find(&self, row: &RowKey, found: &mut dyn FnMut(SpilledLock)) -> Result<(), Unreadable> {
        let sought = Sought::new(self.salt, row.as_bytes());
        let records = self.run.find(&sought).map_err(unreadable)?;
        records.iter().for_each(|record| found(self.lock(record)));
        Ok(())
    }

    fn visit(
        &self,
        from: Bound<&RowKey>,
        see: &mut dyn FnMut(&RowKey, SpilledLock) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        let range = (from.map(RowKey::to_bytes), Bound::Unbounded);
        let mut records = self.run.range(range, Direction::Forward);
        while let Some(record) = records.next().map_err(unreadable)? {
            let row = RowKey::from_part(record.row, || record.row.to_vec().into());
            let row = row.expect("what is locked is the row of a table");
            if see(&row, self.lock(&record)).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn unreadable(error: StorageError) -> Unreadable {
    Unreadable(Arc::new(error))
}
