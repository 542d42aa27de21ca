//! What a transaction knows of its locks in runs: which of their records are dead, and where others have met them.
//!
//! Kept by `owner`, under its latch.
//! 1. L9, V4: a rollback makes a dead interval of sub-transactions. It is noted from the first copy on, so that a run which is being
//!    written meanwhile is listed with it.
//! 2. K2: a row whose spilled lock somebody has met is held in the table too, until the transaction ends; a rollback looks it up
//!    again.
//! 3. V1: while its own thread spills, prepares, or undoes something, no other thread spills its locks; what one has copied before
//!    counts no more.
//!
//! Crash: memory only; the log has the rollbacks.

use std::mem;
use std::ops::RangeInclusive;

use crate::place::Place;
use crate::ticket::Hold;

/// The part of a transaction's locks that is in runs.
#[derive(Debug, Default)]
pub(crate) struct Spilled {
    /// The highest sub-transaction that was ever copied; `None`: nothing was.
    newest: Option<u32>,
    /// Rolled back, and never used again.
    dead: Vec<RangeInclusive<u32>>,
    /// The rows that were brought in, by their entries.
    pub(crate) met: Vec<Place>,
    /// How many runs are listed.
    pub(crate) runs: usize,
    /// How often something has come behind which an earlier copy by others counts no more.
    copies: u64,
    /// How many of its own calls under way keep others from spilling.
    closed: u32,
}

impl Spilled {
    /// Acquisitions up to sub-transaction `sub` were copied.
    pub(crate) fn copied(&mut self, sub: u32) {
        self.newest = self.newest.max(Some(sub));
    }

    /// V1: a copy is about to be made, in the place of all before; its number.
    pub(crate) fn copy(&mut self) -> u64 {
        self.copies += 1;
        self.copies
    }

    /// V1: whether that is still the last copy, and nobody else is to make one.
    pub(crate) fn is_last_copy(&self, number: u64) -> bool {
        self.is_open() && self.copies == number
    }

    /// V1: whether others may spill.
    pub(crate) fn is_open(&self) -> bool {
        self.closed == 0
    }

    /// V1: others spill nothing until [`Spilled::open`] was called as often.
    pub(crate) fn close(&mut self) {
        self.closed += 1;
        self.copy();
    }

    pub(crate) fn open(&mut self) {
        // Zero already, if the release pass has taken everything meanwhile.
        self.closed = self.closed.saturating_sub(1);
    }

    /// R2: as they were dead before the crash.
    pub(crate) fn restore(&mut self, dead: impl IntoIterator<Item = RangeInclusive<u32>>) {
        self.dead.extend(dead);
        let newest = self.dead.iter().map(|dead| *dead.end()).max();
        self.newest = self.newest.max(newest);
    }

    /// L9: the sub-transactions from `sub` on are dead. The rows that are to be looked up again: they are met anew then.
    pub(crate) fn roll_back(&mut self, sub: u32) -> Vec<Place> {
        match self.newest.filter(|newest| *newest >= sub) {
            Some(newest) => {
                self.dead.push(sub..=newest);
                mem::take(&mut self.met)
            }
            None => Vec::new(),
        }
    }

    /// The intervals of sub-transactions that were rolled back since the first copy.
    pub(crate) fn dead(&self) -> &[RangeInclusive<u32>] {
        &self.dead
    }

    /// The union of those records that are not dead.
    pub(crate) fn union(&self, records: impl IntoIterator<Item = Hold>) -> Option<Hold> {
        let live = records.into_iter().filter(|record| {
            let mut dead = self.dead.iter();
            !dead.any(|dead| dead.contains(&record.sub))
        });
        live.reduce(Hold::join)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstone_base::{FencingToken, LockMode, Lsn};

    #[test]
    fn dead_records_hold_nothing() {
        let record = |sub: u32, mode| Hold {
            mode,
            writes: sub == 4,
            sub,
            token: FencingToken::new(Lsn::new(u64::from(sub) + 100)),
        };
        let records = [
            record(6, LockMode::Update),
            record(4, LockMode::Share),
            record(1, LockMode::KeyShare),
        ];
        let mode = |spilled: &Spilled| spilled.union(records).map(|hold| (hold.mode, hold.writes));
        let mut spilled = Spilled::default();
        assert_eq!(spilled.roll_back(0), [], "nothing was copied");
        spilled.copied(4);
        spilled.copied(6);
        spilled.met.push(Place::new(1, 2));
        assert_eq!(mode(&spilled), Some((LockMode::Update, true)));
        assert_eq!(spilled.roll_back(7), []);
        assert_eq!(spilled.roll_back(5), [Place::new(1, 2)]);
        assert_eq!(mode(&spilled), Some((LockMode::Share, true)));
        spilled.roll_back(4);
        assert_eq!(mode(&spilled), Some((LockMode::KeyShare, false)));
        spilled.roll_back(0);
        assert_eq!(mode(&spilled), None);
    }
}
