//! The manifest: the committed store's state at one LSN, and where recovery starts to read the log.
//!
//! Written by the checkpoint and by every open; read once, when a directory is opened.
//! 1. Every commit at or below `flushed_through` is in the listed runs, none above; `flushed_through` is at
//!    most the durable LSN, which is recorded (S1).
//! 2. It is written under a temporary name, synced, renamed, and the directory synced (S5).
//! 3. A manifest under its final name that fails its checks is damage: there is no fallback to an older
//!    one (S5). The previous one is kept, for salvage only.
//!
//! Crash: either the old or the new manifest is in force, whole; a temporary file may be left behind.

mod spills;
mod state;
mod need;
mod run_format;
mod spill_format;
mod format;

use std::io::ErrorKind;

use lockstone_base::disk::{Disk, DiskError, DiskOp, OpenMode};

use crate::error::{Damage, Section, StorageError};
use crate::file_name::{self, TEMPORARY};
use format::Refusal;

pub use need::LoggedSpill;
pub use spills::{OpenSpills, SpillEntry, SpillPart, UnfinishedTxn};
pub use state::{DroppedTable, LEVEL_MAX, ListedRun, Manifest, TableEntry};

/// The longest manifest: thirty thousand runs between the longest keys, a million between short ones. None that is
/// longer is written, so a file that claims more is damaged, and is not given the memory (F23).
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

impl Manifest {
    /// Its bytes on disk.
    pub fn encode(&self) -> Vec<u8> {
        format::encode(self)
    }

    /// The manifest whose bytes, read from the file `name`, are `bytes`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] and [`StorageError::NewerVersion`].
    pub fn decode(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<Self, StorageError> {
        format::decode(bytes).map_err(|refusal| match refusal {
            Refusal::Damaged(what) => corrupt(disk, name, what),
            Refusal::NewerVersion(found) => StorageError::NewerVersion {
                file: disk.path(name),
                found,
                supported: format::VERSION,
            },
        })
    }

    /// The newest manifest of a directory; `None` if there has never been one.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if the newest one is damaged: an older one is never taken in
    /// its place (S5).
    pub fn read_newest(disk: &dyn Disk) -> Result<Option<Self>, StorageError> {
        let names = disk.list()?;
        let newest = generations(&names).max();
        newest
            .map(|generation| Self::read(disk, generation))
            .transpose()
    }

    /// Every manifest of a directory, the newest first: for salvage alone.
    ///
    /// # Errors
    /// The directory cannot be listed. What is wrong with a manifest stands in its place.
    pub fn read_all(disk: &dyn Disk) -> Result<Vec<Result<Self, StorageError>>, StorageError> {
        let names = disk.list()?;
        let mut generations: Vec<_> = generations(&names).collect();
        generations.sort_unstable_by(|a, b| b.cmp(a));
        let read = |generation| Self::read(disk, generation);
        Ok(generations.into_iter().map(read).collect())
    }

    fn read(disk: &dyn Disk, generation: u64) -> Result<Self, StorageError> {
        let name = file_name::manifest(generation);
        let file = disk.open(&name, OpenMode::Read)?;
        let found = file.len()?;
        if found > MANIFEST_BYTES_MAX {
            let what = Damage::Length {
                found,
                expected: MANIFEST_BYTES_MAX,
            };
            return Err(corrupt(disk, &name, what));
        }
        let mut bytes = vec![0; found as usize];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        let manifest = Self::decode(disk, &name, &bytes)?;
        if manifest.generation != generation {
            return Err(corrupt(disk, &name, Damage::Swapped));
        }
        Ok(manifest)
    }

    /// That something of it makes no sense to who knows what it means.
    pub fn malformed(&self, disk: &dyn Disk, what: &'static str) -> StorageError {
        let name = file_name::manifest(self.generation);
        corrupt(disk, &name, Damage::malformed(Section::Manifest, what))
    }

    /// Makes this manifest the newest one. When it returns, it is durable, the one before it is kept, and
    /// older ones are gone.
    ///
    /// # Errors
    /// The disk's, of kind `FileTooLarge` for one that no open would read. Up to the rename the old manifest is in force; a failure of the rename or behind it
    /// leaves open which of the two a crash would find. Both are true: the caller may go on, removes no
    /// file that either needs, and raises the generation for the next try.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        if let Some(rule) = self.broken_rule() {
            panic!("a manifest is refused before it is written: {rule}");
        }
        let name = file_name::manifest(self.generation);
        let bytes = self.encode();
        check_length(disk, &name, bytes.len() as u64, MANIFEST_BYTES_MAX)?;
        let temporary = format!("{name}{TEMPORARY}");
        let written = write_synced(disk, &temporary, &bytes);
        if written.is_err() {
            // Only tidiness: whatever stays under a temporary name is swept after the next open.
            disk.remove(&temporary).ok();
        }
        written?;
        disk.rename(&temporary, &name)?;
        disk.sync_dir()?;
        remove_older(disk, self.generation);
        tracing::debug!(
            generation = self.generation,
            flushed_through = self.flushed_through.get(),
            runs = self.runs.len(),
            "manifest written"
        );
        Ok(())
    }
}

/// What no open would read again is an error while there is another manifest in force.
fn check_length(disk: &dyn Disk, name: &str, found: u64, max: u64) -> Result<(), StorageError> {
    if found <= max {
        return Ok(());
    }
    let why =
        format!("a manifest of {found} bytes: at most {max} are possible; larger runs are fewer");
    let source = std::io::Error::new(ErrorKind::FileTooLarge, why);
    Err(DiskError::new(DiskOp::Write, &disk.path(name), source).into())
}

fn write_synced(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let file = match disk.open(name, OpenMode::CreateNew) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // A crash left an unfinished manifest of the same generation.
            disk.remove(name)?;
            disk.open(name, OpenMode::CreateNew)
        }
        opened => opened,
    }?;
    file.write_at(0, bytes)?;
    file.sync()?;
    Ok(())
}

/// Removes all manifests but the two newest. A failure leaves a file too many, which the next manifest
/// tries to remove again.
fn remove_older(disk: &dyn Disk, newest: u64) {
    let names = disk.list().unwrap_or_default();
    let previous = generations(&names)
        .filter(|generation| *generation < newest)
        .max();
    for old in generations(&names).filter(|generation| Some(*generation) < previous) {
        if let Err(error) = disk.remove(&file_name::manifest(old)) {
            tracing::warn!(%error, "an old manifest stays");
        }
    }
}

fn generations(names: &[String]) -> impl Iterator<Item = u64> {
    names
        .iter()
        .filter_map(|name| file_name::manifest_generation(name))
}

fn corrupt(disk: &dyn Disk, name: &str, what: Damage) -> StorageError {
    StorageError::Corrupt {
        file: disk.path(name),
        offset: None,
        what,
    }
}

#[cfg(test)]
mod tests;
