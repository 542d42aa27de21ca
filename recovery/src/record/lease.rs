//! A transaction that has a lease: it outlives a crash, until it ends or nobody renews it.
//!
//! ```text
//! how long it lasts, in milliseconds (8)  first sub-transaction of the call under way, or 0 (4)
//! what it holds besides rows, as a Prepare has it, or nothing
//! ```
//!
//! 1. R2: it stands before the transaction's other records, and says nothing of holdings. One that stands behind some says all that
//!    they said but of rows, and these are in files: what was said before is not needed any more (S3).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::prepare::Held;
use super::provisional::RecordBytes;
use super::{MalformedRecord, Tag};

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct LeaseHead {
    lasts_ms: U64,
    open_call: U32,
}

const _: () = assert!(size_of::<LeaseHead>() == 12);

/// What a body of this kind has besides holdings.
pub const LEASE_HEAD_BYTES: usize = size_of::<LeaseHead>();

/// The lease of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease<'a> {
    head: LeaseHead,
    /// The last part of what it holds, as [`Held::encode`] wrote it; empty: nothing yet.
    held: &'a [u8],
}

impl<'a> Lease<'a> {
    /// Of one that holds nothing yet.
    pub fn beginning(lasts_ms: u64) -> Self {
        Self::holding(lasts_ms, None, &[])
    }

    /// Of one that holds this; `open_call` is the first sub-transaction of the call that is under way.
    pub fn holding(lasts_ms: u64, open_call: Option<u32>, held: &'a [u8]) -> Self {
        let head = LeaseHead {
            lasts_ms: lasts_ms.into(),
            open_call: open_call.unwrap_or(0).into(),
        };
        Self { head, held }
    }

    /// How long it lasts without being renewed, in milliseconds; at least one.
    pub fn lasts_ms(&self) -> u64 {
        self.head.lasts_ms.get()
    }

    /// The first sub-transaction of a call that was under way.
    pub fn open_call(&self) -> Option<u32> {
        Some(self.head.open_call.get()).filter(|sub| *sub > 0)
    }

    /// What it holds; `None`: nothing yet. `parts` stand before it.
    ///
    /// # Errors
    /// [`MalformedRecord`] if the bytes say nothing like that.
    pub(crate) fn held(&self, parts: &[u8]) -> Result<Option<Held>, MalformedRecord> {
        let held = [parts, self.held].concat();
        if held.is_empty() {
            return Ok(None);
        }
        Held::decode(&held).map(Some)
    }

    pub(super) fn encode(self) -> RecordBytes<'a> {
        let head = LeaseHead { ..self.head };
        RecordBytes::new(Tag::Lease, head.as_bytes(), [self.held, &[]])
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let malformed = MalformedRecord("lease");
        let (head, held) = LeaseHead::ref_from_prefix(bytes).map_err(|_| malformed)?;
        let lease = Self { head: *head, held };
        if lease.lasts_ms() == 0 {
            return Err(malformed);
        }
        Ok(lease)
    }
}
