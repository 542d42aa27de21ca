//! What lies behind the end of the chain: the frame that continues it after all, or witnesses and remains.
//!
//! Called by `scan` when no frame is where the next one usually is; `tail` decides what it means (G6).
//! 1. Every block behind the end is looked at, in every segment: damage may take any number of frames, and
//!    any of those behind it may be the witness. No segment is longer than the log makes them, so that has
//!    a bound.
//! 2. Each byte enters a payload's checksum at most once, whatever lengths hostile headers give (F23).
//! 3. Several frames may have been in flight: a whole one behind a torn one was never acknowledged, and is
//!    counted apart.

use lockstone_base::Lsn;
use lockstone_base::limits::BLOCK_BYTES;

use crate::chain::ChainPoint;
use crate::error::WalError;
use crate::format::{Records, SEGMENT_HEADER_BYTES};
use crate::frames::{Block, Found, Frames, Place};
use crate::visit::{Leftover, TornTail};

/// A visitor is shown so many: a damaged log may have a frame in each block.
const LEFTOVERS_MAX: usize = 256;

/// What lies behind the end of the chain.
#[derive(Debug)]
pub(crate) enum Behind {
    /// The frame that continues it.
    Next(Found),
    /// Nothing that does.
    Rest(Survey),
}

/// Everything behind the end.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The header that says the log was durable furthest.
    pub(crate) witness: Option<Found>,
    /// The first frame, or what remains of it, and how much there is of all.
    pub(crate) tail: Option<TornTail>,
    pub(crate) leftovers: Vec<Leftover>,
    /// How far frames were counted already.
    counted: Lsn,
}

/// Looks at every block behind `end`.
pub(crate) fn behind(frames: &mut Frames<'_>, end: ChainPoint) -> Result<Behind, WalError> {
    let segments = frames.segments;
    let mut survey = Survey::default();
    let first = segments.partition_point(|segment| segment.end() <= end.end);
    for (at, segment) in segments.iter().enumerate().skip(first) {
        let start = end.end.since(segment.base).max(SEGMENT_HEADER_BYTES);
        for offset in (start..segment.bytes).step_by(BLOCK_BYTES) {
            let place = Place {
                segment: at,
                offset,
            };
            match frames.block_at(place)? {
                Block::Nothing => {}
                Block::Remains => survey.count(frames, place, BLOCK_BYTES as u64),
                Block::Header(found) => {
                    if let Some(next) = frames.successor_at(place, end)? {
                        return Ok(Behind::Next(next));
                    }
                    survey.note(frames, &found)?;
                }
            }
        }
    }
    Ok(Behind::Rest(survey))
}

impl Survey {
    /// How far a header says that the log was durable.
    pub(crate) fn durable_through(&self) -> Lsn {
        let witness = self.witness.as_ref();
        witness.map_or(Lsn::ZERO, |found| found.fields.durable_through)
    }

    fn note(&mut self, frames: &mut Frames<'_>, found: &Found) -> Result<(), WalError> {
        let fields = &found.fields;
        if self.witness.is_none() || self.durable_through() < fields.durable_through {
            self.witness = Some(*found);
        }
        // Within a frame that was read already, nothing but a forgery can look like another one.
        let is_apart = fields.own >= self.counted;
        let is_whole = is_apart
            && frames.payload_of(found)?.is_some_and(|payload| {
                let counted =
                    Records::of(payload).try_fold(0_u32, |count, record| record.map(|_| count + 1));
                counted == Ok(fields.records)
            });
        let point = found.point();
        self.count(frames, found.place, point.end.since(fields.own));
        if let Some(tail) = &mut self.tail {
            tail.frames += 1;
            tail.whole += u64::from(is_whole);
            tail.records = tail.records.saturating_add(fields.records.into());
        }
        if self.leftovers.len() < LEFTOVERS_MAX {
            self.leftovers.push(Leftover {
                frame: found.info(),
                file: frames.path_of(found.place),
                offset: found.place.offset,
                is_whole,
            });
        }
        Ok(())
    }

    /// Counts what starts at `place` and has `bytes`, as far as it lies in its segment and was not counted.
    fn count(&mut self, frames: &Frames<'_>, place: Place, bytes: u64) {
        let at = frames.lsn_of(place);
        let segment = frames.segments.get(place.segment);
        let end = segment.map_or(at, |segment| segment.end().min(at.plus(bytes)));
        let tail = self.tail.get_or_insert_with(|| TornTail {
            file: frames.path_of(place),
            offset: place.offset,
            at,
            bytes: 0,
            frames: 0,
            whole: 0,
            records: 0,
        });
        tail.bytes += end.since(at.max(self.counted));
        self.counted = self.counted.max(end);
    }
}
