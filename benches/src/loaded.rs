//! A database with rows in it: loaded once, used again by later runs and programs.
//!
//! The last thing that a load commits is a mark with the number of rows; a database without it is not
//! used. Loading happens in a child process, so that its memory is not counted to the workload.

use std::path::Path;
use std::process::{Command, Stdio};

use lockstone::{Database, Options, Table};
use lockstone_base::disk::Backend;

use crate::error::Error;
use crate::place::Place;
use crate::run_settings::Common;

/// The table that all workloads work on.
pub(crate) const TABLE: &str = "rows";
/// The table that holds the mark.
const MARKS: &str = "marks";
const LOADED: &str = "loaded";

/// An open database that holds its rows.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) db: Database,
    pub(crate) table: Table,
}

impl Loaded {
    /// Opens the database with as many rows as the settings say; loads it first if it is not there.
    pub(crate) fn open(place: &Place, common: &Common, rows: u64) -> Result<Self, Error> {
        Self::open_with(place, common, rows, options(common))
    }

    /// The same, with these options.
    pub(crate) fn open_with(
        place: &Place,
        common: &Common,
        rows: u64,
        options: Options,
    ) -> Result<Self, Error> {
        let path = place.database(rows);
        if !is_loaded(&path, rows)? {
            eprintln!("loading {rows} rows into {}", path.display());
            load_in_a_child(place, common, rows)?;
        }
        let db = options.create(false).open(&path)?;
        let table = db.create_table(TABLE)?;
        Ok(Self { db, table })
    }

    /// What carries the log.
    pub(crate) fn backend(&self) -> Backend {
        self.db.info().log_writes.backend
    }
}

/// How every workload opens its database: as users do, but a transaction is retried until it commits.
pub(crate) fn options(common: &Common) -> Options {
    Options::new().retries_max(u32::MAX).io(common.io.into())
}

/// Says that all rows are there.
pub(crate) fn mark(db: &Database, rows: u64) -> Result<(), Error> {
    let marks = db.create_table(MARKS)?;
    let mut txn = db.begin();
    txn.put(&marks, LOADED, rows.to_le_bytes())?;
    txn.commit()?;
    Ok(())
}

fn is_loaded(path: &Path, rows: u64) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    let db = match Options::new().create(false).open(path) {
        Ok(db) => db,
        // What a load left that was interrupted early.
        Err(lockstone::Error::NotADatabase { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let found = match db.table(MARKS) {
        Some(marks) => db.snapshot().get(&marks, LOADED)?,
        None => None,
    };
    db.close()?;
    Ok(found.is_some_and(|mark| *mark == rows.to_le_bytes()))
}

fn load_in_a_child(place: &Place, common: &Common, rows: u64) -> Result<(), Error> {
    const LOADS: &str = "loads the rows";
    let program = std::env::current_exe().map_err(Error::at(Path::new("/proc/self/exe")))?;
    let mut child = Command::new(&program);
    child
        .args(["load", "--order", "sorted", "--runs", "1", "--dir"])
        .arg(place.dir());
    child.args([
        "--rows",
        &rows.to_string(),
        "--seed",
        &common.seed.to_string(),
    ]);
    let status = child
        .stdout(Stdio::null())
        .status()
        .map_err(Error::at(&program))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Child(LOADS))
    }
}
