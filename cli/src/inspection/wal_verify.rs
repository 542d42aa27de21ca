//! `lockstone wal verify`: what opening a database would make of the end of its log, and what speaks for it.
//!
//! The verdict is recovery's own: the log is scanned as recovery scans it, by the same code. A torn tail was
//! never acknowledged and is no failure; damage is one.

use std::path::PathBuf;

use clap::Args;
use lockstone::inspect::Inspection;

use crate::failure::Result;
use crate::inspection::log_summary;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The database's directory
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the verdict.
pub(crate) fn wal_verify(arguments: &VerifyArguments) -> Result {
    let log = Inspection::open(&arguments.dir)?.verify()?;
    let mut output = Output::pages();
    if arguments.json {
        output.json(&log)?;
    } else {
        log_summary::print(&mut output, &log)?;
    }
    output.flush()?;
    log_summary::outcome(&log)
}
