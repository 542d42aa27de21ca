//! Writing what a compaction keeps: one run after the other.
//!
//! 1. A row's versions are all in one run, so the runs of a level share no row (W5).
//! 2. A run ends when it is long enough, or when what it covers of the next level is: the job that will
//!    take it down one day stays small.
//! 3. Every file is synced when [`Outputs::finish`] returns; their names are the caller's to sync.

use lockstone_base::disk::Disk;

use super::deeper::Covered;
use crate::error::StorageError;
use crate::run::{Identity, RunEntry, RunPlan, RunWriter};
use crate::version::VersionRef;

/// How much an output may cover of the next level, in lengths of a run.
const COVERED_RUNS_MAX: u64 = 12;

/// The runs that a compaction writes.
pub(crate) struct Outputs<'a, N> {
    disk: &'a dyn Disk,
    identity: Identity,
    run_bytes: u64,
    covered: Covered,
    /// Gives a number that was never used.
    number: N,
    writer: Option<RunWriter<'a>>,
    last_row: Vec<u8>,
    finished: Vec<RunEntry>,
    /// All numbers used, of files that failed as well.
    pub(crate) numbers: Vec<u64>,
}

impl<'a, N: FnMut() -> u64> Outputs<'a, N> {
    /// Runs of about `run_bytes` bytes.
    pub(crate) fn new(
        disk: &'a dyn Disk,
        identity: Identity,
        run_bytes: u64,
        covered: Covered,
        number: N,
    ) -> Self {
        Self {
            disk,
            identity,
            run_bytes,
            covered,
            number,
            writer: None,
            last_row: Vec::new(),
            finished: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Adds a version, which stands behind all that were added before.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`] if the version is out of order.
    pub(crate) fn add(&mut self, version: VersionRef<'_>) -> Result<(), StorageError> {
        if self.last_row != version.row {
            self.begin_row(version.row)?;
        }
        if self.writer.is_none() {
            let number = (self.number)();
            self.numbers.push(number);
            let plan = RunPlan {
                identity: self.identity,
                number,
            };
            self.writer = Some(RunWriter::new(self.disk, plan));
        }
        match &mut self.writer {
            Some(writer) => writer.add(version.row, version.stamp, version.value),
            None => Ok(()),
        }
    }

    /// Ends the run if it is long enough: only here, between two rows.
    fn begin_row(&mut self, row: &[u8]) -> Result<(), StorageError> {
        self.last_row.clear();
        self.last_row.extend_from_slice(row);
        let covered = self.covered.up_to(row);
        let written = self.writer.as_ref().map(RunWriter::bytes_so_far);
        let is_full =
            |bytes| bytes >= self.run_bytes || covered >= COVERED_RUNS_MAX * self.run_bytes;
        if written.is_some_and(is_full) {
            self.end_run()?;
        }
        if self.writer.is_none() {
            self.covered.begin();
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), StorageError> {
        if let Some(writer) = self.writer.take() {
            self.finished.extend(writer.finish()?);
        }
        Ok(())
    }

    /// Ends the last run. The runs, in row order.
    ///
    /// # Errors
    /// The disk's; files may be there in part.
    pub(crate) fn finish(&mut self) -> Result<Vec<RunEntry>, StorageError> {
        self.end_run()?;
        Ok(std::mem::take(&mut self.finished))
    }
}
