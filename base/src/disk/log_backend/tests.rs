//! Tests of what each refusal leads to: the kernel's answers are injected, the writes are real.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests look behind the disk's back"
)]

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::ring::{Completion, Request};
use super::super::{Disk, OpenMode, OsDisk};
use super::*;
use crate::limits::BLOCK_BYTES;

const REFUSALS: [Errno; 6] = [
    Errno::PERM,
    Errno::ACCESS,
    Errno::NOSYS,
    Errno::NOMEM,
    Errno::INVAL,
    Errno::OPNOTSUPP,
];
const ERRORS: [Errno; 6] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::FBIG,
    Errno::BADF,
    Errno::ROFS,
];

/// A ring of which every wait, or every write, ends so.
#[derive(Debug)]
struct Refusing {
    wait: Option<Errno>,
    write: Option<Errno>,
    queued: Option<u64>,
}

impl Ring for Refusing {
    fn completions_max(&self) -> usize {
        8
    }

    fn register_buffers(&mut self, _buffers: &[AlignedBuf]) -> io::Result<()> {
        Err(Errno::NOMEM.into())
    }

    fn reserve_files(&mut self, _slots: u32) -> io::Result<()> {
        Err(Errno::INVAL.into())
    }

    fn register_file(&mut self, _slot: u32, _file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Err(Errno::INVAL.into())
    }

    unsafe fn push(&mut self, request: Request<'_>) {
        self.queued = Some(request.serial);
    }

    fn enter(&mut self) -> io::Result<()> {
        self.wait.map_or(Ok(()), |errno| Err(errno.into()))
    }

    fn unseen(&mut self) -> usize {
        usize::from(self.queued.is_some())
    }

    fn reap(&mut self) -> Option<Completion> {
        let errno = self.write?;
        self.queued.take().map(|serial| Completion {
            serial,
            result: Err(errno),
        })
    }
}

struct Fixture {
    _directory: TempDir,
    disk: OsDisk,
    path: PathBuf,
    refused: Refused,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let disk = OsDisk::open(directory.path(), false).unwrap();
        let path = disk.path("log");
        fs::write(&path, vec![0; 2 * BLOCK_BYTES]).unwrap();
        Self {
            _directory: directory,
            disk,
            path,
            refused: Refused::default(),
        }
    }

    fn choose<R: Ring>(
        &self,
        io: IoMode,
        build: impl FnOnce(usize) -> io::Result<R>,
    ) -> DiskResult<Chosen> {
        let asked = Asked {
            io,
            refused: &self.refused,
            path: &self.path,
            depth: 4,
            buffers: &[],
        };
        let mut buffer = AlignedBuf::zeroed(BLOCK_BYTES);
        buffer.as_mut_bytes().fill(7);
        let probe = LogWrite {
            tag: 1,
            file: self.disk.open("log", OpenMode::Log).unwrap(),
            offset: BLOCK_BYTES as u64,
            buffer,
            bytes: BLOCK_BYTES,
        };
        choose(&asked, probe, build)
    }

    /// Whether the first write is on the file.
    fn is_probed(&self) -> bool {
        let bytes = fs::read(&self.path).unwrap();
        assert!(bytes[..BLOCK_BYTES].iter().all(|byte| *byte == 0));
        bytes[BLOCK_BYTES..].iter().all(|byte| *byte == 7)
    }
}

type Build = Box<dyn FnOnce(usize) -> io::Result<Refusing>>;

/// The places where the kernel may answer so: at the making of a ring, at the wait, at the write.
fn places(errno: Errno) -> [(&'static str, Build); 3] {
    let ring = |wait, write| Refusing {
        wait,
        write,
        queued: None,
    };
    [
        ("setup", Box::new(move |_| Err(errno.into()))),
        ("wait", Box::new(move |_| Ok(ring(Some(errno), None)))),
        ("write", Box::new(move |_| Ok(ring(None, Some(errno))))),
    ]
}

/// F21: a refused ring is no error, and the first write arrives by the other way.
#[test]
fn every_refusal_leads_to_blocking_writes() {
    for errno in REFUSALS {
        for (place, build) in places(errno) {
            let at = Fixture::new();
            let chosen = at.choose(IoMode::Auto, build).unwrap();
            assert_eq!(chosen.backend, Backend::Blocking, "{errno} at {place}");
            let why = chosen.refused.unwrap();
            assert!(why.contains(&errno.to_string()), "{why}");
            assert!(at.is_probed(), "{errno} at {place}");
            assert_eq!((chosen.writer.depth(), chosen.writer.in_flight()), (4, 0));
        }
    }
}

#[test]
fn a_refusal_is_an_error_where_a_ring_was_asked_for_by_name() {
    for errno in REFUSALS {
        for (place, build) in places(errno) {
            let at = Fixture::new();
            let error = at.choose(IoMode::Uring, build).unwrap_err();
            assert_eq!(error.op, DiskOp::SetUpRing, "{errno} at {place}");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            let text = error.to_string();
            for part in [
                &errno.to_string(),
                "kernel.io_uring_disabled",
                "IoMode::Auto",
            ] {
                assert!(text.contains(part), "{text}");
            }
            assert!(!at.is_probed(), "nothing is written by another way");
        }
    }
}

/// What fails is the device or the file: another way of writing would hide it.
#[test]
fn an_error_of_the_first_write_is_an_error() {
    for errno in ERRORS {
        for (place, build) in places(errno).into_iter().skip(1) {
            let at = Fixture::new();
            let error = at.choose(IoMode::Auto, build).unwrap_err();
            assert_eq!(error.op, DiskOp::WriteDurable, "{errno} at {place}");
            let raw = Some(errno.raw_os_error());
            assert_eq!(error.source.raw_os_error(), raw, "{place}");
            assert!(!at.is_probed());
        }
    }
}

/// Before anything was written, no reason why there is no ring can be an error of the device.
#[test]
fn whatever_prevents_a_ring_blocking_writes_do() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::IO] {
        let at = Fixture::new();
        let [(_, build), ..] = places(errno);
        let chosen = at.choose(IoMode::Auto, build).unwrap();
        assert_eq!(chosen.backend, Backend::Blocking);
        assert!(at.is_probed());
    }
}

#[test]
fn blocking_mode_makes_no_ring() {
    let at = Fixture::new();
    let never = |_| -> io::Result<Refusing> { unreachable!("a ring was made") };
    let chosen = at.choose(IoMode::Blocking, never).unwrap();
    let found = (chosen.backend, chosen.refused);
    assert_eq!(found, (Backend::Blocking, None));
    assert!(at.is_probed());
}

#[test]
fn a_filesystem_that_cannot_do_it_in_one_call_gets_no_ring() {
    let at = Fixture::new();
    for (refused, what) in [
        (&at.refused.direct, "past the page cache"),
        (&at.refused.dsync, "in one call"),
    ] {
        let never = |_| -> io::Result<Refusing> { unreachable!("a ring was made") };
        refused.store(true, Ordering::Relaxed);
        let chosen = at.choose(IoMode::Auto, never).unwrap();
        assert_eq!(chosen.backend, Backend::Blocking);
        assert!(chosen.refused.unwrap().contains(what));
        // No kernel setting would help where it was asked for by name.
        let text = at.choose(IoMode::Uring, never).unwrap_err().to_string();
        assert!(text.contains(what) && text.contains("ext4"), "{text}");
        assert!(!text.contains("kernel.io_uring_disabled"), "{text}");
        refused.store(false, Ordering::Relaxed);
    }
}
