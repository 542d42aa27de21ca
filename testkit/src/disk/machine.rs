//! The running side of a simulated disk: it numbers the calls, lets faults strike, records, and finds
//! its way back to any moment of the recording.
//!
//! Called by `sim_disk` and `sim_file`, under one latch: calls of several threads are recorded in the
//! order in which they are carried out.
//!
//! 1. Call `n` is the `n`-th mutating one, from 1; moment `n` is after call `n` and before the next.
//! 2. The state at a moment is that of the newest checkpoint before it with the calls since carried
//!    out again; recording a call and repeating it are the same code.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use fastrand::Rng;
use lockstone_base::disk::{DiskOp, FileLock};

use super::PAGE_BYTES;
use super::call::{Action, Call, FileId, Stage, Unit, Write};
use super::content::Content;
use super::faults::Faults;
use super::state::{Inode, State};
use super::survivors::{Survivors, after_kill, after_power_loss, writes_in_flight};

/// How many calls lie between two checkpoints: few enough to repeat quickly, so many that a long
/// recording does not consist of checkpoints.
const CHECKPOINT_CALLS: usize = 64;

/// No test needs a longer file; a wild offset must not take the test's memory.
const FILE_BYTES_MAX: u64 = 1 << 36;

/// Which of several log writes in flight ends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FinishOrder {
    /// The one that was started first.
    #[default]
    Oldest,
    /// The one that was started last.
    Newest,
    /// Any, as the seed draws them.
    Drawn(u64),
}

/// A durable write that has begun.
#[derive(Debug)]
pub(super) struct Started {
    number: u64,
    write: Write,
    /// What its end will tell.
    failed: Option<ErrorKind>,
}

/// A byte that the device has inverted, below what the cache has, of a file that is not written any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Below {
    file: FileId,
    at: u64,
    /// The moment from which on.
    since: u64,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) state: State,
    pub(super) faults: Faults,
    pub(super) capacity: Option<u64>,
    /// Bytes that are inverted on the device, while the cache has them as they were.
    pub(super) below_cache: Vec<Below>,
    calls: Vec<Call>,
    checkpoints: Vec<State>,
    /// Where the last rebuild stood: enumerations go forward.
    cursor: (u64, State),
    locks: Vec<(FileId, u64, FileLock)>,
    handles: u64,
    rng: Rng,
    order: FinishOrder,
    order_rng: Rng,
}

impl Machine {
    pub(super) fn new(state: State, seed: u64, capacity: Option<u64>) -> Self {
        Self {
            checkpoints: vec![state.clone()],
            cursor: (0, state.clone()),
            state,
            faults: Faults::default(),
            capacity,
            below_cache: Vec::new(),
            calls: Vec::new(),
            locks: Vec::new(),
            handles: 0,
            rng: Rng::with_seed(seed),
            order: FinishOrder::default(),
            order_rng: Rng::with_seed(0),
        }
    }

    pub(super) fn io_count(&self) -> u64 {
        self.calls.len() as u64
    }

    pub(super) fn call(&self, number: u64) -> Option<&Call> {
        let index = number.checked_sub(1)?;
        self.calls.get(index as usize)
    }

    /// Makes a call whose effect is all or nothing.
    pub(super) fn perform(
        &mut self,
        op: DiskOp,
        name: &Arc<str>,
        action: Action,
    ) -> Result<(), ErrorKind> {
        let failed = self.faults.strike(op, name, Some(self.io_count() + 1));
        let action = match (failed, &action) {
            // A failed sync has an effect: it strands what it should have written.
            (Some(_), Action::Sync { .. } | Action::SyncDir) | (None, _) => action,
            (Some(_), _) => Action::Nothing,
        };
        self.record(op, name, action, failed)
    }

    /// Writes; a failure leaves any part behind: of a plain write some first bytes in the cache, of a
    /// durable one everything, in doubt.
    pub(super) fn write(
        &mut self,
        op: DiskOp,
        name: &Arc<str>,
        mut write: Write,
    ) -> Result<(), ErrorKind> {
        let len = write.payload.len();
        check_end(write.offset.saturating_add(len as u64))?;
        let fits = self.fitting(&write);
        let struck = self.faults.strike(op, name, Some(self.io_count() + 1));
        let full = (fits < len).then_some(ErrorKind::StorageFull);
        let durable = op == DiskOp::WriteDurable;
        let kept = match struck {
            Some(_) if !durable => self.rng.usize(..=fits),
            _ => fits,
        };
        write.payload = write.payload.slice(0..kept);
        let action = if durable {
            Action::WriteDurable(write)
        } else {
            Action::Write(write)
        };
        self.record(op, name, action, struck.or(full))
    }

    /// Begins a durable write. A fault that strikes this call strikes the end of the write: no error can
    /// be told before.
    pub(super) fn start(
        &mut self,
        name: &Arc<str>,
        mut write: Write,
    ) -> Result<Started, ErrorKind> {
        let len = write.payload.len();
        check_end(write.offset.saturating_add(len as u64))?;
        let number = self.io_count() + 1;
        let fits = self.fitting(&write);
        let full = (fits < len).then_some(ErrorKind::StorageFull);
        let failed = self.faults.strike_number(number).or(full);
        write.payload = write.payload.slice(0..fits);
        self.record(
            DiskOp::WriteDurable,
            name,
            Action::Start(write.clone()),
            None,
        )?;
        Ok(Started {
            number,
            write,
            failed,
        })
    }

    /// Ends a durable write: its bytes are on the device, or in doubt if it fails.
    pub(super) fn finish(&mut self, name: &Arc<str>, started: Started) -> Result<(), ErrorKind> {
        let (op, number) = (DiskOp::WriteDurable, self.io_count() + 1);
        let struck = || self.faults.strike(op, name, Some(number));
        let failed = started.failed.or_else(struck);
        let action = Action::Finish {
            started: started.number,
            write: started.write,
        };
        self.record(op, name, action, failed)
    }

    pub(super) fn set_finish_order(&mut self, order: FinishOrder) {
        self.order = order;
        if let FinishOrder::Drawn(seed) = order {
            self.order_rng = Rng::with_seed(seed);
        }
    }

    /// Which of this many writes in flight, in the order of their starts, ends next.
    pub(super) fn next_to_finish(&mut self, in_flight: usize) -> usize {
        assert!(in_flight > 0, "a write is in flight");
        match self.order {
            FinishOrder::Oldest => 0,
            FinishOrder::Newest => in_flight - 1,
            FinishOrder::Drawn(_) => self.order_rng.usize(..in_flight),
        }
    }

    pub(super) fn set_len(
        &mut self,
        name: &Arc<str>,
        file: FileId,
        bytes: u64,
    ) -> Result<(), ErrorKind> {
        check_end(bytes)?;
        self.perform(DiskOp::SetLen, name, Action::SetLen { file, bytes })
    }

    /// From now on the device has a byte inverted, and the cache as it was.
    pub(super) fn flip_below_cache(&mut self, file: FileId, at: u64) {
        let since = self.io_count();
        self.below_cache.push(Below { file, at, since });
    }

    /// The cache forgets a part of a file: what was below it is seen.
    pub(super) fn surface(&mut self, name: &Arc<str>, file: FileId, place: &Range<u64>) {
        let here = |below: &mut Below| below.file == file && place.contains(&below.at);
        let flipped: Vec<_> = self.below_cache.extract_if(.., here).collect();
        let inode = self.state.inodes.get(&file);
        let Some(inode) = inode.filter(|_| !flipped.is_empty()) else {
            return;
        };
        let content = Some(inverted(&inode.cached, &flipped));
        self.tamper(name, Action::Tamper { file, content });
    }

    /// What the device gives to a read past the cache.
    pub(super) fn beyond_cache(&self, file: FileId) -> Content {
        let content = self.state.beyond_cache(file);
        self.below(file, self.io_count(), content)
    }

    /// The content of a file as the device has it at moment `at`.
    fn below(&self, file: FileId, at: u64, content: Content) -> Content {
        let is_there = |below: &&Below| below.file == file && below.since <= at;
        let flipped: Vec<_> = self.below_cache.iter().filter(is_there).copied().collect();
        if flipped.is_empty() {
            return content;
        }
        inverted(&content, &flipped)
    }

    /// A test's own change: never fails, and is durable.
    pub(super) fn tamper(&mut self, name: &Arc<str>, action: Action) {
        let recorded = self.record(DiskOp::Write, name, action, None);
        recorded.expect("no fault strikes a test's own change");
    }

    fn record(
        &mut self,
        op: DiskOp,
        name: &Arc<str>,
        action: Action,
        failed: Option<ErrorKind>,
    ) -> Result<(), ErrorKind> {
        let call = Call {
            op,
            name: name.clone(),
            action,
            failed,
        };
        self.state.apply(self.io_count() + 1, &call);
        self.calls.push(call);
        if self.calls.len().is_multiple_of(CHECKPOINT_CALLS) {
            self.checkpoints.push(self.state.clone());
        }
        failed.map_or(Ok(()), Err)
    }

    /// How many bytes of a write there is room for.
    fn fitting(&self, write: &Write) -> usize {
        let (offset, len) = (write.offset, write.payload.len());
        let Some(capacity) = self.capacity else {
            return len;
        };
        let inode = self.state.inodes.get(&write.file);
        let mut free = capacity.saturating_sub(self.state.room());
        let (mut at, end) = (offset, offset + len as u64);
        let page = PAGE_BYTES as u64;
        while at < end {
            if !inode.is_some_and(|inode| inode.cached.has_room_at(at)) {
                if free < page {
                    return (at - offset) as usize;
                }
                free -= page;
            }
            at = (at / page + 1) * page;
        }
        len
    }

    /// The state at moment `at`.
    fn state_at(&mut self, at: u64) -> &State {
        assert!(
            at <= self.io_count(),
            "moment {at} is not recorded: there were {} calls",
            self.io_count()
        );
        let checkpoint = at as usize / CHECKPOINT_CALLS;
        let from = (checkpoint * CHECKPOINT_CALLS) as u64;
        if self.cursor.0 > at || self.cursor.0 < from {
            let state = self.checkpoints.get(checkpoint);
            let state = state.expect("a checkpoint was kept at each of its multiples");
            self.cursor = (from, state.clone());
        }
        let (number, state) = &mut self.cursor;
        while *number < at {
            if let Some(call) = self.calls.get(*number as usize) {
                state.apply(*number + 1, call);
            }
            *number += 1;
        }
        state
    }

    /// The units at stake at moment `at`: those that no sync covers, then those of the call in flight.
    fn units_at(&mut self, at: u64) -> Vec<Unit> {
        let next = self.call(at + 1).cloned();
        let state = self.state_at(at);
        let mut units = state.units.clone();
        if let Some(call) = next {
            let changes = state.changes(&call.action, &call.name);
            units.extend(changes.into_iter().map(|change| Unit {
                number: at + 1,
                change,
                stage: Stage::Cached,
            }));
        }
        units
    }

    pub(super) fn unsynced(&mut self, at: u64) -> usize {
        self.units_at(at).len()
    }

    pub(super) fn after_crash(&mut self, at: u64, survivors: Survivors) -> State {
        let units = self.units_at(at);
        let mut after = after_power_loss(self.state_at(at), &units, survivors);
        for (file, inode) in &mut after.inodes {
            let content = inode.durable.clone();
            *inode = Inode::settled(self.below(*file, at, content));
        }
        after
    }

    /// How many log writes are in flight at moment `at`.
    pub(super) fn in_flight(&mut self, at: u64) -> usize {
        writes_in_flight(self.state_at(at)).len()
    }

    /// What the device has inverted below the cache at moment `at`, for the machine that goes on there.
    pub(super) fn below_cache_at(&self, at: u64) -> Vec<Below> {
        let is_there = self.below_cache.iter().filter(|below| below.since <= at);
        is_there.map(|below| Below { since: 0, ..*below }).collect()
    }

    pub(super) fn after_kill(&mut self, at: u64, survivors: Survivors) -> State {
        after_kill(self.state_at(at), survivors)
    }

    pub(super) fn new_handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    /// Locks as `flock` does: a handle's new lock takes the place of its old one, which is gone even if
    /// the new one is refused.
    pub(super) fn try_lock(&mut self, file: FileId, handle: u64, lock: FileLock) -> bool {
        self.unlock(handle);
        let free = self.locks.iter().all(|(of, _, held)| {
            *of != file || (lock == FileLock::Shared && *held == FileLock::Shared)
        });
        if free {
            self.locks.push((file, handle, lock));
        }
        free
    }

    pub(super) fn unlock(&mut self, handle: u64) {
        self.locks.retain(|(_, holder, _)| *holder != handle);
    }

    /// The file that has the name now.
    pub(super) fn file_named(&self, name: &str) -> Option<FileId> {
        self.state.names.get(name).copied()
    }
}

/// The content with the bytes at these places inverted.
fn inverted(content: &Content, flipped: &[Below]) -> Content {
    let mut bytes = content.to_vec();
    for below in flipped {
        if let Some(byte) = bytes.get_mut(below.at as usize) {
            *byte = !*byte;
        }
    }
    Content::from_bytes(&bytes)
}

fn check_end(end: u64) -> Result<(), ErrorKind> {
    if end > FILE_BYTES_MAX {
        return Err(ErrorKind::FileTooLarge);
    }
    Ok(())
}
