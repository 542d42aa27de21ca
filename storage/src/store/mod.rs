//! The committed store: what readers read, what commits are applied to, what moves to disk and between levels.
//!
//! Driven by the write path (`apply`, `adopt`, `rotate`), by readers (`current`, `sources`), by the checkpointer
//! (`flush`), by the threads that compact (`compact`), and by whoever writes manifests (`part`,
//! `manifest_written`).
//! 1. `apply`, `adopt` and `rotate` run in the log's append latch, never wait for the disk and cannot fail (W2, W5).
//! 2. The list of sources is replaced as a whole, and readers take it without a latch; a reader keeps the one it
//!    took.
//! 3. A run enters the list when file and directory are synced; a replaced run's file goes when a durable
//!    manifest does without it and no reader has it (S6).
//! 4. A failed flush or compaction changes nothing: the memtables and the old files stay (F7).
//!
//! Crash: a run that no durable manifest lists is an orphan, to be swept after the next open; its content
//! is still in the log, or in the runs that it was made of.

mod catalogue;
mod spares;
mod replay;
mod adopt;
mod flush;
mod compact;
mod files;
mod spills;
mod sweep;
mod scrub;
mod pin;
mod check;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;
use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use parking_lot::Mutex;
use serde::Serialize;

use crate::batch::WriteBatch;
use crate::compaction::Shape;
use crate::error::StorageError;
use crate::file_name;
use crate::manifest::{ListedRun, Manifest, OpenSpills};
use crate::memtable::{Memtable, Prepared, Preparing};
use crate::run::{Identity, Run, RunEntry};
use crate::sources::{Departure, Departures, Layer, Place, Sources};
use crate::tree::Tree;
use catalogue::Catalogue;
use spares::Spares;

pub use adopt::Adoption;
pub use check::StoreCheck;
pub use compact::{Droppable, Retry, WholeCompaction};

pub use pin::Pin;
pub use replay::{AdoptedRun, Replay};
pub use scrub::StoreScrub;

/// How a store is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreConfig {
    /// The shape that compactions keep the runs in.
    pub shape: Shape,
}

/// The list of sources as it stands, for a short while: taking it touches no memory that others write.
pub type Current = arc_swap::Guard<Arc<Sources>>;

/// The committed store of one database.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    config: StoreConfig,
    identity: Identity,
    sources: ArcSwap<Sources>,
    /// How readers tell that they have let go of a list.
    departures: Arc<Departures>,
    /// Held while the list is replaced; never while a file is read or written. Taken last.
    installing: Mutex<()>,
    preparing: Preparing,
    /// Memtables for adoptions that are prepared.
    spares: Arc<Spares>,
    /// One flush at a time.
    flushing: Mutex<()>,
    /// What is known of the files; whoever changes the list's tree holds it.
    catalogue: Mutex<Catalogue>,
    /// Raised by the flush alone, in the catalogue's latch; read by anyone.
    flushed_through: AtomicU64,
    counts: Counts,
    /// Files below this number were there before the open; those that are not needed may be swept.
    first_run: u64,
    /// Where the next scrub goes on.
    scrubbed: Mutex<ScrubPlace>,
}

/// What has been done since the open.
#[derive(Debug, Default)]
struct Counts {
    flushed_bytes: AtomicU64,
    compactions: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    failed_reads: AtomicU64,
}

/// Where a round of scrubbing goes on.
#[derive(Debug, Clone, Copy, Default)]
struct ScrubPlace {
    /// The number of the run.
    run: u64,
    block: u64,
    /// How many calls in a row got no further for a reason that may pass.
    failures: u32,
}

/// What tells whether the store keeps up with its writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What all memtables take, in bytes.
    pub memory_bytes: usize,
    /// Memtables that wait to be flushed.
    pub sealed_memtables: usize,
    /// Runs of level 0 that were flushed; those that were adopted do not count.
    pub level_0_runs: usize,
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
    /// What was adopted and is not among them, the newest first: still spills of their owners, whose commits lie
    /// above `flushed_through`.
    pub unlisted: Vec<OpenSpills>,
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
    /// Runs, adopted ones included.
    pub runs: usize,
    /// Those of them that commits have adopted and no level has yet.
    pub adopted_runs: usize,
    /// Their files' lengths together, in bytes.
    pub run_bytes: u64,
    /// Versions in runs.
    pub run_versions: u64,
    /// The levels, from level 0 down to the last that was ever used.
    pub levels: Vec<LevelStats>,
    /// Runs that were replaced and may still be read, or are still listed by the newest manifest.
    pub replaced_runs: usize,
    /// Bytes of runs that flushes wrote since the open.
    pub flushed_bytes: u64,
    /// Compactions done since the open.
    pub compactions: u64,
    /// Bytes of runs that they read.
    pub compaction_read_bytes: u64,
    /// Bytes of runs that they wrote.
    pub compaction_written_bytes: u64,
    /// Bytes by which the levels are over what they should have.
    pub compaction_debt_bytes: u64,
    /// Runs that were found damaged, and that compactions leave alone since.
    pub damaged_runs: usize,
}

impl Store {
    /// Opens the runs that `manifest`, the newest durable one, lists, and puts `replayed`, oldest first,
    /// above them: what recovery read from the log, each with an end at or above the one before and
    /// `flushed_through`. What was adopted at or below `flushed_through` is passed over: the runs have it. The commit tail must start at or above these ends: the drop horizon starts at
    /// `flushed_through`, since what earlier merges dropped below it is not known any more (W7).
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if a run is missing, swapped, of another database, or if its
    /// head or footer is damaged. Nothing on disk has changed.
    pub fn open(
        disk: Arc<dyn Disk>,
        config: StoreConfig,
        manifest: &Manifest,
        replayed: Vec<Replay>,
    ) -> Result<Self, StorageError> {
        let identity = manifest.identity();
        let mut runs = Vec::with_capacity(manifest.runs.len());
        for listed in &manifest.runs {
            let run = Run::open(&disk, identity, &listed.entry)?;
            runs.push((listed.level, Arc::new(run)));
        }
        // A run that no manifest lists has a number all the same: a new file never takes its name.
        let names = disk.list()?;
        let beyond = names
            .iter()
            .filter_map(|name| {
                file_name::run_number(name).or_else(|| file_name::spill_number(name))
            })
            .filter_map(|number| number.checked_add(1))
            .max();
        let next_run = manifest.next_run.max(beyond.unwrap_or_default());
        let listed = manifest.runs.iter().map(|run| run.entry.number).collect();
        let (stack, tail) = replay::layers(&disk, manifest, replayed)?;
        tracing::debug!(
            runs = runs.len(),
            layers = stack.layers().count(),
            tail = tail.get(),
            "store opened"
        );
        let departures = Arc::new(Departures::default());
        Ok(Self {
            disk,
            config,
            identity,
            sources: ArcSwap::from_pointee(Sources {
                active: Arc::new(Memtable::above(tail)),
                stack,
                tree: Arc::new(Tree::new(runs)),
                // Compactions of earlier lives dropped nothing above this; what they dropped below is not
                // known any more, and nobody reads there: the commit tail starts at or above it.
                drop_horizon: manifest.flushed_through,
                salt: manifest.salt,
                _departure: Departure::new(&departures),
            }),
            departures,
            installing: Mutex::new(()),
            preparing: Preparing::new(manifest.salt),
            spares: Arc::default(),
            flushing: Mutex::new(()),
            catalogue: Mutex::new(Catalogue::new(next_run, listed)),
            flushed_through: AtomicU64::new(manifest.flushed_through.get()),
            counts: Counts::default(),
            first_run: next_run,
            scrubbed: Mutex::default(),
        })
    }

    /// A number that no file ever had: for a spill.
    pub fn take_number(&self) -> u64 {
        self.catalogue.lock().take_number()
    }

    /// Does all that can be done for a commit before it has its LSN: brings `batch` into its final shape
    /// and makes room for it. Allocates; *outside* the append latch (W2).
    pub fn prepare(&self, batch: WriteBatch) -> Prepared {
        let prepared = self.preparing.prepare(batch);
        // The promise stands before the list is taken: a rotation either sees the promise behind its new
        // list, or its list is seen here.
        fence(Ordering::SeqCst);
        let promised = self.preparing.promised();
        self.spares.make_room(promised);
        self.current().active.make_room(promised);
        prepared
    }

    /// Applies what [`Store::prepare`] made of a write set, committed at `stamp`: allocates nothing. Only in
    /// the append latch, before the commit tail moves (W2). What is left of `prepared` is for the caller to
    /// drop once it has given up the latch.
    pub fn apply_prepared(&self, prepared: &mut Prepared, stamp: Lsn) {
        if !prepared.is_empty() {
            self.current().active.apply(prepared, stamp);
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
        let sources = self.current();
        let active = &sources.active;
        if active.is_empty() {
            active.raise_floor(end);
            return false;
        }
        active.seal(end);
        let next = Arc::new(Memtable::above(end));
        next.make_room(self.preparing.promised());
        self.install(|sources| {
            let sealed = std::mem::replace(&mut sources.active, Arc::clone(&next));
            sources.stack.put(Place::new(Layer::Memtable(sealed)));
        });
        // Again, for promises made since by who saw the old list; nobody applies before this returns.
        fence(Ordering::SeqCst);
        next.make_room(self.preparing.promised());
        true
    }

    /// Puts a changed list of sources in the place of the one that stands.
    fn install(&self, change: impl FnOnce(&mut Sources)) {
        let installing = self.installing.lock();
        let mut next = Sources::clone(&self.current());
        change(&mut next);
        let before = self.sources.swap(Arc::new(next));
        drop(installing);
        // Behind the latch, which the append latch may wait for.
        drop(before);
    }

    /// What a reader reads, for a call: taken after its LSN (W5).
    pub fn current(&self) -> Current {
        self.sources.load()
    }

    /// What a reader reads, for as long as it likes: taken after its LSN (W5).
    pub fn sources(&self) -> Arc<Sources> {
        self.sources.load_full()
    }

    /// `tell` is called when a reader has let go of what [`Store::reclaim`] could not free because of it: by that
    /// reader, so it must be quick.
    pub fn tell_of_departures(&self, tell: Box<dyn Fn() + Send + Sync>) {
        self.departures.tell(tell);
    }

    /// What all memtables take, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let sources = self.current();
        sources.memtables().map(|memtable| memtable.bytes()).sum()
    }

    /// What tells whether the store keeps up with its writers.
    pub fn load(&self) -> Load {
        let sources = self.current();
        let memtables = sources.memtables();
        Load {
            memory_bytes: memtables.map(|memtable| memtable.bytes()).sum(),
            sealed_memtables: sources.sealed().count(),
            level_0_runs: sources.tree.flushed_runs(),
        }
    }

    /// What the memtable that takes commits takes, in bytes.
    pub fn active_bytes(&self) -> usize {
        self.current().active.bytes()
    }

    /// How many runs level 0 has that were flushed: what adopted ones cost holds up nobody but who reads.
    pub fn level_0_runs(&self) -> usize {
        self.current().tree.flushed_runs()
    }

    /// Every commit at or below is in the runs (S1).
    pub fn flushed_through(&self) -> Lsn {
        Lsn::new(self.flushed_through.load(Ordering::Acquire))
    }

    /// The runs of the levels, from the top: level 0 newest first, the others by row.
    pub fn runs(&self) -> Vec<RunEntry> {
        let sources = self.sources();
        sources.tree.runs().map(|run| run.entry().clone()).collect()
    }

    /// What the store holds, and has done.
    pub fn stats(&self) -> StoreStats {
        let catalogue = self.catalogue.lock();
        let sources = self.sources();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let levels = sources.tree.sizes();
        let mut stats = StoreStats {
            memtables: sources.memtables().count(),
            adopted_runs: sources.groups().map(|group| group.runs().count()).sum(),
            levels: levels
                .map(|(runs, bytes)| LevelStats { runs, bytes })
                .collect(),
            replaced_runs: catalogue.retired.runs.len(),
            flushed_bytes: count(&self.counts.flushed_bytes),
            compactions: count(&self.counts.compactions),
            compaction_read_bytes: count(&self.counts.read_bytes),
            compaction_written_bytes: count(&self.counts.written_bytes),
            compaction_debt_bytes: catalogue.picker(&sources.tree, self.config.shape).debt(),
            damaged_runs: catalogue.damaged.len(),
            ..StoreStats::default()
        };
        drop(catalogue);
        for memtable in sources.memtables() {
            stats.memory_bytes += memtable.bytes();
            stats.memory_versions += memtable.versions();
        }
        for run in sources.runs() {
            stats.runs += 1;
            stats.run_bytes += run.entry().bytes;
            stats.run_versions += run.entry().versions;
        }
        stats
    }
}

#[cfg(test)]
mod tests;
