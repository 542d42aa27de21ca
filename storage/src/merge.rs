//! Every version of several sorted sources, in one order: what a flush writes and a merge of runs reads.
//!
//! 1. Output is in version order, whatever the number of sources.
//! 2. An error ends the stream: its job fails as a whole and the old files stay (F7).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::error::StorageError;
use crate::version::{RowVersion, version_order};

/// Versions in version order.
pub(crate) type Versions<'a> = Box<dyn Iterator<Item = Result<RowVersion, StorageError>> + 'a>;

/// Merges `sources`, each in version order.
///
/// # Errors
/// The first error of a source, if its first version cannot be read.
pub(crate) fn merged(
    sources: Vec<Versions<'_>>,
) -> Result<impl Iterator<Item = Result<RowVersion, StorageError>> + '_, StorageError> {
    let mut heads = BinaryHeap::with_capacity(sources.len());
    for mut rest in sources {
        if let Some(next) = rest.next().transpose()? {
            heads.push(Head { next, rest });
        }
    }
    Ok(Merged {
        heads,
        failed: None,
    })
}

struct Merged<'a> {
    heads: BinaryHeap<Head<'a>>,
    failed: Option<StorageError>,
}

struct Head<'a> {
    next: RowVersion,
    rest: Versions<'a>,
}

impl Iterator for Merged<'_> {
    type Item = Result<RowVersion, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let mut head = self.heads.pop()?;
        let refill = head.rest.next().transpose();
        let out = match refill {
            Ok(None) => head.next,
            Ok(Some(next)) => {
                let out = std::mem::replace(&mut head.next, next);
                self.heads.push(head);
                out
            }
            Err(error) => {
                self.heads.clear();
                self.failed = Some(error);
                head.next
            }
        };
        Some(Ok(out))
    }
}

impl Head<'_> {
    fn place(&self) -> (&[u8], lockstone_base::Lsn) {
        (&self.next.row, self.next.version.stamp)
    }
}

/// The heap gives its greatest element first: the order is reversed.
impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        version_order(other.place(), self.place())
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Damage;
    use crate::version::Version;
    use bytes::Bytes;
    use lockstone_base::Lsn;
    use std::path::PathBuf;

    fn version(row: &'static str, stamp: u64) -> RowVersion {
        RowVersion {
            row: Bytes::from_static(row.as_bytes()),
            version: Version {
                stamp: Lsn::new(stamp),
                value: None,
            },
        }
    }

    #[test]
    fn newest_first_within_a_row() {
        let a: Versions = Box::new([Ok(version("a", 9)), Ok(version("c", 1))].into_iter());
        let b: Versions = Box::new([Ok(version("a", 5)), Ok(version("b", 7))].into_iter());
        let out: Vec<_> = merged(vec![a, b]).unwrap().map(Result::unwrap).collect();
        assert_eq!(
            out,
            [
                version("a", 9),
                version("a", 5),
                version("b", 7),
                version("c", 1)
            ]
        );
    }

    #[test]
    fn an_error_ends_the_stream() {
        let bad = StorageError::Corrupt {
            file: PathBuf::new(),
            offset: None,
            what: Damage::Missing,
        };
        let a: Versions =
            Box::new([Ok(version("a", 1)), Err(bad), Ok(version("b", 1))].into_iter());
        let b: Versions = Box::new([Ok(version("c", 1))].into_iter());
        let mut out = merged(vec![a, b]).unwrap();
        assert_eq!(out.next().unwrap().unwrap(), version("a", 1));
        assert!(out.next().unwrap().is_err());
        assert!(out.next().is_none());
    }
}
