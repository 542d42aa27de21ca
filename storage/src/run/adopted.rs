//! Runs that a commit has adopted: spills whose versions all have the commit's stamp.
//!
//! Asked by whoever reads versions of a run: `reader`, `cursor`, `walker`, `alone`.
//! 1. What stands on disk in the place of a stamp is the order of records: one above the number of the
//!    sub-transaction, so never zero. It finds places in the run, and nobody outside ever sees it.
//! 2. Every version has the uniform stamp; of a row the first one counts whose sub-transaction is alive (V3, V4).
//! 3. A run of a flush or a compaction, and an adopted one without dead sub-transactions, pay one comparison.

use lockstone_base::Lsn;

use super::entry::{Adopted, Origin};
use super::reader::Run;

impl Run {
    /// Which place among a row's versions a reader at `at` begins with.
    #[inline]
    pub(super) fn place_at(&self, at: Lsn) -> Lsn {
        match self.entry().origin {
            Origin::Adopted(_) => Lsn::MAX,
            _ => at,
        }
    }

    /// The stamp of a version that stands here with `stored`.
    #[inline]
    pub(super) fn stamp_of(&self, stored: Lsn) -> Lsn {
        match self.entry().origin {
            Origin::Adopted(_) => self.entry().newest,
            _ => stored,
        }
    }

    /// V4: if the version that stands here with `stored` is dead, the place among its row's versions with which to
    /// go on.
    #[inline]
    pub(super) fn behind_dead(&self, stored: Lsn) -> Option<Lsn> {
        match &self.entry().origin {
            Origin::Adopted(adopted) if !adopted.dead.is_empty() => {
                let sub = stored.get().saturating_sub(1) as u32;
                // One above the number before the interval: at most the order of what is alive there.
                let from = adopted.dead.from_of(sub)?;
                Some(Lsn::new(u64::from(from)))
            }
            _ => None,
        }
    }

    /// Whether some rows may have versions that do not count, though nothing newer hides them.
    #[inline]
    pub(super) fn has_dead(&self) -> bool {
        matches!(&self.entry().origin, Origin::Adopted(adopted) if !adopted.dead.is_empty())
    }

    /// This spill, which nobody reads yet, adopted by the commit at `stamp`.
    pub(crate) fn adopt(&mut self, stamp: Lsn, adopted: Adopted) {
        self.entry = self.entry.adopted(stamp, adopted);
    }

    /// Another stamp for a run that was adopted and that nobody reads yet. Allocates nothing (W2).
    pub(crate) fn set_stamp(&mut self, stamp: Lsn) {
        assert!(self.is_adopted(), "S1: what is adopted alone has one stamp");
        self.entry.oldest = stamp;
        self.entry.newest = stamp;
    }

    /// Whether of each row only the first version that is alive is a version at all.
    pub(crate) fn is_adopted(&self) -> bool {
        matches!(self.entry().origin, Origin::Adopted(_))
    }
}
