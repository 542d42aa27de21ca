//! Removing what a crash left behind: files that nothing needs (S6).
//!
//! Called once after open, with the names that the directory had at open.
//! 1. A run is needed if the list of sources has it, or if it was replaced and its file is still to be removed:
//!    a durable manifest or a reader has it.
//! 2. Files made since the open are never swept, whoever gives their names.

use std::collections::HashSet;
use std::io::ErrorKind;

use super::Store;
use crate::error::StorageError;
use crate::file_name::{self, TEMPORARY};

impl Store {
    /// Those of `names`, the directory's list taken at open, that nothing needs: runs that are not listed,
    /// and files under temporary names.
    pub fn orphans(&self, names: &[String]) -> Vec<String> {
        let catalogue = self.catalogue.lock();
        let mut needed: HashSet<u64> = catalogue.listed.clone();
        let replaced = catalogue.retired.runs.iter();
        needed.extend(replaced.map(|run| run.entry().number));
        needed.extend(&catalogue.retired.files);
        needed.extend(self.current().tree.runs().map(|run| run.entry().number));
        let orphan = |name: &&String| match file_name::run_number(name) {
            Some(number) => number < self.first_run && !needed.contains(&number),
            None => unfinished(name),
        };
        names.iter().filter(orphan).cloned().collect()
    }

    /// Removes the [`orphans`](Store::orphans) among `names`; how many it was.
    ///
    /// # Errors
    /// The disk's. What stays does no harm; the next open finds it again.
    pub fn sweep(&self, names: &[String]) -> Result<usize, StorageError> {
        let orphans = self.orphans(names);
        for name in &orphans {
            match self.disk.remove(name) {
                // A manifest written since the open has taken the name of an unfinished one, and left it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(orphans.len())
    }
}

/// Whether `name` is an unfinished file of the store. Other parts of the engine may keep temporary files of
/// their own.
fn unfinished(name: &str) -> bool {
    name.strip_suffix(TEMPORARY)
        .is_some_and(|name| file_name::manifest_generation(name).is_some())
}
