//! Who yields to whom: the priority that a user asks for, and the rank that it settles to.
//!
//! - Two bands, normal and high, each with a number; every high rank beats every normal one.
//! - A [`Priority`] is settled to a [`Rank`] once, before the transaction's first provisional record,
//!   and never changes after.
//! - The draw of `auto` counts for wounding only. In queues, and when a deadlock's victim is picked,
//!   all `auto` transactions are equal ([`Rank::queue_order`]).

use std::fmt;

use serde::{Serialize, Serializer};

/// The priority that a transaction asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Priority(Asked);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Asked {
    #[default]
    Auto,
    Normal(u32),
    High(u32),
    Random,
}

impl Priority {
    /// The default: a random normal number; one fixed high value, 2³¹, the same for all, if the
    /// transaction's first locking call is an explicit one (`lock…`, `get_for`, `range_for`). This counts for wounding
    /// only: in queues, and when a deadlock's victim is picked, all such transactions are equal, below every number that
    /// was asked for.
    pub const fn auto() -> Self {
        Self(Asked::Auto)
    }

    /// Within the normal band; a larger number goes first.
    pub const fn normal(number: u32) -> Self {
        Self(Asked::Normal(number))
    }

    /// Within the high band, above every normal one; a larger number goes first. A transaction with [`Priority::auto`]
    /// whose first locking call is an explicit one stands in the middle of this band, at 2³¹: a smaller number does not
    /// wound it, a larger one does.
    pub const fn high(number: u32) -> Self {
        Self(Asked::High(number))
    }

    /// A random number in the normal band, also for explicit lockers.
    pub const fn random() -> Self {
        Self(Asked::Random)
    }

    /// The rank this settles to. `draw` is a random number; `explicit` says whether the
    /// transaction's first locking call is one that locks and does not write.
    pub const fn settle(self, draw: u32, explicit: bool) -> Rank {
        match self.0 {
            Asked::Auto if explicit => Rank(AUTO_BIT | HIGH_BIT | EXPLICIT_NUMBER),
            Asked::Auto => Rank(AUTO_BIT | draw as u64),
            Asked::Normal(number) => Rank(number as u64),
            Asked::High(number) => Rank(HIGH_BIT | number as u64),
            Asked::Random => Rank(draw as u64),
        }
    }
}

const HIGH_BIT: u64 = 1 << 32;
const AUTO_BIT: u64 = 1 << 33;
/// What every explicit `auto` locker shares: in the middle of the high band, so that a user's
/// `high(n)` can stand on either side of it.
const EXPLICIT_NUMBER: u64 = 1 << 31;

/// A settled priority: what provisional records carry and conflicts compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rank(u64);

impl Rank {
    /// The rank whose [`Rank::to_bits`] are `bits`; `None` if no rank has them.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits >> 34 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// Band, number and whether it came from `auto`, for disk.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Whether it lies in the high band.
    pub const fn is_high(self) -> bool {
        self.0 & HIGH_BIT != 0
    }

    /// Its number within the band.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// Whether a requester of this rank may wound a holder of rank `other`: strictly higher.
    pub const fn exceeds(self, other: Self) -> bool {
        self.0 & !AUTO_BIT > other.0 & !AUTO_BIT
    }

    /// What queues and the choice of a deadlock's victim compare: all `auto` ranks are equal there.
    pub const fn queue_order(self) -> u64 {
        if self.0 & AUTO_BIT != 0 { 0 } else { self.0 }
    }
}

/// As people read it: `high 7`.
impl Serialize for Rank {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let band = if self.is_high() { "high" } else { "normal" };
        write!(f, "{band} {}", self.number())
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auto = if self.0 & AUTO_BIT != 0 { "auto " } else { "" };
        write!(f, "Rank({auto}{self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_high_rank_exceeds_every_normal_one() {
        let low = Priority::high(0).settle(0, false);
        let top = Priority::normal(u32::MAX).settle(0, false);
        assert!(low.exceeds(top) && !top.exceeds(low));
    }

    #[test]
    fn explicit_auto_lockers_share_one_high_value() {
        let a = Priority::auto().settle(1, true);
        let b = Priority::auto().settle(99, true);
        assert_eq!(a, b);
        assert!(a.is_high() && !a.exceeds(b));
    }

    #[test]
    fn the_draw_of_auto_counts_for_wounding_only() {
        let a = Priority::auto().settle(1, false);
        let b = Priority::auto().settle(2, false);
        assert!(b.exceeds(a));
        assert_eq!(a.queue_order(), b.queue_order());
    }

    #[test]
    fn bits_round_trip_and_strangers_are_refused() {
        for rank in [
            Priority::auto().settle(7, true),
            Priority::high(3).settle(0, false),
        ] {
            assert_eq!(Rank::from_bits(rank.to_bits()), Some(rank));
        }
        assert_eq!(Rank::from_bits(1 << 34), None);
    }
}
