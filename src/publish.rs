//! Writing the manifest: the one function that does, for the checkpoint and for compactions.
//!
//! 1. S1: what it says of the store is of one moment, whenever it is written.
//! 2. One manifest is written at a time; the latch is held while that takes, and for nothing else.
//! 3. S6: only behind it may go what it no longer names.
//!
//! Crash: the old manifest or the new one is in force, and both are true.

use lockstone_storage::{DroppedTable, Manifest, TableEntry};
use lockstone_wal::ChainPoint;

use crate::engine::Engine;
use crate::error::Result;

/// Writes a manifest of this moment. `scan` is where recovery will start to read; without one it starts where
/// the manifest before said.
///
/// # Errors
/// What the disk refused. The old manifest is true as well, and no file that it needs has gone.
pub(crate) fn publish(engine: &Engine, scan: Option<ChainPoint>) -> Result<()> {
    let mut newest = engine.manifest.lock();
    let (tables, dropped, next_table) = tables(engine);
    let part = engine.store.part();
    // Used up even if the write fails: a name whose fate is unknown is not given to another content.
    newest.generation += 1;
    let manifest = Manifest {
        durable: engine.log.durable().max(newest.durable),
        flushed_through: part.flushed_through,
        scan_end: scan.map_or(newest.scan_end, |scan| scan.end),
        scan_crc: scan.map_or(newest.scan_crc, |scan| scan.crc),
        // Read last: the files reach as far as anything that is durable by now (F14).
        log_end: engine.log.segments_end(),
        tables,
        dropped,
        next_table,
        runs: part.runs,
        next_run: part.next_run,
        ..newest.clone()
    };
    assert!(
        manifest.flushed_through < manifest.durable,
        "S1: flushed_through lies below the durable LSN"
    );
    assert!(
        manifest.scan_end <= manifest.durable,
        "S3: reading starts where the log is durable"
    );
    manifest.write(&*engine.ports.disk)?;
    engine.log.note_manifest(manifest.generation);
    *newest = manifest;
    // Only now is the manifest durable, and what it no longer names may go (S6).
    if let Err(error) = engine.store.manifest_written(&newest) {
        tracing::warn!(%error, "replaced runs stay until the next manifest");
    }
    // S7: a dropped table is forgotten when a durable manifest says that its rows are gone, and recovery does not
    // read of its drop again.
    let is_gone = |table: &&DroppedTable| {
        table.at < newest.scan_end
            && table.at <= newest.flushed_through
            && engine.store.is_gone(table.id, table.at)
    };
    for table in newest.dropped.iter().filter(is_gone) {
        engine.catalog.forget(table.id);
    }
    Ok(())
}

/// The tables whose creation is durable, and those whose drop is. The latch makes sure that a table is as it is
/// here, or the record that says otherwise lies behind the rotation.
fn tables(engine: &Engine) -> (Vec<TableEntry>, Vec<DroppedTable>, u32) {
    tables_with(engine, || ()).1
}

/// What `also` gives, and [`tables`], all of one moment.
pub(crate) fn tables_with<T>(
    engine: &Engine,
    also: impl FnOnce() -> T,
) -> (T, (Vec<TableEntry>, Vec<DroppedTable>, u32)) {
    let _one_moment = engine.ddl.lock();
    let also = also();
    let entry = |table: crate::catalog::CatalogEntry| TableEntry {
        id: table.id,
        name: table.name.to_string(),
        created: table.created,
    };
    let mut tables: Vec<_> = engine.catalog.all().into_iter().map(entry).collect();
    tables.sort_by_key(|table| table.id);
    let (dropped, next) = (engine.catalog.dropped(), engine.catalog.next_id().0);
    (also, (tables, dropped, next))
}
