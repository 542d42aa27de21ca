//! An open run: point reads, blocks for cursors, and the first touch that makes a part of it trusted.
//!
//! Made by `Store`, read through the list of sources.
//! 1. Opening reads head and footer alone and maps the file; the bounds are the manifest's. So it costs the
//!    same however large the run is, and the file's descriptor is not kept.
//! 2. The first use of index or filter reads it with `pread` into memory and verifies checksum and
//!    structure, a block's first touch likewise: a bad disk is an error, not a signal (F6). After that the map
//!    is used; what changes in memory later is found by a scrub or the next open. What a scrub has read anew is
//!    distrusted: its next use reads and verifies it likewise.
//! 3. A damaged block is an error for its rows, at each touch, and for no others (F11). A damaged index or
//!    filter is an error for all rows of the run.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, DiskFile, Map, OpenMode};
use zerocopy::FromBytes;

use super::block::{Block, Expected};
use super::entry::{Identity, Origin, RunEntry};
use super::filter;
use super::format::{FOOTER_BYTES, Footer, HEAD_BYTES, Head, VERSION};
use super::index::{Index, Spot};
use super::part::Part;
use super::window::{self, WINDOW_BYTES, Window};
use crate::checksum::Place;
use crate::error::{Damage, Section, StorageError};
use crate::version::Version;

/// A value that is longer shares the run's map; a shorter one is copied: that is cheaper than counting who
/// shares, where many threads count at one place, and does not keep the map of a file that was removed.
const COPY_BYTES_MAX: usize = 1024;

/// A value that is longer is asked for before it is touched: a touch of the map reads one page, and no more.
const ASK_BYTES: usize = 64 << 10;

/// An open run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) entry: RunEntry,
    salt: u64,
    name: String,
    disk: Arc<dyn Disk>,
    map: Map,
    pub(super) footer: Footer,
    pub(super) index: Part<Index>,
    pub(super) filter: Part<Bytes>,
    /// One bit for each block: whether its first touch found it intact.
    trusted: Box<[AtomicU64]>,
}

/// Whom a first touch serves: how much is verified with the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// A point read: the block alone.
    One,
    /// A scan: the blocks ahead of it too.
    Ahead,
    /// A scan that moves backward: the blocks before it too.
    Behind,
}

impl Run {
    /// Opens the run that a manifest lists as `entry`.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] and [`StorageError::NewerVersion`].
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        identity: Identity,
        entry: &RunEntry,
    ) -> Result<Self, StorageError> {
        let name = entry.file_name();
        let opening = Opening {
            path: &disk.path(&name),
            file: open_file(disk.as_ref(), &name)?,
            salt: identity.salt,
        };
        opening.check_head(entry.number, Some(entry.bytes))?;
        let footer = opening.footer(entry.number, entry.uuid, entry.bytes)?;
        let same = footer.checksum.get() == entry.checksum
            && footer.versions.get() == entry.versions
            && footer.rows.get() == entry.rows
            && footer.tombstones.get() == entry.tombstones
            && (matches!(entry.origin, Origin::Adopted(_))
                || footer.oldest.get() == entry.oldest.get()
                    && footer.newest.get() == entry.newest.get());
        if !same {
            let footer_at = entry.bytes - FOOTER_BYTES as u64;
            return Err(corrupt(opening.path, Some(footer_at), Damage::Swapped));
        }
        let map = opening.file.map()?;
        let words = (footer.blocks.get() as usize).div_ceil(64);
        Ok(Self {
            entry: entry.clone(),
            salt: identity.salt,
            name,
            disk: Arc::clone(disk),
            map,
            footer,
            index: Part::new(),
            filter: Part::new(),
            trusted: (0..words).map(|_| AtomicU64::new(0)).collect(),
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

    /// Whether no row is in it twice, and every version counts.
    pub(super) fn has_single_versions(&self) -> bool {
        self.footer.rows.get() == self.footer.versions.get() && !self.has_dead()
    }

    /// The newest version of `row`, whose [hash](crate::row_hash::row_hash) is `hash`, at or below `at`.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`], if index, filter or the one block that can have it cannot
    /// be read.
    pub(crate) fn get(
        &self,
        row: &[u8],
        hash: u64,
        at: Lsn,
    ) -> Result<Option<Version>, StorageError> {
        if at < self.entry.oldest || !filter::may_contain(self.filter()?, hash) {
            return Ok(None);
        }
        let index = self.index()?;
        let place = (row, self.place_at(at));
        self.get_at(index, index.spot(place), place)
    }

    /// The newest version at or behind `place` of its row, which lies at `spot` if anywhere.
    #[inline]
    pub(super) fn get_at(
        &self,
        index: &Index,
        mut spot: Spot,
        mut place: (&[u8], Lsn),
    ) -> Result<Option<Version>, StorageError> {
        while spot.block < index.blocks() {
            let block = self.block(index, spot.block, Touch::One)?;
            let position = block.position_near(place, spot.share);
            let entry = block.entry(position);
            let Some(entry) = entry.filter(|it| block.compare(it.suffix, place.0).is_eq()) else {
                break;
            };
            if let Some(older) = self.behind_dead(entry.stamp) {
                place.1 = older;
                spot = index.spot(place);
                continue;
            }
            let shift = index.bounds(spot.block).0 as usize;
            let value = entry
                .value
                .map(|value| value.start + shift..value.end + shift);
            return Ok(Some(Version {
                stamp: self.stamp_of(entry.stamp),
                value: value.map(|value| self.value(value)),
            }));
        }
        Ok(None)
    }

    /// Asks the kernel to fetch a part of the map.
    pub(super) fn will_need(&self, place: std::ops::Range<usize>) {
        self.map.will_need(place.start, place.len());
    }

    /// The bytes of a value that lies there in the map: a copy if it is short, else sharing the map.
    pub(crate) fn value(&self, place: std::ops::Range<usize>) -> Bytes {
        if place.len() <= COPY_BYTES_MAX {
            return Bytes::copy_from_slice(self.bytes(place));
        }
        if place.len() > ASK_BYTES {
            self.will_need(place.clone());
        }
        let value = self.map.slice(place.start, place.len());
        value.unwrap_or_default()
    }

    /// A part of the map; nothing outside it.
    #[inline]
    pub(super) fn bytes(&self, place: std::ops::Range<usize>) -> &[u8] {
        self.map.get(place).unwrap_or_default()
    }

    /// The index, verified at its first use, and while it is distrusted.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    #[inline]
    pub(super) fn index(&self) -> Result<&Index, StorageError> {
        match self.index.trusted() {
            Some(index) => Ok(index),
            None => self.index.take(self.verify_index()),
        }
    }

    /// The filter, verified at its first use, and while it is distrusted.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    #[inline]
    pub(super) fn filter(&self) -> Result<&Bytes, StorageError> {
        match self.filter.trusted() {
            Some(filter) => Ok(filter),
            None => self.filter.take(self.verify_filter()),
        }
    }

    /// Reads the index from the device and checks everything about it; as a part of the map.
    pub(super) fn verify_index(&self) -> Result<Index, StorageError> {
        let start = self.footer.index_at.get();
        let end = self.footer.summary_at.get();
        let bytes = self.section(Section::Index, start..end, self.footer.index_checksum.get())?;
        let index = Index::new(bytes, &self.footer).map_err(|what| self.corrupt_at(start, what))?;
        // What the manifest says of them has found the run; its own are what is searched.
        if index.smallest() != self.entry.smallest || index.largest() != self.entry.largest {
            return Err(self.corrupt_at(start, Damage::Swapped));
        }
        Ok(index)
    }

    /// Reads the filter from the device and checks it; as a part of the map.
    pub(super) fn verify_filter(&self) -> Result<Bytes, StorageError> {
        let bounds = self.footer.filter_at.get()..self.footer.index_at.get();
        let start = bounds.start;
        let filter = self.section(Section::Filter, bounds, self.footer.filter_checksum.get())?;
        if !filter::is_whole(filter.len() as u64) {
            let what =
                Damage::malformed(Section::Filter, "its length is not one that filters have");
            return Err(self.corrupt_at(start, what));
        }
        Ok(filter)
    }

    /// Where in the file a spill says what it is.
    pub(crate) fn summary_at(&self) -> u64 {
        self.footer.summary_at.get()
    }

    /// What a spill says of itself, read from the device and checked: nothing, if this is none.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    pub(crate) fn summary(&self) -> Result<Bytes, StorageError> {
        let bounds = self.summary_at()..self.entry.bytes - FOOTER_BYTES as u64;
        self.section(Section::Summary, bounds, self.footer.summary_checksum.get())
    }

    /// A section, verified, as a part of the map.
    fn section(
        &self,
        section: Section,
        bounds: std::ops::Range<u64>,
        checksum: u32,
    ) -> Result<Bytes, StorageError> {
        let (start, bytes) = (bounds.start, (bounds.end - bounds.start) as usize);
        let place = self.place(section, 0);
        let found = read(self.reopen()?.as_ref(), start, bytes)?;
        if place.checksum(&[&found]) != checksum {
            return Err(self.corrupt_at(start, Damage::Checksum(section)));
        }
        let outside = Damage::malformed(section, "it is not mapped");
        let mapped = self.map.slice(start as usize, bytes);
        mapped.ok_or_else(|| self.corrupt_at(start, outside))
    }

    /// The block `number`, verified at its first touch.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`].
    #[inline]
    pub(super) fn block(
        &self,
        index: &Index,
        number: usize,
        touch: Touch,
    ) -> Result<Block<'_>, StorageError> {
        if !self.trusts(number) {
            self.first_touch(index, number, touch)?;
        }
        let (start, end) = index.bounds(number);
        Block::new(self.bytes(start as usize..end as usize))
            .map_err(|what| self.corrupt_at(start, what))
    }

    pub(super) fn trusts(&self, number: usize) -> bool {
        let word = self.trusted.get(number / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (number % 64) & 1 != 0)
    }

    /// The block is as it was written; the page cache has it.
    pub(super) fn trust(&self, number: usize) {
        // The bytes reached the device before the run was listed: there is nothing to order.
        if let Some(word) = self.trusted.get(number / 64) {
            word.fetch_or(1 << (number % 64), Ordering::Relaxed);
        }
    }

    /// Its next touch is a first touch again.
    pub(super) fn distrust(&self, number: usize) {
        if let Some(word) = self.trusted.get(number / 64) {
            word.fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
        }
    }

    /// Verifies the block `number`, and those that are likely to be touched next.
    #[cold]
    fn first_touch(&self, index: &Index, number: usize, touch: Touch) -> Result<(), StorageError> {
        let file = self.reopen()?;
        let blocks = match touch {
            Touch::One => number..number + 1,
            Touch::Ahead => window::ahead(index, number, WINDOW_BYTES),
            Touch::Behind => window::behind(index, number, WINDOW_BYTES),
        };
        let mut window = Window::default();
        if blocks.len() > 1 && window.read(file.as_ref(), index, blocks.clone()).is_ok() {
            for block in blocks.filter(|block| !self.trusts(*block)) {
                let bytes = window.get(window.place(index, block));
                if self.verify_bytes(index, block, bytes).is_ok() {
                    self.trust(block);
                }
            }
            if self.trusts(number) {
                return Ok(());
            }
        }
        // Alone: neither a bad sector beside it nor a damaged neighbour is its own failure.
        window.read(file.as_ref(), index, number..number + 1)?;
        self.verify_bytes(index, number, window.get(window.place(index, number)))?;
        self.trust(number);
        Ok(())
    }

    /// The block `number`, whose bytes were read anew, with everything about it checked.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`].
    pub(super) fn verify_bytes<'a>(
        &self,
        index: &Index,
        number: usize,
        bytes: &'a [u8],
    ) -> Result<Block<'a>, StorageError> {
        let outside = Damage::malformed(Section::Block, "the index has no such block");
        let verified = || {
            let checksum = index.checksum(number).ok_or(outside)?;
            Block::verify(bytes, self.place(Section::Block, number as u64), checksum)?;
            let before = number.checked_sub(1).and_then(|before| index.last(before));
            let block = Block::new(bytes)?;
            block.validate(&Expected {
                before: before.ok_or_else(|| index.smallest()),
                last: index.last(number).ok_or(outside)?,
                stamps: (
                    Lsn::new(self.footer.oldest.get()),
                    Lsn::new(self.footer.newest.get()),
                ),
            })?;
            Ok(block)
        };
        verified().map_err(|what| self.corrupt_at(index.bounds(number).0, what))
    }

    /// The run's file, for reads past the map.
    ///
    /// # Errors
    /// The disk's; [`StorageError::Corrupt`] if the file is missing.
    pub(super) fn reopen(&self) -> Result<Arc<dyn DiskFile>, StorageError> {
        open_file(self.disk.as_ref(), &self.name)
    }

    fn place(&self, section: Section, number: u64) -> Place {
        Place {
            salt: self.salt,
            file: self.entry.number,
            section,
            number,
        }
    }

    pub(crate) fn corrupt_at(&self, offset: u64, what: Damage) -> StorageError {
        corrupt(&self.disk.path(&self.name), Some(offset), what)
    }
}

/// A run that is being opened.
pub(super) struct Opening<'a> {
    pub(super) path: &'a Path,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) salt: u64,
}

impl Opening<'_> {
    /// Checks the file's length, if it is known, and that it begins as this run of a version that is known;
    /// its length.
    pub(super) fn check_head(
        &self,
        number: u64,
        expected: Option<u64>,
    ) -> Result<u64, StorageError> {
        let found = self.file.len()?;
        let least = (HEAD_BYTES + FOOTER_BYTES) as u64;
        let expected = expected.unwrap_or(found.max(least));
        if found != expected || found < least {
            return Err(corrupt(self.path, None, Damage::Length { found, expected }));
        }
        let bytes = read(self.file.as_ref(), 0, HEAD_BYTES)?;
        let head = Head::ref_from_bytes(&bytes).map_err(|_| Damage::Magic);
        let version = head
            .and_then(|head| head.version_of(number, self.salt))
            .map_err(|what| corrupt(self.path, Some(0), what))?;
        if version != VERSION {
            let file = self.path.to_owned();
            return Err(StorageError::NewerVersion {
                file,
                found: version,
                supported: VERSION,
            });
        }
        Ok(found)
    }

    /// The footer of this run, in a file of `bytes` bytes.
    pub(super) fn footer(
        &self,
        number: u64,
        uuid: u128,
        bytes: u64,
    ) -> Result<Footer, StorageError> {
        let offset = bytes - FOOTER_BYTES as u64;
        let found = read(self.file.as_ref(), offset, FOOTER_BYTES)?;
        let cut = Damage::malformed(Section::Footer, "it is cut off");
        let identity = Identity {
            uuid,
            salt: self.salt,
        };
        Footer::read_from_bytes(&found)
            .map_err(|_| cut)
            .and_then(|footer| footer.verify(number, identity, bytes).map(|()| footer))
            .map_err(|what| corrupt(self.path, Some(offset), what))
    }
}

/// Opens the run file `name`, to read.
pub(super) fn open_file(disk: &dyn Disk, name: &str) -> Result<Arc<dyn DiskFile>, StorageError> {
    disk.open(name, OpenMode::Read)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => corrupt(&disk.path(name), None, Damage::Missing),
            _ => error.into(),
        })
}

pub(super) fn corrupt(path: &Path, offset: Option<u64>, what: Damage) -> StorageError {
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
