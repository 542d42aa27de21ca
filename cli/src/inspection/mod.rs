//! What the program shows of a database that nobody has open. Nothing in its directory is changed.
//!
//! Modules, lowest first: a file uses only what stands above it in this list.

mod locks;
mod check;
mod stats;
mod dump_run;
mod log_summary;
mod record_text;
mod wal_verify;
mod wal_dump;

pub(crate) use check::check;
pub(crate) use dump_run::{DumpRunArguments, dump_run};
pub(crate) use locks::{LocksArguments, locks};
pub(crate) use stats::stats;
pub(crate) use wal_dump::{DumpArguments, wal_dump};
pub(crate) use wal_verify::{VerifyArguments, wal_verify};
