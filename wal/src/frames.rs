//! Frames as they lie in the segments: what stands at a position, and whether it is whole.
//!
//! Called by `neighbours`, `survey` and `scan`, which decide what it means. Reading never mutates.
//! 1. A header counts only at its own place, under the database's salt (G3).
//! 2. Every header that is met is a witness: for the manifest that it names, and for its segment being in
//!    use (G6, G8).

use std::path::PathBuf;

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use lockstone_base::limits::BLOCK_BYTES;

use crate::chain::ChainPoint;
use crate::error::{WalError, Witness};
use crate::format::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_VERSION, FrameFields, FrameHeader, Salt,
    frame_signature,
};
use crate::segment::Segment;
use crate::visit::FrameInfo;
use crate::window::Window;

/// A place in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) segment: usize,
    pub(crate) offset: u64,
}

/// An intact header at its own place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) fields: FrameFields,
    pub(crate) crc: u32,
}

/// What stands in a block.
#[derive(Debug)]
pub(crate) enum Block {
    /// The start of a frame, its header intact.
    Header(Found),
    /// What was meant to be one.
    Remains,
    /// Anything else.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Frames<'a> {
    disk: &'a dyn Disk,
    /// All segments, by base.
    pub(crate) segments: &'a [Segment],
    salt: Salt,
    window: Window<'a>,
    /// For each segment, whether a frame header is at its own place in it.
    framed: Vec<bool>,
    /// The header that names the newest manifest.
    newest: Option<Found>,
}

impl Found {
    /// Header and payload.
    pub(crate) fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.fields.payload_bytes as usize
    }

    /// What it is to its successor.
    pub(crate) fn point(&self) -> ChainPoint {
        let padded = self.bytes().next_multiple_of(BLOCK_BYTES) as u64;
        ChainPoint {
            end: self.fields.own.plus(padded),
            crc: self.crc,
        }
    }

    /// For visitors.
    pub(crate) fn info(&self) -> FrameInfo {
        FrameInfo {
            start: self.fields.own,
            point: self.point(),
            before: self.fields.before,
            records: self.fields.records,
            payload_bytes: self.fields.payload_bytes,
            boot_epoch: self.fields.boot_epoch,
            durable_through: self.fields.durable_through,
            manifest_generation: self.fields.manifest_generation,
        }
    }
}

impl<'a> Frames<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, segments: &'a [Segment], salt: u64) -> Self {
        Self {
            disk,
            segments,
            salt: Salt::new(salt),
            window: Window::new(segments),
            framed: vec![false; segments.len()],
            newest: None,
        }
    }

    /// The first block of a segment.
    pub(crate) fn first_block(&mut self, segment: usize) -> Result<&[u8], WalError> {
        self.window.read(segment, 0, BLOCK_BYTES)
    }

    /// The intact frame header at `place`.
    pub(crate) fn header_at(&mut self, place: Place) -> Result<Option<Found>, WalError> {
        let Some(segment) = self.segments.get(place.segment) else {
            return Ok(None);
        };
        let own = segment.base.plus(place.offset);
        let block = self.window.read(place.segment, place.offset, BLOCK_BYTES)?;
        let Some(header) = FrameHeader::decode(block, own, &self.salt) else {
            return Ok(None);
        };
        if header.version() > FRAME_VERSION {
            return Err(WalError::NewerFormat {
                file: self.path_of(place),
                offset: place.offset,
                version: header.version().into(),
            });
        }
        if let Some(framed) = self.framed.get_mut(place.segment) {
            *framed = true;
        }
        let found = Found {
            place,
            fields: header.fields(),
            crc: header.crc(),
        };
        let named = found.fields.manifest_generation;
        if self.newest_manifest().is_none_or(|newest| newest < named) {
            self.newest = Some(found);
        }
        Ok(Some(found))
    }

    /// What the block at `place` starts with.
    pub(crate) fn block_at(&mut self, place: Place) -> Result<Block, WalError> {
        if let Some(found) = self.header_at(place)? {
            return Ok(Block::Header(found));
        }
        let own = self.lsn_of(place);
        let block = self.window.read(place.segment, place.offset, BLOCK_BYTES)?;
        Ok(if frame_signature(block, own) {
            Block::Remains
        } else {
            Block::Nothing
        })
    }

    /// The payload behind a header, if all of it arrived.
    pub(crate) fn payload_of(&mut self, found: &Found) -> Result<Option<&[u8]>, WalError> {
        let bytes = found.bytes();
        if bytes > FRAME_BYTES_MAX {
            return Ok(None);
        }
        let Place { segment, offset } = found.place;
        let frame = self.window.read(segment, offset, bytes)?;
        let payload = frame.get(FRAME_HEADER_BYTES..bytes);
        let fields = &found.fields;
        let salt = &self.salt;
        Ok(payload.filter(|payload| salt.payload_crc(fields.own, payload) == fields.payload_crc))
    }

    /// The frame at `place`, if it is intact and follows `end`.
    pub(crate) fn successor_at(
        &mut self,
        place: Place,
        end: ChainPoint,
    ) -> Result<Option<Found>, WalError> {
        let follows = self.header_at(place)?;
        let Some(found) = follows.filter(|found| found.fields.before == end) else {
            return Ok(None);
        };
        let is_whole = self.payload_of(&found)?.is_some();
        Ok(is_whole.then_some(found))
    }

    /// Whether a frame header was met in the segment.
    pub(crate) fn is_framed(&self, segment: usize) -> bool {
        self.framed.get(segment).copied().unwrap_or_default()
    }

    /// The header that names the newest manifest of all that were met.
    pub(crate) fn newest(&self) -> Option<Found> {
        self.newest
    }

    fn newest_manifest(&self) -> Option<u64> {
        self.newest.map(|found| found.fields.manifest_generation)
    }

    pub(crate) fn lsn_of(&self, place: Place) -> Lsn {
        let segment = self.segments.get(place.segment);
        segment.map_or(Lsn::ZERO, |segment| segment.base.plus(place.offset))
    }

    /// The segment's file, or all of them where there is none.
    pub(crate) fn path_of(&self, place: Place) -> PathBuf {
        let segment = self.segments.get(place.segment);
        self.path(segment.map_or("wal-*", |segment| &segment.name))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }

    pub(crate) fn witness(&self, found: &Found) -> Witness {
        Witness::Frame {
            file: self.path_of(found.place),
            offset: found.place.offset,
            lsn: found.fields.own,
            durable_through: found.fields.durable_through,
            manifest_generation: found.fields.manifest_generation,
        }
    }

    pub(crate) fn corrupt(&self, place: Place, what: &'static str) -> WalError {
        WalError::Corrupt {
            file: self.path_of(place),
            offset: place.offset,
            lsn: self.lsn_of(place),
            what,
            witness: None,
        }
    }
}
