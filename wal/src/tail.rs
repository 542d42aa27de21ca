//! Torn or corrupt? What the end of the chain means, as a table (G6).
//!
//! `scan` gathers the evidence and asks here; nothing else decides.
//! 1. Whatever says that more had been acknowledged than the chain holds makes it corrupt.
//! 2. Only without any such witness are leftovers behind the end a torn tail, which is dropped.
//! 3. Every input meets exactly one row.

/// What speaks about the end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the columns of a decision table"
)]
pub(crate) struct Evidence {
    /// The segment in which the manifest's position lies is not there.
    pub(crate) start_missing: bool,
    /// The manifest, or a segment's header, says that there is a segment which is not there (F14).
    pub(crate) segment_missing: bool,
    /// The manifest says that the log was durable beyond the end.
    pub(crate) manifest_beyond: bool,
    /// An intact frame header at its own place says so.
    pub(crate) header_beyond: bool,
    /// An intact frame header names a manifest that is not there.
    pub(crate) manifest_missing: bool,
    /// Something that was meant to be a frame lies at or behind the end.
    pub(crate) leftovers: bool,
}

/// What the end of the chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was ever written behind it.
    Clean,
    /// What lies behind it was never acknowledged: drop it.
    Torn,
    /// Acknowledged data is damaged or gone: refuse.
    Corrupt(Charge),
}

/// What is held against the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    StartMissing,
    SegmentMissing,
    ManifestBeyond,
    HeaderBeyond,
    ManifestMissing,
}

impl Charge {
    /// For messages.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::StartMissing => "the segment at which recovery has to start is missing",
            Self::SegmentMissing => "a segment of the log is missing",
            Self::ManifestBeyond => {
                "the chain ends here, but the manifest says that the log was durable beyond"
            }
            Self::HeaderBeyond => {
                "the chain ends here, but a later frame says that the log was durable beyond"
            }
            Self::ManifestMissing => "a frame names a newer manifest than the newest there is",
        }
    }
}

/// One row: what each kind of evidence must be, in the order of [`Evidence`]; `None` is any.
type Row = ([Option<bool>; 6], Verdict);

const NO: Option<bool> = Some(false);
const YES: Option<bool> = Some(true);
const ANY: Option<bool> = None;

/// Start missing, segment missing, manifest beyond, header beyond, manifest missing, leftovers.
const TABLE: [Row; 7] = [
    (
        [YES, ANY, ANY, ANY, ANY, ANY],
        Verdict::Corrupt(Charge::StartMissing),
    ),
    (
        [NO, YES, ANY, ANY, ANY, ANY],
        Verdict::Corrupt(Charge::SegmentMissing),
    ),
    (
        [NO, NO, YES, ANY, ANY, ANY],
        Verdict::Corrupt(Charge::ManifestBeyond),
    ),
    (
        [NO, NO, NO, YES, ANY, ANY],
        Verdict::Corrupt(Charge::HeaderBeyond),
    ),
    (
        [NO, NO, NO, NO, YES, ANY],
        Verdict::Corrupt(Charge::ManifestMissing),
    ),
    ([NO, NO, NO, NO, NO, YES], Verdict::Torn),
    ([NO, NO, NO, NO, NO, NO], Verdict::Clean),
];

impl Evidence {
    /// What the end of the chain is.
    pub(crate) fn verdict(self) -> Verdict {
        TABLE
            .iter()
            .find(|(row, _)| self.meets(*row))
            .map(|(_, verdict)| *verdict)
            .expect("G6: the table covers every evidence, as its test shows")
    }

    fn meets(self, row: [Option<bool>; 6]) -> bool {
        let seen = [
            self.start_missing,
            self.segment_missing,
            self.manifest_beyond,
            self.header_beyond,
            self.manifest_missing,
            self.leftovers,
        ];
        row.into_iter()
            .zip(seen)
            .all(|(asked, seen)| asked.is_none_or(|asked| asked == seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_evidence() -> impl Iterator<Item = Evidence> {
        (0..64_u32).map(|bits| Evidence {
            start_missing: bits & 1 != 0,
            segment_missing: bits & 2 != 0,
            manifest_beyond: bits & 4 != 0,
            header_beyond: bits & 8 != 0,
            manifest_missing: bits & 16 != 0,
            leftovers: bits & 32 != 0,
        })
    }

    #[test]
    fn every_evidence_meets_exactly_one_row() {
        for evidence in every_evidence() {
            let rows = TABLE.iter().filter(|(row, _)| evidence.meets(*row)).count();
            assert_eq!(rows, 1, "{evidence:?}");
        }
    }

    #[test]
    fn any_witness_makes_it_corrupt_and_leftovers_alone_make_it_torn() {
        for evidence in every_evidence() {
            let witness = evidence.start_missing
                || evidence.segment_missing
                || evidence.manifest_beyond
                || evidence.header_beyond
                || evidence.manifest_missing;
            let verdict = evidence.verdict();
            assert_eq!(
                matches!(verdict, Verdict::Corrupt(_)),
                witness,
                "{evidence:?}"
            );
            if !witness {
                let expected = if evidence.leftovers {
                    Verdict::Torn
                } else {
                    Verdict::Clean
                };
                assert_eq!(verdict, expected);
            }
        }
    }
}
