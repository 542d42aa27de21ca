//! Neighbouring entries of a block, shown one after the other: the inner loop of a scan.
//!
//! Called by cursors that have nothing left to decide about them.
//! 1. A row is put together in one buffer, in which the block's prefix stays.
//! 2. Where the rows are of one length and the values too, the columns are walked without looking anything up.

use std::ops::{ControlFlow, Range};

use super::block::Block;

impl Block<'_> {
    /// Shows the entries `entries` but tombstones, row and value, until `see` breaks. `row`, which begins with the
    /// block's prefix already if it `is_prefixed`, is the last row shown afterwards. The number behind the last entry looked at, and whether `see` broke there.
    #[inline]
    pub(super) fn show(
        &self,
        entries: Range<usize>,
        row: &mut Vec<u8>,
        is_prefixed: bool,
        see: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> (usize, ControlFlow<()>) {
        let prefix_bytes = self.prefix().len();
        let mut next = entries.start;
        if let Some((suffixes, values)) = self.even_columns(entries.clone()) {
            if !is_prefixed {
                row.clear();
                row.extend_from_slice(self.prefix());
            }
            if row.len() != prefix_bytes + suffixes.width {
                row.resize(prefix_bytes + suffixes.width, 0);
            }
            let suffixes = suffixes.bytes.chunks_exact(suffixes.width);
            for (suffix, value) in suffixes.zip(values.bytes.chunks_exact(values.width)) {
                if let Some(behind) = row.get_mut(prefix_bytes..) {
                    copy_short(behind, suffix);
                }
                next += 1;
                if see(row, value).is_break() {
                    return (next, ControlFlow::Break(()));
                }
            }
            return (next, ControlFlow::Continue(()));
        }
        for at in entries {
            next = at + 1;
            let value = self.value(at).flatten();
            let Some((suffix, value)) = self.suffix(at).zip(value) else {
                continue;
            };
            self.row_into(suffix, row);
            if see(row, self.bytes_at(value)).is_break() {
                return (next, ControlFlow::Break(()));
            }
        }
        (next, ControlFlow::Continue(()))
    }
}

/// Copies a row's end, which is seldom long: in words that overlap, where calling a copy costs more than it does.
#[inline]
fn copy_short(to: &mut [u8], from: &[u8]) {
    let words = (from.first_chunk::<8>(), from.last_chunk::<8>());
    if let (9..=16, (Some(first), Some(last))) = (from.len(), words)
        && to.len() == from.len()
    {
        // Of the same length: both are there.
        if let Some(to) = to.first_chunk_mut() {
            *to = *first;
        }
        if let Some(to) = to.last_chunk_mut() {
            *to = *last;
        }
        return;
    }
    let halves = (from.first_chunk::<4>(), from.last_chunk::<4>());
    if let (4..=8, (Some(first), Some(last))) = (from.len(), halves)
        && to.len() == from.len()
    {
        if let Some(to) = to.first_chunk_mut() {
            *to = *first;
        }
        if let Some(to) = to.last_chunk_mut() {
            *to = *last;
        }
        return;
    }
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}
