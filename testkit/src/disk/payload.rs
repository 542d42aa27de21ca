//! The bytes of one recorded write. Clones share them; runs of zeros, which fill whole log segments,
//! cost nothing.

use std::ops::Range;

use bytes::Bytes;

use super::PAGE_BYTES;

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

#[derive(Debug, Clone)]
pub(super) enum Payload {
    Zeros(usize),
    Bytes(Bytes),
}

impl Payload {
    pub(super) fn new(bytes: &[u8]) -> Self {
        if is_zero(bytes) {
            Self::Zeros(bytes.len())
        } else {
            Self::Bytes(Bytes::copy_from_slice(bytes))
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Zeros(len) => *len,
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// The part `range`, which lies inside.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "the part lies inside its payload"
        );
        match self {
            Self::Zeros(_) => Self::Zeros(range.len()),
            Self::Bytes(bytes) => Self::Bytes(bytes.slice(range)),
        }
    }

    pub(super) fn copy_to(&self, target: &mut [u8]) {
        match self {
            Self::Zeros(_) => target.fill(0),
            Self::Bytes(bytes) => target.copy_from_slice(bytes),
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(PAGE_BYTES)
        .all(|chunk| ZEROS.get(..chunk.len()) == Some(chunk))
}
