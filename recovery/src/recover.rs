//! Opening a directory: from what a crash left to a log and a store that can be used.
//!
//! Called by the facade, which holds the directory's lock. The steps are those of the design:
//!
//! 1. (The caller holds the lock file; the log's segments are locked as they are opened.)
//! 2. The newest manifest, valid or refused.
//! 3. The segments are synced before a byte of them is believed: what a kill left in the page cache is
//!    either made durable or not seen.
//! 4. The chain is walked (G5) and its tail decided (G6).
//! 5. Commits behind `flushed_through` are sorted and installed, in pieces of the memory budget.
//! 6. Whoever has no commit record is aborted by definition (R3); nobody visits its records again. But who is prepared has what it
//!    held (R2): the log is read once more for that, and its files are opened.
//! 7. A new segment (G8), then one manifest with the raised boot epoch and the new end of the log's files
//!    (F14). Only then may files go.
//!
//! R5: until step 7 nothing is changed that a second recovery reads, and step 7 changes one name at a
//! time: a crash at any depth finds the old manifest or the new one, with the same log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lockstone_base::Lsn;
use lockstone_base::clock::Clock;
use lockstone_base::disk::Disk;
use lockstone_storage::{
    DroppedTable, Manifest, Memtable, Replay, Replayed, Store, StoreConfig, TableEntry,
};
use lockstone_wal::{Access, ChainPoint, Log, LogConfig, LogScan, ScanOptions, Segments};

use crate::analysis::{Analysis, Keep};
use crate::directory::open_log;
use crate::error::RecoveryError;
use crate::open_txn::Committed;
use crate::report::{RecoveryReport, TornTail};
use crate::survivor::{Scene, Survivor};

/// What a database is known by, drawn at its creation.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// In every file, so that none can be swapped for another database's (F14).
    pub uuid: u128,
    /// In every checksum, so that no value can forge a frame (G3).
    pub salt: u64,
}

/// How a directory is opened.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The size of log segments made from now on.
    pub segment_bytes: u64,
    /// The memory budget: replayed commits are installed in pieces of a quarter of it.
    pub memory_bytes: usize,
    /// How the store is kept.
    pub store: StoreConfig,
    /// The identity of a new database, if the directory is empty.
    pub create: Option<Identity>,
}

/// A database, ready for use.
#[derive(Debug)]
pub struct Recovered {
    /// The log, open at its new end.
    pub log: Log,
    /// The store, with everything committed.
    pub store: Store,
    /// The manifest that this open wrote.
    pub manifest: Manifest,
    /// Who has outlived the crash: they hold their locks before anybody else is admitted.
    pub survivors: Vec<Survivor>,
    /// The LSN of the last commit, or what all commits are at or below.
    pub commit_tail: Lsn,
    /// What was found and done.
    pub report: RecoveryReport,
}

/// The first table a user creates; 0 is the engine's own.
const FIRST_TABLE: u32 = 1;
/// Replayed commits are installed in this many pieces of the memory budget.
const PIECES: usize = 4;
/// No manifest with a higher generation or run number is opened: a run that counts on from here does not
/// come to the end of 64 bits.
const COUNTER_MAX: u64 = u64::MAX / 2;

/// Recovers the database in `disk`, or creates one.
///
/// # Errors
/// [`RecoveryError`]; the directory is as it was, but for files that no manifest names.
pub fn recover(
    disk: &Arc<dyn Disk>,
    clock: &dyn Clock,
    config: &Config,
) -> Result<Recovered, RecoveryError> {
    let begun = clock.now();
    let old = newest_manifest(&**disk, config.create)?;
    check_counters(&old)?;
    let names = disk.list()?;
    let segments = open_log(disk, clock, Access::Recover)?;
    let (scan, analysis) = read(&**disk, &segments, &old, Keep::Nobody)?;
    let survivors = with_scene((disk, &old), &segments, |scene| analysis.survivors(scene))?;
    let scanned = clock.now();

    let mut report = report(&old, &scan, &analysis, config.create.is_some());
    // Ids of transactions begin with the epoch: one that was used before would give them twice.
    if report.boot_epoch <= old.boot_epoch.max(analysis.boot_epoch()) {
        let at = report.boot_epoch.into();
        return Err(RecoveryError::Exhausted { what: "runs", at });
    }
    let (tables, dropped) = (analysis.tables(), analysis.dropped());
    let commit_tail = analysis.commit_tail();
    let replayed = replay(analysis.into_commits(), config.memory_bytes / PIECES);
    let store = Store::open(disk.clone(), config.store, &old, replayed)?;
    report.replay = clock.now().saturating_sub(scanned);

    let log = start_log(segments, config, &old, &report, &scan)?;
    let part = store.part();
    let mut manifest = Manifest {
        generation: old.generation + 1,
        boot_epoch: report.boot_epoch,
        durable: scan.end.end.max(old.durable),
        log_end: log.segments_end(),
        next_table: next_table(&tables, &dropped).max(old.next_table),
        tables,
        dropped,
        next_run: part.next_run,
        ..old
    };
    // S1, S4: what was adopted and is not flushed. Of who is prepared the log says which files they are (R2), and of all others
    // nothing is needed any more (R3).
    manifest.list_open(part.unlisted);
    manifest.write(&**disk)?;
    log.note_manifest(manifest.generation);
    // S6: what commits have adopted the store knows; of all others the spills of survivors are needed.
    let needed: BTreeSet<_> = survivors.iter().flat_map(Survivor::files_needed).collect();
    let swept = store.sweep(&names);
    if let Err(error) = swept.and_then(|_| store.sweep_spills(&names, &needed)) {
        tracing::warn!(%error, "what a crash left behind stays until the next open");
    }

    report.scan = scanned.saturating_sub(begun);
    report.total = clock.now().saturating_sub(begun);
    tracing::info!(?report, "recovered");
    Ok(Recovered {
        log,
        store,
        manifest,
        survivors,
        commit_tail,
        report,
    })
}

/// Reads the log; once more, if there are any who outlive the crash, to keep their locks (R4: of nobody else).
pub(crate) fn read(
    disk: &dyn Disk,
    segments: &Segments,
    manifest: &Manifest,
    keep: Keep,
) -> Result<(LogScan, Analysis), RecoveryError> {
    let scan = |keep| {
        let mut analysis = Analysis::new(disk, manifest, keep)?;
        let scan = segments.scan(&scan_options(manifest), &mut analysis)?;
        Ok::<_, RecoveryError>((scan, analysis))
    };
    let counts_only = matches!(keep, Keep::Nobody);
    let read = scan(keep)?;
    let surviving = read.1.surviving();
    if counts_only && !surviving.is_empty() {
        return scan(Keep::These(surviving));
    }
    Ok(read)
}

/// Where survivors are looked for.
pub(crate) fn with_scene<T>(
    (disk, manifest): (&Arc<dyn Disk>, &Manifest),
    segments: &Segments,
    look: impl FnOnce(&Scene<'_>) -> T,
) -> T {
    let file_of = |lsn| {
        let below = segments.list().filter(|segment| segment.base <= lsn);
        let last = below.max_by_key(|segment| segment.base);
        disk.path(&last.map_or("wal-*".into(), |segment| segment.name))
    };
    look(&Scene {
        disk,
        manifest,
        file_of: &file_of,
    })
}

fn newest_manifest(
    disk: &dyn Disk,
    create_as: Option<Identity>,
) -> Result<Manifest, RecoveryError> {
    match (Manifest::read_newest(disk)?, create_as) {
        (Some(manifest), _) => Ok(manifest),
        (None, Some(identity)) => create(disk, identity),
        (None, None) => Err(RecoveryError::Missing {
            file: disk.path("manifest-*"),
            why: "every database has a manifest",
        }),
    }
}

/// Whether the counters of the manifest can be counted on; nothing was changed yet.
fn check_counters(old: &Manifest) -> Result<(), RecoveryError> {
    let counters = [
        ("manifest generations", old.generation),
        ("run numbers", old.next_run),
    ];
    let spent = counters.into_iter().find(|(_, at)| *at > COUNTER_MAX);
    spent.map_or(Ok(()), |(what, at)| {
        Err(RecoveryError::Exhausted { what, at })
    })
}

/// G8: the log goes on in a new segment.
fn start_log(
    segments: Segments,
    config: &Config,
    old: &Manifest,
    report: &RecoveryReport,
    scan: &LogScan,
) -> Result<Log, RecoveryError> {
    let log_config = LogConfig {
        segment_bytes: config.segment_bytes,
        uuid: old.uuid,
        salt: old.log_salt(),
        boot_epoch: report.boot_epoch,
        manifest_generation: old.generation,
        frames_in_flight: LogConfig::FRAMES_IN_FLIGHT,
    };
    Ok(Log::start(segments, log_config, scan)?)
}

/// An id above those of all tables that there ever were (S7).
fn next_table(tables: &[TableEntry], dropped: &[DroppedTable]) -> u32 {
    let ids = tables.iter().map(|table| table.id.0);
    let highest = ids.chain(dropped.iter().map(|table| table.id.0)).max();
    highest.map_or(FIRST_TABLE, |id| id.saturating_add(1))
}

/// The first manifest of a database: nothing was ever written.
fn create(disk: &dyn Disk, identity: Identity) -> Result<Manifest, RecoveryError> {
    let manifest = Manifest {
        uuid: identity.uuid,
        salt: identity.salt,
        generation: 1,
        scan_end: ChainPoint::START.end,
        scan_crc: ChainPoint::START.crc,
        next_table: FIRST_TABLE,
        next_run: 1,
        ..Manifest::default()
    };
    manifest.write(disk)?;
    Ok(manifest)
}

/// Where reading starts, and what the manifest testifies about the tail (G6).
pub(crate) fn scan_options(manifest: &Manifest) -> ScanOptions {
    ScanOptions {
        salt: manifest.log_salt(),
        from: ChainPoint {
            end: manifest.scan_end,
            crc: manifest.scan_crc,
        },
        durable: manifest.durable,
        manifest_generation: manifest.generation,
        log_end: manifest.log_end,
    }
}

/// What was found, before the times are known.
pub(crate) fn report(
    old: &Manifest,
    scan: &LogScan,
    analysis: &Analysis,
    created: bool,
) -> RecoveryReport {
    let (committed, aborted) = analysis.ended();
    let (rows_replayed, rows_adopted) = analysis.rows();
    RecoveryReport {
        created,
        clean_shutdown: analysis.clean_shutdown(),
        boot_epoch: old.boot_epoch.max(analysis.boot_epoch()).saturating_add(1),
        flushed_through: old.flushed_through,
        log_from: old.scan_end,
        log_end: scan.end.end,
        log_bytes: scan.bytes,
        frames: scan.frames,
        records: scan.records,
        torn: scan.torn.as_ref().map(TornTail::of),
        committed,
        rows_replayed,
        rows_adopted,
        aborted,
        in_flight: analysis.in_flight(),
        scan: Duration::ZERO,
        replay: Duration::ZERO,
        total: Duration::ZERO,
    }
}

/// Commits as immutable memtables, in pieces of about `piece_bytes`, the oldest first; between them what commits have adopted, each below
/// a piece of its own.
fn replay(commits: Vec<Committed>, piece_bytes: usize) -> Vec<Replay> {
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    let seal = |piece: &mut Vec<Replayed>| {
        let end = piece.last().map(|version: &Replayed| version.stamp);
        end.map(|end| Replay::from(Memtable::replayed(std::mem::take(piece), end)))
    };
    for commit in commits {
        if !commit.adopted.is_empty() {
            pieces.extend(seal(&mut piece));
            pieces.push(Replay::Adopted {
                stamp: commit.stamp,
                txn: commit.txn,
                runs: commit.adopted,
            });
            bytes = 0;
        }
        bytes += commit.rows.iter().map(replayed_bytes).sum::<usize>();
        piece.extend(commit.rows);
        if bytes >= piece_bytes {
            pieces.extend(seal(&mut piece));
            bytes = 0;
        }
    }
    pieces.extend(seal(&mut piece));
    pieces
}

fn replayed_bytes(version: &Replayed) -> usize {
    version.row.as_bytes().len() + version.value.as_ref().map_or(0, bytes::Bytes::len)
}
