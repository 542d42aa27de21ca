//! What the working child says through its standard output, one line a message.
//!
//! 1. A message counts only with its newline: a line that the kill cut off says nothing.
//! 2. `Acknowledged` is written after `commit` has returned, `Abandoned` after the abort has.

use std::fmt;
use std::str::FromStr;

use super::bank::Transfer;

/// One line of the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The open transactions hold so many locks, and a commit behind them is durable.
    Holding {
        /// How many transactions are open.
        transactions: u32,
        /// How many rows they have locked together.
        locks: u64,
    },
    /// This transfer is committed.
    Acknowledged(String, Transfer),
    /// This transfer was rolled back after it had written.
    Abandoned(String),
    /// Counts since the child began.
    Counts(Counts),
    /// Something was wrong while the engine ran.
    Wrong(String),
}

/// What the engine has counted in the child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) lock_waits: u64,
    pub(crate) deadlocks: u64,
    pub(crate) checkpoints: u64,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holding {
                transactions,
                locks,
            } => write!(f, "h {transactions} {locks}"),
            Self::Acknowledged(id, transfer) => write!(f, "a {id} {transfer}"),
            Self::Abandoned(id) => write!(f, "x {id}"),
            Self::Counts(Counts {
                lock_waits,
                deadlocks,
                checkpoints,
            }) => {
                write!(f, "c {lock_waits} {deadlocks} {checkpoints}")
            }
            Self::Wrong(what) => write!(f, "w {}", what.replace('\n', " ")),
        }
    }
}

/// A line that is no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoMessage;

impl FromStr for Message {
    type Err = NoMessage;

    fn from_str(line: &str) -> Result<Self, NoMessage> {
        let (kind, rest) = line.split_once(' ').ok_or(NoMessage)?;
        let numbers = || {
            rest.split(' ')
                .map(|word| word.parse::<u64>().map_err(|_| NoMessage))
        };
        match kind {
            "a" => {
                let (id, transfer) = rest.split_once(' ').ok_or(NoMessage)?;
                Ok(Self::Acknowledged(
                    id.to_owned(),
                    transfer.parse().map_err(|_| NoMessage)?,
                ))
            }
            "x" => Ok(Self::Abandoned(rest.to_owned())),
            "w" => Ok(Self::Wrong(rest.to_owned())),
            "h" => {
                let [transactions, locks] = exactly(numbers())?;
                let transactions = u32::try_from(transactions).map_err(|_| NoMessage)?;
                Ok(Self::Holding {
                    transactions,
                    locks,
                })
            }
            "c" => {
                let [lock_waits, deadlocks, checkpoints] = exactly(numbers())?;
                Ok(Self::Counts(Counts {
                    lock_waits,
                    deadlocks,
                    checkpoints,
                }))
            }
            _ => Err(NoMessage),
        }
    }
}

fn exactly<const N: usize>(
    numbers: impl Iterator<Item = Result<u64, NoMessage>>,
) -> Result<[u64; N], NoMessage> {
    let numbers: Vec<_> = numbers.collect::<Result<_, _>>()?;
    numbers.try_into().map_err(|_| NoMessage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_reads_back_as_it_was_written() {
        let messages = [
            Message::Holding {
                transactions: 4,
                locks: 10_000,
            },
            Message::Acknowledged(
                "000002-01-00000007".into(),
                Transfer {
                    from: 1,
                    to: 2,
                    amount: 3,
                },
            ),
            Message::Abandoned("000002-01-00000008".into()),
            Message::Counts(Counts {
                lock_waits: 1,
                deadlocks: 2,
                checkpoints: 3,
            }),
            Message::Wrong("the sum is off by 3".into()),
        ];
        for message in messages {
            assert_eq!(message.to_string().parse(), Ok(message));
        }
    }

    #[test]
    fn a_line_that_is_cut_off_in_a_number_or_word_is_refused_or_incomplete() {
        for line in ["", "a", "a 1", "a 1 2", "h 4", "h 4 1 2", "c 1 2", "z 1"] {
            assert_eq!(line.parse::<Message>(), Err(NoMessage), "{line:?}");
        }
    }
}
