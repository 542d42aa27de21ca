//! A directory seen without the engine: nothing in it is changed.
//!
//! Called by the program's `check`, `locks`, `wal dump` and `wal verify`. Takes the directory's lock shared, so a
//! database in use is refused with its owner's process id, and does what recovery does up to the point
//! where that would write.

use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::clock::Clock;
use lockstone_base::disk::Disk;
use lockstone_storage::{Manifest, Replay, Store, StoreCheck, StoreConfig};
use lockstone_wal::{
    Access, FrameInfo, Leftover, LogScan, LogVisitor, ScannedRecord, SegmentInfo, Segments,
    VisitError, WalError,
};

use crate::analysis::{Analysis, Keep};
use crate::dead_locks::{self, DeadLock};
use crate::directory::{self, Content, DirectoryLock, open_log};
use crate::error::RecoveryError;
use crate::log_check::{LogCheck, Notes};
use crate::record::{Body, Context, Tag};
use crate::recover::{read, report, scan_options, with_scene};
use crate::report::RecoveryReport;
use crate::sizes::Sizes;

/// A directory that is held still while it is looked at.
#[derive(Debug)]
pub struct Inspection {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    manifest: Manifest,
    _lock: DirectoryLock,
}

/// What a dump of the log shows, in order.
pub trait DumpSink {
    /// The chain goes on in another segment, or starts in one.
    fn segment(&mut self, segment: &SegmentInfo) {
        let _ = segment;
    }
    /// A frame begins.
    fn frame(&mut self, frame: &FrameInfo);
    /// A record of it. `context` is absent for the engine's own.
    fn record(&mut self, lsn: Lsn, context: Option<Context>, tag: Tag, body: Body<'_>);
    /// A frame behind the end of the chain, which opening drops, or for which it refuses.
    fn leftover(&mut self, leftover: &Leftover) {
        let _ = leftover;
    }
    /// Whether to go on; asked after each frame.
    fn wants_more(&self) -> bool {
        true
    }
}

impl Inspection {
    /// Looks at the database in `disk`.
    ///
    /// # Errors
    /// [`RecoveryError`]: no database, in use, or a damaged manifest.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Self, RecoveryError> {
        if directory::content(&*disk)? == Content::Empty {
            let path = disk.path("");
            return Err(RecoveryError::NotADatabase {
                path,
                why: "the directory is empty",
            });
        }
        let lock = DirectoryLock::shared(&*disk, &*clock)?;
        let manifest = Manifest::read_newest(&*disk)?.ok_or_else(|| RecoveryError::Missing {
            file: disk.path("manifest-*"),
            why: "every database has a manifest",
        })?;
        Ok(Self {
            disk,
            clock,
            manifest,
            _lock: lock,
        })
    }

    /// The newest manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How large it is, and what of.
    ///
    /// # Errors
    /// [`RecoveryError`] if a run cannot be opened.
    pub fn sizes(&self) -> Result<Sizes, RecoveryError> {
        Sizes::of(&self.disk, &self.manifest)
    }

    /// What recovery would find and do.
    ///
    /// # Errors
    /// [`RecoveryError`] if it would refuse.
    pub fn report(&self) -> Result<RecoveryReport, RecoveryError> {
        self.analyse(Keep::Nobody).map(|(report, _)| report)
    }

    /// The locks of transactions that were in flight when the run before ended, by row.
    ///
    /// # Errors
    /// [`RecoveryError`] if recovery would refuse.
    pub fn dead_locks(&self) -> Result<Vec<DeadLock>, RecoveryError> {
        let (_, analysis) = self.analyse(Keep::Everybody)?;
        dead_locks::of(&self.disk, &self.manifest, &analysis)
    }

    /// Reads every block of every run and of every file that a commit has adopted, and the log: checksums, order, filters, indexes, counts.
    ///
    /// # Errors
    /// [`RecoveryError`] if recovery would refuse; damage to runs is in the findings instead.
    pub fn check(&self) -> Result<(RecoveryReport, StoreCheck), RecoveryError> {
        let (report, analysis) = self.analyse(Keep::Nobody)?;
        // What is in files, and that alone: the log has been read.
        let commits = analysis.into_commits().into_iter();
        let adoptions = commits.filter(|commit| !commit.adopted.is_empty());
        let adopted = adoptions.map(|commit| Replay::Adopted {
            stamp: commit.stamp,
            txn: commit.txn,
            runs: commit.adopted,
        });
        let store = Store::open(
            self.disk.clone(),
            StoreConfig::default(),
            &self.manifest,
            adopted.collect(),
        )?;
        Ok((report, store.check(&mut |_, _| {})?))
    }

    /// Shows the chain of the log, from where recovery starts, and what is behind it; `None` if the sink
    /// had enough before the end. Damage is told by the verdict: what comes before it has been shown.
    ///
    /// # Errors
    /// [`RecoveryError`] if the log cannot be read, or is a newer version's.
    pub fn dump(&self, sink: &mut dyn DumpSink) -> Result<Option<LogCheck>, RecoveryError> {
        let mut notes = Notes::new(&self.manifest);
        let segments = match open_log(&self.disk, &*self.clock, Access::Inspect) {
            Ok(segments) => segments,
            Err(error) => return Ok(Some(self.log_check(&notes, None, Err(error))?)),
        };
        let mut dump = Dump {
            sink,
            notes: &mut notes,
            analysis: self.analysis()?,
            segments: segments.list().collect(),
            shown: None,
        };
        match segments
            .show(&scan_options(&self.manifest), &mut dump)
            .transpose()
        {
            None => Ok(None),
            Some(scanned) => self.log_check(&notes, Some(&segments), scanned).map(Some),
        }
    }

    /// Decides about the log's end as recovery would, and says what speaks for it.
    ///
    /// # Errors
    /// [`RecoveryError`] if the log cannot be read, or is a newer version's. That acknowledged data is damaged
    /// is a verdict.
    pub fn verify(&self) -> Result<LogCheck, RecoveryError> {
        let mut notes = Notes::new(&self.manifest);
        let segments = match open_log(&self.disk, &*self.clock, Access::Inspect) {
            Ok(segments) => segments,
            Err(error) => return self.log_check(&notes, None, Err(error)),
        };
        let mut noting = Noting {
            notes: &mut notes,
            analysis: self.analysis()?,
        };
        let scanned = segments.scan(&scan_options(&self.manifest), &mut noting);
        self.log_check(&notes, Some(&segments), scanned)
    }

    fn log_check(
        &self,
        notes: &Notes,
        segments: Option<&Segments>,
        scanned: Result<LogScan, WalError>,
    ) -> Result<LogCheck, RecoveryError> {
        let mut check = match scanned {
            Ok(scan) => LogCheck::new(&self.manifest, notes, Ok(&scan)),
            Err(error) => LogCheck::new(&self.manifest, notes, Err(error)),
        }?;
        if let Some(segments) = segments {
            check.list(notes, segments.list(), segments.spares()?);
        }
        Ok(check)
    }

    fn analysis(&self) -> Result<Analysis, RecoveryError> {
        Analysis::new(&*self.disk, &self.manifest, Keep::Nobody)
    }

    fn analyse(&self, keep: Keep) -> Result<(RecoveryReport, Analysis), RecoveryError> {
        let segments = open_log(&self.disk, &*self.clock, Access::Inspect)?;
        let (scan, analysis) = read(&*self.disk, &segments, &self.manifest, keep)?;
        with_scene((&self.disk, &self.manifest), &segments, |scene| {
            analysis.survivors(scene)
        })?;
        Ok((report(&self.manifest, &scan, &analysis, false), analysis))
    }
}

/// Reads as recovery does, and takes notes.
struct Noting<'a> {
    notes: &'a mut Notes,
    analysis: Analysis,
}

impl LogVisitor for Noting<'_> {
    fn frame(&mut self, frame: &FrameInfo) {
        self.notes.frame(frame);
        self.analysis.frame(frame);
    }

    fn record(&mut self, record: ScannedRecord<'_>) -> Result<(), VisitError> {
        self.analysis.record(record)
    }

    fn leftover(&mut self, leftover: &Leftover) {
        self.notes.leftover(leftover);
    }
}

struct Dump<'a> {
    sink: &'a mut dyn DumpSink,
    notes: &'a mut Notes,
    /// Finds what decoding alone does not.
    analysis: Analysis,
    /// By base.
    segments: Vec<SegmentInfo>,
    /// Which of them was shown last.
    shown: Option<usize>,
}

impl LogVisitor for Dump<'_> {
    fn frame(&mut self, frame: &FrameInfo) {
        let above = self
            .segments
            .partition_point(|segment| segment.base <= frame.start);
        let at = above.checked_sub(1);
        if at != self.shown {
            self.shown = at;
            if let Some(segment) = at.and_then(|at| self.segments.get(at)) {
                self.sink.segment(segment);
            }
        }
        self.notes.frame(frame);
        self.sink.frame(frame);
    }

    fn record(&mut self, record: ScannedRecord<'_>) -> Result<(), VisitError> {
        let malformed =
            |malformed: crate::record::MalformedRecord| VisitError { what: malformed.0 };
        let tag = Tag::try_from(record.tag).map_err(malformed)?;
        let body = Body::decode(tag, record.body).map_err(malformed)?;
        let context = match record.context {
            [] => None,
            bytes => Some(Context::decode(bytes).map_err(malformed)?),
        };
        self.sink.record(record.lsn, context, tag, body);
        self.analysis.record(record)
    }

    fn leftover(&mut self, leftover: &Leftover) {
        self.notes.leftover(leftover);
        self.sink.leftover(leftover);
    }

    fn wants_more(&self) -> bool {
        self.sink.wants_more()
    }
}
