//! All segments of a log, open and locked: what recovery and inspection start from.
//!
//! 1. No segment is read before all are locked, so the late writes of a dead process are over (§8.1).
//! 2. What recovery believes is on the device: every segment that it reads, and the directory, are
//!    synced before the first read, and the reads go past the page cache (§8.3).
//! 3. Segments do not overlap, so a position lies in one file at most.
//!
//! A crash leaves nothing: only syncs happen here.

use std::sync::Arc;

use lockstone_base::disk::Disk;
use lockstone_base::limits::BLOCK_BYTES;

use crate::error::WalError;
use crate::scan::Scan;
use crate::segment::{Access, POSITION_MAX, Segment, base_in_name};
use crate::visit::{LogScan, LogVisitor, ScanOptions};

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
        };
        for segment in &self.all {
            let base = segment.base.get();
            if !base.is_multiple_of(BLOCK_BYTES as u64) {
                return Err(corrupt(
                    segment,
                    "a segment's name gives no place for a block",
                ));
            }
            if base > POSITION_MAX || segment.bytes > POSITION_MAX {
                return Err(corrupt(segment, "a segment lies outside of any log"));
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
        if !options.from.end.get().is_multiple_of(BLOCK_BYTES as u64) {
            return Err(WalError::InvalidConfig("a scan starts where a frame ends"));
        }
        if self.access == Access::Recover {
            let needed = |segment: &&Segment| segment.end() > options.from.end;
            for segment in self.all.iter().filter(needed) {
                segment.file.sync()?;
            }
            self.disk.sync_dir()?;
        }
        Scan::new(self.disk.as_ref(), &self.all, options).run(visitor)
    }
}
