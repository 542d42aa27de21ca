//! The rows: 16-byte keys in the order of their ids, 100 random bytes as values, as in the throughput program.

pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 100;

pub type Key = [u8; KEY_BYTES];
pub type Value = [u8; VALUE_BYTES];

/// The key of row `id`: the id in big-endian order, then eight bytes mixed from it.
pub fn key(id: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key[8..].copy_from_slice(&mixed(id).to_be_bytes());
    key
}

/// Fresh random bytes.
pub fn value(rng: &mut fastrand::Rng) -> Value {
    let mut value = [0; VALUE_BYTES];
    rng.fill(&mut value);
    value
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Every number below `count` once, in an order that looks random: a Feistel network over the next power of four,
/// walked until it lands inside (Black, Rogaway: Ciphers with Arbitrary Finite Domains, 2002).
pub struct Shuffled {
    count: u64,
    half_bits: u32,
}

impl Shuffled {
    pub fn new(count: u64) -> Self {
        let bits = u64::BITS - count.max(2).leading_zeros();
        Self {
            count,
            half_bits: bits.div_ceil(2),
        }
    }

    pub fn at(&self, index: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let mut id = index;
        loop {
            let (mut left, mut right) = (id >> self.half_bits, id & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (mixed(right ^ (round << 60)) & mask));
            }
            id = left << self.half_bits | right;
            if id < self.count {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once() {
        for count in [1, 2, 3, 1000, 4096, 5000] {
            let shuffled = Shuffled::new(count);
            let mut seen: Vec<_> = (0..count).map(|index| shuffled.at(index)).collect();
            assert!(count < 1000 || !seen.is_sorted());
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }
}
