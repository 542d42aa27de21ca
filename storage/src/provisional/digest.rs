//! A digest of records, whatever their order: the sum of a keyed hash of each.
//!
//! Taken by the writer of a spill, compared by recovery with what a prepared transaction has said of itself.
//! 1. The digest of two spills of an owner is the sum of theirs (V3).
//! 2. It depends on all of a record but its owner, and on the database's salt.

use std::ops::AddAssign;

use zerocopy::IntoBytes;

use super::record::{Effect, Record};

/// Odd numbers. Nothing up the sleeve: the fractional parts of the square roots of 41 to 53, made odd.
const FACTORS: [u64; 4] = [
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa5,
];

/// The sum of a 128-bit hash of each record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// That of one record, in the database with this salt.
    pub fn of(salt: u64, record: &Record<'_>) -> Self {
        let value = match record.effect {
            Effect::Put(value) => value,
            Effect::Lock | Effect::Delete => &[],
        };
        let mut lanes = Lanes::new(salt);
        lanes.take(&record.fixed_bytes());
        lanes.take(record.row);
        lanes.take(value);
        Self(lanes.finish())
    }

    /// The digest whose number is `number`.
    pub fn new(number: u128) -> Self {
        Self(number)
    }

    /// It as a number.
    pub fn get(self) -> u128 {
        self.0
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

/// Two hashes at once, with different factors.
struct Lanes {
    states: [u64; 2],
}

impl Lanes {
    fn new(salt: u64) -> Self {
        let [first, second, ..] = FACTORS;
        Self {
            states: [salt ^ first, salt.rotate_left(32) ^ second],
        }
    }

    /// A part, behind its length: no two lists of parts look alike.
    fn take(&mut self, part: &[u8]) {
        self.word(part.len() as u64);
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = 0_u64;
            for (to, from) in last.as_mut_bytes().iter_mut().zip(rest) {
                *to = *from;
            }
            self.word(last);
        }
    }

    fn word(&mut self, word: u64) {
        let [_, _, first, second] = FACTORS;
        let [a, b] = self.states;
        self.states = [fold(a ^ word, first), fold(b ^ word, second)];
    }

    fn finish(mut self) -> u128 {
        self.word(0);
        let [a, b] = self.states;
        u128::from(a) << u64::BITS | u128::from(b)
    }
}

/// The two halves of the product: each bit of the result depends on all bits below and above it.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}
