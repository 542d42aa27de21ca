//! The bytes of an immutable file: a memory map of a real one, or shared memory of a simulated one.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// The content of an immutable file. Clones share it; it outlives the file's name.
#[derive(Clone)]
pub struct Map(Bytes);

impl Map {
    /// The content as held by `owner`: a memory map, or memory.
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Bytes::from_owner(owner))
    }

    /// A part of it that shares the map. `None` when it reaches past the end.
    pub fn slice(&self, start: usize, len: usize) -> Option<Bytes> {
        let end = start.checked_add(len)?;
        (end <= self.0.len()).then(|| self.0.slice(start..end))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} bytes)", self.0.len())
    }
}
