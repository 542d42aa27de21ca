//! What is known of a log when all of it was looked at: where it ends and why, what testifies to that, and
//! which files make it up. For people and programs.
//!
//! `inspect` fills it while the log is scanned as recovery scans it; the verdict is that scan's.
//! 1. A frame is covered once the manifest, or an intact header, says that the log was durable to its end:
//!    only then damage to it is told from a torn write (G6).
//! 2. Of a damaged log the marks say how far it was intact.

use std::path::PathBuf;

use lockstone_base::Lsn;
use lockstone_storage::Manifest;
use lockstone_wal::{FrameInfo, Leftover, LogScan, SegmentInfo, WalError};
use serde::Serialize;

use crate::report::TornTail;

/// What the end of a log is (G6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogVerdict {
    /// Nothing was ever written behind it.
    Clean,
    /// What lies behind it was never acknowledged: opening drops it.
    Torn,
    /// Acknowledged data is damaged or missing: opening is refused.
    Corrupt,
}

/// A log, looked at from where recovery starts to its end.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LogCheck {
    /// What opening would make of it.
    pub verdict: LogVerdict,
    /// What the newest manifest says.
    pub manifest: ManifestMarks,
    /// What the frames say.
    pub chain: ChainMarks,
    /// What lies behind the end, if the log is torn.
    pub torn: Option<TornTail>,
    /// Why it is refused, if it is corrupt.
    pub corrupt: Option<Corruption>,
    /// Its segments, by base.
    pub segments: Vec<SegmentUse>,
    /// The files that wait to become segments.
    pub spares: Vec<Spare>,
}

/// What a manifest says about the log.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct ManifestMarks {
    /// Its generation.
    pub generation: u64,
    /// The run that wrote it.
    pub boot_epoch: u32,
    /// Where reading starts: the end of a frame.
    pub scan_from: Lsn,
    /// That frame's checksum.
    pub scan_crc: u32,
    /// How far the log was durable.
    pub durable: Lsn,
    /// Every commit up to here is in runs.
    pub flushed_through: Lsn,
    /// How far the log's files reached.
    pub log_end: Lsn,
}

/// What the frames of the chain say.
#[derive(Debug, Clone, Copy, Serialize)]
#[non_exhaustive]
pub struct ChainMarks {
    /// Where it ends.
    pub end: Lsn,
    /// The checksum of its last frame.
    pub crc: u32,
    /// Its frames.
    pub frames: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes, padding included.
    pub bytes: u64,
    /// How often it goes on in another segment, or behind a gap.
    pub jumps: u64,
    /// The highest run that wrote one of them.
    pub boot_epoch: u32,
    /// How far manifest and headers testify that the log was durable.
    pub testified: Lsn,
    /// The last frame read here to which they testify.
    pub covered: Option<Span>,
    /// The last frame that holds records.
    pub recorded: Option<Span>,
    /// Whether they testify to that one, too. If not, damage to it would look like a torn write.
    pub is_covered: bool,
}

/// A frame's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Span {
    /// Where it starts.
    pub start: Lsn,
    /// Where it ends.
    pub end: Lsn,
}

/// Why a log is refused.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Corruption {
    /// The segment that is damaged or missing.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// Where in the log, if that is known.
    pub lsn: Option<Lsn>,
    /// What is wrong.
    pub what: &'static str,
    /// Who says so, if it is not the damaged place itself.
    pub witness: Option<String>,
}

/// A segment, and how much of it is in use.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SegmentUse {
    /// The file's name.
    pub file: String,
    /// Where in the log it begins.
    pub base: Lsn,
    /// Its length.
    pub bytes: u64,
    /// How far the chain, as far as it was read, fills it, header included; 0 if it does not come here.
    pub used: u64,
}

/// A file that waits to become a segment.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Spare {
    /// Its name.
    pub file: String,
    /// Its length.
    pub bytes: u64,
}

impl ManifestMarks {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self {
            generation: manifest.generation,
            boot_epoch: manifest.boot_epoch,
            scan_from: manifest.scan_end,
            scan_crc: manifest.scan_crc,
            durable: manifest.durable,
            flushed_through: manifest.flushed_through,
            log_end: manifest.log_end,
        }
    }
}

/// Takes notes while a log is scanned.
#[derive(Debug)]
pub(crate) struct Notes {
    chain: ChainMarks,
    /// Frames to which nothing testifies yet, in order.
    uncovered: Vec<Span>,
    /// For each stretch that the chain fills without a jump, its start and end.
    stretches: Vec<Span>,
}

impl Notes {
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let from = manifest.scan_end;
        Self {
            chain: ChainMarks {
                end: from,
                crc: manifest.scan_crc,
                frames: 0,
                records: 0,
                bytes: 0,
                jumps: 0,
                boot_epoch: 0,
                testified: manifest.durable,
                covered: None,
                recorded: None,
                is_covered: true,
            },
            uncovered: Vec::new(),
            stretches: vec![Span {
                start: from,
                end: from,
            }],
        }
    }

    pub(crate) fn frame(&mut self, frame: &FrameInfo) {
        let (start, end) = (frame.start, frame.point.end);
        let chain = &mut self.chain;
        match self.stretches.last_mut() {
            Some(stretch) if stretch.end == start => stretch.end = end,
            _ => {
                // The first frame of all is not where an earlier one led to.
                chain.jumps += u64::from(chain.end > Lsn::ZERO);
                self.stretches.push(Span { start, end });
            }
        }
        chain.end = end;
        chain.crc = frame.point.crc;
        chain.frames += 1;
        chain.records += u64::from(frame.records);
        chain.bytes += end.since(start);
        chain.boot_epoch = chain.boot_epoch.max(frame.boot_epoch);
        self.uncovered.push(Span { start, end });
        if frame.records > 0 {
            chain.recorded = Some(Span { start, end });
        }
        self.testify(frame.durable_through);
    }

    pub(crate) fn leftover(&mut self, leftover: &Leftover) {
        self.testify(leftover.frame.durable_through);
    }

    fn testify(&mut self, durable: Lsn) {
        let chain = &mut self.chain;
        chain.testified = chain.testified.max(durable);
        let through = chain.testified;
        let covered = self.uncovered.partition_point(|span| span.end <= through);
        chain.covered = self
            .uncovered
            .drain(..covered)
            .next_back()
            .or(chain.covered);
        chain.is_covered = chain.recorded.is_none_or(|span| span.end <= through);
    }

    /// How far the chain fills the segment.
    fn used(&self, segment: &SegmentInfo) -> u64 {
        let end = segment.base.plus(segment.bytes);
        let inside = |stretch: &&Span| stretch.start < end && stretch.end > segment.base;
        let last = self.stretches.iter().rfind(inside);
        last.map_or(0, |stretch| stretch.end.min(end).since(segment.base))
    }
}

impl LogCheck {
    /// What was noted, and what came of the scan; `Err` gives back what is no verdict on the log.
    pub(crate) fn new(
        manifest: &Manifest,
        notes: &Notes,
        scanned: Result<&LogScan, WalError>,
    ) -> Result<Self, WalError> {
        let mut check = Self {
            verdict: LogVerdict::Clean,
            manifest: ManifestMarks::of(manifest),
            chain: notes.chain,
            torn: None,
            corrupt: None,
            segments: Vec::new(),
            spares: Vec::new(),
        };
        match scanned {
            Ok(scan) => {
                check.torn = scan.torn.as_ref().map(TornTail::of);
                if check.torn.is_some() {
                    check.verdict = LogVerdict::Torn;
                }
            }
            Err(error) => {
                check.corrupt = Some(Corruption::of(error)?);
                check.verdict = LogVerdict::Corrupt;
            }
        }
        Ok(check)
    }

    /// Says which files there are.
    pub(crate) fn list(
        &mut self,
        notes: &Notes,
        segments: impl Iterator<Item = SegmentInfo>,
        spares: Vec<(String, u64)>,
    ) {
        let segment_use = |segment: SegmentInfo| SegmentUse {
            used: notes.used(&segment),
            file: segment.name,
            base: segment.base,
            bytes: segment.bytes,
        };
        self.segments = segments.map(segment_use).collect();
        let spares = spares.into_iter();
        self.spares = spares.map(|(file, bytes)| Spare { file, bytes }).collect();
    }
}

impl Corruption {
    fn of(error: WalError) -> Result<Self, WalError> {
        match error {
            WalError::Corrupt {
                file,
                offset,
                lsn,
                what,
                witness,
            } => Ok(Self {
                file,
                offset,
                lsn: Some(lsn),
                what,
                witness: witness.map(|witness| witness.to_string()),
            }),
            WalError::Foreign { file } => Ok(Self {
                file,
                offset: 0,
                lsn: None,
                what: "the segment belongs to another database",
                witness: None,
            }),
            other => Err(other),
        }
    }
}
