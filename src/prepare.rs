//! The step of the write path that makes a transaction outlive every crash: *prepare*. Called by `write_path`, when what it has read
//! is locked.
//!
//! ```text
//! spill     what takes too much memory for too long, or is in files in part already               W4
//! gather    what it holds: tables, ranges, files; count and digest of its rows                      R2
//! append    in one hold of the append latch: Active -> Preparing, then the record
//! wait      until that is on the device: Prepared
//! ```
//!
//! 1. R2: the record says all that is held but rows, and of rows that are not in files the log has said it. So of one that has
//!    spilled nothing before the record is needed; and the log is needed from there on, until it has ended (S3).
//! 2. From Preparing on nobody else can end it; so what is on the device is what it held then.
//! 3. W11: if the log fails in between, nobody knows whether it is prepared: it stays Preparing, and its files stay.
//!
//! Crash: before the record is durable it is aborted by definition; behind it, it is prepared.

use lockstone_base::Lsn;
use lockstone_recovery::record::{Body, CONTEXT_BYTES, PREPARE_HEAD_BYTES, Prepare};
use lockstone_wal::Record;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::holdings::{append_parts, gather};
use crate::log_step::{begin_again, failed, refused};
use crate::spill;
use crate::txn_state::TxnState;

/// What is to be written of one that is prepared may take so much memory, and log: it may stay for days.
const WRITES_BYTES_MAX: u64 = 4 << 20;

/// *prepare*. The record is on the device when this returns.
///
/// # Errors
/// [`Error::Poisoned`]: the outcome is unknown if the owner is Preparing. Else it is rolled back.
pub(crate) fn prepare(engine: &Engine, txn: &mut TxnState, gid: &str) -> Result<()> {
    // V2, R2: from here on its rows are where it has put them itself.
    engine.locks.close_to_others(&txn.owner);
    let spilled = &txn.live.spilled;
    let has_spilled = spilled.has_parts() || spilled.has_files();
    if has_spilled || txn.memory.writes() > WRITES_BYTES_MAX {
        spill::everything(engine, txn)?;
    }
    txn.check(engine)?;
    txn.settle(engine, false);
    let from = engine.log.end();
    let is_spilled = txn.live.spilled.has_files();
    if !txn.is_logged() {
        txn.live.note_first_record(from);
    }
    begin_again(engine, txn.author()).map_err(|error| failed(engine, txn, error))?;
    let (rows, digest, held) = gather(engine, txn);
    let held = held.encode();
    let head_bytes = PREPARE_HEAD_BYTES + gid.len();
    let last = append_parts(engine, txn.author(), head_bytes, &held);
    let last = last.map_err(|error| failed(engine, txn, error))?;
    let prepare = Prepare {
        gid,
        rows,
        digest,
        held: last,
    };
    let end = append_prepare(engine, txn, prepare, is_spilled.then_some(from))?;
    if let Err(error) = engine.log.wait_durable(end) {
        engine.spread_poison();
        return Err(error.into());
    }
    txn.owner.prepared();
    Ok(())
}

/// In one hold: the state, then the record. The record's end.
fn append_prepare(
    engine: &Engine,
    txn: &mut TxnState,
    prepare: Prepare<'_>,
    from: Option<Lsn>,
) -> Result<Lsn> {
    let body = Body::Prepare(prepare).encode();
    let pieces = body.pieces();
    let record = Record {
        tag: body.tag as u8,
        context: &txn.author().context,
        body: &pieces,
    };
    let bytes = CONTEXT_BYTES + pieces.iter().map(|piece| piece.len()).sum::<usize>();
    let room = engine.log.reserve(bytes);
    let room = room.map_err(|error| failed(engine, txn, error.into()))?;
    let (mut hold, pinned) = loop {
        let looked = txn.prerequisites.look(engine, &txn.owner);
        let looked = looked.map_err(|error| refused(engine, txn, error))?;
        let hold = engine.log.hold();
        if let Some(pinned) = looked.pin() {
            break (hold, pinned);
        }
    };
    let may = hold.check().map_err(Error::from);
    if may.is_err() || !txn.owner.try_prepare() {
        drop((pinned, hold, room));
        may.map_err(|error| failed(engine, txn, error))?;
        return Err(txn.ended(engine));
    }
    let appended = hold.append(room, &record);
    drop(pinned);
    if let Some(from) = from {
        txn.live.note_first_record(from);
    }
    Ok(appended.end)
}
