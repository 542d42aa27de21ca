//! How large each level should be, and where level 0 is merged into.
//!
//! Used by the picking of jobs; knows sizes alone.
//!
//! The deepest level is as large as its content makes it. Each level above it should have a tenth of the
//! one below, and none less than a base; so about nine tenths of all bytes lie in the deepest level, and old versions
//! take little space beside it, however large the database is (the idea is RocksDB's "dynamic level
//! size": Dong et al., "Optimizing Space Amplification in RocksDB", CIDR 2017).
//!
//! ```text
//! bottom has   300 MiB           200 GiB                 2 TiB                  with a base of 256 MiB
//! level 0      -> level 6        -> level 4              -> level 3
//! targets      6: as it is       4: 2 GiB  5: 20 GiB     3: 2 GiB  4: 20 GiB  5: 205 GiB
//! ```
//!
//! 1. Level 0 is merged into the base level, and nothing lies between the two (W5).
//! 2. A level above the base level, from a time when the database was larger, is over its target and drains.

use crate::manifest::LEVEL_MAX;

/// How much larger a level is than the one above it.
const RATIO: u64 = 10;
const LEVELS: usize = LEVEL_MAX as usize + 1;

/// A level that has what it should have, in thousandths.
pub(crate) const FULL: u64 = 1000;

/// `part` of `whole`, in thousandths.
pub(crate) fn share(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * u128::from(FULL) / u128::from(whole.max(1));
    share.try_into().unwrap_or(u64::MAX)
}

/// How large each level should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Targets {
    /// The level that level 0 is merged into.
    pub(crate) base: u8,
    bytes: [u64; LEVELS],
}

impl Targets {
    /// The targets of a tree whose levels, from level 1 down, have these sizes, in bytes. No level is to be
    /// smaller than `base_bytes`.
    pub(crate) fn of(sizes: impl Iterator<Item = u64>, base_bytes: u64) -> Self {
        let (mut largest, mut first_used) = (0, LEVEL_MAX);
        for (level, bytes) in (1..=LEVEL_MAX).zip(sizes) {
            largest = largest.max(bytes);
            if bytes > 0 {
                first_used = first_used.min(level);
            }
        }
        let mut bytes = [0; LEVELS];
        let (mut level, mut target) = (LEVEL_MAX, largest.max(base_bytes));
        loop {
            if let Some(slot) = bytes.get_mut(usize::from(level)) {
                *slot = target;
            }
            if level == 1 || target / RATIO < base_bytes {
                break;
            }
            (level, target) = (level - 1, target / RATIO);
        }
        Self {
            base: level.min(first_used),
            bytes,
        }
    }

    /// What the level should have at most, in bytes; 0 where it should be empty.
    pub(crate) fn bytes(&self, level: u8) -> u64 {
        let bytes = self.bytes.get(usize::from(level));
        bytes.copied().unwrap_or_default()
    }

    /// How full the level is with `bytes` bytes, in thousandths: from [`FULL`] on, something should go down. The
    /// deepest level has nowhere to send anything to.
    pub(crate) fn fill(&self, level: u8, bytes: u64) -> u64 {
        if level >= LEVEL_MAX || bytes == 0 {
            return 0;
        }
        match self.bytes(level) {
            // Not urgent, and yet due.
            0 => FULL,
            target => share(bytes, target),
        }
    }

    /// By how much the level is over its target, in bytes.
    pub(crate) fn debt(&self, level: u8, bytes: u64) -> u64 {
        if level >= LEVEL_MAX {
            return 0;
        }
        bytes.saturating_sub(self.bytes(level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 256 << 20;
    const GIB: u64 = 1 << 30;

    fn targets(sizes: [u64; 6]) -> Targets {
        Targets::of(sizes.into_iter(), BASE)
    }

    #[test]
    fn a_small_database_has_one_level_below_level_0() {
        for bottom in [0, 1, BASE, 9 * BASE] {
            let targets = targets([0, 0, 0, 0, 0, bottom]);
            assert_eq!(targets.base, 6, "{bottom}");
            assert_eq!(targets.fill(6, bottom), 0);
        }
    }

    #[test]
    fn each_level_has_a_tenth_of_the_one_below() {
        let targets = targets([0, 0, 0, 0, 0, 200 * GIB]);
        assert_eq!(targets.base, 4);
        assert_eq!(targets.bytes(5), 20 * GIB);
        assert_eq!(targets.bytes(4), 2 * GIB);
        assert_eq!(targets.fill(4, 4 * GIB), 2 * FULL);
        assert_eq!(targets.debt(4, 5 * GIB), 3 * GIB);
        assert_eq!((targets.debt(6, u64::MAX), targets.debt(3, 7)), (0, 7));
    }

    #[test]
    fn no_level_is_deeper_than_what_it_takes() {
        let targets = targets([0, 0, 0, 0, 0, u64::MAX]);
        assert_eq!(targets.base, 1);
        assert!((1..6).all(|level| targets.bytes(level) >= BASE));
    }

    #[test]
    fn nothing_is_put_below_what_is_there() {
        // The database has shrunk: level 4 drains, and until then newer versions stay above it (W5).
        let targets = targets([0, 0, 0, 5, 0, BASE]);
        assert_eq!(targets.base, 4);
        assert_eq!(targets.bytes(4), 0);
        assert!(targets.fill(4, 5) >= FULL && targets.debt(4, 5) == 5);
    }

    #[test]
    fn a_level_that_outgrew_the_bottom_sends_down() {
        let targets = targets([0, 0, 0, 0, 30 * GIB, GIB]);
        assert_eq!(targets.base, 4);
        assert_eq!(targets.fill(5, 30 * GIB), 10 * FULL);
    }
}
