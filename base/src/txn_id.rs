//! The name of a transaction, unique over the whole life of a database.
//!
//! - The boot epoch is raised durably at every open, so an id is never reused, and "does this record
//!   come from a dead run?" is one comparison.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A transaction: the boot epoch of the run that began it, and its number within that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId {
    /// The run that began it.
    pub epoch: u32,
    /// Its number within the run, from 1.
    pub sequence: u64,
}

impl TxnId {
    /// The transaction `sequence` of run `epoch`.
    pub const fn new(epoch: u32, sequence: u64) -> Self {
        Self { epoch, sequence }
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

/// A text that is no transaction id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a transaction id: expected `epoch-sequence` in decimal, as in `3-17`")]
pub struct InvalidTxnId;

impl FromStr for TxnId {
    type Err = InvalidTxnId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, sequence) = text.split_once('-').ok_or(InvalidTxnId)?;
        let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        if !plain(epoch) || !plain(sequence) {
            return Err(InvalidTxnId);
        }
        Ok(Self {
            epoch: epoch.parse().map_err(|_| InvalidTxnId)?,
            sequence: sequence.parse().map_err(|_| InvalidTxnId)?,
        })
    }
}

impl Serialize for TxnId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TxnId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_id_parses_back() {
        for id in [
            TxnId::new(0, 0),
            TxnId::new(3, 17),
            TxnId::new(u32::MAX, u64::MAX),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn a_text_that_is_no_id_is_refused() {
        for text in [
            "",
            "-",
            "3",
            "3-",
            "-17",
            "3-17-1",
            "3 17",
            "+3-17",
            "3-+17",
            "4294967296-1",
            "a-b",
        ] {
            assert_eq!(text.parse::<TxnId>(), Err(InvalidTxnId), "{text:?}");
        }
    }

    #[test]
    fn ids_of_a_later_run_are_larger() {
        assert!(TxnId::new(2, 1) > TxnId::new(1, u64::MAX));
    }
}
