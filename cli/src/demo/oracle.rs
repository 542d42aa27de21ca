//! What must be in the database, kept outside of it: what the children have said before they were killed.
//!
//! 1. Acknowledged transfers must be there, with their content, after this crash and every later one.
//! 2. Abandoned ones must not.
//! 3. A transfer that is neither may be there or not: its commit was under way. Each thread has one of
//!    those per kill at most; once seen, it must stay.

use std::collections::{HashMap, HashSet};

use super::bank::Transfer;
use super::message::{Counts, Message};

/// Everything that the children have said.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// What must be there: acknowledged, or seen after an earlier crash.
    pub(crate) expected: HashMap<String, Transfer>,
    /// What must not be there.
    pub(crate) abandoned: HashSet<String>,
    /// How many transfers were acknowledged.
    pub(crate) acknowledged: u64,
    /// How many more may have been committed since the last look, unacknowledged.
    pub(crate) unacknowledged_max: u64,
    /// What the last child held when it began to work; nothing if it did not come to that.
    pub(crate) holding: Option<Holding>,
    /// What the last child's engine has counted.
    pub(crate) counts: Counts,
}

/// What a child held when it began to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) transactions: u32,
    pub(crate) locks: u64,
}

impl Oracle {
    /// Another child is started, with so many threads: what the last one held is over.
    pub(crate) fn next_child(&mut self, threads: u32) {
        self.holding = None;
        self.counts = Counts::default();
        self.unacknowledged_max += u64::from(threads);
    }

    pub(crate) fn hear(&mut self, message: Message) {
        match message {
            Message::Holding {
                transactions,
                locks,
            } => {
                self.holding = Some(Holding {
                    transactions,
                    locks,
                });
            }
            Message::Acknowledged(id, transfer) => {
                let before = self.expected.insert(id, transfer);
                assert!(before.is_none(), "a transfer's id is never used twice");
                self.acknowledged += 1;
            }
            Message::Abandoned(id) => drop(self.abandoned.insert(id)),
            Message::Counts(counts) => self.counts = counts,
            // Whoever listens ends the demo for it.
            Message::Wrong(_) => {}
        }
    }

    /// These were in the database when it was looked at, so they are committed.
    pub(crate) fn saw(&mut self, transfers: impl IntoIterator<Item = (String, Transfer)>) {
        self.expected.extend(transfers);
        self.unacknowledged_max = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_once_is_expected_from_then_on() {
        let transfer = Transfer {
            from: 1,
            to: 2,
            amount: 3,
        };
        let mut oracle = Oracle::default();
        oracle.next_child(8);
        oracle.hear(Message::Acknowledged("a".into(), transfer));
        oracle.hear(Message::Abandoned("b".into()));
        assert_eq!((oracle.acknowledged, oracle.unacknowledged_max), (1, 8));
        oracle.saw([("c".to_owned(), transfer)]);
        assert_eq!((oracle.acknowledged, oracle.unacknowledged_max), (1, 0));
        assert!(oracle.expected.contains_key("a") && oracle.expected.contains_key("c"));
        assert!(oracle.abandoned.contains("b"));
    }
}
