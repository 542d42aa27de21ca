//! Saving what can be read of a damaged database into a new one.
//!
//! Called through `inspect`.
//! 1. The source is never written. The target is a new database, or nothing.
//! 2. Whatever is lost is told: file, offset, and the rows that may be missing or old.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lockstone_base::disk::IoMode;
use lockstone_base::{RowKey, TableId};
use lockstone_recovery::directory::{self, Content};
use lockstone_recovery::salvage::{Loss as FoundLoss, Salvage};
use serde::Serialize;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::opening::{real_disk, real_ports};
use crate::options::Options;
use crate::semaphore;
use crate::table::Table;

/// What was saved, and what was not.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The generation of the manifest that was read; absent if none could be.
    pub manifest: Option<u64>,
    /// Runs that were read.
    pub runs: usize,
    /// Commits that were read from the log.
    pub commits: usize,
    /// How many rows each table of the new database has.
    pub tables: BTreeMap<String, u64>,
    /// What could not be read.
    pub losses: Vec<Loss>,
}

/// Something that could not be read.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Loss {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: Option<u64>,
    /// The first row, as `table/key`, that may be missing or older than it was.
    pub first_row: Option<String>,
    /// The last such row.
    pub last_row: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// How much is written in one transaction.
const BATCH_BYTES: usize = 1 << 20;

/// Reads whatever can be read in the directory `from`, and writes it into a new database in `to`, which is empty or
/// does not exist. `from` is not changed.
///
/// # Errors
/// [`Error::NotADatabase`] if there is nothing to save, [`Error::Locked`], [`Error::DirectoryNotEmpty`]; what the
/// target's disk refused.
pub fn salvage(from: &Path, to: &Path, options: Options) -> Result<SalvageReport> {
    let source = real_ports(from, false, IoMode::Blocking)?;
    let target = real_disk(to, true, options.io)?;
    if !matches!(directory::content(&*target), Ok(Content::Empty)) {
        return Err(Error::DirectoryNotEmpty {
            path: to.to_owned(),
        });
    }
    drop(target);
    let mut salvage = Salvage::open(&source.disk, &*source.clock)?;
    let mut copy = Copy::begin(options.create(true).open(to)?, &salvage)?;
    salvage.rows(|row, value| copy.take(row, value))?;
    let tables = copy.finish()?;
    let names = names(&salvage);
    Ok(SalvageReport {
        manifest: salvage.manifest,
        runs: salvage.runs,
        commits: salvage.commits,
        tables,
        losses: salvage
            .losses
            .iter()
            .map(|loss| shown(loss, &names))
            .collect(),
    })
}

type Names = BTreeMap<TableId, String>;

fn names(salvage: &Salvage) -> Names {
    salvage.tables.clone()
}

/// A table that no name is known of.
fn name_of(id: TableId, names: &Names) -> String {
    names
        .get(&id)
        .cloned()
        .unwrap_or_else(|| format!("table-{}", id.0))
}

fn shown(loss: &FoundLoss, names: &Names) -> Loss {
    let row = |row: &Bytes| {
        let row = RowKey::from_encoded(row.clone())?;
        let table = name_of(row.table(), names);
        Some(format!("{table}/{}", row.key().escape_ascii()))
    };
    let (first, last) = loss.rows.as_ref().map(|(a, b)| (row(a), row(b))).unzip();
    Loss {
        file: loss.file.clone(),
        offset: loss.offset,
        first_row: first.flatten(),
        last_row: last.flatten(),
        what: loss.what.clone(),
    }
}

/// The new database, while rows come in.
struct Copy {
    db: Database,
    names: Names,
    table: Option<(TableId, Table)>,
    rows: Vec<(Bytes, Bytes)>,
    bytes: usize,
    counts: BTreeMap<String, u64>,
}

impl Copy {
    fn begin(db: Database, salvage: &Salvage) -> Result<Self> {
        let names = names(salvage);
        let mut counts = BTreeMap::new();
        for name in names.values() {
            db.create_table(name)?;
            counts.insert(name.clone(), 0);
        }
        Ok(Self {
            db,
            names,
            table: None,
            rows: Vec::new(),
            bytes: 0,
            counts,
        })
    }

    fn take(&mut self, row: RowKey, value: Bytes) -> Result<()> {
        let id = row.table();
        if id == TableId::ENGINE {
            return match semaphore::decode(&row, &value) {
                Some((name, limit)) => self.db.create_semaphore(name, limit),
                None => Ok(()),
            };
        }
        if self.bytes >= BATCH_BYTES || self.table.as_ref().is_some_and(|(now, _)| *now != id) {
            self.write()?;
        }
        if self.table.as_ref().is_none_or(|(now, _)| *now != id) {
            let table = self.db.create_table(&name_of(id, &self.names))?;
            self.table = Some((id, table));
        }
        let key = Bytes::copy_from_slice(row.key());
        self.bytes += key.len() + value.len();
        self.rows.push((key, value));
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let Some((_, table)) = &self.table else {
            return Ok(());
        };
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        *self.counts.entry(table.name().to_owned()).or_default() += rows.len() as u64;
        let mut txn = self.db.begin();
        txn.put_many(table, rows)?;
        txn.commit()?;
        Ok(())
    }

    fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        self.write()?;
        self.table = None;
        self.db.close()?;
        Ok(self.counts)
    }
}
