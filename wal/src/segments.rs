//! All segments of a log, open and locked: what recovery and inspection start from.
//!
//! 1. No segment is read before all are locked, so the late writes of a dead process are over (§8.1).
//! 2. What recovery believes is on the device: every segment that it reads, and the directory, are
//!    synced before the first read, and the reads go past the page cache (§8.3).
//! 3. Segments do not overlap, so a position lies in one file at most; none is shorter or longer than the
//!    log makes them, so an emptied file is no segment, and a scan has a bound.
//!
//! A crash leaves nothing: only syncs happen here.

use std::sync::Arc;

use lockstone_base::disk::{Disk, OpenMode};
use lockstone_base::limits::BLOCK_BYTES;

use crate::chain::ChainPoint;
use crate::error::WalError;
use crate::format::SEGMENT_HEADER_BYTES;
use crate::frames::{Frames, Place};
use crate::neighbours;
use crate::scan::Scan;
use crate::segment::{
    Access, POSITION_MAX, SEGMENT_BYTES_LEAST, SEGMENT_BYTES_MAX, SPARE_UNFILLED, Segment,
    base_in_name, is_spare_name,
};
use crate::visit::{LogScan, LogVisitor, ScanOptions, SegmentInfo};

/// All segments of a log, open and locked.
#[derive(Debug)]
pub struct Segments {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) access: Access,
    /// By base.
    pub(crate) all: Vec<Segment>,
}

impl Segments {
    /// Opens and locks every segment of the directory. None at all is an empty log.
    ///
    /// # Errors
    /// [`WalError::Locked`] when someone has one of them in use; [`WalError::Corrupt`] when two
    /// segments overlap; [`WalError::Disk`]. Nothing was changed.
    pub fn open(disk: Arc<dyn Disk>, access: Access) -> Result<Self, WalError> {
        let mut all = Vec::new();
        for name in disk.list()? {
            if let Some(base) = base_in_name(&name) {
                all.push(Segment::open(disk.as_ref(), &name, base, access)?);
            }
        }
        all.sort_unstable_by_key(|segment| segment.base);
        let segments = Self { disk, access, all };
        segments.check_places()?;
        Ok(segments)
    }

    fn check_places(&self) -> Result<(), WalError> {
        let corrupt = |segment: &Segment, what| WalError::Corrupt {
            file: self.disk.path(&segment.name),
            offset: 0,
            lsn: segment.base,
            what,
            witness: None,
        };
        for segment in &self.all {
            let base = segment.base.get();
            if !base.is_multiple_of(BLOCK_BYTES as u64) {
                return Err(corrupt(
                    segment,
                    "a segment's name gives no place for a block",
                ));
            }
            if base > POSITION_MAX {
                return Err(corrupt(segment, "a segment lies outside of any log"));
            }
            if segment.bytes < SEGMENT_BYTES_LEAST {
                return Err(corrupt(
                    segment,
                    "a segment is cut short: it holds no frame",
                ));
            }
            if segment.bytes > SEGMENT_BYTES_MAX {
                return Err(corrupt(
                    segment,
                    "a segment is longer than any that is made",
                ));
            }
        }
        for pair in self.all.windows(2) {
            if let [below, above] = pair
                && below.end() > above.base
            {
                return Err(corrupt(above, "two segments overlap"));
            }
        }
        Ok(())
    }

    /// What segments there are, by base.
    pub fn list(&self) -> impl Iterator<Item = SegmentInfo> {
        self.all.iter().map(|segment| SegmentInfo {
            name: segment.name.clone(),
            base: segment.base,
            bytes: segment.bytes,
        })
    }

    /// The names and lengths of the spares, one that is being filled included.
    ///
    /// # Errors
    /// [`WalError::Disk`].
    pub fn spares(&self) -> Result<Vec<(String, u64)>, WalError> {
        let mut spares = Vec::new();
        for name in self.disk.list()? {
            if is_spare_name(&name) || name == SPARE_UNFILLED {
                let bytes = self.disk.open(&name, OpenMode::Read)?.len()?;
                spares.push((name, bytes));
            }
        }
        Ok(spares)
    }

    /// Where a scan can start that reads the first intact frame of the lowest segment that has one: for salvage,
    /// where no manifest says where to start.
    ///
    /// # Errors
    /// [`WalError::Disk`].
    pub fn earliest(&self, salt: u64) -> Result<Option<ChainPoint>, WalError> {
        let mut frames = Frames::new(self.disk.as_ref(), &self.all, salt);
        for (at, segment) in self.all.iter().enumerate() {
            let blocks = SEGMENT_HEADER_BYTES..segment.bytes;
            for offset in blocks.step_by(BLOCK_BYTES) {
                let place = Place {
                    segment: at,
                    offset,
                };
                if let Some(found) = frames.header_at(place)? {
                    return Ok(Some(found.info().before));
                }
            }
        }
        Ok(None)
    }

    /// Walks the chain from `options.from` and decides what its end is (G5, G6).
    ///
    /// # Errors
    /// [`WalError::Corrupt`] when acknowledged data is damaged or missing, with file, offset and LSN;
    /// [`WalError::Foreign`], [`WalError::NewerFormat`], [`WalError::Disk`]. Nothing was changed,
    /// except that [`Access::Recover`] has made durable what the kernel held.
    pub fn scan(
        &self,
        options: &ScanOptions,
        visitor: &mut dyn LogVisitor,
    ) -> Result<LogScan, WalError> {
        let scanned = self.walk(options, visitor, false)?;
        Ok(scanned.expect("G6: a scan that decides goes to the end"))
    }

    /// [`Segments::scan`] for as long as the visitor wants more; `None` if it had enough before the end.
    ///
    /// # Errors
    /// As [`Segments::scan`].
    pub fn show(
        &self,
        options: &ScanOptions,
        visitor: &mut dyn LogVisitor,
    ) -> Result<Option<LogScan>, WalError> {
        self.walk(options, visitor, true)
    }

    fn walk(
        &self,
        options: &ScanOptions,
        visitor: &mut dyn LogVisitor,
        may_stop: bool,
    ) -> Result<Option<LogScan>, WalError> {
        if !options.from.end.get().is_multiple_of(BLOCK_BYTES as u64) {
            return Err(WalError::InvalidConfig("a scan starts where a frame ends"));
        }
        if self.access == Access::Recover {
            let needed = |segment: &&Segment| neighbours::is_in_scope(segment, options);
            for segment in self.all.iter().filter(needed) {
                segment.file.sync()?;
            }
            self.disk.sync_dir()?;
        }
        Scan::new(self.disk.as_ref(), &self.all, options).run(visitor, may_stop)
    }
}
