//! Tokens of a semaphore that a transaction took, as the log has it.

use lockstone_base::limits::KEY_BYTES_MAX;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::provisional::RecordBytes;
use super::{MalformedRecord, Tag};

/// Tokens of one semaphore, taken by a transaction that has not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'a> {
    /// The semaphore's name.
    pub semaphore: &'a [u8],
    /// How many there are of it.
    pub limit: u64,
    /// How many were taken: at least one, at most all.
    pub tokens: u64,
    /// The sub-transaction, for rollbacks.
    pub sub: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TokensHead {
    limit: U64,
    tokens: U64,
    sub: U32,
}

const _: () = assert!(size_of::<TokensHead>() == 20);

impl<'a> Tokens<'a> {
    pub(super) fn encode(self) -> RecordBytes<'a> {
        let head = TokensHead {
            limit: self.limit.into(),
            tokens: self.tokens.into(),
            sub: self.sub.into(),
        };
        RecordBytes::new(Tag::Tokens, head.as_bytes(), [self.semaphore, &[]])
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let (head, semaphore) =
            TokensHead::ref_from_prefix(bytes).map_err(|_| MalformedRecord("head of tokens"))?;
        let (limit, tokens) = (head.limit.get(), head.tokens.get());
        let is_name = (1..KEY_BYTES_MAX).contains(&semaphore.len());
        if !is_name || !(1..=limit).contains(&tokens) {
            return Err(MalformedRecord("tokens"));
        }
        Ok(Self {
            semaphore,
            limit,
            tokens,
            sub: head.sub.get(),
        })
    }
}
