//! What follows once a manifest is durable, and what goes when nothing needs it any more.
//!
//! Called by whoever writes manifests.
//! 1. S6: a replaced run's file is removed when a durable manifest does without it and no reader has it.
//! 2. What a list no longer names is freed here, not by the reader that happens to let go of it last.
//!
//! Crash: a file that was to be removed is an orphan, swept after the next open.

use std::io::ErrorKind;

use super::{Store, StorePart};
use crate::error::StorageError;
use crate::manifest::Manifest;

impl Store {
    /// The store's part of the next manifest, all of one moment. Waits for no flush and no compaction.
    pub fn part(&self) -> StorePart {
        let catalogue = self.catalogue.lock();
        let sources = self.current();
        StorePart {
            flushed_through: self.flushed_through(),
            next_run: catalogue.next_run,
            runs: sources.tree.listed().collect(),
            unlisted: sources
                .groups()
                .filter_map(|group| group.open())
                .cloned()
                .collect(),
        }
    }

    /// Takes note that `manifest` is durable, the newest of all, and removes the files that nothing needs any
    /// more; how many it was.
    ///
    /// # Errors
    /// The disk's. Files that stay are tried again the next time; nothing else depends on it.
    pub fn manifest_written(&self, manifest: &Manifest) -> Result<usize, StorageError> {
        let listed = manifest.runs.iter().map(|run| run.entry.number).collect();
        self.catalogue.lock().listed = listed;
        self.reclaim()
    }

    /// Frees what no reader has any more, and removes the files of replaced runs that no durable manifest
    /// lists (S6); how many it was.
    ///
    /// # Errors
    /// The disk's. Files that stay are tried again the next time.
    pub fn reclaim(&self) -> Result<usize, StorageError> {
        let (freed, files) = {
            let mut catalogue = self.catalogue.lock();
            let catalogue = &mut *catalogue;
            // Before the look: a reader that lets go behind it tells.
            self.departures.wait();
            let spills = catalogue.retired.unread_spills();
            let freed = (catalogue.retired.unread(&catalogue.listed), spills);
            if !catalogue.retired.is_read(&catalogue.listed) {
                self.departures.wait_no_more();
            }
            let files = catalogue.retired.files.clone();
            (freed, files)
        };
        drop(freed);
        for (number, name) in &files {
            match self.disk.remove(name) {
                // An earlier try was told that it failed, and had not.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
            self.catalogue.lock().retired.files.remove(number);
        }
        Ok(files.len())
    }
}
