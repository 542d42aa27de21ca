//! A log without a database around it, served as the engine serves its own: a thread flushes what nobody
//! waits for, one readies segments, one frees what is no longer needed.
//!
//! Used by the workloads that measure the log alone.
//! 1. What lies two segments behind is recycled, as a checkpoint does it, off the appending threads; so a
//!    run of any length needs a few segments, and after the first of them fills none.
//! 2. In the end the log is read again from where it was recycled last: every record must be there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lockstone_base::Lsn;
use lockstone_base::disk::{Backend, Disk, OsDisk};
use lockstone_wal::{
    Access, ChainPoint, Log, LogConfig, LogScan, LogVisitor, ScanOptions, Segments, WalError,
};
use parking_lot::Mutex;

use crate::author::{Ledger, Reader};
use crate::counted_disk::{CountedDisk, Counts};
use crate::error::Error;
use crate::log_settings::LogSettings;
use crate::place;
use crate::run_settings::Common;

const UUID: u128 = 1;
const SALT: u64 = 2;
const GENERATION: u64 = 1;
/// What is kept before it is recycled, in segments.
const KEPT_SEGMENTS: u64 = 2;
/// How often somebody looks whether there is something to recycle.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Whether a log gives back what is no longer needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All of it stays.
    All,
    /// The last few segments.
    Tail,
}

/// A log in use, with the threads that serve it.
#[derive(Debug)]
pub(crate) struct BareLog {
    served: Arc<Served>,
    disk: Arc<CountedDisk>,
    path: PathBuf,
    threads: Vec<JoinHandle<Result<(), WalError>>>,
}

/// What the serving threads share.
#[derive(Debug)]
struct Served {
    log: Log,
    stopping: AtomicBool,
    /// From where the log can be read.
    head: Mutex<ChainPoint>,
    recycle_bytes: u64,
}

impl BareLog {
    /// A log without a record in an empty directory at `path`.
    pub(crate) fn create(
        path: &Path,
        settings: &LogSettings,
        common: &Common,
        keep: Keep,
    ) -> Result<Self, Error> {
        place::remove(path)?;
        let disk = OsDisk::open(path, true)?.with_io(common.io.into());
        let disk = Arc::new(CountedDisk::new(disk));
        let segments = Segments::open(disk.clone(), Access::Recover)?;
        let scan = segments.scan(&since(ChainPoint::START, Lsn::ZERO), &mut Reader::default())?;
        let config = LogConfig {
            segment_bytes: settings.segment_bytes,
            uuid: UUID,
            salt: SALT,
            boot_epoch: 1,
            manifest_generation: GENERATION,
            frames_in_flight: settings.frames_in_flight as usize,
        };
        let served = Arc::new(Served {
            log: Log::start(segments, config, &scan)?,
            stopping: AtomicBool::new(false),
            head: Mutex::new(ChainPoint::START),
            recycle_bytes: KEPT_SEGMENTS * settings.segment_bytes,
        });
        let mut threads = vec![serve(&served, drive), serve(&served, supply)];
        if keep == Keep::Tail {
            threads.push(serve(&served, recycle));
        }
        Ok(Self {
            threads,
            served,
            disk,
            path: path.to_owned(),
        })
    }

    pub(crate) fn log(&self) -> &Log {
        &self.served.log
    }

    /// The disk on which it lies.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// What was written so far.
    pub(crate) fn counts(&self) -> Counts {
        self.disk.counts()
    }

    /// What carries the frames.
    pub(crate) fn backend(&self) -> Backend {
        self.disk.write_path().backend
    }

    /// Ends it, and reads what it holds: what the clients of `ledger` have appended, or an error.
    pub(crate) fn close(mut self, ledger: &Ledger) -> Result<ClosedLog, Error> {
        self.stop()?;
        let log = &self.served.log;
        ledger.last_words(|record| Ok(log.append(record).map(|_| ())?))?;
        log.wait_durable(log.end())?;
        let (head, durable) = (*self.served.head.lock(), log.durable());
        log.close();
        let closed = ClosedLog {
            disk: self.disk.clone(),
            path: std::mem::take(&mut self.path),
            options: since(head, durable),
        };
        let mut reader = Reader::default();
        closed.scan(&mut reader)?;
        reader.compare(ledger)?;
        Ok(closed)
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.served.stopping.store(true, Ordering::Release);
        self.served.log.wake_driver();
        self.served.log.wake_supplier();
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            match thread.join() {
                Ok(served) => served?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    }
}

impl Drop for BareLog {
    /// After a failure: the threads must not go on.
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.served.log.poison();
            self.served.stopping.store(true, Ordering::Release);
            self.threads.clear();
        }
    }
}

/// A log that nobody writes to any more.
#[derive(Debug)]
pub(crate) struct ClosedLog {
    disk: Arc<CountedDisk>,
    path: PathBuf,
    options: ScanOptions,
}

/// One reading of a log.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) scan: LogScan,
    /// The reading alone, without opening the segments.
    pub(crate) took: Duration,
}

impl ClosedLog {
    /// Reads and checks all of it, as a recovery does.
    pub(crate) fn scan(&self, visitor: &mut dyn LogVisitor) -> Result<Read, Error> {
        let segments = Segments::open(self.disk.clone(), Access::Recover)?;
        let begin = Instant::now();
        let scan = segments.scan(&self.options, visitor)?;
        let took = begin.elapsed();
        Error::unless_equal(
            "end of the log",
            self.options.durable.get(),
            scan.end.end.get(),
        )?;
        Ok(Read { scan, took })
    }

    /// What has carried its frames.
    pub(crate) fn backend(&self) -> Backend {
        self.disk.write_path().backend
    }

    /// Whether its segments are read past the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.disk.write_path().direct
    }

    pub(crate) fn remove(self) -> Result<(), Error> {
        place::remove(&self.path)
    }
}

/// All records behind `head`, which were acknowledged up to `durable`: none of them may be missing.
fn since(head: ChainPoint, durable: Lsn) -> ScanOptions {
    ScanOptions {
        salt: SALT,
        from: head,
        durable,
        manifest_generation: GENERATION,
        log_end: Lsn::ZERO,
    }
}

fn serve(
    served: &Arc<Served>,
    body: fn(&Served) -> Result<(), WalError>,
) -> JoinHandle<Result<(), WalError>> {
    let served = Arc::clone(served);
    thread::spawn(move || body(&served))
}

fn drive(served: &Served) -> Result<(), WalError> {
    while !served.stopping.load(Ordering::Acquire) {
        served.log.drive(None)?;
    }
    Ok(())
}

fn supply(served: &Served) -> Result<(), WalError> {
    while !served.stopping.load(Ordering::Acquire) {
        served.log.supply_segments()?;
    }
    Ok(())
}

fn recycle(served: &Served) -> Result<(), WalError> {
    while !served.stopping.load(Ordering::Acquire) {
        thread::park_timeout(LOOK_EVERY);
        if served.log.used_bytes() >= served.recycle_bytes {
            let head = served.log.chain_point_at(served.log.durable());
            *served.head.lock() = head;
            served.log.recycle(head.end)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_settings::tests::settings;

    const RECORD_BYTES: u32 = 1000;

    fn filled(dir: &Path, keep: Keep, records: u32) -> (BareLog, Ledger) {
        let (common, log) = settings();
        let bare = BareLog::create(dir, &log, &common, keep).unwrap();
        let ledger = Ledger::new(1);
        let mut author = ledger.author(0, RECORD_BYTES, 1);
        for _ in 0..records {
            author.append(|record| bare.log().append(record)).unwrap();
        }
        (bare, ledger)
    }

    #[test]
    fn a_log_that_is_kept_holds_all_of_it_and_is_read_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let (bare, ledger) = filled(&dir.path().join("log"), Keep::All, 5_000);
        let closed = bare.close(&ledger).unwrap();
        for _ in 0..2 {
            let mut reader = Reader::default();
            let read = closed.scan(&mut reader).unwrap();
            // With the last word, which has no body.
            assert_eq!(read.scan.records, 5_001);
            assert_eq!(reader.bytes, 5_000 * u64::from(RECORD_BYTES) + 16);
        }
        closed.remove().unwrap();
        assert!(!dir.path().join("log").exists());
    }

    #[test]
    fn a_long_log_takes_a_few_segments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (bare, ledger) = filled(&path, Keep::Tail, 20_000);
        let counts = bare.counts();
        let written: u64 = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(
            counts.frames > 0 && counts.bytes > 2 * written,
            "{counts:?} {written}"
        );
        bare.close(&ledger).unwrap();
    }

    /// A workload whose records did not all reach the log must not give a number.
    #[test]
    fn a_record_that_is_not_in_the_log_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (bare, ledger) = filled(&dir.path().join("log"), Keep::All, 10);
        let mut author = ledger.author(0, RECORD_BYTES, 1);
        for _ in 0..12 {
            author.append(|_| Ok::<_, Error>(())).unwrap();
        }
        assert!(bare.close(&ledger).is_err());
    }

    #[test]
    fn a_log_that_is_dropped_ends_its_threads() {
        let dir = tempfile::tempdir().unwrap();
        let (bare, _) = filled(&dir.path().join("log"), Keep::Tail, 1);
        let served = Arc::downgrade(&bare.served);
        drop(bare);
        let begin = Instant::now();
        while served.strong_count() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(10));
            thread::yield_now();
        }
    }
}
