//! Checking a whole run: every block from the disk, and what no single block shows.
//!
//! Called by `Store::check`.
//! 1. Read-only; what is found is told, all of it, not only the first.
//! 2. Every block is read anew with `pread`, whatever its first touch found.

use std::sync::Arc;

use bytes::Bytes;

use super::filter;
use super::reader::Run;
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
}

impl Run {
    /// Reads every block and compares it with index, filter and footer.
    pub(crate) fn check(self: &Arc<Self>) -> RunCheck {
        let mut check = RunCheck::default();
        let mut counts = Counts::default();
        let mut before = None;
        for number in 0..self.index.blocks() {
            match self.check_block(number, &mut counts, &mut before) {
                Ok(()) => check.blocks += 1,
                Err(error) => check.findings.push(error),
            }
        }
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

    fn check_block(
        &self,
        number: usize,
        counts: &mut Counts,
        before: &mut Option<Bytes>,
    ) -> Result<(), StorageError> {
        self.verify(number)?;
        let block = self.block(number)?;
        for entry in (0..block.len()).map_while(|index| block.entry(index)) {
            let row = block.row(entry.suffix);
            let stamp = entry.stamp.get();
            counts.versions += 1;
            counts.tombstones += u64::from(entry.value.is_none());
            counts.oldest = Some(counts.oldest.map_or(stamp, |oldest| oldest.min(stamp)));
            counts.newest = counts.newest.max(Some(stamp));
            if before.as_ref() != Some(&row) {
                counts.rows += 1;
                if !filter::may_contain(&self.filter, row_hash(self.salt(), &row)) {
                    let what = Damage::malformed(Section::Filter, "it denies a row that is there");
                    return Err(self.corrupt_at(self.footer.filter_at.get(), what));
                }
                *before = Some(row);
            }
        }
        Ok(())
    }
}
