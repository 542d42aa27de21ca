//! What the documents say of conflicts, for tests that hold the table to it: nothing here asks the code.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test uses its part, and fails by panicking"
)]

use std::ops::Range;
use std::sync::{Condvar, LazyLock, Mutex};
use std::time::Duration;

use lockstone_base::LockMode;
use lockstone_locks::{Notify, TableMode};

/// The matrix of the README: a line for each mode that is requested, a column for each that is held.
static MATRIX: LazyLock<[[bool; 4]; 4]> = LazyLock::new(|| {
    let readme = include_str!("../../README.md");
    LockMode::ALL.map(|requested| {
        let start = format!("| {requested} |");
        let line = readme
            .lines()
            .find(|line| line.starts_with(&start))
            .unwrap();
        let cells: Vec<&str> = line.split('|').skip(2).map(str::trim).collect();
        std::array::from_fn(|held| match cells[held] {
            "X" => true,
            "" => false,
            other => panic!("{line}: {other}"),
        })
    })
});

/// Whether the modes of two transactions conflict on a row.
pub(crate) fn conflict(requested: LockMode, held: LockMode) -> bool {
    MATRIX[requested as usize - 1][held as usize - 1]
}

/// What is locked, over keys of one byte in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A row that is locked, or that is written.
    Row(u8, LockMode, bool),
    /// The keys from the first up to the second.
    Range(u8, u8, LockMode),
    Table(TableMode),
}

impl What {
    pub(crate) const SHARED: Self = Self::Table(TableMode::Shared);
    pub(crate) const EXCLUSIVE: Self = Self::Table(TableMode::Exclusive);

    pub(crate) fn put(key: u8) -> Self {
        Self::Row(key, LockMode::NoKeyUpdate, true)
    }

    /// The keys, the mode, and whether it is a range; a table has neither.
    pub(crate) fn keys(self) -> Option<(Range<u8>, LockMode, bool)> {
        match self {
            Self::Row(key, mode, _) => Some((key..key + 1, mode, false)),
            Self::Range(from, to, mode) => Some((from..to, mode, true)),
            Self::Table(_) => None,
        }
    }

    /// The mode that ranges see: a write may insert.
    fn beside_ranges(self) -> Option<LockMode> {
        match self {
            Self::Row(_, _, true) => Some(LockMode::Update),
            Self::Row(_, mode, false) | Self::Range(_, _, mode) => Some(mode),
            Self::Table(_) => None,
        }
    }

    /// Two transactions cannot have both. Whoever locks rows shares the table.
    pub(crate) fn conflicts_with(self, other: Self) -> bool {
        let (Some((own, mode, is_range)), Some((others, held, other_is_range))) =
            (self.keys(), other.keys())
        else {
            return self == Self::EXCLUSIVE || other == Self::EXCLUSIVE;
        };
        let meet = own.start < others.end && others.start < own.end;
        let (mode, held) = if is_range || other_is_range {
            (
                self.beside_ranges().unwrap(),
                other.beside_ranges().unwrap(),
            )
        } else {
            (mode, held)
        };
        meet && conflict(mode, held)
    }

    /// Whoever has this has the other too, if only by it.
    pub(crate) fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Table(held), Self::Table(asked)) => {
                held == TableMode::Exclusive || asked == TableMode::Shared
            }
            (Self::Table(_), _) | (_, Self::Table(_)) | (Self::Row(..), Self::Range(..)) => false,
            (Self::Row(own, held, _), Self::Row(key, mode, _)) => {
                own == key && held >= mode && self.beside_ranges() >= other.beside_ranges()
            }
            (Self::Range(from, to, held), _) => {
                let (keys, ..) = other.keys().unwrap();
                from <= keys.start && keys.end <= to && Some(held) >= other.beside_ranges()
            }
        }
    }
}

/// xorshift64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Nobody sleeps so long.
const STUCK: Duration = Duration::from_secs(20);

/// Where the thread of a transaction sleeps.
#[derive(Default)]
pub(crate) struct Parker {
    noticed: Mutex<bool>,
    changed: Condvar,
}

impl Notify for Parker {
    fn notify(&self) {
        *self.noticed.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Parker {
    /// Whether it was woken in time.
    pub(crate) fn park(&self) -> bool {
        let noticed = self.noticed.lock().unwrap();
        let asleep = |noticed: &mut bool| !*noticed;
        let waited = self.changed.wait_timeout_while(noticed, STUCK, asleep);
        let (mut noticed, waited) = waited.unwrap();
        *noticed = false;
        !waited.timed_out()
    }
}
