//! How keys become bytes: in the order of the values, and so that each knows where it ends.
//!
//! ```text
//! u8 .. u128        big-endian
//! i8 .. i128        big-endian, the sign bit flipped
//! bool, char        one byte 0 or 1; the code point as a u32
//! String, Vec<u8>   byte 0 as 1 1, byte 1 as 1 2, all others as they are; then a byte 0
//! [u8; N]           as they are
//! Option<K>         a byte 0; or a byte 1 and the key
//! tuples            one after the other
//! ```
//!
//! 1. Of two keys of one type the smaller one has the smaller bytes, and neither begins with the other: so tuples
//!    are ordered by their first part, then by the second.
//! 2. No key but an empty array is empty: an empty string is one byte.
//! 3. One value has one encoding; bytes that are none are refused.

use smallvec::SmallVec;

/// A type whose values can be keys of a [`TypedTable`](crate::TypedTable).
///
/// A type of your own hands its parts on, in the order that it wants to be sorted by. The encoding must keep what
/// the built-in ones keep: the order of the values, and no encoding that begins with another.
///
/// ```
/// use lockstone::{KeyReader, KeyWriter, TableKey};
///
/// #[derive(Debug, PartialEq)]
/// struct Seat { row: char, number: u16 }
///
/// impl TableKey for Seat {
///     fn encode_key(&self, key: &mut KeyWriter) {
///         self.row.encode_key(key);
///         self.number.encode_key(key);
///     }
///     fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
///         Some(Self { row: TableKey::decode_key(key)?, number: TableKey::decode_key(key)? })
///     }
/// }
/// # let dir = tempfile::tempdir()?;
/// # let db = lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(dir.path().join("db"))?;
///
/// let seats = db.typed_table::<Seat, String>("seats")?;
/// let mut txn = db.begin();
/// seats.put(&mut txn, &Seat { row: 'B', number: 12 }, "taken")?;
/// let first = seats.range(&txn, ..)?.next().expect("there is one")?;
/// assert_eq!(first.0, Seat { row: 'B', number: 12 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait TableKey: Sized {
    /// Appends the key's bytes.
    fn encode_key(&self, key: &mut KeyWriter);

    /// Takes a key's bytes from the front; `None` if they are no such key.
    fn decode_key(key: &mut KeyReader<'_>) -> Option<Self>;
}

/// What can stand for a key of type `K` in a call: `K` itself, a `str` for a `String`, a slice or an array of bytes
/// for a `Vec<u8>`.
pub trait AsKey<K> {
    /// Appends the bytes that the key has.
    fn write_key(&self, key: &mut KeyWriter);
}

/// The first parts of a key of type `K`: `(A,)` of `(A, B)`, and so on up to six.
pub trait KeyPrefix<K> {
    /// Appends the bytes that every such key begins with.
    fn write_prefix(&self, key: &mut KeyWriter);
}

/// A key on its way to bytes. Short ones cost no allocation.
#[derive(Debug, Default)]
pub struct KeyWriter(SmallVec<[u8; 64]>);

impl KeyWriter {
    pub(super) fn of<K>(key: &(impl AsKey<K> + ?Sized)) -> Self {
        let mut writer = Self::default();
        key.write_key(&mut writer);
        writer
    }

    /// Appends bytes as they are. They must keep what [`TableKey`] asks for.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends bytes of any length, so that they end where they end.
    fn push_ended(&mut self, bytes: &[u8]) {
        self.0.reserve(bytes.len() + 1);
        for &byte in bytes {
            match byte {
                0 | ESCAPE => self.0.extend_from_slice(&[ESCAPE, byte + 1]),
                _ => self.0.push(byte),
            }
        }
        self.0.push(END);
    }
}

impl AsRef<[u8]> for KeyWriter {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Ends bytes of any length: below everything that could follow in a longer key.
const END: u8 = 0;
/// Stands in front of a byte 1 or 2, which together mean 0 or 1.
const ESCAPE: u8 = 1;

/// A key on its way from bytes: what has not been taken yet.
#[derive(Debug, Clone, Copy)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// The key that `bytes` hold, all of them.
    pub(super) fn whole<K: TableKey>(bytes: &'a [u8]) -> Option<K> {
        let mut reader = Self(bytes);
        K::decode_key(&mut reader).filter(|_| reader.0.is_empty())
    }

    /// Takes the next `count` bytes, if there are as many.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// Takes bytes of any length, up to their end.
    fn take_ended(&mut self) -> Option<Vec<u8>> {
        let end = self.0.iter().position(|byte| *byte == END)?;
        let mut taken = Vec::with_capacity(end);
        let mut bytes = self.take(end)?.iter();
        while let Some(&byte) = bytes.next() {
            taken.push(if byte == ESCAPE {
                bytes
                    .next()?
                    .checked_sub(1)
                    .filter(|byte| *byte <= ESCAPE)?
            } else {
                byte
            });
        }
        self.take(1)?;
        Some(taken)
    }
}

impl<K: TableKey> AsKey<K> for K {
    fn write_key(&self, key: &mut KeyWriter) {
        self.encode_key(key);
    }
}

impl AsKey<String> for str {
    fn write_key(&self, key: &mut KeyWriter) {
        key.push_ended(self.as_bytes());
    }
}

impl AsKey<Vec<u8>> for [u8] {
    fn write_key(&self, key: &mut KeyWriter) {
        key.push_ended(self);
    }
}

impl<const N: usize> AsKey<Vec<u8>> for [u8; N] {
    fn write_key(&self, key: &mut KeyWriter) {
        key.push_ended(self);
    }
}

macro_rules! unsigned {
    ($($int:ty),*) => { $(
        impl TableKey for $int {
            fn encode_key(&self, key: &mut KeyWriter) {
                key.push(&self.to_be_bytes());
            }
            fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
                key.take_array().map(Self::from_be_bytes)
            }
        }
    )* };
}

unsigned!(u8, u16, u32, u64, u128);

macro_rules! signed {
    ($($int:ty),*) => { $(
        impl TableKey for $int {
            fn encode_key(&self, key: &mut KeyWriter) {
                key.push(&(self ^ Self::MIN).to_be_bytes());
            }
            fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
                key.take_array().map(|bytes| Self::from_be_bytes(bytes) ^ Self::MIN)
            }
        }
    )* };
}

signed!(i8, i16, i32, i64, i128);

impl TableKey for bool {
    fn encode_key(&self, key: &mut KeyWriter) {
        u8::from(*self).encode_key(key);
    }

    fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
        match u8::decode_key(key)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl TableKey for char {
    fn encode_key(&self, key: &mut KeyWriter) {
        u32::from(*self).encode_key(key);
    }

    fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
        Self::from_u32(u32::decode_key(key)?)
    }
}

impl TableKey for String {
    fn encode_key(&self, key: &mut KeyWriter) {
        key.push_ended(self.as_bytes());
    }

    fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
        Self::from_utf8(key.take_ended()?).ok()
    }
}

impl TableKey for Vec<u8> {
    fn encode_key(&self, key: &mut KeyWriter) {
        key.push_ended(self);
    }

    fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
        key.take_ended()
    }
}

impl<const N: usize> TableKey for [u8; N] {
    fn encode_key(&self, key: &mut KeyWriter) {
        key.push(self);
    }

    fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
        key.take_array()
    }
}

impl<K: TableKey> TableKey for Option<K> {
    fn encode_key(&self, key: &mut KeyWriter) {
        self.is_some().encode_key(key);
        if let Some(some) = self {
            some.encode_key(key);
        }
    }

    fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
        let is_some = bool::decode_key(key)?;
        Some(if is_some {
            Some(K::decode_key(key)?)
        } else {
            None
        })
    }
}

macro_rules! tuple {
    ($($part:ident $value:ident),+) => {
        impl<$($part: TableKey),+> TableKey for ($($part,)+) {
            fn encode_key(&self, key: &mut KeyWriter) {
                let ($($value,)+) = self;
                $($value.encode_key(key);)+
            }
            fn decode_key(key: &mut KeyReader<'_>) -> Option<Self> {
                Some(($($part::decode_key(key)?,)+))
            }
        }
    };
}

tuple!(A a);
tuple!(A a, B b);
tuple!(A a, B b, C c);
tuple!(A a, B b, C c, D d);
tuple!(A a, B b, C c, D d, E e);
tuple!(A a, B b, C c, D d, E e, F f);

macro_rules! prefix {
    ($($part:ident),+ of $($rest:ident),+) => {
        impl<$($part: TableKey,)+ $($rest),+> KeyPrefix<($($part,)+ $($rest,)+)> for ($($part,)+) {
            fn write_prefix(&self, key: &mut KeyWriter) {
                self.encode_key(key);
            }
        }
    };
}

prefix!(A of B);
prefix!(A of B, C);
prefix!(A, B of C);
prefix!(A of B, C, D);
prefix!(A, B of C, D);
prefix!(A, B, C of D);
prefix!(A of B, C, D, E);
prefix!(A, B of C, D, E);
prefix!(A, B, C of D, E);
prefix!(A, B, C, D of E);
prefix!(A of B, C, D, E, F);
prefix!(A, B of C, D, E, F);
prefix!(A, B, C of D, E, F);
prefix!(A, B, C, D of E, F);
prefix!(A, B, C, D, E of F);
