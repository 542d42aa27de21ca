//! Writing a spill: records in order, to one file or several.
//!
//! Called by whoever spills, and by merges.
//! 1. V3: a file is cut between two rows, where it has reached [`SPILL_BYTES`].
//! 2. Files and directory are synced when [`SpillWriter::finish`] returns.
//! 3. F10: where writing fails, or nobody finishes it, all its files are removed; one that cannot be has no footer,
//!    or nobody names it.
//! 4. Memory: what a run's writer takes, and 44 bytes for each owner.

use lockstone_base::TxnId;
use lockstone_base::disk::Disk;

use super::digest::Digest;
use super::record::{Effect, Record};
use super::summary::{Kind, Summary};
use crate::error::StorageError;
use crate::file_name;
use crate::run::{Identity, RunEntry, RunPlan, RunWriter};

/// A file is cut where it has reached this.
const SPILL_BYTES: u64 = 64 << 20;

/// What is spilled.
#[derive(Debug, Clone)]
pub struct SpillPlan {
    /// The database's.
    pub identity: Identity,
    /// What the records are.
    pub kind: Kind,
    /// Whose they are: ascending; one, unless the run is mixed.
    pub owners: Vec<TxnId>,
}

/// A spill while it is written.
pub struct SpillWriter<'a> {
    disk: &'a dyn Disk,
    plan: SpillPlan,
    /// Gives a number that no file ever had.
    number: Box<dyn FnMut() -> u64 + 'a>,
    file_bytes: u64,
    file: Option<(RunWriter<'a>, Summary)>,
    last_row: Vec<u8>,
    finished: Vec<RunEntry>,
    /// The files made so far: to be removed, if this is not finished.
    names: Vec<String>,
}

impl<'a> SpillWriter<'a> {
    /// A writer that takes the numbers of its files from `number`. There is no file before the first record.
    pub fn new(disk: &'a dyn Disk, plan: SpillPlan, number: impl FnMut() -> u64 + 'a) -> Self {
        Self::cut_at(disk, plan, SPILL_BYTES, number)
    }

    pub(crate) fn cut_at(
        disk: &'a dyn Disk,
        plan: SpillPlan,
        file_bytes: u64,
        number: impl FnMut() -> u64 + 'a,
    ) -> Self {
        assert!(
            plan.owners.is_sorted_by(|a, b| a < b)
                && (plan.owners.len() == 1 || plan.kind == Kind::Mixed && !plan.owners.is_empty()),
            "V2: a lock run and a write run are one transaction's"
        );
        Self {
            disk,
            plan,
            number: Box::new(number),
            file_bytes,
            file: None,
            last_row: Vec::new(),
            finished: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Adds a record. Rows ascend; of a row the last owner comes first, and of an owner the newest sub-transaction.
    ///
    /// # Errors
    /// The disk's; the spill is over then. [`StorageError::Corrupt`] if the record is out of order.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), StorageError> {
        let is_lock = record.effect == Effect::Lock;
        assert!(
            self.plan.kind == Kind::Mixed || is_lock == (self.plan.kind == Kind::Lock),
            "V2: a lock run holds locks, a write run writes"
        );
        let owner = self.plan.owners.binary_search(&record.owner);
        let owner = owner.expect("V2: a spill's owners are known before its records");
        if self.last_row != record.row {
            self.begin_row(record.row)?;
        }
        let (writer, summary) = self.file.get_or_insert_with(|| {
            let plan = RunPlan {
                identity: self.plan.identity,
                number: (self.number)(),
            };
            self.names.push(file_name::spill(plan.number));
            let summary = Summary::new(self.plan.kind, &self.plan.owners);
            (RunWriter::spill(self.disk, plan), summary)
        });
        writer.add_marked(record.version(owner), Some(record.mark()))?;
        let digest = Digest::of(self.plan.identity.salt, record);
        summary.count(owner, record, digest);
        Ok(())
    }

    /// Whose records it is for, and which.
    pub(super) fn sole_owner(&self) -> (TxnId, Kind) {
        match self.plan.owners.as_slice() {
            [owner] => (*owner, self.plan.kind),
            _ => panic!("V3: spills of one transaction are merged"),
        }
    }

    /// Ends the file if it is long enough: only here, between two rows.
    fn begin_row(&mut self, row: &[u8]) -> Result<(), StorageError> {
        self.last_row.clear();
        self.last_row.extend_from_slice(row);
        let bytes = self.file.as_ref().map(|(writer, _)| writer.bytes_so_far());
        if bytes.is_some_and(|bytes| bytes >= self.file_bytes) {
            self.end_file()?;
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), StorageError> {
        if let Some((writer, summary)) = self.file.take() {
            self.finished.extend(writer.finish_with(&summary.encode())?);
        }
        Ok(())
    }

    /// Writes what is left and makes it durable. The files, in row order: none if there was no record.
    ///
    /// # Errors
    /// The disk's; nothing of the spill is left then.
    pub fn finish(mut self) -> Result<Vec<RunEntry>, StorageError> {
        self.end_file()?;
        if !self.finished.is_empty() {
            self.disk.sync_dir()?;
        }
        self.names.clear();
        Ok(std::mem::take(&mut self.finished))
    }
}

impl Drop for SpillWriter<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            // Only tidiness: what stays is swept after the next open.
            self.disk.remove(name).ok();
        }
    }
}

impl std::fmt::Debug for SpillWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillWriter")
            .field("plan", &self.plan)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
