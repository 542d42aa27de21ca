//! The context of a transaction's records: whose they are, and with which rank.

use lockstone_base::{Rank, TxnId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MalformedRecord;

/// How many bytes a transaction's context takes.
pub const CONTEXT_BYTES: usize = size_of::<ContextBytes>();

/// A transaction's id and rank: every provisional record carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The transaction.
    pub txn: TxnId,
    /// Its settled priority.
    pub rank: Rank,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ContextBytes {
    epoch: U32,
    sequence: U64,
    rank: U64,
}

const _: () = assert!(CONTEXT_BYTES == 20);

impl Context {
    /// The bytes for the log.
    pub fn encode(&self) -> [u8; CONTEXT_BYTES] {
        zerocopy::transmute!(ContextBytes {
            epoch: self.txn.epoch.into(),
            sequence: self.txn.sequence.into(),
            rank: self.rank.to_bits().into(),
        })
    }

    /// The context that `bytes` hold.
    ///
    /// # Errors
    /// [`MalformedRecord`] if the length is wrong or the rank is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedRecord> {
        let raw = ContextBytes::ref_from_bytes(bytes).map_err(|_| MalformedRecord("context"))?;
        Ok(Self {
            txn: TxnId::new(raw.epoch.get(), raw.sequence.get()),
            rank: Rank::from_bits(raw.rank.get()).ok_or(MalformedRecord("rank"))?,
        })
    }
}
