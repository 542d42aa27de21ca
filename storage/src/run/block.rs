//! A data block: some versions in version order, with their common prefix written once.
//!
//! Built by the writer, searched in place by `Run` and its cursors.
//!
//! ```text
//! BlockHead { checksum, entries, prefix_bytes }  prefix  offset of each entry  entries
//! entry: EntryHead { stamp, value_bytes, suffix_bytes }  suffix  value
//! ```
//!
//! 1. About 4 KiB; a version that does not fit starts a new block, and a large value has one for itself.
//! 2. A block is [validated](Block::validate) as a whole at its first touch, together with its checksum;
//!    all the same every later access checks its bounds: no byte string makes it panic (F23).
//! 3. Nothing is decoded: a search compares in place.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use lockstone_base::Lsn;
use lockstone_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{BlockHead, EntryHead, TOMBSTONE};
use crate::checksum::Place;
use crate::error::{Damage, Section};
use crate::version::{VersionRef, version_order};

/// A block is closed before it grows beyond this, if it has an entry: a page of the device.
const BYTES_AIM: usize = 4096;

/// A row is at least a table's id and at most that and the longest key.
pub(crate) const ROW_BYTES: std::ops::RangeInclusive<usize> = 4..=4 + KEY_BYTES_MAX;

/// Versions on their way into a block.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    rows: Vec<u8>,
    values: Vec<u8>,
    entries: Vec<Pending>,
}

/// A version on its way: where its row and its value end.
#[derive(Debug, Clone, Copy)]
struct Pending {
    row_end: usize,
    value_end: usize,
    stamp: Lsn,
    deleted: bool,
}

impl BlockBuilder {
    /// Whether `next` is to start a new block.
    pub(super) fn is_full_for(&self, next: VersionRef<'_>) -> bool {
        let overhead = (self.entries.len() + 1) * (size_of::<U32>() + size_of::<EntryHead>());
        let content = self.rows.len() + self.values.len();
        let more = next.row.len() + next.value.map_or(0, <[u8]>::len);
        !self.entries.is_empty() && content + more + overhead > BYTES_AIM
    }

    pub(super) fn push(&mut self, version: VersionRef<'_>) {
        self.rows.extend_from_slice(version.row);
        self.values
            .extend_from_slice(version.value.unwrap_or_default());
        self.entries.push(Pending {
            row_end: self.rows.len(),
            value_end: self.values.len(),
            stamp: version.stamp,
            deleted: version.value.is_none(),
        });
    }

    /// The block's last version: row and stamp.
    pub(super) fn last(&self) -> Option<(&[u8], Lsn)> {
        let last = self.entries.last()?;
        let before = self.entries.len().checked_sub(2);
        let start = before.and_then(|before| self.entries.get(before));
        let start = start.map_or(0, |before| before.row_end);
        Some((self.rows.get(start..last.row_end)?, last.stamp))
    }

    /// Appends the block, which belongs at `place`, to `out` and starts anew; its checksum.
    pub(super) fn finish(&mut self, place: Place, out: &mut Vec<u8>) -> u32 {
        let first = self
            .entries
            .first()
            .and_then(|first| self.rows.get(..first.row_end));
        let prefix = match (first, self.last()) {
            (Some(first), Some((last, _))) => first.get(..common(first, last)).unwrap_or_default(),
            _ => &[],
        };
        let mut body = prefix.to_vec();
        let mut entries = Vec::with_capacity(self.rows.len() + self.values.len());
        let mut start = (0, 0);
        for pending in &self.entries {
            body.extend_from_slice(U32::new(entries.len() as u32).as_bytes());
            let row = self.rows.get(start.0 + prefix.len()..pending.row_end);
            let suffix = row.unwrap_or_default();
            let value = self.values.get(start.1..pending.value_end);
            let value = value.unwrap_or_default();
            let head = EntryHead {
                stamp: pending.stamp.get().into(),
                value_bytes: if pending.deleted {
                    TOMBSTONE
                } else {
                    value.len() as u32
                }
                .into(),
                suffix_bytes: (suffix.len() as u16).into(),
            };
            entries.extend_from_slice(head.as_bytes());
            entries.extend_from_slice(suffix);
            entries.extend_from_slice(value);
            start = (pending.row_end, pending.value_end);
        }
        let mut head = BlockHead {
            checksum: 0.into(),
            entries: (self.entries.len() as u32).into(),
            prefix_bytes: (prefix.len() as u16).into(),
        };
        body.append(&mut entries);
        let checksum = sum(&head, place, &body);
        head.checksum = checksum.into();
        out.extend_from_slice(head.as_bytes());
        out.append(&mut body);
        self.rows.clear();
        self.values.clear();
        self.entries.clear();
        checksum
    }
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn sum(head: &BlockHead, place: Place, body: &[u8]) -> u32 {
    place.checksum(&[head.entries.as_bytes(), head.prefix_bytes.as_bytes(), body])
}

/// A block, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    prefix: &'a [u8],
    offsets: &'a [U32],
    entries: &'a [u8],
    /// Where the entries start in the block.
    entries_at: usize,
}

/// An entry of a block.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub(super) suffix: &'a [u8],
    pub(super) stamp: Lsn,
    /// Where the value lies in the block; `None`: a tombstone.
    pub(super) value: Option<Range<usize>>,
    /// Where the entry ends in the block.
    end: usize,
}

/// What a block must agree with.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    /// The last version of the block before, or the row that begins the run.
    pub(super) before: Result<(&'a [u8], Lsn), &'a [u8]>,
    /// Its last version.
    pub(super) last: (&'a [u8], Lsn),
    /// The oldest and the newest stamp of the run.
    pub(super) stamps: (Lsn, Lsn),
}

impl<'a> Block<'a> {
    /// The block whose bytes are `bytes`, unchecked but for what is needed to find its parts.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Damage> {
        let cut = malformed("it is cut off");
        let (head, rest) = BlockHead::ref_from_prefix(bytes).map_err(|_| cut)?;
        let (prefix, rest) = rest
            .split_at_checked(head.prefix_bytes.get().into())
            .ok_or(cut)?;
        let (offsets, entries) =
            <[U32]>::ref_from_prefix_with_elems(rest, head.entries.get() as usize)
                .map_err(|_| cut)?;
        Ok(Self {
            prefix,
            offsets,
            entries,
            entries_at: bytes.len() - entries.len(),
        })
    }

    /// Whether the block's `bytes` are those that were written at `place`.
    pub(super) fn verify(bytes: &[u8], place: Place, checksum: u32) -> Result<(), Damage> {
        let (head, body) =
            BlockHead::ref_from_prefix(bytes).map_err(|_| malformed("it is cut off"))?;
        if head.checksum.get() == checksum && checksum == sum(head, place, body) {
            Ok(())
        } else {
            Err(Damage::Checksum(Section::Block))
        }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The entry number `index`; `None` behind the last one, and if the block is malformed.
    pub(super) fn entry(&self, index: usize) -> Option<Entry<'a>> {
        let start = self.offsets.get(index)?.get() as usize;
        let (head, behind) = EntryHead::ref_from_prefix(self.entries.get(start..)?).ok()?;
        let suffix = behind.get(..usize::from(head.suffix_bytes.get()))?;
        let value_at = self.entries_at + start + size_of::<EntryHead>() + suffix.len();
        let (value, end) = match head.value_bytes.get() {
            TOMBSTONE => (None, value_at),
            bytes => (
                Some(value_at..value_at + bytes as usize),
                value_at + bytes as usize,
            ),
        };
        Some(Entry {
            suffix,
            stamp: Lsn::new(head.stamp.get()),
            value,
            end,
        })
    }

    /// The row of an entry with this suffix.
    pub(super) fn row(&self, suffix: &[u8]) -> Bytes {
        let mut row = Vec::with_capacity(self.prefix.len() + suffix.len());
        row.extend_from_slice(self.prefix);
        row.extend_from_slice(suffix);
        Bytes::from(row)
    }

    /// Makes `row` the row of an entry with this suffix.
    pub(super) fn row_into(&self, suffix: &[u8], row: &mut Vec<u8>) {
        row.clear();
        row.extend_from_slice(self.prefix);
        row.extend_from_slice(suffix);
    }

    /// How the row with this suffix compares with `row`.
    pub(super) fn compare(&self, suffix: &[u8], row: &[u8]) -> Ordering {
        match row.split_at_checked(self.prefix.len()) {
            Some((head, tail)) => self.prefix.cmp(head).then_with(|| suffix.cmp(tail)),
            None => self.prefix.cmp(row).then(Ordering::Greater),
        }
    }

    /// How many entries stand before `place` in version order.
    pub(super) fn position(&self, place: (&[u8], Lsn)) -> usize {
        match self.behind_prefix(place) {
            Ok(tail) => self.search(tail, 0, self.len()),
            Err(position) => position,
        }
    }

    /// As [`Block::position`], where the place is likely to be found `share` of `u16::MAX` into the block:
    /// what is looked at lies side by side, as each other place may cost a miss of its own.
    pub(super) fn position_near(&self, place: (&[u8], Lsn), share: u16) -> usize {
        let tail = match self.behind_prefix(place) {
            Ok(tail) => tail,
            Err(position) => return position,
        };
        let len = self.len();
        let guess = (len * usize::from(share)) >> 16;
        let (mut low, mut high, mut step) = (0, len, 1);
        if self.is_before(guess, tail) {
            low = guess + 1;
            while low < high {
                let probe = low + step - 1;
                if !self.is_before(probe, tail) {
                    high = probe.min(len);
                    break;
                }
                low = probe + 1;
                step *= 2;
            }
        } else {
            high = guess;
            while low < high {
                let probe = high.saturating_sub(step);
                if self.is_before(probe, tail) {
                    low = probe + 1;
                    break;
                }
                high = probe;
                step *= 2;
            }
        }
        self.search(tail, low, high)
    }

    /// `place` without the block's prefix; the position, if its row does not begin so.
    fn behind_prefix<'p>(&self, place: (&'p [u8], Lsn)) -> Result<(&'p [u8], Lsn), usize> {
        let (row, stamp) = place;
        let head = row.get(..self.prefix.len()).unwrap_or(row);
        match self.prefix.cmp(head) {
            Ordering::Less => Err(self.len()),
            Ordering::Greater => Err(0),
            Ordering::Equal => {
                let tail = row.get(self.prefix.len()..);
                Ok((tail.unwrap_or_default(), stamp))
            }
        }
    }

    /// Whether the entry number `index` stands before a place; no entry is behind all.
    fn is_before(&self, index: usize, tail: (&[u8], Lsn)) -> bool {
        self.entry(index)
            .is_some_and(|entry| version_order((entry.suffix, entry.stamp), tail).is_lt())
    }

    /// How many entries stand before a place that is known to lie between two positions.
    fn search(&self, tail: (&[u8], Lsn), mut low: usize, mut high: usize) -> usize {
        while low < high {
            let middle = low.midpoint(high);
            if self.is_before(middle, tail) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Checks everything that a reader relies on.
    pub(super) fn validate(&self, expected: &Expected<'_>) -> Result<(), Damage> {
        if self.len() == 0 {
            return Err(malformed("it is empty"));
        }
        let mut end = self.entries_at;
        let mut before: Option<Entry<'_>> = None;
        for index in 0..self.len() {
            let entry = self.validate_entry(index, end, expected.stamps)?;
            end = entry.end;
            let ordered = match &before {
                Some(before) => {
                    version_order((before.suffix, before.stamp), (entry.suffix, entry.stamp))
                        .is_lt()
                }
                None => self.follows(&entry, expected),
            };
            if !ordered {
                return Err(malformed("its versions are out of order"));
            }
            before = Some(entry);
        }
        if end != self.entries_at + self.entries.len() {
            return Err(malformed("there is something behind its last entry"));
        }
        let (row, stamp) = expected.last;
        match before {
            Some(last) if last.stamp == stamp && self.compare(last.suffix, row).is_eq() => Ok(()),
            _ => Err(malformed("its last version is not the index's")),
        }
    }

    /// Checks one entry, which has to start where the one before it ends.
    fn validate_entry(
        &self,
        index: usize,
        end: usize,
        stamps: (Lsn, Lsn),
    ) -> Result<Entry<'a>, Damage> {
        let entry = self.entry(index).ok_or(malformed("an entry is cut off"))?;
        let start = self
            .offsets
            .get(index)
            .map_or(0, |offset| offset.get() as usize);
        let value_bytes = entry.value.as_ref().map_or(0, Range::len);
        let rules = [
            (
                self.entries_at + start == end,
                "its entries do not follow each other",
            ),
            (
                entry.end <= self.entries_at + self.entries.len(),
                "a value is cut off",
            ),
            (
                ROW_BYTES.contains(&(self.prefix.len() + entry.suffix.len())),
                "a row is too short or too long",
            ),
            (value_bytes <= VALUE_BYTES_MAX, "a value is too long"),
            (
                stamps.0 <= entry.stamp && entry.stamp <= stamps.1,
                "a stamp is not among the run's",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(malformed(rule)),
            None => Ok(entry),
        }
    }

    /// Whether the block may begin with `first`.
    fn follows(&self, first: &Entry<'_>, expected: &Expected<'_>) -> bool {
        match expected.before {
            Ok((row, stamp)) => match self.compare(first.suffix, row) {
                Ordering::Greater => true,
                Ordering::Equal => first.stamp < stamp,
                Ordering::Less => false,
            },
            Err(smallest) => self.compare(first.suffix, smallest).is_eq(),
        }
    }
}

fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Block, what)
}
