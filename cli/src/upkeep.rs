//! `lockstone backup`, `compact` and `salvage`: work on a database that nobody has open.

use std::path::PathBuf;

use clap::Args;
use lockstone::inspect::{self, SalvageReport};
use lockstone::{Database, Stats};

use crate::engine_arguments::EngineArguments;
use crate::failure::{Failure, Result};
use crate::output::{Output, bytes, count, grouped, say, shown};
use crate::report;

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

/// The options of `lockstone salvage`.
#[derive(Debug, Args)]
pub(crate) struct SalvageArguments {
    /// The directory of the damaged database, which is not changed
    dir: PathBuf,
    /// Where what can be read goes: a directory that is empty or does not exist
    to: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// The options of `lockstone recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArguments {
    /// The database's directory
    dir: PathBuf,
    /// Print what was found, and what became of every transaction that was in flight
    #[arg(long)]
    report: bool,
    /// Print the report as one JSON object
    #[arg(long, conflicts_with = "report")]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Opens a database, which recovers it, and closes it in order.
pub(crate) fn recover(arguments: &RecoverArguments) -> Result {
    let options = arguments.engine.options().create(false);
    let db = options.open(&arguments.dir)?;
    let report = db.recovery_report().clone();
    db.close()?;
    let mut output = Output::pages();
    if arguments.json {
        output.json(&report)?;
    } else if arguments.report {
        report::print_all(&mut output, &report)?;
    } else {
        say!(
            output,
            "{}: recovered in {:.1?}, {} in flight, {}",
            arguments.dir.display(),
            report.total,
            count(report.in_flight.len(), "transaction"),
            count(report.survivors().count(), "survivor"),
        )?;
    }
    output.flush()
}

/// Saves what can be read of a damaged database into a new one. What was lost makes the exit code 1.
pub(crate) fn salvage(arguments: &SalvageArguments) -> Result {
    let options = arguments.engine.options();
    let report = inspect::salvage(&arguments.dir, &arguments.to, options)?;
    let mut output = Output::pages();
    if arguments.json {
        output.json(&report)?;
    } else {
        print(&mut output, &report)?;
    }
    output.flush()?;
    match report.losses.len() {
        0 => Ok(()),
        losses => Err(Failure::Found(format!(
            "{}: {}; what could be read is in {}",
            arguments.dir.display(),
            if losses == 1 {
                "1 loss".to_owned()
            } else {
                format!("{} losses", grouped(losses as u64))
            },
            arguments.to.display()
        ))),
    }
}

fn print(output: &mut Output, report: &SalvageReport) -> Result {
    match report.manifest {
        Some(generation) => say!(output, "manifest    generation {generation}")?,
        None => say!(
            output,
            "manifest    none that can be read: tables have lost their names"
        )?,
    }
    say!(
        output,
        "read        {}, and {} of the log",
        count(report.runs, "run"),
        count(report.commits, "commit")
    )?;
    for (table, rows) in &report.tables {
        say!(
            output,
            "saved       {}: {}",
            shown(table.as_bytes()),
            count(*rows, "row")
        )?;
    }
    for loss in &report.losses {
        let offset = loss
            .offset
            .map(|offset| format!(" at offset {offset}"))
            .unwrap_or_default();
        say!(
            output,
            "lost        {}{offset}: {}",
            loss.file.display(),
            loss.what
        )?;
        if let (Some(first), Some(last)) = (&loss.first_row, &loss.last_row) {
            say!(
                output,
                "            rows from {first} to {last} may be missing or old"
            )?;
        }
    }
    if report.losses.is_empty() {
        say!(output, "nothing is lost")?;
    }
    Ok(())
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
