//! The demo's figures over all rounds: the one JSON object, and the last lines for people.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstone::RecoveryReport;
use serde::Serialize;

use super::verdict::Verdict;
use crate::failure::Result;
use crate::output::{Output, count, grouped, say};

/// What all rounds came to. Its fields are the JSON that programs read.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) ok: bool,
    pub(crate) dir: PathBuf,
    /// Whether the directory is still there.
    pub(crate) dir_kept: bool,
    pub(crate) rounds: u64,
    /// More than rounds: some kills hit a process that still recovers from the one before.
    pub(crate) kills: u64,
    /// Kills that came before the process was at work.
    pub(crate) kills_while_starting: u64,
    /// Commits that were acknowledged before a kill.
    pub(crate) acked: u64,
    /// Commits found at the last look, out of those that had to be there.
    pub(crate) committed_found: u64,
    /// Commits that were acknowledged and were not found.
    pub(crate) lost: u64,
    /// Rolled-back transfers that were found.
    pub(crate) resurrected: u64,
    /// Commits that were under way at a kill, and were found.
    pub(crate) unacknowledged_found: u64,
    pub(crate) leaked_locks: u64,
    /// Transactions that the recovery reports list as in flight.
    pub(crate) in_flight: u64,
    /// The row locks that these had.
    pub(crate) locks_in_flight: u64,
    /// The time of each recovery, in microseconds, as the reports say.
    pub(crate) recovery_us: Vec<u64>,
    /// The log read by each recovery, in bytes.
    pub(crate) recovery_log_bytes: Vec<u64>,
    pub(crate) deadlocks: u64,
    pub(crate) checkpoints: u64,
    pub(crate) sum_ok: bool,
    /// Everything that did not hold.
    pub(crate) failures: Vec<String>,
}

impl Summary {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            ok: true,
            dir: dir.to_owned(),
            dir_kept: true,
            rounds: 0,
            kills: 0,
            kills_while_starting: 0,
            acked: 0,
            committed_found: 0,
            lost: 0,
            resurrected: 0,
            unacknowledged_found: 0,
            leaked_locks: 0,
            in_flight: 0,
            locks_in_flight: 0,
            recovery_us: Vec::new(),
            recovery_log_bytes: Vec::new(),
            deadlocks: 0,
            checkpoints: 0,
            sum_ok: true,
            failures: Vec::new(),
        }
    }

    /// Adds a round that has been verified.
    pub(crate) fn add(&mut self, report: &RecoveryReport, verdict: &Verdict) {
        self.rounds += 1;
        self.ok &= verdict.is_good();
        self.committed_found = verdict.committed_found + verdict.unacknowledged_found;
        self.lost += verdict.lost;
        self.resurrected += verdict.resurrected;
        self.unacknowledged_found += verdict.unacknowledged_found;
        self.leaked_locks += verdict.leaked_locks;
        self.in_flight += report.in_flight.len() as u64;
        self.locks_in_flight += report.locks_in_flight();
        self.recovery_us.push(report.total.as_micros() as u64);
        self.recovery_log_bytes.push(report.log_bytes);
        self.sum_ok &= verdict.sum_ok;
        let round = self.rounds;
        let failed = verdict.checks.iter().filter(|check| check.failed.is_some());
        self.failures
            .extend(failed.map(|check| format!("round {round}: {check}")));
    }

    pub(crate) fn print(&self, output: &mut Output) -> Result {
        let slowest = self.recovery_us.iter().max().copied().unwrap_or_default();
        say!(
            output,
            "\n{}, {}: {} acknowledged, {} lost; {} in flight with {}, {} left; slowest recovery {:.1?}",
            count(self.rounds, "round"),
            count(self.kills, "kill"),
            count(self.acked, "commit"),
            grouped(self.lost),
            count(self.in_flight, "transaction"),
            count(self.locks_in_flight, "row lock"),
            grouped(self.leaked_locks),
            Duration::from_micros(slowest),
        )
    }
}
