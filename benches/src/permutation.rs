//! A random order of `0..n` without a table of it: for loads in random order, and to scatter the hot ids
//! of a skewed choice over the key space.
//!
//! A balanced Feistel network over the next even number of bits, walked until it lands inside (Black and
//! Rogaway: Ciphers with Arbitrary Finite Domains, 2002). The walk takes less than four steps on average.

use crate::rows::mixed;

/// More rounds change nothing that a benchmark could see.
const ROUNDS: u64 = 4;

/// A bijection of `0..n`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    n: u64,
    half_bits: u32,
    seed: u64,
}

impl Permutation {
    /// The order number `seed` of `0..n`.
    pub(crate) fn new(n: u64, seed: u64) -> Self {
        assert!(n > 0, "there is an order of something only");
        let bits = u64::BITS - (n - 1).leading_zeros();
        Self {
            n,
            half_bits: bits.div_ceil(2).max(1),
            seed: mixed(seed),
        }
    }

    /// The element at `place`, which lies in `0..n`.
    pub(crate) fn at(&self, place: u64) -> u64 {
        assert!(place < self.n, "a place within the order");
        let mut id = self.scrambled(place);
        while id >= self.n {
            id = self.scrambled(id);
        }
        id
    }

    fn scrambled(&self, word: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let halves = (word >> self.half_bits, word & mask);
        let (left, right) = (0..ROUNDS).fold(halves, |(left, right), round| {
            (
                right,
                left ^ (mixed(right ^ self.seed.wrapping_add(round << 32)) & mask),
            )
        });
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_comes_once() {
        for n in [1, 2, 3, 5, 64, 65, 1000] {
            let order = Permutation::new(n, 7);
            let mut ids: Vec<_> = (0..n).map(|place| order.at(place)).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..n), "{n}");
        }
    }

    #[test]
    fn the_order_is_not_sorted_and_differs_by_seed() {
        let ids = |seed| {
            (0..1000)
                .map(|place| Permutation::new(1000, seed).at(place))
                .collect::<Vec<_>>()
        };
        assert!(!ids(1).is_sorted());
        assert_ne!(ids(1), ids(2));
        // A sorted neighbour pair is as likely as not.
        let rising = ids(1).windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((400..600).contains(&rising), "{rising}");
    }
}
