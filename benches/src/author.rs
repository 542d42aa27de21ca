//! Records that testify: each says whose it is and the how manieth, so that what a log holds in the end
//! can be told from what was appended.
//!
//! 1. The context of a record is 16 bytes, author and number, so no two adjacent ones share theirs: every
//!    record costs what the commit of a transaction of its own costs.
//! 2. A log that was shortened at its head still holds each author's records up to its last, without a gap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use lockstone_wal::{LogVisitor, Record, ScannedRecord, VisitError};

use crate::error::Error;

const CONTEXT_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;
const TAG: u8 = 1;

/// How many records each author has appended. Each on cache lines of its own.
#[derive(Debug)]
pub(crate) struct Ledger(Vec<Line>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Ledger {
    pub(crate) fn new(authors: u32) -> Self {
        Self((0..authors).map(|_| Line::default()).collect())
    }

    /// All records.
    pub(crate) fn total(&self) -> u64 {
        let counts = self.0.iter().map(|line| line.0.load(Ordering::Acquire));
        counts.sum()
    }

    /// The author of this number.
    pub(crate) fn author(&self, number: u32, record_bytes: u32, seed: u64) -> Author<'_> {
        let line = self.0.get(number as usize);
        let body_bytes = (record_bytes as usize).saturating_sub(CONTEXT_BYTES);
        let mut body = vec![0; body_bytes];
        Rng::with_seed(seed).fill(&mut body);
        Author {
            line: line.expect("every client has a line"),
            name: number.into(),
            appended: 0,
            context: [0; CONTEXT_BYTES],
            body,
        }
    }

    /// A last record of each author, so that a shortened log holds at least that one.
    pub(crate) fn last_words(
        &self,
        mut append: impl FnMut(&Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (name, line) in (0..).zip(&self.0) {
            let number = line.0.fetch_add(1, Ordering::AcqRel) + 1;
            append(&Record {
                tag: TAG,
                context: &context(name, number),
                body: &[],
            })?;
        }
        Ok(())
    }
}

/// Makes the records of one client.
#[derive(Debug)]
pub(crate) struct Author<'a> {
    line: &'a Line,
    name: u64,
    appended: u64,
    context: [u8; CONTEXT_BYTES],
    body: Vec<u8>,
}

impl Author<'_> {
    /// Makes the next record and has it appended.
    pub(crate) fn append<T, E>(
        &mut self,
        append: impl FnOnce(&Record<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let number = self.appended + 1;
        self.context = context(self.name, number);
        let appended = append(&Record {
            tag: TAG,
            context: &self.context,
            body: &[&self.body],
        })?;
        self.appended = number;
        self.line.0.store(number, Ordering::Release);
        Ok(appended)
    }
}

fn context(name: u64, number: u64) -> [u8; CONTEXT_BYTES] {
    let mut context = [0; CONTEXT_BYTES];
    let (first, second) = context.split_at_mut(NUMBER_BYTES);
    first.copy_from_slice(&name.to_le_bytes());
    second.copy_from_slice(&number.to_le_bytes());
    context
}

/// Reads records and compares them with what was appended.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Of each author the number of its last record so far.
    last: HashMap<u64, u64>,
    /// Bytes of contexts and bodies.
    pub(crate) bytes: u64,
}

impl Reader {
    /// Every author's records were there, up to the last.
    pub(crate) fn compare(&self, ledger: &Ledger) -> Result<(), Error> {
        for (name, line) in (0..).zip(&ledger.0) {
            let found = self.last.get(&name).copied().unwrap_or_default();
            let expected = line.0.load(Ordering::Acquire);
            Error::unless_equal("last record of a client in the log", expected, found)?;
        }
        Error::unless_equal(
            "clients in the log",
            ledger.0.len() as u64,
            self.last.len() as u64,
        )
    }
}

impl LogVisitor for Reader {
    fn record(&mut self, record: ScannedRecord<'_>) -> Result<(), VisitError> {
        let numbers = record.context.split_first_chunk::<NUMBER_BYTES>();
        let (name, number) = numbers
            .and_then(|(name, rest)| Some((name, rest.first_chunk::<NUMBER_BYTES>()?)))
            .ok_or(VisitError {
                what: "a record that no client has appended",
            })?;
        let number = u64::from_le_bytes(*number);
        let before = self.last.insert(u64::from_le_bytes(*name), number);
        if before.is_some_and(|before| number != before + 1) {
            return Err(VisitError {
                what: "a client's records are not in order",
            });
        }
        self.bytes += (record.context.len() + record.body.len()) as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lockstone_base::Lsn;

    use super::*;

    fn read(reader: &mut Reader, record: &Record<'_>) -> Result<(), VisitError> {
        reader.record(ScannedRecord {
            lsn: Lsn::new(64),
            tag: record.tag,
            context: record.context,
            body: record.body.first().copied().unwrap_or_default(),
        })
    }

    #[test]
    fn what_was_appended_is_found() {
        let ledger = Ledger::new(2);
        let mut reader = Reader::default();
        for (name, records) in [(0, 3), (1, 5)] {
            let mut author = ledger.author(name, 150, 1);
            for _ in 0..records {
                let written = author.append(|record| {
                    assert_eq!(record.bytes(), 150);
                    read(&mut reader, record)
                });
                written.unwrap();
            }
        }
        assert_eq!((ledger.total(), reader.bytes), (8, 8 * 150));
        reader.compare(&ledger).unwrap();
    }

    #[test]
    fn a_lost_record_is_found_out_wherever_it_was() {
        for lost in [1, 2, 3] {
            let ledger = Ledger::new(1);
            let mut reader = Reader::default();
            let mut author = ledger.author(0, 16, 1);
            let mut found = Ok(());
            for number in 1..=3 {
                found = found.and(author.append(|record| {
                    if number == lost {
                        return Ok(());
                    }
                    read(&mut reader, record)
                }));
            }
            // The first alone may be gone: a log is shortened at its head.
            let complete = found.is_ok() && reader.compare(&ledger).is_ok();
            assert_eq!(complete, lost == 1, "{lost}");
        }
    }

    #[test]
    fn an_author_whose_records_are_all_gone_is_missed() {
        let ledger = Ledger::new(2);
        let mut reader = Reader::default();
        let last_words = ledger.last_words(|record| {
            if record.context.first() == Some(&0) {
                read(&mut reader, record).unwrap();
            }
            Ok(())
        });
        last_words.unwrap();
        assert!(matches!(
            reader.compare(&ledger),
            Err(Error::WrongResult {
                expected: 1,
                found: 0,
                ..
            })
        ));
    }
}
