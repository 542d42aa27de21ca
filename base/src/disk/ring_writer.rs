//! Log writes through an `io_uring`: all that were started go to the kernel in the call that waits for one.
//!
//! Made by [`OsDisk`](super::OsDisk) where the kernel allows it (F21).
//! 1. A write in flight owns its buffer and its file until its completion was seen: also after an error, in
//!    a panic and on drop. If the ring cannot be waited for any more, they are never freed, and the file,
//!    with its lock, stays open for as long as the process lives.
//! 2. Every completion is looked at: a short write is resumed at a block (F5), one that was interrupted
//!    before it began is begun again, anything else is an error.
//! 3. After an error nothing is started any more (F7); what is in flight can be waited for, no more.
//! 4. No completion is lost: the ring has room for as many as can be in flight.
//! 5. It may move to another thread while nothing is in flight. A thread that ends takes its writes along:
//!    the kernel cancels them.
//!
//! A lone write costs one system call: `start` queues, `finish` submits and waits at once.
//!
//! Crash: any part of each write in flight may be on the device.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::aligned::AlignedBuf;
use super::disk_file::DiskFile;
use super::error::{DiskError, DiskOp, DiskResult};
use super::log_writer::{LogWrite, LogWriter, Written};
use super::os_file::OsFile;
use super::ring::{Completion, Request, Ring, Target};
use super::ring_files::RingFiles;
use super::transfer::Transfer;
use crate::limits::BLOCK_BYTES;

/// How often a write, or the waiting for one, that the kernel puts off is tried again: with
/// [`PAUSE`] in between for ten seconds. A machine that has no memory for so long has failed.
const TRIES_MAX: u32 = 10_000;
const PAUSE: Duration = Duration::from_millis(1);
/// So often a write is begun again without a pause.
const TRIES_AT_ONCE: u32 = 16;

/// A write in flight.
#[derive(Debug)]
struct Aloft {
    serial: u64,
    write: LogWrite,
    file: Arc<OsFile>,
    transfer: Transfer,
    slot: Option<u32>,
    registered: Option<u16>,
    tries: u32,
}

impl Aloft {
    fn request(&self) -> Request<'_> {
        let start = self.transfer.start();
        Request {
            serial: self.serial,
            target: match self.slot {
                Some(slot) => Target::Slot(slot),
                None => Target::Descriptor(self.file.as_fd().as_raw_fd()),
            },
            offset: self.write.offset + start as u64,
            bytes: self.write.payload().get(start..).unwrap_or_default(),
            buffer: self.registered,
        }
    }

    /// Takes note of a result; whether the write has come to its end.
    fn advance(&mut self, result: Result<usize, Errno>) -> io::Result<bool> {
        match result {
            Ok(moved) if !self.transfer.advance(moved) => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(self.transfer.is_complete()),
            Err(Errno::INTR | Errno::AGAIN) if self.tries < TRIES_MAX => {
                self.tries += 1;
                if self.tries > TRIES_AT_ONCE {
                    std::thread::park_timeout(PAUSE);
                }
                Ok(false)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn error(&self, source: impl Into<io::Error>) -> DiskError {
        DiskError::new(DiskOp::WriteDurable, self.file.path(), source).at(self.write.offset)
    }
}

/// What a completion means.
enum Taken {
    /// The write goes on.
    GoesOn,
    /// The write is over.
    Over(Aloft, io::Result<()>),
    /// It is of no write in flight.
    Unknown,
}

#[derive(Debug)]
pub(super) struct RingWriter<R: Ring> {
    ring: R,
    files: RingFiles,
    /// The ids of the registered buffers, by their indices.
    registered: Vec<u64>,
    aloft: Vec<Aloft>,
    depth: usize,
    next_serial: u64,
    /// The first error.
    broken: Option<DiskError>,
    /// How often in a row the kernel has put off waiting.
    put_off: u32,
}

impl<R: Ring> RingWriter<R> {
    /// A writer of at most `depth` writes at once, of the `buffers` and others.
    pub(super) fn new(mut ring: R, depth: usize, buffers: &[AlignedBuf]) -> Self {
        assert!(
            0 < depth && depth <= ring.completions_max(),
            "F21: every write in flight has room for its completion"
        );
        let registered = match ring.register_buffers(buffers) {
            Ok(()) => buffers.iter().map(AlignedBuf::id).collect(),
            Err(error) => {
                tracing::debug!(%error, "io_uring registers no buffers");
                Vec::new()
            }
        };
        Self {
            files: RingFiles::new(&mut ring),
            ring,
            registered,
            aloft: Vec::with_capacity(depth),
            depth,
            next_serial: 0,
            broken: None,
            put_off: 0,
        }
    }

    /// Begins the write, or what is left of it.
    fn push(ring: &mut R, aloft: &Aloft) {
        // SAFETY: `aloft` stands in the writer's list, which owns the buffer and a handle of the file, lends
        // neither out, and lets go of them when the write's completion was reaped; if there can be none
        // any more, it forgets them (rule 1). The allocation of a buffer never moves.
        unsafe { ring.push(aloft.request()) }
    }

    /// Submits what is queued and waits for a completion. There may be none after all: look, and call again.
    fn wait(&mut self) -> io::Result<()> {
        let Err(error) = self.ring.enter() else {
            self.put_off = 0;
            return Ok(());
        };
        match Errno::from_io_error(&error) {
            Some(Errno::INTR) => Ok(()),
            // The kernel is short of memory, or wants its completions reaped first.
            Some(Errno::AGAIN | Errno::BUSY) if self.put_off < TRIES_MAX => {
                self.put_off += 1;
                std::thread::park_timeout(PAUSE);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Takes note of a completion; the write and what came of it, if it is over. With `resumes`, what has
    /// not come to its end goes on.
    fn take(&mut self, completion: Completion, resumes: bool) -> Taken {
        let known = |aloft: &Aloft| aloft.serial == completion.serial;
        let Some(at) = self.aloft.iter().position(known) else {
            return Taken::Unknown;
        };
        let Some(aloft) = self.aloft.get_mut(at) else {
            return Taken::Unknown;
        };
        let outcome = aloft.advance(completion.result);
        if matches!(outcome, Ok(false)) && resumes {
            Self::push(&mut self.ring, aloft);
            return Taken::GoesOn;
        }
        let aloft = self.aloft.swap_remove(at);
        if let Some(slot) = aloft.slot {
            self.files.give_back(slot);
        }
        Taken::Over(aloft, outcome.map(drop))
    }

    fn fail(&mut self, error: DiskError) -> DiskError {
        self.broken.get_or_insert(error).clone()
    }

    /// The ring says nothing reliable any more: whatever it may still do must find what it was given. Only
    /// if the kernel has seen none of it, as where it refuses the very first call, it will do nothing.
    fn give_up(&mut self, source: io::Error) -> Option<DiskError> {
        let error = self.aloft.first().map(|aloft| aloft.error(source));
        let aloft = std::mem::take(&mut self.aloft);
        if self.ring.unseen() < aloft.len() {
            for left in &aloft {
                left.file.keep_lock();
            }
            std::mem::forget(aloft);
        }
        error.map(|error| self.fail(error))
    }
}

impl<R: Ring> LogWriter for RingWriter<R> {
    fn start(&mut self, write: LogWrite) {
        write.check();
        assert!(
            self.aloft.len() < self.depth,
            "disk: too many writes in flight"
        );
        assert!(
            self.broken.is_none(),
            "F7: nothing is started after an error"
        );
        let file = os_file(&write.file);
        let serial = self.next_serial;
        self.next_serial += 1;
        let id = write.buffer.id();
        let registered = self.registered.iter().position(|known| *known == id);
        self.aloft.push(Aloft {
            serial,
            transfer: Transfer::new(write.bytes, BLOCK_BYTES),
            slot: self.files.take(&mut self.ring, &file),
            registered: registered.and_then(|at| u16::try_from(at).ok()),
            tries: 0,
            file,
            write,
        });
        if let Some(aloft) = self.aloft.last() {
            Self::push(&mut self.ring, aloft);
        }
    }

    fn finish(&mut self) -> DiskResult<Written> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        assert!(!self.aloft.is_empty(), "disk: a write is in flight");
        loop {
            let lost = match self.ring.reap() {
                None => match self.wait() {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Some(completion) => match self.take(completion, true) {
                    Taken::GoesOn => continue,
                    Taken::Over(aloft, Ok(())) => {
                        return Ok(Written {
                            tag: aloft.write.tag,
                            buffer: aloft.write.buffer,
                        });
                    }
                    Taken::Over(aloft, Err(source)) => return Err(self.fail(aloft.error(source))),
                    Taken::Unknown => unknown_completion(),
                },
            };
            let error = self.give_up(lost);
            return Err(error.expect("disk: a write is in flight"));
        }
    }

    fn drain(&mut self) {
        while !self.aloft.is_empty() {
            let lost = match self.ring.reap() {
                None => self.wait().err(),
                Some(completion) => match self.take(completion, false) {
                    Taken::GoesOn | Taken::Over(..) => None,
                    Taken::Unknown => Some(unknown_completion()),
                },
            };
            if let Some(source) = lost {
                let error = self.give_up(source);
                tracing::error!(?error, "io_uring failed with writes in flight");
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.aloft.len()
    }

    fn depth(&self) -> usize {
        self.depth
    }
}

impl<R: Ring> Drop for RingWriter<R> {
    fn drop(&mut self) {
        self.drain();
    }
}

fn unknown_completion() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "io_uring completed a write that is not in flight",
    )
}

/// The real file behind the port.
fn os_file(file: &Arc<dyn DiskFile>) -> Arc<OsFile> {
    let any: Arc<dyn Any + Send + Sync> = file.clone();
    let file = any.downcast::<OsFile>();
    let file = file.expect("disk 5: a ring writes files of its own directory");
    assert!(file.is_log(), "disk 5: durable writes are for log files");
    file
}

#[cfg(test)]
mod tests;
