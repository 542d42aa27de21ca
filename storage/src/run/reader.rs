//! An open run: point reads, blocks for cursors, and the first touch that makes a block trusted.
//!
//! Made by `Store`, read through the list of sources.
//! 1. Head, footer, index and filter are read with `pread` and verified when the run is opened.
//! 2. A block's first touch reads it with `pread` into memory and verifies checksum and content: a bad
//!    disk is an error, not a signal (F6). After that the map is used; what changes in memory later is
//!    not noticed until the next open.
//! 3. A damaged block is an error for its rows, at each touch, and for no others (F11).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, DiskFile, Map, OpenMode};
use zerocopy::FromBytes;

use super::block::{Block, Entry, Expected};
use super::entry::{Identity, RunEntry};
use super::filter;
use super::format::{FOOTER_BYTES, Footer, HEAD_BYTES, Head, VERSION};
use super::index::Index;
use crate::checksum::Place;
use crate::error::{Damage, Section, StorageError};
use crate::file_name;
use crate::version::Version;

/// An open run.
#[derive(Debug)]
pub(crate) struct Run {
    entry: RunEntry,
    salt: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    map: Map,
    pub(super) footer: Footer,
    pub(super) index: Index,
    pub(super) filter: Bytes,
    /// One bit for each block: whether its first touch found it intact.
    trusted: Vec<AtomicU64>,
}

impl Run {
    /// Opens the run that a manifest lists as `entry`.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] and [`StorageError::NewerVersion`].
    pub(crate) fn open(
        disk: &dyn Disk,
        identity: Identity,
        entry: &RunEntry,
    ) -> Result<Self, StorageError> {
        let name = file_name::run(entry.number);
        let path = disk.path(&name);
        let file = disk
            .open(&name, OpenMode::Read)
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => corrupt(&path, None, Damage::Missing),
                _ => error.into(),
            })?;
        let sections = Sections {
            file,
            path,
            identity,
            entry,
        };
        sections.check_head()?;
        let footer = sections.footer()?;
        let map = sections.file.map()?;
        let (filter_at, index_at) = (footer.filter_at.get(), footer.index_at.get());
        let footer_at = entry.bytes - FOOTER_BYTES as u64;
        let filter = sections.section(
            &map,
            Section::Filter,
            (filter_at, index_at),
            footer.filter_checksum.get(),
        )?;
        if !filter::is_whole(filter.len() as u64) {
            let what =
                Damage::malformed(Section::Filter, "its length is not one that filters have");
            return Err(corrupt(&sections.path, Some(filter_at), what));
        }
        let index = sections.section(
            &map,
            Section::Index,
            (index_at, footer_at),
            footer.index_checksum.get(),
        )?;
        let index = Index::new(index, &footer)
            .map_err(|what| corrupt(&sections.path, Some(index_at), what))?;
        if index.smallest() != entry.smallest || index.largest() != entry.largest {
            return Err(corrupt(&sections.path, Some(index_at), Damage::Swapped));
        }
        let trusted = (0..index.blocks().div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        let Sections { file, path, .. } = sections;
        Ok(Self {
            entry: entry.clone(),
            salt: identity.salt,
            path,
            file,
            map,
            footer,
            index,
            filter,
            trusted,
        })
    }

    /// How a manifest lists it.
    pub(crate) fn entry(&self) -> &RunEntry {
        &self.entry
    }

    /// What rows are hashed with.
    pub(super) fn salt(&self) -> u64 {
        self.salt
    }

    /// The newest version of `row`, whose [hash](crate::row_hash::row_hash) is `hash`, at or below `at`.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`], if the one block that can have it cannot be read.
    pub(crate) fn get(
        &self,
        row: &[u8],
        hash: u64,
        at: Lsn,
    ) -> Result<Option<Version>, StorageError> {
        if at < self.entry.oldest || !filter::may_contain(&self.filter, hash) {
            return Ok(None);
        }
        let spot = self.index.spot((row, at));
        if spot.block == self.index.blocks() {
            return Ok(None);
        }
        let block = self.block(spot.block)?;
        let position = block.position_near((row, at), spot.share);
        self.version_of(spot.block, &block, position, row)
    }

    /// The newest version of `row` at or below `at`, which lies in the block `number` if anywhere.
    pub(super) fn newest_in(
        &self,
        number: usize,
        row: &[u8],
        at: Lsn,
    ) -> Result<Option<Version>, StorageError> {
        let block = self.block(number)?;
        self.version_of(number, &block, block.position((row, at)), row)
    }

    /// The version at a position of the block `number`, if it is one of `row`.
    fn version_of(
        &self,
        number: usize,
        block: &Block<'_>,
        position: usize,
        row: &[u8],
    ) -> Result<Option<Version>, StorageError> {
        match block.entry(position) {
            Some(entry) if block.compare(entry.suffix, row).is_eq() => {
                self.version(number, &entry).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The block `number`, verified at its first touch.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    pub(super) fn block(&self, number: usize) -> Result<Block<'_>, StorageError> {
        let word = self.trusted.get(number / 64);
        let bit = 1 << (number % 64);
        if word.is_none_or(|word| word.load(Ordering::Relaxed) & bit == 0) {
            self.verify(number)?;
            if let Some(word) = word {
                // The bytes reached the device before the run was listed: there is nothing to order.
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        let (start, end) = self.bounds(number);
        self.map
            .get(start..end)
            .ok_or_else(|| Damage::malformed(Section::Block, "it lies outside the file"))
            .and_then(Block::new)
            .map_err(|what| self.corrupt(number, what))
    }

    /// Reads the block `number` from the disk and checks everything about it.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    pub(super) fn verify(&self, number: usize) -> Result<(), StorageError> {
        let (start, end) = self.bounds(number);
        let bytes = read(self.file.as_ref(), start as u64, end - start)?;
        self.verify_bytes(number, &bytes)
            .map_err(|what| self.corrupt(number, what))
    }

    pub(super) fn verify_bytes(&self, number: usize, bytes: &[u8]) -> Result<(), Damage> {
        let outside = Damage::malformed(Section::Block, "the index has no such block");
        let slot = self.index.slot(number).ok_or(outside)?;
        let place = Place {
            salt: self.salt,
            file: self.entry.number,
            section: Section::Block,
            number: number as u64,
        };
        Block::verify(bytes, place, slot.checksum.get())?;
        let before = number
            .checked_sub(1)
            .and_then(|before| self.index.last(before));
        Block::new(bytes)?.validate(&Expected {
            before: before.ok_or_else(|| self.index.smallest()),
            last: self.index.last(number).ok_or(outside)?,
            stamps: (self.entry.oldest, self.entry.newest),
        })
    }

    /// The version of an entry of the block `number`.
    pub(super) fn version(
        &self,
        number: usize,
        entry: &Entry<'_>,
    ) -> Result<Version, StorageError> {
        let value = match &entry.value {
            None => None,
            Some(range) => {
                let (start, _) = self.bounds(number);
                let value = self.map.slice(start + range.start, range.len());
                let outside = Damage::malformed(Section::Block, "a value lies outside the file");
                Some(value.ok_or_else(|| self.corrupt(number, outside))?)
            }
        };
        Ok(Version {
            stamp: entry.stamp,
            value,
        })
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> usize {
        self.index.blocks()
    }

    /// The run's file, for reads past the map.
    pub(super) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Where the block `number` starts and ends in the file.
    pub(super) fn bounds(&self, number: usize) -> (usize, usize) {
        let (start, end) = self.index.bounds(number);
        (start as usize, end as usize)
    }

    pub(super) fn corrupt(&self, number: usize, what: Damage) -> StorageError {
        self.corrupt_at(self.bounds(number).0 as u64, what)
    }

    pub(super) fn corrupt_at(&self, offset: u64, what: Damage) -> StorageError {
        corrupt(&self.path, Some(offset), what)
    }
}

/// A run that is being opened: what is read once, and kept.
struct Sections<'a> {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    identity: Identity,
    entry: &'a RunEntry,
}

impl Sections<'_> {
    /// Checks the file's length, and that it begins as this run of a version that is known.
    fn check_head(&self) -> Result<(), StorageError> {
        let (found, expected) = (self.file.len()?, self.entry.bytes);
        if found != expected || found < (HEAD_BYTES + FOOTER_BYTES) as u64 {
            return Err(corrupt(
                &self.path,
                None,
                Damage::Length { found, expected },
            ));
        }
        let bytes = read(self.file.as_ref(), 0, HEAD_BYTES)?;
        let head = Head::ref_from_bytes(&bytes).map_err(|_| Damage::Magic);
        let version = head
            .and_then(|head| head.version_of(self.entry.number, self.identity.salt))
            .map_err(|what| corrupt(&self.path, Some(0), what))?;
        if version != VERSION {
            let file = self.path.clone();
            return Err(StorageError::NewerVersion {
                file,
                found: version,
                supported: VERSION,
            });
        }
        Ok(())
    }

    /// The footer, if it is the one that the manifest speaks of.
    fn footer(&self) -> Result<Footer, StorageError> {
        let (entry, offset) = (self.entry, self.entry.bytes - FOOTER_BYTES as u64);
        let bytes = read(self.file.as_ref(), offset, FOOTER_BYTES)?;
        let cut = Damage::malformed(Section::Footer, "it is cut off");
        Footer::read_from_bytes(&bytes)
            .map_err(|_| cut)
            .and_then(|footer| {
                let identity = Identity {
                    uuid: entry.uuid,
                    ..self.identity
                };
                footer.verify(entry.number, identity, entry.bytes)?;
                let same = footer.checksum.get() == entry.checksum
                    && footer.versions.get() == entry.versions
                    && footer.rows.get() == entry.rows
                    && footer.tombstones.get() == entry.tombstones
                    && footer.oldest.get() == entry.oldest.get()
                    && footer.newest.get() == entry.newest.get();
                if same {
                    Ok(footer)
                } else {
                    Err(Damage::Swapped)
                }
            })
            .map_err(|what| corrupt(&self.path, Some(offset), what))
    }

    /// A section, verified, as a part of the map.
    fn section(
        &self,
        map: &Map,
        section: Section,
        bounds: (u64, u64),
        checksum: u32,
    ) -> Result<Bytes, StorageError> {
        let (start, bytes) = (bounds.0, (bounds.1 - bounds.0) as usize);
        let place = Place {
            salt: self.identity.salt,
            file: self.entry.number,
            section,
            number: 0,
        };
        let found = read(self.file.as_ref(), start, bytes)?;
        if place.checksum(&[&found]) != checksum {
            return Err(corrupt(&self.path, Some(start), Damage::Checksum(section)));
        }
        map.slice(start as usize, bytes).ok_or_else(|| {
            corrupt(
                &self.path,
                Some(start),
                Damage::malformed(section, "it is not mapped"),
            )
        })
    }
}

fn corrupt(path: &Path, offset: Option<u64>, what: Damage) -> StorageError {
    StorageError::Corrupt {
        file: path.to_owned(),
        offset,
        what,
    }
}

/// Reads `bytes` bytes, which lie inside the file as it was when it was opened; zeros, which no checksum
/// fits, where it has become shorter.
fn read(file: &dyn DiskFile, offset: u64, bytes: usize) -> Result<Vec<u8>, StorageError> {
    let mut buffer = vec![0; bytes];
    file.read_at(offset, &mut buffer)?;
    Ok(buffer)
}
