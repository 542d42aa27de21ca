//! What a key and a value may be. Asked wherever a user names one.

use std::ops::Bound;

use lockstone_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::error::{Error, Result};

/// A key that a row may have.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    match key.len() {
        0 => Err(Error::KeyEmpty),
        bytes if bytes > KEY_BYTES_MAX => Err(Error::KeyTooLong {
            bytes,
            max: KEY_BYTES_MAX,
        }),
        _ => Ok(()),
    }
}

/// The bound of a range that is to be remembered.
pub(crate) fn check_bound(bound: Bound<&[u8]>) -> Result<()> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) if !key.is_empty() => check_key(key),
        _ => Ok(()),
    }
}

/// A value that a row may have.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    match value.len() {
        bytes if bytes > VALUE_BYTES_MAX => Err(Error::ValueTooLong {
            bytes,
            max: VALUE_BYTES_MAX,
        }),
        _ => Ok(()),
    }
}
