//! Writing a run: versions in order, to a file of their own.
//!
//! Called by the flush, by compactions and by spills.
//! 1. Memory: one write buffer, the index (one row a block), eight bytes for each row's hash.
//! 2. The file is synced when [`RunWriter::finish`] returns; its name is the caller's to sync.
//! 3. A failed write leaves a file that nothing lists.

use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, DiskFile, OpenMode};
use zerocopy::{FromZeros, IntoBytes};

use super::block_builder::BlockBuilder;
use super::entry::{Identity, Origin, RunEntry};
use super::filter;
use super::format::{Footer, Head};
use super::index::IndexBuilder;
use super::marks::Mark;
use crate::checksum::Place;
use crate::error::{Damage, Section, StorageError};
use crate::row_hash::row_hash;
use crate::version::{VersionRef, version_order};

/// What is gathered before it is written: large enough that a call costs little beside the bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// A run to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunPlan {
    pub(crate) identity: Identity,
    pub(crate) number: u64,
}

/// A run while it is written.
#[derive(Debug)]
pub(crate) struct RunWriter<'a> {
    disk: &'a dyn Disk,
    plan: RunPlan,
    name: String,
    origin: Origin,
    /// Made with the first version.
    file: Option<Arc<dyn DiskFile>>,
    buffer: Vec<u8>,
    /// Where the buffer belongs in the file.
    buffer_at: u64,
    block: BlockBuilder,
    index: IndexBuilder,
    /// Of each row.
    hashes: Vec<u64>,
    footer: Footer,
    smallest: Bytes,
    /// The version added last.
    last: (Vec<u8>, Lsn),
}

impl<'a> RunWriter<'a> {
    /// A writer of the run that `plan` says. There is no file before the first version.
    pub(crate) fn new(disk: &'a dyn Disk, plan: RunPlan) -> Self {
        Self::of_origin(disk, plan, Origin::Committed)
    }

    /// A writer of a spill.
    pub(crate) fn spill(disk: &'a dyn Disk, plan: RunPlan) -> Self {
        Self::of_origin(disk, plan, Origin::Provisional)
    }

    fn of_origin(disk: &'a dyn Disk, plan: RunPlan, origin: Origin) -> Self {
        let mut footer = Footer::new_zeroed();
        footer.uuid = plan.identity.uuid.into();
        footer.number = plan.number.into();
        footer.oldest = u64::MAX.into();
        Self {
            disk,
            plan,
            name: origin.file_name(plan.number),
            origin,
            file: None,
            buffer: Vec::new(),
            buffer_at: 0,
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            footer,
            smallest: Bytes::new(),
            last: (Vec::new(), Lsn::ZERO),
        }
    }

    /// Adds a version, which stands behind all that were added before.
    ///
    /// # Errors
    /// The disk's. [`StorageError::Corrupt`] if the version is out of order: two sources had the same
    /// one, or one was not sorted, and their checks have missed something.
    pub(crate) fn add(
        &mut self,
        row: &[u8],
        stamp: Lsn,
        value: Option<&[u8]>,
    ) -> Result<(), StorageError> {
        self.add_marked(VersionRef { row, stamp, value }, None)
    }

    /// As [`RunWriter::add`], with the version's mark: all versions of a run have one, or none.
    ///
    /// # Errors
    /// As [`RunWriter::add`].
    pub(crate) fn add_marked(
        &mut self,
        version: VersionRef<'_>,
        mark: Option<Mark>,
    ) -> Result<(), StorageError> {
        let VersionRef { row, stamp, value } = version;
        let new_row = if self.file.is_some() {
            let (before, before_stamp) = (&self.last.0, self.last.1);
            if version_order((before, before_stamp), (row, stamp)).is_ge() {
                return Err(self.out_of_order());
            }
            before != row
        } else {
            self.begin(row)?;
            true
        };
        if self.block.is_full_for(version) {
            self.finish_block()?;
        }
        if new_row {
            self.footer.rows += 1;
            self.hashes.push(row_hash(self.plan.identity.salt, row));
            self.last.0.clear();
            self.last.0.extend_from_slice(row);
        }
        self.last.1 = stamp;
        self.footer.versions += 1;
        self.footer.tombstones += u64::from(value.is_none());
        self.footer.oldest = self.footer.oldest.get().min(stamp.get()).into();
        self.footer.newest = self.footer.newest.get().max(stamp.get()).into();
        self.block.push(version, mark);
        Ok(())
    }

    /// How long the file is so far, in bytes, but for the block under way and what comes behind the blocks.
    pub(crate) fn bytes_so_far(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    /// Writes what is left and syncs the file. `None`, and no file, if nothing was added.
    ///
    /// # Errors
    /// The disk's; the file may be there in part.
    pub(crate) fn finish(self) -> Result<Option<RunEntry>, StorageError> {
        self.finish_with(&[])
    }

    /// As [`RunWriter::finish`], with a spill's summary.
    ///
    /// # Errors
    /// As [`RunWriter::finish`].
    pub(crate) fn finish_with(mut self, summary: &[u8]) -> Result<Option<RunEntry>, StorageError> {
        if self.file.is_none() {
            return Ok(None);
        }
        self.finish_block()?;
        self.footer.blocks = self.index.blocks().into();
        self.footer.filter_at = self.bytes_so_far().into();
        let filter = filter::build(&self.hashes);
        self.footer.filter_checksum = self.place(Section::Filter, 0).checksum(&[&filter]).into();
        self.buffer.extend_from_slice(&filter);
        self.footer.index_at = self.bytes_so_far().into();
        let (index, shared_bytes) = std::mem::take(&mut self.index).into_bytes();
        self.footer.shared_bytes = (shared_bytes as u32).into();
        self.footer.index_checksum = self.place(Section::Index, 0).checksum(&[&index]).into();
        self.buffer.extend_from_slice(&index);
        self.footer.summary_at = self.bytes_so_far().into();
        let checksum = self.place(Section::Summary, 0).checksum(&[summary]);
        self.footer.summary_checksum = checksum.into();
        self.buffer.extend_from_slice(summary);
        self.footer.seal(self.plan.identity.salt);
        self.buffer.extend_from_slice(self.footer.as_bytes());
        let bytes = self.bytes_so_far();
        self.write_buffer()?;
        if let Some(file) = &self.file {
            file.sync()?;
        }
        Ok(Some(RunEntry {
            number: self.plan.number,
            uuid: self.plan.identity.uuid,
            bytes,
            checksum: self.footer.checksum.get(),
            versions: self.footer.versions.get(),
            rows: self.footer.rows.get(),
            tombstones: self.footer.tombstones.get(),
            oldest: Lsn::new(self.footer.oldest.get()),
            newest: Lsn::new(self.footer.newest.get()),
            smallest: self.smallest,
            largest: self.last.0.into(),
            origin: self.origin,
        }))
    }

    fn begin(&mut self, smallest: &[u8]) -> Result<(), StorageError> {
        self.file = Some(self.disk.open(&self.name, OpenMode::CreateNew)?);
        self.smallest = Bytes::copy_from_slice(smallest);
        self.footer.smallest_bytes = (smallest.len() as u32).into();
        self.index = IndexBuilder::new(smallest);
        self.buffer.reserve(BUFFER_BYTES);
        let head = Head::new(self.plan.number, self.plan.identity.salt);
        self.buffer.extend_from_slice(head.as_bytes());
        Ok(())
    }

    fn out_of_order(&self) -> StorageError {
        StorageError::Corrupt {
            file: self.disk.path(&self.name),
            offset: None,
            what: Damage::malformed(
                Section::Block,
                "the versions to be written are out of order",
            ),
        }
    }

    fn finish_block(&mut self) -> Result<(), StorageError> {
        let offset = self.bytes_so_far();
        let place = self.place(Section::Block, self.index.blocks());
        let checksum = self.block.finish(place, &mut self.buffer);
        let last = (self.last.0.as_slice(), self.last.1);
        self.index.push(offset, checksum, last);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(())
    }

    fn place(&self, section: Section, number: u64) -> Place {
        Place {
            salt: self.plan.identity.salt,
            file: self.plan.number,
            section,
            number,
        }
    }

    fn write_buffer(&mut self) -> Result<(), StorageError> {
        if let Some(file) = &self.file {
            file.write_at(self.buffer_at, &self.buffer)?;
        }
        self.buffer_at = self.bytes_so_far();
        self.buffer.clear();
        Ok(())
    }
}

/// Writes `versions`, in version order, as the run that `plan` says.
#[cfg(test)]
pub(crate) fn write(
    disk: &dyn Disk,
    plan: RunPlan,
    versions: impl Iterator<Item = Result<crate::version::RowVersion, StorageError>>,
) -> Result<Option<RunEntry>, StorageError> {
    let mut writer = RunWriter::new(disk, plan);
    for version in versions {
        let version = version?;
        let (stamp, value) = (version.version.stamp, version.version.value.as_deref());
        writer.add(&version.row, stamp, value)?;
    }
    writer.finish()
}
