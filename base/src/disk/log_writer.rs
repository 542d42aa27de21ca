//! How frames of the log reach the device: several at once, each durable when it is said to be.
//!
//! Made by [`Disk::log_writer`](super::Disk::log_writer); used by whoever leads a flush of the log, one
//! thread at a time.
//! 1. A buffer belongs to the writer from [`LogWriter::start`] until [`LogWriter::finish`] gives it back,
//!    on error and on drop too: the kernel may read it until then.
//! 2. Writes finish in any order. Each is durable when `finish` has returned it, and not before; short
//!    ones are resumed (F5).
//! 3. After an error the writer is broken for good: nothing is known about what was in flight.
//!
//! Crash: of the writes in flight any part may be on the device, in any order.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use super::DiskFile;
use super::aligned::AlignedBuf;
use super::error::DiskResult;

/// One write to a file opened as [`OpenMode::Log`](super::OpenMode::Log), inside its present length.
#[derive(Debug)]
pub struct LogWrite {
    /// The caller's own number for it.
    pub tag: u64,
    /// The log file.
    pub file: Arc<dyn DiskFile>,
    /// Where in the file: a multiple of [`BLOCK_BYTES`](crate::limits::BLOCK_BYTES).
    pub offset: u64,
    /// What to write: its first `bytes` bytes.
    pub buffer: AlignedBuf,
    /// How much: whole blocks.
    pub bytes: usize,
}

/// A write that is on the device.
#[derive(Debug)]
pub struct Written {
    /// The caller's own number for it.
    pub tag: u64,
    /// Its buffer, back.
    pub buffer: AlignedBuf,
}

/// Writes frames of the log, several at once. Dropping it waits for what is in flight.
pub trait LogWriter: Debug + Send {
    /// Starts a write. Fails never: what goes wrong is told by [`LogWriter::finish`].
    ///
    /// # Panics
    /// If [`LogWriter::depth`] writes are in flight, or the write is not whole aligned blocks.
    fn start(&mut self, write: LogWrite);

    /// Waits until one of the writes in flight is on the device.
    ///
    /// # Errors
    /// The kernel's, of any of the writes in flight. The writer is broken then: nothing may be started
    /// any more, and what was in flight may reach the device or not.
    ///
    /// # Panics
    /// If nothing is in flight.
    fn finish(&mut self) -> DiskResult<Written>;

    /// Waits until nothing is in flight any more, whatever comes of it.
    fn drain(&mut self);

    /// How many writes are in flight.
    fn in_flight(&self) -> usize;

    /// How many may be in flight at once.
    fn depth(&self) -> usize;
}

/// A writer without a ring: writes one after the other, in the thread that waits for them.
#[derive(Debug)]
pub(super) struct QueuedWriter {
    queue: VecDeque<LogWrite>,
    depth: usize,
}

impl QueuedWriter {
    pub(super) fn new(depth: usize) -> Self {
        Self {
            queue: VecDeque::with_capacity(depth),
            depth,
        }
    }
}

impl LogWriter for QueuedWriter {
    fn start(&mut self, write: LogWrite) {
        assert!(
            self.queue.len() < self.depth,
            "disk: too many writes in flight"
        );
        self.queue.push_back(write);
    }

    fn finish(&mut self) -> DiskResult<Written> {
        let write = self.queue.pop_front().expect("disk: a write is in flight");
        let bytes = write.buffer.as_bytes().get(..write.bytes);
        let bytes = bytes.expect("disk 5: a write lies within its buffer");
        write.file.write_durable(write.offset, bytes)?;
        Ok(Written {
            tag: write.tag,
            buffer: write.buffer,
        })
    }

    fn drain(&mut self) {
        // What was not waited for has not begun, and need not.
        self.queue.clear();
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn depth(&self) -> usize {
        self.depth
    }
}
