//! Where the next record goes: the open frame, the frames that wait to be written, the free buffers,
//! and the segments that are ready. Everything the append latch protects.
//!
//! Pure memory: `log` latches it, flushes what it seals and readies the segments it asks for.
//! 1. A position is given out only inside a segment that is ready: filled, named, headered, synced (G1).
//! 2. No record straddles frames; what does not fit the rest of a segment starts the next one (G4).
//! 3. Every promise of `rooms` can be kept, in any order, with flushes at any moment between them
//!    (G10): after each step [`Shape::keeps`] holds for what is promised. A promised record that may not
//!    fit the rest of the segment together with all others goes to the next segment at once.
//! 4. Nothing here allocates, waits or fails.
//!
//! Crash: memory only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::Lsn;
use lockstone_base::disk::AlignedBuf;

use crate::format::FRAME_HEADER_BYTES;
use crate::open_frame::{OpenFrame, Record, SealedFrame, padded};
use crate::rooms::Promise;
use crate::segment::Segment;

/// Beside those in flight: one is filled, one is promised, one waits.
const FRAME_BUFFERS_MIN: usize = 3;

/// How many buffers a log takes that has up to `in_flight` frames in flight.
pub(crate) const fn frame_buffers(in_flight: usize) -> usize {
    in_flight + FRAME_BUFFERS_MIN
}

/// Where a record was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The position of its first byte.
    pub lsn: Lsn,
    /// The position behind it: what to wait for.
    pub end: Lsn,
}

/// What has to come about before a record can be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// A buffer: a frame has to be written.
    Buffer,
    /// A segment has to be readied.
    Segment,
    /// Less must be promised to others.
    Rooms,
}

/// How a record can be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// Into the open frame.
    Join,
    /// Into a new frame in the current segment.
    NewFrame,
    /// Into a new frame in the next segment.
    NextSegment,
}

/// What counts for room.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// What the open frame takes, header included; `None` while it holds nothing.
    open: Option<usize>,
    /// What is left of the segment behind the open frame.
    left: u64,
    free_buffers: usize,
    /// What frames may take in the next segment, if it is ready.
    next: Option<u64>,
    frame_bytes: usize,
}

impl Shape {
    /// Whether `promised` can be kept from here on, whatever else is done (invariant 3).
    fn keeps(&self, promised: Promise) -> bool {
        let here = promised.padded <= self.left;
        let anywhere = here || self.next.is_some_and(|room| promised.padded <= room);
        let fits_fresh = promised.bytes <= self.frame_bytes - FRAME_HEADER_BYTES;
        match self.open {
            None => fits_fresh && anywhere,
            Some(used) => {
                (here && promised.bytes <= self.frame_bytes - used)
                    || (self.free_buffers > 0 && fits_fresh && anywhere)
            }
        }
    }

    /// What placing `bytes` in this way leads to; `None` if it cannot be done.
    fn after(&self, placement: Placement, bytes: usize) -> Option<Self> {
        if placement == Placement::Join {
            let used = self.open?;
            let grown = used + bytes;
            let left = (self.left + padded(used)).checked_sub(padded(grown))?;
            return (grown <= self.frame_bytes).then_some(Self {
                open: Some(grown),
                left,
                ..*self
            });
        }
        let free_buffers = match self.open {
            None => self.free_buffers,
            Some(_) => self.free_buffers.checked_sub(1)?,
        };
        let (room, next) = match placement {
            Placement::NextSegment => (self.next?, None),
            _ => (self.left, self.next),
        };
        let used = FRAME_HEADER_BYTES + bytes;
        Some(Self {
            open: Some(used),
            left: room.checked_sub(padded(used))?,
            free_buffers,
            next,
            ..*self
        })
    }

    fn place(&self, bytes: usize, promised: Promise) -> Option<Placement> {
        let ways = [Placement::Join, Placement::NewFrame, Placement::NextSegment];
        ways.into_iter().find(|way| {
            self.after(*way, bytes)
                .is_some_and(|after| after.keeps(promised))
        })
    }
}

/// Everything the append latch protects.
#[derive(Debug)]
pub(crate) struct Staging {
    frame_bytes: usize,
    open: OpenFrame,
    /// Where the open frame starts; meant only while it holds something.
    open_start: Lsn,
    sealed: VecDeque<SealedFrame>,
    free: Vec<AlignedBuf>,
    buffers: usize,
    current: Arc<Segment>,
    /// Behind the last sealed frame of the current segment.
    tail: Lsn,
    /// Behind the last record, or the last frame.
    end: Lsn,
    /// The same, for those who look without the latch.
    published: Arc<AtomicU64>,
    next: Option<Arc<Segment>>,
    /// A filled spare is there: only then the next segment may be entered (G1).
    has_spare: bool,
    /// From here on the next segment is to be readied.
    ready_at: Lsn,
}

impl Staging {
    /// Starts in `current`, behind a chain that ended at `end`, with `buffers` of a frame's length.
    pub(crate) fn new(current: Arc<Segment>, end: Lsn, mut free: Vec<AlignedBuf>) -> Self {
        let buffers = free.len();
        let first = free.pop().expect("there is more than one frame buffer");
        let frame_bytes = first.as_bytes().len();
        let tail = current.first();
        let ready_at = low_water(&current);
        Self {
            frame_bytes,
            open: OpenFrame::new(first),
            open_start: tail,
            sealed: VecDeque::with_capacity(buffers),
            free,
            buffers,
            current,
            tail,
            end,
            published: Arc::new(AtomicU64::new(end.get())),
            next: None,
            has_spare: false,
            ready_at,
        }
    }

    /// Behind the last record, or the last frame.
    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    /// Where the end is published: never ahead of it, and not behind for whoever has the latch.
    pub(crate) fn published_end(&self) -> Arc<AtomicU64> {
        self.published.clone()
    }

    /// Behind the highest segment in which a position may be given out (F14).
    pub(crate) fn segments_end(&self) -> Lsn {
        self.next.as_ref().unwrap_or(&self.current).end()
    }

    /// Puts `record` where it fits beside what is promised, or says what is short.
    pub(crate) fn append(
        &mut self,
        record: &Record<'_>,
        promised: Promise,
    ) -> Result<Appended, Shortage> {
        let bytes = Promise::of_record(record.bytes()).bytes;
        let placement = self
            .shape()
            .place(bytes, promised)
            .ok_or_else(|| self.shortage())?;
        self.make_place(placement);
        let offset = self.open.push(record) as u64;
        let lsn = self.open_start.plus(offset);
        self.move_end(self.open_start.plus(self.open.used() as u64));
        assert!(
            self.current.holds(lsn) && self.end <= self.current.end(),
            "G4: a record lies in one ready segment"
        );
        Ok(Appended { lsn, end: self.end })
    }

    /// Whether `more` can be promised beside what is promised already.
    pub(crate) fn can_promise(&self, promised: Promise, more: Promise) -> Result<(), Shortage> {
        if self.shape().keeps(promised.plus(more)) {
            Ok(())
        } else {
            Err(self.shortage())
        }
    }

    /// A frame without records (G7); only while none with records waits.
    pub(crate) fn take_empty_frame(&mut self, promised: Promise) -> Result<SealedFrame, Shortage> {
        assert!(
            self.sealed.is_empty() && self.open.records() == 0,
            "G7: an empty frame is written when the log is idle"
        );
        let placement = self
            .shape()
            .place(0, promised)
            .ok_or_else(|| self.shortage())?;
        self.make_place(placement);
        Ok(self.seal_open())
    }

    /// The next frame to write: the oldest sealed one, else the open one if it holds records, header
    /// included at least `bytes`. There is a buffer to go on with: there are more than can be in flight.
    pub(crate) fn take_frame(&mut self, bytes: usize) -> Option<SealedFrame> {
        match self.sealed.pop_front() {
            None if self.open.records() > 0 && self.open.used() >= bytes => Some(self.seal_open()),
            oldest => oldest,
        }
    }

    /// How much has gathered: what the open frame holds, or a whole frame if full ones wait.
    pub(crate) fn gathered(&self) -> usize {
        if self.sealed.is_empty() {
            self.open.used()
        } else {
            self.frame_bytes
        }
    }

    /// The buffer of a frame that was written.
    pub(crate) fn give_back(&mut self, buffer: AlignedBuf) {
        assert!(
            self.free.len() < self.buffers,
            "a buffer is given back once"
        );
        self.free.push(buffer);
    }

    /// Whether it is time to ready the next segment, or the spare behind it.
    pub(crate) fn wants_segment(&self) -> bool {
        !self.is_next_ready() && self.end >= self.ready_at
    }

    pub(crate) fn is_next_ready(&self) -> bool {
        self.next.is_some() && self.has_spare
    }

    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// `segment` is ready behind the current one (G1); the spare became it.
    pub(crate) fn set_next(&mut self, segment: Arc<Segment>) {
        assert!(
            self.next.is_none() && segment.base >= self.current.end(),
            "G1: segments are readied in order, one ahead"
        );
        self.next = Some(segment);
        self.has_spare = false;
    }

    pub(crate) fn set_spare(&mut self) {
        self.has_spare = true;
    }

    /// No segment could be readied: try again only when a good part more was appended.
    pub(crate) fn put_off_ready(&mut self) {
        self.ready_at = self.end.plus(self.current.bytes / 16);
    }

    fn shape(&self) -> Shape {
        let open = (self.open.used() > FRAME_HEADER_BYTES).then(|| self.open.used());
        let behind = open.map_or(self.tail, |used| self.open_start.plus(padded(used)));
        Shape {
            open,
            left: self.current.end().since(behind),
            free_buffers: self.free.len(),
            next: self
                .next
                .as_ref()
                .filter(|_| self.has_spare)
                .map(|segment| segment.frame_room()),
            frame_bytes: self.frame_bytes,
        }
    }

    fn shortage(&self) -> Shortage {
        if self.free.is_empty() {
            Shortage::Buffer
        } else if !self.is_next_ready() {
            Shortage::Segment
        } else {
            Shortage::Rooms
        }
    }

    fn make_place(&mut self, placement: Placement) {
        if placement == Placement::Join {
            return;
        }
        if self.open.records() > 0 {
            let frame = self.seal_open();
            self.sealed.push_back(frame);
        }
        if placement == Placement::NextSegment {
            self.current = self
                .next
                .take()
                .expect("G1: the next segment was found ready");
            self.tail = self.current.first();
            self.ready_at = low_water(&self.current);
        }
        self.open_start = self.tail;
    }

    fn seal_open(&mut self) -> SealedFrame {
        let fresh = self
            .free
            .pop()
            .expect("G10: a frame is sealed only while a buffer is free");
        let frame = self
            .open
            .seal(fresh, self.open_start, Arc::clone(&self.current));
        assert!(
            frame.start >= self.tail && frame.end() <= self.current.end(),
            "G4: a frame lies in one segment"
        );
        self.tail = frame.end();
        self.move_end(frame.end());
        frame
    }

    fn move_end(&mut self, end: Lsn) {
        self.end = end;
        self.published.store(end.get(), Ordering::Release);
    }
}

/// When three quarters of a segment are used, the next is readied.
fn low_water(segment: &Segment) -> Lsn {
    segment.base.plus(segment.bytes - segment.bytes / 4)
}

#[cfg(test)]
mod tests;
