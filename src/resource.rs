//! Resources: locks that protect nothing that is stored. They are rows of the engine's own table, as those of semaphores are.
//!
//! Called by `wide_locks` and `semaphore`, and by whoever names a row.
//! 1. A path and a key of it are two rows, apart by their tag and by the path's length: no path or key is taken for another.
//!
//! Crash: what a row lock leaves.

use lockstone_base::limits::KEY_BYTES_MAX;
use lockstone_base::{RowKey, TableId};

use crate::error::{Error, Result};

/// How a resource is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceMode {
    /// By one transaction alone.
    Exclusive,
    /// By any number that share it, in this way or by keys.
    Shared,
    /// By any number that share it, one for each key.
    SharedKey(Vec<u8>),
}

/// The row of a path.
const PATH: u8 = 1;
/// The row of a path and a key.
const PATH_AND_KEY: u8 = 2;
/// The row of a semaphore: what follows is its name.
const SEMAPHORE: u8 = 3;
/// The tag and the path's length.
const HEAD_BYTES: usize = 3;

/// The row that stands for the path, or for a key of it.
pub(crate) fn row(path: &[u8], key: Option<&[u8]>) -> Result<RowKey> {
    let (bytes, max) = (
        path.len() + key.map_or(0, <[u8]>::len),
        KEY_BYTES_MAX - HEAD_BYTES,
    );
    if path.is_empty() {
        return Err(Error::KeyEmpty);
    }
    if bytes > max {
        return Err(Error::KeyTooLong { bytes, max });
    }
    let tag = if key.is_some() { PATH_AND_KEY } else { PATH };
    let [high, low] = (path.len() as u16).to_be_bytes();
    let encoded = [&[tag, high, low], path, key.unwrap_or_default()].concat();
    Ok(RowKey::new(TableId::ENGINE, &encoded))
}

/// The path, and the key, that a row stands for, if it does.
pub(crate) fn decode(row: &RowKey) -> Option<(&[u8], Option<&[u8]>)> {
    if row.table() != TableId::ENGINE {
        return None;
    }
    let (head, rest) = row.key().split_first_chunk::<HEAD_BYTES>()?;
    let [tag, high, low] = *head;
    let (path, key) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    match tag {
        PATH => Some((path, None)),
        PATH_AND_KEY => Some((path, Some(key))),
        _ => None,
    }
}

/// The row of a semaphore of this name, whose length was checked.
pub(crate) fn semaphore_row(name: &[u8]) -> RowKey {
    RowKey::new(TableId::ENGINE, &[&[SEMAPHORE], name].concat())
}

/// The name of the semaphore whose row it is, if it is one's.
pub(crate) fn semaphore_name(row: &RowKey) -> Option<&[u8]> {
    let key = Some(row.key()).filter(|_| row.table() == TableId::ENGINE);
    key?.strip_prefix(&[SEMAPHORE])
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);

    #[test]
    fn no_two_resources_share_a_row() {
        let names: [(&[u8], Option<&[u8]>); 6] = [
            (b"a", None),
            (b"a", Some(b"")),
            (b"a", Some(b"b")),
            (b"ab", None),
            (b"ab", Some(b"")),
            (b"a", Some(b"bc")),
        ];
        for (at, (path, key)) in names.into_iter().enumerate() {
            let own = row(path, key).expect("it is short");
            assert_eq!(decode(&own), Some((path, key)));
            for (path, key) in &names[at + 1..] {
                assert_ne!(own, row(path, *key).expect("it is short"));
            }
        }
        let semaphore = semaphore_row(b"\x01a");
        assert_eq!(semaphore_name(&semaphore), Some(b"\x01a".as_slice()));
        assert_eq!(decode(&semaphore), None);
        for (path, key) in names {
            let row = row(path, key).expect("it is short");
            assert_eq!(semaphore_name(&row), None);
        }
        assert_eq!(decode(&RowKey::new(TableId(1), b"\x01\0\x01a")), None);
        assert_eq!(decode(&RowKey::new(TableId::ENGINE, b"\x01\0\x02a")), None);
    }

    #[test]
    fn paths_and_keys_have_bounds() {
        let max = KEY_BYTES_MAX - HEAD_BYTES;
        assert!(row(&vec![b'p'; max], None).is_ok());
        assert!(row(&vec![b'p'; max - 1], Some(b"k")).is_ok());
        let error = row(&vec![b'p'; max], Some(b"k"));
        assert!(matches!(error, Err(Error::KeyTooLong { bytes, .. }) if bytes == max + 1));
        assert!(matches!(row(b"", Some(b"k")), Err(Error::KeyEmpty)));
    }
}
