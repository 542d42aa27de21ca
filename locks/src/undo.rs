//! What a transaction has acquired, in the order in which it did: four bytes a row; and the ranges and tokens.
//!
//! Called by `owner`, under its latch.
//! 1. L9: sub-transaction numbers never fall, so what is behind a savepoint is the end of the list.
//! 2. A row is there once when it was taken, and once more for each time that its lock was strengthened, with what was
//!    held before.
//!
//! Crash: memory only.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::place::Place;
use crate::target::TokenRequest;
use crate::ticket::Hold;

/// The acquisitions of one sub-transaction start here.
#[derive(Debug, Clone, Copy)]
struct Start {
    sub: u32,
    taken: u32,
    strengthened: u32,
}

/// A lock that was held in a weaker mode before.
#[derive(Debug, Clone, Copy)]
struct Strengthened {
    /// How many acquisitions there were before it.
    at: u32,
    before: Hold,
}

/// One step back: the row, and what was held of it before.
pub(crate) type Step = (Place, Option<Hold>);

/// The acquisitions of a transaction, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    places: SmallVec<[Place; 4]>,
    strengthened: Vec<Strengthened>,
    starts: SmallVec<[Start; 1]>,
    /// The ranges, by sub-transaction and number.
    ranges: Vec<(u32, u64)>,
    /// The tokens, by sub-transaction.
    tokens: Vec<(u32, Arc<TokenRequest>)>,
    /// V1: so many acquisitions, the first ones, were copied.
    copied: usize,
}

impl Undo {
    pub(crate) fn push(&mut self, place: Place, sub: u32, before: Option<Hold>) {
        let newest = self.starts.last().map(|start| start.sub);
        assert!(
            newest <= Some(sub),
            "L9: sub-transaction numbers only grow, yet {sub} came after {newest:?}"
        );
        let at = self.places.len() as u32;
        if newest != Some(sub) {
            self.starts.push(Start {
                sub,
                taken: at,
                strengthened: self.strengthened.len() as u32,
            });
        }
        if let Some(before) = before {
            self.strengthened.push(Strengthened { at, before });
        }
        self.places.push(place);
    }

    pub(crate) fn push_range(&mut self, sub: u32, number: u64) {
        self.ranges.push((sub, number));
    }

    /// The ranges, by sub-transaction and number, the oldest first.
    pub(crate) fn ranges(&self) -> &[(u32, u64)] {
        &self.ranges
    }

    /// The range that was taken last.
    pub(crate) fn last_range(&self) -> Option<u64> {
        self.ranges.last().map(|(_, number)| *number)
    }

    /// L9: takes away the ranges of sub-transactions from `sub` on.
    pub(crate) fn split_off_ranges(&mut self, sub: u32) -> Vec<u64> {
        let keep = self.ranges.partition_point(|(taken, _)| *taken < sub);
        self.ranges
            .drain(keep..)
            .map(|(_, number)| number)
            .collect()
    }

    pub(crate) fn push_tokens(&mut self, sub: u32, request: Arc<TokenRequest>) {
        self.tokens.push((sub, request));
    }

    /// The same, with their sub-transactions, the oldest first.
    pub(crate) fn tokens_by_sub(&self) -> &[(u32, Arc<TokenRequest>)] {
        &self.tokens
    }

    /// All tokens that were taken.
    pub(crate) fn tokens(&self) -> Vec<Arc<TokenRequest>> {
        let taken = self.tokens.iter();
        taken.map(|(_, request)| Arc::clone(request)).collect()
    }

    /// L9: takes away the tokens that sub-transactions from `sub` on took.
    pub(crate) fn split_off_tokens(&mut self, sub: u32) -> Vec<Arc<TokenRequest>> {
        let keep = self.tokens.partition_point(|(taken, _)| *taken < sub);
        let undone = self.tokens.drain(keep..);
        undone.map(|(_, request)| request).collect()
    }

    /// L9: takes away what sub-transactions from `sub` on acquired; the newest first.
    pub(crate) fn split_off(&mut self, sub: u32) -> Vec<Step> {
        let keep = self.starts.partition_point(|start| start.sub < sub);
        let Some(start) = self.starts.get(keep).copied() else {
            return Vec::new();
        };
        self.starts.truncate(keep);
        self.copied = self.copied.min(start.taken as usize);
        let mut strengthened = self.strengthened.split_off(start.strengthened as usize);
        let places = self.places.drain(start.taken as usize..);
        let numbered = places
            .enumerate()
            .map(|(at, place)| (at as u32 + start.taken, place));
        let mut places: Vec<_> = numbered.collect();
        places.reverse();
        let step = |(at, place)| {
            let before = strengthened.pop_if(|last| last.at == at);
            (place, before.map(|last| last.before))
        };
        places.into_iter().map(step).collect()
    }

    /// V1: every acquisition, the oldest first, with its sub-transaction; and what was held before.
    pub(crate) fn acquisitions(&self) -> impl Iterator<Item = (Place, u32, Option<Hold>)> {
        let mut starts = self.starts.iter().peekable();
        let mut strengthened = self.strengthened.iter().peekable();
        let mut sub = 0;
        let numbered = self.places.iter().zip(0_u32..);
        numbered.map(move |(place, at)| {
            while let Some(start) = starts.next_if(|start| start.taken <= at) {
                sub = start.sub;
            }
            let before = strengthened.next_if(|next| next.at == at);
            (*place, sub, before.map(|next| next.before))
        })
    }

    /// V1: so many of them, the first ones, are copied.
    pub(crate) fn copy(&mut self, first: usize) {
        self.copied = first.min(self.places.len());
    }

    /// V1: forgets the acquisitions that were copied and not undone since, but for those of rows that `stay`: it is asked once of each
    /// row. A row that was strengthened later stays.
    pub(crate) fn drop_copied(&mut self, mut leaves: impl FnMut(Place) -> bool) -> usize {
        let copied = std::mem::take(&mut self.copied);
        let all: Vec<_> = self.acquisitions().collect();
        let later = all.iter().skip(copied);
        let mut stay: BTreeSet<Place> = later
            .filter(|(_, _, before)| before.is_some())
            .map(|(place, ..)| *place)
            .collect();
        let mut left = 0;
        for (place, _, before) in all.iter().take(copied) {
            // Of a row's acquisitions the first.
            if before.is_none() && !stay.contains(place) {
                if leaves(*place) {
                    left += 1;
                } else {
                    stay.insert(*place);
                }
            }
        }
        *self = Self {
            ranges: std::mem::take(&mut self.ranges),
            tokens: std::mem::take(&mut self.tokens),
            ..Self::default()
        };
        for (at, (place, sub, before)) in all.into_iter().enumerate() {
            if at >= copied || stay.contains(&place) {
                self.push(place, sub, before);
            }
        }
        left
    }

    /// The places of all that is held; some more than once.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether any row is held, and whether any range is.
    pub(crate) fn holds(&self) -> (bool, bool) {
        (!self.places.is_empty(), !self.ranges.is_empty())
    }

    /// How many rows and ranges are held, and how often tokens were taken.
    pub(crate) fn locks(&self) -> usize {
        let rows = self.places.len() - self.strengthened.len();
        rows + self.ranges.len() + self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::UNSTAMPED;
    use lockstone_base::LockMode;

    #[test]
    fn what_is_taken_back_is_what_came_behind_the_mark_newest_first() {
        let mut undo = Undo::default();
        let weak = Hold {
            mode: LockMode::Share,
            writes: false,
            sub: 0,
            token: UNSTAMPED,
        };
        let place = |node| Place::new(3, node);
        undo.push(place(1), 0, None);
        undo.push(place(2), 2, None);
        undo.push(place(1), 2, Some(weak));
        undo.push(place(3), 5, None);
        undo.push(place(2), 5, Some(weak));
        assert_eq!(undo.locks(), 3);
        assert_eq!(undo.split_off(6), []);
        assert_eq!(
            undo.split_off(3),
            [(place(2), Some(weak)), (place(3), None)]
        );
        assert_eq!(undo.locks(), 2);
        undo.push(place(4), 6, None);
        let all = [
            (place(4), None),
            (place(1), Some(weak)),
            (place(2), None),
            (place(1), None),
        ];
        assert_eq!(undo.split_off(0), all);
        assert_eq!((undo.locks(), undo.places().len()), (0, 0));
    }

    #[test]
    #[should_panic(expected = "L9")]
    fn numbers_do_not_fall() {
        let mut undo = Undo::default();
        undo.push(Place::new(0, 1), 3, None);
        undo.push(Place::new(0, 1), 2, None);
    }
}
