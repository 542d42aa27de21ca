//! Compactions as the store runs them: picked in its latch, run without it, installed in it.
//!
//! Called by the threads that compact, and by the checkpoint where there are none.
//! 1. S2: a job takes only runs that the newest durable manifest lists; so every older memtable is flushed.
//! 2. W7: the drop horizon is raised in the list before a job drops its first version.
//! 3. A flush never waits for a compaction, nor does a reader; jobs that take other runs run beside it.
//! 4. What a job takes is free again when it ends, by a panic too.
//! 5. A failed or cancelled job changes nothing (F7, F10). A run that it could not read is left alone,
//!    so that no job fails on it again and again (F11), until somebody asks for it to be tried again, or a scrub has
//!    found it intact.
//!
//! Crash: before the manifest the outputs are orphans, and the inputs are still listed and there.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstone_base::{Lsn, TableId};

use super::Store;
use crate::compaction::{Action, Job, Keep, Outputs, Stop, Stoppable};
use crate::error::StorageError;
use crate::file_name;
use crate::manifest::LEVEL_MAX;
use crate::merge::Merge;
use crate::run::{Origin, Run, RunEntry};
use crate::walk::Walker;

/// What a compaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim {
    /// Whatever is most urgent, if anything is due.
    Due,
    /// To take a level down, or to rewrite the deepest one where it has tombstones or old versions: of runs
    /// with a number below `below`.
    Level { level: u8, below: u64 },
}

/// A compaction of everything, level by level from the top, as far as it has come.
#[derive(Debug)]
pub struct WholeCompaction {
    /// Runs of the deepest level that were made since need not be rewritten.
    begun: u64,
    level: u8,
    /// Runs that came into the level since this compaction reached it are not its business.
    below: u64,
}

/// What a compaction may drop.
#[derive(Debug, Clone, Default)]
pub struct Droppable {
    /// Versions that nobody at or above it can see: at or below every registered snapshot and what a new
    /// snapshot would get (W7).
    pub horizon: Lsn,
    /// The rows of these tables: dropped, and seen by nobody at or above the horizon (S7).
    pub tables: Vec<TableId>,
}

/// Why a merge failed.
struct Failure {
    error: StorageError,
    blame: Blame,
}

/// Whom the failure of a merge is laid to.
#[derive(Debug, Clone, Copy)]
enum Blame {
    /// An input that could not be read.
    Input,
    /// What was to be written next: if it is out of order, the inputs contradict each other.
    Order,
    /// What was written.
    Output,
}

impl Blame {
    fn of(self) -> impl Fn(StorageError) -> Failure {
        move |error| Failure { error, blame: self }
    }
}

/// A job that has begun: what it takes is kept from others until this goes.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    store: &'a Store,
    job: Job,
}

impl std::ops::Deref for Begun<'_> {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.store.catalogue.lock().taken.end(&self.job);
    }
}

/// Damaged runs may be tried once more while this is kept.
#[derive(Debug)]
pub struct Retry<'a>(&'a Store);

impl Retry<'_> {
    /// What is wrong with the runs that were tried and failed, or were found meanwhile.
    pub fn failed(&self) -> Vec<StorageError> {
        let catalogue = self.0.catalogue.lock();
        let damaged = catalogue.damaged.iter();
        let failed = damaged.filter(|(number, _)| !catalogue.retried.contains(number));
        failed.map(|(_, error)| error.clone()).collect()
    }
}

impl Drop for Retry<'_> {
    fn drop(&mut self) {
        self.0.catalogue.lock().retried.clear();
    }
}

impl Store {
    /// Runs the most urgent compaction, if one is due; whether it did. What it made counts once a manifest
    /// lists it.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if a block of a run is damaged. The old runs stay in use.
    pub fn compact(&self, droppable: &Droppable, stop: &AtomicBool) -> Result<bool, StorageError> {
        self.compact_for(Aim::Due, droppable, stop)
    }

    /// A compaction of everything that the newest manifest lists.
    pub fn whole_compaction(&self) -> WholeCompaction {
        let below = self.catalogue.lock().next_run;
        WholeCompaction {
            begun: below,
            level: 0,
            below,
        }
    }

    /// Runs one more compaction of `whole`, if there is one left to run; whether it did. A manifest must list
    /// what it made before the next one. No other compaction may run beside it.
    ///
    /// # Errors
    /// As [`Store::compact`].
    pub fn compact_whole(
        &self,
        whole: &mut WholeCompaction,
        droppable: &Droppable,
        stop: &AtomicBool,
    ) -> Result<bool, StorageError> {
        while whole.level <= LEVEL_MAX {
            let (level, below) = (whole.level, whole.below);
            if self.compact_for(Aim::Level { level, below }, droppable, stop)? {
                return Ok(true);
            }
            whole.level += 1;
            whole.below = if whole.level < LEVEL_MAX {
                self.catalogue.lock().next_run
            } else {
                whole.begun
            };
        }
        Ok(false)
    }

    pub(super) fn compact_for(
        &self,
        aim: Aim,
        droppable: &Droppable,
        stop: &AtomicBool,
    ) -> Result<bool, StorageError> {
        let Some(job) = self.begin(aim, droppable) else {
            return Ok(false);
        };
        let made = match job.action {
            Action::Move | Action::Remove => Ok(Some(Vec::new())),
            Action::Merge => self.merge(&job, droppable, stop),
        };
        match made {
            Ok(Some(made)) => {
                self.finish(&job, droppable, &made);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(Failure { error, blame }) => {
                self.note_failure(&job, &error, blame);
                Err(error)
            }
        }
    }

    /// Lets compactions try once more what could not be read, until the answer goes. What they do not come to is as
    /// damaged afterwards as it was.
    pub fn retry_damaged(&self) -> Retry<'_> {
        let mut catalogue = self.catalogue.lock();
        catalogue.retried = catalogue.damaged.keys().copied().collect();
        catalogue.refused.clear();
        Retry(self)
    }

    /// What is wrong with the runs that compactions leave alone, one error for each.
    pub fn damage(&self) -> Vec<StorageError> {
        self.catalogue.lock().damaged.values().cloned().collect()
    }

    /// How often runs could not be read that may be tried again: it grows with each failure that is not the next
    /// compaction's too.
    pub fn failed_reads(&self) -> u64 {
        self.counts.failed_reads.load(Ordering::Relaxed)
    }

    /// Whether no row of the table, which was dropped at `at`, is left anywhere.
    pub fn is_gone(&self, table: TableId, at: Lsn) -> bool {
        let catalogue = self.catalogue.lock();
        let may_have = |run: &Arc<Run>| {
            let entry = run.entry();
            let cleaned =
                catalogue.dropped.contains(&table) && catalogue.cleaned.contains(&entry.number);
            entry.spans_table(table) && entry.oldest <= at && !cleaned
        };
        let tree = &self.current().tree;
        let mut below = (1..=LEVEL_MAX).flat_map(|level| tree.spanning(level, table));
        self.flushed_through() >= at && !tree.l0.iter().any(may_have) && !below.any(may_have)
    }

    pub(super) fn begin(&self, aim: Aim, droppable: &Droppable) -> Option<Begun<'_>> {
        let mut catalogue = self.catalogue.lock();
        catalogue.drop_tables(&droppable.tables);
        let sources = self.current();
        let picker = catalogue.picker(&sources.tree, self.config.shape);
        let job = match aim {
            Aim::Due => picker.due(),
            Aim::Level { level, below } => picker.push(level, below),
        }?;
        let listed = |run: &Arc<Run>| catalogue.listed.contains(&run.entry().number);
        assert!(
            job.inputs.iter().all(listed),
            "S2: a compaction takes listed runs only"
        );
        if job.action != Action::Move {
            let horizon = droppable.horizon;
            // W7: before the first version is dropped.
            self.install(|sources| sources.drop_horizon = sources.drop_horizon.max(horizon));
        }
        catalogue.pass_turn(&job);
        catalogue.taken.begin(&job);
        drop(catalogue);
        Some(Begun { store: self, job })
    }

    /// Writes what is kept of the inputs to new runs. `None` if it was stopped.
    fn merge(
        &self,
        job: &Job,
        droppable: &Droppable,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<Arc<Run>>>, Failure> {
        let mut outputs = Outputs::new(
            self.disk.as_ref(),
            self.identity,
            self.config.shape.run_bytes,
            job.covered(),
            || self.catalogue.lock().take_number(),
        );
        let made = self.write(job, droppable, stop, &mut outputs);
        if !matches!(made, Ok(Some(_))) {
            // Only tidiness: what stays is swept after the next open.
            let names = outputs.numbers.iter().map(|number| file_name::run(*number));
            for name in names {
                self.disk.remove(&name).ok();
            }
        }
        made
    }

    fn write(
        &self,
        job: &Job,
        droppable: &Droppable,
        stop: &AtomicBool,
        outputs: &mut Outputs<'_, impl FnMut() -> u64>,
    ) -> Result<Option<Vec<Arc<Run>>>, Failure> {
        let rules = job.rules(droppable.horizon, &droppable.tables);
        let inputs = job.inputs.iter().map(Run::walk).collect();
        let stop = Stop::new(stop);
        let merge = match job.origin() {
            Origin::Descended => Merge::newest_first(inputs),
            _ => Merge::new(inputs),
        };
        let mut kept = Keep::new(Stoppable::new(merge, &stop), rules);
        while kept.advance().map_err(Blame::Input.of())? {
            outputs.add(kept.version()).map_err(Blame::Order.of())?;
        }
        if stop.stopped.get() {
            return Ok(None);
        }
        self.made(job.origin(), outputs)
            .map(Some)
            .map_err(Blame::Output.of())
    }

    /// The runs that were written, durable and open.
    fn made(
        &self,
        origin: Origin,
        outputs: &mut Outputs<'_, impl FnMut() -> u64>,
    ) -> Result<Vec<Arc<Run>>, StorageError> {
        let mut entries = outputs.finish()?;
        for entry in &mut entries {
            entry.origin = origin.clone();
        }
        if !entries.is_empty() {
            self.disk.sync_dir()?;
        }
        let open = |entry: &RunEntry| Run::open(&self.disk, self.identity, entry).map(Arc::new);
        entries.iter().map(open).collect()
    }

    /// Puts what a job made in the place of what it took.
    fn finish(&self, job: &Job, droppable: &Droppable, made: &[Arc<Run>]) {
        let read = if job.action == Action::Merge {
            job.bytes()
        } else {
            0
        };
        let written = made.iter().map(|run| run.entry().bytes).sum();
        let gone: HashSet<u64> = job.inputs.iter().map(|run| run.entry().number).collect();
        let mut catalogue = self.catalogue.lock();
        let added = match job.action {
            Action::Move => job.inputs.as_slice(),
            Action::Merge | Action::Remove => made,
        };
        let tree = Arc::new(self.current().tree.changed(&job.inputs, added, job.to));
        self.install(|sources| sources.tree = tree);
        if job.action != Action::Move {
            catalogue.retired.runs.extend(job.inputs.iter().cloned());
        }
        let catalogue = &mut *catalogue;
        if job.action != Action::Move {
            for number in &gone {
                catalogue.forget_damage_of(*number);
            }
            catalogue.cleaned.retain(|number| !gone.contains(number));
        }
        if catalogue.dropped == droppable.tables {
            let numbers = made.iter().map(|run| run.entry().number);
            catalogue.cleaned.extend(numbers);
        }
        self.counts.compactions.fetch_add(1, Ordering::Relaxed);
        self.counts.read_bytes.fetch_add(read, Ordering::Relaxed);
        self.counts
            .written_bytes
            .fetch_add(written, Ordering::Relaxed);
        tracing::debug!(
            action = ?job.action,
            to = job.to,
            inputs = job.inputs.len(),
            outputs = made.len(),
            read,
            written,
            "compaction done"
        );
    }

    /// F11: whoever could not be read is left alone.
    fn note_failure(&self, job: &Job, error: &StorageError, blame: Blame) {
        let numbers = || job.inputs.iter().map(|run| run.entry().number);
        let path = |number: u64| {
            let run = job.inputs.iter().find(|run| run.entry().number == number);
            let name = run.map(|run| run.entry().file_name());
            self.disk.path(&name.unwrap_or_default())
        };
        let mut catalogue = self.catalogue.lock();
        match (blame, error) {
            (Blame::Input, _) => {
                let is_named = |number: &u64| error.unread() == Some(&path(*number));
                let Some(number) = numbers().find(is_named) else {
                    return;
                };
                catalogue.note_failed_read(number, error);
            }
            (Blame::Order, StorageError::Corrupt { what, .. }) => {
                // Nobody knows which of them is wrong; what was to be written of them is gone.
                for number in numbers() {
                    let of_input = StorageError::Corrupt {
                        file: path(number),
                        offset: None,
                        what: *what,
                    };
                    catalogue.note_failed_read(number, &of_input);
                }
            }
            // F7: nothing is wrong with the old files.
            _ => return,
        }
        self.counts.failed_reads.fetch_add(1, Ordering::Relaxed);
    }
}
