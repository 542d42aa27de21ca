//! Many rows with their effects side by side in few pieces of memory: what a large write set is from the
//! call that made it to the run that it ends in.
//!
//! Made by the engine while it logs a call that writes many rows, by [`WriteBatch`](crate::WriteBatch) and by
//! recovery; read by the memtable's chunks.
//! 1. Row and value are copied once, into a piece, and never moved again; whoever keeps one of them keeps its
//!    piece: [`PIECE_BYTES`]. A large one has a piece of its own.
//! 2. A place says where a row is. Sorting and merging move places.
//!
//! Crash: memory only.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use lockstone_base::RowKey;

/// What is taken from the allocator at once: enough to make that rare, little enough to be kept alive by a
/// reader that keeps one value.
pub(crate) const PIECE_BYTES: usize = 16 << 10;

/// Row and value above this have a piece of their own: a shared one would be left half empty.
const SHARED_BYTES_MAX: usize = PIECE_BYTES / 4;

/// Rows with what is done to each, in the order in which they were added or sorted.
#[derive(Debug, Default, Clone)]
pub struct PackedRows {
    pieces: Vec<Bytes>,
    places: Vec<Place>,
}

/// Where a row and its value are.
#[derive(Debug, Clone, Copy)]
struct Place {
    row: Start,
    value: Start,
    value_bytes: u32,
    row_bytes: u16,
    deleted: bool,
    /// Not in a piece that rows share.
    apart: bool,
}

const _: () = assert!(size_of::<Place>() == 24);

#[derive(Debug, Clone, Copy)]
struct Start {
    piece: u32,
    at: u32,
}

/// Neighbours that lie in one piece, or one that has a piece of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Sheet<'a> {
    /// Which rows.
    pub rows: Range<usize>,
    /// The piece that they share: what was packed, heads included. `None` for a row apart.
    pub shared: Option<&'a Bytes>,
}

impl PackedRows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What they take in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(Bytes::len).sum();
        pieces + self.places.len() * size_of::<Place>()
    }

    /// The encoded row number `index`.
    pub fn row(&self, index: usize) -> Option<&[u8]> {
        let place = self.places.get(index)?;
        self.slice(place.row, place.row_bytes.into())
    }

    /// The row number `index`.
    pub fn row_key(&self, index: usize) -> Option<RowKey> {
        let place = self.places.get(index)?;
        let (row, bytes) = (self.row(index)?, place.row_bytes.into());
        RowKey::from_part(row, || self.share(place.row, bytes).unwrap_or_default())
    }

    /// The encoded row number `index`, sharing its memory.
    pub fn row_shared(&self, index: usize) -> Option<Bytes> {
        let place = self.places.get(index)?;
        self.share(place.row, place.row_bytes.into())
    }

    /// The value that row number `index` gets; `None` if it is deleted, or not there.
    pub fn value(&self, index: usize) -> Option<&[u8]> {
        let place = self.places.get(index).filter(|place| !place.deleted)?;
        self.slice(place.value, place.value_bytes as usize)
    }

    /// What is done to row number `index`: the value that it gets, sharing its memory; `None` inside deletes it.
    pub fn effect(&self, index: usize) -> Option<Option<Bytes>> {
        let place = self.places.get(index)?;
        let value = || self.share(place.value, place.value_bytes as usize);
        Some(if place.deleted { None } else { value() })
    }

    /// Whether rows ascend strictly.
    pub fn is_sorted(&self) -> bool {
        (1..self.len()).all(|index| self.row(index - 1) < self.row(index))
    }

    /// The number of `row`, or of the first row behind it, of rows that are sorted.
    ///
    /// # Errors
    /// The row is not there.
    pub fn find(&self, row: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self
                .row(middle)
                .map_or(Ordering::Greater, |found| found.cmp(row))
            {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The rows in groups, as they lie in memory.
    pub fn sheets(&self) -> impl Iterator<Item = Sheet<'_>> {
        let together = |a: &Place, b: &Place| !a.apart && !b.apart && a.row.piece == b.row.piece;
        let mut end = 0;
        self.places.chunk_by(together).map(move |group| {
            let rows = end..end + group.len();
            end = rows.end;
            let first = group.first().filter(|first| !first.apart);
            Sheet {
                rows,
                shared: first.and_then(|first| self.pieces.get(first.row.piece as usize)),
            }
        })
    }

    /// Appends all rows of `other`.
    pub fn absorb(&mut self, other: Self) {
        let offset = self.pieces.len() as u32;
        self.pieces.extend(other.pieces);
        let moved = |start: Start| Start {
            piece: start.piece + offset,
            ..start
        };
        self.places
            .extend(other.places.into_iter().map(|place| Place {
                row: moved(place.row),
                value: moved(place.value),
                ..place
            }));
    }

    /// Sorts by row. Of a row that is there several times the one stays whose number `rank` makes the highest.
    pub fn sort(&mut self, rank: impl Fn(usize) -> u64) {
        let mut order: Vec<(u128, u32)> = (0..self.len())
            .map(|index| {
                (
                    first_bytes(self.row(index).unwrap_or_default()),
                    index as u32,
                )
            })
            .collect();
        let row = |number: u32| self.row(number as usize);
        order.sort_unstable_by(|(first_a, a), (first_b, b)| {
            let rows = first_a.cmp(first_b).then_with(|| row(*a).cmp(&row(*b)));
            rows.then_with(|| rank(*b as usize).cmp(&rank(*a as usize)))
        });
        order.dedup_by(|a, b| a.0 == b.0 && row(a.1) == row(b.1));
        let places = order
            .iter()
            .filter_map(|(_, number)| self.places.get(*number as usize).copied());
        self.places = places.collect();
    }

    fn slice(&self, start: Start, bytes: usize) -> Option<&[u8]> {
        let at = start.at as usize;
        self.pieces.get(start.piece as usize)?.get(at..at + bytes)
    }

    fn share(&self, start: Start, bytes: usize) -> Option<Bytes> {
        let at = start.at as usize;
        let piece = self.pieces.get(start.piece as usize)?;
        (at + bytes <= piece.len()).then(|| piece.slice(at..at + bytes))
    }
}

/// The first 16 bytes of a row, with zeros behind a shorter one: where these of two rows differ, the rows
/// are ordered as they are.
fn first_bytes(row: &[u8]) -> u128 {
    let mut first = [0; 16];
    for (to, from) in first.iter_mut().zip(row) {
        *to = *from;
    }
    u128::from_be_bytes(first)
}

/// Packs rows.
#[derive(Debug, Default)]
pub struct RowPacker {
    packed: PackedRows,
    /// The piece that is being filled: number `packed.pieces.len()`.
    filling: Vec<u8>,
}

impl RowPacker {
    /// Adds a row that gets `value`, in front of it `head`: what else its reader wants to find there. A row
    /// that gets a piece of its own has no head.
    pub fn put(&mut self, head: &[u8], row: [&[u8]; 2], value: &[u8]) {
        let row_bytes = row[0].len() + row[1].len();
        let bytes = head.len() + row_bytes + value.len();
        let apart = bytes > SHARED_BYTES_MAX;
        if apart || self.filling.len() + bytes > PIECE_BYTES {
            self.seal();
        }
        if self.filling.capacity() < bytes {
            self.filling = Vec::with_capacity(if apart { bytes } else { PIECE_BYTES });
        }
        if !apart {
            self.filling.extend_from_slice(head);
        }
        let start = |at: usize| Start {
            piece: self.packed.pieces.len() as u32,
            at: at as u32,
        };
        let at = self.filling.len();
        self.packed.places.push(Place {
            row: start(at),
            value: start(at + row_bytes),
            value_bytes: value.len() as u32,
            row_bytes: row_bytes as u16,
            deleted: false,
            apart,
        });
        for part in [row[0], row[1], value] {
            self.filling.extend_from_slice(part);
        }
        if apart {
            self.seal();
        }
    }

    /// Adds a row with what is done to it. A large value stays where it is.
    pub fn add(&mut self, row: &RowKey, effect: Option<Bytes>) {
        match effect {
            Some(value) if row.as_bytes().len() + value.len() > SHARED_BYTES_MAX => {
                self.add_apart(row, value);
            }
            Some(value) => self.put(&[], [row.as_bytes(), &[]], &value),
            None => {
                self.put(&[], [row.as_bytes(), &[]], &[]);
                if let Some(place) = self.packed.places.last_mut() {
                    place.deleted = true;
                }
            }
        }
    }

    /// Adds a row that gets `value`, which stays where it is: in a piece of its own, whatever its length.
    pub fn add_apart(&mut self, row: &RowKey, value: Bytes) {
        // Others' piece must hold nothing but them: it goes into the log as it is.
        self.seal();
        self.put(&[], [row.as_bytes(), &[]], &[]);
        self.seal();
        let piece = self.packed.pieces.len() as u32;
        if let Some(place) = self.packed.places.last_mut() {
            place.apart = true;
            place.value = Start { piece, at: 0 };
            place.value_bytes = value.len() as u32;
        }
        self.packed.pieces.push(value);
    }

    /// The encoded row that was added last.
    pub fn last_row(&self) -> Option<&[u8]> {
        let place = self.packed.places.last()?;
        let (at, bytes) = (place.row.at as usize, usize::from(place.row_bytes));
        if place.row.piece as usize == self.packed.pieces.len() {
            self.filling.get(at..at + bytes)
        } else {
            self.packed.slice(place.row, bytes)
        }
    }

    /// Ends the piece that is being filled. One that is far from full is copied to where it fits.
    fn seal(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        let piece = if self.filling.len() < self.filling.capacity() / 4 * 3 {
            let fitting = Bytes::copy_from_slice(&self.filling);
            self.filling.clear();
            fitting
        } else {
            Bytes::from(std::mem::take(&mut self.filling))
        };
        self.packed.pieces.push(piece);
    }

    /// All that was added.
    pub fn finish(mut self) -> PackedRows {
        self.seal();
        self.packed
    }
}

#[cfg(test)]
mod tests {
    use lockstone_base::TableId;
    use proptest::prelude::*;

    use super::*;

    fn row(key: u16) -> RowKey {
        RowKey::new(TableId(1), &key.to_be_bytes())
    }

    /// A row apart that was added by its parts once left its key at the end of its neighbours' sheet: logged with
    /// them, it made the log unreadable.
    #[test]
    fn a_large_row_added_leaves_nothing_in_its_neighbours_sheet() {
        let mut packer = RowPacker::default();
        packer.put(b"<>", [&[0, 0, 0, 1], &[0, 1]], b"value");
        packer.add(&row(2), Some(Bytes::from(vec![7; SHARED_BYTES_MAX])));
        packer.put(b"<>", [&[0, 0, 0, 1], &[0, 3]], b"value");
        let rows = packer.finish();
        let shared: Vec<_> = rows.sheets().map(|sheet| sheet.shared.cloned()).collect();
        let alone = |key: u8| {
            Some(Bytes::from(
                [b"<>\0\0\0\x01\0", &[key][..], b"value"].concat(),
            ))
        };
        assert_eq!(shared, [alone(1), None, alone(3)]);
        assert_eq!(rows.row(1), Some(row(2).as_bytes()));
    }

    #[test]
    fn sheets_hold_their_rows_with_heads_and_large_rows_stand_alone() {
        let mut packer = RowPacker::default();
        let large = vec![7; SHARED_BYTES_MAX];
        for key in 0..1000_u16 {
            let value = if key == 500 { &large[..] } else { b"value" };
            packer.put(b"<>", [&[0, 0, 0, 1], &key.to_be_bytes()], value);
            assert_eq!(packer.last_row(), Some(row(key).as_bytes()));
        }
        let rows = packer.finish();
        assert!(rows.is_sorted());
        let sheets: Vec<_> = rows.sheets().collect();
        assert_eq!(
            sheets.iter().map(|sheet| sheet.rows.len()).sum::<usize>(),
            1000
        );
        for sheet in &sheets {
            let alone = sheet.rows == (500..501);
            assert_eq!(sheet.shared.is_none(), alone);
            let Some(shared) = sheet.shared else { continue };
            let expected: Vec<u8> = sheet
                .rows
                .clone()
                .flat_map(|index| [b"<>", rows.row(index).unwrap(), b"value"].concat())
                .collect();
            assert_eq!(shared, &expected);
        }
        assert_eq!(rows.effect(500), Some(Some(Bytes::from(large))));
        assert_eq!((rows.effect(1000), rows.row(1000)), (None, None));
    }

    #[test]
    fn small_rows_between_large_ones_do_not_take_a_piece_each() {
        let mut packer = RowPacker::default();
        for key in 0..100_u16 {
            packer.add(&row(2 * key), Some(Bytes::from_static(b"small")));
            packer.add(
                &row(2 * key + 1),
                Some(vec![1; 2 * SHARED_BYTES_MAX].into()),
            );
        }
        let large = 100 * 2 * SHARED_BYTES_MAX;
        assert!(packer.finish().bytes() < large + 100 * 100);
    }

    proptest! {
        /// Against a plain map: of equal rows the highest rank stays.
        #[test]
        fn sorting_agrees_with_a_map(steps in prop::collection::vec((0u16..40, 0u8..3, any::<u8>()), 0..200)) {
            let mut model = std::collections::BTreeMap::new();
            let mut parts = [RowPacker::default(), RowPacker::default()];
            for (number, (key, kind, byte)) in steps.iter().enumerate() {
                let bytes = if *kind == 1 { SHARED_BYTES_MAX } else { 3 };
                let effect = (*kind > 0).then(|| Bytes::from(vec![*byte; bytes]));
                let part = number * parts.len() / steps.len();
                parts[part].add(&row(*key), effect.clone());
                model.insert(row(*key), effect);
            }
            let [first, second] = parts;
            let mut rows = first.finish();
            rows.absorb(second.finish());
            rows.sort(|index| index as u64);
            prop_assert!(rows.is_sorted());
            let found: Vec<_> = (0..rows.len()).map(|i| (rows.row_key(i).unwrap(), rows.effect(i).unwrap())).collect();
            prop_assert_eq!(found, model.into_iter().collect::<Vec<_>>());
        }
    }
}
