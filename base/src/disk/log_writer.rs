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

use super::aligned::AlignedBuf;
use super::disk_file::DiskFile;
use super::error::{DiskError, DiskResult};
use crate::limits::BLOCK_BYTES;

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

impl LogWrite {
    /// The bytes to write.
    ///
    /// # Panics
    /// If the buffer has fewer.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.buffer.as_bytes().get(..self.bytes);
        bytes.expect("disk 5: a write lies within its buffer")
    }

    /// Checks what every writer demands: whole aligned blocks that lie within the buffer.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn check(&self) {
        let bytes = self.payload().len();
        assert!(
            bytes > 0
                && bytes.is_multiple_of(BLOCK_BYTES)
                && self.offset.is_multiple_of(BLOCK_BYTES as u64),
            "disk 5: log files move whole aligned blocks (offset {}, {bytes} bytes)",
            self.offset
        );
    }
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
    /// If [`LogWriter::depth`] writes are in flight, or there was an error before, or the write is not whole
    /// aligned blocks of a log file of the writer's own disk.
    fn start(&mut self, write: LogWrite);

    /// Waits until one of the writes in flight is on the device.
    ///
    /// # Errors
    /// The kernel's, of any of the writes in flight. The writer is broken then: nothing may be started
    /// any more, what was in flight may reach the device or not, and every later call gives the same error.
    ///
    /// # Panics
    /// If nothing is in flight, and there was no error.
    fn finish(&mut self) -> DiskResult<Written>;

    /// Waits until nothing is in flight any more, whatever comes of it: of each write any part may be on the
    /// device.
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
    /// The first error.
    broken: Option<DiskError>,
}

impl QueuedWriter {
    pub(super) fn new(depth: usize) -> Self {
        Self {
            queue: VecDeque::with_capacity(depth),
            depth,
            broken: None,
        }
    }
}

impl LogWriter for QueuedWriter {
    fn start(&mut self, write: LogWrite) {
        write.check();
        assert!(
            self.queue.len() < self.depth,
            "disk: too many writes in flight"
        );
        assert!(
            self.broken.is_none(),
            "F7: nothing is started after an error"
        );
        self.queue.push_back(write);
    }

    fn finish(&mut self) -> DiskResult<Written> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let write = self.queue.pop_front().expect("disk: a write is in flight");
        if let Err(error) = write.file.write_durable(write.offset, write.payload()) {
            return Err(self.broken.insert(error).clone());
        }
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
