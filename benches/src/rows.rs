//! The rows that every workload works on: 16-byte keys, 100-byte values.
//!
//! 1. The key of an id begins with the id in big-endian order, so key order is id order.
//! 2. Values are random bytes: nothing that compresses. One that an update writes begins with a counter,
//!    one more than in the value that it read: the read cannot be left out.

use fastrand::Rng;

/// The length of a key in bytes.
pub(crate) const KEY_BYTES: usize = 16;
/// The length of a value in bytes.
pub(crate) const VALUE_BYTES: usize = 100;
/// Key and value of one row, in bytes.
pub(crate) const ROW_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// The bits of a value's counter.
const COUNTER_BYTES: usize = size_of::<u64>();

pub(crate) type Key = [u8; KEY_BYTES];
pub(crate) type Value = [u8; VALUE_BYTES];

/// The key of row `id`: the id, then eight bytes mixed from it.
pub(crate) fn key(id: u64) -> Key {
    let (high, low) = (id.to_be_bytes(), mixed(id).to_be_bytes());
    let mut key = [0; KEY_BYTES];
    for (byte, from) in key.iter_mut().zip(high.into_iter().chain(low)) {
        *byte = from;
    }
    key
}

/// A fresh value.
pub(crate) fn value(rng: &mut Rng) -> Value {
    let mut value = [0; VALUE_BYTES];
    rng.fill(&mut value);
    value
}

/// The value that follows `old`: its counter plus one, then fresh bytes.
pub(crate) fn next_value(old: &[u8], rng: &mut Rng) -> Value {
    let mut next = value(rng);
    let counter = counter(old).wrapping_add(1);
    for (byte, from) in next.iter_mut().zip(counter.to_le_bytes()) {
        *byte = from;
    }
    next
}

/// The counter at the head of a value; a shorter value is at zero.
pub(crate) fn counter(value: &[u8]) -> u64 {
    value
        .first_chunk::<COUNTER_BYTES>()
        .map_or(0, |head| u64::from_le_bytes(*head))
}

/// A bijection of 64-bit words in which every bit of the input reaches every bit of the output: the
/// finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_ids() {
        let ids = [0, 1, 255, 256, 65_536, 1_000_000, u64::MAX];
        assert!(ids.map(key).is_sorted());
        assert_eq!(key(258)[..8], [0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn the_next_value_counts_on() {
        let mut rng = Rng::with_seed(1);
        let first = next_value(b"", &mut rng);
        let second = next_value(&first, &mut rng);
        assert_eq!((counter(&first), counter(&second)), (1, 2));
        assert_ne!(first[8..], second[8..]);
    }
}
