//! Removing what a crash left behind: files that nothing needs (S6).
//!
//! Called once after open, with the names that the directory had at open.
//! 1. A run is needed if the list of sources has it, adopted or in a level, or if it was replaced and its file is still to be removed:
//!    a durable manifest or a reader has it.
//! 2. A spill that was not adopted is needed if who has read manifest and log says so; see `manifest::need`.
//! 3. Files made since the open are never swept, whoever gives their names.

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;

use super::Store;
use crate::error::StorageError;
use crate::file_name::{self, TEMPORARY};

impl Store {
    /// Those of `names`, the directory's list taken at open, that nothing needs: runs that are not listed,
    /// and files under temporary names.
    pub fn orphans(&self, names: &[String]) -> Vec<String> {
        let needed = self.known();
        let orphan = |name: &&String| match file_name::run_number(name) {
            Some(number) => number < self.first_run && !needed.contains(&number),
            None => unfinished(name),
        };
        names.iter().filter(orphan).cloned().collect()
    }

    /// Those of `names`, the directory's list taken at open, that are spills which nothing needs: neither what was
    /// read of manifest and log, which says so in `needed`, nor a reader of one that was adopted (S6).
    pub fn orphan_spills(&self, names: &[String], needed: &BTreeSet<u64>) -> Vec<String> {
        let known = self.known();
        let is_orphan = |name: &&String| {
            file_name::spill_number(name).is_some_and(|number| {
                number < self.first_run && !needed.contains(&number) && !known.contains(&number)
            })
        };
        names.iter().filter(is_orphan).cloned().collect()
    }

    /// Removes the [`orphan_spills`](Store::orphan_spills) among `names`; how many it was.
    ///
    /// # Errors
    /// As [`Store::sweep`].
    pub fn sweep_spills(
        &self,
        names: &[String],
        needed: &BTreeSet<u64>,
    ) -> Result<usize, StorageError> {
        self.remove_all(&self.orphan_spills(names, needed))
    }

    /// The runs that a manifest or a reader has, and those whose files are still to be removed.
    fn known(&self) -> HashSet<u64> {
        let catalogue = self.catalogue.lock();
        let mut known: HashSet<u64> = catalogue.listed.clone();
        let replaced = catalogue.retired.runs.iter();
        known.extend(replaced.map(|run| run.entry().number));
        known.extend(catalogue.retired.files.keys());
        known.extend(self.current().runs().map(|run| run.entry().number));
        known
    }

    /// Removes the [`orphans`](Store::orphans) among `names`; how many it was.
    ///
    /// # Errors
    /// The disk's. What stays does no harm; the next open finds it again.
    pub fn sweep(&self, names: &[String]) -> Result<usize, StorageError> {
        self.remove_all(&self.orphans(names))
    }

    fn remove_all(&self, names: &[String]) -> Result<usize, StorageError> {
        for name in names {
            match self.disk.remove(name) {
                // A manifest written since the open has taken the name of an unfinished one, and left it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(names.len())
    }
}

/// Whether `name` is an unfinished file of the store. Other parts of the engine may keep temporary files of
/// their own.
fn unfinished(name: &str) -> bool {
    name.strip_suffix(TEMPORARY)
        .is_some_and(|name| file_name::manifest_generation(name).is_some())
}
