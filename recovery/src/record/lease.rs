//! A transaction that has a lease: it outlives a crash, until it ends or nobody renews it.
//!
//! ```text
//! how long it lasts, in milliseconds (8)  what it holds besides rows, as a Prepare has it, or nothing
//! ```
//!
//! 1. R2: it stands before the transaction's other records, and says nothing of holdings. One that stands behind some says all that
//!    they said but of rows, and these are in files: what was said before is not needed any more (S3).

use super::prepare::Held;
use super::provisional::RecordBytes;
use super::{MalformedRecord, Tag};

/// The lease of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease<'a> {
    lasts_ms: [u8; 8],
    /// The last part of what it holds, as [`Held::encode`] wrote it; empty: nothing yet.
    held: &'a [u8],
}

impl<'a> Lease<'a> {
    /// Of one that holds nothing yet.
    pub fn beginning(lasts_ms: u64) -> Self {
        Self::holding(lasts_ms, &[])
    }

    /// Of one that holds this.
    pub fn holding(lasts_ms: u64, held: &'a [u8]) -> Self {
        Self {
            lasts_ms: lasts_ms.to_le_bytes(),
            held,
        }
    }

    /// How long it lasts without being renewed, in milliseconds; at least one.
    pub fn lasts_ms(&self) -> u64 {
        u64::from_le_bytes(self.lasts_ms)
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
        RecordBytes::new(Tag::Lease, &self.lasts_ms, [self.held, &[]])
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let malformed = MalformedRecord("lease");
        let (lasts_ms, held) = bytes.split_first_chunk().ok_or(malformed)?;
        let lease = Self {
            lasts_ms: *lasts_ms,
            held,
        };
        if lease.lasts_ms() == 0 {
            return Err(malformed);
        }
        Ok(lease)
    }
}
