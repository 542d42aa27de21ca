//! Reading whatever can still be read of a damaged directory, and saying exactly what cannot.
//!
//! Called by the facade, which writes the rows into a new database. Changes nothing in the directory.
//!
//! 1. What is read: the runs that the newest manifest lists; if that one is damaged, every run file there is, each by
//!    what it says of itself. Then the commits of the log, as far as its chain goes. A manifest before the newest one
//!    gives tables' names and where the log begins, but no list of runs: some of its are gone.
//! 2. Of each row the version with the highest stamp counts. Where a newer one was lost, an older one may be
//!    taken: the loss says in which rows.
//! 3. A commit counts as a whole or not at all, here too (R1); one of which a part is missing is a loss.
//! 4. Without a list of runs, ones that a compaction had replaced may bring back what had been deleted or changed
//!    since. That is a loss, too, and told. What a commit has adopted does not say so of itself: a manifest before the newest one
//!    or the log may; a file of which neither does is a loss.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use lockstone_base::clock::Clock;
use lockstone_base::disk::Disk;
use lockstone_base::{Lsn, RowKey, TableId};
use lockstone_storage::{Adopted, Manifest, Origin, RunFile};
use lockstone_wal::{
    Access, LogScan, LogVisitor, ScanOptions, ScannedRecord, Segments, VisitError, WalError,
};

use crate::analysis::{Analysis, Keep};
use crate::directory::{DirectoryLock, open_log};
use crate::error::RecoveryError;
pub use crate::loss::Loss;
use crate::open_txn::Committed;
use crate::recover::scan_options;
use crate::report::Resolution;

/// A directory that is being saved.
#[derive(Debug)]
pub struct Salvage {
    /// The generation of the manifest that was read, if one could be.
    pub manifest: Option<u64>,
    /// The tables whose names are known.
    pub tables: BTreeMap<TableId, String>,
    /// Whether the manifest that was read is the newest: else tables whose names are not known are tables all the
    /// same.
    pub knows_tables: bool,
    /// Runs that are read.
    pub runs: usize,
    /// Commits of the log that are read.
    pub commits: usize,
    /// What could not be read, as far as reading has come.
    pub losses: Vec<Loss>,
    sources: Vec<Source>,
    _lock: Option<DirectoryLock>,
}

/// Versions in version order, block by block.
#[derive(Debug, Default)]
struct Source {
    versions: VecDeque<Version>,
    run: Option<RunFile>,
    next_block: u64,
}

#[derive(Debug)]
struct Version {
    row: Bytes,
    stamp: Lsn,
    value: Option<Bytes>,
}

impl Salvage {
    /// Looks at what there is in `disk`.
    ///
    /// # Errors
    /// [`RecoveryError::NotADatabase`] if there is nothing to save, [`RecoveryError::Locked`]; the directory cannot
    /// be listed.
    pub fn open(disk: &Arc<dyn Disk>, clock: &dyn Clock) -> Result<Self, RecoveryError> {
        let mut losses = Vec::new();
        let lock = match DirectoryLock::shared(&**disk, clock) {
            Err(RecoveryError::Locked { path, pid }) => {
                return Err(RecoveryError::Locked { path, pid });
            }
            // Without its lock file nobody has it open.
            lock => lock.ok(),
        };
        let manifest = newest_intact(disk, &mut losses)?;
        let intact = losses.is_empty();
        let (runs, log, knows_tables) = if let Some(manifest) = &manifest {
            let log = Log::read(disk, clock, manifest, &mut losses);
            let is_newest = intact && log.newest_manifest <= manifest.generation;
            let runs = if is_newest {
                listed_runs(disk, manifest, &mut losses)
            } else {
                let runs = all_runs(disk, &mut losses)?.into_iter();
                runs.chain(adopted_before(disk, manifest)?).collect()
            };
            (runs, log, is_newest)
        } else {
            let runs = all_runs(disk, &mut losses)?;
            let log = Log::read(disk, clock, &stand_in(&runs), &mut losses);
            (runs, log, false)
        };
        if runs.is_empty() && manifest.is_none() && log.commits.is_empty() {
            return Err(RecoveryError::NotADatabase {
                path: disk.path(""),
                why: "there is no manifest, no run and no log that can be read",
            });
        }
        let salt = manifest.as_ref().map(|manifest| manifest.salt);
        let salt = salt.unwrap_or_else(|| stand_in(&runs).salt);
        let adopted = adopted_runs(disk, salt, &log.commits, &mut losses);
        if !knows_tables {
            let known: Vec<_> = runs.iter().chain(&adopted).collect();
            losses.extend(unplaced_spills(disk, &known)?);
        }
        let (runs_read, commits) = (runs.len() + adopted.len(), log.commits.len());
        Ok(Self {
            manifest: manifest.map(|manifest| manifest.generation),
            tables: log.tables,
            knows_tables,
            runs: runs_read,
            commits,
            losses,
            sources: sources(adopted.into_iter().chain(runs), log.commits),
            _lock: lock,
        })
    }

    /// Shows the newest value of every row, in order, to `take`.
    ///
    /// # Errors
    /// Those of `take`. What cannot be read is among the losses.
    pub fn rows<E>(
        &mut self,
        mut take: impl FnMut(RowKey, Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut heads = BinaryHeap::new();
        for at in 0..self.sources.len() {
            self.refill(at, &mut heads);
        }
        let mut before: Option<Bytes> = None;
        while let Some(Reverse(head)) = heads.pop() {
            self.refill(head.source, &mut heads);
            if before.as_ref() == Some(&head.version.row) {
                continue;
            }
            before = Some(head.version.row.clone());
            let row = RowKey::from_encoded(head.version.row);
            if let Some((row, value)) = row.zip(head.version.value) {
                let table = row.table();
                let is_there = !self.knows_tables || self.tables.contains_key(&table);
                if is_there || table == TableId::ENGINE {
                    take(row, value)?;
                }
            }
        }
        Ok(())
    }

    /// Puts the next version of the source number `at`, if it has one, among the heads.
    fn refill(&mut self, at: usize, heads: &mut BinaryHeap<Reverse<Head>>) {
        if let Some(source) = self.sources.get_mut(at)
            && let Some(version) = source.next(&mut self.losses)
        {
            heads.push(Reverse(Head {
                version,
                source: at,
            }));
        }
    }
}

/// The newest manifest that is intact.
fn newest_intact(
    disk: &Arc<dyn Disk>,
    losses: &mut Vec<Loss>,
) -> Result<Option<Manifest>, RecoveryError> {
    for read in Manifest::read_all(&**disk)? {
        match read {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(error) => losses.push(Loss::of(&error, None)),
        }
    }
    Ok(None)
}

/// What the runs say of the manifest that is gone. Who has written last has written the log.
fn stand_in(runs: &[RunFile]) -> Manifest {
    let newest = runs.iter().max_by_key(|run| run.entry().number);
    Manifest {
        uuid: newest.map(|run| run.entry().uuid).unwrap_or_default(),
        salt: newest.map(RunFile::salt).unwrap_or_default(),
        ..Manifest::default()
    }
}

fn listed_runs(disk: &Arc<dyn Disk>, manifest: &Manifest, losses: &mut Vec<Loss>) -> Vec<RunFile> {
    let open = |listed: &lockstone_storage::ListedRun| {
        let entry = &listed.entry;
        let run = RunFile::listed(disk, manifest.salt, entry);
        run.map_err(|error| {
            let rows = (entry.smallest.clone(), entry.largest.clone());
            losses.push(Loss::of(&error, Some(rows)));
        })
        .ok()
    };
    manifest.runs.iter().filter_map(open).collect()
}

fn all_runs(disk: &Arc<dyn Disk>, losses: &mut Vec<Loss>) -> Result<Vec<RunFile>, RecoveryError> {
    let mut runs = Vec::new();
    for name in disk.list()?.iter().filter(|name| name.starts_with("run-")) {
        match RunFile::open(disk, name) {
            Ok(run) => runs.push(run),
            Err(error) => losses.push(Loss::of(&error, None)),
        }
    }
    if runs.len() > 1 {
        let what =
            "nothing says which runs had been replaced: what was deleted or changed may be back";
        losses.push(Loss::whole(disk.path("manifest-*"), what));
    }
    Ok(runs)
}

/// Those that a manifest before the newest one lists as adopted, and that are still there: that was so for good.
fn adopted_before(
    disk: &Arc<dyn Disk>,
    manifest: &Manifest,
) -> Result<Vec<RunFile>, RecoveryError> {
    let names = disk.list()?;
    let listed = manifest.runs.iter().map(|listed| &listed.entry);
    let adopted = listed.filter(|entry| matches!(entry.origin, Origin::Adopted(_)));
    let there = adopted.filter(|entry| names.contains(&entry.file_name()));
    // One that cannot be read is told of with those that nobody knows.
    Ok(there
        .filter_map(|entry| RunFile::listed(disk, manifest.salt, entry).ok())
        .collect())
}

/// The spills of which nothing says whether a commit has adopted them.
fn unplaced_spills(disk: &Arc<dyn Disk>, known: &[&RunFile]) -> Result<Vec<Loss>, RecoveryError> {
    let is_known = |name: &String| known.iter().any(|run| run.entry().file_name() == *name);
    let names = disk.list()?.into_iter();
    let unplaced = names.filter(|name| name.starts_with("spill-") && !is_known(name));
    let what = "nothing says whether what it holds was committed: it is left out";
    Ok(unplaced
        .map(|name| Loss::whole(disk.path(&name), what))
        .collect())
}

/// What can be read of the log.
struct Log {
    tables: BTreeMap<TableId, String>,
    commits: Vec<Committed>,
    /// The newest manifest that a frame names.
    newest_manifest: u64,
}

impl Log {
    fn read(
        disk: &Arc<dyn Disk>,
        clock: &dyn Clock,
        manifest: &Manifest,
        losses: &mut Vec<Loss>,
    ) -> Self {
        let mut reader = Reader {
            analysis: Analysis::new(&**disk, manifest, Keep::Nobody).unwrap_or_else(|error| {
                let what = format!("what transactions had moved into files is left out: {error}");
                losses.push(Loss::whole(disk.path("manifest-*"), what));
                Analysis::of_log_alone(manifest, Keep::Nobody)
            }),
            incomplete: Vec::new(),
            frames: 0,
            newest_manifest: 0,
        };
        let scanned = open_log(disk, clock, Access::Inspect)
            .and_then(|segments| scan(&segments, manifest, &mut reader));
        match scanned {
            Ok(scan) => losses.extend(scan.torn.map(|torn| {
                Loss {
                    file: torn.file,
                    offset: Some(torn.offset),
                    rows: None,
                    what:
                        "what a crash has cut off, or damage to what was written last, is left out"
                            .into(),
                }
            })),
            Err(error) => losses.push(of_log(disk, &error)),
        }
        losses.extend(reader.incomplete.iter().map(|(lsn, what)| {
            let what = format!("the commit at LSN {lsn} is left out: {what}");
            Loss::whole(disk.path("wal-*"), what)
        }));
        let in_flight = reader.analysis.in_flight().into_iter();
        losses.extend(in_flight.filter_map(|txn| match txn.resolution {
            Resolution::Prepared { gid } => {
                let what = format!(
                    "what {} has prepared as `{gid}` is left out: it is not committed",
                    txn.txn
                );
                Some(Loss::whole(disk.path("wal-*"), what))
            }
            Resolution::Leased { .. } => {
                let what = format!(
                    "what {} has done under a lease is left out: it is not committed",
                    txn.txn
                );
                Some(Loss::whole(disk.path("wal-*"), what))
            }
            Resolution::Aborted => None,
        }));
        let tables = reader.analysis.tables().into_iter();
        Self {
            newest_manifest: reader.newest_manifest,
            tables: tables.map(|table| (table.id, table.name)).collect(),
            commits: reader.analysis.into_commits(),
        }
    }
}

/// Reads the log from where the manifest says; if nothing is there, from the first frame that there is.
fn scan(
    segments: &Segments,
    manifest: &Manifest,
    reader: &mut Reader,
) -> Result<LogScan, WalError> {
    // A newer manifest than this one is a loss of its own, and no reason to disbelieve the log.
    let options = ScanOptions {
        manifest_generation: u64::MAX,
        ..scan_options(manifest)
    };
    let scanned = segments.scan(&options, reader);
    if reader.frames > 0 || scanned.is_ok() && manifest.generation > 0 {
        return scanned;
    }
    let Some(from) = segments.earliest(options.salt)? else {
        return scanned;
    };
    let from_there = ScanOptions { from, ..options };
    segments.scan(&from_there, reader)
}

fn of_log(disk: &Arc<dyn Disk>, error: &WalError) -> Loss {
    let (file, offset) = match error {
        WalError::Corrupt { file, offset, .. } => (file.clone(), Some(*offset)),
        _ => (disk.path("wal-*"), None),
    };
    let what = format!("commits behind this are left out: {error}");
    Loss {
        offset,
        ..Loss::whole(file, what)
    }
}

/// Reads as recovery does, and leaves out what recovery would refuse for.
struct Reader {
    analysis: Analysis,
    incomplete: Vec<(Lsn, &'static str)>,
    frames: u64,
    newest_manifest: u64,
}

impl LogVisitor for Reader {
    fn frame(&mut self, frame: &lockstone_wal::FrameInfo) {
        self.frames += 1;
        self.newest_manifest = self.newest_manifest.max(frame.manifest_generation);
        self.analysis.frame(frame);
    }

    fn record(&mut self, record: ScannedRecord<'_>) -> Result<(), VisitError> {
        let lsn = record.lsn;
        if let Err(error) = self.analysis.record(record) {
            self.incomplete.push((lsn, error.what));
        }
        Ok(())
    }
}

/// What the commits have adopted: of one commit the last spill first.
fn adopted_runs(
    disk: &Arc<dyn Disk>,
    salt: u64,
    commits: &[Committed],
    losses: &mut Vec<Loss>,
) -> Vec<RunFile> {
    let mut runs = Vec::new();
    for commit in commits {
        for run in commit.adopted.iter().rev() {
            let adopted = Adopted {
                spill: run.spill,
                dead: run.dead.clone(),
            };
            let entry = run.entry.adopted(commit.stamp, adopted);
            match RunFile::listed(disk, salt, &entry) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    let rows = (entry.smallest.clone(), entry.largest.clone());
                    losses.push(Loss::of(&error, Some(rows)));
                }
            }
        }
    }
    runs
}

/// What was committed behind the runs, and these, the newer ones first where stamps are equal.
fn sources(runs: impl Iterator<Item = RunFile>, commits: Vec<Committed>) -> Vec<Source> {
    let of_run = |run| Source {
        run: Some(run),
        ..Source::default()
    };
    let mut replayed: Vec<_> = commits.into_iter().flat_map(|commit| commit.rows).collect();
    replayed.sort_by(|a, b| (&a.row, b.stamp).cmp(&(&b.row, a.stamp)));
    let versions = replayed.into_iter().map(|version| Version {
        row: version.row.to_bytes(),
        stamp: version.stamp,
        value: version.value,
    });
    let log = Source {
        versions: versions.collect(),
        ..Source::default()
    };
    std::iter::once(log).chain(runs.map(of_run)).collect()
}

impl Source {
    fn next(&mut self, losses: &mut Vec<Loss>) -> Option<Version> {
        while self.versions.is_empty() {
            let run = self.run.as_ref()?;
            let number = self.next_block;
            let block = run.block(number)?;
            self.next_block += 1;
            let versions = &mut self.versions;
            let visited = run.visit(number, &mut |version| {
                versions.push_back(Version {
                    row: Bytes::copy_from_slice(version.row),
                    stamp: version.stamp,
                    value: version.value.map(Bytes::copy_from_slice),
                });
            });
            if let Err(error) = visited {
                losses.push(Loss::of(&error, Some((block.above, block.last))));
            }
        }
        self.versions.pop_front()
    }
}

/// The next version of a source.
#[derive(Debug)]
struct Head {
    version: Version,
    source: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.version, &other.version);
        (&a.row, b.stamp, self.source).cmp(&(&b.row, a.stamp, other.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}
