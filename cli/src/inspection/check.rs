//! `lockstone check`: reads all of a database that nobody has open, and says what does not fit.

use std::path::Path;

use lockstone::inspect::Inspection;
use lockstone::{CheckReport, RecoveryReport};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::{Output, count, say};
use crate::report;

#[derive(Debug, Serialize)]
struct Checked<'a> {
    clean: bool,
    check: &'a CheckReport,
    recovery: &'a RecoveryReport,
}

/// Reads the log and every block of every run.
pub(crate) fn check(dir: &Path, json: bool) -> Result {
    let (recovery, check) = Inspection::open(dir)?.check()?;
    let mut output = Output::pages();
    if json {
        output.json(&Checked {
            clean: check.is_clean(),
            check: &check,
            recovery: &recovery,
        })?;
    } else {
        say!(output, "recovery would find:")?;
        report::print(&mut output, &recovery, 2)?;
        say!(
            output,
            "read {}, {}, {}",
            count(check.runs, "run"),
            count(check.blocks, "block"),
            count(check.versions, "version"),
        )?;
        for orphan in &check.orphans {
            say!(
                output,
                "left by a crash, and removed by the next open: {orphan}"
            )?;
        }
        for finding in &check.findings {
            say!(output, "finding: {finding}")?;
        }
        if check.is_clean() {
            say!(output, "all is well")?;
        }
    }
    output.flush()?;
    if check.is_clean() {
        return Ok(());
    }
    let findings = count(check.findings.len(), "finding");
    Err(Failure::Found(format!("{}: {findings}", dir.display())))
}
