//! A filter over the rows of a run: "not here" without reading a block.
//!
//! Built by the writer, asked by `Run::get`. A split block Bloom filter: a row's hash chooses a block of
//! 32 bytes, in which it sets one bit of each of eight words, so a look-up touches one cache line. (Putze,
//! Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007.)
//!
//! 1. A row that was inserted is never denied.
//! 2. Ten bits for each row: about one wrong yes in a hundred.
//! 3. Hash (`row_hash`) and layout are part of the format.

/// Bits for each row.
const BITS_PER_ROW: u64 = 10;
const BLOCK_BYTES: usize = 32;
const WORD_BYTES: usize = 4;

/// Odd numbers, one for each word of a block: a product's high bits choose the bit. Nothing up the sleeve:
/// the fractional parts of the square roots of 2 to 19, made odd.
const WORD_FACTORS: [u32; BLOCK_BYTES / WORD_BYTES] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f373,
    0xa54f_f53b,
    0x510e_527f,
    0x9b05_688d,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The filter over the rows with these hashes.
pub(super) fn build(hashes: &[u64]) -> Vec<u8> {
    let bits = hashes.len() as u64 * BITS_PER_ROW;
    let blocks = bits.div_ceil(8 * BLOCK_BYTES as u64).max(1);
    let mut filter = vec![0; blocks as usize * BLOCK_BYTES];
    for hash in hashes {
        insert(&mut filter, *hash);
    }
    filter
}

fn insert(filter: &mut [u8], hash: u64) {
    let at = block_at(filter, hash);
    let words = filter.get_mut(at..at + BLOCK_BYTES).unwrap_or_default();
    for (word, factor) in words.chunks_exact_mut(WORD_BYTES).zip(WORD_FACTORS) {
        for (byte, bits) in word.iter_mut().zip(word_bit(hash, factor).to_le_bytes()) {
            *byte |= bits;
        }
    }
}

/// Whether `filter` is as long as a filter can be.
pub(super) fn is_whole(filter_bytes: u64) -> bool {
    filter_bytes > 0 && filter_bytes.is_multiple_of(BLOCK_BYTES as u64)
}

/// Whether the row with this hash may be in the run.
pub(super) fn may_contain(filter: &[u8], hash: u64) -> bool {
    let at = block_at(filter, hash);
    let block = filter.get(at..).and_then(<[u8]>::first_chunk);
    let block: &[u8; BLOCK_BYTES] = block.unwrap_or(&[0; BLOCK_BYTES]);
    let (words, _) = block.as_chunks();
    // All words, without a branch at each.
    let missing = words.iter().zip(WORD_FACTORS).fold(0, |missing, it| {
        let (word, factor) = it;
        missing | (word_bit(hash, factor) & !u32::from_le_bytes(*word))
    });
    missing == 0
}

/// Where the hash's block starts: its high half, scaled to the number of blocks.
fn block_at(filter: &[u8], hash: u64) -> usize {
    let blocks = (filter.len() / BLOCK_BYTES) as u64;
    let block = (u128::from(hash >> 32) * u128::from(blocks)) >> 32;
    block as usize * BLOCK_BYTES
}

fn word_bit(hash: u64, factor: u32) -> u32 {
    1 << ((hash as u32).wrapping_mul(factor) >> 27)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_hash::row_hash;

    #[test]
    fn rows_that_were_inserted_are_never_denied_and_few_others_are_confirmed() {
        let rows = 20_000_u32;
        let hashes: Vec<_> = (0..rows)
            .map(|row| row_hash(7, &row.to_be_bytes()))
            .collect();
        let filter = build(&hashes);
        assert!(is_whole(filter.len() as u64));
        for row in 0..rows {
            assert!(may_contain(&filter, row_hash(7, &row.to_be_bytes())));
        }
        let wrong = (rows..rows * 11)
            .filter(|row| may_contain(&filter, row_hash(7, &row.to_be_bytes())))
            .count();
        assert!(wrong < 200_000 / 50, "{wrong} of 200,000");
    }
}
