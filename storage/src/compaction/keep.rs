//! Which versions a compaction keeps.
//!
//! Stands between the merge of a job's inputs and the writing of its outputs.
//! 1. W7: of each row it keeps the versions above the horizon and the newest one at or below it; that one
//!    goes too if it is a tombstone and no deeper level can have the row.
//! 2. S7: rows of dropped tables go.
//! 3. With a uniform stamp every version gets it, the inputs' smallest. Only where nothing lies deeper, so
//!    nothing older can rise above it, and every input's stamps are at or below the horizon: what is kept
//!    is one version of a row, visible to every reader at or above the horizon before as after, and still
//!    below all that is newer. Nobody reads below the horizon: that is what the horizon says.

use lockstone_base::Lsn;

use super::deeper::Deeper;
use crate::error::StorageError;
use crate::version::VersionRef;
use crate::walk::Walker;

/// What a compaction may drop.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) horizon: Lsn,
    pub(crate) deeper: Deeper,
    /// The ids of dropped tables, as rows begin with them; ascending.
    pub(crate) dropped: Vec<[u8; 4]>,
    /// The stamp of everything that is kept.
    pub(crate) uniform: Option<Lsn>,
}

/// The versions of `W` that are kept.
pub(crate) struct Keep<W> {
    versions: W,
    rules: Rules,
    /// The row whose newest version at or below the horizon has been met.
    settled: Option<Vec<u8>>,
}

impl<W> Keep<W> {
    pub(crate) fn new(versions: W, rules: Rules) -> Self {
        Self {
            versions,
            rules,
            settled: None,
        }
    }
}

impl Rules {
    /// Whether `row` is one of a dropped table.
    fn is_dropped(&self, row: &[u8]) -> bool {
        let table = row.first_chunk();
        !self.dropped.is_empty()
            && table.is_some_and(|table| self.dropped.binary_search(table).is_ok())
    }
}

impl<W: Walker> Walker for Keep<W> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        while self.versions.advance()? {
            let version = self.versions.version();
            if self.rules.is_dropped(version.row) {
                continue;
            }
            if version.stamp > self.rules.horizon {
                return Ok(true);
            }
            if self.settled.as_deref() == Some(version.row) {
                continue;
            }
            let settled = self.settled.get_or_insert_default();
            settled.clear();
            settled.extend_from_slice(version.row);
            if version.value.is_some() || self.rules.deeper.may_have(version.row) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn version(&self) -> VersionRef<'_> {
        let version = self.versions.version();
        VersionRef {
            stamp: self.rules.uniform.unwrap_or(version.stamp),
            ..version
        }
    }
}
