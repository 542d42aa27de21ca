//! Reading a run anew: all of it for a check, which also sees what no single block shows, and a part at a
//! time for the scrubber, which finds what has gone bad since the first touch.
//!
//! Called by `Store::check` and `Store::scrub`.
//! 1. The file is never written; what is found is told, all of it, not only the first.
//! 2. Everything is read with `pread`, whatever its first touch found.
//! 3. Both have the page cache forget what they read, before and after. Pages that a reader has touched in the map
//!    stay, and are checked as they are in memory: what has gone bad below them is found when they are used no more.
//!    They are not torn out of the map on purpose: from a bad device a reader would get a signal for them (F6).
//! 4. F6: what the page cache was told to forget is trusted by nobody, so its next reader reads it with `pread`.
//!    Neither gives trust, however intact it has found something.

use std::ops::Range;

use lockstone_base::disk::DiskFile;

use super::block::Block;
use super::filter;
use super::index::Index;
use super::reader::Run;
use super::window::{self, WINDOW_BYTES, Window};
use crate::error::{Damage, Section, StorageError};
use crate::row_hash::row_hash;

/// What a check of one run found.
#[derive(Debug, Default)]
pub(crate) struct RunCheck {
    pub(crate) blocks: u64,
    pub(crate) versions: u64,
    pub(crate) findings: Vec<StorageError>,
}

/// What the footer counts.
#[derive(Debug, Default)]
struct Counts {
    versions: u64,
    rows: u64,
    tombstones: u64,
    oldest: Option<u64>,
    newest: Option<u64>,
    /// The row counted last.
    row: Option<Vec<u8>>,
}

impl Run {
    /// Reads index, filter and every block anew and compares them with each other and with the footer.
    pub(crate) fn check(&self) -> RunCheck {
        let mut check = RunCheck::default();
        let mut counts = Counts::default();
        let parts = self.reopen().and_then(|file| {
            self.forget_parts(file.as_ref());
            self.summary()?;
            Ok((self.verify_index()?, self.verify_filter()?, file))
        });
        let (index, filter, file) = match parts {
            Ok(parts) => parts,
            Err(error) => {
                check.findings.push(error);
                return check;
            }
        };
        let all = 0..index.blocks();
        self.forget_blocks(file.as_ref(), &index, all.clone());
        let mut window = Window::default();
        for number in all.clone() {
            let block = self
                .read_block(&index, file.as_ref(), &mut window, number)
                .and_then(|block| self.count(&block, &filter, &mut counts));
            match block {
                Ok(()) => check.blocks += 1,
                Err(error) => check.findings.push(error),
            }
        }
        self.forget_blocks(file.as_ref(), &index, all);
        check.versions = counts.versions;
        let footer = &self.footer;
        let agrees = counts.versions == footer.versions.get()
            && counts.rows == footer.rows.get()
            && counts.tombstones == footer.tombstones.get()
            && counts.oldest == Some(footer.oldest.get())
            && counts.newest == Some(footer.newest.get());
        if check.findings.is_empty() && !agrees {
            let what = Damage::malformed(Section::Footer, "it does not agree with the blocks");
            check
                .findings
                .push(self.corrupt_at(self.entry().bytes, what));
        }
        check
    }

    /// Reads the block `number`, with those ahead of it, and verifies it.
    fn read_block<'w>(
        &self,
        index: &Index,
        file: &dyn DiskFile,
        window: &'w mut Window,
        number: usize,
    ) -> Result<Block<'w>, StorageError> {
        if !window.has(number) {
            let blocks = window::ahead(index, number, WINDOW_BYTES);
            if window.read(file, index, blocks).is_err() {
                // Alone: a bad sector beside it is not its own failure.
                window.read(file, index, number..number + 1)?;
            }
        }
        self.verify_bytes(index, number, window.get(window.place(index, number)))
    }

    fn count(
        &self,
        block: &Block<'_>,
        filter: &[u8],
        counts: &mut Counts,
    ) -> Result<(), StorageError> {
        let mut row = Vec::new();
        for entry in (0..block.len()).map_while(|index| block.entry(index)) {
            block.row_into(entry.suffix, &mut row);
            let stamp = entry.stamp.get();
            counts.versions += 1;
            counts.tombstones += u64::from(entry.value.is_none());
            counts.oldest = Some(counts.oldest.map_or(stamp, |oldest| oldest.min(stamp)));
            counts.newest = counts.newest.max(Some(stamp));
            if counts.row.as_deref() != Some(row.as_slice()) {
                counts.rows += 1;
                if !filter::may_contain(filter, row_hash(self.salt(), &row)) {
                    let what = Damage::malformed(Section::Filter, "it denies a row that is there");
                    return Err(self.corrupt_at(self.footer.filter_at.get(), what));
                }
                let before = counts.row.get_or_insert_default();
                std::mem::swap(before, &mut row);
            }
        }
        Ok(())
    }

    /// Reads blocks anew, from the block `first` on, up to about `bytes` bytes, and index and filter likewise: all of it
    /// is verified again by its next reader, for whom what has gone bad under the map is an error. Where to go on,
    /// if there is more, and what was read. What fails goes to `found`, which says whether to go on behind it.
    pub(crate) fn scrub(
        &self,
        first: u64,
        bytes: u64,
        found: &mut dyn FnMut(StorageError) -> bool,
    ) -> (Option<u64>, u64) {
        let (filter_at, index_at) = (self.footer.filter_at.get(), self.footer.index_at.get());
        let parts = self.reopen().and_then(|file| {
            if first == 0 {
                self.forget_parts(file.as_ref());
            }
            let index = self.verify_index();
            Ok((index.map_err(|error| self.index.failed(error))?, file))
        });
        let (index, file) = match parts {
            Ok(parts) => parts,
            // Only an index that is intact leads to the blocks, and says what they should be.
            Err(error) => return ((!found(error)).then_some(first), 0),
        };
        let mut read = self.entry().bytes - index_at;
        if first == 0 {
            read += index_at - filter_at;
            if let Err(error) = self.verify_filter()
                && !found(self.filter.failed(error))
            {
                return (Some(0), read);
            }
        }
        // At least one block, however large the index is: a round comes to its end.
        let enough = bytes.max(read + 1);
        let mut window = Window::default();
        let mut number = first as usize;
        let upto = window::ahead(&index, number, bytes).end + 1;
        self.forget_blocks(file.as_ref(), &index, number..upto.min(index.blocks()));
        while number < index.blocks() && read < enough {
            let block = self.read_block(&index, file.as_ref(), &mut window, number);
            let (start, end) = index.bounds(number);
            read += end - start;
            if let Err(error) = block
                && !found(error)
            {
                break;
            }
            number += 1;
        }
        // Who scans a cold database takes no place from those who use it.
        self.forget_blocks(file.as_ref(), &index, first as usize..number);
        if !self.index.is_used() && !self.filter.is_used() {
            self.forget_parts(file.as_ref());
        }
        ((number < index.blocks()).then_some(number as u64), read)
    }

    /// Has the page cache forget index and filter.
    fn forget_parts(&self, file: &dyn DiskFile) {
        let (start, end) = (self.footer.filter_at.get(), self.entry().bytes);
        let distrust = || {
            self.index.distrust();
            self.filter.distrust();
        };
        // Before, and again what was verified meanwhile.
        distrust();
        file.forget_cached(start, end - start);
        distrust();
    }

    /// Has the page cache forget these blocks.
    fn forget_blocks(&self, file: &dyn DiskFile, index: &Index, blocks: Range<usize>) {
        if blocks.is_empty() {
            return;
        }
        let distrust = || blocks.clone().for_each(|block| self.distrust(block));
        let (start, _) = index.bounds(blocks.start);
        let (_, end) = index.bounds(blocks.end - 1);
        // Before, and again what was verified meanwhile.
        distrust();
        file.forget_cached(start, end - start);
        distrust();
    }
}
