//! The column of a block that tells beside each version what a spill knows of it: a token and a byte of traits.
//!
//! Written by `block_builder`, found by `layout`, read by `entries`. What the two say is `provisional`'s: here they
//! are a number and a byte that is not zero.
//!
//! ```text
//! smallest token (8)  length of each token (1)  traits of all, or 0 (1)  tokens  [traits]
//! ```
//!
//! 1. What all have in common stands once, as with the other columns: locks of one mode that one record granted
//!    cost nothing beside their rows.
//! 2. Who reads committed versions passes over the column: it ends where the values' ends begin.
//! 3. Every access checks its bounds (F23).

/// What a spill knows of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) token: u64,
    /// Never zero.
    pub(crate) traits: u8,
}

/// What stands in front of the tokens.
const HEAD_BYTES: usize = 10;

/// The column of a block.
#[derive(Debug, Clone, Copy)]
struct Marks<'a> {
    smallest: u64,
    token_bytes: usize,
    /// Of all versions; 0: they vary.
    traits: u8,
    /// Behind the head.
    columns: &'a [u8],
}

impl<'a> Marks<'a> {
    fn at(block: &'a [u8], at: usize) -> Option<Self> {
        let (head, columns) = block.get(at..)?.split_at_checked(HEAD_BYTES)?;
        let (smallest, lengths) = head.split_first_chunk()?;
        let [token_bytes, traits] = lengths.first_chunk()?;
        Some(Self {
            smallest: u64::from_le_bytes(*smallest),
            token_bytes: usize::from(*token_bytes),
            traits: *traits,
            columns,
        })
        .filter(|marks| marks.token_bytes <= size_of::<u64>())
    }

    fn traits_bytes(&self) -> usize {
        usize::from(self.traits == 0)
    }
}

/// How long the column is that starts at `at` in a block of so many versions.
pub(super) fn length(block: &[u8], at: usize, versions: usize) -> Option<usize> {
    let marks = Marks::at(block, at)?;
    Some(HEAD_BYTES + versions * (marks.token_bytes + marks.traits_bytes()))
}

/// The mark of the version number `index` of `versions`.
pub(super) fn mark(block: &[u8], at: usize, versions: usize, index: usize) -> Option<Mark> {
    let marks = Marks::at(block, at)?;
    let start = index * marks.token_bytes;
    let stored = marks.columns.get(start..start + marks.token_bytes)?;
    let mut delta = [0; 8];
    for (to, from) in delta.iter_mut().zip(stored) {
        *to = *from;
    }
    let traits = match marks.traits {
        0 => *marks.columns.get(versions * marks.token_bytes + index)?,
        all => all,
    };
    let token = marks.smallest.saturating_add(u64::from_le_bytes(delta));
    Some(Mark { token, traits })
}

/// Appends the column of these versions.
pub(super) fn push(marks: impl Iterator<Item = Mark> + Clone, out: &mut Vec<u8>) {
    let tokens = marks.clone().map(|mark| mark.token);
    let smallest = tokens.clone().min().unwrap_or_default();
    let range = tokens.clone().max().unwrap_or_default() - smallest;
    let token_bytes = size_of::<u64>() - range.leading_zeros() as usize / 8;
    let mut traits = marks.map(|mark| mark.traits);
    let first = traits.clone().next().unwrap_or_default();
    let varies = traits.clone().any(|traits| traits != first);
    out.extend_from_slice(&smallest.to_le_bytes());
    out.extend_from_slice(&[token_bytes as u8, if varies { 0 } else { first }]);
    for token in tokens {
        let delta = (token - smallest).to_le_bytes();
        out.extend_from_slice(delta.get(..token_bytes).unwrap_or_default());
    }
    if varies {
        assert!(
            traits.clone().all(|traits| traits != 0),
            "V2: a byte of traits says at least how a row is locked"
        );
        out.extend(&mut traits);
    }
}
