//! Which transactions are alive: for listings, for closing, and for how far back the log is needed.
//!
//! 1. S3: a transaction notes where its records begin *before* it appends the first of them. So a
//!    checkpoint that holds the append latch sees every transaction whose records lie below the log's
//!    end: the note was stored before the append, and the append came before the hold.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lockstone_base::{Lsn, Striped, TxnId};
use lockstone_locks::{Notify, Owner, OwnerState};
use lockstone_storage::OpenSpills;
use parking_lot::Mutex;

use crate::lease_clock::LeaseClock;
use crate::options::Isolation;
use crate::parker::Parker;
use crate::provisional_memory::{Budget, Used};
use crate::snapshots::Pin;
use crate::spilled::Spilled;

/// A transaction that has begun and whose handle still exists.
#[derive(Debug, Clone)]
pub(crate) struct LiveTxn {
    pub(crate) owner: Arc<Owner>,
    pub(crate) notes: Arc<Notes>,
}

impl LiveTxn {
    /// As [`Notes::let_go`], if nothing that it reads is given out any more (W10).
    pub(crate) fn let_go_if_rolled_back(&self) {
        if self.owner.state() == OwnerState::Aborted {
            self.notes.let_go();
        }
    }
}

/// What others may know of a transaction, and where its thread sleeps.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) begun: Duration,
    pub(crate) isolation: Isolation,
    pub(crate) locks: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) parker: Parker,
    /// What it has moved out of memory.
    pub(crate) spilled: Spilled,
    /// What it has there.
    pub(crate) used: Arc<Used>,
    /// Whether a write of it may be in the log.
    may_have_written: AtomicBool,
    first_record: AtomicU64,
    /// Whether it should spill, for it holds the log back.
    is_asked_to_spill: AtomicBool,
    /// Its lease, if it has one, and what ends it behind a record of that (W9).
    lease: OnceLock<(LeaseClock, Ender)>,
    /// Up to where the log has to be on the device before what it was granted may be told.
    owed: AtomicU64,
    /// It has a lease and no handle.
    is_detached: AtomicBool,
    /// What keeps what it sees, while it has a snapshot and was not rolled back.
    pin: Mutex<Option<Pin>>,
    /// Where it stands in the list of all: in whose copy, and in which slot of that.
    stripe: usize,
    slot: AtomicUsize,
}

impl Notify for Notes {
    fn notify(&self) {
        self.parker.notify();
    }

    fn ending(&self) {
        if let Some((_, Ender(end))) = self.lease.get() {
            end();
        }
    }
}

/// What ends a transaction that is Ending.
struct Ender(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Ender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ender")
    }
}

/// No record yet.
const NOTHING_LOGGED: u64 = u64::MAX;

impl Notes {
    /// What is known of one that begins at time `begun`, in the calling thread.
    pub(crate) fn new(begun: Duration, isolation: Isolation, budget: &Arc<Budget>) -> Self {
        Self {
            begun,
            isolation,
            locks: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            parker: Parker::default(),
            spilled: Spilled::default(),
            used: Used::new(budget),
            may_have_written: AtomicBool::new(false),
            first_record: AtomicU64::new(NOTHING_LOGGED),
            is_asked_to_spill: AtomicBool::new(false),
            lease: OnceLock::new(),
            owed: AtomicU64::new(0),
            is_detached: AtomicBool::new(false),
            pin: Mutex::default(),
            stripe: Striped::<()>::own_number(),
            slot: AtomicUsize::new(0),
        }
    }

    /// It has a lease, and `end` logs its end. Once, before its first lock.
    pub(crate) fn note_lease(&self, lease: LeaseClock, end: Box<dyn Fn() + Send + Sync>) {
        let first = self.lease.set((lease, Ender(end)));
        assert!(first.is_ok(), "a transaction has one lease");
    }

    /// Its lease, if it has one.
    pub(crate) fn lease(&self) -> Option<&LeaseClock> {
        self.lease.get().map(|(lease, _)| lease)
    }

    /// Its last record, which says what it was granted, ends there.
    pub(crate) fn note_owed(&self, end: Lsn) {
        self.owed.store(end.get(), Ordering::Relaxed);
    }

    /// Where the last of these ends.
    pub(crate) fn owed(&self) -> Lsn {
        Lsn::new(self.owed.load(Ordering::Relaxed))
    }

    /// Notes whether it is without a handle.
    pub(crate) fn note_detached(&self, is: bool) {
        self.is_detached.store(is, Ordering::Release);
    }

    /// Whether it lives without a handle.
    pub(crate) fn is_detached(&self) -> bool {
        self.is_detached.load(Ordering::Acquire)
    }

    /// It reads at one moment, which is kept from now on.
    pub(crate) fn keep(&self, pin: Pin) {
        *self.pin.lock() = Some(pin);
    }

    /// What it sees is needed no more: it has ended, or was rolled back, whether its user knows or not (W7).
    pub(crate) fn let_go(&self) {
        let pin = self.pin.lock().take();
        drop(pin);
    }

    /// Shows its pin, which stays so long, if it has one.
    pub(crate) fn pinned<T>(&self, look: impl FnOnce(&Pin) -> T) -> Option<T> {
        self.pin.lock().as_ref().map(look)
    }

    /// Notes that the first record is about to be appended, at or behind `log_end`.
    pub(crate) fn note_first_record(&self, log_end: Lsn) {
        self.first_record.store(log_end.get(), Ordering::SeqCst);
    }

    /// Notes that none of its records below `first` is needed any more: what they say is in files (S3).
    pub(crate) fn note_spilled(&self, first: Lsn) {
        self.note_first_record(first);
        self.is_asked_to_spill.store(false, Ordering::Relaxed);
    }

    /// Its first write is about to be appended.
    pub(crate) fn note_write(&self) {
        self.may_have_written.store(true, Ordering::SeqCst);
    }

    /// S3: whether nothing is needed of what it has in the log, and has had there for longer than the caller knows: locks that no crash
    /// leaves.
    pub(crate) fn has_only_locks_in_log(&self) -> bool {
        self.lease.get().is_none() && !self.may_have_written.load(Ordering::SeqCst)
    }

    /// Whether it was asked to spill since it last did.
    pub(crate) fn is_asked_to_spill(&self) -> bool {
        self.is_asked_to_spill.load(Ordering::Relaxed)
    }

    /// A position at or below the first of its records that is still needed; `None` if it has none.
    pub(crate) fn first_record(&self) -> Option<Lsn> {
        let at = self.first_record.load(Ordering::SeqCst);
        (at != NOTHING_LOGGED).then_some(Lsn::new(at))
    }
}

/// All transactions that have begun and whose handles still exist.
#[derive(Debug, Default)]
pub(crate) struct LiveTxns(Striped<Mutex<Slots>>);

/// Those that threads of one stripe began.
#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<LiveTxn>>,
    free: Vec<usize>,
}

impl LiveTxns {
    /// A transaction begins.
    pub(crate) fn begin(&self, owner: &Arc<Owner>, notes: &Arc<Notes>) {
        let txn = LiveTxn {
            owner: Arc::clone(owner),
            notes: Arc::clone(notes),
        };
        let mut live = self.0.at(notes.stripe).lock();
        let slot = live.free.pop().unwrap_or(live.slots.len());
        notes.slot.store(slot, Ordering::Relaxed);
        if slot == live.slots.len() {
            live.slots.push(None);
        }
        let before = live.slots.get_mut(slot).and_then(|at| at.replace(txn));
        assert!(before.is_none(), "a slot that is free holds nobody");
    }

    /// Transaction `id` has ended, and the log is no longer needed for it. Harmless when that was said before.
    pub(crate) fn end(&self, notes: &Notes, id: TxnId) {
        let mut live = self.0.at(notes.stripe).lock();
        let slot = notes.slot.load(Ordering::Relaxed);
        let is_it = |txn: &mut LiveTxn| txn.owner.id() == id;
        let ended = live.slots.get_mut(slot).and_then(|at| at.take_if(is_it));
        if ended.is_some() {
            live.free.push(slot);
        }
        drop(live);
        // Behind the latch: this may be the last who knows it.
        drop(ended);
    }

    /// The one whose records reach back farthest, and how far.
    pub(crate) fn oldest_in_log(&self) -> Option<(Lsn, LiveTxn)> {
        let mut oldest: Option<(Lsn, LiveTxn)> = None;
        for live in self.0.all() {
            for txn in live.lock().slots.iter().flatten() {
                let first = txn.notes.first_record();
                let Some(first) =
                    first.filter(|first| oldest.as_ref().is_none_or(|(at, _)| first < at))
                else {
                    continue;
                };
                oldest = Some((first, txn.clone()));
            }
        }
        oldest
    }

    /// S3: asks those to spill whose first record lies where `holds_back` says that it holds the log back.
    pub(crate) fn ask_to_spill(&self, holds_back: impl Fn(Lsn) -> bool) {
        for live in self.0.all() {
            for txn in live.lock().slots.iter().flatten() {
                if txn.notes.first_record().is_some_and(&holds_back) {
                    txn.notes.is_asked_to_spill.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// S4: what manifests say of those that have spilled. What was rolled back is needed by nobody.
    pub(crate) fn open_spills(&self) -> Vec<OpenSpills> {
        let mut all = Vec::new();
        for live in self.0.all() {
            let live = live.lock();
            let txns = live.slots.iter().flatten();
            let txns = txns.filter(|txn| txn.owner.state() != OwnerState::Aborted);
            all.extend(txns.filter_map(|txn| txn.notes.spilled.open(&txn.owner)));
        }
        all
    }

    /// W7: nobody reads any more what those would see that were rolled back and whose handles still exist.
    pub(crate) fn let_go_of_rolled_back(&self) {
        for live in self.0.all() {
            for txn in live.lock().slots.iter().flatten() {
                txn.let_go_if_rolled_back();
            }
        }
    }

    /// The transaction with this id, if it is there.
    pub(crate) fn find(&self, id: TxnId) -> Option<LiveTxn> {
        self.0.all().find_map(|live| {
            let live = live.lock();
            let mut slots = live.slots.iter().flatten();
            slots.find(|txn| txn.owner.id() == id).cloned()
        })
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> Vec<LiveTxn> {
        let mut all = Vec::new();
        for live in self.0.all() {
            all.extend(live.lock().slots.iter().flatten().cloned());
        }
        all.sort_by_key(|txn| txn.owner.id());
        all
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        let count = |live: &Mutex<Slots>| live.lock().slots.iter().flatten().count();
        self.0.all().map(count).sum()
    }
}
