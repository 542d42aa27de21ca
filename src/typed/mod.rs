//! Tables of typed rows: keys and values of Rust's types over the bytes that the engine keeps.
//!
//! A layer over the handles, for users; the engine below knows nothing of it. `key` and `value` say how types
//! become bytes, `table` and `range` are the calls.
//! 1. The order of two keys is the order of their bytes, so ranges over types are ranges over rows.
//! 2. Whatever bytes a row holds, decoding gives a value of the type or an error, never a panic.

mod key;
mod value;
mod range;
mod table;

pub use key::{AsKey, KeyPrefix, KeyReader, KeyWriter, TableKey};
pub use range::{TypedRange, TypedRangeFor};
pub use table::{Read, TypedTable};
pub use value::{AsValue, TableValue};

#[cfg(test)]
mod tests;
