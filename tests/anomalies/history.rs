//! What transactions did with lists: who appended what where, who read what, who committed when.

/// A list.
pub(crate) type Key = u32;
/// What is appended: never the same twice.
pub(crate) type Element = u32;

/// One thing that a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Append(Key, Element),
    Read(Key, Vec<Element>),
}

/// A transaction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Txn {
    pub(crate) steps: Vec<Step>,
    /// Where it stands in the order of commits, or what it has read at; `None`: it was rolled back.
    pub(crate) lsn: Option<u64>,
}

impl Txn {
    pub(crate) fn appends(&self) -> impl Iterator<Item = (Key, Element)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Append(key, element) => Some((*key, *element)),
            Step::Read(..) => None,
        })
    }

    pub(crate) fn reads(&self) -> impl Iterator<Item = (Key, &[Element])> {
        self.steps.iter().filter_map(|step| match step {
            Step::Read(key, list) => Some((*key, list.as_slice())),
            Step::Append(..) => None,
        })
    }

    pub(crate) fn writes(&self) -> bool {
        self.appends().next().is_some()
    }
}
