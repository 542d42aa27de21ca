//! `lockstone stats`: how large a database is that nobody has open, and what of.

use std::path::Path;

use lockstone::inspect::{DirectoryStats, Inspection};

use crate::failure::Result;
use crate::output::{Output, bytes, count, grouped, say, shown, table};

/// Prints the sizes.
pub(crate) fn stats(dir: &Path, json: bool) -> Result {
    let stats = Inspection::open(dir)?.stats()?;
    let mut output = Output::pages();
    if json {
        output.json(&stats)?;
    } else {
        print(&mut output, &stats)?;
    }
    output.flush()
}

fn print(output: &mut Output, stats: &DirectoryStats) -> Result {
    say!(output, "database    {}", stats.uuid)?;
    say!(
        output,
        "manifest    generation {}, written in run {}; flushed through LSN {}",
        stats.manifest,
        stats.boot_epoch,
        stats.flushed_through
    )?;
    say!(
        output,
        "runs        {} in {}: {} of rows, {}",
        bytes(stats.run_bytes),
        count(stats.runs, "run"),
        count(stats.versions, "version"),
        count(stats.tombstones, "tombstone"),
    )?;
    for (number, level) in stats.levels.iter().enumerate() {
        say!(
            output,
            "  level {number}   {} in {}",
            bytes(level.bytes),
            count(level.runs, "run")
        )?;
    }
    say!(output, "log         {} of files", bytes(stats.log_bytes))?;
    let names = count(stats.tables.len(), "table");
    match stats.dropped_tables {
        0 => say!(
            output,
            "tables      {names}; what the log alone has is not counted"
        )?,
        more => say!(
            output,
            "tables      {names}, and rows of {} may be left",
            count(more, "dropped table")
        )?,
    }
    if stats.tables.is_empty() {
        return Ok(());
    }
    let mut rows = table(["id", "table", "about rows", "about bytes"]);
    for of in &stats.tables {
        let name = shown(of.name.as_bytes());
        rows.add_row([of.id.to_string(), name, grouped(of.rows), bytes(of.bytes)]);
    }
    output.table(2, &rows)
}
