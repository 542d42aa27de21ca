//! The log in use: append, group commit, recycling.
//!
//! The engine owns one [`Log`] for as long as the database is open. What holds:
//! 1. A record is durable when [`Log::durable`] has passed its end, and then so is all before it (W3).
//! 2. A flush starts when somebody waits for durability, driven by that thread, or when somebody asked for
//!    one or much has gathered, driven by the thread that serves [`Log::drive`]; it takes all that has
//!    gathered (G9). A lock record alone starts none.
//! 3. After the first failed write or sync of the log nothing is acknowledged any more (W11).
//! 4. The append latch is never held across I/O.
//!
//! A crash leaves a prefix of the records, with all that was durable; recovery finds its end (G6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use lockstone_base::Lsn;
use lockstone_base::disk::{AlignedBuf, LogWrite};
use lockstone_base::limits::BLOCK_BYTES;
use parking_lot::Mutex;

use crate::chain::ChainPoint;
use crate::error::WalError;
use crate::flush::Flush;
use crate::format::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SegmentStamp};
use crate::hold::Hold;
use crate::open_frame::{Record, record_room};
use crate::pipeline::{GATHERED_BYTES, Pipeline, Stop};
use crate::progress::{Progress, Turn};
use crate::rooms::{Promise, Room, Rooms};
use crate::segment::{Access, SEGMENT_BYTES_MAX};
use crate::segments::Segments;
use crate::shelf::Shelf;
use crate::staging::{Appended, Shortage, Staging, frame_buffers};
use crate::supply::Supply;
use crate::visit::LogScan;
use crate::waiter::Watch;

/// The shortest segment: four frames, each with room for a record of 32 KiB.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// Frames take at most this part of a segment, so that little of it is lost to the gap at its end.
const FRAMES_PER_SEGMENT: u64 = 4;

/// How the log runs.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// The length of a segment: a multiple of 4096, 256 KiB to 1 GiB. May differ from the last run's.
    pub segment_bytes: u64,
    /// The database.
    pub uuid: u128,
    /// Its salt, which enters every checksum.
    pub salt: u64,
    /// This run.
    pub boot_epoch: u32,
    /// The newest durable manifest.
    pub manifest_generation: u64,
    /// How many frames may be in flight at once: 1 to 8.
    pub frames_in_flight: usize,
}

impl LogConfig {
    /// The default length of a segment.
    pub const SEGMENT_BYTES: u64 = 64 << 20;
    /// The default number of frames in flight.
    pub const FRAMES_IN_FLIGHT: usize = 2;
    const FRAMES_IN_FLIGHT_MAX: usize = 8;

    fn check(&self) -> Result<(), WalError> {
        if !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(WalError::InvalidConfig(
                "a segment is whole blocks of 4096 bytes",
            ));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(WalError::InvalidConfig("a segment has 256 KiB to 1 GiB"));
        }
        if !(1..=Self::FRAMES_IN_FLIGHT_MAX).contains(&self.frames_in_flight) {
            return Err(WalError::InvalidConfig("1 to 8 frames may be in flight"));
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
    pipeline: Pipeline,
    /// What `staging` publishes.
    end: Arc<AtomicU64>,
    supply: Supply,
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
        let disk = segments.disk.clone();
        let (shelf, current) = Shelf::start(segments, config.segment_bytes, stamp, scan)?;
        let inherited = Inherited {
            bytes: scan.bytes,
            end: scan.end.end,
            next: current.base,
        };
        let frame_bytes = config.frame_bytes();
        let buffers: Vec<_> = (0..frame_buffers(config.frames_in_flight))
            .map(|_| AlignedBuf::zeroed(frame_bytes))
            .collect();
        // What the kernel lets us do is found out with the header, as it stands already.
        let probe = LogWrite {
            tag: 0,
            file: current.file.clone(),
            offset: 0,
            buffer: current.header(stamp, None),
            bytes: BLOCK_BYTES,
        };
        let writer = disk.log_writer(config.frames_in_flight, &buffers, probe)?;
        let mut staging = Staging::new(current, scan.end.end, buffers);
        if shelf.has_spare() {
            staging.set_spare();
        }
        let (epoch, generation) = (config.boot_epoch, config.manifest_generation);
        Ok(Self {
            end: staging.published_end(),
            pipeline: Pipeline {
                staging: Mutex::new(staging),
                rooms: Rooms::default(),
                progress: Progress::new(scan.end.end),
                flush: Flush::new(writer, scan.index.clone(), config.salt, epoch, generation),
            },
            supply: Supply::new(shelf),
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
            self.pipeline.progress.check()?;
            let mut staging = self.pipeline.staging.lock();
            let promised = self.pipeline.rooms.promised();
            match staging.append(record, promised) {
                Ok(appended) => {
                    let gathered = staging.gathered();
                    let wants_segment = staging.wants_segment();
                    drop(staging);
                    if gathered >= GATHERED_BYTES {
                        self.pipeline.progress.ask_driver(appended.end);
                    }
                    if wants_segment {
                        self.supply.want(&self.pipeline)?;
                    }
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
            self.pipeline.progress.check()?;
            let staging = self.pipeline.staging.lock();
            let promised = self.pipeline.rooms.promised();
            match staging.can_promise(promised, more) {
                Ok(()) => {
                    let room = self.pipeline.rooms.promise(more);
                    let wants_segment = staging.wants_segment();
                    drop(staging);
                    if wants_segment {
                        self.supply.want(&self.pipeline)?;
                    }
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
            staging: self.pipeline.staging.lock(),
            progress: &self.pipeline.progress,
            rooms: &self.pipeline.rooms,
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
        self.pipeline.wait_durable(end)
    }

    /// [`Log::wait_durable`] for a task: its waker is woken when there is something to see. The thread that
    /// serves [`Log::drive`] sees to the flush, whoever polls.
    ///
    /// # Errors
    /// As [`Log::wait_durable`].
    pub fn poll_durable(
        &self,
        end: Lsn,
        watch: &mut Watch,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), WalError>> {
        self.pipeline.progress.poll(end, watch, context.waker())
    }

    /// Sees to it that all records up to `end` become durable soon, though nobody waits: the thread that
    /// serves [`Log::drive`] makes them so, unless somebody else does first. Without that thread they wait
    /// for the next flush.
    pub fn ask(&self, end: Lsn) {
        self.pipeline.progress.ask(end);
    }

    /// What a background thread does again and again to serve those who do not wait themselves (tickets,
    /// frames that fill): sleeps until somebody asks, or calls [`Log::wake_driver`], or for `at_most`,
    /// and then makes durable what was asked for.
    ///
    /// # Errors
    /// [`WalError::Poisoned`], [`WalError::Closed`]: there is nothing more to do.
    pub fn drive(&self, at_most: Option<Duration>) -> Result<(), WalError> {
        self.pipeline.progress.wait_for_nudge(at_most);
        self.pipeline.flush_asked()
    }

    /// Ends the sleep of [`Log::drive`].
    pub fn wake_driver(&self) {
        self.pipeline.progress.nudge();
    }

    /// What another background thread does again and again so that no appender has to: sleeps until the
    /// next segment is due, and readies it and a spare (G1).
    ///
    /// # Errors
    /// As [`Log::drive`].
    pub fn supply_segments(&self) -> Result<(), WalError> {
        self.supply.supplier.wait(None);
        self.supply.look_after(&self.pipeline)
    }

    /// Ends the sleep of [`Log::supply_segments`].
    pub fn wake_supplier(&self) {
        self.supply.supplier.nudge();
    }

    /// The end of the last frame on the device (W3).
    pub fn durable(&self) -> Lsn {
        self.pipeline.progress.durable()
    }

    /// Behind the last record, or the last frame: once that is durable, everything is that was appended
    /// before this call. Takes no latch.
    pub fn end(&self) -> Lsn {
        Lsn::new(self.end.load(Ordering::Acquire))
    }

    /// Whether the last frame with records is not yet covered by a later header: damage to it could
    /// not be told from a torn write (G6).
    pub fn has_uncovered(&self) -> bool {
        self.pipeline.flush.covered() < self.pipeline.flush.recorded()
    }

    /// Writes what has gathered, and then an empty frame if the last frame with records needs it (G7).
    ///
    /// # Errors
    /// [`WalError::Poisoned`]; [`WalError::Disk`] when there is no room for a further segment.
    pub fn cover(&self) -> Result<(), WalError> {
        self.wait_durable(self.end())?;
        let recorded = self.pipeline.flush.recorded();
        let progress = &self.pipeline.progress;
        while self.pipeline.flush.covered() < recorded {
            progress.check()?;
            let Turn::Lead(lead) = progress.wait(Lsn::MAX) else {
                continue;
            };
            if self.pipeline.flush.covered() >= recorded {
                break;
            }
            match self.pipeline.write_one() {
                Ok(()) => {}
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Short(shortage, promised)) => {
                    // Whoever makes room may need the lead.
                    drop(lead);
                    self.make_room(shortage, promised, recorded)?;
                }
            }
        }
        progress.leave();
        Ok(())
    }

    /// A manifest of this generation is durable: frames name it from now on (G3).
    pub fn note_manifest(&self, generation: u64) {
        self.pipeline.flush.note_manifest(generation);
    }

    /// The point from which a scan meets the frame that holds `lsn`, and little before it (S3). Of what
    /// is durable only: for an `lsn` behind that, the end of the last frame on the device.
    pub fn chain_point_at(&self, lsn: Lsn) -> ChainPoint {
        self.pipeline.flush.point_at(lsn)
    }

    /// How far the log's files reach: what a manifest records (F14). Whatever is durable when this is
    /// called lies below it.
    pub fn segments_end(&self) -> Lsn {
        self.pipeline.staging.lock().segments_end()
    }

    /// Segments that end below `below`, from which a *durable* manifest starts its scan, become spares or
    /// go.
    ///
    /// # Errors
    /// [`WalError::Poisoned`]: the directory is in an unknown state.
    pub fn recycle(&self, below: Lsn) -> Result<(), WalError> {
        assert!(
            below <= self.durable(),
            "S1: a manifest names durable positions only"
        );
        self.supply.recycle(&self.pipeline, below)?;
        self.pipeline.flush.forget_below(below);
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
        self.pipeline.progress.is_poisoned()
    }

    /// Poisons the log for good: every waiter wakes, nothing is acknowledged any more (W11).
    pub fn poison(&self) {
        self.pipeline.poison();
        self.supply.supplier.nudge();
    }

    /// Writes nothing more, and lets others have the segments. What was appended and not waited for is
    /// lost; what is durable stays so.
    pub fn close(&self) {
        let lead = self.pipeline.last_lead();
        self.pipeline.progress.close(&lead);
        self.pipeline.rooms.wake_all();
        self.supply.close();
    }

    fn check_length(&self, bytes: usize) -> Result<(), WalError> {
        let max = self.record_bytes_max;
        if bytes > max {
            return Err(WalError::RecordTooLong { bytes, max });
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
            Shortage::Segment => self.supply.ready_now(&self.pipeline),
            Shortage::Rooms => {
                self.pipeline
                    .rooms
                    .wait_for_less(promised, || self.pipeline.progress.check().is_err());
                Ok(())
            }
        }
    }
}
