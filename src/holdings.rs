//! What a transaction that outlives a crash says of itself in one record: all that it holds but rows, and where these are.
//!
//! Called by `prepare`, and by `spill` for one that has a lease.
//! 1. R2: of one that has anything in files all rows are there, or behind the record in the log; so what was logged before is not
//!    needed any more (S3).
//!
//! Crash: what it was before the record counts, or what the record says.

use std::sync::Arc;

use lockstone_base::{FencingToken, LockMode, Lsn, RowKey};
use lockstone_locks::{KeptRange, TokenRequest};
use lockstone_recovery::record::{
    Body, CONTEXT_BYTES, Held, HeldRange, HeldTokens, LEASE_HEAD_BYTES, Lease, locked_row,
};
use lockstone_storage::provisional::Digest;

use crate::engine::Engine;
use crate::error::Result;
use crate::lease_clock::LeaseClock;
use crate::log_step::{append_own, begin_again};
use crate::resource::semaphore_name;
use crate::txn_state::{Author, TxnState};

/// S3: says anew what one that has a lease holds. All its rows are in files up to `through`: of what it had logged before nothing is
/// needed any more.
pub(crate) fn restate_lease(engine: &Engine, txn: &TxnState, through: Lsn) -> Result<()> {
    let Some(lasts_ms) = txn.live.lease().map(LeaseClock::lasts_ms) else {
        return Ok(());
    };
    let from = engine.log.end();
    begin_again(engine, txn.author())?;
    let (_, _, held) = gather(engine, txn);
    let held = Held { through, ..held }.encode();
    let last = append_parts(engine, txn.author(), LEASE_HEAD_BYTES, &held)?;
    let lease = Lease::holding(lasts_ms, txn.open_call, last);
    append_own(engine, txn.author(), Body::Lease(lease))?;
    txn.live.note_spilled(from);
    Ok(())
}

/// Appends what does not fit the record itself, of which `head_bytes` are something else; the rest.
pub(crate) fn append_parts<'h>(
    engine: &Engine,
    author: Author<'_>,
    head_bytes: usize,
    held: &'h [u8],
) -> Result<&'h [u8]> {
    let part_bytes = engine.log.record_bytes_max() - CONTEXT_BYTES - head_bytes;
    let mut rest = held;
    while let Some((part, behind)) = rest
        .split_at_checked(part_bytes)
        .filter(|(_, behind)| !behind.is_empty())
    {
        append_own(engine, author, Body::ValuePart(part))?;
        rest = behind;
    }
    Ok(rest)
}

/// How many rows are locked, their digest, and all else that is held.
pub(crate) fn gather(engine: &Engine, txn: &TxnState) -> (u64, Digest, Held) {
    let wide = engine.locks.kept_wide(&txn.owner);
    let mut held = Held {
        sub: txn.sub,
        writes: txn.effects(),
        shared: wide.shared,
        exclusive: wide.exclusive,
        ranges: wide.ranges.iter().map(range).collect(),
        tokens: wide.tokens.iter().filter_map(tokens).collect(),
        ..Held::default()
    };
    if txn.live.spilled.has_files() {
        // All rows are in these.
        held.through = Lsn::new(engine.log.end().get() - 1);
        let (rows, digest) = txn.live.spilled.digest(txn.owner.id());
        (held.files, held.dead) = txn.live.spilled.listed();
        return (rows, digest, held);
    }
    let mut digest = Digest::default();
    let (salt, id) = (engine.store.salt(), txn.owner.id());
    let see = |row: &RowKey, mode, beside, token: FencingToken| {
        let locked = (mode, beside == LockMode::Update);
        digest += locked_row(salt, id, row.as_bytes(), locked, token);
    };
    let rows = engine.locks.kept_rows(&txn.owner, see);
    (rows, digest, held)
}

fn tokens((sub, request): &(u32, Arc<TokenRequest>)) -> Option<HeldTokens> {
    Some(HeldTokens {
        semaphore: semaphore_name(&request.semaphore)?.into(),
        limit: request.limit,
        tokens: request.tokens,
        sub: *sub,
    })
}

fn range(kept: &KeptRange) -> HeldRange {
    HeldRange {
        table: kept.range.table(),
        start: kept.range.start().map(|row| row.key().to_vec()),
        end: kept.range.end().map(|row| row.key().to_vec()),
        mode: kept.mode,
        sub: kept.sub,
        token: kept.token,
    }
}
