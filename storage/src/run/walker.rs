//! Walking all versions of a run, for a merge: from the device, a window of blocks at a time.
//!
//! Made by `Run::walk`.
//! 1. Every block is read with `pread` and verified anew, whatever readers of the map have found: a merge
//!    never carries damage on.
//! 2. Memory: one window, or one block where that is larger.
//! 3. The walk ends at the first error.

use std::ops::Range;
use std::sync::Arc;

use lockstone_base::Lsn;

use super::block::Block;
use super::reader::Run;
use crate::error::StorageError;
use crate::version::VersionRef;
use crate::walk::Walker;

/// What is read at once: large enough that a call costs little beside the bytes, small enough for the
/// processor's cache.
const WINDOW_BYTES: usize = 256 << 10;

/// Every version of a run.
#[derive(Debug)]
pub(crate) struct RunWalker {
    run: Arc<Run>,
    window: Vec<u8>,
    /// The blocks that lie in the window.
    blocks: Range<usize>,
    /// Where the window's first block starts in the file.
    window_at: usize,
    block: usize,
    /// Where the block lies in the window.
    bytes: Range<usize>,
    /// The number of the next entry of the block.
    next: usize,
    row: Vec<u8>,
    stamp: Lsn,
    /// Where the value lies in the window.
    value: Option<Range<usize>>,
}

impl Run {
    /// Every version, in version order.
    pub(crate) fn walk(self: &Arc<Self>) -> RunWalker {
        RunWalker {
            run: Arc::clone(self),
            window: Vec::new(),
            blocks: 0..0,
            window_at: 0,
            block: 0,
            bytes: 0..0,
            next: 0,
            row: Vec::new(),
            stamp: Lsn::ZERO,
            value: None,
        }
    }
}

impl RunWalker {
    /// Goes to the block `number`, reads the window that it begins if need be.
    fn enter(&mut self, number: usize) -> Result<(), StorageError> {
        if !self.blocks.contains(&number) {
            self.read_window(number)?;
        }
        let (start, end) = self.run.bounds(number);
        self.bytes = start - self.window_at..end - self.window_at;
        let bytes = self.window.get(self.bytes.clone()).unwrap_or_default();
        self.run
            .verify_bytes(number, bytes)
            .map_err(|what| self.run.corrupt(number, what))?;
        self.block = number;
        self.next = 0;
        Ok(())
    }

    fn read_window(&mut self, first: usize) -> Result<(), StorageError> {
        let (start, mut end) = self.run.bounds(first);
        let mut behind = first + 1;
        while behind < self.run.blocks() {
            let (_, next_end) = self.run.bounds(behind);
            if next_end - start > WINDOW_BYTES {
                break;
            }
            (end, behind) = (next_end, behind + 1);
        }
        // Zeros, which no checksum fits, where the file has become shorter.
        self.window.clear();
        self.window.resize(end - start, 0);
        let file = self.run.file();
        file.read_at(start as u64, &mut self.window)?;
        (self.window_at, self.blocks) = (start, first..behind);
        Ok(())
    }

    /// Takes the next entry of the block that the walk is in, if there is one.
    fn take(&mut self) -> bool {
        let bytes = self.window.get(self.bytes.clone()).unwrap_or_default();
        let Some((block, entry)) = Block::new(bytes)
            .ok()
            .and_then(|block| Some((block, block.entry(self.next)?)))
        else {
            return false;
        };
        self.next += 1;
        block.row_into(entry.suffix, &mut self.row);
        self.stamp = entry.stamp;
        let shift = self.bytes.start;
        self.value = entry
            .value
            .map(|value| value.start + shift..value.end + shift);
        true
    }
}

impl Walker for RunWalker {
    fn advance(&mut self) -> Result<bool, StorageError> {
        if self.take() {
            return Ok(true);
        }
        let next = if self.blocks.is_empty() {
            0
        } else {
            self.block + 1
        };
        if next >= self.run.blocks() {
            return Ok(false);
        }
        self.enter(next)?;
        Ok(self.take())
    }

    fn version(&self) -> VersionRef<'_> {
        let value = self.value.as_ref();
        VersionRef {
            row: &self.row,
            stamp: self.stamp,
            value: value.map(|value| self.window.get(value.clone()).unwrap_or_default()),
        }
    }
}
