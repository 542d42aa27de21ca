//! Walking all versions of a run, for a merge: from the device, a window of blocks at a time.
//!
//! Made by `Run::walk`.
//! 1. Every block is read with `pread` and verified anew, whatever readers of the map have found: a merge
//!    never carries damage on (F11).
//! 2. Memory: one window. The file is open while the walk goes on.
//! 3. The walk ends at the first error.
//! 4. V4: of an adopted run a row's first version that is alive is shown, and nothing else of the row.

use std::ops::Range;
use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::disk::DiskFile;

use super::layout::Layout;
use super::marks::Mark;
use super::reader::Run;
use super::window::{self, WINDOW_BYTES, Window};
use crate::error::StorageError;
use crate::version::VersionRef;
use crate::walk::Walker;

/// Every version of a run.
#[derive(Debug)]
pub(crate) struct RunWalker {
    run: Arc<Run>,
    file: Option<Arc<dyn DiskFile>>,
    window: Window,
    /// The block that is walked, and where it lies in the window.
    block: Option<(Layout, Range<usize>)>,
    /// The number of the block to be walked next.
    next_block: usize,
    /// The number of the next entry of the block.
    next: usize,
    row: Vec<u8>,
    /// Of an adopted run, the row shown last.
    passed: Option<Vec<u8>>,
    prefix_bytes: usize,
    stamp: Lsn,
    /// Where the value lies in the window.
    value: Option<Range<usize>>,
}

impl Run {
    /// Every version, in version order.
    pub(crate) fn walk(self: &Arc<Self>) -> RunWalker {
        RunWalker {
            run: Arc::clone(self),
            file: None,
            window: Window::default(),
            block: None,
            next_block: 0,
            next: 0,
            row: Vec::new(),
            passed: None,
            prefix_bytes: 0,
            stamp: Lsn::ZERO,
            value: None,
        }
    }
}

impl RunWalker {
    /// Goes to the next block; whether there is one.
    fn enter(&mut self) -> Result<bool, StorageError> {
        let (index, number) = (self.run.index()?, self.next_block);
        if number >= index.blocks() {
            return Ok(false);
        }
        if !self.window.has(number) {
            let file = match self.file.take() {
                Some(file) => file,
                None => self.run.reopen()?,
            };
            let blocks = window::ahead(index, number, WINDOW_BYTES);
            self.window.read(file.as_ref(), index, blocks)?;
            self.file = Some(file);
        }
        let place = self.window.place(index, number);
        let block = self
            .run
            .verify_bytes(index, number, self.window.get(place.clone()))?;
        self.row.clear();
        self.row.extend_from_slice(block.prefix());
        self.prefix_bytes = self.row.len();
        self.block = Some((block.layout(), place));
        self.next_block += 1;
        self.next = 0;
        Ok(true)
    }

    /// Takes the next entry of the block that the walk is in, if there is one.
    fn take(&mut self) -> bool {
        let Some((layout, place)) = &self.block else {
            return false;
        };
        let block = layout.of(self.window.get(place.clone()));
        while let Some(entry) = block.entry(self.next) {
            self.next += 1;
            self.row.truncate(self.prefix_bytes);
            self.row.extend_from_slice(entry.suffix);
            if self.run.is_adopted() {
                let is_dead = self.run.behind_dead(entry.stamp).is_some();
                if is_dead || self.passed.as_ref() == Some(&self.row) {
                    continue;
                }
                self.passed.get_or_insert_default().clone_from(&self.row);
            }
            self.stamp = self.run.stamp_of(entry.stamp);
            let shift = place.start;
            self.value = entry
                .value
                .map(|value| value.start + shift..value.end + shift);
            return true;
        }
        false
    }
}

impl RunWalker {
    /// The mark of the version that the walk has come to, if the run is a spill.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let (layout, place) = self.block.as_ref()?;
        let block = layout.of(self.window.get(place.clone()));
        block.mark(self.next.checked_sub(1)?)
    }
}

impl Walker for RunWalker {
    fn advance(&mut self) -> Result<bool, StorageError> {
        while !self.take() {
            if !self.enter()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn version(&self) -> VersionRef<'_> {
        let value = self.value.as_ref();
        VersionRef {
            row: &self.row,
            stamp: self.stamp,
            value: value.map(|value| self.window.get(value.clone())),
        }
    }
}
