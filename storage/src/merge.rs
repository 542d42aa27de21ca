//! Every version of several sources, in one order: what a flush writes and a compaction reads.
//!
//! A heap of walkers. The first sixteen bytes of a row decide most comparisons, so they stand in the heap
//! itself.
//! 1. Output is in version order, whatever the number of sources.
//! 2. An error ends the walk: its job fails as a whole and the old files stay (F7).
//! 3. Nothing is allocated for a version.
//! 4. Of a version that two sources have, from runs that one commit has adopted, the newer source's is taken, if the
//!    sources come newest first (S1). Else both are: whoever writes them takes that for damage.

use std::cmp::Ordering;

use crate::error::StorageError;
use crate::version::{VersionRef, version_order};
use crate::walk::Walker;

/// The versions of several walkers.
pub(crate) struct Merge<W> {
    /// A heap: the walker with the first version is the first.
    heads: Vec<Head<W>>,
    /// Walkers that have not begun.
    fresh: Vec<W>,
    /// The sources come newest first.
    ranked: bool,
}

/// A walker that has come to a version.
struct Head<W> {
    /// The first bytes of its version's row.
    first: u128,
    /// The place of its source.
    rank: usize,
    walker: W,
}

impl<W: Walker> Merge<W> {
    /// The versions of `walkers`, each in version order.
    pub(crate) fn new(walkers: Vec<W>) -> Self {
        Self {
            heads: Vec::with_capacity(walkers.len()),
            fresh: walkers,
            ranked: false,
        }
    }

    /// As [`Merge::new`], of walkers that come newest first: of equal versions the first one is taken alone.
    pub(crate) fn newest_first(walkers: Vec<W>) -> Self {
        Self {
            ranked: true,
            ..Self::new(walkers)
        }
    }

    fn begin(&mut self) -> Result<bool, StorageError> {
        for (rank, mut walker) in std::mem::take(&mut self.fresh).into_iter().enumerate() {
            if walker.advance()? {
                self.heads.push(Head {
                    first: first_bytes(walker.version().row),
                    rank,
                    walker,
                });
            }
        }
        for at in (0..self.heads.len() / 2).rev() {
            self.sift_down(at);
        }
        Ok(!self.heads.is_empty())
    }

    /// The walker whose version comes first, while there is one.
    pub(crate) fn first(&self) -> Option<&W> {
        self.heads.first().map(|head| &head.walker)
    }

    /// Lets the head at `at` sink below those that come before it.
    fn sift_down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            let first = if self.is_before(left + 1, left) {
                left + 1
            } else {
                left
            };
            if !self.is_before(first, at) {
                return;
            }
            self.heads.swap(first, at);
            at = first;
        }
    }

    /// Whether the head at `a` comes before the one at `b`; one that is not there comes before none.
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.heads.get(a), self.heads.get(b)) {
            (Some(a), Some(b)) => a.order(b).is_lt(),
            _ => false,
        }
    }

    /// Moves the head at `at` on.
    fn advance_at(&mut self, at: usize) -> Result<(), StorageError> {
        let Some(head) = self.heads.get_mut(at) else {
            return Ok(());
        };
        if head.walker.advance()? {
            head.first = first_bytes(head.walker.version().row);
        } else {
            self.heads.swap_remove(at);
        }
        self.sift_down(at);
        Ok(())
    }

    /// S1: passes over what other sources have of the version that the first one has come to.
    fn pass_equals(&mut self) -> Result<(), StorageError> {
        loop {
            let next = if self.is_before(2, 1) { 2 } else { 1 };
            match (self.heads.first(), self.heads.get(next)) {
                (Some(head), Some(other)) if head.is_at(other) => self.advance_at(next)?,
                _ => return Ok(()),
            }
        }
    }
}

impl<W: Walker> Head<W> {
    /// Whether the two have come to one version.
    fn is_at(&self, other: &Self) -> bool {
        self.first == other.first && self.walker.version().place() == other.walker.version().place()
    }

    fn order(&self, other: &Self) -> Ordering {
        self.first.cmp(&other.first).then_with(|| {
            version_order(
                self.walker.version().place(),
                other.walker.version().place(),
            )
            .then(self.rank.cmp(&other.rank))
        })
    }
}

impl<W: Walker> Walker for Merge<W> {
    fn advance(&mut self) -> Result<bool, StorageError> {
        if !self.fresh.is_empty() {
            return self.begin();
        }
        if self.ranked {
            self.pass_equals()?;
        }
        self.advance_at(0)?;
        Ok(!self.heads.is_empty())
    }

    fn version(&self) -> VersionRef<'_> {
        let head = self.heads.first();
        head.expect("a version is asked for while there is one")
            .walker
            .version()
    }
}

/// The first sixteen bytes of a row, zeros behind a shorter one: where these of two rows differ, the rows
/// are ordered as they are.
pub(crate) fn first_bytes(row: &[u8]) -> u128 {
    if let Some(bytes) = row.first_chunk() {
        return u128::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(row) {
        *to = *from;
    }
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Damage;
    use crate::version::{RowVersion, Version};
    use crate::walk::{Listed, collect};
    use bytes::Bytes;
    use lockstone_base::Lsn;
    use std::path::PathBuf;

    fn version(row: &str, stamp: u64) -> RowVersion {
        RowVersion {
            row: Bytes::copy_from_slice(row.as_bytes()),
            version: Version {
                stamp: Lsn::new(stamp),
                value: None,
            },
        }
    }

    #[test]
    fn newest_first_within_a_row() {
        let a = [Ok(version("a", 9)), Ok(version("c", 1))];
        let b = [Ok(version("a", 5)), Ok(version("b", 7))];
        let merge = Merge::new(vec![Listed::new(a), Listed::new(b)]);
        let want = [("a", 9), ("a", 5), ("b", 7), ("c", 1)];
        assert_eq!(
            collect(merge).unwrap(),
            want.map(|(row, stamp)| version(row, stamp))
        );
    }

    #[test]
    fn any_number_of_sources_comes_out_in_order() {
        // Rows that differ before, in and behind the bytes that stand in the heap.
        let row = |n: u64| match n % 3 {
            0 => format!("{:02}", n % 50),
            1 => format!("the same sixteen bytes, then {:03}", n % 70),
            _ => format!("{}{:03}", "x".repeat(12), n % 90),
        };
        for sources in [0, 1, 2, 3, 7, 16, 33] {
            let mut lists = vec![Vec::new(); sources];
            for n in 0..sources as u64 * 40 {
                // Distinct stamps: no version is there twice.
                let at = (n * 2_654_435_761) as usize % sources;
                lists[at].push(version(&row(n * 7919 % 1009), n + 1));
            }
            let sort = |list: &mut Vec<RowVersion>| {
                list.sort_by(|a, b| {
                    version_order((&a.row, a.version.stamp), (&b.row, b.version.stamp))
                });
            };
            lists.iter_mut().for_each(sort);
            let mut want = lists.concat();
            sort(&mut want);
            let walkers = lists
                .into_iter()
                .map(|list| Listed::new(list.into_iter().map(Ok)));
            assert_eq!(collect(Merge::new(walkers.collect())).unwrap(), want);
        }
    }

    #[test]
    fn an_error_ends_the_walk() {
        let bad = StorageError::Corrupt {
            file: PathBuf::new(),
            offset: None,
            what: Damage::Missing,
        };
        let a = vec![Ok(version("a", 1)), Err(bad)];
        let b = vec![Ok(version("c", 1))];
        let mut merge = Merge::new(vec![Listed::new(a), Listed::new(b)]);
        assert!(merge.advance().unwrap());
        assert!(merge.advance().is_err());
    }
}
