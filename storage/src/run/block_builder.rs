//! A data block on its way: versions are gathered, then written column by column.
//!
//! Called by the run writer; what a block is: `block`.
//! 1. A block is closed before it grows beyond 4 KiB, unless it has one entry alone.
//! 2. What all entries have in common is written once.

use lockstone_base::Lsn;
use zerocopy::IntoBytes;

use super::format::{
    BLOCK_HEAD_BYTES, BlockHead, END_BYTES, MARKED, TOMBSTONES, VALUES_VARY, VARIES,
};
use super::marks::{self, Mark};
use crate::checksum::Place;
use crate::version::VersionRef;

/// A block is closed before it grows beyond this, if it has an entry: a page of the device.
const BYTES_AIM: usize = 4096;

/// Versions on their way into a block.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    rows: Vec<u8>,
    values: Vec<u8>,
    entries: Vec<Pending>,
    /// How many bytes all rows have in common at their start.
    prefix_bytes: usize,
}

/// A version on its way: where its row and its value end.
#[derive(Debug, Clone, Copy)]
struct Pending {
    row_end: usize,
    value_end: usize,
    stamp: Lsn,
    deleted: bool,
    mark: Option<Mark>,
}

impl BlockBuilder {
    /// Whether `next` is to start a new block.
    pub(super) fn is_full_for(&self, next: VersionRef<'_>) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let entries = self.entries.len() + 1;
        let prefix = self.prefix_with(next.row);
        let rows = self.rows.len() + next.row.len() - entries * prefix;
        let values = self.values.len() + next.value.map_or(0, <[u8]>::len);
        let ends = entries * 2 * END_BYTES;
        BLOCK_HEAD_BYTES + prefix + rows + values + ends > BYTES_AIM
    }

    pub(super) fn push(&mut self, version: VersionRef<'_>, mark: Option<Mark>) {
        self.prefix_bytes = self.prefix_with(version.row);
        self.rows.extend_from_slice(version.row);
        self.values
            .extend_from_slice(version.value.unwrap_or_default());
        self.entries.push(Pending {
            row_end: self.rows.len(),
            value_end: self.values.len(),
            stamp: version.stamp,
            deleted: version.value.is_none(),
            mark,
        });
    }

    /// How many bytes all rows, and `next`, have in common at their start.
    fn prefix_with(&self, next: &[u8]) -> usize {
        if self.entries.is_empty() {
            return next.len();
        }
        let shared = self.rows.get(..self.prefix_bytes).unwrap_or_default();
        if next.starts_with(shared) {
            return shared.len();
        }
        let same = shared.iter().zip(next).take_while(|(a, b)| a == b);
        same.count()
    }

    /// Appends the block, which belongs at `place`, to `out` and starts anew; its checksum.
    pub(super) fn finish(&mut self, place: Place, out: &mut Vec<u8>) -> u32 {
        assert!(
            u16::try_from(self.entries.len()).is_ok(),
            "a block's entries are counted in two bytes"
        );
        let start = out.len();
        let stamps = self.entries.iter().map(|entry| entry.stamp.get());
        let oldest = stamps.clone().min().unwrap_or_default();
        let range = stamps.max().unwrap_or_default() - oldest;
        let stamp_bytes = size_of::<u64>() - range.leading_zeros() as usize / 8;
        let row_bytes = self.row_bytes();
        let value_bytes = self.value_bytes();
        let mut flags = 0;
        if self.entries.iter().any(|entry| entry.deleted) {
            flags |= TOMBSTONES;
        }
        if value_bytes.is_none() {
            flags |= VALUES_VARY;
        }
        let marks = self.entries.iter().filter_map(|entry| entry.mark);
        if marks.clone().next().is_some() {
            flags |= MARKED;
        }
        let head = BlockHead {
            checksum: 0.into(),
            entries: (self.entries.len() as u16).into(),
            prefix_bytes: (self.prefix_bytes as u16).into(),
            row_bytes: row_bytes.map_or(VARIES, |bytes| bytes as u16).into(),
            stamp_bytes: stamp_bytes as u8,
            flags,
            value_bytes: (value_bytes.unwrap_or_default() as u32).into(),
            oldest: oldest.into(),
        };
        out.extend_from_slice(head.as_bytes());
        self.push_rows(row_bytes.is_none(), out);
        for entry in &self.entries {
            let delta = (entry.stamp.get() - oldest).to_le_bytes();
            out.extend_from_slice(delta.get(..stamp_bytes).unwrap_or_default());
        }
        self.push_tombstones(flags, out);
        if flags & MARKED != 0 {
            marks::push(marks, out);
        }
        if value_bytes.is_none() {
            push_ends(self.entries.iter().map(|entry| entry.value_end), out);
        }
        out.extend_from_slice(&self.values);
        let checksum = seal(out.get_mut(start..).unwrap_or_default(), place);
        self.rows.clear();
        self.values.clear();
        self.entries.clear();
        checksum
    }

    /// How long all rows are without the prefix, if they are of one length.
    fn row_bytes(&self) -> Option<usize> {
        let lengths = lengths(self.entries.iter().map(|entry| entry.row_end));
        let bytes = one(lengths)? - self.prefix_bytes;
        (bytes != usize::from(VARIES)).then_some(bytes)
    }

    /// How long all values are, if they are of one length.
    fn value_bytes(&self) -> Option<usize> {
        one(lengths(self.entries.iter().map(|entry| entry.value_end)))
    }

    /// Appends the prefix, the rows' ends if they vary, and the rows.
    fn push_rows(&self, vary: bool, out: &mut Vec<u8>) {
        let prefix = self.prefix_bytes;
        out.extend_from_slice(self.rows.get(..prefix).unwrap_or_default());
        if vary {
            let ends = (1..).zip(&self.entries);
            push_ends(ends.map(|(n, entry)| entry.row_end - n * prefix), out);
        }
        let mut start = 0;
        for entry in &self.entries {
            let suffix = self.rows.get(start + prefix..entry.row_end);
            out.extend_from_slice(suffix.unwrap_or_default());
            start = entry.row_end;
        }
    }

    fn push_tombstones(&self, flags: u8, out: &mut Vec<u8>) {
        if flags & TOMBSTONES != 0 {
            for eight in self.entries.chunks(8) {
                let bits = (0..).zip(eight);
                out.push(bits.fold(0, |bits, (bit, entry)| {
                    bits | u8::from(entry.deleted) << bit
                }));
            }
        }
    }
}

/// Puts the checksum of a block, which belongs at `place`, into its first bytes.
fn seal(block: &mut [u8], place: Place) -> u32 {
    let (stored, body) = block
        .split_first_chunk_mut()
        .expect("a block's head was just written");
    let checksum = place.checksum(&[body]);
    *stored = checksum.to_le_bytes();
    checksum
}

/// Appends ends, which count from the start of their column.
fn push_ends(ends: impl Iterator<Item = usize>, out: &mut Vec<u8>) {
    for end in ends {
        assert!(
            u16::try_from(end).is_ok(),
            "a block with several entries has less than 64 KiB"
        );
        out.extend_from_slice(&(end as u16).to_le_bytes());
    }
}

fn lengths(ends: impl Iterator<Item = usize> + Clone) -> impl Iterator<Item = usize> {
    let starts = std::iter::once(0).chain(ends.clone());
    ends.zip(starts).map(|(end, start)| end - start)
}

/// The one value of all, if they are equal.
fn one(mut values: impl Iterator<Item = usize>) -> Option<usize> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}
