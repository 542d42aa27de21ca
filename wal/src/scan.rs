//! Walks the chain of frames and gathers what speaks about its end (G5, G6).
//!
//! Called by `segments`, for recovery and inspection alike. Reading never mutates.
//! 1. The next frame is the intact one at the end of this one that names this one, else the intact one
//!    in whatever segment above that does (G5). The first frame of a segment is looked at first, then
//!    every block: a damaged segment header loses nothing.
//! 2. A frame is intact when both checksums hold at its own place and its records parse.
//! 3. Behind the end of the chain every block of every segment is looked at, for witnesses (G6).

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use lockstone_base::limits::BLOCK_BYTES;

use crate::chain::{ChainPoint, FrameIndex};
use crate::error::WalError;
use crate::format::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_VERSION, FrameFields, FrameHeader, Records,
    SEGMENT_HEADER_BYTES, SEGMENT_VERSION, Salt, SegmentHeader, frame_signature,
};
use crate::segment::{Segment, segment_name};
use crate::tail::{Evidence, Verdict};
use crate::visit::{FrameInfo, LogScan, LogVisitor, ScanOptions, ScannedRecord, TornTail};
use crate::window::Window;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A frame of the chain, found and intact.
#[derive(Debug, Clone, Copy)]
struct Found {
    segment: usize,
    offset: u64,
    fields: FrameFields,
    point: ChainPoint,
}

/// A place in a segment, for messages.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: usize,
    offset: u64,
}

/// What lies behind the end of the chain.
#[derive(Debug, Default)]
struct Survey {
    durable_through: Lsn,
    first: Option<(Place, Lsn)>,
    frames: u64,
    records: u64,
}

pub(crate) struct Scan<'a> {
    disk: &'a dyn Disk,
    /// All segments, by base.
    segments: &'a [Segment],
    options: &'a ScanOptions,
    salt: Salt,
    window: Window<'a>,
    /// For each segment, whether a frame header is at its own place in it.
    framed: Vec<bool>,
    /// The newest manifest that any header names, and where.
    generation: Option<(u64, Place, Lsn)>,
    found: LogScan,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(
        disk: &'a dyn Disk,
        segments: &'a [Segment],
        options: &'a ScanOptions,
    ) -> Self {
        Self {
            disk,
            segments,
            options,
            salt: Salt::new(options.salt),
            window: Window::new(segments),
            framed: vec![false; segments.len()],
            generation: None,
            found: LogScan {
                end: options.from,
                frames: 0,
                records: 0,
                bytes: 0,
                torn: None,
                from: options.from,
                salt: options.salt,
                index: FrameIndex::new(options.from),
                highest_is_unused: false,
                base_min: Lsn::ZERO,
            },
        }
    }

    /// Walks to the end and decides what it is.
    pub(crate) fn run(mut self, visitor: &mut dyn LogVisitor) -> Result<LogScan, WalError> {
        for segment in 0..self.segments.len() {
            self.check_header(segment)?;
        }
        let survey = loop {
            while let Some(found) = self.successor()? {
                self.accept(&found, visitor)?;
            }
            match self.survey()? {
                Ok(found) => self.accept(&found, visitor)?,
                Err(survey) => break survey,
            }
        };
        self.decide(&survey)?;
        self.found.highest_is_unused = self
            .segments
            .last()
            .zip(self.framed.last())
            .is_some_and(|(highest, framed)| self.options.from.end <= highest.base && !framed);
        self.raise_base(self.options.durable.max(self.found.end.end));
        Ok(self.found)
    }

    /// Whether anything in `segment` can matter: frames wholly before the start cannot (S3).
    fn is_in_scope(&self, segment: &Segment) -> bool {
        segment.end() > self.options.from.end
    }

    fn raise_base(&mut self, to: Lsn) {
        let whole = to.get().next_multiple_of(BLOCK);
        self.found.base_min = self.found.base_min.max(Lsn::new(whole));
    }

    /// An intact header exposes a file of another database, of a newer format, or cut short. One that
    /// belongs to another place is what a renamed file has until its header is written (G1).
    fn check_header(&mut self, at: usize) -> Result<(), WalError> {
        let Some(segment) = self.segments.get(at) else {
            return Ok(());
        };
        self.raise_base(segment.end());
        if !self.is_in_scope(segment) {
            return Ok(());
        }
        let block = self.window.read(at, 0, BLOCK_BYTES)?;
        let Some(header) = SegmentHeader::decode(block) else {
            return Ok(());
        };
        if header.version() > SEGMENT_VERSION {
            return Err(WalError::NewerFormat {
                file: self.disk.path(&segment.name),
                offset: 0,
                version: header.version(),
            });
        }
        if !header.is_of_salt(self.options.salt) {
            return Err(WalError::Foreign {
                file: self.disk.path(&segment.name),
            });
        }
        if header.base() == segment.base && header.bytes() != segment.bytes {
            let place = Place {
                segment: at,
                offset: 0,
            };
            let what = "the segment is not as long as its header says";
            return Err(self.corrupt(place, segment.base, what));
        }
        Ok(())
    }

    /// The next frame of the chain, where it usually is: right behind, or first in a segment above.
    fn successor(&mut self) -> Result<Option<Found>, WalError> {
        let end = self.found.end.end;
        let at = self
            .segments
            .partition_point(|segment| segment.end() <= end);
        if let Some(segment) = self.segments.get(at).filter(|segment| segment.holds(end)) {
            let offset = end.since(segment.base);
            if let Some(found) = self.frame_at(at, offset)? {
                return Ok(Some(found));
            }
        }
        let above = self.segments.partition_point(|segment| segment.base < end);
        for at in above..self.segments.len() {
            if let Some(found) = self.frame_at(at, SEGMENT_HEADER_BYTES)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The frame at `offset`, if it is intact and follows the end of the chain.
    fn frame_at(&mut self, at: usize, offset: u64) -> Result<Option<Found>, WalError> {
        let Some(header) = self.header_at(at, offset)? else {
            return Ok(None);
        };
        let fields = header.fields();
        let payload_bytes = fields.payload_bytes as usize;
        if fields.before != self.found.end || payload_bytes > FRAME_BYTES_MAX - FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let bytes = FRAME_HEADER_BYTES + payload_bytes;
        let frame = self.window.read(at, offset, bytes)?;
        let Some(payload) = frame.get(FRAME_HEADER_BYTES..bytes) else {
            return Ok(None);
        };
        if self.salt.payload_crc(fields.own, payload) != fields.payload_crc {
            return Ok(None);
        }
        Ok(Some(Found {
            segment: at,
            offset,
            fields,
            point: ChainPoint {
                end: fields.own.plus(bytes.next_multiple_of(BLOCK_BYTES) as u64),
                crc: header.crc(),
            },
        }))
    }

    /// The intact frame header at `offset`, noted as a witness.
    fn header_at(&mut self, at: usize, offset: u64) -> Result<Option<FrameHeader>, WalError> {
        let Some(segment) = self.segments.get(at) else {
            return Ok(None);
        };
        let own = segment.base.plus(offset);
        let block = self.window.read(at, offset, BLOCK_BYTES)?;
        let Some(header) = FrameHeader::decode(block, own, &self.salt) else {
            return Ok(None);
        };
        if header.version() > FRAME_VERSION {
            return Err(WalError::NewerFormat {
                file: self.disk.path(&segment.name),
                offset,
                version: header.version().into(),
            });
        }
        if let Some(framed) = self.framed.get_mut(at) {
            *framed = true;
        }
        let named = header.fields().manifest_generation;
        if self.generation.is_none_or(|(newest, ..)| newest < named) {
            let place = Place {
                segment: at,
                offset,
            };
            self.generation = Some((named, place, own));
        }
        Ok(Some(header))
    }

    /// Takes a frame into the chain and shows it.
    fn accept(&mut self, found: &Found, visitor: &mut dyn LogVisitor) -> Result<(), WalError> {
        let fields = &found.fields;
        let place = Place {
            segment: found.segment,
            offset: found.offset,
        };
        if fields.durable_through > fields.own {
            return Err(self.corrupt(place, fields.own, "a frame says that itself is durable"));
        }
        visitor.frame(&FrameInfo {
            start: fields.own,
            point: found.point,
            before: fields.before,
            records: fields.records,
            payload_bytes: fields.payload_bytes,
            boot_epoch: fields.boot_epoch,
            durable_through: fields.durable_through,
            manifest_generation: fields.manifest_generation,
        });
        self.show_records(found, visitor)?;
        self.found.index.push(fields.own, found.point);
        self.found.end = found.point;
        self.found.frames += 1;
        self.found.records += u64::from(fields.records);
        self.found.bytes += found.point.end.since(fields.own);
        Ok(())
    }

    fn show_records(
        &mut self,
        found: &Found,
        visitor: &mut dyn LogVisitor,
    ) -> Result<(), WalError> {
        let bytes = FRAME_HEADER_BYTES + found.fields.payload_bytes as usize;
        let frame = self.window.read(found.segment, found.offset, bytes)?;
        let payload = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let mut count = 0_u32;
        let mut damage = None;
        for record in Records::of(payload) {
            let shown = record
                .map_err(|damage| (damage.offset, damage.what))
                .and_then(|record| {
                    let lsn = (FRAME_HEADER_BYTES + record.offset) as u64;
                    let shown = ScannedRecord {
                        lsn: found.fields.own.plus(lsn),
                        tag: record.tag,
                        context: record.context,
                        body: record.body,
                    };
                    visitor
                        .record(shown)
                        .map_err(|error| (record.offset, error.what))
                });
            if let Err(what) = shown {
                damage = Some(what);
                break;
            }
            count += 1;
        }
        if damage.is_none() && count != found.fields.records {
            damage = Some((
                0,
                "a frame does not hold as many records as its header says",
            ));
        }
        damage.map_or(Ok(()), |(offset, what)| {
            let inside = (FRAME_HEADER_BYTES + offset) as u64;
            let place = Place {
                segment: found.segment,
                offset: found.offset + inside,
            };
            Err(self.corrupt(place, found.fields.own.plus(inside), what))
        })
    }

    /// Looks at every block behind the end of the chain: the frame that continues it after all, or
    /// what else is there.
    fn survey(&mut self) -> Result<Result<Found, Survey>, WalError> {
        let end = self.found.end.end;
        let mut survey = Survey::default();
        let behind = self
            .segments
            .partition_point(|segment| segment.end() <= end);
        for (at, segment) in self.segments.iter().enumerate().skip(behind) {
            let start = end.since(segment.base).max(SEGMENT_HEADER_BYTES);
            for offset in (start..segment.bytes).step_by(BLOCK_BYTES) {
                let own = segment.base.plus(offset);
                let place = Place {
                    segment: at,
                    offset,
                };
                let Some(header) = self.header_at(at, offset)? else {
                    let block = self.window.read(at, offset, BLOCK_BYTES)?;
                    if frame_signature(block, own) {
                        survey.first.get_or_insert((place, own));
                    }
                    continue;
                };
                if let Some(found) = self.frame_at(at, offset)? {
                    return Ok(Ok(found));
                }
                let fields = header.fields();
                survey.durable_through = survey.durable_through.max(fields.durable_through);
                survey.first.get_or_insert((place, own));
                survey.frames += 1;
                survey.records += u64::from(fields.records);
            }
        }
        Ok(Err(survey))
    }

    fn decide(&mut self, survey: &Survey) -> Result<(), WalError> {
        let end = self.found.end.end;
        let from = self.options.from.end;
        let named = self.generation.map_or(0, |(generation, ..)| generation);
        let evidence = Evidence {
            segment_missing: from > Lsn::ZERO
                && !self.segments.iter().any(|segment| segment.end() >= from),
            manifest_beyond: self.options.durable > end,
            header_beyond: survey.durable_through > end,
            manifest_missing: named > self.options.manifest_generation,
            leftovers: survey.first.is_some(),
        };
        match evidence.verdict() {
            Verdict::Clean => {}
            Verdict::Torn => {
                self.found.torn = survey.first.map(|(place, at)| TornTail {
                    file: self.path_of(place),
                    at,
                    frames: survey.frames,
                    records: survey.records,
                });
            }
            Verdict::Corrupt(what) => {
                let damaged_log =
                    evidence.segment_missing || evidence.manifest_beyond || evidence.header_beyond;
                let (place, lsn) = self
                    .generation
                    .filter(|_| !damaged_log)
                    .map_or_else(|| self.place_behind(end), |(_, place, lsn)| (place, lsn));
                return Err(self.corrupt(place, lsn, what));
            }
        }
        Ok(())
    }

    /// Where the frame behind `end` would be: what is missing or damaged (G6).
    fn place_behind(&self, end: Lsn) -> (Place, Lsn) {
        let at = self.segments.partition_point(|it| it.end() <= end);
        let (segment, lsn) = match self.segments.get(at) {
            Some(segment) => (at, end.max(segment.first())),
            None => (at.saturating_sub(1), end),
        };
        let base = self.segments.get(segment).map_or(lsn, |it| it.base);
        let offset = lsn.since(base);
        (Place { segment, offset }, lsn)
    }

    fn path_of(&self, place: Place) -> std::path::PathBuf {
        let name = self.segments.get(place.segment).map_or_else(
            || segment_name(self.options.from.end),
            |segment| segment.name.clone(),
        );
        self.disk.path(&name)
    }

    fn corrupt(&self, place: Place, lsn: Lsn, what: &'static str) -> WalError {
        WalError::Corrupt {
            file: self.path_of(place),
            offset: place.offset,
            lsn,
            what,
        }
    }
}
