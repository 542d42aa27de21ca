//! Which calls of a simulated disk fail, and how.

use std::io::ErrorKind;

use lockstone_base::disk::DiskOp;

#[derive(Debug, Clone)]
enum When {
    /// The mutating call of this number.
    At(u64),
    /// Every mutating call from this number on.
    From(u64),
    /// Every call of this kind on names that begin so.
    Matching(DiskOp, String),
}

#[derive(Debug, Clone)]
struct Rule {
    when: When,
    kind: ErrorKind,
}

/// The rules in force, and how often one struck.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Rule>,
    pub(super) fired: u64,
}

impl Faults {
    pub(super) fn at(&mut self, number: u64, kind: ErrorKind) {
        self.add(When::At(number), kind);
    }

    pub(super) fn from(&mut self, number: u64, kind: ErrorKind) {
        self.add(When::From(number), kind);
    }

    pub(super) fn matching(&mut self, op: DiskOp, prefix: &str, kind: ErrorKind) {
        self.add(When::Matching(op, prefix.to_owned()), kind);
    }

    fn add(&mut self, when: When, kind: ErrorKind) {
        self.rules.push(Rule { when, kind });
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// The error that the mutating call of this number gets for its number alone.
    pub(super) fn strike_number(&mut self, number: u64) -> Option<ErrorKind> {
        let rule = self.rules.iter().find(|rule| match &rule.when {
            When::At(at) => number == *at,
            When::From(from) => number >= *from,
            When::Matching(..) => false,
        })?;
        self.fired += 1;
        Some(rule.kind)
    }

    /// The error that a call gets; `number` is that of a mutating call.
    pub(super) fn strike(
        &mut self,
        op: DiskOp,
        name: &str,
        number: Option<u64>,
    ) -> Option<ErrorKind> {
        let rule = self.rules.iter().find(|rule| match &rule.when {
            When::At(at) => number == Some(*at),
            When::From(from) => number.is_some_and(|number| number >= *from),
            When::Matching(of, prefix) => *of == op && name.starts_with(prefix.as_str()),
        })?;
        self.fired += 1;
        Some(rule.kind)
    }
}
