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
    /// Those who live, with their numbers in it, which ascend as their ids do: a run may have a thousand.
    pub(crate) owners: Arc<Vec<(u32, Arc<Owner>)>>,
}

impl Listed {
    /// Whose a record is; nobody's, if he has ended.
    pub(crate) fn owner(&self, number: u32) -> Option<&Arc<Owner>> {
        let at = self
            .owners
            .binary_search_by_key(&number, |(other, _)| *other);
        let owner = at.ok().and_then(|at| self.owners.get(at));
        owner.map(|(_, owner)| owner)
    }

    pub(crate) fn is_of(&self, owner: &Owner) -> bool {
        let at = (self.owners).binary_search_by_key(&owner.id(), |(_, other)| other.id());
        at.is_ok()
    }

    fn join(&mut self, number: u32, owner: &Arc<Owner>) {
        let before = |(other, _): &(u32, _)| *other < number;
        let at = self.owners.partition_point(before);
        Arc::make_mut(&mut self.owners).insert(at, (number, Arc::clone(owner)));
        let ascend = |a: &(u32, Arc<Owner>), b: &(u32, Arc<Owner>)| a.1.id() < b.1.id();
        assert!(
            self.owners.is_sorted_by(ascend),
            "V2: the owners of a run are numbered as their ids ascend"
        );
    }

    /// How often the owner was in it.
    fn leave(&mut self, owner: &Owner) -> usize {
        if !self.is_of(owner) {
            return 0;
        }
        let before = self.owners.len();
        Arc::make_mut(&mut self.owners).retain(|(_, other)| !owner.is(other));
        before - self.owners.len()
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
                    listed.join(*number, owner);
                    return listed.id;
                }
                let listed = self.listed(run, vec![(*number, Arc::clone(owner))]);
                let id = listed.id;
                list.push(listed);
                id
            });
            (ids.collect(), gone)
        })
    }

    fn listed(&self, run: &Arc<dyn LockRun>, owners: Vec<(u32, Arc<Owner>)>) -> Listed {
        Listed {
            id: RunId(self.ids.fetch_add(1, Ordering::Relaxed)),
            run: Arc::clone(run),
            owners: Arc::new(owners),
        }
    }

    /// V2: lists mixed runs of these owners, in the order of their numbers and ids.
    pub(crate) fn list_mixed(
        &self,
        runs: &[Arc<dyn LockRun>],
        owners: &[Arc<Owner>],
    ) -> Vec<RunId> {
        assert!(
            owners.is_sorted_by(|a, b| a.id() < b.id()),
            "V2: the owners of a run are numbered as their ids ascend"
        );
        let numbered = || (0..).zip(owners.iter().cloned()).collect();
        self.change(|list| {
            let ids = runs.iter().map(|run| {
                list.push(self.listed(run, numbered()));
                list.last().map(|listed| listed.id)
            });
            ids.flatten().collect()
        })
    }

    /// V2: these owners have no part in some runs.
    pub(crate) fn leave(&self, runs: &[RunId], owners: &[Arc<Owner>]) {
        self.change(|list| {
            for owner in owners {
                leave(list, owner, |listed| runs.contains(&listed.id));
            }
        });
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
            left += listed.leave(owner);
        }
        !listed.owners.is_empty()
    });
    left
}
