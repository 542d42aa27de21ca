//! The choices of one life: numbers that a seed gives again, and the keys, values and bounds that they make.

use std::ops::Bound;

use super::Bounds;

/// Numbers that a seed gives again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(0x9e37_79b9);
        (self.0 >> 33) as usize % end
    }

    /// Few, so that rows are met again; some begin with others.
    pub(crate) fn key(&mut self) -> Vec<u8> {
        format!("{:03}", self.below(150)).into_bytes()[..=self.below(3)].to_vec()
    }

    pub(crate) fn value(&mut self) -> Vec<u8> {
        let bytes = [0, 5, 40, 400, 9_000][self.below(5)];
        vec![self.below(256) as u8; bytes]
    }

    pub(crate) fn bounds(&mut self) -> Bounds {
        let mut bound = || match self.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        };
        (bound(), bound())
    }
}
