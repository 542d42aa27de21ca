//! Runs of locks as tests make them: lists in memory, which may do something else while they are asked.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test uses its part, and fails by panicking"
)]

use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use lockstone_base::RowKey;
use lockstone_locks::{CopiedLock, LockRun, LockTable, Owner, RunId, SpilledLock, Unreadable};

/// What happens while a run is asked.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// A run of locks.
#[derive(Default)]
pub(crate) struct FakeRun {
    records: Vec<(RowKey, SpilledLock)>,
    meanwhile: Mutex<Option<Meanwhile>>,
    is_damaged: AtomicBool,
}

impl FakeRun {
    pub(crate) fn new(locks: impl IntoIterator<Item = CopiedLock>) -> Arc<Self> {
        let locks = locks.into_iter().map(|copied| (copied.row, copied.lock));
        let mut records: Vec<_> = locks.collect();
        // Of one row the newest first.
        records.sort_by(|(a, one), (b, other)| (a, other.sub).cmp(&(b, one.sub)));
        Arc::new(Self {
            records,
            ..Self::default()
        })
    }

    /// Several owners' locks, by their numbers.
    pub(crate) fn mixed(locks: Vec<Vec<CopiedLock>>) -> Arc<Self> {
        let numbered = locks.into_iter().zip(0..);
        Self::new(numbered.flat_map(|(locks, number)| {
            locks.into_iter().map(move |mut copied| {
                copied.lock.owner = number;
                copied
            })
        }))
    }

    pub(crate) fn records(&self) -> &[(RowKey, SpilledLock)] {
        &self.records
    }

    /// Once, when it is asked next: after what it knows was looked up.
    pub(crate) fn meanwhile(&self, act: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(act));
    }

    pub(crate) fn damage(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    fn asked(&self) -> Result<(), Unreadable> {
        let act = self.meanwhile.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        if self.is_damaged.load(Ordering::Relaxed) {
            return Err(Unreadable(Arc::new(io::Error::other("damaged"))));
        }
        Ok(())
    }
}

impl LockRun for FakeRun {
    fn find(&self, row: &RowKey, found: &mut dyn FnMut(SpilledLock)) -> Result<(), Unreadable> {
        let from = self.records.partition_point(|(other, _)| other < row);
        let of_row = self.records.iter().skip(from);
        for (_, lock) in of_row.take_while(|(other, _)| other == row) {
            found(*lock);
        }
        self.asked()
    }

    fn visit(
        &self,
        from: Bound<&RowKey>,
        see: &mut dyn FnMut(&RowKey, SpilledLock) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        self.asked()?;
        for (row, lock) in &self.records {
            let is_there = match from {
                Bound::Included(from) => row >= from,
                Bound::Excluded(from) => row > from,
                Bound::Unbounded => true,
            };
            if is_there && see(row, *lock).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FakeRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.records).finish()
    }
}

/// V1, from the copy to the drop; the run, if the owner lived.
pub(crate) fn spill(locks: &LockTable, owner: &Arc<Owner>) -> Option<(RunId, Arc<FakeRun>)> {
    let run = FakeRun::new(locks.copy_locks(owner, 0).locks);
    let id = publish(locks, owner, &run, &[])?;
    locks.drop_copied(owner);
    Some((id, run))
}

/// V3: some runs as one.
pub(crate) fn merged<'a>(runs: impl Iterator<Item = &'a Arc<FakeRun>>) -> Arc<FakeRun> {
    let records = runs.flat_map(|run| run.records().to_vec());
    FakeRun::new(records.map(|(row, lock)| CopiedLock { row, lock }))
}

/// V1: publishes an owner's own run.
pub(crate) fn publish(
    locks: &LockTable,
    owner: &Arc<Owner>,
    run: &Arc<FakeRun>,
    replaces: &[RunId],
) -> Option<RunId> {
    publish_part(locks, owner, (run, 0), replaces)
}

pub(crate) fn publish_part(
    locks: &LockTable,
    owner: &Arc<Owner>,
    (run, number): (&Arc<FakeRun>, u32),
    replaces: &[RunId],
) -> Option<RunId> {
    let run: Arc<dyn LockRun> = run.clone();
    let log = |_: &[_]| Ok::<(), ()>(());
    let ids = locks.publish(owner, &[(run, number)], replaces, log);
    ids.unwrap().map(|ids| ids[0])
}
