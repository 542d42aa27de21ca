//! Spilling (F20, S3): what a transaction has locked and written goes from memory into runs, when all together have more of it than
//! `Options::provisional_bytes` allows, or when it holds the log back.
//!
//! Called by the write path at the end of each call that has locked or written something.
//! 1. V1: copy, write, log and publish, drop, in this order. The files and their directory are synced before anybody knows them, and
//!    nothing is held while they are written.
//! 2. V1: every lock and write that is copied is in the log already; the spill supersedes all of these. How it becomes known is
//!    `spill_step`.
//! 3. S3: what is spilled frees the log. Behind the publication the transaction's first record that is still needed is the first
//!    one behind the copy: a checkpoint that reads this lists the files, for they were in the registry before, and it lists what
//!    it finds there later (`publish`). Until such a manifest is durable, the one before it has the log begin below.
//! 4. V2: the lock of a row that was written is in the record that wrote it; what a row was locked for besides is in a run of
//!    locks.
//! 5. V2: who takes the last of the memory, and has little himself, has the locks of others spilled (`idle`). Who spills himself first
//!    takes back what others have spilled for him: behind that all is in his own runs, as manifest and log list them.
//! 6. F10: a transaction that cannot spill is rolled back, and says why; the others go on.
//!
//! Crash: of a transaction that has no commit record nothing is needed, and the files are swept; of one that has, recovery adopts
//! what manifest and log name.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use lockstone_base::{FencingToken, LockMode, Lsn, RowKey};
use lockstone_locks::CopiedLock;
use lockstone_storage::provisional::{Effect, Kind, ProvisionalRun, Record, SpillWriter};

use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::holdings::restate_lease;
use crate::idle;
use crate::lease;
use crate::log_step::{begin_again, failed, log_held_back};
use crate::provisional_memory::Left;
use crate::spill_step::log_and_publish;
use crate::spilled::{Gone, Mixed, SpillNote};
use crate::tiers;
use crate::txn_state::TxnState;
use crate::write_set::OwnWrite;

/// Makes room in memory or log, if the transaction has to.
pub(crate) fn make_room(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    if !txn.memory.must_spill() && !txn.live.is_asked_to_spill() {
        if txn.memory.is_over() {
            idle::make_room(engine);
        }
        return Ok(());
    }
    log_held_back(engine, txn)?;
    let spilled = spill(engine, txn);
    spilled.map_err(|error| failed(engine, txn, error))?;
    checkpoint::ask_if_due(engine);
    // W10: whoever was rolled back meanwhile has spilled nothing.
    txn.check(engine)
}

/// Moves everything of the transaction into files (W4, R2).
pub(crate) fn everything(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    unasked(engine, txn)?;
    txn.check(engine)
}

/// The same, of one that makes no call: the database may be about to close.
pub(crate) fn unasked(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    let spilled = spill(engine, txn);
    spilled.map_err(|error| failed(engine, txn, error))
}

/// K5, S6: the transaction has ended, and with it what it has spilled, but for what its commit has `adopted`.
pub(crate) fn discard(engine: &Engine, txn: &TxnState, adopted: bool) {
    lease::discard(engine, &txn.live, txn.live.spilled.take(adopted));
}

/// V4, S6: of these nothing is alive since a rollback: nobody asks them any more, and then they go.
pub(crate) fn forget(engine: &Engine, txn: &TxnState, dead: Gone) {
    if !dead.ids.is_empty() {
        let nothing = |_: &[_]| Ok::<_, Infallible>(());
        let Ok(_) = engine.locks.publish(&txn.owner, &[], &dead.ids, nothing);
    }
    lease::discard(engine, &txn.live, dead.runs);
}

fn spill(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    // V1: nobody else copies or drops anything of it meanwhile.
    let dead = engine.locks.close_to_others(&txn.owner);
    let spilled = take_back(engine, txn, &dead).and_then(|()| spill_own(engine, txn));
    engine.locks.open_to_others(&txn.owner);
    spilled
}

/// V2: what others have spilled for it comes into runs of its own, but for what is dead.
fn take_back(engine: &Engine, txn: &TxnState, dead: &[RangeInclusive<u32>]) -> Result<()> {
    for mixed in txn.live.spilled.parts() {
        let runs = own_part(engine, txn, &mixed, dead)?;
        let replaced = Gone {
            runs: Vec::new(),
            ids: mixed.ids().to_vec(),
        };
        let note = SpillNote {
            number: txn.live.spilled.next_number(),
            through: txn.live.spilled.through(),
            held: held(txn),
            tier: 0,
        };
        if runs.is_empty() {
            forget(engine, txn, replaced);
        } else if !log_and_publish(engine, txn, note, runs, replaced)? {
            return Ok(());
        }
        engine.discard_spills(txn.live.spilled.leave_part(mixed));
    }
    Ok(())
}

/// Its records among those of others, in files of their own.
fn own_part(
    engine: &Engine,
    txn: &TxnState,
    mixed: &Mixed,
    dead: &[RangeInclusive<u32>],
) -> Result<Vec<ProvisionalRun>> {
    let owner = txn.owner.id();
    let is_dead = |sub: u32| dead.iter().any(|dead| dead.contains(&sub));
    let mut own = engine.store.spill(Kind::Lock, vec![owner]);
    for run in mixed.runs() {
        let mut records = run.records();
        while let Some(record) = records.next()? {
            if record.owner == owner && !is_dead(record.sub) {
                own.push(&record)?;
            }
        }
    }
    let files = own.finish()?.into_iter();
    let open = |entry| engine.store.open_spill(&entry).map_err(Error::from);
    files.map(open).collect()
}

/// How many locks and writes the transaction has.
fn held(txn: &TxnState) -> (u64, u64) {
    let held = [&txn.live.locks, &txn.live.writes].map(|count| count.load(Ordering::Relaxed));
    held.into()
}

fn spill_own(engine: &Engine, txn: &mut TxnState) -> Result<()> {
    // Everything of the transaction that is in the log lies below.
    let through = Lsn::new(engine.log.end().get() - 1);
    let mut locks = engine.locks.copy_locks(&txn.owner, txn.sub).locks;
    // Of what one sub-transaction has done to a row the last counts.
    locks.reverse();
    locks.sort_by(|a, b| order(a).cmp(&order(b)));
    locks.dedup_by(|a, b| order(a) == order(b));
    let writes = txn.writes.drain();
    let runs = write(engine, txn, &locks, &writes)?;
    if runs.is_empty() {
        // Whatever it has done is in files already, or was undone.
        begin_again(engine, txn.author())?;
        free_log(txn, through);
        return restate_lease(engine, txn, through);
    }
    let number = txn.live.spilled.next_number();
    let note = SpillNote {
        number,
        through,
        held: held(txn),
        tier: 0,
    };
    if !log_and_publish(engine, txn, note, runs, Gone::default())? {
        return Ok(());
    }
    free_log(txn, through);
    let in_memory = || engine.locks.held_by(&txn.owner) as u64;
    let of = in_memory();
    engine.locks.drop_copied(&txn.owner);
    let left = in_memory();
    txn.memory.spilled(Left { left, of });
    let has_merged = tiers::settle(engine, txn)?;
    txn.look_at_spilled(engine, if has_merged { 0 } else { number - 1 })?;
    engine.counters.spills.fetch_add(1, Ordering::Relaxed);
    restate_lease(engine, txn, through)
}

/// By row; of a row the newest sub-transaction first.
fn order(lock: &CopiedLock) -> (&[u8], Reverse<u32>) {
    (lock.row.as_bytes(), Reverse(lock.lock.sub))
}

/// V1, write: the runs are durable behind it, and nobody knows them.
fn write(
    engine: &Engine,
    txn: &TxnState,
    locks: &[CopiedLock],
    writes: &[OwnWrite],
) -> Result<Vec<ProvisionalRun>> {
    let owner = txn.owner.id();
    let writer = |kind| engine.store.spill(kind, vec![owner]);
    let mut files = Files {
        locks: writer(Kind::Lock),
        writes: writer(Kind::Write),
    };
    let rows = Rows { locks, writes };
    for (locks, writes) in rows {
        files.push_row(engine, txn, locks, writes)?;
    }
    let [locks, writes] = [files.locks.finish()?, files.writes.finish()?];
    let open = |entry| engine.store.open_spill(entry).map_err(Error::from);
    locks.iter().chain(&writes).map(open).collect()
}

/// What is written: the two kinds of run that one transaction has.
struct Files<'a> {
    locks: SpillWriter<'a>,
    writes: SpillWriter<'a>,
}

impl Files<'_> {
    fn push_row(
        &mut self,
        engine: &Engine,
        txn: &TxnState,
        locks: &[CopiedLock],
        writes: &[OwnWrite],
    ) -> Result<()> {
        let owner = txn.owner.id();
        for (at, CopiedLock { row, lock }) in locks.iter().enumerate() {
            assert!(
                lock.token > FencingToken::new(Lsn::ZERO),
                "V1: a lock is in the log before it is in a run"
            );
            // V2: in the record that wrote it.
            if writes.iter().any(|write| write.sub == lock.sub) {
                continue;
            }
            self.locks.push(&Record {
                row: row.as_bytes(),
                owner,
                sub: lock.sub,
                effect: Effect::Lock,
                mode: lock.mode,
                token: lock.token,
                // The oldest comes last.
                fresh: at + 1 == locks.len(),
                writes: lock.writes,
            })?;
        }
        for OwnWrite { row, sub, effect } in writes {
            let lock = locks.iter().find(|copied| copied.lock.sub <= *sub);
            let (mode, token) = match lock {
                Some(CopiedLock { lock, .. }) => (lock.mode, lock.token),
                None => held_by_runs(engine, txn, row)?,
            };
            self.writes.push(&Record {
                row: row.as_bytes(),
                owner,
                sub: *sub,
                effect: match effect {
                    Some(value) => Effect::Put(value),
                    None => Effect::Delete,
                },
                mode,
                token,
                fresh: lock.is_some_and(|copied| {
                    let oldest = locks.last().map(|oldest| oldest.lock.sub);
                    oldest == Some(copied.lock.sub) && copied.lock.sub == *sub
                }),
                writes: true,
            })?;
        }
        Ok(())
    }
}

/// The lock of a row that was spilled before, and written again since.
fn held_by_runs(engine: &Engine, txn: &TxnState, row: &RowKey) -> Result<(LockMode, FencingToken)> {
    let mode = engine.locks.holds(&txn.owner, row);
    let token = engine.locks.token(&txn.owner, row);
    // Whoever holds nothing any more was rolled back.
    mode.zip(token).ok_or_else(|| txn.ended(engine))
}

/// The locks and the writes of a row at a time, in row order.
struct Rows<'a> {
    locks: &'a [CopiedLock],
    writes: &'a [OwnWrite],
}

impl<'a> Iterator for Rows<'a> {
    type Item = (&'a [CopiedLock], &'a [OwnWrite]);

    fn next(&mut self) -> Option<Self::Item> {
        let locked = self.locks.first().map(|lock| &lock.row);
        let written = self.writes.first().map(|write| &write.row);
        let row = match (locked, written) {
            (Some(locked), Some(written)) => locked.min(written),
            (one, other) => one.or(other)?,
        };
        let locks = self.locks.iter().take_while(|lock| lock.row == *row);
        let (locks, rest) = self.locks.split_at(locks.count());
        self.locks = rest;
        let writes = self.writes.iter().take_while(|write| write.row == *row);
        let (writes, rest) = self.writes.split_at(writes.count());
        self.writes = rest;
        Some((locks, writes))
    }
}

/// S3: of what the transaction has logged up to there nothing is needed any more.
fn free_log(txn: &TxnState, through: Lsn) {
    if txn.live.lease().is_some() {
        // R2: but for a lease, which is to be said anew.
        return;
    }
    txn.live.note_spilled(Lsn::new(through.get() + 1));
}
