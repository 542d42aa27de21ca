//! A recovery report for people. Called by every command that shows what a crash left.

use lockstone::RecoveryReport;

use crate::failure::Result;
use crate::output::{Output, bytes, count, grouped, or_dash, say, table};

/// How many transactions in flight are listed by name; the rest are counted.
const IN_FLIGHT_SHOWN_MAX: usize = 20;

/// Prints what opening a database found in its log, and what became of it.
pub(crate) fn print(output: &mut Output, report: &RecoveryReport, indent: usize) -> Result {
    print_some(output, report, indent, IN_FLIGHT_SHOWN_MAX)
}

/// The same, with every transaction that was in flight.
pub(crate) fn print_all(output: &mut Output, report: &RecoveryReport) -> Result {
    print_some(output, report, 0, usize::MAX)
}

fn print_some(output: &mut Output, report: &RecoveryReport, indent: usize, shown: usize) -> Result {
    let shutdown = match (report.created, report.clean_shutdown) {
        (true, _) => "this open created the database",
        (false, true) => "the run before was closed in order",
        (false, false) => "the run before ended without closing",
    };
    say!(
        output,
        "{:indent$}shutdown    {shutdown}; this is run {}",
        "",
        report.boot_epoch
    )?;
    say!(
        output,
        "{:indent$}log         {} read, LSN {} to {}: {}, {}",
        "",
        bytes(report.log_bytes),
        report.log_from,
        report.log_end,
        count(report.frames, "frame"),
        count(report.records, "record"),
    )?;
    if let Some(torn) = &report.torn {
        say!(
            output,
            "{:indent$}torn tail   at LSN {}: {} with {}, which no later frame confirms, left out",
            "",
            torn.lsn,
            bytes(torn.bytes),
            count(torn.frames, "frame header"),
        )?;
    }
    let adopted = match report.rows_adopted {
        0 => String::new(),
        rows => format!(" and {} in adopted files", grouped(rows)),
    };
    say!(
        output,
        "{:indent$}committed   {} replayed, {}{adopted}; {} had ended without effect",
        "",
        count(report.committed, "transaction"),
        count(report.rows_replayed, "row"),
        grouped(report.aborted),
    )?;
    say!(
        output,
        "{:indent$}in flight   {} with {}; all resolved, {}",
        "",
        count(report.in_flight.len(), "transaction"),
        count(report.locks_in_flight(), "row lock"),
        match report.survivors().count() {
            0 => "no lock is left".to_owned(),
            living => format!(
                "{} prepared or leased, with all their locks",
                grouped(living as u64)
            ),
        },
    )?;
    print_in_flight(output, report, indent + 12, shown)?;
    print_times(output, report, indent)
}

fn print_times(output: &mut Output, report: &RecoveryReport, indent: usize) -> Result {
    if report.total.is_zero() {
        // Nothing was recovered: the directory was only looked at.
        return Ok(());
    }
    say!(
        output,
        "{:indent$}time        {:.1?} (reading {:.1?}, installing {:.1?})",
        "",
        report.total,
        report.scan,
        report.replay,
    )
}

fn print_in_flight(
    output: &mut Output,
    report: &RecoveryReport,
    indent: usize,
    shown: usize,
) -> Result {
    if report.in_flight.is_empty() {
        return Ok(());
    }
    let mut rows = table([
        "transaction",
        "label",
        "priority",
        "rows",
        "ranges",
        "tables",
        "tokens",
        "writes",
        "resolution",
    ]);
    for txn in report.in_flight.iter().take(shown) {
        rows.add_row([
            txn.txn.to_string(),
            or_dash(txn.label.as_ref()),
            txn.priority.to_string(),
            grouped(txn.locks),
            grouped(txn.ranges),
            grouped(txn.tables),
            grouped(txn.tokens),
            grouped(txn.writes),
            txn.resolution.to_string(),
        ]);
    }
    output.table(indent, &rows)?;
    match report.in_flight.len().saturating_sub(shown) {
        0 => Ok(()),
        more => say!(output, "{:indent$}and {more} more", ""),
    }
}
