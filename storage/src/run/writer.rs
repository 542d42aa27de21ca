//! Writing a run: versions in order, to a file of their own.
//!
//! Called by the flush and by merges.
//! 1. Memory: one write buffer, the filter (10 bits a version), the index (one row a block).
//! 2. The file is synced when [`write`] returns; its name is the caller's to sync.
//! 3. A failed write leaves a file that nothing lists.

use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::disk::{Disk, DiskFile, OpenMode};
use zerocopy::{FromZeros, IntoBytes};

use super::block::BlockBuilder;
use super::entry::{Identity, RunEntry};
use super::filter::FilterBuilder;
use super::format::{Footer, Head};
use super::index::IndexBuilder;
use crate::checksum::Place;
use crate::error::{Damage, Section, StorageError};
use crate::file_name;
use crate::row_hash::row_hash;
use crate::version::{RowVersion, version_order};

/// What is gathered before it is written: large enough that a call costs little beside the bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// A run to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunPlan {
    pub(crate) identity: Identity,
    pub(crate) number: u64,
    /// At most so many versions will come: it decides the filter's size.
    pub(crate) versions_max: u64,
}

/// Writes `versions`, in version order, as the run that `plan` says, and syncs the file. `None`, and no
/// file, if there are none.
///
/// # Errors
/// The disk's, and whatever `versions` fails with; the file may be there in part.
pub(crate) fn write(
    disk: &dyn Disk,
    plan: RunPlan,
    mut versions: impl Iterator<Item = Result<RowVersion, StorageError>>,
) -> Result<Option<RunEntry>, StorageError> {
    let Some(first) = versions.next().transpose()? else {
        return Ok(None);
    };
    let mut writer = Writer::new(disk, plan, &first)?;
    writer.add(first)?;
    for version in versions {
        writer.add(version?)?;
    }
    writer.finish().map(Some)
}

struct Writer<'a> {
    disk: &'a dyn Disk,
    plan: RunPlan,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Where the buffer belongs in the file.
    buffer_at: u64,
    block: BlockBuilder,
    index: IndexBuilder,
    filter: FilterBuilder,
    footer: Footer,
    last: Option<(Bytes, Lsn)>,
}

impl<'a> Writer<'a> {
    fn new(disk: &'a dyn Disk, plan: RunPlan, first: &RowVersion) -> Result<Self, StorageError> {
        let file = disk.open(&file_name::run(plan.number), OpenMode::CreateNew)?;
        let mut footer = Footer::new_zeroed();
        footer.uuid = plan.identity.uuid.into();
        footer.number = plan.number.into();
        footer.smallest_bytes = (first.row.len() as u32).into();
        footer.oldest = u64::MAX.into();
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        buffer.extend_from_slice(Head::new(plan.number, plan.identity.salt).as_bytes());
        Ok(Self {
            disk,
            plan,
            file,
            buffer,
            buffer_at: 0,
            block: BlockBuilder::default(),
            index: IndexBuilder::new(&first.row),
            filter: FilterBuilder::new(plan.versions_max),
            footer,
            last: None,
        })
    }

    fn add(&mut self, version: RowVersion) -> Result<(), StorageError> {
        let stamp = version.version.stamp;
        let new_row = match &self.last {
            Some((row, before)) => {
                if version_order((row, *before), (&version.row, stamp)).is_ge() {
                    return Err(self.out_of_order());
                }
                *row != version.row
            }
            None => true,
        };
        if self.block.is_full_for(&version) {
            self.finish_block()?;
        }
        if new_row {
            self.footer.rows += 1;
            self.filter
                .insert(row_hash(self.plan.identity.salt, &version.row));
        }
        self.footer.versions += 1;
        self.footer.tombstones += u64::from(version.version.value.is_none());
        self.footer.oldest = self.footer.oldest.get().min(stamp.get()).into();
        self.footer.newest = self.footer.newest.get().max(stamp.get()).into();
        self.last = Some((version.row.clone(), stamp));
        self.block.push(version);
        Ok(())
    }

    /// Two sources had the same version, or one was not sorted: their checks have missed something.
    fn out_of_order(&self) -> StorageError {
        StorageError::Corrupt {
            file: self.disk.path(&file_name::run(self.plan.number)),
            offset: None,
            what: Damage::malformed(
                Section::Block,
                "the versions to be written are out of order",
            ),
        }
    }

    fn finish_block(&mut self) -> Result<(), StorageError> {
        let Some(last) = self.block.last() else {
            return Ok(());
        };
        let (row, stamp) = (last.row.clone(), last.version.stamp);
        let offset = self.offset();
        let place = self.place(Section::Block, self.index.blocks());
        let checksum = self.block.finish(place, &mut self.buffer);
        self.index.push(
            offset,
            (self.offset() - offset) as u32,
            checksum,
            (&row, stamp),
        );
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<RunEntry, StorageError> {
        self.finish_block()?;
        self.footer.blocks = self.index.blocks().into();
        self.footer.filter_at = self.offset().into();
        let filter = std::mem::replace(&mut self.filter, FilterBuilder::new(0)).into_bytes();
        self.footer.filter_checksum = self.place(Section::Filter, 0).checksum(&[&filter]).into();
        self.buffer.extend_from_slice(&filter);
        self.footer.index_at = self.offset().into();
        let index = std::mem::replace(&mut self.index, IndexBuilder::new(&[])).into_bytes();
        self.footer.index_checksum = self.place(Section::Index, 0).checksum(&[&index]).into();
        self.buffer.extend_from_slice(&index);
        self.footer.seal(self.plan.identity.salt);
        self.buffer.extend_from_slice(self.footer.as_bytes());
        let bytes = self.offset();
        self.write_buffer()?;
        self.file.sync()?;
        Ok(RunEntry {
            number: self.plan.number,
            bytes,
            checksum: self.footer.checksum.get(),
            versions: self.footer.versions.get(),
            oldest: Lsn::new(self.footer.oldest.get()),
            newest: Lsn::new(self.footer.newest.get()),
        })
    }

    /// Where the next byte belongs in the file.
    fn offset(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
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
        self.file.write_at(self.buffer_at, &self.buffer)?;
        self.buffer_at = self.offset();
        self.buffer.clear();
        Ok(())
    }
}
