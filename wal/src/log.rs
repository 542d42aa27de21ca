//! The log in use: append, group commit, recycling.
//!
//! The engine owns one [`Log`] for as long as the database is open. What holds:
//! 1. A record is durable when [`Log::durable`] has passed its end, and then so is all before it (W3).
//! 2. Nothing flushes by itself: a flush starts when somebody waits for durability or a frame buffer is
//!    full, is driven by that thread, and takes all that has gathered (G9).
//! 3. After the first failed write or sync of the log nothing is acknowledged any more (W11).
//! 4. The append latch is never held across I/O. The shelf's mutex and the lead are not latches: they
//!    are held across I/O, by one thread each, and nobody takes them while holding the append latch.
//!
//! A crash leaves a prefix of the records, with all that was durable; recovery finds its end (G6).

use std::sync::atomic::{AtomicU64, Ordering};

use lockstone_base::Lsn;
use lockstone_base::limits::BLOCK_BYTES;
use parking_lot::Mutex;

use crate::chain::ChainPoint;
use crate::error::WalError;
use crate::flush::Flush;
use crate::format::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SegmentStamp};
use crate::hold::Hold;
use crate::open_frame::{Record, SealedFrame, record_room};
use crate::progress::{Lead, Progress, Turn};
use crate::rooms::{Promise, Room, Rooms};
use crate::segment::{Access, POSITION_MAX};
use crate::segments::Segments;
use crate::shelf::Shelf;
use crate::staging::{Appended, Shortage, Staging};
use crate::visit::LogScan;

/// The shortest segment: four frames, each with room for a record of 32 KiB.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// Frames take at most this part of a segment, so that little of it is lost to the gap at its end.
const FRAMES_PER_SEGMENT: u64 = 4;

/// How the log runs.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// The length of a segment: a multiple of 4096, at least 256 KiB. May differ from the last run's.
    pub segment_bytes: u64,
    /// The database.
    pub uuid: u128,
    /// Its salt, which enters every checksum.
    pub salt: u64,
    /// This run.
    pub boot_epoch: u32,
    /// The newest durable manifest.
    pub manifest_generation: u64,
}

impl LogConfig {
    /// The default length of a segment.
    pub const SEGMENT_BYTES: u64 = 64 << 20;

    fn check(&self) -> Result<(), WalError> {
        if !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(WalError::InvalidConfig(
                "a segment is whole blocks of 4096 bytes",
            ));
        }
        if self.segment_bytes < SEGMENT_BYTES_MIN || self.segment_bytes > POSITION_MAX {
            return Err(WalError::InvalidConfig("a segment has at least 256 KiB"));
        }
        Ok(())
    }

    fn frame_bytes(&self) -> usize {
        let part = self.segment_bytes / FRAMES_PER_SEGMENT;
        let whole = part - part % BLOCK_BYTES as u64;
        whole.min(FRAME_BYTES_MAX as u64) as usize
    }
}

/// The log in use.
#[derive(Debug)]
pub struct Log {
    /// The append latch.
    staging: Mutex<Staging>,
    rooms: Rooms,
    progress: Progress,
    flush: Flush,
    /// Held across I/O by whoever readies or recycles segments.
    shelf: Mutex<Shelf>,
    record_bytes_max: usize,
    recycled: AtomicU64,
    inherited: Inherited,
}

/// The log that the runs before have left.
#[derive(Debug, Clone, Copy)]
struct Inherited {
    bytes: u64,
    end: Lsn,
    /// Where this run's log begins.
    next: Lsn,
}

impl Log {
    /// Continues the log behind what `scan` has found in `segments`: in a new segment, synced with its
    /// directory before anything is written to it (G8). The durable LSN is where the chain ended until
    /// the first frame is written.
    ///
    /// # Errors
    /// [`WalError::InvalidConfig`] with nothing changed; [`WalError::Disk`], with at most an unused
    /// segment or spare left behind, which the next start uses.
    pub fn start(segments: Segments, config: LogConfig, scan: &LogScan) -> Result<Self, WalError> {
        config.check()?;
        if segments.access != Access::Recover {
            return Err(WalError::InvalidConfig(
                "a log opened for inspection cannot be extended",
            ));
        }
        if config.salt != scan.salt {
            return Err(WalError::InvalidConfig(
                "a log keeps the salt it was scanned with",
            ));
        }
        let stamp = SegmentStamp {
            uuid: config.uuid,
            salt: config.salt,
        };
        let (shelf, current) = Shelf::start(segments, config.segment_bytes, stamp, scan)?;
        let inherited = Inherited {
            bytes: scan.bytes,
            end: scan.end.end,
            next: current.base,
        };
        let frame_bytes = config.frame_bytes();
        let mut staging = Staging::new(current, scan.end.end, frame_bytes);
        if shelf.has_spare() {
            staging.set_spare();
        }
        let (epoch, generation) = (config.boot_epoch, config.manifest_generation);
        Ok(Self {
            staging: Mutex::new(staging),
            rooms: Rooms::default(),
            progress: Progress::new(scan.end.end),
            flush: Flush::new(scan.index.clone(), config.salt, epoch, generation),
            shelf: Mutex::new(shelf),
            record_bytes_max: frame_bytes - FRAME_HEADER_BYTES - record_room(0),
            recycled: AtomicU64::new(scan.from.end.get()),
            inherited,
        })
    }

    /// Appends `record`; not durable. May wait for room: then it drives the flush itself, or readies the
    /// next segment.
    ///
    /// # Errors
    /// [`WalError::RecordTooLong`]; [`WalError::Poisoned`]; [`WalError::Disk`] when there is no room for
    /// a further segment: the record is then not in the log, the log stays usable, and reserved records
    /// still fit.
    ///
    /// # Panics
    /// If the tag is 0 or the context longer than 64 bytes.
    pub fn append(&self, record: &Record<'_>) -> Result<Appended, WalError> {
        record.check();
        self.check_length(record.bytes())?;
        loop {
            self.progress.check()?;
            let mut staging = self.staging.lock();
            let promised = self.rooms.promised();
            match staging.append(record, promised) {
                Ok(appended) => {
                    let full = staging.sealed_end();
                    let wants_segment = staging.wants_segment();
                    drop(staging);
                    self.tend(full, wants_segment)?;
                    return Ok(appended);
                }
                Err(shortage) => {
                    let durable = self.durable();
                    drop(staging);
                    self.make_room(shortage, promised, durable)?;
                }
            }
        }
    }

    /// Reserves room for one record with up to `bytes` bytes of context and body, in buffer and log:
    /// the append in the hold then neither waits nor fails (W2, G10). May wait as [`Log::append`] does.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn reserve(&self, bytes: usize) -> Result<Room<'_>, WalError> {
        self.check_length(bytes)?;
        let more = Promise::of_record(bytes);
        loop {
            self.progress.check()?;
            let staging = self.staging.lock();
            let promised = self.rooms.promised();
            match staging.can_promise(promised, more) {
                Ok(()) => {
                    let room = self.rooms.promise(more);
                    let wants_segment = staging.wants_segment();
                    drop(staging);
                    self.tend(None, wants_segment)?;
                    return Ok(room);
                }
                Err(shortage) => {
                    let durable = self.durable();
                    drop(staging);
                    self.make_room(shortage, promised, durable)?;
                }
            }
        }
    }

    /// Takes the append latch.
    pub fn hold(&self) -> Hold<'_> {
        Hold {
            staging: self.staging.lock(),
            progress: &self.progress,
            rooms: &self.rooms,
        }
    }

    /// Returns when all records up to `end` are durable. The calling thread drives the flush if nobody
    /// does; it is one write for all that has gathered (G9).
    ///
    /// # Errors
    /// [`WalError::Poisoned`]: the outcome is unknown, a recovery may find the records or not.
    ///
    /// # Panics
    /// If nothing was ever appended up to `end`.
    pub fn wait_durable(&self, end: Lsn) -> Result<(), WalError> {
        while !self.progress.has_reached(end)? {
            if let Turn::Lead(_lead) = self.progress.wait(end) {
                self.flush_through(end)?;
            }
        }
        Ok(())
    }

    /// The end of the last frame on the device (W3).
    pub fn durable(&self) -> Lsn {
        self.progress.durable()
    }

    /// Behind the last record, or the last frame: once that is durable, everything appended is.
    pub fn end(&self) -> Lsn {
        self.staging.lock().end()
    }

    /// Whether the last frame with records is not yet covered by a later header: damage to it could
    /// not be told from a torn write (G6).
    pub fn has_uncovered(&self) -> bool {
        self.flush.covered() < self.flush.recorded()
    }

    /// Writes what has gathered, and then an empty frame if the last frame with records needs it (G7).
    ///
    /// # Errors
    /// [`WalError::Poisoned`]; [`WalError::Disk`] when there is no room for a further segment.
    pub fn cover(&self) -> Result<(), WalError> {
        self.wait_durable(self.end())?;
        let recorded = self.flush.recorded();
        while self.flush.covered() < recorded {
            self.progress.check()?;
            if let Turn::Lead(_lead) = self.progress.wait(Lsn::MAX) {
                self.cover_through(recorded)?;
            }
        }
        self.progress.leave();
        Ok(())
    }

    /// A manifest of this generation is durable: frames name it from now on (G3).
    pub fn note_manifest(&self, generation: u64) {
        self.flush.note_manifest(generation);
    }

    /// The point from which a scan meets the frame that holds `lsn`, and little before it (S3). Of what
    /// is durable only: for an `lsn` behind that, the end of the last frame on the device.
    pub fn chain_point_at(&self, lsn: Lsn) -> ChainPoint {
        self.flush.point_at(lsn)
    }

    /// Segments wholly below `below`, from which a *durable* manifest starts its scan, become the
    /// spare or go.
    ///
    /// # Errors
    /// [`WalError::Poisoned`]: the directory is in an unknown state.
    pub fn recycle(&self, below: Lsn) -> Result<(), WalError> {
        assert!(
            below <= self.durable(),
            "S1: a manifest names durable positions only"
        );
        let mut shelf = self.shelf.lock();
        // Whoever closes the log lets others have the segments under this mutex.
        self.progress.check()?;
        // The current segment never goes, though all of it may be below: positions are counted from it.
        let below_current = below.min(self.staging.lock().current_base());
        if let Err(error) = shelf.recycle(below_current) {
            tracing::error!(%error, "the log cannot recycle segments: poisoned");
            self.poison();
            return Err(WalError::Poisoned);
        }
        if shelf.has_spare() {
            self.staging.lock().set_spare();
        }
        drop(shelf);
        self.flush.forget_below(below);
        self.recycled.fetch_max(below.get(), Ordering::AcqRel);
        Ok(())
    }

    /// The length of the log from the last recycle point to its end.
    pub fn used_bytes(&self) -> u64 {
        self.bytes_since(Lsn::new(self.recycled.load(Ordering::Acquire)))
    }

    /// The length of the log from `position` to its end. What a run before left counts as a whole, and the
    /// positions between it and this run's first segment, which no file holds, not at all.
    pub fn bytes_since(&self, position: Lsn) -> u64 {
        let before = if position < self.inherited.end {
            self.inherited.bytes
        } else {
            0
        };
        before + self.end().since(position.max(self.inherited.next))
    }

    /// The most that context and body of one record may have together.
    pub fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Whether the log is poisoned (W11).
    pub fn is_poisoned(&self) -> bool {
        self.progress.is_poisoned()
    }

    /// Poisons the log for good: every waiter wakes, nothing is acknowledged any more (W11).
    pub fn poison(&self) {
        self.progress.poison();
        self.rooms.wake_all();
    }

    /// Writes nothing more, and lets others have the segments. What was appended and not waited for is
    /// lost; what is durable stays so.
    pub fn close(&self) {
        let _lead = self.last_lead();
        self.progress.close();
        self.rooms.wake_all();
        self.shelf.lock().unlock();
    }

    /// The lead, so that no write is in flight: also when the log has failed, for a leader may still be in
    /// the kernel with the write that it had begun, and must not reach a segment that others own by then.
    fn last_lead(&self) -> Lead<'_> {
        loop {
            if let Some(lead) = self.progress.try_lead() {
                return lead;
            }
            match self.progress.wait(Lsn::MAX) {
                Turn::Lead(lead) => return lead,
                Turn::Look => std::thread::yield_now(),
            }
        }
    }

    fn check_length(&self, bytes: usize) -> Result<(), WalError> {
        let max = self.record_bytes_max;
        if bytes > max {
            return Err(WalError::RecordTooLong { bytes, max });
        }
        Ok(())
    }

    /// What an appender does for all, off the latch: write full frames if nobody does, ready the next
    /// segment ahead of need.
    fn tend(&self, full: Option<Lsn>, wants_segment: bool) -> Result<(), WalError> {
        if let Some(end) = full
            && let Some(_lead) = self.progress.try_lead()
        {
            self.flush_through(end)?;
        }
        if wants_segment
            && let Some(mut shelf) = self.shelf.try_lock()
            && let Err(error) = self.ready_segment(&mut shelf)
        {
            let WalError::Disk(error) = error else {
                return Err(error);
            };
            tracing::warn!(%error, "no room for a further log segment yet");
            self.staging.lock().put_off_ready();
        }
        Ok(())
    }

    /// Brings about what was short; `promised` and `durable` are as seen when it was.
    fn make_room(
        &self,
        shortage: Shortage,
        promised: Promise,
        durable: Lsn,
    ) -> Result<(), WalError> {
        match shortage {
            // Every buffer holds a frame that is not durable yet: one more written gives one back.
            Shortage::Buffer => self.wait_durable(durable.plus(1)),
            Shortage::Segment => self.ready_segment(&mut self.shelf.lock()),
            Shortage::Rooms => {
                self.rooms
                    .wait_for_less(promised, || self.progress.check().is_err());
                Ok(())
            }
        }
    }

    /// Readies the next segment and the spare behind it (G1), as far as they are missing.
    ///
    /// # Errors
    /// [`WalError::Disk`] when there is no room, with nothing harmed; else [`WalError::Poisoned`].
    fn ready_segment(&self, shelf: &mut Shelf) -> Result<(), WalError> {
        self.progress.check()?;
        let fatal = |error: WalError| {
            tracing::error!(%error, "the log cannot ready a segment: poisoned");
            self.poison();
            WalError::Poisoned
        };
        if !self.staging.lock().has_next() {
            self.ready_spare(shelf)?;
            let next = shelf.ready_next().map_err(fatal)?;
            self.staging.lock().set_next(next);
        }
        self.ready_spare(shelf)
    }

    fn ready_spare(&self, shelf: &mut Shelf) -> Result<(), WalError> {
        if !shelf.has_spare() {
            shelf.fill()?;
            if let Err(error) = shelf.name_spare() {
                tracing::error!(%error, "the log cannot name its spare: poisoned");
                self.poison();
                return Err(WalError::Poisoned);
            }
        }
        self.staging.lock().set_spare();
        Ok(())
    }

    /// As the leader: writes frames until `end` is durable or nothing is left.
    fn flush_through(&self, end: Lsn) -> Result<(), WalError> {
        while self.durable() < end {
            let frame = self.staging.lock().take_frame();
            let Some(frame) = frame else {
                assert!(end <= self.end(), "W3: one waits for what was appended");
                return Ok(());
            };
            self.write(frame)?;
        }
        Ok(())
    }

    /// As the leader: writes frames until a header covers `recorded`; an empty one if no others wait.
    fn cover_through(&self, recorded: Lsn) -> Result<(), WalError> {
        while self.flush.covered() < recorded {
            let mut staging = self.staging.lock();
            let promised = self.rooms.promised();
            let taken = match staging.take_frame() {
                Some(frame) => Ok(frame),
                None => staging.take_empty_frame(promised),
            };
            drop(staging);
            match taken {
                Ok(frame) => self.write(frame)?,
                Err(Shortage::Buffer) => {
                    unreachable!("G2: a leader holds no buffer between frames")
                }
                Err(shortage) => self.make_room(shortage, promised, recorded)?,
            }
        }
        Ok(())
    }

    fn write(&self, mut frame: SealedFrame) -> Result<(), WalError> {
        self.progress.check()?;
        if let Err(error) = self.flush.write(&mut frame, self.durable()) {
            tracing::error!(%error, "a log write failed: poisoned");
            self.poison();
            return Err(WalError::Poisoned);
        }
        let end = frame.end();
        self.staging.lock().give_back(frame.buffer);
        self.progress.advance(end);
        Ok(())
    }
}
