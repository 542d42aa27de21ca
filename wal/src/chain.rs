//! Points of the chain of frames, and the sparse index from positions to such points.
//!
//! Scan and flush fill the index; a checkpoint asks it where a recovery has to start (S3).
//! 1. A frame names its predecessor by a [`ChainPoint`] (G5).
//! 2. For any position from the oldest entry on, [`FrameIndex::point_at`] gives a point at or before
//!    the frame that holds it, less than [`SPACING_BYTES`] and one frame before.
//! 3. S3: for positions that do not fall, points do not fall: what lies below one that was given may be gone.
//!
//! Crash: memory only; the next scan builds it anew.

use lockstone_base::Lsn;

/// The end of a frame and the checksum of its header: what its successor names, and where a scan
/// can start.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ChainPoint {
    /// Where the frame ends, rounded up to a block.
    pub end: Lsn,
    /// The checksum of its header.
    pub crc: u32,
}

impl ChainPoint {
    /// Before the first frame of a database.
    pub const START: Self = Self {
        end: Lsn::ZERO,
        crc: 0,
    };
}

/// One entry per this many bytes of log: 4 GiB of log need 2 MiB of index.
const SPACING_BYTES: u64 = 64 << 10;

#[derive(Copy, Clone, Debug)]
struct Entry {
    start: Lsn,
    before: ChainPoint,
}

/// Chain points before some of the frames, ascending.
#[derive(Clone, Debug)]
pub(crate) struct FrameIndex {
    entries: Vec<Entry>,
    last: ChainPoint,
    /// The highest point that was given.
    given: ChainPoint,
}

impl FrameIndex {
    /// An index of no frames, whose next frame follows `from`.
    pub(crate) fn new(from: ChainPoint) -> Self {
        Self {
            entries: Vec::new(),
            last: from,
            given: from,
        }
    }

    /// The frame that starts at `start` and is `frame` to its successor has joined the chain.
    pub(crate) fn push(&mut self, start: Lsn, frame: ChainPoint) {
        assert!(
            self.last.end <= start && start < frame.end,
            "G5: frames join the chain in order"
        );
        let near = self
            .entries
            .last()
            .is_some_and(|entry| start.since(entry.start) < SPACING_BYTES);
        if !near {
            self.entries.push(Entry {
                start,
                before: self.last,
            });
        }
        self.last = frame;
    }

    /// The newest point.
    pub(crate) fn last(&self) -> ChainPoint {
        self.last
    }

    /// The point from which a scan meets the frame that holds `lsn`, and little before it; the
    /// newest point when `lsn` lies behind every frame.
    pub(crate) fn point_at(&mut self, lsn: Lsn) -> ChainPoint {
        let mut point = self.indexed(lsn);
        // The newest point, once given, is exact; the entry that covers it later lies before, and in a segment that
        // may have been recycled since.
        if point.end < self.given.end && self.given.end <= lsn {
            point = self.given;
        } else if self.given.end < point.end {
            self.given = point;
        }
        point
    }

    fn indexed(&self, lsn: Lsn) -> ChainPoint {
        if lsn >= self.last.end {
            return self.last;
        }
        let behind = self.entries.partition_point(|entry| entry.start <= lsn);
        let entry = behind
            .checked_sub(1)
            .and_then(|at| self.entries.get(at))
            .or_else(|| self.entries.first());
        entry.map_or(self.last, |entry| entry.before)
    }

    /// Nobody will ask for a position below `below` again.
    pub(crate) fn forget_below(&mut self, below: Lsn) {
        let behind = self.entries.partition_point(|entry| entry.start <= below);
        self.entries.drain(..behind.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(end: u64, crc: u32) -> ChainPoint {
        ChainPoint {
            end: Lsn::new(end),
            crc,
        }
    }

    /// Frames of 4 KiB from 4096 on, with the end's block number as their checksum.
    fn filled(frames: u32) -> FrameIndex {
        let mut index = FrameIndex::new(ChainPoint::START);
        for frame in 1..=frames {
            let start = Lsn::new(u64::from(frame) * 4096);
            index.push(start, point(start.get() + 4096, frame + 1));
        }
        index
    }

    #[test]
    fn every_position_maps_to_a_point_at_or_before_its_frame_and_near() {
        let mut index = filled(100);
        assert_eq!(index.entries.len(), 7, "sparse");
        for frame in 1..=100_u64 {
            let start = frame * 4096;
            for lsn in [start, start + 64, start + 4095] {
                let found = index.point_at(Lsn::new(lsn));
                assert!(found.end.get() <= start, "{found:?} is behind {start}");
                assert!(
                    start - found.end.get() <= SPACING_BYTES,
                    "{found:?} is far before {start}"
                );
            }
        }
    }

    #[test]
    fn a_position_behind_every_frame_maps_to_the_newest_point() {
        let mut index = filled(3);
        assert_eq!(index.point_at(Lsn::new(4 * 4096)), index.last());
        assert_eq!(index.point_at(Lsn::MAX), index.last());
        assert_eq!(
            FrameIndex::new(ChainPoint::START).point_at(Lsn::ZERO),
            ChainPoint::START
        );
    }

    /// A checkpoint with nothing in flight reads from the newest point on, and recycles what lies before it. The
    /// next one, with a transaction that began right behind, was once sent back to the entry's point before that:
    /// into a segment that was gone, and the database did not open again.
    #[test]
    fn points_that_were_given_are_not_fallen_behind() {
        let mut index = filled(3);
        let newest = index.last();
        assert_eq!(index.point_at(newest.end), newest);
        index.forget_below(newest.end);
        index.push(newest.end, point(newest.end.get() + 4096, 5));
        for behind in [0, 64, 4095] {
            let lsn = newest.end.plus(behind);
            assert_eq!(index.point_at(lsn), newest);
        }
        assert!(index.point_at(newest.end.plus(4096)).end > newest.end);
    }

    #[test]
    fn forgetting_keeps_what_the_limit_itself_needs() {
        let mut index = filled(100);
        let limit = Lsn::new(50 * 4096);
        let before = index.point_at(limit);
        index.forget_below(limit);
        assert_eq!(index.point_at(limit), before);
        assert!(index.entries.len() < 7);
    }
}
