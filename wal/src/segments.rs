//! All segments of a log, open and locked.

use std::sync::Arc;

use lockstone_base::disk::Disk;

use crate::error::WalError;
use crate::visit::{LogScan, LogVisitor, ScanOptions};

/// What the opener of a log means to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Recover and then extend it: alone, and what is believed is made durable first (design §8.3).
    Recover,
    /// Look at it beside other lookers; changes nothing.
    Inspect,
}

/// All segments of a log, open and locked.
#[derive(Debug)]
pub struct Segments {}

impl Segments {
    /// Opens and locks every segment of the directory.
    ///
    /// # Errors
    /// [`WalError::Locked`] when someone has one of them in use; [`WalError::Corrupt`] when two
    /// segments overlap; [`WalError::Disk`].
    pub fn open(disk: Arc<dyn Disk>, access: Access) -> Result<Self, WalError> {
        let _ = (disk, access);
        unimplemented!()
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
        let _ = (options, visitor);
        unimplemented!()
    }
}
