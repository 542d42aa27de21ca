//! The bytes of an immutable file: a memory map of a real one, or shared memory of a simulated one.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, Mmap};

/// The kernel fetches of one request as much as the device reads ahead, this by default, and forgets the rest.
const REQUEST_BYTES: usize = 128 << 10;

/// The content of an immutable file. Clones share it; it outlives the file's name.
#[derive(Clone)]
pub struct Map {
    bytes: Bytes,
    /// What they lie in, if it is a file: whom the kernel takes advice for.
    file: Option<Arc<Mmap>>,
}

/// Holds a memory map as long as its bytes are shared.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Map {
    /// The content as held by `owner`.
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self {
            bytes: Bytes::from_owner(owner),
            file: None,
        }
    }

    /// The content of a mapped file. A touch reads the page that is touched and no more: who walks asks for what comes
    /// next by [`Map::will_need`].
    pub(super) fn of_file(map: Mmap) -> Self {
        // A fault would read as much as the device reads ahead, up to megabytes, for one row. Advice alone.
        let _ = map.advise(Advice::Random);
        let map = Arc::new(map);
        Self {
            bytes: Bytes::from_owner(Mapped(Arc::clone(&map))),
            file: Some(map),
        }
    }

    /// A part of it that shares the map. `None` when it reaches past the end.
    pub fn slice(&self, start: usize, len: usize) -> Option<Bytes> {
        let end = start.checked_add(len)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }

    /// Tells the kernel that a part of the file will be read: it may begin to fetch what is not in memory,
    /// and this does not wait for it. A system call for each 128 KiB; of a file that does not reach so far, none.
    pub fn will_need(&self, start: usize, len: usize) {
        let inside = start
            .checked_add(len)
            .is_some_and(|end| end <= self.bytes.len());
        if let Some(file) = self.file.as_ref().filter(|_| inside) {
            for at in (start..start + len).step_by(REQUEST_BYTES) {
                let rest = start + len - at;
                // Advice alone: without it the part is read when it is touched.
                let _ = file.advise_range(Advice::WillNeed, at, rest.min(REQUEST_BYTES));
            }
        }
    }
}

/// How often this thread has waited for a part of a mapped file to be read from the device.
pub fn major_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: The call writes a `rusage` to the place that it is given, which is one, and keeps nothing.
    let done = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if done != 0 {
        return 0;
    }
    // SAFETY: The call has succeeded, so it has filled the place in; zeros are a valid `rusage` besides.
    let usage = unsafe { usage.assume_init() };
    usage.ru_majflt.try_into().unwrap_or_default()
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} bytes)", self.bytes.len())
    }
}
