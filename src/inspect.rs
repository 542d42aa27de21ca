//! A database directory looked at without opening it: nothing in it is changed.
//!
//! A database in use is refused with its owner's process id; of a crashed one this tells what recovery
//! would find and do.

use std::path::Path;
use std::sync::Arc;

pub use lockstone_recovery::record::{Body, Context, Effect, Provisional, ProvisionalMany, Tag};
pub use lockstone_recovery::{
    ChainMarks, ChainPoint, Corruption, DeadLock, DumpSink, FrameInfo, Leftover, LogCheck,
    LogVerdict, ManifestMarks, SegmentInfo, SegmentUse, Span, Spare,
};

use crate::error::Result;
use crate::listing::CheckReport;
use crate::opening::real_ports;
use lockstone_base::TableId;
use lockstone_base::disk::IoMode;
use lockstone_recovery::RecoveryReport;

/// A database directory, held still while it is looked at.
#[derive(Debug)]
pub struct Inspection(lockstone_recovery::Inspection);

impl Inspection {
    /// Looks at the database in the directory `path`.
    ///
    /// # Errors
    /// [`Error::NotADatabase`](crate::Error::NotADatabase), [`Error::Locked`](crate::Error::Locked),
    /// [`Error::NewerVersion`](crate::Error::NewerVersion), [`Error::Corrupt`](crate::Error::Corrupt).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let ports = real_ports(path.as_ref(), false, IoMode::Blocking)?;
        Ok(Self(lockstone_recovery::Inspection::open(
            Arc::clone(&ports.disk),
            ports.clock.clone(),
        )?))
    }

    /// What recovery would find and do.
    ///
    /// # Errors
    /// What recovery would refuse with.
    pub fn report(&self) -> Result<RecoveryReport> {
        Ok(self.0.report()?)
    }

    /// The locks of whoever was in flight when the run before ended, by row. Nobody holds them now.
    ///
    /// # Errors
    /// What recovery would refuse with.
    pub fn dead_locks(&self) -> Result<Vec<DeadLock>> {
        Ok(self.0.dead_locks()?)
    }

    /// Reads the log and every block of every run.
    ///
    /// # Errors
    /// What recovery would refuse with; damage to runs is among the findings.
    pub fn check(&self) -> Result<(RecoveryReport, CheckReport)> {
        let (report, check) = self.0.check()?;
        Ok((report, check.into()))
    }

    /// The tables that the newest manifest names, by id. The log may create further ones.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &str)> {
        let tables = self.0.manifest().tables.iter();
        tables.map(|table| (table.id, table.name.as_str()))
    }

    /// Shows the log from where recovery starts: frames, records, the chain, and what is behind its end;
    /// `None` if the sink had enough before. Damage is told by the verdict: what comes before it has been
    /// shown.
    ///
    /// # Errors
    /// The log cannot be read, or is a newer version's.
    pub fn dump(&self, sink: &mut dyn DumpSink) -> Result<Option<LogCheck>> {
        Ok(self.0.dump(sink)?)
    }

    /// Decides about the log's end as opening the database would, and says what speaks for it.
    ///
    /// # Errors
    /// The log cannot be read, or is a newer version's. That acknowledged data is damaged is a verdict.
    pub fn verify(&self) -> Result<LogCheck> {
        Ok(self.0.verify()?)
    }
}
