//! One `io_uring`: writes in, completions out.
//!
//! Driven by `ring_writer`, one thread at a time; the trait is there so that its tests can play the kernel.
//! 1. Every write is made durable by itself (`RWF_DSYNC`, G2): a completion says that it is on the device.
//! 2. Registration saves the kernel work and nothing else: what is not registered is written all the same.
//! 3. Files and buffers are unregistered before the ring is closed: the kernel takes a closed ring apart in
//!    its own time, and until then would keep files open and memory counted as locked.
//!
//! The flags are plain. `SINGLE_ISSUER` and `DEFER_TASKRUN` bind a ring to one thread, and the lead of the
//! log goes round; `COOP_TASKRUN` made no difference with one or four writes in flight.
//!
//! Crash: the kernel completes or cancels what is in flight, and closes the files when it has.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

use super::aligned::AlignedBuf;

/// The most that is asked for at once: whole blocks.
const BYTES_MAX: u32 = 1 << 30;

/// Where a write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A registered file.
    Slot(u32),
    /// A file that is not.
    Descriptor(RawFd),
}

/// A write, as a ring takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// Comes back with the completion.
    pub(super) serial: u64,
    pub(super) target: Target,
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
    /// The registered buffer that `bytes` are part of.
    pub(super) buffer: Option<u16>,
}

/// What has become of a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) serial: u64,
    /// How many bytes are on the device.
    pub(super) result: Result<usize, Errno>,
}

/// What `ring_writer` needs of a ring.
pub(super) trait Ring: fmt::Debug + Send + 'static {
    /// How many completions it holds before some are lost.
    fn completions_max(&self) -> usize;

    /// Registers the buffers, once, under their indices.
    fn register_buffers(&mut self, buffers: &[AlignedBuf]) -> io::Result<()>;

    /// Makes room for this many registered files, once.
    fn reserve_files(&mut self, slots: u32) -> io::Result<()>;

    /// Puts the file in a slot, or nothing.
    fn register_file(&mut self, slot: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()>;

    /// Queues a write. There is always room: no more are queued than the ring was made for.
    ///
    /// # Safety
    /// The bytes stay where they are, unchanged, and the descriptor stays open, until the write's
    /// completion was reaped, or for ever.
    unsafe fn push(&mut self, request: Request<'_>);

    /// Submits what is queued and waits until there is a completion, in one call.
    fn enter(&mut self) -> io::Result<()>;

    /// How many of the queued writes the kernel has not looked at.
    fn unseen(&mut self) -> usize;

    /// A completion, if there is one.
    fn reap(&mut self) -> Option<Completion>;
}

/// The kernel's.
pub(super) struct Uring {
    ring: IoUring,
    has_buffers: bool,
    has_files: bool,
}

impl Uring {
    /// A ring for `depth` writes in flight.
    pub(super) fn new(depth: usize) -> io::Result<Self> {
        let entries = u32::try_from(depth).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self {
            ring: IoUring::builder().dontfork().build(entries)?,
            has_buffers: false,
            has_files: false,
        })
    }
}

impl Ring for Uring {
    fn completions_max(&self) -> usize {
        self.ring.params().cq_entries() as usize
    }

    fn register_buffers(&mut self, buffers: &[AlignedBuf]) -> io::Result<()> {
        let iovec = |buffer: &AlignedBuf| libc::iovec {
            iov_base: buffer.as_bytes().as_ptr().cast_mut().cast(),
            iov_len: buffer.as_bytes().len(),
        };
        let table: Vec<_> = buffers.iter().map(iovec).collect();
        let submitter = self.ring.submitter();
        // SAFETY: Each entry is the whole of a live allocation. The kernel holds the pages themselves from here
        // until they are unregistered, so a buffer may be freed before; whoever gets its address then has
        // other pages and another id, and is not taken for it. Through the table the kernel only reads.
        let registered = unsafe { submitter.register_buffers(&table) };
        self.has_buffers = registered.is_ok();
        registered
    }

    fn reserve_files(&mut self, slots: u32) -> io::Result<()> {
        self.ring.submitter().register_files_sparse(slots)?;
        self.has_files = true;
        Ok(())
    }

    fn register_file(&mut self, slot: u32, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let descriptor = file.map_or(-1, |file| file.as_raw_fd());
        let submitter = self.ring.submitter();
        match submitter.register_files_update(slot, &[descriptor])? {
            0 => Err(io::ErrorKind::InvalidInput.into()),
            _ => Ok(()),
        }
    }

    unsafe fn push(&mut self, request: Request<'_>) {
        let entry = entry(&request);
        let mut queue = self.ring.submission();
        // SAFETY: The caller promises that what the entry points to stays valid for as long as the kernel
        // may look at it.
        let pushed = unsafe { queue.push(&entry) };
        pushed.expect("F21: the ring was made for as many writes as there are in flight");
    }

    fn enter(&mut self) -> io::Result<()> {
        self.ring.submit_and_wait(1).map(drop)
    }

    fn unseen(&mut self) -> usize {
        self.ring.submission().len()
    }

    fn reap(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let result = usize::try_from(entry.result())
            .map_err(|_| Errno::from_raw_os_error(entry.result().wrapping_neg()));
        Some(Completion {
            serial: entry.user_data(),
            result,
        })
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Nothing can be done if it fails: the kernel does the same later.
        let submitter = self.ring.submitter();
        if self.has_files {
            let _ = submitter.unregister_files();
        }
        if self.has_buffers {
            let _ = submitter.unregister_buffers();
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("has_buffers", &self.has_buffers)
            .field("has_files", &self.has_files)
            .finish_non_exhaustive()
    }
}

/// The request in the kernel's words.
fn entry(request: &Request<'_>) -> io_uring::squeue::Entry {
    let address = request.bytes.as_ptr();
    // A longer write would be a short one, and is resumed like any other.
    let bytes = u32::try_from(request.bytes.len()).unwrap_or(BYTES_MAX);
    let entry = match (request.target, request.buffer) {
        (Target::Slot(slot), Some(buffer)) => {
            opcode::WriteFixed::new(types::Fixed(slot), address, bytes, buffer)
                .offset(request.offset)
                .rw_flags(libc::RWF_DSYNC)
                .build()
        }
        (Target::Slot(slot), None) => opcode::Write::new(types::Fixed(slot), address, bytes)
            .offset(request.offset)
            .rw_flags(libc::RWF_DSYNC)
            .build(),
        (Target::Descriptor(file), Some(buffer)) => {
            opcode::WriteFixed::new(types::Fd(file), address, bytes, buffer)
                .offset(request.offset)
                .rw_flags(libc::RWF_DSYNC)
                .build()
        }
        (Target::Descriptor(file), None) => opcode::Write::new(types::Fd(file), address, bytes)
            .offset(request.offset)
            .rw_flags(libc::RWF_DSYNC)
            .build(),
    };
    entry.user_data(request.serial)
}
