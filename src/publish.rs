//! Writing the manifest: the one function that does, for the checkpoint and for compactions.
//!
//! 1. S1: what it says of the store is of one moment, whenever it is written.
//! 2. One manifest is written at a time; the latch is held while that takes, and for nothing else.
//! 3. S6: only behind it may go what it no longer names.
//! 4. S3, S4: it lists what every transaction has spilled that has not ended, and what commits have adopted that no level has yet.
//!    The transactions are asked first and the store second, and a commit adopts before its transaction is forgotten: so whoever
//!    commits in between is in the one list or in both. So what a manifest lists the next one lists too, as long as it is needed.
//!
//! Crash: the old manifest or the new one is in force, and both are true.

use std::sync::atomic::Ordering;

use lockstone_storage::{DroppedTable, Manifest, TableEntry};
use lockstone_wal::ChainPoint;

use crate::engine::Engine;
use crate::error::Result;

/// Writes a manifest of this moment. `scan` is where recovery will start to read; without one it starts where
/// the manifest before said, and never before that.
///
/// # Errors
/// What the disk refused. The old manifest is true as well, and no file that it needs has gone.
pub(crate) fn publish(engine: &Engine, scan: Option<ChainPoint>) -> Result<()> {
    let mut newest = engine.manifest.lock();
    let (tables, dropped, next_table) = tables(engine);
    let open = engine.live.open_spills();
    let part = engine.store.part();
    // A transaction notes where the log ends and appends later. A checkpoint in between has not seen the note, which
    // stays true, but names a position whose segment may be gone: none of its records lies below what that
    // checkpoint gave (S3).
    let scan = scan.filter(|scan| scan.end > newest.scan_end);
    // Used up even if the write fails: a name whose fate is unknown is not given to another content.
    newest.generation += 1;
    let mut manifest = Manifest {
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
    manifest.list_open(open.into_iter().chain(part.unlisted));
    assert!(
        manifest.flushed_through < manifest.durable,
        "S1: flushed_through lies below the durable LSN"
    );
    assert!(
        manifest.scan_end <= manifest.durable,
        "S3: reading starts where the log is durable"
    );
    let written = manifest.write(&*engine.ports.disk);
    engine
        .unpublished
        .store(written.is_err(), Ordering::Release);
    written?;
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

/// What `also` gives, and [`tables`], all of one moment: dropped tables that are forgotten in between are among
/// these, for their rows may be in what `also` gives.
pub(crate) fn tables_with<T>(
    engine: &Engine,
    also: impl FnOnce() -> T,
) -> (T, (Vec<TableEntry>, Vec<DroppedTable>, u32)) {
    let _one_moment = engine.ddl.lock();
    let entry = |table: crate::catalog::CatalogEntry| TableEntry {
        id: table.id,
        name: table.name.to_string(),
        created: table.created,
    };
    let mut tables: Vec<_> = engine.catalog.all().into_iter().map(entry).collect();
    tables.sort_by_key(|table| table.id);
    let (dropped, next) = (engine.catalog.dropped(), engine.catalog.next_id().0);
    (also(), (tables, dropped, next))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::Arc;

    use lockstone_base::Lsn;
    use lockstone_base::disk::DiskOp;
    use lockstone_testkit::{SeededEntropy, SimClock, SimDisk};

    use super::*;
    use crate::engine::Ports;
    use crate::options::Options;
    use crate::{checkpoint, closing, compaction, opening, schema};

    fn engine(disk: &Arc<SimDisk>) -> Arc<Engine> {
        let ports = Ports {
            disk: disk.clone(),
            clock: Arc::new(SimClock::new()),
            entropy: Arc::new(SeededEntropy::new(7)),
            background: false,
        };
        opening::start(Options::new(), ports)
            .expect("an empty disk")
            .0
    }

    /// What a transaction noted before a checkpoint that it has not met: once, a later checkpoint sent recovery back
    /// below what the first one had recycled.
    #[test]
    fn no_manifest_sends_recovery_back_before_where_one_has_sent_it() {
        let engine = engine(&SimDisk::new(1));
        schema::create(&engine, "t").expect("a table");
        let early = engine.log.chain_point_at(Lsn::ZERO);
        checkpoint::run(&engine).expect("a checkpoint");
        let before = engine.manifest.lock().clone();
        assert!(early.end < before.scan_end);
        publish(&engine, Some(early)).expect("a manifest");
        let now = engine.manifest.lock().clone();
        assert!(before.generation < now.generation);
        assert_eq!(
            (now.scan_end, now.scan_crc),
            (before.scan_end, before.scan_crc)
        );
        closing::close(&engine).expect("closed");
    }

    /// Nothing was due any more, and what had been replaced stayed until the next checkpoint.
    #[test]
    fn a_manifest_that_could_not_be_written_is_written_by_the_next_step() {
        let disk = SimDisk::new(1);
        let engine = engine(&disk);
        schema::create(&engine, "t").expect("a table");
        checkpoint::run(&engine).expect("a checkpoint");
        let generation = || engine.manifest.lock().generation;
        let before = generation();
        compaction::settle(&engine);
        assert_eq!(generation(), before, "nothing to do");
        disk.fail_matching(DiskOp::Rename, "manifest-", ErrorKind::StorageFull);
        assert!(publish(&engine, None).is_err());
        disk.clear_faults();
        compaction::settle(&engine);
        assert_eq!(generation(), before + 2);
        compaction::settle(&engine);
        assert_eq!(generation(), before + 2);
        closing::close(&engine).expect("closed");
    }
}
