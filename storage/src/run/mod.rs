//! Immutable sorted files of committed versions.
mod entry;
pub use entry::RunEntry;
pub(crate) use entry::Identity;

use std::sync::Arc;
use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use crate::cursor::{Cursor, Quest};
use crate::error::StorageError;
use crate::version::{RowVersion, Version};

/// One run.
#[derive(Debug)]
pub(crate) struct Run {
    entry: RunEntry,
}

/// What a check of one run found.
#[derive(Debug, Default)]
pub(crate) struct RunCheck {
    pub(crate) blocks: u64,
    pub(crate) versions: u64,
    pub(crate) findings: Vec<StorageError>,
}

impl Run {
    pub(crate) fn open(_disk: &dyn Disk, _identity: Identity, entry: &RunEntry) -> Result<Self, StorageError> {
        Ok(Self { entry: *entry })
    }
    pub(crate) fn write(
        _disk: &dyn Disk,
        _identity: Identity,
        _number_and_rows_max: (u64, u64),
        _versions: impl Iterator<Item = Result<RowVersion, StorageError>>,
    ) -> Result<Option<RunEntry>, StorageError> {
        Ok(None)
    }
    pub(crate) fn entry(&self) -> &RunEntry { &self.entry }
    pub(crate) fn hash(&self, _row: &[u8]) -> u64 { 0 }
    pub(crate) fn get(&self, _row: &[u8], _hash: u64, _at: Lsn) -> Result<Option<Version>, StorageError> { Ok(None) }
    pub(crate) fn cursors(self: &Arc<Self>, _quest: &Quest) -> Vec<Box<dyn Cursor>> { Vec::new() }
    pub(crate) fn all(self: &Arc<Self>) -> impl Iterator<Item = Result<RowVersion, StorageError>> + use<> { std::iter::empty() }
    pub(crate) fn check(&self) -> RunCheck { RunCheck::default() }
}
