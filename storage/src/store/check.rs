//! Checking the whole store: every block of every run, the levels, the files.
//!
//! Called for `Database::check` and by the inspection of a directory.
//! 1. Read-only; all that is found is told.

use std::collections::HashSet;

use super::Store;
use crate::error::{Damage, StorageError};

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
    /// Runs in the directory that neither the list of sources nor the newest manifest has, nor any reader: left
    /// by a crash, and swept after the next open.
    pub orphans: Vec<String>,
    /// What is wrong. Empty: nothing.
    pub findings: Vec<StorageError>,
}

impl Store {
    /// Reads every block of every run from the disk: checksums, order, agreement of blocks, index, filter
    /// and footer; and looks for every run in the directory. That the levels are in order was checked when
    /// the list was made. Tells `progress`, behind each run, how many bytes of how many have been read.
    /// Changes nothing.
    ///
    /// # Errors
    /// The directory cannot be listed. Everything else is among the findings.
    pub fn check(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<StoreCheck, StorageError> {
        let sources = self.sources();
        let names: HashSet<String> = self.disk.list()?.into_iter().collect();
        let total = sources.runs().map(|run| run.entry().bytes).sum();
        let mut check = StoreCheck::default();
        let mut done = 0;
        progress(done, total);
        for run in sources.runs() {
            let name = run.entry().file_name();
            if !names.contains(&name) {
                check.findings.push(StorageError::Corrupt {
                    file: self.disk.path(&name),
                    offset: None,
                    what: Damage::Missing,
                });
            }
            let found = run.check();
            check.runs += 1;
            check.blocks += found.blocks;
            check.versions += found.versions;
            check.findings.extend(found.findings);
            done += run.entry().bytes;
            progress(done, total);
        }
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort();
        check.orphans = self.orphans(&names);
        Ok(check)
    }
}
