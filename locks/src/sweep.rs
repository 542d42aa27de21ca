//! How far a shard has been swept of what ended transactions left: a hand that goes round its nodes.
//!
//! Called by `shards`, under the row latch.
//! 1. K5: a round that began after a transaction had ended meets all that it left. So a shard is clean up to the number of
//!    ends at the beginning of its last whole round, and rests until there are more.
//!
//! Crash: memory only.

/// The hand of one shard.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    hand: u32,
    /// How many transactions had left something when this round began.
    round: u64,
    /// The same, of the last round that is whole.
    clean: u64,
}

impl Sweep {
    pub(crate) fn is_clean(&self, ends: u64) -> bool {
        self.clean >= ends
    }

    /// The next node to look at; `None` at the end of a round, and while there is nothing to do. `ends`: how many
    /// transactions have left something so far; `nodes`: how many numbers there are.
    pub(crate) fn next(&mut self, ends: u64, nodes: u32) -> Option<u32> {
        if self.is_clean(ends) {
            return None;
        }
        if self.round == self.clean {
            self.round = ends;
            self.hand = 0;
        }
        if self.hand >= nodes {
            self.clean = self.round;
            return None;
        }
        let next = self.hand;
        self.hand += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_when_a_whole_round_is_newer_than_the_last_end() {
        let mut sweep = Sweep::default();
        assert_eq!(sweep.next(0, 3), None);
        assert_eq!(sweep.next(1, 3), Some(0));
        assert_eq!(sweep.next(1, 3), Some(1));
        // Something ends while the hand goes round: its leftovers may lie behind the hand.
        assert_eq!([sweep.next(2, 3), sweep.next(2, 3)], [Some(2), None]);
        assert!(!sweep.is_clean(2));
        let round: Vec<_> = std::iter::from_fn(|| sweep.next(2, 3)).collect();
        assert_eq!(round, [0, 1, 2]);
        assert!(sweep.is_clean(2));
        assert_eq!(sweep.next(2, 3), None);
    }
}
