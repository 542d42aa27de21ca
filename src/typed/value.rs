//! How values become bytes: compactly, and each as the whole of its row.
//!
//! ```text
//! integers          little-endian
//! bool, char        one byte 0 or 1; the code point as a u32
//! String, Vec<u8>   as they are, as is [u8; N]
//! ()                nothing
//! Option<V>         nothing; or a byte 1 and the value
//! tuples            each part but the last behind its length (7 bits a byte, the lowest first, bit 7: more follow)
//! ```
//!
//! 1. A value is decoded from exactly the bytes that it was encoded to; bytes that are none are refused.

/// A type whose values can be values of a [`TypedTable`](crate::TypedTable).
///
/// A type of your own needs two functions, be they calls of a serialisation library:
///
/// ```
/// use lockstone::TableValue;
///
/// #[derive(Debug, PartialEq)]
/// struct Account { owner: String, cents: i64 }
///
/// impl TableValue for Account {
///     fn encode_value(&self, bytes: &mut Vec<u8>) {
///         (self.cents, self.owner.clone()).encode_value(bytes);
///     }
///     fn decode_value(bytes: &[u8]) -> Option<Self> {
///         TableValue::decode_value(bytes).map(|(cents, owner)| Self { owner, cents })
///     }
/// }
///
/// let account = Account { owner: "alice".into(), cents: -5 };
/// let mut bytes = Vec::new();
/// account.encode_value(&mut bytes);
/// assert_eq!(Account::decode_value(&bytes), Some(account));
/// ```
pub trait TableValue: Sized {
    /// Appends the value's bytes.
    fn encode_value(&self, bytes: &mut Vec<u8>);

    /// The value that `bytes` hold, all of them; `None` if they hold no such value.
    fn decode_value(bytes: &[u8]) -> Option<Self>;
}

/// What can stand for a value of type `V` in a call: `V` itself, a `str` for a `String`, a slice or an array of
/// bytes for a `Vec<u8>`.
pub trait AsValue<V> {
    /// Gives the bytes that the value has to `take`.
    fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T;
}

impl<V: TableValue> AsValue<V> for V {
    fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        let mut bytes = Vec::new();
        self.encode_value(&mut bytes);
        take(&bytes)
    }
}

impl AsValue<String> for str {
    fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        take(self.as_bytes())
    }
}

impl AsValue<Vec<u8>> for [u8] {
    fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        take(self)
    }
}

impl<const N: usize> AsValue<Vec<u8>> for [u8; N] {
    fn with_bytes<T>(&self, take: impl FnOnce(&[u8]) -> T) -> T {
        take(self)
    }
}

macro_rules! integers {
    ($($int:ty),*) => { $(
        impl TableValue for $int {
            fn encode_value(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn decode_value(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }
        }
    )* };
}

integers!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

impl TableValue for bool {
    fn encode_value(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl TableValue for char {
    fn encode_value(&self, bytes: &mut Vec<u8>) {
        u32::from(*self).encode_value(bytes);
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        Self::from_u32(u32::decode_value(bytes)?)
    }
}

impl TableValue for String {
    fn encode_value(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        str::from_utf8(bytes).ok().map(Into::into)
    }
}

impl TableValue for Vec<u8> {
    fn encode_value(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl<const N: usize> TableValue for [u8; N] {
    fn encode_value(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

impl TableValue for () {
    fn encode_value(&self, _bytes: &mut Vec<u8>) {}

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

impl<V: TableValue> TableValue for Option<V> {
    fn encode_value(&self, bytes: &mut Vec<u8>) {
        if let Some(value) = self {
            bytes.push(1);
            value.encode_value(bytes);
        }
    }

    fn decode_value(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => Some(None),
            [1, some @ ..] => V::decode_value(some).map(Some),
            _ => None,
        }
    }
}

/// Appends a part of a tuple behind its length.
fn encode_part(part: &impl TableValue, bytes: &mut Vec<u8>) {
    let mut own = Vec::new();
    part.encode_value(&mut own);
    let mut length = own.len();
    while length > 0x7f {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.append(&mut own);
}

/// Takes a part of a tuple from the front.
fn decode_part<V: TableValue>(bytes: &mut &[u8]) -> Option<V> {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        // More than five bytes are longer than any value.
        match byte {
            0 if shift > 7 => return None,
            0..0x80 => break,
            _ if shift > 28 => return None,
            _ => {}
        }
    }
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    V::decode_value(part)
}

macro_rules! tuple {
    ($($part:ident $value:ident),* ; $last:ident $end:ident) => {
        impl<$($part: TableValue,)* $last: TableValue> TableValue for ($($part,)* $last,) {
            fn encode_value(&self, bytes: &mut Vec<u8>) {
                let ($($value,)* $end,) = self;
                $(encode_part($value, bytes);)*
                $end.encode_value(bytes);
            }
            fn decode_value(bytes: &[u8]) -> Option<Self> {
                #[allow(unused_mut, reason = "a tuple of one has no part in front")]
                let mut rest = bytes;
                Some(($(decode_part::<$part>(&mut rest)?,)* $last::decode_value(rest)?,))
            }
        }
    };
}

tuple!(; A a);
tuple!(A a; B b);
tuple!(A a, B b; C c);
tuple!(A a, B b, C c; D d);
tuple!(A a, B b, C c, D d; E e);
tuple!(A a, B b, C c, D d, E e; F f);
