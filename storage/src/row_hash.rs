//! The hash of a row: what the memtable's index and the filters of runs find it by.
//!
//! Computed once for a read, whatever the number of sources; for a write before the append latch.
//! 1. Part of the format: filters on disk were built with it.
//! 2. Salted with the database's salt, so keys cannot be made to collide.

/// Odd numbers. Nothing up the sleeve: the fractional parts of the square roots of 23 to 37, made odd.
const HASH_FACTORS: [u64; 4] = [
    0xcbbb_9d5d_c105_9ed9,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
];

/// The salted hash of a row.
pub(crate) fn row_hash(salt: u64, row: &[u8]) -> u64 {
    let [length, word_factor, rest_factor, salt_factor] = HASH_FACTORS;
    let mut state = salt ^ (row.len() as u64).wrapping_mul(length);
    let (words, rest) = row.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), word_factor);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    state = fold(state ^ u64::from_le_bytes(last), rest_factor);
    fold(state ^ salt, salt_factor)
}

/// The two halves of the product: each bit of the result depends on all bits below and above it.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_salt_length_and_every_byte() {
        let base = row_hash(1, b"0123456789abc");
        assert_ne!(base, row_hash(2, b"0123456789abc"));
        assert_ne!(base, row_hash(1, b"0123456789abc\0"));
        for i in 0..13 {
            let mut row = *b"0123456789abc";
            row[i] ^= 1;
            assert_ne!(base, row_hash(1, &row), "byte {i}");
        }
        assert_ne!(row_hash(1, b""), row_hash(1, b"\0"));
    }

    #[test]
    fn the_hash_is_the_formats() {
        // Written down when the format was fixed: another value would deny rows in files that exist.
        assert_eq!(row_hash(0x0123_4567_89ab_cdef, b"\0\0\0\x01alice"), GOLDEN);
    }

    const GOLDEN: u64 = 0xe551_df57_6979_05be;
}
