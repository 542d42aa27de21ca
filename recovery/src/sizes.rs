//! How large a database is and what of: from its manifest, its directory, and the indexes of a few runs.
//!
//! Called for inspection. Reads only blocks in which one table ends and another begins.
//! 1. What a run with rows of one table holds is known; one of several tables is shared out by its blocks:
//!    rows and bytes of tables are estimates.
//! 2. What is committed in the log alone is not counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstone_base::TableId;
use lockstone_base::disk::{Disk, OpenMode};
use lockstone_storage::{LevelStats, Manifest, RunEntry, RunFile};

use crate::error::RecoveryError;

/// The size of a database.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// The levels, from level 0 down.
    pub levels: Vec<LevelStats>,
    /// Versions in all runs.
    pub versions: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// What the log's files take, spares included, in bytes.
    pub log_bytes: u64,
    /// Of each table that has any: about how many rows, and how many bytes they take in files.
    pub tables: BTreeMap<TableId, (u64, u64)>,
}

impl Sizes {
    /// The sizes of what `manifest` lists in `disk`.
    ///
    /// # Errors
    /// The disk's; damage to a run's head, footer or index.
    pub fn of(disk: &Arc<dyn Disk>, manifest: &Manifest) -> Result<Self, RecoveryError> {
        let mut sizes = Self {
            levels: Vec::new(),
            versions: 0,
            tombstones: 0,
            log_bytes: log_bytes(&**disk)?,
            tables: BTreeMap::new(),
        };
        for listed in &manifest.runs {
            let (level, run) = (usize::from(listed.level), &listed.entry);
            while sizes.levels.len() <= level {
                sizes.levels.push(LevelStats::default());
            }
            if let Some(level) = sizes.levels.get_mut(level) {
                level.runs += 1;
                level.bytes += run.bytes;
            }
            sizes.versions += run.versions;
            sizes.tombstones += run.tombstones;
            for (table, share) in shares(disk, manifest.salt, run)? {
                let (rows, bytes) = sizes.tables.entry(table).or_default();
                let of = |whole: u64| (u128::from(whole) * share.0 / share.1) as u64;
                *rows += of(run.rows.saturating_sub(run.tombstones));
                *bytes += of(run.bytes);
            }
        }
        Ok(sizes)
    }
}

/// How much of a run each table has: so many of so many parts.
type Shares = BTreeMap<TableId, (u128, u128)>;

fn shares(disk: &Arc<dyn Disk>, salt: u64, run: &RunEntry) -> Result<Shares, RecoveryError> {
    let ends = (table_of(&run.smallest), table_of(&run.largest));
    if ends.0 == ends.1 {
        return Ok(ends.0.map(|table| (table, (1, 1))).into_iter().collect());
    }
    let file = RunFile::listed(disk, salt, run)?;
    let blocks = file.layout().blocks;
    let whole = u128::from(blocks * BLOCK_PARTS);
    let mut shares = Shares::new();
    for number in 0..blocks {
        for (table, parts) in parts(&file, number) {
            shares.entry(table).or_insert((0, whole)).0 += u128::from(parts);
        }
    }
    Ok(shares)
}

/// In how many parts a block is shared out.
const BLOCK_PARTS: u64 = 1_000;

/// How many parts of a block each table has. One in which a table ends and another begins is read.
fn parts(file: &RunFile, number: u64) -> BTreeMap<TableId, u64> {
    let Some(block) = file.block(number) else {
        return BTreeMap::new();
    };
    let last = table_of(&block.last);
    let all = || last.map(|table| (table, BLOCK_PARTS)).into_iter().collect();
    if table_of(&block.above) == last {
        return all();
    }
    let mut counts = BTreeMap::new();
    let visited = file.visit(number, &mut |version| {
        if let Some(table) = table_of(version.row) {
            *counts.entry(table).or_insert(0) += 1;
        }
    });
    let Ok(versions) = visited else {
        return all();
    };
    let part = |(table, count): (TableId, u64)| (table, count * BLOCK_PARTS / versions.max(1));
    counts.into_iter().map(part).collect()
}

fn table_of(row: &[u8]) -> Option<TableId> {
    row.first_chunk().map(|id| TableId(u32::from_be_bytes(*id)))
}

fn log_bytes(disk: &dyn Disk) -> Result<u64, RecoveryError> {
    let mut bytes = 0;
    for name in disk.list()?.iter().filter(|name| name.starts_with("wal-")) {
        bytes += disk.open(name, OpenMode::Read)?.len()?;
    }
    Ok(bytes)
}
