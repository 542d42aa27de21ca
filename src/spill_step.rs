//! V1, log and publish: the step by which runs that a transaction has written are known, be it that it has spilled, or merged what it
//! had spilled before.
//!
//! Called by `spill` and `tiers`.
//! 1. V1: in one hold of the owner's latch the record is appended, the registry of the transaction's spills has the runs, and the table of
//!    locks lists them; if the transaction still lives. Else they go.
//! 2. S3: record and registry change in one hold of the append latch. So a checkpoint, which reads in such a hold from where the log is
//!    needed, and the registry behind it, lists what the log below says, or leaves the record in the log.
//! 3. V3: what they replace leaves the registry and the list in the same step; its files go behind it, and, of one that outlives a
//!    crash, when the record is on the device (S6).
//!
//! Crash: the runs are durable before the record is appended; of those that it does not name nobody knows.

use std::sync::Arc;

use lockstone_locks::LockRun;
use lockstone_recovery::record::{Body, CONTEXT_BYTES, Spill, SpillFiles};
use lockstone_storage::provisional::ProvisionalRun;
use lockstone_wal::Record as LogRecord;

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lease;
use crate::spilled::{Gone, RunOfLocks, SpillNote};
use crate::txn_state::TxnState;

/// Logs and publishes `runs`, in the place of others; whether the transaction still lived.
pub(crate) fn log_and_publish(
    engine: &Engine,
    txn: &TxnState,
    note: SpillNote,
    runs: Vec<ProvisionalRun>,
    replaced: Gone,
) -> Result<bool> {
    let mut unpublished = Some(runs);
    let published = try_publish(engine, txn, note, (&mut unpublished, &replaced));
    // Of what was not published nobody knows.
    engine.discard_spills(unpublished.unwrap_or_default());
    let is_published = published?;
    if is_published {
        lease::discard(engine, &txn.live, replaced.runs);
    }
    Ok(is_published)
}

fn try_publish(
    engine: &Engine,
    txn: &TxnState,
    note: SpillNote,
    (unpublished, replaced): (&mut Option<Vec<ProvisionalRun>>, &Gone),
) -> Result<bool> {
    let runs = unpublished.as_deref().unwrap_or_default();
    let files = runs.iter().map(|run| (run.kind(), run.entry().clone()));
    let files = SpillFiles {
        files: files.collect(),
        replaces: replaced.numbers().collect(),
    };
    let encoded = files.encode();
    let spill = Spill::new(note.number, note.through, note.held, &encoded);
    let body = Body::Spill(spill).encode();
    let pieces = body.pieces();
    let author = txn.author();
    let record = LogRecord {
        tag: body.tag as u8,
        context: &author.context,
        body: &pieces,
    };
    let bytes = CONTEXT_BYTES + pieces.iter().map(|piece| piece.len()).sum::<usize>();
    // What may wait is done before the latch.
    checkpoint::admit(engine)?;
    let room = engine.log.reserve(bytes)?;
    let salt = engine.store.salt();
    let locks =
        |run: &ProvisionalRun| -> Arc<dyn LockRun> { Arc::new(RunOfLocks::new(run.clone(), salt)) };
    let listed: Vec<_> = runs.iter().map(|run| (locks(run), 0)).collect();
    let log = |_: &[_]| {
        let mut hold = engine.log.hold();
        hold.check()?;
        hold.append(room, &record);
        let runs = unpublished.take().unwrap_or_default();
        txn.live.spilled.publish(note, runs, replaced);
        Ok::<_, Error>(())
    };
    let published = engine
        .locks
        .publish(&txn.owner, &listed, &replaced.ids, log);
    checkpoint::attend(engine);
    let ids = published?;
    let is_published = ids.is_some();
    txn.live.spilled.named(ids.unwrap_or_default());
    Ok(is_published)
}
