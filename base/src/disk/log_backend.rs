//! What carries the frames of the log: `io_uring` where the kernel lets us, else blocking calls (F21).
//!
//! Called by `os_disk` when a log writer is made.
//! 1. A ring is used only after a first write through it, with the flags of all later ones, is durable.
//! 2. A refusal is an answer and leads to blocking calls; an error of the device is an error.
//! 3. Log files that have to go through the page cache, or cannot be written and synced in one call, are
//!    written by blocking calls: a ring would hand such writes to threads of its own.
//!
//! Crash: the first write may be there or not.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::aligned::AlignedBuf;
use super::error::{DiskError, DiskOp, DiskResult};
use super::log_writer::{LogWrite, LogWriter, QueuedWriter};
use super::os_file::Refused;
use super::ring::Ring;
use super::ring_writer::RingWriter;
use super::{Backend, IoMode};

/// What a log writer is to be.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) io: IoMode,
    /// What the directory's filesystem was found to refuse.
    pub(super) refused: &'a Refused,
    /// The directory.
    pub(super) path: &'a Path,
    pub(super) depth: usize,
    pub(super) buffers: &'a [AlignedBuf],
}

/// A log writer, and what became of the wish for a ring.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) writer: Box<dyn LogWriter>,
    pub(super) backend: Backend,
    pub(super) refused: Option<String>,
}

/// Why there is no ring.
#[derive(Debug)]
enum NoRing {
    Refused(String),
    Failed(DiskError),
}

/// Makes the writer that was asked for, or the next best, and writes `probe` through it.
pub(super) fn choose<R: Ring>(
    asked: &Asked<'_>,
    probe: LogWrite,
    build: impl FnOnce(usize) -> io::Result<R>,
) -> DiskResult<Chosen> {
    if asked.io == IoMode::Blocking {
        return blocking(asked, probe, None);
    }
    probe.check();
    // If a ring breaks with the write in flight, its buffer is gone.
    match ring(asked, copy_of(&probe), build) {
        Ok(writer) => Ok(Chosen {
            writer: Box::new(writer),
            backend: Backend::Uring,
            refused: None,
        }),
        Err(NoRing::Failed(error)) => Err(error),
        Err(NoRing::Refused(why)) if asked.io == IoMode::Uring => Err(required(asked, &why)),
        Err(NoRing::Refused(why)) => {
            let path = asked.path.display();
            tracing::warn!(%path, %why, "no io_uring: log writes block, one after the other");
            blocking(asked, probe, Some(why))
        }
    }
}

fn blocking(asked: &Asked<'_>, probe: LogWrite, refused: Option<String>) -> DiskResult<Chosen> {
    let mut writer = QueuedWriter::new(asked.depth);
    writer.start(probe);
    writer.finish()?;
    Ok(Chosen {
        writer: Box::new(writer),
        backend: Backend::Blocking,
        refused,
    })
}

fn ring<R: Ring>(
    asked: &Asked<'_>,
    probe: LogWrite,
    build: impl FnOnce(usize) -> io::Result<R>,
) -> Result<RingWriter<R>, NoRing> {
    for (is_refused, what) in [
        (&asked.refused.direct, "open log files past the page cache"),
        (&asked.refused.dsync, "write and sync in one call"),
    ] {
        if is_refused.load(Ordering::Relaxed) {
            return Err(NoRing::Refused(format!("the filesystem does not {what}")));
        }
    }
    // Nothing was written yet: whatever the reason, blocking calls may still do.
    let ring = build(asked.depth)
        .map_err(|error| NoRing::Refused(format!("the kernel makes no ring: {error}")))?;
    let mut writer = RingWriter::new(ring, asked.depth, asked.buffers);
    writer.start(probe);
    match writer.finish() {
        Ok(_) => Ok(writer),
        Err(error) if is_refusal(&error.source) => Err(NoRing::Refused(format!(
            "a first write through the ring was refused: {}",
            error.source
        ))),
        Err(error) => Err(NoRing::Failed(error)),
    }
}

/// Whether it may be the ring, or a flag, that is refused, and not the write. `EINVAL` and `ENOMEM` have
/// other causes too: the blocking write, which comes next, meets them as well.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::PERM
                | Errno::ACCESS
                | Errno::NOSYS
                | Errno::NOMEM
                | Errno::INVAL
                | Errno::OPNOTSUPP
        )
    )
}

/// The error where nothing but a ring would do.
fn required(asked: &Asked<'_>, why: &str) -> DiskError {
    let refused = [&asked.refused.direct, &asked.refused.dsync];
    let by_filesystem = refused.iter().any(|flag| flag.load(Ordering::Relaxed));
    let allow = if by_filesystem {
        "put the database on one that does (ext4, xfs)"
    } else {
        "allow it (the sysctl kernel.io_uring_disabled, a container's seccomp profile)"
    };
    let advice = format!(
        "{allow}, or let the log be written by blocking calls (IoMode::Auto or IoMode::Blocking)"
    );
    let source = io::Error::new(io::ErrorKind::Unsupported, format!("{why}; {advice}"));
    DiskError::new(DiskOp::SetUpRing, asked.path, source)
}

fn copy_of(write: &LogWrite) -> LogWrite {
    let mut buffer = AlignedBuf::zeroed(write.bytes);
    buffer.as_mut_bytes().copy_from_slice(write.payload());
    LogWrite {
        tag: write.tag,
        file: write.file.clone(),
        offset: write.offset,
        buffer,
        bytes: write.bytes,
    }
}

#[cfg(test)]
mod tests;
