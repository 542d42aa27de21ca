//! The hash of a row: seeded, so that nobody outside can aim keys at one shard.
//!
//! Called by `table`, once per call; the hash then travels with the row.
//! 1. Equal bytes give equal hashes under one seed.
//!
//! Crash: memory only; another run has another seed.

/// Hashes rows under one seed. Multiply-and-fold over 16-byte steps, as in wyhash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowHasher {
    seed: u64,
    /// What steps are mixed with: secret too, for a known one could be cancelled out by a row's bytes.
    step: u64,
    finish: u64,
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
const FINISH: u64 = 0xD6E8_FEB8_6659_FD93;

impl RowHasher {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed: fold(seed ^ FINISH, STEP),
            step: fold(seed ^ STEP, FINISH) | 1,
            finish: fold(seed.rotate_left(32) ^ FINISH, STEP) | 1,
        }
    }

    pub(crate) fn hash(self, row: &[u8]) -> u64 {
        let mut state = self.seed;
        let (pairs, _) = row.as_chunks::<16>();
        for pair in pairs {
            let (low, high) = halves(*pair);
            state = fold(low ^ self.step, high ^ state);
        }
        // Of a row that has so many, the last 16 bytes: some of them twice.
        let last = row.last_chunk().copied().unwrap_or_else(|| {
            let mut last = [0; 16];
            for (to, from) in last.iter_mut().zip(row) {
                *to = *from;
            }
            last
        });
        let (low, high) = halves(last);
        state = fold(low ^ self.finish, high ^ state);
        // The length tells a row from the same row with zeros behind it.
        fold(state ^ row.len() as u64, self.seed ^ STEP)
    }
}

fn halves(pair: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_le_bytes(pair);
    (whole as u64, (whole >> 64) as u64)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_lengths_and_seeds_hash_apart() {
        let mut seen = BTreeSet::new();
        for seed in 0..4 {
            let hasher = RowHasher::new(seed);
            for number in 0..10_000_u32 {
                assert!(seen.insert(hasher.hash(&number.to_be_bytes())));
            }
            for length in 5..100 {
                assert!(seen.insert(hasher.hash(&vec![0; length])));
            }
        }
    }

    #[test]
    fn every_byte_of_a_row_counts() {
        let hasher = RowHasher::new(7);
        for length in 1..70 {
            let row = vec![3; length];
            for at in 0..length {
                let mut other = row.clone();
                other[at] ^= 1;
                assert_ne!(hasher.hash(&row), hasher.hash(&other), "{at} of {length}");
            }
        }
    }

    /// Bytes that cancel a constant of the hash made the rest of the row count for nothing, under any seed.
    #[test]
    fn rows_cannot_be_aimed_at_one_hash() {
        let hasher = RowHasher::new(7);
        let aimed = |number: u64| {
            let head = [&number.to_le_bytes()[..], &number.to_be_bytes()[..]].concat();
            [&head[..], &STEP.to_le_bytes(), &[0; 8]].concat()
        };
        let seen: BTreeSet<u64> = (0..1000)
            .map(|number| hasher.hash(&aimed(number)))
            .collect();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn the_shard_bits_spread_evenly_over_shards() {
        let hasher = RowHasher::new(7);
        let mut shards = [0_u32; 64];
        for number in 0..64_000_u64 {
            shards[(hasher.hash(&number.to_be_bytes()) >> 48) as usize % 64] += 1;
        }
        assert!(
            shards.iter().all(|rows| (800..1200).contains(rows)),
            "{shards:?}"
        );
    }
}
