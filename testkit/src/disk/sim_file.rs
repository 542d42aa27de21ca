//! One open file of the simulated disk.
//!
//! Made by `sim_disk` only; `sim_writer` writes to it.
//!
//! 1. A log file demands whole aligned blocks, as a real one past the page cache does.
//! 2. A log file is read past the cache: what a failed sync left there is not seen, and what went bad below it is.
//! 3. The handle's lock goes with it.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use lockstone_base::disk::{DiskError, DiskFile, DiskOp, DiskResult, FileLock, Map, OpenMode};
use lockstone_base::limits::BLOCK_BYTES;
use parking_lot::Mutex;

use super::call::{Action, FileId, Write};
use super::content::Content;
use super::machine::Machine;
use super::payload::Payload;

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) machine: Arc<Mutex<Machine>>,
    pub(super) file: FileId,
    pub(super) handle: u64,
    pub(super) name: Arc<str>,
    pub(super) path: PathBuf,
    pub(super) mode: OpenMode,
}

impl SimFile {
    pub(super) fn error(&self, op: DiskOp, kind: ErrorKind) -> DiskError {
        DiskError::new(op, &self.path, kind)
    }

    pub(super) fn is_log(&self) -> bool {
        matches!(self.mode, OpenMode::Log | OpenMode::LogRead)
    }

    fn check_alignment(&self, offset: u64, bytes: &[u8]) {
        if self.is_log() {
            assert!(
                offset.is_multiple_of(BLOCK_BYTES as u64)
                    && bytes.len().is_multiple_of(BLOCK_BYTES)
                    && bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES),
                "disk 5: log files move whole aligned blocks (offset {offset}, {} bytes)",
                bytes.len()
            );
        }
    }

    pub(super) fn check_writable(&self, op: DiskOp) -> DiskResult<()> {
        match self.mode {
            OpenMode::Read | OpenMode::LogRead => Err(self.error(op, ErrorKind::PermissionDenied)),
            OpenMode::ReadWrite | OpenMode::CreateNew | OpenMode::Log => Ok(()),
        }
    }

    fn write(&self, op: DiskOp, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.check_alignment(offset, bytes);
        self.check_writable(op).map_err(|e| e.at(offset))?;
        let write = Write {
            file: self.file,
            offset,
            payload: Payload::new(bytes),
        };
        let written = self.machine.lock().write(op, &self.name, write);
        written.map_err(|kind| self.error(op, kind).at(offset))
    }

    /// The content that this file sees; fails where a fault strikes.
    fn seen(&self, op: DiskOp) -> DiskResult<Content> {
        let mut machine = self.machine.lock();
        if let Some(kind) = machine.faults.strike(op, &self.name, None) {
            return Err(self.error(op, kind));
        }
        if self.is_log() {
            return Ok(machine.beyond_cache(self.file));
        }
        let inode = machine.state.inodes.get(&self.file);
        Ok(inode.map(|inode| inode.cached.clone()).unwrap_or_default())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> DiskResult<u64> {
        Ok(self.seen(DiskOp::Len)?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        self.check_alignment(offset, buffer);
        let content = self.seen(DiskOp::Read).map_err(|e| e.at(offset))?;
        Ok(content.read(offset, buffer))
    }

    fn forget_cached(&self, offset: u64, bytes: u64) {
        let place = offset..offset.saturating_add(bytes);
        self.machine.lock().surface(&self.name, self.file, &place);
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        self.write(DiskOp::Write, offset, bytes)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> DiskResult<()> {
        assert!(self.is_log(), "disk 5: durable writes are for log files");
        self.write(DiskOp::WriteDurable, offset, bytes)
    }

    fn sync(&self) -> DiskResult<()> {
        let mut machine = self.machine.lock();
        let action = Action::Sync { file: self.file };
        let synced = machine.perform(DiskOp::Sync, &self.name, action);
        synced.map_err(|kind| self.error(DiskOp::Sync, kind))
    }

    fn set_len(&self, bytes: u64) -> DiskResult<()> {
        self.check_writable(DiskOp::SetLen)?;
        let set = self.machine.lock().set_len(&self.name, self.file, bytes);
        set.map_err(|kind| self.error(DiskOp::SetLen, kind))
    }

    fn map(&self) -> DiskResult<Map> {
        Ok(Map::from_owner(self.seen(DiskOp::Map)?.to_vec()))
    }

    fn try_lock(&self, lock: FileLock) -> DiskResult<bool> {
        let mut machine = self.machine.lock();
        match machine.faults.strike(DiskOp::Lock, &self.name, None) {
            Some(kind) => Err(self.error(DiskOp::Lock, kind)),
            None => Ok(machine.try_lock(self.file, self.handle, lock)),
        }
    }

    fn unlock(&self) -> DiskResult<()> {
        self.machine.lock().unlock(self.handle);
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.machine.lock().unlock(self.handle);
    }
}
