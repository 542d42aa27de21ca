//! Which rows an operation takes: all alike, or few of them often.
//!
//! The skewed choice draws ranks with probability proportional to `1 / rank^0.99`, as YCSB does (Cooper
//! et al.: Benchmarking Cloud Serving Systems with YCSB, 2010), and scatters the ranks over all ids, so
//! that hot rows are not neighbours. The draw is exact and needs no sum over all ranks:
//! rejection-inversion (Hörmann and Derflinger: Rejection-Inversion to Generate Variates from Monotone
//! Discrete Distributions, 1996).

use fastrand::Rng;

use crate::permutation::Permutation;

/// The skew: YCSB's.
const EXPONENT: f64 = 0.99;

/// Ranks `1..=n` with probability proportional to `1 / rank^EXPONENT`.
///
/// The area under `x^-s` from half a step below each rank to half a step above it is a little more than
/// the rank's weight. A point is drawn evenly from the whole area, inverted to a rank, and rejected when it
/// falls in that little more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zipf {
    n: f64,
    /// The area up to the last rank's upper edge.
    area_to_end: f64,
    /// The area before the first rank: its part of the curve is cut to its weight exactly.
    area_before_first: f64,
    /// Points this close below their rank are never rejected, which saves most of the exact tests.
    sure_within: f64,
}

impl Zipf {
    /// The choice among `1..=n`.
    pub(crate) fn new(n: u64) -> Self {
        assert!(n > 0, "a choice among something");
        let n = n as f64;
        Self {
            n,
            area_to_end: area(n + 0.5),
            area_before_first: area(1.5) - 1.0,
            sure_within: 2.0 - area_inverted(area(2.5) - weight(2.0)),
        }
    }

    /// One rank.
    pub(crate) fn rank(&self, rng: &mut Rng) -> u64 {
        loop {
            let point = self.area_to_end + rng.f64() * (self.area_before_first - self.area_to_end);
            let x = area_inverted(point);
            let rank = x.round().clamp(1.0, self.n);
            if rank - x <= self.sure_within || point >= area(rank + 0.5) - weight(rank) {
                return rank as u64;
            }
        }
    }
}

fn weight(x: f64) -> f64 {
    x.powf(-EXPONENT)
}

/// The integral of `weight`, up to a constant.
fn area(x: f64) -> f64 {
    (x.powf(1.0 - EXPONENT) - 1.0) / (1.0 - EXPONENT)
}

fn area_inverted(area: f64) -> f64 {
    (1.0 + area * (1.0 - EXPONENT)).powf(1.0 / (1.0 - EXPONENT))
}

/// How ids in `0..rows` are chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    Uniform { rows: u64 },
    Skewed { zipf: Zipf, scattered: Permutation },
}

impl Choice {
    /// All alike.
    pub(crate) fn uniform(rows: u64) -> Self {
        Self::Uniform { rows }
    }

    /// Few often.
    pub(crate) fn skewed(rows: u64) -> Self {
        // The same rows are hot in every run of every program.
        const HOT_ROWS_SEED: u64 = 0;
        Self::Skewed {
            zipf: Zipf::new(rows),
            scattered: Permutation::new(rows, HOT_ROWS_SEED),
        }
    }

    /// One id.
    pub(crate) fn id(&self, rng: &mut Rng) -> u64 {
        match self {
            Self::Uniform { rows } => rng.u64(0..*rows),
            Self::Skewed { zipf, scattered } => scattered.at(zipf.rank(rng) - 1),
        }
    }

    /// `count` different ids into `ids`, in the order in which they were drawn.
    pub(crate) fn distinct(&self, count: usize, rng: &mut Rng, ids: &mut Vec<u64>) {
        ids.clear();
        while ids.len() < count {
            let id = self.id(rng);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_their_weight_says() {
        const DRAWS: u32 = 400_000;
        for n in [1_u64, 2, 10, 1000] {
            let zipf = Zipf::new(n);
            let mut rng = Rng::with_seed(n);
            let mut counts = vec![0_u32; n as usize];
            for _ in 0..DRAWS {
                counts[zipf.rank(&mut rng) as usize - 1] += 1;
            }
            let sum: f64 = (1..=n).map(|rank| weight(rank as f64)).sum();
            for (rank, count) in (1..=n).zip(counts) {
                let expected = f64::from(DRAWS) * weight(rank as f64) / sum;
                let sigmas = (f64::from(count) - expected).abs() / expected.sqrt();
                assert!(
                    sigmas < 5.0,
                    "{n}: rank {rank} came {count} times, expected {expected}"
                );
            }
        }
    }

    #[test]
    fn few_rows_take_most_of_a_million() {
        let choice = Choice::skewed(1_000_000);
        let mut rng = Rng::with_seed(3);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..100_000 {
            *counts.entry(choice.id(&mut rng)).or_insert(0_u32) += 1;
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // The harmonic sums: 1 / H(10^6) = 6.5 %, and H(100) / H(10^6) = 34 %.
        assert!((5_800..7_200).contains(&counts[0]), "{}", counts[0]);
        let hundred: u32 = counts.iter().take(100).sum();
        assert!((32_000..37_000).contains(&hundred), "{hundred}");
    }

    #[test]
    fn distinct_ids_are_distinct_and_in_range() {
        let mut rng = Rng::with_seed(4);
        let mut ids = Vec::new();
        for choice in [Choice::uniform(20), Choice::skewed(20)] {
            choice.distinct(20, &mut rng, &mut ids);
            ids.sort_unstable();
            assert!(ids.iter().copied().eq(0..20));
        }
    }
}
