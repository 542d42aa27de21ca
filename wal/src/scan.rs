//! Walks the chain of frames and gathers what speaks about its end (G5, G6).
//!
//! Called by `segments`, for recovery and inspection alike. Reading never mutates.
//! 1. The next frame is the intact one at the end of this one that names this one, else the intact one
//!    in whatever segment above that does (G5). The first frame of a segment is looked at first, then
//!    every block: a damaged segment header loses nothing.
//! 2. A frame is intact when both checksums hold at its own place and its records parse.
//! 3. Behind the end of the chain every block of every segment is looked at, for witnesses (G6).
//! 4. Before the first frame is read, the files that there are have been compared with those that must be
//!    there (F14).

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use lockstone_base::limits::BLOCK_BYTES;

use crate::chain::FrameIndex;
use crate::error::{WalError, Witness};
use crate::format::{FRAME_HEADER_BYTES, Records, SEGMENT_HEADER_BYTES};
use crate::frames::{Found, Frames, Place};
use crate::neighbours::{self, Missing};
use crate::segment::Segment;
use crate::survey::{self, Behind, Survey};
use crate::tail::{Charge, Evidence, Verdict};
use crate::visit::{LogScan, LogVisitor, ScanOptions, ScannedRecord};

const BLOCK: u64 = BLOCK_BYTES as u64;

pub(crate) struct Scan<'a> {
    /// All segments, by base.
    segments: &'a [Segment],
    options: &'a ScanOptions,
    frames: Frames<'a>,
    found: LogScan,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(
        disk: &'a dyn Disk,
        segments: &'a [Segment],
        options: &'a ScanOptions,
    ) -> Self {
        Self {
            segments,
            options,
            frames: Frames::new(disk, segments, options.salt),
            found: LogScan {
                end: options.from,
                frames: 0,
                records: 0,
                bytes: 0,
                recorded: None,
                testified: options.durable,
                torn: None,
                from: options.from,
                salt: options.salt,
                index: FrameIndex::new(options.from),
                highest_is_unused: false,
                base_min: Lsn::ZERO,
            },
        }
    }

    /// Walks to the end and decides what it is; `None` if the visitor may stop it, and has.
    pub(crate) fn run(
        mut self,
        visitor: &mut dyn LogVisitor,
        may_stop: bool,
    ) -> Result<Option<LogScan>, WalError> {
        let missing = neighbours::check(&mut self.frames, self.options)?;
        let survey = loop {
            while let Some(found) = self.successor()? {
                self.accept(&found, visitor)?;
                if may_stop && !visitor.wants_more() {
                    return Ok(None);
                }
            }
            match survey::behind(&mut self.frames, self.found.end)? {
                Behind::Next(found) => self.accept(&found, visitor)?,
                Behind::Rest(survey) => break survey,
            }
        };
        for leftover in &survey.leftovers {
            visitor.leftover(leftover);
        }
        self.decide(survey, missing)?;
        let options = self.options;
        let highest = self.segments.len().checked_sub(1);
        self.found.highest_is_unused = highest.is_some_and(|at| {
            let base = self.segments.get(at).map(|segment| segment.base);
            Some(options.from.end) <= base && !self.frames.is_framed(at)
        });
        let ends = self.segments.iter().map(Segment::end);
        let known = [options.durable, options.log_end, self.found.end.end];
        let base_min = ends.chain(known).max().unwrap_or_default();
        self.found.base_min = Lsn::new(base_min.get().next_multiple_of(BLOCK));
        Ok(Some(self.found))
    }

    /// The next frame of the chain, where it usually is: right behind, or first in a segment above.
    fn successor(&mut self) -> Result<Option<Found>, WalError> {
        let end = self.found.end;
        let at = self
            .segments
            .partition_point(|segment| segment.end() <= end.end);
        if let Some(segment) = self.segments.get(at).filter(|it| it.holds(end.end)) {
            let place = Place {
                segment: at,
                offset: end.end.since(segment.base),
            };
            if let Some(found) = self.frames.successor_at(place, end)? {
                return Ok(Some(found));
            }
        }
        let above = self
            .segments
            .partition_point(|segment| segment.base < end.end);
        for segment in above..self.segments.len() {
            let place = Place {
                segment,
                offset: SEGMENT_HEADER_BYTES,
            };
            if let Some(found) = self.frames.successor_at(place, end)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Takes a frame into the chain and shows it.
    fn accept(&mut self, found: &Found, visitor: &mut dyn LogVisitor) -> Result<(), WalError> {
        let fields = &found.fields;
        if fields.durable_through > fields.own {
            let what = "a frame says that itself is durable";
            return Err(self.frames.corrupt(found.place, what));
        }
        visitor.frame(&found.info());
        self.show_records(found, visitor)?;
        let point = found.point();
        self.found.index.push(fields.own, point);
        self.found.end = point;
        self.found.frames += 1;
        self.found.records += u64::from(fields.records);
        self.found.bytes += point.end.since(fields.own);
        self.found.testified = self.found.testified.max(fields.durable_through);
        if fields.records > 0 {
            self.found.recorded = Some((fields.own, point.end));
        }
        Ok(())
    }

    fn show_records(
        &mut self,
        found: &Found,
        visitor: &mut dyn LogVisitor,
    ) -> Result<(), WalError> {
        let payload = self.frames.payload_of(found)?.unwrap_or_default();
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
            let what = "a frame does not hold as many records as its header says";
            damage = Some((0, what));
        }
        damage.map_or(Ok(()), |(offset, what)| {
            let inside = (FRAME_HEADER_BYTES + offset) as u64;
            let place = Place {
                offset: found.place.offset + inside,
                ..found.place
            };
            Err(self.frames.corrupt(place, what))
        })
    }

    fn decide(&mut self, survey: Survey, missing: Option<Missing>) -> Result<(), WalError> {
        let end = self.found.end.end;
        let newest = self.frames.newest();
        let named = newest.map_or(0, |found| found.fields.manifest_generation);
        let evidence = Evidence {
            start_missing: !neighbours::has_start(self.segments, self.options),
            segment_missing: missing.is_some(),
            manifest_beyond: self.options.durable > end,
            header_beyond: survey.durable_through() > end,
            manifest_missing: named > self.options.manifest_generation,
            leftovers: survey.tail.is_some(),
        };
        let charge = match evidence.verdict() {
            Verdict::Clean => return Ok(()),
            Verdict::Torn => {
                self.found.torn = survey.tail;
                return Ok(());
            }
            Verdict::Corrupt(charge) => charge,
        };
        let manifest = neighbours::manifest(self.options);
        Err(match charge {
            Charge::StartMissing | Charge::SegmentMissing => self.gone(charge, missing),
            Charge::ManifestBeyond => self.charged(charge, self.place_behind(end), Some(manifest)),
            Charge::HeaderBeyond => {
                let witness = survey.witness.map(|found| self.frames.witness(&found));
                self.charged(charge, self.place_behind(end), witness)
            }
            Charge::ManifestMissing => {
                let place = newest.map_or(self.place_behind(end), |found| found.place);
                let witness = newest.map(|found| self.frames.witness(&found));
                self.charged(charge, place, witness)
            }
        })
    }

    /// A file is missing: its name, if anything says it.
    fn gone(&self, charge: Charge, missing: Option<Missing>) -> WalError {
        let missing = missing.unwrap_or_else(|| Missing {
            name: None,
            lsn: self.options.from.end,
            witness: neighbours::manifest(self.options),
        });
        WalError::Corrupt {
            file: self.frames.path(missing.name.as_deref().unwrap_or("wal-*")),
            offset: 0,
            lsn: missing.lsn,
            what: charge.what(),
            witness: Some(Box::new(missing.witness)),
        }
    }

    fn charged(&self, charge: Charge, place: Place, witness: Option<Witness>) -> WalError {
        WalError::Corrupt {
            file: self.frames.path_of(place),
            offset: place.offset,
            lsn: self.frames.lsn_of(place),
            what: charge.what(),
            witness: witness.map(Box::new),
        }
    }

    /// Where the frame behind `end` would be: what is missing or damaged (G6).
    fn place_behind(&self, end: Lsn) -> Place {
        let at = self.segments.partition_point(|it| it.end() <= end);
        let (segment, lsn) = match self.segments.get(at) {
            Some(segment) => (at, end.max(segment.first())),
            None => (at.saturating_sub(1), end),
        };
        let base = self.segments.get(segment).map_or(lsn, |it| it.base);
        Place {
            segment,
            offset: lsn.since(base),
        }
    }
}
