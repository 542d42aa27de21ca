//! A directory made into a database of its own, around runs that another one has written.
//!
//! Called by the facade when the runs have their names in the directory.
//! 1. S8: the copy has a uuid of its own, and with it a log salt of its own: neither its log nor its later runs
//!    pass for the origin's, nor the other way round (F14). The runs it takes over name who wrote them.
//! 2. Its log begins above every stamp of these runs, with one record that says that nothing was in flight.
//! 3. The manifest comes last, when everything that it names is durable.
//!
//! Crash: without the manifest it is no database, and the next open says so; with it, it is whole.

use std::sync::Arc;

use lockstone_base::Lsn;
use lockstone_base::disk::Disk;
use lockstone_storage::Manifest;
use lockstone_wal::{Access, Log, LogConfig, LogScan, Record, Segments};

use crate::error::RecoveryError;
use crate::record::Body;

/// What the new database is to be.
#[derive(Debug)]
pub struct Founding {
    /// All of its first manifest but what speaks of the log.
    pub manifest: Manifest,
    /// The size of its log segments.
    pub segment_bytes: u64,
    /// Its log begins at or above.
    pub log_from: Lsn,
}

/// Founds the database in `disk`, which holds the runs that the manifest lists and no log. Durable when it
/// returns.
///
/// # Errors
/// The disk's. What is there then is no database.
pub fn found(disk: &Arc<dyn Disk>, founding: Founding) -> Result<(), RecoveryError> {
    let Founding {
        manifest,
        segment_bytes,
        log_from,
    } = founding;
    assert!(
        manifest.flushed_through < log_from,
        "S8: the log begins above every stamp of the runs"
    );
    disk.sync_dir()?;
    let config = LogConfig {
        segment_bytes,
        uuid: manifest.uuid,
        salt: manifest.log_salt(),
        boot_epoch: manifest.boot_epoch,
        manifest_generation: manifest.generation - 1,
        frames_in_flight: LogConfig::FRAMES_IN_FLIGHT,
    };
    let segments = Segments::open(disk.clone(), Access::Recover)?;
    let scan = LogScan::of_nothing(config.salt, log_from);
    let log = Log::start(segments, config, &scan)?;
    let body = Body::CleanShutdown.encode();
    let appended = log.append(&Record {
        tag: body.tag as u8,
        context: &[],
        body: &body.pieces(),
    })?;
    log.wait_durable(appended.end)?;
    log.cover()?;
    let from = log.chain_point_at(appended.lsn);
    let manifest = Manifest {
        durable: log.durable(),
        scan_end: from.end,
        scan_crc: from.crc,
        log_end: log.segments_end(),
        ..manifest
    };
    manifest.write(&**disk)?;
    log.close();
    Ok(())
}
