//! Merging spills of one transaction into one.
//!
//! Called where a transaction has many that overlap, and at its commit for its part of a mixed run.
//! 1. V3: neighbours by spill number only; what comes out has the highest of the inputs. The caller logs it, and
//!    removes the inputs when that is durable.
//! 2. V3: of each row the newest record of each sub-transaction that can still be rolled back to: of all between
//!    two savepoints, one. A record that is passed over leaves what the newer one does not say: a stronger mode
//!    and its token, what was written. So no lock becomes weaker and no write is lost.
//! 3. V4: what is dead goes.
//! 4. Every block is verified anew (F11). Memory: a window for each input, and one record.

use std::cmp::Reverse;

use lockstone_base::{FencingToken, LockMode, TxnId};

use super::cursors::Records;
use super::reader::ProvisionalRun;
use super::record::{Effect, Record, order_of, owner_and_sub};
use super::summary::Kind;
use super::writer::SpillWriter;
use crate::error::StorageError;
use crate::merge::Merge;
use crate::version::VersionRef;
use crate::walk::Walker;

/// A spill that is merged with others of its owner.
#[derive(Debug, Clone)]
pub struct MergeInput {
    /// Its number among its owner's spills.
    pub spill: u64,
    /// The spill, with what is dead of it.
    pub run: ProvisionalRun,
}

/// Writes to `output` what `inputs` have of the owner, and of the kind, that `output` is for; the number among the
/// owner's spills that it has. `savepoints`, ascending, are the sub-transactions that can be rolled back to.
///
/// # Errors
/// The disk's; [`StorageError::Corrupt`] if an input is damaged. The inputs are as they were.
pub fn merge(
    mut inputs: Vec<MergeInput>,
    savepoints: &[u32],
    output: &mut SpillWriter<'_>,
) -> Result<Option<u64>, StorageError> {
    let (owner, kind) = output.sole_owner();
    inputs.sort_by_key(|input| Reverse(input.spill));
    let spill = inputs.first().map(|input| input.spill);
    let inputs = inputs.iter().map(|input| OwnersRecords {
        records: input.run.records(),
        owner,
        kind,
    });
    // Of equal rows and sub-transactions the later spill's comes first.
    let mut merge = Merge::new(inputs.collect());
    let mut pending: Option<Pending> = None;
    while merge.advance()? {
        let Some(input) = merge.first() else {
            break;
        };
        let record = input.records.record()?;
        match &mut pending {
            Some(newer) if newer.covers(&record, savepoints) => newer.absorb(&record),
            _ => {
                if let Some(done) = pending.replace(Pending::new(&record)) {
                    output.push(&done.record())?;
                }
            }
        }
    }
    if let Some(last) = pending {
        output.push(&last.record())?;
    }
    Ok(spill)
}

/// What a spill has of one owner and of one kind.
struct OwnersRecords {
    records: Records,
    owner: TxnId,
    kind: Kind,
}

impl Walker for OwnersRecords {
    fn advance(&mut self) -> Result<bool, StorageError> {
        while self.records.advance()? {
            let record = self.records.record()?;
            let is_lock = record.effect == Effect::Lock;
            let is_wanted = self.kind == Kind::Mixed || is_lock == (self.kind == Kind::Lock);
            if record.owner == self.owner && is_wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The owner may have another place among the owners of each input.
    fn version(&self) -> VersionRef<'_> {
        let version = self.records.version();
        let (_, sub) = owner_and_sub(version.stamp);
        VersionRef {
            stamp: order_of(0, sub),
            ..version
        }
    }
}

/// A record that waits for older ones which it makes superfluous.
struct Pending {
    row: Vec<u8>,
    value: Vec<u8>,
    written: Written,
    owner: TxnId,
    sub: u32,
    mode: LockMode,
    token: FencingToken,
    fresh: bool,
    writes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    Value,
    Deleted,
}

impl Pending {
    fn new(record: &Record<'_>) -> Self {
        let mut pending = Self {
            row: record.row.to_vec(),
            value: Vec::new(),
            written: Written::Nothing,
            owner: record.owner,
            sub: record.sub,
            mode: record.mode,
            token: record.token,
            fresh: record.fresh,
            writes: record.writes,
        };
        pending.take_effect(record);
        pending
    }

    /// V3: whether nothing can bring back `older` without this one.
    fn covers(&self, older: &Record<'_>, savepoints: &[u32]) -> bool {
        let behind = |sub: u32| savepoints.partition_point(|savepoint| *savepoint <= sub);
        self.row == older.row && behind(self.sub) == behind(older.sub)
    }

    /// Takes over what an older record says beyond this one. The token is that of the record that granted the mode, or last
    /// strengthened it: the stronger one's, and of two in one mode the older's, as where the table of locks knows both.
    fn absorb(&mut self, older: &Record<'_>) {
        if older.mode >= self.mode {
            (self.mode, self.token) = (older.mode, older.token);
        }
        self.writes |= older.writes;
        self.fresh = older.fresh;
        if self.written == Written::Nothing {
            self.take_effect(older);
        }
    }

    fn take_effect(&mut self, record: &Record<'_>) {
        self.written = match record.effect {
            Effect::Lock => Written::Nothing,
            Effect::Put(value) => {
                self.value.extend_from_slice(value);
                Written::Value
            }
            Effect::Delete => Written::Deleted,
        };
    }

    fn record(&self) -> Record<'_> {
        Record {
            row: &self.row,
            owner: self.owner,
            sub: self.sub,
            effect: match self.written {
                Written::Nothing => Effect::Lock,
                Written::Value => Effect::Put(&self.value),
                Written::Deleted => Effect::Delete,
            },
            mode: self.mode,
            token: self.token,
            fresh: self.fresh,
            writes: self.writes,
        }
    }
}
