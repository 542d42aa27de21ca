//! A data block: some versions in version order, by columns: all rows, then all stamps, then all values.
//!
//! Built by `block_builder`, searched in place by `Run` and its cursors.
//!
//! ```text
//! BlockHead  prefix  [row ends]  rows without prefix  stamps  [tombstones]  [marks]  [value ends]  values
//! ```
//!
//! 1. What all entries have in common stands in the head alone: rows of one length and values of one length
//!    need no ends, versions of one stamp no stamps, a block without tombstones no bits for them. Else a
//!    row takes two bytes for its end, a value two, and a stamp as many as the block's stamps differ in.
//! 2. Rows lie side by side, so a search touches few cache lines, and of the values only what it finds.
//! 3. A block is [validated](Block::validate) as a whole at its first touch, together with its checksum;
//!    all the same every later access checks its bounds: no byte string makes it panic (F23).

use std::cmp::Ordering;
use std::ops::Range;

use lockstone_base::Lsn;
use lockstone_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use zerocopy::FromBytes;

use super::format::{BLOCK_HEAD_BYTES, BlockHead, MARKED, TOMBSTONES, VALUES_VARY};
use super::layout::{Even, Layout};
use super::marks::{self, Mark};
use crate::checksum::Place;
use crate::error::{Damage, Section};
use crate::version::version_order;

/// A row is at least a table's id and at most that and the longest key.
pub(crate) const ROW_BYTES: std::ops::RangeInclusive<usize> = 4..=4 + KEY_BYTES_MAX;

/// A block, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

/// An entry of a block.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub(super) suffix: &'a [u8],
    pub(super) stamp: Lsn,
    /// Where the value lies in the block; `None`: a tombstone.
    pub(super) value: Option<Range<usize>>,
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

impl Layout {
    /// The block whose bytes are `bytes`, from which this layout was made.
    pub(super) fn of<'a>(&self, bytes: &'a [u8]) -> Block<'a> {
        Block {
            bytes,
            layout: *self,
        }
    }
}

impl<'a> Block<'a> {
    /// The block whose bytes are `bytes`, unchecked but for what is needed to find its parts.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Damage> {
        Ok(Layout::new(bytes)?.of(bytes))
    }

    /// Whether the block's `bytes` are those that were written at `place`.
    pub(super) fn verify(bytes: &[u8], place: Place, checksum: u32) -> Result<(), Damage> {
        let (stored, body) = bytes
            .split_first_chunk()
            .ok_or(malformed("it is cut off"))?;
        if u32::from_le_bytes(*stored) == checksum && checksum == place.checksum(&[body]) {
            Ok(())
        } else {
            Err(Damage::Checksum(Section::Block))
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn len(&self) -> usize {
        self.layout.entries
    }

    pub(super) fn has_tombstones(&self) -> bool {
        self.layout.tombstones.is_some()
    }

    /// What all its rows begin with.
    pub(super) fn prefix(&self) -> &'a [u8] {
        let prefix = BLOCK_HEAD_BYTES..BLOCK_HEAD_BYTES + self.layout.prefix_bytes;
        self.bytes.get(prefix).unwrap_or_default()
    }

    /// The row of the entry number `index`, without the prefix; `None` behind the last one, and if the block
    /// is malformed.
    #[inline]
    pub(super) fn suffix(&self, index: usize) -> Option<&'a [u8]> {
        if index >= self.layout.entries {
            return None;
        }
        let range = self.layout.rows.range(self.bytes, index)?;
        self.bytes.get(range)
    }

    /// The stamp of the entry number `index`.
    #[inline]
    pub(super) fn stamp(&self, index: usize) -> Option<Lsn> {
        let layout = &self.layout;
        if layout.stamp_bytes == 0 && index < layout.entries {
            return Some(Lsn::new(layout.oldest));
        }
        let mut delta = [0; 8];
        let start = layout.stamps + index * layout.stamp_bytes;
        let stored = self.bytes.get(start..start + layout.stamp_bytes)?;
        for (to, from) in delta.iter_mut().zip(stored) {
            *to = *from;
        }
        Some(Lsn::new(
            layout.oldest.saturating_add(u64::from_le_bytes(delta)),
        ))
    }

    /// Where the value of the entry number `index` lies in the block; the inner `None`: it is a tombstone.
    #[inline]
    #[expect(
        clippy::option_option,
        reason = "no such entry, or no value: two things"
    )]
    pub(super) fn value(&self, index: usize) -> Option<Option<Range<usize>>> {
        if let Some(tombstones) = self.layout.tombstones {
            let bits = self.bytes.get(tombstones + index / 8)?;
            if bits >> (index % 8) & 1 != 0 {
                return Some(None);
            }
        }
        self.layout.values.range(self.bytes, index).map(Some)
    }

    /// The mark of the entry number `index`, if the block is a spill's.
    #[inline]
    pub(super) fn mark(&self, index: usize) -> Option<Mark> {
        marks::mark(self.bytes, self.layout.marks?, self.len(), index)
    }

    /// What lies there in the block; nothing outside it.
    #[inline]
    pub(super) fn bytes_at(&self, place: Range<usize>) -> &'a [u8] {
        self.bytes.get(place).unwrap_or_default()
    }

    /// The rows without the prefix, and the values, of these entries, if all rows are of one length and all
    /// values, and none is a tombstone.
    pub(super) fn even_columns(&self, entries: Range<usize>) -> Option<(Even<'a>, Even<'a>)> {
        let layout = &self.layout;
        if layout.tombstones.is_some() || entries.end > layout.entries {
            return None;
        }
        let rows = layout.rows.even(self.bytes, entries.clone())?;
        Some((rows, layout.values.even(self.bytes, entries)?))
    }

    /// The entry number `index`; `None` behind the last one, and if the block is malformed.
    #[inline]
    pub(super) fn entry(&self, index: usize) -> Option<Entry<'a>> {
        Some(Entry {
            suffix: self.suffix(index)?,
            stamp: self.stamp(index)?,
            value: self.value(index)?,
        })
    }

    /// Makes `row` the row of an entry with this suffix.
    pub(super) fn row_into(&self, suffix: &[u8], row: &mut Vec<u8>) {
        row.clear();
        row.extend_from_slice(self.prefix());
        row.extend_from_slice(suffix);
    }

    /// As [`Block::row_into`], for a row that begins with the prefix already if it `is_prefixed`; whether it does
    /// now: always.
    #[inline]
    pub(super) fn row_again(&self, suffix: &[u8], row: &mut Vec<u8>, is_prefixed: bool) -> bool {
        if is_prefixed {
            row.truncate(self.layout.prefix_bytes);
            row.extend_from_slice(suffix);
        } else {
            self.row_into(suffix, row);
        }
        true
    }

    /// How the row with this suffix compares with `row`.
    pub(super) fn compare(&self, suffix: &[u8], row: &[u8]) -> Ordering {
        let prefix = self.prefix();
        match row.split_at_checked(prefix.len()) {
            Some((head, tail)) => prefix.cmp(head).then_with(|| suffix.cmp(tail)),
            None => prefix.cmp(row).then(Ordering::Greater),
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
        if self.is_before(guess, tail) {
            return self.search_behind(tail, guess + 1);
        }
        let (mut low, mut high, mut step) = (0, guess, 1);
        while low < high {
            let probe = high.saturating_sub(step);
            if self.is_before(probe, tail) {
                low = probe + 1;
                break;
            }
            high = probe;
            step *= 2;
        }
        self.search(tail, low, high)
    }

    /// How many entries stand before the first version of `row`, at least `from`: for few more than that in few
    /// steps.
    pub(super) fn position_from(&self, row: &[u8], from: usize) -> usize {
        match self.behind_prefix((row, Lsn::MAX)) {
            Ok(tail) => self.search_behind(tail, from),
            Err(position) => position.max(from),
        }
    }

    /// How many entries stand before a place, where all before `low` do.
    fn search_behind(&self, tail: (&[u8], Lsn), mut low: usize) -> usize {
        let (len, mut step) = (self.len(), 1);
        let mut high = len;
        while low < high {
            let probe = low + step - 1;
            if !self.is_before(probe, tail) {
                high = probe.min(len);
                break;
            }
            low = probe + 1;
            step *= 2;
        }
        self.search(tail, low, high)
    }

    /// `place` without the block's prefix; the position, if its row does not begin so.
    fn behind_prefix<'p>(&self, place: (&'p [u8], Lsn)) -> Result<(&'p [u8], Lsn), usize> {
        let (row, stamp) = place;
        let prefix = self.prefix();
        let head = row.get(..prefix.len()).unwrap_or(row);
        match prefix.cmp(head) {
            Ordering::Less => Err(self.len()),
            Ordering::Greater => Err(0),
            Ordering::Equal => {
                let tail = row.get(prefix.len()..);
                Ok((tail.unwrap_or_default(), stamp))
            }
        }
    }

    /// Whether the entry number `index` stands before a place; no entry is behind all.
    #[inline]
    fn is_before(&self, index: usize, tail: (&[u8], Lsn)) -> bool {
        let Some(suffix) = self.suffix(index) else {
            return false;
        };
        match order(suffix, tail.0) {
            Ordering::Equal => self.stamp(index).is_some_and(|stamp| stamp > tail.1),
            order => order.is_lt(),
        }
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
        self.validate_head()?;
        let mut value_end = self.layout.values.start;
        let mut before: Option<Entry<'_>> = None;
        for index in 0..self.len() {
            let entry = self.validate_entry(index, expected.stamps)?;
            let value = self.layout.values.range(self.bytes, index);
            value_end = value.map_or(value_end, |value| value.end);
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
        if value_end != self.bytes.len() {
            return Err(malformed("its values do not end where it ends"));
        }
        let (row, stamp) = expected.last;
        match before {
            Some(last) if last.stamp == stamp && self.compare(last.suffix, row).is_eq() => Ok(()),
            _ => Err(malformed("its last version is not the index's")),
        }
    }

    fn validate_head(&self) -> Result<(), Damage> {
        let (head, _) =
            BlockHead::ref_from_prefix(self.bytes).map_err(|_| malformed("it is cut off"))?;
        let unused = self.layout.tombstones.map_or(0, |bits| {
            let last = self.bytes.get(bits + self.len().saturating_sub(1) / 8);
            let used = (self.len() + 7) % 8 + 1;
            u32::from(last.copied().unwrap_or_default()) >> used
        });
        let rules = [
            (self.len() > 0, "it is empty"),
            (
                head.flags & !(TOMBSTONES | VALUES_VARY | MARKED) == 0,
                "it has flags that nobody knows",
            ),
            (
                usize::from(head.stamp_bytes) <= size_of::<u64>(),
                "its stamps are too long",
            ),
            (unused == 0, "there are tombstones behind its last entry"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(malformed(rule)),
            None => Ok(()),
        }
    }

    /// Checks one entry.
    fn validate_entry(&self, index: usize, stamps: (Lsn, Lsn)) -> Result<Entry<'a>, Damage> {
        let entry = self.entry(index).ok_or(malformed("an entry is cut off"))?;
        let value = self.layout.values.range(self.bytes, index);
        let value = value.unwrap_or_default();
        let rules = [
            (
                value.start <= value.end && value.end <= self.bytes.len(),
                "a value is cut off",
            ),
            (
                entry.value.is_some() || value.is_empty(),
                "a tombstone has a value",
            ),
            (
                ROW_BYTES.contains(&(self.layout.prefix_bytes + entry.suffix.len())),
                "a row is too short or too long",
            ),
            (value.len() <= VALUE_BYTES_MAX, "a value is too long"),
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

/// The order of two rows' ends: their first eight bytes decide most, without a call.
#[inline]
fn order(a: &[u8], b: &[u8]) -> Ordering {
    if let (Some(first), Some(other)) = (a.first_chunk(), b.first_chunk()) {
        let (first, other) = (u64::from_be_bytes(*first), u64::from_be_bytes(*other));
        if first != other {
            return first.cmp(&other);
        }
    }
    a.cmp(b)
}

fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Block, what)
}
