//! A backup: a copy of everything committed, in another directory, as a database of its own.
//!
//! Called by the database's handle.
//! 1. S8: what is copied are the runs of one moment, pinned while that lasts; writers go on. A checkpoint comes
//!    before it, so whatever was acknowledged before the call is in them. Nothing of what is open is.
//! 2. Tables and runs are of one moment too: no table comes or goes in between.
//! 3. Closing the database ends a backup, and waits for that end: the directory is free only when nobody reads there
//!    any more.
//! 4. The copy is durable, names included, when the call returns.
//!
//! Crash: without its manifest, which comes last, the copy is no database.

use std::path::Path;
use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use lockstone_recovery::backup::{Founding, found};
use lockstone_recovery::directory::{self, Content, DirectoryLock};
use lockstone_storage::{Manifest, Pin};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::opening::real_disk;
use crate::publish;

/// Copies the database into the directory `path`, which is made if it is missing.
pub(crate) fn into_directory(engine: &Engine, path: &Path) -> Result<()> {
    engine.check_serving()?;
    let disk = real_disk(path, true, engine.options.io)?;
    into_disk(engine, &disk)
}

/// Copies the database into an empty disk.
pub(crate) fn into_disk(engine: &Engine, to: &Arc<dyn Disk>) -> Result<()> {
    engine.check_serving()?;
    let not_empty = || Error::DirectoryNotEmpty { path: to.path("") };
    if !matches!(directory::content(&**to), Ok(Content::Empty)) {
        return Err(not_empty());
    }
    let _lock = DirectoryLock::exclusive(&**to, &*engine.ports.clock)?;
    // Only whoever holds the lock may believe what it sees.
    if !matches!(directory::content(&**to), Ok(Content::Empty)) {
        return Err(not_empty());
    }
    // Before the look at whether it is closed: who closes the database closes it first, and then waits for this.
    let copying = engine.copying.read();
    let copied = engine.check_serving().and_then(|()| copy(engine, to));
    drop(copying);
    if copied.is_err() {
        // Only tidiness: what stays is no database.
        for name in to.list().unwrap_or_default() {
            to.remove(&name).ok();
        }
    }
    copied
}

fn copy(engine: &Engine, to: &Arc<dyn Disk>) -> Result<()> {
    checkpoint::take(engine)?;
    let (pin, manifest) = pinned(engine);
    if !pin.copy(&*engine.ports.disk, &**to, &engine.closed)? {
        return Err(Error::Closed);
    }
    let founding = Founding {
        manifest,
        segment_bytes: engine.options.segment_bytes,
        log_from: engine.log.segments_end().max(Lsn::new(1)),
    };
    Ok(found(to, founding)?)
}

/// The runs of this moment, and the copy's manifest.
fn pinned(engine: &Engine) -> (Pin, Manifest) {
    let newest = engine.manifest.lock().clone();
    let entropy = || u128::from(engine.ports.entropy.next_u64());
    let (pin, (tables, dropped, next_table)) = publish::tables_with(engine, || engine.store.pin());
    let manifest = Manifest {
        uuid: entropy() << 64 | entropy(),
        generation: newest.generation + 1,
        flushed_through: pin.flushed_through,
        tables,
        dropped,
        next_table,
        runs: pin.runs.clone(),
        next_run: pin.next_run,
        spills: Vec::new(),
        unfinished: Vec::new(),
        ..newest
    };
    (pin, manifest)
}
