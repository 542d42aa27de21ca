//! Which row modes conflict: the one table behind every decision.
//!
//! Called by whoever decides. LOCKING's "Row modes" mirrors it.
//! 1. Conflict is symmetric, and a stronger mode conflicts with all that a weaker one does: so a
//!    holder's mode is the strongest it was granted, and covers every weaker one.
//!
//! Crash: holds no state.

use lockstone_base::LockMode;

/// Whether a request for `requested` conflicts with another transaction that holds `held`.
pub const fn conflicts(requested: LockMode, held: LockMode) -> bool {
    conflicting(requested).has(held)
}

/// The modes of others that a request for `requested` conflicts with.
pub(crate) const fn conflicting(requested: LockMode) -> ModeSet {
    //                                           KeyShare Share NoKeyUpdate Update
    match requested {
        LockMode::KeyShare => ModeSet::row([0, 0, 0, 1]),
        LockMode::Share => ModeSet::row([0, 0, 1, 1]),
        LockMode::NoKeyUpdate => ModeSet::row([0, 1, 1, 1]),
        LockMode::Update => ModeSet::row([1, 1, 1, 1]),
    }
}

/// A set of modes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ModeSet(u8);

impl ModeSet {
    pub(crate) const EMPTY: Self = Self(0);

    const fn row([key_share, share, no_key_update, update]: [u8; 4]) -> Self {
        Self(key_share | share << 1 | no_key_update << 2 | update << 3)
    }

    pub(crate) const fn has(self, mode: LockMode) -> bool {
        self.0 & bit(mode) != 0
    }

    #[must_use]
    pub(crate) const fn with(self, mode: LockMode) -> Self {
        Self(self.0 | bit(mode))
    }

    /// With this mode, and all that are stronger.
    #[must_use]
    pub(crate) const fn with_stronger(self, mode: LockMode) -> Self {
        Self(self.0 | (0b1111 & !(bit(mode) - 1)))
    }

    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

const fn bit(mode: LockMode) -> u8 {
    1 << column(mode)
}

/// The mode's place in a table of all modes.
pub(crate) const fn column(mode: LockMode) -> usize {
    mode as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documented table, cell by cell: X where requested (row) conflicts with held (column).
    const DOCUMENTED: [(LockMode, [&str; 4]); 4] = [
        (LockMode::KeyShare, ["", "", "", "X"]),
        (LockMode::Share, ["", "", "X", "X"]),
        (LockMode::NoKeyUpdate, ["", "X", "X", "X"]),
        (LockMode::Update, ["X", "X", "X", "X"]),
    ];

    #[test]
    fn every_pair_of_modes_meets_its_documented_cell() {
        for (requested, cells) in DOCUMENTED {
            for (held, cell) in LockMode::ALL.into_iter().zip(cells) {
                assert_eq!(
                    conflicts(requested, held),
                    cell == "X",
                    "{requested} {held}"
                );
            }
        }
    }

    #[test]
    fn conflict_is_symmetric_and_grows_with_strength() {
        for a in LockMode::ALL {
            for b in LockMode::ALL {
                assert_eq!(conflicts(a, b), conflicts(b, a));
                for weaker in LockMode::ALL.into_iter().filter(|mode| *mode < a) {
                    assert!(conflicts(a, b) || !conflicts(weaker, b));
                }
            }
        }
    }

    #[test]
    fn the_readme_shows_this_matrix() {
        let readme = include_str!("../README.md");
        for (requested, cells) in DOCUMENTED {
            let cells = cells.map(|cell| if cell.is_empty() { "|" } else { " X |" });
            let cells: String = cells
                .iter()
                .map(|cell| if *cell == "|" { " |" } else { *cell })
                .collect();
            let line = format!("| {requested} |{cells}");
            assert!(readme.contains(&line), "README.md lacks the line {line:?}");
        }
    }
}
