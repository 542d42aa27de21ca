//! The flush: sealed memtables become runs of level 0.
//!
//! Called by the checkpointer; `apply`, `rotate`, readers and compactions go on beside it.
//! 1. A memtable is flushed when its end is durable, oldest first (S1).
//! 2. A run enters the list when file and directory are synced.
//! 3. S1: what was adopted below a memtable enters level 0 with its run, in one step, for that may have the rest of the
//!    commit; where there is nothing above it, as soon as a rotation has passed it.
//!
//! Crash: before the manifest the new files are orphans, and all they hold is in the log; what was adopted it names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lockstone_base::Lsn;

use super::Store;
use crate::error::StorageError;
use crate::file_name;
use crate::memtable::Memtable;
use crate::run::{Run, RunPlan, RunWriter};
use crate::sources::Layer;
use crate::walk::Walker;

impl Store {
    /// Writes the sealed memtables whose end is at or below `durable` to runs, oldest first, and puts
    /// these in their place; how many it was. Whoever has rotated at `durable` finds it flushed then, whatever was committed
    /// and adopted since.
    ///
    /// A commit record starts behind its frame's header, so a frame that ends at or behind the record's
    /// LSN holds all of it: to compare LSNs is enough (S1).
    ///
    /// # Errors
    /// The disk's. Memtables flushed before the failure stay flushed; the others are as they were, and
    /// the flush may be tried again (F7).
    pub fn flush(&self, durable: Lsn) -> Result<usize, StorageError> {
        let _one_at_a_time = self.flushing.lock();
        let mut flushed = 0;
        while let Some(memtable) = self.next_to_flush(durable) {
            self.flush_one(&memtable)?;
            flushed += 1;
        }
        self.settle(durable);
        if let Err(error) = self.reclaim() {
            tracing::warn!(%error, "replaced runs stay for now");
        }
        assert!(
            flushed == 0 || self.flushed_through() <= durable,
            "S1: a flush does not overtake the durable LSN"
        );
        Ok(flushed)
    }

    /// What lies at or below the oldest memtable's floor is in the runs, once what was adopted is, even where commits that
    /// wrote nothing moved the tail since the last flush (S1), and others have adopted meanwhile and sealed what may not be
    /// flushed yet.
    fn settle(&self, durable: Lsn) {
        let _one_moment = self.catalogue.lock();
        let sources = self.current();
        let oldest = sources.memtables().last();
        let floor = oldest.map_or(Lsn::ZERO, |oldest| oldest.floor().min(durable));
        if sources.groups().any(|group| group.stamp() <= floor) {
            self.install_flushed(None, |layer| layer.newest() <= floor);
        }
        self.raise_flushed_through(floor);
    }

    /// Lets the layers below the newest ones, of which `is_flushed` holds, become runs of level 0: `run` what the newest of
    /// them says, which is a memtable, and all that were adopted. In the catalogue's latch.
    fn install_flushed(&self, run: Option<Arc<Run>>, is_flushed: impl Fn(&Layer) -> bool) {
        let sources = self.current();
        let layers = || {
            sources
                .stack
                .layers()
                .skip_while(|layer| !is_flushed(layer))
        };
        let adopted = layers().filter_map(|layer| match layer {
            Layer::Adopted(group) => Some(group),
            Layer::Memtable(_) | Layer::Own(_) => None,
        });
        let adopted = adopted.flat_map(|group| group.runs()).cloned();
        let tree = Arc::new(sources.tree.flushed(run.into_iter().chain(adopted)));
        let flushed = layers().count();
        assert!(
            layers()
                .filter(|layer| matches!(layer, Layer::Memtable(_)))
                .count()
                <= 1,
            "S1: memtables become runs oldest first"
        );
        self.install(|sources| {
            // Others may have come on top meanwhile.
            let kept = sources.stack.layers().count() - flushed;
            sources.stack = sources.stack.newest(kept);
            sources.tree = tree;
        });
    }

    fn raise_flushed_through(&self, to: Lsn) {
        self.flushed_through.fetch_max(to.get(), Ordering::AcqRel);
    }

    fn next_to_flush(&self, durable: Lsn) -> Option<Arc<Memtable>> {
        let sources = self.current();
        let oldest = sources.sealed().last()?;
        let end = oldest
            .end()
            .expect("only the first memtable of a list is not sealed");
        (end <= durable).then(|| Arc::clone(oldest))
    }

    fn flush_one(&self, memtable: &Arc<Memtable>) -> Result<(), StorageError> {
        let end = memtable
            .end()
            .expect("next_to_flush gives sealed memtables");
        // A number is used up even if its file fails: no file is ever written under a name twice.
        let number = self.catalogue.lock().take_number();
        let run = self.write_run(number, memtable.walk());
        if run.is_err() {
            // Only tidiness: what stays is swept after the next open.
            self.disk.remove(&file_name::run(number)).ok();
        }
        let run = run?;
        let bytes = run.as_ref().map_or(0, |run| run.entry().bytes);
        {
            let mut catalogue = self.catalogue.lock();
            self.install_flushed(run, |layer| layer.is(memtable));
            catalogue.retired.memtables.push(Arc::clone(memtable));
            self.raise_flushed_through(end);
        }
        self.counts
            .flushed_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        tracing::debug!(
            end = end.get(),
            versions = memtable.versions(),
            "memtable flushed"
        );
        Ok(())
    }

    /// Writes all versions as one run, makes it durable with its name, and opens it. `None`, and no file,
    /// if there are none.
    fn write_run(
        &self,
        number: u64,
        mut versions: impl Walker,
    ) -> Result<Option<Arc<Run>>, StorageError> {
        let disk = self.disk.as_ref();
        let plan = RunPlan {
            identity: self.identity,
            number,
        };
        let mut writer = RunWriter::new(disk, plan);
        while versions.advance()? {
            let version = versions.version();
            writer.add(version.row, version.stamp, version.value)?;
        }
        let Some(entry) = writer.finish()? else {
            return Ok(None);
        };
        disk.sync_dir()?;
        Ok(Some(Arc::new(Run::open(
            &self.disk,
            self.identity,
            &entry,
        )?)))
    }
}
