//! Runs held still for a copy of the store: a backup.
//!
//! 1. S8: as long as the pin lives none of its runs' files goes, whatever compactions make of them (S6).
//! 2. S1: every commit at or below `flushed_through` is in the runs, none above: a flush changes both in one hold of
//!    the catalogue's latch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, OpenMode};

use super::Store;
use crate::error::StorageError;
use crate::manifest::ListedRun;
use crate::sources::Sources;

/// The runs of one moment, held until this is dropped.
#[derive(Debug)]
pub struct Pin {
    /// Every commit at or below is in the runs, none above.
    pub flushed_through: Lsn,
    /// A number above every run's.
    pub next_run: u64,
    /// The runs, as a manifest lists them.
    pub runs: Vec<ListedRun>,
    _sources: Arc<Sources>,
}

/// How much is copied at once.
const PIECE_BYTES: usize = 1 << 20;

impl Store {
    /// Holds the runs that there are now.
    pub fn pin(&self) -> Pin {
        let _one_moment = self.catalogue.lock();
        let sources = self.sources();
        let runs: Vec<_> = sources.tree.listed().collect();
        let highest = runs.iter().map(|run| run.entry.number).max();
        Pin {
            flushed_through: self.flushed_through(),
            next_run: highest.unwrap_or_default() + 1,
            runs,
            _sources: sources,
        }
    }
}

impl Pin {
    /// Gives every run a name in the directory `to`, durably but for the names: by a link where the two
    /// directories can share files, else by a copy. `from` is the store's directory. Whether all of them have one:
    /// `stop` ends it between two pieces.
    ///
    /// # Errors
    /// The disk's. What was done stays.
    pub fn copy(
        &self,
        from: &dyn Disk,
        to: &dyn Disk,
        stop: &AtomicBool,
    ) -> Result<bool, StorageError> {
        for run in &self.runs {
            let name = run.entry.file_name();
            if stop.load(Ordering::Acquire)
                || !to.link_from(from, &name)? && !copy_file(from, to, &name, stop)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn copy_file(
    from: &dyn Disk,
    to: &dyn Disk,
    name: &str,
    stop: &AtomicBool,
) -> Result<bool, StorageError> {
    let source = from.open(name, OpenMode::Read)?;
    let copy = to.open(name, OpenMode::CreateNew)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let read = source.read_at(at, &mut piece)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        if stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        copy.write_at(at, bytes)?;
        at += read as u64;
    }
    copy.sync()?;
    Ok(true)
}
