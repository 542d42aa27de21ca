//! A run file read by itself, block by block, whatever has become of its neighbours: for tools that look into one,
//! and for whoever saves what can still be read.
//!
//! Made by `recovery` for the program; the engine itself reads runs through the list of sources.
//! 1. Nothing is trusted: every block is read with `pread` and verified when it is asked for.
//! 2. A damaged block says which rows it hides; the others are there all the same (F11). Without an index nobody
//!    knows where blocks begin: then the run as a whole is lost.
//! 3. A run that no manifest vouches for is believed as far as its own checksums go: an older file of the same
//!    name would be, too.

use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, DiskFile};
use zerocopy::FromBytes;

use super::block::Block;
use super::entry::{Identity, Origin, RunEntry};
use super::format::{FOOTER_BYTES, Footer, HEAD_BYTES};
use super::index::Index;
use super::reader::{Opening, Run, corrupt, open_file};
use crate::checksum::Place;
use crate::error::{Damage, Section, StorageError};
use crate::file_name;

/// A run file, open by itself.
#[derive(Debug)]
pub struct RunFile {
    run: Run,
    index: Index,
    file: Arc<dyn DiskFile>,
    salt: u64,
}

/// Where the parts of a run file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLayout {
    /// Blocks, from behind the head on.
    pub blocks: u64,
    /// Where the filter starts, and the blocks end.
    pub filter_at: u64,
    /// Where the index starts, and the filter ends.
    pub index_at: u64,
    /// Where the footer starts; the index ends there, or where a spill's summary starts.
    pub footer_at: u64,
}

/// A block of a run.
#[derive(Debug, Clone)]
pub struct RunBlock {
    /// Where it starts in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Every row of it is above this one, or it: the last row of the block before.
    pub above: Bytes,
    /// Its last row, as the index has it.
    pub last: Bytes,
}

/// A version as it lies in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunVersion<'a> {
    /// The encoded row.
    pub row: &'a [u8],
    /// The commit that made it, or one that stands for all of the run; in a spill, its place among its row's.
    pub stamp: Lsn,
    /// The value; `None`: a tombstone.
    pub value: Option<&'a [u8]>,
}

impl RunFile {
    /// Opens the run file `name` as it describes itself.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if head, footer or index is damaged, or the name is another run's;
    /// [`StorageError::NewerVersion`].
    pub fn open(disk: &Arc<dyn Disk>, name: &str) -> Result<Self, StorageError> {
        let path = disk.path(name);
        let refuse = |offset, what| corrupt(&path, offset, what);
        let (number, origin) = file_name::run_number(name)
            .map(|number| (number, Origin::Committed))
            .or_else(|| Some((file_name::spill_number(name)?, Origin::Provisional)))
            .ok_or_else(|| refuse(None, Damage::Magic))?;
        let file = open_file(disk.as_ref(), name)?;
        let bytes = file.len()?;
        let least = (HEAD_BYTES + FOOTER_BYTES) as u64;
        if bytes < least {
            let expected = least;
            return Err(refuse(
                None,
                Damage::Length {
                    found: bytes,
                    expected,
                },
            ));
        }
        let footer_at = bytes - FOOTER_BYTES as u64;
        let mut claim = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut claim)?;
        let claim = Footer::read_from_bytes(&claim).map_err(|_| {
            refuse(
                Some(footer_at),
                Damage::malformed(Section::Footer, "it is cut off"),
            )
        })?;
        let opening = Opening {
            path: &path,
            file: file.clone(),
            salt: claim.salt.get(),
        };
        let footer = opening.footer(number, claim.uuid.get(), bytes)?;
        opening.check_head(number, Some(bytes))?;
        let index = index_of(file.as_ref(), number, &footer).map_err(|error| {
            error.unwrap_or_else(|what| refuse(Some(footer.index_at.get()), what))
        })?;
        let entry = RunEntry {
            number,
            uuid: footer.uuid.get(),
            bytes,
            checksum: footer.checksum.get(),
            versions: footer.versions.get(),
            rows: footer.rows.get(),
            tombstones: footer.tombstones.get(),
            oldest: Lsn::new(footer.oldest.get()),
            newest: Lsn::new(footer.newest.get()),
            smallest: Bytes::copy_from_slice(index.smallest()),
            largest: Bytes::copy_from_slice(index.largest()),
            origin,
        };
        Self::listed(disk, footer.salt.get(), &entry)
    }

    /// Opens the run that a manifest with this salt lists as `entry`.
    ///
    /// # Errors
    /// As [`RunFile::open`]; [`StorageError::Corrupt`] if it is not the file that the manifest speaks of.
    pub fn listed(disk: &Arc<dyn Disk>, salt: u64, entry: &RunEntry) -> Result<Self, StorageError> {
        let uuid = entry.uuid;
        let run = Run::open(disk, Identity { uuid, salt }, entry)?;
        let index = run.verify_index()?;
        let file = run.reopen()?;
        Ok(Self {
            run,
            index,
            file,
            salt,
        })
    }

    /// What a manifest would say of it.
    pub fn entry(&self) -> &RunEntry {
        self.run.entry()
    }

    /// The salt of its database.
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// Where its parts lie.
    pub fn layout(&self) -> RunLayout {
        RunLayout {
            blocks: self.index.blocks() as u64,
            filter_at: self.run.footer.filter_at.get(),
            index_at: self.run.footer.index_at.get(),
            footer_at: self.entry().bytes - FOOTER_BYTES as u64,
        }
    }

    /// Whether the filter is intact: it is needed by nobody who reads all blocks.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    pub fn check_filter(&self) -> Result<(), StorageError> {
        self.run.verify_filter().map(drop)
    }

    /// The block `number`, as the index knows it; `None` behind the last one.
    pub fn block(&self, number: u64) -> Option<RunBlock> {
        let number = number as usize;
        let last = self.index.last(number)?.0;
        let above = match number.checked_sub(1) {
            Some(before) => self.index.last(before)?.0,
            None => self.index.smallest(),
        };
        let (offset, end) = self.index.bounds(number);
        Some(RunBlock {
            offset,
            bytes: end - offset,
            above: Bytes::copy_from_slice(above),
            last: Bytes::copy_from_slice(last),
        })
    }

    /// Shows every version of the block `number` that counts, in version order; how many the block has.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] with the block's place: none of it was shown.
    pub fn visit(
        &self,
        number: u64,
        visit: &mut dyn FnMut(RunVersion<'_>),
    ) -> Result<u64, StorageError> {
        let (start, end) = self.index.bounds(number as usize);
        let mut bytes = vec![0; (end - start) as usize];
        self.file.read_at(start, &mut bytes)?;
        let block: Block<'_> = self
            .run
            .verify_bytes(&self.index, number as usize, &bytes)?;
        let mut row = Vec::new();
        for entry in (0..block.len()).map_while(|index| block.entry(index)) {
            if self.run.behind_dead(entry.stamp).is_some() {
                continue;
            }
            block.row_into(entry.suffix, &mut row);
            visit(RunVersion {
                row: &row,
                stamp: self.run.stamp_of(entry.stamp),
                value: entry.value.and_then(|value| bytes.get(value)),
            });
        }
        Ok(block.len() as u64)
    }
}

/// The index of a run whose footer is believed.
fn index_of(
    file: &dyn DiskFile,
    number: u64,
    footer: &Footer,
) -> Result<Index, Result<StorageError, Damage>> {
    let start = footer.index_at.get();
    let mut bytes = vec![0; (footer.summary_at.get() - start) as usize];
    file.read_at(start, &mut bytes)
        .map_err(|error| Ok(error.into()))?;
    let place = Place {
        salt: footer.salt.get(),
        file: number,
        section: Section::Index,
        number: 0,
    };
    if place.checksum(&[&bytes]) != footer.index_checksum.get() {
        return Err(Err(Damage::Checksum(Section::Index)));
    }
    Index::new(bytes.into(), footer).map_err(Err)
}
