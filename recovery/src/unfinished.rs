//! What a manifest says of a transaction that had not ended, beside its spills: what a report tells of it when the log that would
//! have told is gone.
//!
//! Written by the engine with every manifest, and with every commit that adopts; read by `analysis`. To the store it is a string
//! of bytes (S4). Little-endian, no padding:
//!
//! ```text
//! version (1)  rank (8)  locks (8)  writes (8)  length of the label (2)  label
//! ```
//!
//! 1. Bytes from disk give a [`MalformedRecord`], never a panic; nothing is left over behind the label.

use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::Rank;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::record::MalformedRecord;

const VERSION: u8 = 1;

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedState {
    /// Its priority.
    pub rank: Rank,
    /// What its owner calls it.
    pub label: Option<Arc<str>>,
    /// How many locks and how many writes it had when it last spilled.
    pub held: (u64, u64),
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    version: u8,
    rank: U64,
    locks: U64,
    writes: U64,
    label_bytes: U16,
}

const _: () = assert!(size_of::<Head>() == 27);

impl UnfinishedState {
    /// The bytes for the manifest.
    pub fn encode(&self) -> Bytes {
        let label = self.label.as_deref().unwrap_or_default();
        let head = Head {
            version: VERSION,
            rank: self.rank.to_bits().into(),
            locks: self.held.0.into(),
            writes: self.held.1.into(),
            label_bytes: (label.len() as u16).into(),
        };
        [head.as_bytes(), label.as_bytes()].concat().into()
    }

    /// The state whose bytes these are.
    ///
    /// # Errors
    /// [`MalformedRecord`] if they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedRecord> {
        let malformed = MalformedRecord("state of a transaction");
        let (head, label) = Head::ref_from_prefix(bytes).map_err(|_| malformed)?;
        if head.version != VERSION || label.len() != usize::from(head.label_bytes.get()) {
            return Err(malformed);
        }
        let label = str::from_utf8(label).map_err(|_| malformed)?;
        Ok(Self {
            rank: Rank::from_bits(head.rank.get()).ok_or(malformed)?,
            label: (!label.is_empty()).then(|| label.into()),
            held: (head.locks.get(), head.writes.get()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_state_is_read_back_and_no_bytes_panic() {
        let rank = Rank::from_bits(3 << 32 | 7).expect("a rank");
        for label in [None, Some("x"), Some("größer")] {
            let state = UnfinishedState {
                rank,
                label: label.map(Arc::from),
                held: (u64::MAX, 12),
            };
            let bytes = state.encode();
            assert_eq!(UnfinishedState::decode(&bytes), Ok(state));
            for end in 0..bytes.len() {
                assert!(UnfinishedState::decode(bytes.get(..end).unwrap_or_default()).is_err());
            }
            let longer = [bytes.as_ref(), b"x"].concat();
            assert!(UnfinishedState::decode(&longer).is_err());
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut flipped = bytes.to_vec();
                    if let Some(byte) = flipped.get_mut(at) {
                        *byte ^= 1 << bit;
                    }
                    if let Ok(other) = UnfinishedState::decode(&flipped) {
                        assert_eq!(other.encode(), flipped);
                    }
                }
            }
        }
    }
}
