//! The bytes that a user gets back: keys and values.
//!
//! Short ones stand in the handle itself, others in memory of their own or shared, whatever is cheaper: to
//! count who shares costs more than to copy a few bytes where many threads count at one place.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// What stands in the handle itself: as much as makes it one word larger than a shared one.
const INLINE_BYTES: usize = 38;

/// Bytes, in the handle or shared.
#[derive(Clone)]
enum Held {
    Inline { bytes: u8, held: [u8; INLINE_BYTES] },
    Shared(Bytes),
}

const _: () = assert!(size_of::<Held>() == 40);

impl Held {
    /// A copy in the handle itself, if there is room.
    #[inline]
    fn inline(from: &[u8]) -> Option<Self> {
        let mut held = [0; INLINE_BYTES];
        held.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self::Inline {
            bytes: from.len() as u8,
            held,
        })
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { bytes, held } => held.get(..usize::from(*bytes)).unwrap_or_default(),
            Self::Shared(shared) => shared,
        }
    }
}

macro_rules! held_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Held);

        impl $name {
            #[allow(dead_code, reason = "of keys there are slices alone")]
            pub(crate) fn new(bytes: Bytes) -> Self {
                Self(Held::inline(&bytes).unwrap_or(Held::Shared(bytes)))
            }

            /// A copy, if it is short enough for the handle itself.
            #[inline]
            pub(crate) fn copied(bytes: &[u8]) -> Option<Self> {
                Held::inline(bytes).map(Self)
            }

            /// A copy.
            #[inline]
            pub(crate) fn from_slice(bytes: &[u8]) -> Self {
                Self::copied(bytes)
                    .unwrap_or_else(|| Self(Held::Shared(Bytes::copy_from_slice(bytes))))
            }
        }

        impl Deref for $name {
            type Target = [u8];

            #[inline]
            fn deref(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self
            }
        }

        impl From<$name> for Vec<u8> {
            fn from(held: $name) -> Self {
                match held.0 {
                    Held::Shared(shared) => shared.into(),
                    Held::Inline { .. } => held.to_vec(),
                }
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                **self == **other
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                (**self).cmp(&**other)
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                (**self).hash(state);
            }
        }

        impl PartialEq<[u8]> for $name {
            fn eq(&self, other: &[u8]) -> bool {
                **self == *other
            }
        }

        impl<const N: usize> PartialEq<&[u8; N]> for $name {
            fn eq(&self, other: &&[u8; N]) -> bool {
                **self == **other
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "b\"{}\"", self.escape_ascii())
            }
        }
    };
}

held_bytes! {
    /// A row's key. Owns what it shows, outlives transaction and database, clones cheaply.
    Key
}

held_bytes! {
    /// A row's value. Owns what it shows, outlives transaction and database, clones cheaply.
    ///
    /// A value of more than 1 KiB that was read from a file keeps that file's map alive.
    Value
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn handles_are_their_bytes_whatever_holds_them() {
        for bytes in [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 5000] {
            let want: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
            let shared = Value(Held::Shared(Bytes::from(want.clone())));
            for value in [
                Value::new(Bytes::from(want.clone())),
                Value::from_slice(&want),
            ] {
                assert_eq!(*value, *want);
                assert_eq!(value, shared);
                assert_eq!(value.cmp(&shared), Ordering::Equal);
                assert!(HashSet::from([shared.clone()]).contains(&value));
                assert_eq!(Vec::from(value.clone()), want);
                assert_eq!(
                    format!("{value:?}"),
                    format!("b\"{}\"", want.escape_ascii())
                );
            }
            assert_eq!(Value::copied(&want).is_some(), bytes <= INLINE_BYTES);
        }
        assert!(Key::from_slice(b"a") < Key::from_slice(&[b'a'; 100]));
    }
}
