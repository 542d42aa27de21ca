//! The four row modes. Which of them conflict is a table of the crate `locks`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a row is locked, from the weakest to the strongest: each mode covers those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum LockMode {
    /// The key stays: others may update the row's value, not delete it.
    KeyShare = 1,
    /// The row stays as it is; others may share it.
    Share = 2,
    /// What `put` takes: nobody else writes the row, yet its key may be shared.
    NoKeyUpdate = 3,
    /// What `delete` takes: the row is this transaction's alone.
    Update = 4,
}

/// A byte that names no lock mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} is no lock mode")]
pub struct UnknownLockMode(pub u8);

impl LockMode {
    /// Every mode, the weakest first.
    pub const ALL: [Self; 4] = [Self::KeyShare, Self::Share, Self::NoKeyUpdate, Self::Update];
}

impl TryFrom<u8> for LockMode {
    type Error = UnknownLockMode;

    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        Self::ALL
            .into_iter()
            .find(|mode| *mode as u8 == byte)
            .ok_or(UnknownLockMode(byte))
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyShare => "KeyShare",
            Self::Share => "Share",
            Self::NoKeyUpdate => "NoKeyUpdate",
            Self::Update => "Update",
        })
    }
}
