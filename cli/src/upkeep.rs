//! `lockstone backup` and `lockstone compact`: open a database that nobody has open, work, close it.

use std::path::PathBuf;

use clap::Args;
use lockstone::{Database, Stats};

use crate::engine_arguments::EngineArguments;
use crate::failure::Result;
use crate::output::{Output, bytes, count, say};

/// The options of `lockstone backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// The database's directory
    dir: PathBuf,
    /// Where the copy goes: a directory that is empty or does not exist
    to: PathBuf,
    #[command(flatten)]
    engine: EngineArguments,
}

/// The options of `lockstone compact`.
#[derive(Debug, Args)]
pub(crate) struct CompactArguments {
    /// The database's directory
    dir: PathBuf,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Copies a database into a directory of its own.
pub(crate) fn backup(arguments: &BackupArguments) -> Result {
    let db = existing(&arguments.dir, arguments.engine)?;
    db.backup(&arguments.to)?;
    let stats = db.stats();
    db.close()?;
    let mut output = Output::lines();
    let to = arguments.to.display();
    say!(
        output,
        "copied {} to {to}, a database of its own",
        size(&stats)
    )?;
    output.flush()
}

/// Merges a database into the deepest level.
pub(crate) fn compact(arguments: &CompactArguments) -> Result {
    let db = existing(&arguments.dir, arguments.engine)?;
    let before = size(&db.stats());
    db.compact()?;
    let after = size(&db.stats());
    db.close()?;
    let mut output = Output::lines();
    say!(output, "before   {before}")?;
    say!(output, "behind   {after}")?;
    output.flush()
}

fn existing(dir: &PathBuf, engine: EngineArguments) -> Result<Database> {
    Ok(engine.options().create(false).open(dir)?)
}

fn size(stats: &Stats) -> String {
    let taken = stats.levels.iter().map(|level| level.bytes).sum();
    format!("{} in {}", bytes(taken), count(stats.runs, "run"))
}
