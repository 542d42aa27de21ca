//! K2: what transactions have spilled, as requests look it up: runs of locks that are no longer in memory, or are there too.
//!
//! Owned by `shards`; filled by `spill`, asked by `lookup`.
//! 1. A run is listed before any entry that it stands for leaves memory (V1). So whoever finds neither the run in a list nor the
//!    entry under the row latch, with the epoch unmoved in between, has missed none.
//! 2. Each change makes a new list and moves the epoch; whoever looks walks one list (V3). A run that takes the place of others
//!    is listed in the step in which they go.
//! 3. A run of an owner that has ended says nothing.
//!
//! Crash: memory only; recovery lists the runs of those who live on.

use std::error::Error;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lockstone_base::{FencingToken, LockMode, RowKey};
use parking_lot::Mutex;

use crate::owner::Owner;
use crate::ticket::Hold;

/// A record of a spilled lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpilledLock {
    /// The number in the run of the transaction that holds it: zero, if all are one transaction's.
    pub owner: u32,
    /// The mode.
    pub mode: LockMode,
    /// Whether the row is written.
    pub writes: bool,
    /// The sub-transaction that took or strengthened it.
    pub sub: u32,
    /// Its fencing token.
    pub token: FencingToken,
}

impl SpilledLock {
    pub(crate) fn hold(self) -> Hold {
        Hold {
            mode: self.mode,
            writes: self.writes,
            sub: self.sub,
            token: self.token,
        }
    }
}

/// Why a run could not be read.
#[derive(Debug, Clone)]
pub struct Unreadable(pub Arc<dyn Error + Send + Sync>);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Unreadable {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Unreadable {}

/// Locks that were spilled together: sorted, immutable, and slower to ask than memory. Asked without any latch held.
pub trait LockRun: fmt::Debug + Send + Sync {
    /// Calls `found` with every record of the row, whatever became of its sub-transaction since.
    ///
    /// # Errors
    /// If it cannot be read: then the row's lock is not to be had.
    fn find(&self, row: &RowKey, found: &mut dyn FnMut(SpilledLock)) -> Result<(), Unreadable>;

    /// Shows the records from a row on, by rows in order, until `see` breaks.
    ///
    /// # Errors
    /// As [`LockRun::find`].
    fn visit(
        &self,
        from: Bound<&RowKey>,
        see: &mut dyn FnMut(&RowKey, SpilledLock) -> ControlFlow<()>,
    ) -> Result<(), Unreadable>;
}

/// The name of a run that is listed, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(u64);

/// A run, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) id: RunId,
    pub(crate) run: Arc<dyn LockRun>,
    /// Those who live, with their numbers in it.
    pub(crate) owners: Vec<(u32, Arc<Owner>)>,
}

impl Listed {
    /// Whose a record is; nobody's, if he has ended.
    pub(crate) fn owner(&self, number: u32) -> Option<&Arc<Owner>> {
        let owner = self.owners.iter().find(|(other, _)| *other == number);
        owner.map(|(_, owner)| owner)
    }

    pub(crate) fn is_of(&self, owner: &Owner) -> bool {
        self.owners.iter().any(|(_, other)| owner.is(other))
    }

    /// Whether somebody else has locks in it that bind.
    pub(crate) fn concerns(&self, owner: &Owner) -> bool {
        let mut owners = self.owners.iter();
        owners.any(|(_, other)| !owner.is(other) && other.binds())
    }
}

/// All runs at one moment.
pub(crate) type RunList = Arc<Vec<Listed>>;

/// A list's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// The runs of all transactions.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    count: AtomicUsize,
    epoch: AtomicU64,
    ids: AtomicU64,
    list: Mutex<RunList>,
}

impl Runs {
    /// Whether there is any: one load. Under a row latch that is enough, however it is ordered, for the row: who lists a run and then
    /// drops the row's entry does that under the same latch, so whoever misses the entry sees the run counted, and the epoch moved.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// K2, under a row latch: whether there is no run, or none that has not been looked at.
    pub(crate) fn are_known(&self, looked: Option<Epoch>) -> bool {
        !self.any() || looked == Some(Epoch(self.epoch.load(Ordering::Relaxed)))
    }

    /// The list, with its number.
    pub(crate) fn now(&self) -> (Epoch, RunList) {
        let list = self.list.lock();
        let epoch = self.epoch.load(Ordering::Relaxed);
        (Epoch(epoch), Arc::clone(&list))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Listed>) -> T) -> T {
        let mut list = self.list.lock();
        let mut next = Vec::clone(&list);
        let changed = change(&mut next);
        self.count.store(next.len(), Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        *list = Arc::new(next);
        changed
    }

    /// V1, V3: lists runs of an owner, each with his number in it, in the place of some others of his. A run of several owners is
    /// listed once for each. Their names, and in how many others' place they stand.
    pub(crate) fn list(
        &self,
        owner: &Arc<Owner>,
        runs: &[(Arc<dyn LockRun>, u32)],
        replaces: &[RunId],
    ) -> (Vec<RunId>, usize) {
        self.change(|list| {
            let gone = leave(list, owner, |listed| replaces.contains(&listed.id));
            let ids = runs.iter().map(|(run, number)| {
                let same = list.iter_mut().find(|listed| Arc::ptr_eq(&listed.run, run));
                if let Some(listed) = same {
                    listed.owners.push((*number, Arc::clone(owner)));
                    return listed.id;
                }
                let id = RunId(self.ids.fetch_add(1, Ordering::Relaxed));
                list.push(Listed {
                    id,
                    run: Arc::clone(run),
                    owners: vec![(*number, Arc::clone(owner))],
                });
                id
            });
            (ids.collect(), gone)
        })
    }

    /// K5: an owner has ended: its runs say nothing any more.
    pub(crate) fn forget(&self, owner: &Owner) {
        self.change(|list| {
            leave(list, owner, |_| true);
        });
    }
}

/// Takes an owner out of some runs, and says of how many; those that are nobody's then go.
fn leave(list: &mut Vec<Listed>, owner: &Owner, which: impl Fn(&Listed) -> bool) -> usize {
    let mut left = 0;
    list.retain_mut(|listed| {
        if which(listed) {
            let before = listed.owners.len();
            listed.owners.retain(|(_, other)| !owner.is(other));
            left += before - listed.owners.len();
        }
        !listed.owners.is_empty()
    });
    left
}
