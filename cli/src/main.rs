//! The program `lockstone`: a demo that kills the engine and counts what it kept, a shell with several
//! sessions, looks into a directory that nobody has open, and its upkeep.
//!
//! Here the command line is read and the command called; a failure is printed as `error: …` and makes the
//! exit code 1 (2 for a command line that makes no sense; `run-with-lock` has codes of its own).
//!
//! Modules, lowest first: a file uses only what stands above it in this list.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "a program, not the engine: it has a clock, starts processes and removes its own directory"
)]

mod failure;
mod output;
mod engine_arguments;
mod report;
mod upkeep;
mod run_with_lock;
mod inspection;
mod demo;
mod shell;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Failure, Result};

/// An embedded, durable, transactional key-value engine in which a row lock is a record on disk.
#[derive(Debug, Parser)]
#[command(name = "lockstone", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play the two-session example, then kill the engine while it works and count what it kept
    Demo(demo::DemoArguments),
    /// Work on accounts until killed: what `demo` starts
    #[command(hide = true)]
    DemoTransfers(demo::TransfersArguments),
    /// Several sessions in one prompt
    Shell(shell::ShellArguments),
    /// The locks of whoever was in flight when a database that is not open was last in use
    Locks(inspection::LocksArguments),
    /// Read all of a database that is not open, and say what does not fit
    Check {
        /// The database's directory
        dir: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy a database that is not open into a directory of its own
    Backup(upkeep::BackupArguments),
    /// Merge a database that is not open, so that it takes the least space and reads fastest
    Compact(upkeep::CompactArguments),
    /// Save what can be read of a damaged database into a new one, and say exactly what cannot
    Salvage(upkeep::SalvageArguments),
    /// How large a database is that is not open: levels, runs, tables
    Stats {
        /// The database's directory
        dir: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Open a database that a crash may have left, and say what was found in it and what became of it
    Recover(upkeep::RecoverArguments),
    /// Run a command while holding a lock, one process at a time
    RunWithLock(run_with_lock::RunWithLockArguments),
    /// A run file by itself: what it says of itself, its blocks, its rows
    DumpRun(inspection::DumpRunArguments),
    /// The log of a database that is not open
    #[command(subcommand)]
    Wal(Wal),
}

#[derive(Debug, Subcommand)]
enum Wal {
    /// Every frame and record from where recovery starts, and how far manifest and headers testify
    Dump(inspection::DumpArguments),
    /// What opening would make of the log's end: clean, torn, or corrupt (exit code 1)
    Verify(inspection::VerifyArguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        // Whoever stops reading has what they wanted.
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(Failure::Exit { code, why: None }) => ExitCode::from(code),
        Err(failure) => {
            // With standard error closed, too, the exit code is all that is left to say.
            let _ = writeln!(io::stderr(), "error: {failure}");
            match failure {
                Failure::Exit { code, .. } => ExitCode::from(code),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> Result {
    match command {
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::DemoTransfers(arguments) => demo::transfers(&arguments),
        Command::Shell(arguments) => shell::shell(&arguments),
        Command::Locks(arguments) => inspection::locks(&arguments),
        Command::Check { dir, json } => inspection::check(&dir, json),
        Command::Backup(arguments) => upkeep::backup(&arguments),
        Command::Compact(arguments) => upkeep::compact(&arguments),
        Command::Salvage(arguments) => upkeep::salvage(&arguments),
        Command::Stats { dir, json } => inspection::stats(&dir, json),
        Command::Recover(arguments) => upkeep::recover(&arguments),
        Command::RunWithLock(arguments) => run_with_lock::run_with_lock(&arguments),
        Command::DumpRun(arguments) => inspection::dump_run(&arguments),
        Command::Wal(Wal::Dump(arguments)) => inspection::wal_dump(&arguments),
        Command::Wal(Wal::Verify(arguments)) => inspection::wal_verify(&arguments),
    }
}
