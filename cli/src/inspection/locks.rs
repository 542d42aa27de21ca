//! `lockstone locks`: the locks of whoever was in flight when the run before ended.
//!
//! A directory that nobody has open has no lock holders: all that the log says is who held what at the
//! moment of the crash. The next open makes the same finding and starts without a lock.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use clap::Args;
use lockstone::inspect::{DeadLock, Inspection};
use lockstone::{LockMode, Lsn, RecoveryReport, TxnId};
use serde::Serialize;

use crate::failure::Result;
use crate::output::{Output, count, grouped, or_dash, say, shown, table};

#[derive(Debug, Args)]
pub(crate) struct LocksArguments {
    /// The database's directory
    dir: PathBuf,
    /// Show at most this many locks; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A lock as JSON shows it. Keys are escaped as in Rust's byte strings.
#[derive(Debug, Serialize)]
struct LockRow<'a> {
    txn: TxnId,
    label: Option<&'a str>,
    table: Option<&'a str>,
    key: String,
    mode: LockMode,
    token: Lsn,
    /// Its transaction is prepared or leased: it is held by the next open.
    held: bool,
}

#[derive(Debug, Serialize)]
struct LockList<'a> {
    held: u64,
    in_flight_at_end: u64,
    locks_in_flight: u64,
    locks: Vec<LockRow<'a>>,
}

/// Prints the locks.
pub(crate) fn locks(arguments: &LocksArguments) -> Result {
    let inspection = Inspection::open(&arguments.dir)?;
    let report = inspection.report()?;
    let locks = inspection.dead_locks()?;
    let shown = match arguments.limit {
        0 => locks.len(),
        limit => limit.min(locks.len()),
    };
    let labels: HashMap<_, _> = report
        .in_flight
        .iter()
        .map(|txn| (txn.txn, txn.label.as_deref()))
        .collect();
    let living: HashSet<_> = report.survivors().map(|txn| txn.txn).collect();
    let is_held = |lock: &DeadLock| living.contains(&lock.txn);
    let held = locks.iter().filter(|lock| is_held(lock)).count();
    let rows = locks.iter().take(shown).map(|lock| LockRow {
        txn: lock.txn,
        label: labels.get(&lock.txn).copied().flatten(),
        table: lock.table.as_deref(),
        key: lock.row.key().escape_ascii().to_string(),
        mode: lock.mode,
        token: lock.lsn,
        held: is_held(lock),
    });
    let mut output = Output::pages();
    if arguments.json {
        output.json(&LockList {
            held: held as u64,
            in_flight_at_end: report.in_flight.len() as u64,
            locks_in_flight: locks.len() as u64,
            locks: rows.collect(),
        })?;
    } else {
        print(&mut output, &report, locks.split_at(shown))?;
    }
    output.flush()
}

fn print(
    output: &mut Output,
    report: &RecoveryReport,
    (shown_locks, rest): (&[DeadLock], &[DeadLock]),
) -> Result {
    let prepared = report.prepared().count();
    match prepared {
        0 => say!(output, "Nobody holds a lock: the database is not open.")?,
        prepared => say!(
            output,
            "The database is not open; {} prepared, and will hold what they hold.",
            count(prepared, "transaction"),
        )?,
    }
    if report.in_flight.is_empty() {
        return say!(output, "Nobody was in flight when the run before ended.");
    }
    say!(
        output,
        "When the run before ended, {} held {}; the next open starts without {}:",
        count(report.in_flight.len(), "transaction"),
        count(shown_locks.len() + rest.len(), "row lock"),
        if prepared == 0 {
            "them"
        } else {
            "those that are not prepared"
        },
    )?;
    let mut rows = table(["transaction", "label", "table", "key", "mode", "token"]);
    let labels: HashMap<_, _> = report
        .in_flight
        .iter()
        .map(|txn| (txn.txn, txn.label.as_ref()))
        .collect();
    for lock in shown_locks {
        rows.add_row([
            lock.txn.to_string(),
            or_dash(labels.get(&lock.txn).copied().flatten()),
            or_dash(lock.table.as_ref()),
            shown(lock.row.key()),
            lock.mode.to_string(),
            lock.lsn.to_string(),
        ]);
    }
    output.table(0, &rows)?;
    match rest.len() {
        0 => Ok(()),
        more => say!(
            output,
            "and {} more (--limit 0 shows all)",
            grouped(more as u64)
        ),
    }
}
