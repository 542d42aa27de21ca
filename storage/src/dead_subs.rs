//! Which sub-transactions of a transaction were rolled back (V4).
//!
//! Given with a spill by whoever keeps its transaction, and stored with it in the manifest; asked of each record that
//! is read.
//! 1. The intervals ascend, and between two of them there is a number that is alive.
//! 2. Numbers only grow: a dead one is dead for good.

/// Numbers of sub-transactions that were rolled back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadSubs {
    /// First and last number of each interval.
    intervals: Vec<(u32, u32)>,
}

impl DeadSubs {
    /// None.
    pub const NONE: Self = Self {
        intervals: Vec::new(),
    };

    /// The numbers of these intervals, each of which has its first and its last number, in any order.
    pub fn new(intervals: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut intervals: Vec<_> = intervals.into_iter().collect();
        intervals.retain(|(from, through)| from <= through);
        intervals.sort_unstable();
        let mut dead = Self::NONE;
        for (from, through) in intervals {
            match dead.intervals.last_mut() {
                Some((_, last)) if from <= last.saturating_add(1) => *last = through.max(*last),
                _ => dead.intervals.push((from, through)),
            }
        }
        dead
    }

    /// Those as they are stored, if they ascend as they should.
    pub(crate) fn stored(intervals: Vec<(u32, u32)>) -> Option<Self> {
        let dead = Self::new(intervals.iter().copied());
        (dead.intervals == intervals).then_some(dead)
    }

    /// First and last number of each interval, ascending.
    pub fn intervals(&self) -> &[(u32, u32)] {
        &self.intervals
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The first number of the interval that has `sub`, if it is dead.
    pub fn from_of(&self, sub: u32) -> Option<u32> {
        let behind = self.intervals.partition_point(|(from, _)| *from <= sub);
        let (from, through) = self.intervals.get(behind.checked_sub(1)?)?;
        (sub <= *through).then_some(*from)
    }

    /// Whether `sub` is dead.
    pub fn has(&self, sub: u32) -> bool {
        self.from_of(sub).is_some()
    }

    /// Whether all from `first` to `last` are dead.
    pub fn has_all(&self, first: u32, last: u32) -> bool {
        self.from_of(last).is_some_and(|from| from <= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dead_as_in_a_plain_list() {
        let mut draw = 7_u64;
        let mut next = |below: u32| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (draw >> 33) as u32 % below
        };
        for _ in 0..2000 {
            let intervals: Vec<_> = (0..next(6)).map(|_| (next(40), next(40))).collect();
            let dead = DeadSubs::new(intervals.iter().copied());
            let plain = |sub: u32| intervals.iter().any(|(a, b)| (*a..=*b).contains(&sub));
            for sub in 0..42 {
                assert_eq!(dead.has(sub), plain(sub), "{sub} in {intervals:?}");
                let last = sub + next(9);
                let all = (sub..=last).all(plain);
                assert_eq!(dead.has_all(sub, last), all, "{sub}..={last}");
            }
            let stored = dead.intervals().to_vec();
            assert_eq!(DeadSubs::stored(stored), Some(dead));
        }
        assert_eq!(DeadSubs::stored(vec![(3, 4), (5, 6)]), None);
        assert_eq!(DeadSubs::stored(vec![(3, 2)]), None);
        assert!(DeadSubs::new([(0, u32::MAX)]).has_all(0, u32::MAX));
    }
}
