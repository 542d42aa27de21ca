//! What a flush and a compaction ask of each of their inputs: every version, one by one, where it lies.
//!
//! Implemented by sealed memtables and their parts, by runs, and by the merge of several such; driven by
//! whoever writes runs.
//! 1. Versions come in version order.
//! 2. Nothing is allocated for a version: it is shown where it lies, until the next step.
//! 3. An error ends the walk: its job fails as a whole and the old files stay (F7).

use crate::error::StorageError;
use crate::version::VersionRef;

/// Every version of a source, in version order.
pub(crate) trait Walker {
    /// Goes to the next version, the first one at first; whether there is one.
    ///
    /// # Errors
    /// The disk's, and [`StorageError::Corrupt`]; the walk is over then.
    fn advance(&mut self) -> Result<bool, StorageError>;

    /// The version that the walk has come to: while [`Walker::advance`] says that there is one.
    fn version(&self) -> VersionRef<'_>;
}

impl<W: Walker + ?Sized> Walker for Box<W> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        (**self).advance()
    }

    fn version(&self) -> VersionRef<'_> {
        (**self).version()
    }
}

/// Versions that are there already, for tests of what takes walkers.
#[cfg(test)]
pub(crate) struct Listed<I: Iterator> {
    versions: I,
    now: Option<crate::version::RowVersion>,
}

#[cfg(test)]
impl<I: Iterator<Item = Result<crate::version::RowVersion, StorageError>>> Listed<I> {
    pub(crate) fn new(versions: impl IntoIterator<IntoIter = I>) -> Self {
        Self {
            versions: versions.into_iter(),
            now: None,
        }
    }
}

#[cfg(test)]
impl<I: Iterator<Item = Result<crate::version::RowVersion, StorageError>>> Walker for Listed<I> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        self.now = self.versions.next().transpose()?;
        Ok(self.now.is_some())
    }

    fn version(&self) -> VersionRef<'_> {
        let now = self.now.as_ref().unwrap();
        VersionRef {
            row: &now.row,
            stamp: now.version.stamp,
            value: now.version.value.as_deref(),
        }
    }
}

/// All that is left of a walk.
#[cfg(test)]
pub(crate) fn collect(
    mut walker: impl Walker,
) -> Result<Vec<crate::version::RowVersion>, StorageError> {
    let mut all = Vec::new();
    while walker.advance()? {
        all.push(walker.version().to_owned());
    }
    Ok(all)
}
