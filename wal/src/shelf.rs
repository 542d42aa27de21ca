//! The shelf of segments: those that hold log, the next, and the filled spare (G1, G8).
//!
//! `log` calls it, off the append latch and one caller at a time; what it readies, `staging` enters.
//! 1. A spare is filled with zeros under another name, synced, and then named; so a file under a
//!    segment's or the spare's name is always whole.
//! 2. A segment is ready when its header is written, it is named, file and directory are synced (G1).
//! 3. Bases grow: each new one is at or above the end of the highest segment (G1).
//! 4. Recycled files wait as spares, up to a few, so that a steady load fills none.
//! 5. A recycled file keeps its bytes: the frames in it carry the LSNs of their old places, none of which
//!    is a place of its new stretch of the log, so none of them is intact there (G6).
//! 6. The highest base in the directory only grows, and each segment in service is named by another file
//!    that stays: by a manifest, or by the header of the segment below it (F14).
//!
//! A crash leaves a spare or an unused segment with the header of the place that it was to have, or a torn
//! one (harmless: G5), or a half-filled file under the unfilled name, which the next start removes.

use std::io::ErrorKind;
use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::disk::{AlignedBuf, Disk, DiskResult, OpenMode};

use crate::error::WalError;
use crate::format::SegmentStamp;
use crate::segment::{
    Access, SPARE_UNFILLED, Segment, is_spare_name, segment_name, spare_file_name,
};
use crate::segments::Segments;
use crate::visit::LogScan;

/// Zeros are written in pieces of this many bytes.
const FILL_BYTES: u64 = 1 << 20;
/// What a checkpoint frees under a steady load is used up again by the next one.
const SPARES_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Shelf {
    disk: Arc<dyn Disk>,
    stamp: SegmentStamp,
    segment_bytes: u64,
    /// Every segment with a name, by base; the last is the highest.
    named: Vec<Arc<Segment>>,
    /// The names of the spares.
    spares: Vec<String>,
}

impl Shelf {
    /// Takes over the segments that recovery has read, and readies the one to write to (G8): the
    /// highest that was never written to, else the spare, else a new one. Then a spare, if there is
    /// room for one.
    pub(crate) fn start(
        segments: Segments,
        segment_bytes: u64,
        stamp: SegmentStamp,
        scan: &LogScan,
    ) -> Result<(Self, Arc<Segment>), WalError> {
        let Segments { disk, all, .. } = segments;
        let mut shelf = Self {
            disk,
            stamp,
            segment_bytes,
            named: all.into_iter().map(Arc::new).collect(),
            spares: Vec::with_capacity(SPARES_MAX),
        };
        shelf.look_for_spares()?;
        let base = shelf.base_above(scan.base_min);
        let current = shelf.first_of_run(base, scan.highest_is_unused)?;
        if !shelf.has_spare() {
            match shelf.fill() {
                Ok(()) => shelf.name_spare()?,
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "no room for a spare log segment");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((shelf, current))
    }

    pub(crate) fn has_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Lets others have the segments. Nothing may be written any more.
    pub(crate) fn unlock(&self) {
        for segment in &self.named {
            if let Err(error) = segment.file.unlock() {
                tracing::warn!(%error, "a log segment stays locked until its file is closed");
            }
        }
    }

    /// Gives back the room of all spares but one. A closed log needs no more, and a name that a crash
    /// brings back is a spare as before.
    pub(crate) fn trim(&mut self) {
        for name in self.spares.drain(1.min(self.spares.len())..) {
            if let Err(error) = self.disk.remove(&name) {
                tracing::warn!(%error, "a spare log segment stays");
            }
        }
    }

    /// Makes a spare the segment behind the highest one. After an error the log's directory is in an
    /// unknown state: poison.
    pub(crate) fn ready_next(&mut self) -> Result<Arc<Segment>, WalError> {
        let below = self.named.last().map(Arc::clone);
        let base = below.as_ref().map_or(Lsn::ZERO, |below| below.end());
        let next = self.name_segment(base)?;
        if let Some(below) = below {
            // Before a position in it is given out: should its file go, this one tells.
            below.write_header(self.stamp, Some(next.base))?;
        }
        Ok(next)
    }

    /// Fills a file that can become the spare. After an error nothing has changed.
    pub(crate) fn fill(&mut self) -> DiskResult<()> {
        let filled = self.try_fill();
        if filled.is_err() {
            // A half-filled file is of no use to anybody, and the next start removes it too.
            let _ = self.disk.remove(SPARE_UNFILLED);
        }
        filled
    }

    /// Names what [`Shelf::fill`] filled. After an error: poison.
    pub(crate) fn name_spare(&mut self) -> DiskResult<()> {
        let name = self.free_spare_name();
        self.disk.rename(SPARE_UNFILLED, &name)?;
        self.disk.sync_dir()?;
        self.spares.push(name);
        Ok(())
    }

    /// Segments that end below `below` become spares, as many as may wait, or go; one that ends right
    /// there stays, for it names the one that follows. After an error the directory is in an unknown
    /// state: poison.
    pub(crate) fn recycle(&mut self, below: Lsn) -> DiskResult<()> {
        let dead = self
            .named
            .partition_point(|segment| segment.end() < below)
            .min(self.named.len().saturating_sub(1));
        if dead == 0 {
            return Ok(());
        }
        let dead: Vec<_> = self.named.drain(..dead).collect();
        let mut recycled = Vec::with_capacity(SPARES_MAX);
        for segment in dead {
            // Whoever still holds a handle to it must not lock the next segment that it becomes.
            segment.file.unlock()?;
            let waiting = self.spares.len() + recycled.len();
            if waiting < SPARES_MAX && segment.bytes == self.segment_bytes {
                let name = spare_name(self.spares.iter().chain(&recycled));
                self.disk.rename(&segment.name, &name)?;
                recycled.push(name);
            } else {
                self.disk.remove(&segment.name)?;
            }
        }
        self.disk.sync_dir()?;
        // Only now: a spare whose name is not durable must not become a segment of another name.
        self.spares.append(&mut recycled);
        Ok(())
    }

    fn free_spare_name(&self) -> String {
        spare_name(self.spares.iter())
    }

    /// The lowest base that gives no position twice, should even the highest file have been cut short.
    fn base_above(&self, base_min: Lsn) -> Lsn {
        self.named.last().map_or(base_min, |highest| {
            base_min.max(highest.base.plus(self.segment_bytes))
        })
    }

    fn look_for_spares(&mut self) -> Result<(), WalError> {
        for name in self.disk.list()? {
            if name == SPARE_UNFILLED {
                self.disk.remove(&name)?;
            } else if is_spare_name(&name) {
                let bytes = self.disk.open(&name, OpenMode::Read)?.len()?;
                if bytes == self.segment_bytes && self.spares.len() < SPARES_MAX {
                    self.spares.push(name);
                } else {
                    self.disk.remove(&name)?;
                }
            }
        }
        Ok(())
    }

    fn first_of_run(
        &mut self,
        base: Lsn,
        highest_is_unused: bool,
    ) -> Result<Arc<Segment>, WalError> {
        let reusable = self
            .named
            .pop_if(|highest| highest_is_unused && highest.bytes == self.segment_bytes);
        if let Some(unused) = reusable {
            return self.enter(Segment {
                base,
                bytes: unused.bytes,
                below: None,
                name: unused.name.clone(),
                file: Arc::clone(&unused.file),
            });
        }
        if !self.has_spare() {
            self.fill()?;
            self.name_spare()?;
        }
        self.name_segment(base)
    }

    fn name_segment(&mut self, base: Lsn) -> Result<Arc<Segment>, WalError> {
        let spare = self.spares.pop();
        let spare = spare.expect("G1: a segment is made of a filled spare");
        let segment = Segment::open(self.disk.as_ref(), &spare, base, Access::Recover)?;
        self.enter(segment)
    }

    /// Puts a file that still has another name in its place. The header goes first: whoever finds the name
    /// finds what it says about its neighbours.
    fn enter(&mut self, mut segment: Segment) -> Result<Arc<Segment>, WalError> {
        assert!(
            segment.bytes == self.segment_bytes
                && self
                    .named
                    .last()
                    .is_none_or(|highest| highest.end() <= segment.base),
            "G1: a new segment is whole and above all others"
        );
        segment.below = self.named.last().map(|highest| highest.base);
        segment.write_header(self.stamp, None)?;
        let name = segment_name(segment.base);
        self.disk.rename(&segment.name, &name)?;
        segment.name = name;
        self.disk.sync_dir()?;
        let segment = Arc::new(segment);
        self.named.push(Arc::clone(&segment));
        Ok(segment)
    }

    fn try_fill(&self) -> DiskResult<()> {
        match self.disk.open(SPARE_UNFILLED, OpenMode::CreateNew) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.disk.remove(SPARE_UNFILLED)?;
                self.disk.open(SPARE_UNFILLED, OpenMode::CreateNew)?;
            }
            Err(error) => return Err(error),
        }
        let file = self.disk.open(SPARE_UNFILLED, OpenMode::Log)?;
        let zeros = AlignedBuf::zeroed(FILL_BYTES.min(self.segment_bytes) as usize);
        let mut offset = 0;
        while offset < self.segment_bytes {
            let piece = FILL_BYTES.min(self.segment_bytes - offset) as usize;
            let bytes = zeros.as_bytes().get(..piece).unwrap_or_default();
            file.write_at(offset, bytes)?;
            offset += piece as u64;
        }
        file.sync()
    }
}

/// A spare's name that none of `taken` is.
fn spare_name<'a>(taken: impl Iterator<Item = &'a String> + Clone) -> String {
    (0..=SPARES_MAX)
        .map(spare_file_name)
        .find(|name| !taken.clone().any(|other| other == name))
        .expect("G1: at most so many spares wait")
}
