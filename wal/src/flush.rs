//! Writes frames to the device, one at a time, and keeps the chain of those that are there (G2, G3, G5).
//!
//! The leader's alone (`progress`); `log` gives it what `staging` has sealed.
//! 1. A frame names the one before it, and says how far the log was durable when it was built: the
//!    *end* of the last durable frame (G3).
//! 2. The chain holds frames that are on the device, and no others.
//! 3. A failed write is final: it is never tried again (W11).
//!
//! A crash leaves the frame in flight whole, torn or absent; nothing behind it.

use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::Lsn;
use lockstone_base::disk::DiskResult;
use parking_lot::Mutex;

use crate::chain::{ChainPoint, FrameIndex};
use crate::format::{FRAME_HEADER_BYTES, FrameFields, FrameHeader, Salt};
use crate::open_frame::{SealedFrame, padded};

#[derive(Debug)]
pub(crate) struct Flush {
    salt: Salt,
    boot_epoch: u32,
    manifest_generation: AtomicU64,
    chain: Mutex<FrameIndex>,
    /// The end of the last durable frame that holds records.
    recorded: AtomicU64,
    /// What the last durable frame's header says to be durable.
    covered: AtomicU64,
}

impl Flush {
    /// Continues `chain`, the last frame of which is covered by the manifest that ends the recovery.
    pub(crate) fn new(
        chain: FrameIndex,
        salt: u64,
        boot_epoch: u32,
        manifest_generation: u64,
    ) -> Self {
        let covered = AtomicU64::new(chain.last().end.get());
        Self {
            salt: Salt::new(salt),
            boot_epoch,
            manifest_generation: AtomicU64::new(manifest_generation),
            chain: Mutex::new(chain),
            recorded: AtomicU64::new(0),
            covered,
        }
    }

    /// Builds the header of `frame` and puts it all on the device.
    pub(crate) fn write(&self, frame: &mut SealedFrame, durable: Lsn) -> DiskResult<()> {
        let before = self.chain.lock().last();
        assert!(
            before.end == durable && durable <= frame.start,
            "G3: one frame is in flight, behind a durable one"
        );
        let bytes = frame.buffer.as_mut_bytes();
        let (frame_bytes, _) = bytes.split_at_mut(padded(frame.used) as usize);
        if let Some(padding) = frame_bytes.get_mut(frame.used..) {
            padding.fill(0);
        }
        let payload = frame_bytes
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
        header.encode_into(frame_bytes);
        let offset = frame.start.since(frame.segment.base);
        frame.segment.file.write_durable(offset, frame_bytes)?;
        let point = ChainPoint {
            end: frame.end(),
            crc: header.crc(),
        };
        self.chain.lock().push(frame.start, point);
        self.covered.store(durable.get(), Ordering::Release);
        if frame.records > 0 {
            self.recorded.store(point.end.get(), Ordering::Release);
        }
        Ok(())
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
