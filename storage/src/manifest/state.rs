//! What a manifest says, and the rules that hold between its parts.
//!
//! Encoded and decoded by `format`, read and written by `manifest`. The rules are checked on both ways: a
//! manifest that breaks one is never written, and is damage when it is read.

use std::collections::{BTreeMap, HashSet};

use lockstone_base::limits::TABLE_NAME_BYTES_MAX;
use lockstone_base::{Lsn, TableId};

use super::spills::{self, OpenSpills, SpillEntry, UnfinishedTxn};
use crate::run::{Identity, Origin, ROW_BYTES, RunEntry};

/// The state of the committed store at one LSN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The database's identity.
    pub uuid: u128,
    /// What enters every checksum of the database.
    pub salt: u64,
    /// Larger in every later manifest; its file's name.
    pub generation: u64,
    /// Raised at every open.
    pub boot_epoch: u32,
    /// The log was durable up to here when this manifest was written.
    pub durable: Lsn,
    /// Every commit at or below is in `runs`, none above (S1).
    pub flushed_through: Lsn,
    /// The chain point where recovery starts to read: the end of the frame before (S3).
    pub scan_end: Lsn,
    /// That frame's checksum.
    pub scan_crc: u32,
    /// How far the log's files reached when this manifest was written: they never reach less far again
    /// (F14). No position below was, or is, given out anew (G1).
    pub log_end: Lsn,
    /// The id of the next table; ids are never reused (S7).
    pub next_table: u32,
    /// The number of the next run.
    pub next_run: u64,
    /// The tables, by id.
    pub tables: Vec<TableEntry>,
    /// The tables that were dropped and of which rows may be left in runs, by id.
    pub dropped: Vec<DroppedTable>,
    /// The runs, level by level: level 0 newest first, the others by row.
    pub runs: Vec<ListedRun>,
    /// The provisional runs (S4).
    pub spills: Vec<SpillEntry>,
    /// The transactions that had not ended by `flushed_through` and whose state the log alone does not tell, by id (S4).
    pub unfinished: Vec<UnfinishedTxn>,
}

/// A table, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Its id.
    pub id: TableId,
    /// Its name.
    pub name: String,
    /// Where in the log it was created.
    pub created: Lsn,
}

/// A run in its level, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRun {
    /// 0 to [`LEVEL_MAX`].
    pub level: u8,
    /// The run.
    pub entry: RunEntry,
}

/// The deepest level that there is.
pub const LEVEL_MAX: u8 = 6;

/// A table that was dropped: its rows are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedTable {
    /// Its id.
    pub id: TableId,
    /// Where in the log it was dropped: whoever reads at or above sees none of its rows.
    pub at: Lsn,
}

impl Manifest {
    /// What binds the database's files to it.
    pub fn identity(&self) -> Identity {
        Identity {
            uuid: self.uuid,
            salt: self.salt,
        }
    }

    /// What enters every checksum of the log. A backup shares salt and runs with its origin, but not the uuid: so
    /// no frame and no segment of the one passes for the other's (F14).
    pub fn log_salt(&self) -> u64 {
        self.salt ^ self.uuid as u64 ^ (self.uuid >> 64) as u64
    }

    /// S4: lists these transactions and their spills, and no others; of a transaction, or a file, that comes twice what was
    /// said last. S1: files that became runs of a level meanwhile are these and nothing else.
    pub fn list_open(&mut self, open: impl IntoIterator<Item = OpenSpills>) {
        let levels: HashSet<u64> = self.runs.iter().map(|run| run.entry.number).collect();
        let (mut spills, mut unfinished) = (BTreeMap::new(), BTreeMap::new());
        for OpenSpills {
            txn,
            spills: of_txn,
        } in open
        {
            unfinished.insert(txn.txn, txn);
            let still = of_txn.into_iter();
            let still = still.filter(|spill| !levels.contains(&spill.run.number));
            spills.extend(still.map(|spill| (spill.run.number, spill)));
        }
        self.spills = spills.into_values().collect();
        self.unfinished = unfinished.into_values().collect();
    }

    /// The first rule that the manifest breaks, whoever made it.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let mut numbers = HashSet::new();
        let rules = [
            (
                self.flushed_through <= self.durable,
                "S1: flushed beyond what was durable",
            ),
            (
                self.scan_end <= self.durable,
                "S3: reading starts beyond what was durable",
            ),
            (
                self.log_end == Lsn::ZERO || self.durable <= self.log_end,
                "G1: the log was durable beyond its files",
            ),
            (
                self.files()
                    .all(|run| run.number < self.next_run && numbers.insert(run.number)),
                "a run's number is taken or not below the next one",
            ),
            (
                self.runs
                    .iter()
                    .map(|run| &run.entry)
                    .all(|run| run.oldest <= run.newest && run.newest <= self.flushed_through),
                "S1: a run holds stamps above flushed_through",
            ),
            (
                self.files().all(has_bounds),
                "a run's rows or counts cannot be",
            ),
            (
                self.runs.iter().all(|run| match run.entry.origin {
                    Origin::Committed | Origin::Descended => true,
                    Origin::Provisional => false,
                    Origin::Adopted(_) => run.entry.oldest == run.entry.newest,
                }),
                "S1: a run is not committed, or was adopted with more than one stamp",
            ),
            (
                self.runs.iter().all(|run| run.level <= LEVEL_MAX)
                    && self.runs.is_sorted_by_key(|run| run.level),
                "the runs' levels do not ascend or are too deep",
            ),
            (
                self.runs.is_sorted_by(|a, b| {
                    a.level != b.level || follows(a.level, &a.entry, &b.entry)
                }),
                "W5: two runs of a level overlap, in stamps in level 0, else in rows",
            ),
        ];
        first_broken(rules)
            .or_else(|| self.broken_rule_of_tables())
            .or_else(|| spills::broken_rule(&self.spills, &self.unfinished))
    }

    /// Every file that it lists, committed or not.
    fn files(&self) -> impl Iterator<Item = &RunEntry> {
        let runs = self.runs.iter().map(|run| &run.entry);
        runs.chain(self.spills.iter().map(|spill| &spill.run))
    }

    fn broken_rule_of_tables(&self) -> Option<&'static str> {
        let mut names = HashSet::new();
        first_broken([
            (
                self.tables.iter().all(|table| table.id.0 < self.next_table),
                "S7: a table's id is not below the next one",
            ),
            (
                self.tables.is_sorted_by(|a, b| a.id < b.id),
                "the tables' ids do not ascend",
            ),
            (
                self.tables.iter().all(|table| {
                    (1..=TABLE_NAME_BYTES_MAX).contains(&table.name.len())
                        && names.insert(&table.name)
                }),
                "a table's name is empty, too long or taken",
            ),
            (
                self.dropped.is_sorted_by(|a, b| a.id < b.id)
                    && self
                        .dropped
                        .iter()
                        .all(|gone| gone.id.0 < self.next_table && gone.at <= self.durable),
                "S7: a dropped table's id is not below the next one, or its drop not durable",
            ),
            (
                self.dropped.iter().all(|gone| {
                    self.tables
                        .binary_search_by_key(&gone.id, |table| table.id)
                        .is_err()
                }),
                "S7: a dropped table is there",
            ),
        ])
    }
}

fn first_broken<const N: usize>(rules: [(bool, &'static str); N]) -> Option<&'static str> {
    rules
        .into_iter()
        .find_map(|(holds, rule)| (!holds).then_some(rule))
}

/// Whether the rows and counts of a run are such as a run can have.
fn has_bounds(run: &RunEntry) -> bool {
    ROW_BYTES.contains(&run.smallest.len())
        && ROW_BYTES.contains(&run.largest.len())
        && run.smallest <= run.largest
        && run.tombstones <= run.versions
        && (1..=run.versions).contains(&run.rows)
}

/// W5: whether `b` may stand behind `a` in a level: below it in stamps in level 0, where runs may have the
/// same rows, and above it in rows in the others, where no row is in two runs.
fn follows(level: u8, a: &RunEntry, b: &RunEntry) -> bool {
    if level == 0 {
        a.is_newer_than(b)
    } else {
        a.largest < b.smallest
    }
}
