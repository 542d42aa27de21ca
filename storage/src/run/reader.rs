//! An open run: point reads, blocks for cursors, and the first touch that makes a block trusted.
//!
//! Made by `Store`, read through the list of sources.
//! 1. Head, footer, index and filter are read with `pread` and verified when the run is opened.
//! 2. A block's first touch reads it with `pread` into memory and verifies checksum and content: a bad
//!    disk is an error, not a signal (F6). After that the map is used; what changes in memory later is
//!    not noticed until the next open.
//! 3. A damaged block is an error for its rows, at each touch, and for no others (F11).

use std::path::PathBuf;
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
        let corrupt = |offset, what| StorageError::Corrupt {
            file: path.clone(),
            offset,
            what,
        };
        let file = disk
            .open(&name, OpenMode::Read)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => corrupt(None, Damage::Missing),
                _ => error.into(),
            })?;
        let found = file.len()?;
        if found != entry.bytes || found < (HEAD_BYTES + FOOTER_BYTES) as u64 {
            return Err(corrupt(
                None,
                Damage::Length {
                    found,
                    expected: entry.bytes,
                },
            ));
        }
        let version = read_head(file.as_ref(), entry.number, identity.salt)?
            .map_err(|what| corrupt(Some(0), what))?;
        if version != VERSION {
            return Err(StorageError::NewerVersion {
                file: path,
                found: version,
                supported: VERSION,
            });
        }
        let footer_at = found - FOOTER_BYTES as u64;
        let footer = read_footer(file.as_ref(), footer_at, identity, entry)?
            .map_err(|what| corrupt(Some(footer_at), what))?;
        let map = file.map()?;
        let (filter_at, index_at) = (footer.filter_at.get(), footer.index_at.get());
        let place = |section| Place {
            salt: identity.salt,
            file: entry.number,
            section,
            number: 0,
        };
        let sections = [
            (
                filter_at,
                index_at,
                place(Section::Filter),
                footer.filter_checksum,
            ),
            (
                index_at,
                footer_at,
                place(Section::Index),
                footer.index_checksum,
            ),
        ];
        let [filter, index] = sections.map(|(start, end, place, checksum)| {
            let bytes = read(file.as_ref(), start, (end - start) as usize)?;
            let mapped = map.slice(start as usize, (end - start) as usize);
            match mapped {
                Some(mapped) if place.checksum(&[&bytes]) == checksum.get() => Ok(mapped),
                _ => Err(corrupt(Some(start), Damage::Checksum(place.section))),
            }
        });
        let (filter, index) = (filter?, index?);
        if !filter::is_whole(filter.len() as u64) {
            let what =
                Damage::malformed(Section::Filter, "its length is not one that filters have");
            return Err(corrupt(Some(filter_at), what));
        }
        let index = Index::new(index, &footer).map_err(|what| corrupt(Some(index_at), what))?;
        let trusted = (0..index.blocks().div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        Ok(Self {
            entry: *entry,
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

    /// The hash of a row for [`Run::get`]: the same in all runs of a database.
    pub(crate) fn hash(&self, row: &[u8]) -> u64 {
        filter::hash(self.salt, row)
    }

    /// The newest version of `row`, whose hash is `hash`, at or below `at`.
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
        let number = self.index.find((row, at));
        if number == self.index.blocks() {
            return Ok(None);
        }
        self.newest_in(number, row, at)
    }

    /// The newest version of `row` at or below `at`, which lies in the block `number` if anywhere.
    pub(super) fn newest_in(
        &self,
        number: usize,
        row: &[u8],
        at: Lsn,
    ) -> Result<Option<Version>, StorageError> {
        let block = self.block(number)?;
        match block.entry(block.position((row, at))) {
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

    fn verify_bytes(&self, number: usize, bytes: &[u8]) -> Result<(), Damage> {
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

    /// Where the block `number` starts and ends in the file.
    fn bounds(&self, number: usize) -> (usize, usize) {
        self.index.slot(number).map_or((0, 0), |slot| {
            let start = slot.offset.get() as usize;
            (start, start + slot.bytes.get() as usize)
        })
    }

    pub(super) fn corrupt(&self, number: usize, what: Damage) -> StorageError {
        self.corrupt_at(self.bounds(number).0 as u64, what)
    }

    pub(super) fn corrupt_at(&self, offset: u64, what: Damage) -> StorageError {
        StorageError::Corrupt {
            file: self.path.clone(),
            offset: Some(offset),
            what,
        }
    }
}

fn read_head(
    file: &dyn DiskFile,
    number: u64,
    salt: u64,
) -> Result<Result<u32, Damage>, StorageError> {
    let bytes = read(file, 0, HEAD_BYTES)?;
    let head = Head::ref_from_bytes(&bytes).map_err(|_| Damage::Magic);
    Ok(head.and_then(|head| head.version_of(number, salt)))
}

fn read_footer(
    file: &dyn DiskFile,
    offset: u64,
    identity: Identity,
    entry: &RunEntry,
) -> Result<Result<Footer, Damage>, StorageError> {
    let bytes = read(file, offset, FOOTER_BYTES)?;
    let Ok(footer) = Footer::read_from_bytes(&bytes) else {
        return Ok(Err(Damage::malformed(Section::Footer, "it is cut off")));
    };
    if let Err(damage) = footer.verify(entry.number, identity, entry.bytes) {
        return Ok(Err(damage));
    }
    let same = footer.checksum.get() == entry.checksum
        && footer.versions.get() == entry.versions
        && footer.oldest.get() == entry.oldest.get()
        && footer.newest.get() == entry.newest.get();
    Ok(if same {
        Ok(footer)
    } else {
        Err(Damage::Swapped)
    })
}

/// Reads `bytes` bytes, which lie inside the file as it was when it was opened; zeros, which no checksum
/// fits, where it has become shorter.
fn read(file: &dyn DiskFile, offset: u64, bytes: usize) -> Result<Vec<u8>, StorageError> {
    let mut buffer = vec![0; bytes];
    file.read_at(offset, &mut buffer)?;
    Ok(buffer)
}
