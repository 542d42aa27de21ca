//! The committed store: what readers read, what commits are applied to, what the checkpoint moves to disk.
//!
//! Driven by the write path (`apply`, `rotate`), by readers (`sources`) and by the checkpointer (`flush`,
//! `merge`, `manifest_written`).
//! 1. `apply` and `rotate` run in the log's append latch, never wait for the disk and cannot fail (W2, W5).
//! 2. The list of sources is replaced as a whole; a reader keeps the one it took. What is replaced is freed by
//!    the checkpointer.
//! 3. A run enters the list when file and directory are synced; a replaced run's file goes when a durable
//!    manifest does without it (S6).
//! 4. A failed flush or merge changes nothing: the memtables and the old files stay (F7).
//!
//! Crash: a run that no durable manifest lists is an orphan, to be swept after the next open; its content
//! is still in the log.

mod checkpoint;
mod sweep;
mod pin;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use crate::batch::WriteBatch;
use crate::error::StorageError;
use crate::file_name;
use crate::manifest::{ListedRun, Manifest};
use crate::memtable::{Memtable, Prepared, Preparing};
use crate::run::{Identity, Run, RunEntry};
use crate::sources::Sources;
use crate::tree::Tree;

pub use pin::Pin;

/// How a store is kept.
#[derive(Debug, Clone, Copy)]
pub struct StoreConfig {
    /// A merge takes place when there are more runs than this.
    pub runs_max: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { runs_max: 4 }
    }
}

/// The committed store of one database.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    config: StoreConfig,
    identity: Identity,
    sources: RwLock<Arc<Sources>>,
    preparing: Preparing,
    checkpoint: Mutex<Checkpoint>,
    /// Raised by the checkpointer alone, read by anyone.
    flushed_through: AtomicU64,
    /// Files below this number were there before the open; those that are not needed may be swept.
    first_run: u64,
}

/// What the one checkpointer knows.
#[derive(Debug)]
struct Checkpoint {
    next_run: u64,
    /// The runs that the newest durable manifest lists.
    listed: HashSet<u64>,
    /// Runs that were replaced, until a durable manifest does without them (S6).
    replaced: Vec<u64>,
    retired: Retired,
}

/// What has left the list of sources and may still be read.
#[derive(Debug, Default)]
struct Retired {
    memtables: Vec<Arc<Memtable>>,
    runs: Vec<Arc<Run>>,
}

/// The part of a manifest that the store decides, all of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePart {
    /// Every commit at or below is in `runs`, none above (S1).
    pub flushed_through: Lsn,
    /// The number of the next run.
    pub next_run: u64,
    /// The runs, as a manifest lists them.
    pub runs: Vec<ListedRun>,
}

/// What a level holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LevelStats {
    /// Its runs.
    pub runs: usize,
    /// Their files' lengths together, in bytes.
    pub bytes: u64,
}

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreStats {
    /// Memtables, the active one included.
    pub memtables: usize,
    /// What they take, in bytes.
    pub memory_bytes: usize,
    /// Versions in memtables.
    pub memory_versions: usize,
    /// Runs.
    pub runs: usize,
    /// Their files' lengths together, in bytes.
    pub run_bytes: u64,
    /// Versions in runs.
    pub run_versions: u64,
    /// The levels, from level 0 down to the last that was ever used.
    pub levels: Vec<LevelStats>,
}

/// What [`Store::check`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreCheck {
    /// Runs read.
    pub runs: usize,
    /// Blocks read and found intact.
    pub blocks: u64,
    /// Versions in intact blocks.
    pub versions: u64,
    /// What is wrong. Empty: nothing.
    pub findings: Vec<StorageError>,
}

impl Store {
    /// Opens the runs that `manifest`, the newest durable one, lists, and puts `replayed`, oldest first,
    /// above them: what recovery read from the log, each with an end at or above the one before and
    /// `flushed_through`. The commit tail must start at or above these ends: the drop horizon starts at
    /// `flushed_through`, since what earlier merges dropped below it is not known any more (W7).
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if a run is missing, swapped, of another database, or if its
    /// head, footer, index or filter is damaged. Nothing on disk has changed.
    pub fn open(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        manifest: &Manifest,
        replayed: Vec<Memtable>,
    ) -> Result<Self, StorageError> {
        let identity = Identity {
            uuid: manifest.uuid,
            salt: manifest.salt,
        };
        let mut runs = Vec::with_capacity(manifest.runs.len());
        for listed in &manifest.runs {
            let run = Run::open(disk.as_ref(), identity, &listed.entry)?;
            runs.push((listed.level, Arc::new(run)));
        }
        // A run that no manifest lists has a number all the same: a new file never takes its name.
        let names = disk.list()?;
        let beyond = names
            .iter()
            .filter_map(|name| file_name::run_number(name)?.checked_add(1))
            .max();
        let next_run = manifest.next_run.max(beyond.unwrap_or_default());
        let (memtables, tail) = stack(replayed, manifest.flushed_through, manifest.salt);
        tracing::debug!(
            runs = runs.len(),
            memtables = memtables.len(),
            tail = tail.get(),
            "store opened"
        );
        Ok(Self {
            disk,
            config,
            identity,
            sources: RwLock::new(Arc::new(Sources {
                memtables,
                tree: Arc::new(Tree::new(runs)),
                // Merges of earlier lives dropped nothing above this; what they dropped below is not
                // known any more, and nobody reads there: the commit tail starts at or above it.
                drop_horizon: manifest.flushed_through,
                salt: manifest.salt,
            })),
            preparing: Preparing::new(manifest.salt),
            checkpoint: Mutex::new(Checkpoint {
                next_run,
                listed: manifest.runs.iter().map(|run| run.entry.number).collect(),
                replaced: Vec::new(),
                retired: Retired::default(),
            }),
            flushed_through: AtomicU64::new(manifest.flushed_through.get()),
            first_run: next_run,
        })
    }

    /// Does all that can be done for a commit before it has its LSN: brings `batch` into its final shape
    /// and makes room for it. Allocates; *outside* the append latch (W2).
    pub fn prepare(&self, batch: WriteBatch) -> Prepared {
        let prepared = self.preparing.prepare(batch);
        // The promise stands before the list is taken: a rotation that comes later has seen it, and one
        // that came before is seen here.
        let active = Arc::clone(self.sources.read().active());
        active.make_room(self.preparing.promised());
        prepared
    }

    /// Applies what [`Store::prepare`] made of a write set, committed at `stamp`: allocates nothing. Only in
    /// the append latch, before the commit tail moves (W2). What is left of `prepared` is for the caller to
    /// drop once it has given up the latch.
    pub fn apply_prepared(&self, prepared: &mut Prepared, stamp: Lsn) {
        if !prepared.is_empty() {
            self.sources.read().active().apply(prepared, stamp);
        }
    }

    /// [`Store::prepare`] and [`Store::apply_prepared`] at once, for whoever does not mind that the append
    /// latch is held longer.
    pub fn apply(&self, batch: WriteBatch, stamp: Lsn) {
        let mut prepared = self.prepare(batch);
        self.apply_prepared(&mut prepared, stamp);
    }

    /// Seals the active memtable at the commit tail `end` and starts a new one; whether there was anything
    /// to seal. Only in the append latch (W5). An empty memtable stays, and the store learns that nothing
    /// at or below `end` is missing from the sources behind it.
    pub fn rotate(&self, end: Lsn) -> bool {
        // One writer, which holds the append latch: nobody else seals, raises or fills the active one.
        let active = Arc::clone(self.sources.read().active());
        if active.is_empty() {
            active.raise_floor(end);
            return false;
        }
        active.seal(end);
        let next = Arc::new(Memtable::above(end));
        next.make_room(self.preparing.promised());
        self.install(|sources| {
            // Again in the latch, for promises made since; later ones see the new list.
            next.make_room(self.preparing.promised());
            sources.memtables.insert(0, next);
        });
        true
    }

    /// Puts a changed list of sources in the place of the one that stands.
    fn install(&self, change: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.write();
        let mut next = Sources::clone(&sources);
        change(&mut next);
        let before = std::mem::replace(&mut *sources, Arc::new(next));
        drop(sources);
        // Behind the latch, which commits and readers take.
        drop(before);
    }

    /// What a reader reads: taken after its LSN (W5).
    pub fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.sources.read())
    }

    /// What all memtables take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.sources
            .read()
            .memtables
            .iter()
            .map(|memtable| memtable.bytes())
            .sum()
    }

    /// What the memtable that takes commits takes, in bytes.
    pub fn active_bytes(&self) -> usize {
        self.sources.read().active().bytes()
    }

    /// Every commit at or below is in the runs (S1).
    pub fn flushed_through(&self) -> Lsn {
        Lsn::new(self.flushed_through.load(Ordering::Acquire))
    }

    /// The store's part of the next manifest. Waits for a flush or merge under way.
    pub fn part(&self) -> StorePart {
        let mut checkpoint = self.checkpoint.lock();
        checkpoint.retired.free();
        StorePart {
            flushed_through: self.flushed_through(),
            next_run: checkpoint.next_run,
            runs: self.sources().tree.listed().collect(),
        }
    }

    /// The runs, from the top: level 0 newest first, the others by row.
    pub fn runs(&self) -> Vec<RunEntry> {
        let sources = self.sources();
        sources.tree.runs().map(|run| run.entry().clone()).collect()
    }

    /// What the store holds.
    pub fn stats(&self) -> StoreStats {
        let sources = self.sources();
        StoreStats {
            memtables: sources.memtables.len(),
            memory_bytes: sources
                .memtables
                .iter()
                .map(|memtable| memtable.bytes())
                .sum(),
            memory_versions: sources
                .memtables
                .iter()
                .map(|memtable| memtable.versions())
                .sum(),
            runs: sources.tree.runs().count(),
            run_bytes: sources.tree.runs().map(|run| run.entry().bytes).sum(),
            run_versions: sources.tree.runs().map(|run| run.entry().versions).sum(),
            levels: sources
                .tree
                .sizes()
                .map(|(runs, bytes)| LevelStats { runs, bytes })
                .collect(),
        }
    }

    /// Reads every block of every run from the disk: checksums, order, agreement of blocks, index, filter
    /// and footer. Changes nothing.
    pub fn check(&self) -> StoreCheck {
        let sources = self.sources();
        let mut check = StoreCheck {
            runs: sources.tree.runs().count(),
            ..StoreCheck::default()
        };
        for run in sources.tree.runs() {
            let found = run.check();
            check.blocks += found.blocks;
            check.versions += found.versions;
            check.findings.extend(found.findings);
        }
        check
    }
}

/// The memtables of a store that begins with `replayed`, newest first, and the tail that they reach.
fn stack(replayed: Vec<Memtable>, flushed_through: Lsn, salt: u64) -> (Vec<Arc<Memtable>>, Lsn) {
    let mut tail = flushed_through;
    let mut memtables = Vec::with_capacity(replayed.len() + 1);
    for mut memtable in replayed {
        memtable.index(salt);
        let end = memtable.end().expect("recovery seals what it replays");
        assert!(
            tail <= end,
            "W5: replayed memtables come oldest first, above what was flushed"
        );
        tail = end;
        memtables.push(Arc::new(memtable));
    }
    memtables.push(Arc::new(Memtable::above(tail)));
    memtables.reverse();
    (memtables, tail)
}

#[cfg(test)]
mod tests;
