//! The bytes that a user gets back: keys and values that share memory where that is cheaper than a copy.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

macro_rules! shared_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bytes);

        impl $name {
            pub(crate) fn new(bytes: Bytes) -> Self {
                Self(bytes)
            }
        }

        impl Deref for $name {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<$name> for Vec<u8> {
            fn from(shared: $name) -> Self {
                shared.0.to_vec()
            }
        }

        impl PartialEq<[u8]> for $name {
            fn eq(&self, other: &[u8]) -> bool {
                *self.0 == *other
            }
        }

        impl<const N: usize> PartialEq<&[u8; N]> for $name {
            fn eq(&self, other: &&[u8; N]) -> bool {
                *self.0 == **other
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "b\"{}\"", self.0.escape_ascii())
            }
        }
    };
}

shared_bytes! {
    /// A row's key. Owns what it shows, outlives transaction and database, clones cheaply.
    Key
}

shared_bytes! {
    /// A row's value. Owns what it shows, outlives transaction and database, clones cheaply.
    ///
    /// A value that was read from a file keeps that file's map alive.
    Value
}
