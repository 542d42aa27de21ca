//! Stopping a compaction between two versions that it reads.
//!
//! Stands between the merge of a job's inputs and what decides which versions are kept: a job that keeps none of
//! a million versions is stopped as soon as any other.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::StorageError;
use crate::version::VersionRef;
use crate::walk::Walker;

/// How many versions are read between two looks at the flag.
const VERSIONS_BETWEEN_LOOKS: u32 = 1024;

/// The flag that stops a job, and whether it did.
#[derive(Debug)]
pub(crate) struct Stop<'a> {
    flag: &'a AtomicBool,
    pub(crate) stopped: Cell<bool>,
}

impl<'a> Stop<'a> {
    pub(crate) fn new(flag: &'a AtomicBool) -> Self {
        Self {
            flag,
            stopped: Cell::new(false),
        }
    }
}

/// The versions of `W`, until the flag is raised.
pub(crate) struct Stoppable<'a, W> {
    versions: W,
    stop: &'a Stop<'a>,
    until_look: u32,
}

impl<'a, W> Stoppable<'a, W> {
    pub(crate) fn new(versions: W, stop: &'a Stop<'a>) -> Self {
        Self {
            versions,
            stop,
            until_look: 0,
        }
    }
}

impl<W: Walker> Walker for Stoppable<'_, W> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        if self.until_look == 0 {
            if self.stop.flag.load(Ordering::Relaxed) {
                self.stop.stopped.set(true);
                return Ok(false);
            }
            self.until_look = VERSIONS_BETWEEN_LOOKS;
        }
        self.until_look -= 1;
        self.versions.advance()
    }

    fn version(&self) -> VersionRef<'_> {
        self.versions.version()
    }
}
