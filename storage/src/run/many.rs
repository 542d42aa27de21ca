//! Looking up many rows of a run together: what each waits for is fetched for several at once.
//!
//! Called through the tree.
//! 1. A look-up waits for memory three or four times, each time for an address that the wait before has told.
//!    Rows are looked up in groups and in stages, so that the waits of a group overlap: all filters, all
//!    cells of the index, all blocks' heads, the rows in them, the values.
//! 2. Blocks that have to come from the device are asked for before the first of them is waited for: those
//!    that were never touched, and all of them while look-ups have waited for the device.
//! 3. What is found is what [`Run::get`] finds.

use std::hint::black_box;

use lockstone_base::Lsn;
use lockstone_base::disk::major_faults;
use smallvec::SmallVec;

use super::block::Block;
use super::filter;
use super::index::{Index, Spot};
use super::reader::Run;
use crate::question::Question;

/// So many rows are looked up in stages: more than a processor's loads in flight, few enough for what they
/// fetch to stay in its cache.
const GROUP: usize = 32;

/// Where the rows of a group are.
type Spots = SmallVec<[Spot; GROUP]>;

/// What a cache line has, in bytes.
const LINE_BYTES: usize = 64;

impl Run {
    /// Answers those questions of which it has a version at or below `at`, and those that it fails.
    pub(crate) fn get_many(&self, questions: &mut [&mut Question<'_>], at: Lsn) {
        if at < self.entry().oldest {
            return;
        }
        let filter = match self.filter() {
            Ok(filter) => filter,
            Err(error) => {
                for question in questions {
                    question.take(Err(error.clone()));
                }
                return;
            }
        };
        let mut faults = major_faults();
        let mut waits = false;
        for group in questions.chunks_mut(GROUP) {
            let mut open = not_denied(filter, group);
            if open.is_empty() {
                continue;
            }
            match self.index() {
                Ok(index) => self.get_group(index, &mut open, at, waits),
                Err(error) => {
                    for question in open {
                        question.take(Err(error.clone()));
                    }
                }
            }
            let now = major_faults();
            waits = now > faults;
            faults = now;
        }
    }

    fn get_group(&self, index: &Index, open: &mut [&mut Question<'_>], at: Lsn, waits: bool) {
        let at = self.place_at(at);
        let places = open.iter().map(|question| (question.row, at));
        let spots: Spots = places.map(|place| index.spot(place)).collect();
        self.ask_for(index, &spots, waits);
        self.touch(index, &spots);
        for (question, spot) in open.iter_mut().zip(spots) {
            question.take(self.get_at(index, spot, (question.row, at)));
        }
    }

    /// Asks for blocks that are not in memory, as far as that is known.
    fn ask_for(&self, index: &Index, spots: &Spots, waits: bool) {
        for spot in spots {
            if waits || !self.trusts(spot.block) {
                let (start, end) = index.bounds(spot.block);
                self.will_need(start as usize..end as usize);
            }
        }
    }

    /// Reads a byte of each cache line that the look-ups will need, as far as it is known which.
    fn touch(&self, index: &Index, spots: &Spots) {
        let trusted = spots.iter().filter(|spot| self.trusts(spot.block));
        let blocks: SmallVec<[(&[u8], u16); GROUP]> = trusted
            .map(|spot| {
                let (start, end) = index.bounds(spot.block);
                (self.bytes(start as usize..end as usize), spot.share)
            })
            .collect();
        let heads = blocks.iter().fold(0, |sum, (block, _)| {
            sum ^ block.first().map_or(0, |byte| *byte)
        });
        let mut values: SmallVec<[&[u8]; GROUP]> = SmallVec::new();
        let mut rows = 0;
        for (bytes, share) in &blocks {
            let Ok(block) = Block::new(bytes) else {
                continue;
            };
            let guess = (block.len() * usize::from(*share)) >> 16;
            let suffix = block.suffix(guess).unwrap_or_default();
            rows ^= suffix.first().map_or(0, |byte| *byte);
            let value = block.value(guess).flatten();
            values.extend(value.and_then(|value| bytes.get(value)));
        }
        let lines = values.iter().flat_map(|value| value.chunks(LINE_BYTES));
        let lines = lines.take(GROUP * 4);
        let values = lines.fold(0, |sum, line| sum ^ line.first().map_or(0, |byte| *byte));
        black_box((heads, rows, values));
    }
}

/// Those questions of a group that the filter does not deny.
fn not_denied<'g, 'q>(
    filter: &[u8],
    group: &'g mut [&mut Question<'q>],
) -> SmallVec<[&'g mut Question<'q>; GROUP]> {
    let hashes = group.iter().map(|question| question.hash);
    let found: SmallVec<[bool; GROUP]> = hashes
        .map(|hash| filter::may_contain(filter, hash))
        .collect();
    let found = group.iter_mut().zip(found).filter(|(_, found)| *found);
    found.map(|(question, _)| &mut **question).collect()
}
