//! A database directory looked at without opening it: nothing in it is changed.
//!
//! A database in use is refused with its owner's process id; of a crashed one this tells what recovery
//! would find and do.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

pub use lockstone_recovery::record::{
    Body, Context, Effect, LockMany, Provisional, ProvisionalMany, Spill, Tag, Tokens,
};
pub use lockstone_recovery::{
    ChainMarks, ChainPoint, Corruption, DeadLock, DumpSink, FrameInfo, Leftover, LogCheck,
    LogVerdict, ManifestMarks, SegmentInfo, SegmentUse, Span, Spare,
};

pub use lockstone_storage::{RunBlock, RunFile, RunLayout, RunVersion};

pub use crate::salvage::{Loss, SalvageReport, salvage};

use crate::error::{Error, Result};
use crate::listing::CheckReport;
use crate::opening::{real_disk, real_ports};
use lockstone_base::disk::IoMode;
use lockstone_base::{Lsn, TableId};
use lockstone_recovery::RecoveryReport;
use lockstone_storage::LevelStats;
use serde::Serialize;

/// How large a database is that nobody has open, and what of.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DirectoryStats {
    /// Its identity, as 32 hexadecimal digits.
    pub uuid: String,
    /// The generation of its newest manifest.
    pub manifest: u64,
    /// How often it was opened.
    pub boot_epoch: u32,
    /// Every commit at or below is in runs.
    pub flushed_through: Lsn,
    /// Runs.
    pub runs: usize,
    /// What they take, in bytes.
    pub run_bytes: u64,
    /// The levels, from level 0 down.
    pub levels: Vec<LevelStats>,
    /// Versions of rows in runs.
    pub versions: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// What the log's files take, in bytes.
    pub log_bytes: u64,
    /// The tables, by id.
    pub tables: Vec<TableStats>,
    /// Dropped tables of which rows may be left.
    pub dropped_tables: usize,
}

/// About how large a table is.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TableStats {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u32,
    /// About how many rows it has.
    pub rows: u64,
    /// About how many bytes of runs they take.
    pub bytes: u64,
}

/// Opens the run file `path` by itself, as it describes itself.
///
/// # Errors
/// [`Error::Corrupt`] if it is no run, or its head, footer or index is damaged;
/// [`Error::NewerVersion`], [`Error::Io`].
pub fn open_run(path: impl AsRef<Path>) -> Result<RunFile> {
    let path = path.as_ref();
    let dir = path.parent().filter(|dir| *dir != Path::new(""));
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::invalid(format!("{} names no file", path.display())));
    }
    let disk = real_disk(dir.unwrap_or(Path::new(".")), false, IoMode::Blocking)?;
    Ok(RunFile::open(&disk, name)?)
}

/// A database directory, held still while it is looked at.
#[derive(Debug)]
pub struct Inspection(lockstone_recovery::Inspection);

impl Inspection {
    /// Looks at the database in the directory `path`.
    ///
    /// # Errors
    /// [`Error::NotADatabase`], [`Error::Locked`],
    /// [`Error::NewerVersion`], [`Error::Corrupt`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let ports = real_ports(path.as_ref(), false, IoMode::Blocking)?;
        Ok(Self(lockstone_recovery::Inspection::open(
            Arc::clone(&ports.disk),
            ports.clock.clone(),
        )?))
    }

    /// What recovery would find and do.
    ///
    /// # Errors
    /// What recovery would refuse with.
    pub fn report(&self) -> Result<RecoveryReport> {
        Ok(self.0.report()?)
    }

    /// The locks of whoever was in flight when the run before ended, by row. Nobody holds them now.
    ///
    /// # Errors
    /// What recovery would refuse with.
    pub fn dead_locks(&self) -> Result<Vec<DeadLock>> {
        Ok(self.0.dead_locks()?)
    }

    /// Reads the log and every block of every run.
    ///
    /// # Errors
    /// What recovery would refuse with; damage to runs is among the findings.
    pub fn check(&self) -> Result<(RecoveryReport, CheckReport)> {
        let (report, check) = self.0.check()?;
        Ok((report, check.into()))
    }

    /// The tables that the newest manifest names, by id. The log may create further ones.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &str)> {
        let tables = self.0.manifest().tables.iter();
        tables.map(|table| (table.id, table.name.as_str()))
    }

    /// How large it is, and what of. What is committed in the log alone is not counted; rows and bytes of tables are
    /// estimates where runs hold several tables.
    ///
    /// # Errors
    /// A run that cannot be opened.
    pub fn stats(&self) -> Result<DirectoryStats> {
        let (manifest, sizes) = (self.0.manifest(), self.0.sizes()?);
        let table = |table: &lockstone_storage::TableEntry| {
            let (rows, bytes) = sizes.tables.get(&table.id).copied().unwrap_or_default();
            TableStats {
                name: table.name.clone(),
                id: table.id.0,
                rows,
                bytes,
            }
        };
        Ok(DirectoryStats {
            uuid: format!("{:032x}", manifest.uuid),
            manifest: manifest.generation,
            boot_epoch: manifest.boot_epoch,
            flushed_through: manifest.flushed_through,
            runs: manifest.runs.len(),
            run_bytes: sizes.levels.iter().map(|level| level.bytes).sum(),
            versions: sizes.versions,
            tombstones: sizes.tombstones,
            log_bytes: sizes.log_bytes,
            tables: manifest.tables.iter().map(table).collect(),
            dropped_tables: manifest.dropped.len(),
            levels: sizes.levels,
        })
    }

    /// Shows the log from where recovery starts: frames, records, the chain, and what is behind its end;
    /// `None` if the sink had enough before. Damage is told by the verdict: what comes before it has been
    /// shown.
    ///
    /// # Errors
    /// The log cannot be read, or is a newer version's.
    pub fn dump(&self, sink: &mut dyn DumpSink) -> Result<Option<LogCheck>> {
        Ok(self.0.dump(sink)?)
    }

    /// Decides about the log's end as opening the database would, and says what speaks for it.
    ///
    /// # Errors
    /// The log cannot be read, or is a newer version's. That acknowledged data is damaged is a verdict.
    pub fn verify(&self) -> Result<LogCheck> {
        Ok(self.0.verify()?)
    }
}
