//! A provisional record: what a transaction has done to one row in one sub-transaction, and what locks it.
//!
//! Pushed by whoever spills, shown by readers; on disk it is an entry of a run with a mark.
//! 1. Traits: bits 0 to 2 the mode, bit 3 nothing was written, bit 4 the row was not held before, bit 5 it was
//!    locked in order to be written; others are zero. So they are never zero altogether.
//! 2. The order of a row's records: one above owner and sub-transaction, as one number. Never zero, and the newest
//!    of an owner is the largest.

use lockstone_base::{FencingToken, LockMode, Lsn, TxnId};

use crate::error::{Damage, Section};
use crate::run::Mark;
use crate::version::VersionRef;

const MODE_BITS: u8 = 0b111;
const LOCK_BIT: u8 = 1 << 3;
const FRESH_BIT: u8 = 1 << 4;
const WRITES_BIT: u8 = 1 << 5;

/// What a transaction has done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// It has locked it.
    Lock,
    /// It has written this value.
    Put(&'a [u8]),
    /// It has deleted it.
    Delete,
}

/// What a transaction has done to a row in one sub-transaction, and what locks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The encoded row.
    pub row: &'a [u8],
    /// The transaction.
    pub owner: TxnId,
    /// The sub-transaction.
    pub sub: u32,
    /// What was done.
    pub effect: Effect<'a>,
    /// How the row is locked.
    pub mode: LockMode,
    /// The LSN of the log record that granted the lock, or has strengthened it last.
    pub token: FencingToken,
    /// The transaction did not hold the row before.
    pub fresh: bool,
    /// The row was locked in order to be written.
    pub writes: bool,
}

impl<'a> Record<'a> {
    /// Its value as a version's: what is only locked has an empty one.
    pub(super) fn version(&self, owner: usize) -> VersionRef<'a> {
        VersionRef {
            row: self.row,
            stamp: order_of(owner, self.sub),
            value: match self.effect {
                Effect::Lock => Some(&[]),
                Effect::Put(value) => Some(value),
                Effect::Delete => None,
            },
        }
    }

    pub(super) fn mark(&self) -> Mark {
        let bit = |holds, bit| if holds { bit } else { 0 };
        Mark {
            token: self.token.get(),
            traits: self.mode as u8
                | bit(self.effect == Effect::Lock, LOCK_BIT)
                | bit(self.fresh, FRESH_BIT)
                | bit(self.writes, WRITES_BIT),
        }
    }

    /// The record that stands as `version` with `mark` in a spill of these owners.
    pub(super) fn decode(
        version: VersionRef<'a>,
        mark: Mark,
        owners: &[TxnId],
    ) -> Result<Self, Damage> {
        let (owner, sub) = owner_and_sub(version.stamp);
        let owner = owners.get(owner).ok_or(malformed("an owner is unknown"))?;
        let mode = LockMode::try_from(mark.traits & MODE_BITS);
        let mode = mode.map_err(|_| malformed("a lock's mode is unknown"))?;
        if mark.traits & !(MODE_BITS | LOCK_BIT | FRESH_BIT | WRITES_BIT) != 0 {
            return Err(malformed("a record has traits that nobody knows"));
        }
        let is_lock = mark.traits & LOCK_BIT != 0;
        let effect = match version.value {
            Some([]) if is_lock => Effect::Lock,
            _ if is_lock => return Err(malformed("a lock has a value")),
            Some(value) => Effect::Put(value),
            None => Effect::Delete,
        };
        Ok(Self {
            row: version.row,
            owner: *owner,
            sub,
            effect,
            mode,
            token: FencingToken::new(Lsn::new(mark.token)),
            fresh: mark.traits & FRESH_BIT != 0,
            writes: mark.traits & WRITES_BIT != 0,
        })
    }

    /// What stands for all of it but row and value in a digest.
    pub(super) fn fixed_bytes(&self) -> [u8; 14] {
        let mark = self.mark();
        // Of what is deleted nothing else tells.
        let is_deleted = u8::from(self.effect == Effect::Delete);
        let mut bytes = [0; 14];
        let fields = mark.token.to_le_bytes().into_iter();
        let fields = fields.chain(self.sub.to_le_bytes());
        let fields = fields.chain([mark.traits, is_deleted]);
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }
}

/// Where a record stands among those of its row, the largest first.
pub(super) fn order_of(owner: usize, sub: u32) -> Lsn {
    let owner = (owner as u64) << u32::BITS;
    Lsn::new((owner | u64::from(sub)) + 1)
}

/// The owner's place among the owners, and the sub-transaction.
pub(super) fn owner_and_sub(order: Lsn) -> (usize, u32) {
    let both = order.get().saturating_sub(1);
    ((both >> u32::BITS) as usize, both as u32)
}

fn malformed(what: &'static str) -> Damage {
    Damage::malformed(Section::Block, what)
}
