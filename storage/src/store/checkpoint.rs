//! Moving versions to disk: the flush of sealed memtables, the merge of runs, and what follows once a
//! manifest is durable.
//!
//! Called by the checkpointer, one job at a time; `apply`, `rotate` and readers go on beside it.
//! 1. A memtable is flushed when its end is durable, oldest first (S1).
//! 2. A merge takes only runs that the newest durable manifest lists (S2): these are the oldest ones, so
//!    nothing lies below its output.
//! 3. The drop horizon is raised in the list before a merge drops the first version (W7).
//! 4. What a list no longer names is freed here, not by the reader that happens to let go of it last.
//! 5. A replaced run's file is removed when a durable manifest no longer lists it (S6).
//!
//! Crash: before the manifest, new files are orphans and all they hold is in the log or in the old files.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;

use super::{Checkpoint, Retired, Store};
use crate::error::StorageError;
use crate::file_name;
use crate::manifest::Manifest;
use crate::memtable::Memtable;
use crate::merge::Merge;
use crate::run::{Run, RunEntry, RunPlan, RunWriter};
use crate::tree::Tree;
use crate::version::VersionRef;
use crate::walk::Walker;

impl Store {
    /// Writes the sealed memtables whose end is at or below `durable` to runs, oldest first, and puts
    /// these in their place; how many it was.
    ///
    /// A commit record starts behind its frame's header, so a frame that ends at or behind the record's
    /// LSN holds all of it: to compare LSNs is enough (S1).
    ///
    /// # Errors
    /// The disk's. Memtables flushed before the failure stay flushed; the others are as they were, and
    /// the flush may be tried again (F7).
    pub fn flush(&self, durable: Lsn) -> Result<usize, StorageError> {
        let mut checkpoint = self.checkpoint.lock();
        let mut flushed = 0;
        while let Some(memtable) = self.next_to_flush(durable) {
            self.flush_one(&mut checkpoint, &memtable)?;
            flushed += 1;
        }
        checkpoint.retired.free();
        let sources = self.sources();
        if sources.sealed().is_empty() {
            // Nothing at or below the active memtable's floor is missing from the runs, even where commits
            // that wrote nothing moved the tail since the last flush (S1).
            let floor = sources.active().floor().min(durable);
            self.raise_flushed_through(floor);
        }
        assert!(
            flushed == 0 || self.flushed_through() <= durable,
            "S1: a flush does not overtake the durable LSN"
        );
        Ok(flushed)
    }

    fn raise_flushed_through(&self, to: Lsn) {
        self.flushed_through.fetch_max(to.get(), Ordering::AcqRel);
    }

    fn next_to_flush(&self, durable: Lsn) -> Option<Arc<Memtable>> {
        let sources = self.sources();
        let oldest = sources.sealed().last()?;
        let end = oldest
            .end()
            .expect("only the first memtable of a list is not sealed");
        (end <= durable).then(|| Arc::clone(oldest))
    }

    fn flush_one(
        &self,
        checkpoint: &mut Checkpoint,
        memtable: &Arc<Memtable>,
    ) -> Result<(), StorageError> {
        let end = memtable
            .end()
            .expect("next_to_flush gives sealed memtables");
        let run = self.write_run(checkpoint, memtable.walk())?;
        self.install(|sources| {
            let oldest = sources
                .memtables
                .pop()
                .expect("the flushed memtable is still in the list");
            assert!(
                Arc::ptr_eq(&oldest, memtable),
                "S1: memtables become runs oldest first"
            );
            let mut tree = Tree::clone(&sources.tree);
            tree.l0.splice(0..0, run);
            sources.tree = Arc::new(tree);
        });
        checkpoint.retired.memtables.push(Arc::clone(memtable));
        self.raise_flushed_through(end);
        tracing::debug!(
            end = end.get(),
            versions = memtable.versions(),
            "memtable flushed"
        );
        Ok(())
    }

    /// Merges all runs that the newest durable manifest lists into one, when there are more runs than
    /// [`runs_max`](super::StoreConfig::runs_max); whether it did. Of each row it keeps the versions above
    /// `horizon` and the newest one at or below it, unless that is a tombstone.
    ///
    /// `horizon` is at or below every registered snapshot and what a new snapshot would get (W7).
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if a block of a run is damaged. The old runs stay in use, and
    /// the merge may be tried again (F7).
    pub fn merge(&self, horizon: Lsn) -> Result<bool, StorageError> {
        let mut checkpoint = self.checkpoint.lock();
        let sources = self.sources();
        let old: Vec<_> = sources
            .tree
            .l0
            .iter()
            .filter(|run| checkpoint.listed.contains(&run.entry().number))
            .cloned()
            .collect();
        if sources.tree.l0.len() <= self.config.runs_max || old.len() < 2 {
            return Ok(false);
        }
        let kept = sources.tree.l0.len() - old.len();
        assert!(
            sources
                .tree
                .l0
                .iter()
                .skip(kept)
                .zip(&old)
                .all(|(a, b)| Arc::ptr_eq(a, b)),
            "S2: the runs that a manifest lists are the oldest ones"
        );
        self.install(|sources| sources.drop_horizon = sources.drop_horizon.max(horizon));
        let inputs = old.iter().map(Run::walk).collect();
        let merged = self.write_run(&mut checkpoint, Kept::new(Merge::new(inputs), horizon))?;
        self.install(|sources| {
            let mut tree = Tree::clone(&sources.tree);
            tree.l0.truncate(kept);
            tree.l0.extend(merged);
            sources.tree = Arc::new(tree);
        });
        checkpoint
            .replaced
            .extend(old.iter().map(|run| run.entry().number));
        checkpoint.retired.runs.extend(old.iter().cloned());
        tracing::debug!(runs = old.len(), horizon = horizon.get(), "runs merged");
        Ok(true)
    }

    /// Takes note that `manifest` is durable, and removes the files of replaced runs that it does not
    /// list (S6); how many it was.
    ///
    /// # Errors
    /// The disk's. Files that stay are tried again after the next manifest; nothing else depends on it.
    pub fn manifest_written(&self, manifest: &Manifest) -> Result<usize, StorageError> {
        let mut checkpoint = self.checkpoint.lock();
        checkpoint.retired.free();
        let listed: HashSet<u64> = manifest.runs.iter().map(|run| run.entry.number).collect();
        checkpoint.listed = listed;
        let mut removed = 0;
        while let Some(number) = checkpoint.replaced.last().copied() {
            assert!(
                !checkpoint.listed.contains(&number),
                "S6: a manifest is written from the list of sources, which a replaced run has left"
            );
            match self.disk.remove(&file_name::run(number)) {
                // An earlier try was told that it failed, and had not.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => done?,
            }
            checkpoint.replaced.pop();
            removed += 1;
        }
        Ok(removed)
    }

    /// Writes a run, makes it durable with its name, and opens it. `None` if there was nothing to write.
    fn write_run(
        &self,
        checkpoint: &mut Checkpoint,
        mut versions: impl Walker,
    ) -> Result<Option<Arc<Run>>, StorageError> {
        // A number is used up even if its file fails: no file is ever written under a name twice.
        let number = checkpoint.next_run;
        checkpoint.next_run += 1;
        let disk = self.disk.as_ref();
        let plan = RunPlan {
            identity: self.identity,
            number,
        };
        let written = written(disk, plan, &mut versions).and_then(|entry| {
            let Some(entry) = entry else { return Ok(None) };
            disk.sync_dir()?;
            Ok(Some(Arc::new(Run::open(disk, self.identity, &entry)?)))
        });
        if written.is_err() {
            // Only tidiness: what stays is swept after the next open.
            disk.remove(&file_name::run(number)).ok();
        }
        written
    }
}

/// Writes all `versions` as one run. `None`, and no file, if there are none.
fn written(
    disk: &dyn Disk,
    plan: RunPlan,
    versions: &mut impl Walker,
) -> Result<Option<RunEntry>, StorageError> {
    let mut writer = RunWriter::new(disk, plan);
    while versions.advance()? {
        let version = versions.version();
        writer.add(version.row, version.stamp, version.value)?;
    }
    writer.finish()
}

impl Retired {
    /// Frees what no reader has any more. Giving back hundreds of thousands of versions, or a large map,
    /// takes milliseconds: a reader must not be the last to let go.
    pub(super) fn free(&mut self) {
        self.memtables
            .retain(|memtable| Arc::strong_count(memtable) > 1);
        self.runs.retain(|run| Arc::strong_count(run) > 1);
    }
}

/// Drops the versions that nobody at or above the horizon can see, in the oldest runs of all.
struct Kept<W> {
    versions: W,
    horizon: Lsn,
    /// The row whose newest version at or below the horizon has been met.
    settled: Option<Vec<u8>>,
}

impl<W> Kept<W> {
    fn new(versions: W, horizon: Lsn) -> Self {
        Self {
            versions,
            horizon,
            settled: None,
        }
    }
}

impl<W: Walker> Walker for Kept<W> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        while self.versions.advance()? {
            let version = self.versions.version();
            if version.stamp > self.horizon {
                return Ok(true);
            }
            if self.settled.as_deref() == Some(version.row) {
                continue;
            }
            let settled = self.settled.get_or_insert_default();
            settled.clear();
            settled.extend_from_slice(version.row);
            if version.value.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn version(&self) -> VersionRef<'_> {
        self.versions.version()
    }
}
