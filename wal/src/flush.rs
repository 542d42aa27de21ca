//! Frames on their way to the device, and the chain of those that are there (G2, G3, G5).
//!
//! The leader's alone (`progress`); `pipeline` gives it what `staging` has sealed.
//! 1. A frame names the one before it, on the device or not yet, and says how far the log was durable
//!    when it was built: the *end* of the last durable frame (G3).
//! 2. Frames land in any order; they join the chain, and become durable, in the order of their positions.
//! 3. A failed write is final: it is never tried again (W11).
//!
//! A crash leaves of the frames in flight any whole, torn or absent, in any order: a later one may be
//! there without an earlier one, and no header of theirs says that the earlier one was durable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::Lsn;
use lockstone_base::disk::{AlignedBuf, DiskResult, LogWrite, LogWriter};
use parking_lot::{Mutex, MutexGuard};

use crate::chain::{ChainPoint, FrameIndex};
use crate::format::{FRAME_HEADER_BYTES, FrameFields, FrameHeader, Salt};
use crate::open_frame::{SealedFrame, padded};

/// A frame that was started.
#[derive(Debug)]
struct Aloft {
    start: Lsn,
    /// What it is to its successor.
    point: ChainPoint,
    /// What its header says to be durable.
    durable_through: Lsn,
    has_records: bool,
    landed: bool,
}

/// What comes of one write.
#[derive(Debug)]
pub(crate) struct Landed {
    /// Free again.
    pub(crate) buffer: AlignedBuf,
    /// How far the log has become durable; `None` while an earlier frame is in flight.
    pub(crate) durable: Option<Lsn>,
}

/// The frames in flight: the leader's.
#[derive(Debug)]
pub(crate) struct Flight {
    writer: Box<dyn LogWriter>,
    /// By position.
    aloft: VecDeque<Aloft>,
    /// The number of the first of them.
    first: u64,
    /// The last frame that was started, or that was there before.
    last: ChainPoint,
}

impl Flight {
    pub(crate) fn is_empty(&self) -> bool {
        self.aloft.is_empty()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.aloft.len() < self.writer.depth()
    }

    /// Waits until nothing is in flight, whatever comes of it.
    pub(crate) fn drain(&mut self) {
        self.writer.drain();
        self.aloft.clear();
    }
}

#[derive(Debug)]
pub(crate) struct Flush {
    salt: Salt,
    boot_epoch: u32,
    manifest_generation: AtomicU64,
    flight: Mutex<Flight>,
    /// Frames on the device, and no others.
    chain: Mutex<FrameIndex>,
    /// The end of the last durable frame that holds records.
    recorded: AtomicU64,
    /// What the last durable frame's header says to be durable.
    covered: AtomicU64,
}

impl Flush {
    /// Continues `chain`, the last frame of which is covered by the manifest that ends the recovery.
    pub(crate) fn new(
        writer: Box<dyn LogWriter>,
        chain: FrameIndex,
        salt: u64,
        boot_epoch: u32,
        manifest_generation: u64,
    ) -> Self {
        let last = chain.last();
        Self {
            salt: Salt::new(salt),
            boot_epoch,
            manifest_generation: AtomicU64::new(manifest_generation),
            flight: Mutex::new(Flight {
                aloft: VecDeque::with_capacity(writer.depth()),
                writer,
                first: 0,
                last,
            }),
            chain: Mutex::new(chain),
            recorded: AtomicU64::new(0),
            covered: AtomicU64::new(last.end.get()),
        }
    }

    /// The frames in flight, for whoever has the lead.
    pub(crate) fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock()
    }

    /// Builds the header of `frame` and sends it all on its way; the log is durable up to `durable`.
    pub(crate) fn start(&self, flight: &mut Flight, mut frame: SealedFrame, durable: Lsn) {
        assert!(
            durable <= flight.last.end && flight.last.end <= frame.start,
            "G3: frames start in order, behind what is durable"
        );
        let header = self.seal(&mut frame, flight.last, durable);
        let point = ChainPoint {
            end: frame.end(),
            crc: header.crc(),
        };
        flight.writer.start(LogWrite {
            tag: flight.first + flight.aloft.len() as u64,
            file: frame.segment.file.clone(),
            offset: frame.start.since(frame.segment.base),
            bytes: padded(frame.used) as usize,
            buffer: frame.buffer,
        });
        flight.last = point;
        flight.aloft.push_back(Aloft {
            start: frame.start,
            point,
            durable_through: durable,
            has_records: frame.records > 0,
            landed: false,
        });
    }

    /// Waits until one of the frames in flight is on the device.
    pub(crate) fn land(&self, flight: &mut Flight) -> DiskResult<Landed> {
        let written = flight.writer.finish()?;
        let at = written.tag.wrapping_sub(flight.first) as usize;
        let aloft = flight.aloft.get_mut(at);
        let aloft = aloft.expect("G2: what lands was in flight");
        assert!(!aloft.landed, "G2: a frame lands once");
        aloft.landed = true;
        let mut durable = None;
        while let Some(frame) = flight.aloft.pop_front_if(|frame| frame.landed) {
            flight.first += 1;
            self.join_chain(&frame);
            durable = Some(frame.point.end);
        }
        Ok(Landed {
            buffer: written.buffer,
            durable,
        })
    }

    fn join_chain(&self, frame: &Aloft) {
        self.chain.lock().push(frame.start, frame.point);
        self.covered
            .store(frame.durable_through.get(), Ordering::Release);
        if frame.has_records {
            self.recorded
                .store(frame.point.end.get(), Ordering::Release);
        }
    }

    /// Writes zeros behind the records and the header before them.
    fn seal(&self, frame: &mut SealedFrame, before: ChainPoint, durable: Lsn) -> FrameHeader {
        let bytes = frame.buffer.as_mut_bytes();
        let (bytes, _) = bytes.split_at_mut(padded(frame.used) as usize);
        if let Some(padding) = bytes.get_mut(frame.used..) {
            padding.fill(0);
        }
        let payload = bytes
            .get(FRAME_HEADER_BYTES..frame.used)
            .unwrap_or_default();
        let fields = FrameFields {
            payload_bytes: payload.len() as u32,
            records: frame.records,
            boot_epoch: self.boot_epoch,
            own: frame.start,
            before,
            durable_through: durable,
            manifest_generation: self.manifest_generation.load(Ordering::Acquire),
            payload_crc: self.salt.payload_crc(frame.start, payload),
        };
        let header = FrameHeader::new(&fields, &self.salt);
        header.encode_into(bytes);
        header
    }

    /// The end of the last durable frame that holds records: what has to be covered (G7).
    pub(crate) fn recorded(&self) -> Lsn {
        Lsn::new(self.recorded.load(Ordering::Acquire))
    }

    /// What the last durable frame's header says to be durable (G6).
    pub(crate) fn covered(&self) -> Lsn {
        Lsn::new(self.covered.load(Ordering::Acquire))
    }

    /// A manifest of this generation is durable: headers name it from now on.
    pub(crate) fn note_manifest(&self, generation: u64) {
        self.manifest_generation
            .fetch_max(generation, Ordering::AcqRel);
    }

    pub(crate) fn point_at(&self, lsn: Lsn) -> ChainPoint {
        self.chain.lock().point_at(lsn)
    }

    pub(crate) fn forget_below(&self, below: Lsn) {
        self.chain.lock().forget_below(below);
    }
}

#[cfg(test)]
mod tests;
