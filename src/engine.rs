//! The engine behind all handles: its parts, and the questions that every call asks first.
//!
//! 1. Handles own an [`EngineRef`](crate::closing::EngineRef); background threads hold the engine itself
//!    and end when it is closed.
//! 2. W11: once the log is poisoned nothing but snapshots at or below the frozen mark still works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use lockstone_base::clock::Clock;
use lockstone_base::disk::Disk;
use lockstone_base::entropy::Entropy;
use lockstone_base::{Apart, Lsn, TxnId};
use lockstone_locks::{AbortCause, LockTable, OptimisticLocks, Wakes};
use lockstone_recovery::RecoveryReport;
use lockstone_recovery::directory::DirectoryLock;
use lockstone_storage::provisional::ProvisionalRun;
use lockstone_storage::{Current, Manifest, Store};
use lockstone_wal::Log;
use parking_lot::{Mutex, RwLock};

use crate::alarm::Alarm;
use crate::bell::Bell;
use crate::catalog::Catalog;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::live::LiveTxns;
use crate::options::Options;
use crate::provisional_memory::Budget;
use crate::requests::Requests;
use crate::retry_gate::RetryGate;
use crate::scrub_pace::Scrubbing;
use crate::snapshots::{Pin, Snapshots};
use crate::watermarks::Watermarks;

/// The machine as the engine sees it: real, or simulated by a test harness.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The database's directory.
    pub disk: Arc<dyn Disk>,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers: salt, uuid, draws, jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Whether background threads run. Without them checkpoints run inside the call that needs one, and
    /// `Buffered` commits wait for the next flush: for harnesses with one thread and one seed.
    pub background: bool,
}

/// All parts of an open database.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) options: Options,
    pub(crate) ports: Ports,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) locks: LockTable,
    pub(crate) optimistic: OptimisticLocks,
    pub(crate) retry_gate: RetryGate,
    pub(crate) catalog: Catalog,
    pub(crate) live: LiveTxns,
    /// The budget of what is locked and not committed.
    pub(crate) provisional: Arc<Budget>,
    /// When futures that wait for a lock give up.
    pub(crate) alarm: Alarm,
    /// Who has transactions without a handle.
    pub(crate) handleless: OnceLock<Weak<dyn Handleless>>,
    pub(crate) snapshots: Snapshots,
    pub(crate) watermarks: Watermarks,
    pub(crate) counters: Counters,
    pub(crate) report: RecoveryReport,
    pub(crate) uuid: u128,
    /// The newest durable manifest; held while the next one is written.
    pub(crate) manifest: Mutex<Manifest>,
    /// The last try to write a manifest failed: what compactions have replaced takes space until one succeeds.
    pub(crate) unpublished: AtomicBool,
    /// One checkpoint at a time.
    pub(crate) checkpointing: Mutex<()>,
    /// Shared by compactions; a compaction of everything runs alone.
    pub(crate) compacting: RwLock<()>,
    /// Shared by backups; who closes the database waits until none reads there any more.
    pub(crate) copying: RwLock<()>,
    /// Calls for compactions.
    pub(crate) bell: Arc<Bell>,
    pub(crate) scrubbing: Scrubbing,
    /// Held while a table is created, so that a manifest has it or the log behind it does.
    pub(crate) ddl: Mutex<()>,
    pub(crate) checkpoints: Requests,
    /// Whether something was appended that nobody waits for: the keeper sees to it.
    pub(crate) unattended: AtomicBool,
    /// The end of the last `Buffered` commit: on the device within the bound, seen to by the keeper.
    pub(crate) buffered: Apart<AtomicU64>,
    /// The threads beside the checkpointer are to end.
    pub(crate) stopping: AtomicBool,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) directory: Mutex<Option<DirectoryLock>>,
    pub(crate) closed: AtomicBool,
    pub(crate) poison_spread: AtomicBool,
    pub(crate) next_txn: Apart<AtomicU64>,
    /// The state of [`Engine::draw`], seeded from the entropy port.
    pub(crate) draws: AtomicU64,
    /// What [`Engine::draw_of`] begins with.
    pub(crate) draw_seed: u64,
}

/// One who keeps transactions that no handle has.
pub(crate) trait Handleless: Send + Sync {
    /// The transaction has ended.
    fn forget(&self, engine: &Engine, id: TxnId);

    /// Those whose first record lies where `holds_back` says that it holds the log back are to spill.
    fn free_log(&self, engine: &Engine, holds_back: &dyn Fn(Lsn) -> bool);
}

/// The step of SplitMix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Engine {
    /// Whether calls are still served.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// S3: who has no handle spills, if it holds the log back.
    pub(crate) fn free_log(&self, holds_back: &dyn Fn(Lsn) -> bool) {
        if let Some(handleless) = self.handleless.get().and_then(Weak::upgrade) {
            handleless.free_log(self, holds_back);
        }
    }

    /// A transaction has ended: whoever has it, without a handle, lets it go.
    pub(crate) fn forget(&self, id: TxnId) {
        if let Some(handleless) = self.handleless.get().and_then(Weak::upgrade) {
            handleless.forget(self, id);
        }
    }

    /// Whether transactions are still served (W11).
    pub(crate) fn check_serving(&self) -> Result<()> {
        self.check_open()?;
        if self.log.is_poisoned() {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// W11: once the log is poisoned, every transaction is over, and whoever waits for a lock wakes to find
    /// it. Called by whoever may have met the poison; what begins later finds it by itself.
    pub(crate) fn spread_poison(&self) {
        if !self.log.is_poisoned() || self.poison_spread.swap(true, Ordering::AcqRel) {
            return;
        }
        for txn in self.live.all() {
            let mut wakes = Wakes::default();
            self.locks
                .kill(&txn.owner, AbortCause::Poisoned, &mut wakes);
            wakes.fire();
        }
    }

    /// S6: nobody needs these runs any more; their files go in the background.
    pub(crate) fn discard_spills(&self, runs: Vec<ProvisionalRun>) {
        if !runs.is_empty() {
            self.store.discard_spills(runs);
            self.bell.ring();
        }
    }

    /// An id that no transaction ever had.
    pub(crate) fn next_txn_id(&self) -> TxnId {
        TxnId::new(
            self.report.boot_epoch,
            self.next_txn.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// A random number for draws and jitter, at no system call's cost: SplitMix64 (Steele, Lea and Flood,
    /// "Fast splittable pseudorandom number generators", 2014).
    pub(crate) fn draw(&self) -> u64 {
        mixed(self.draws.fetch_add(GAMMA, Ordering::Relaxed))
    }

    /// The random number of a transaction: the same whenever it is asked for, and no two threads meet for it.
    pub(crate) fn draw_of(&self, txn: TxnId) -> u32 {
        let step = txn.sequence.wrapping_mul(GAMMA);
        mixed(self.draw_seed.wrapping_add(step)) as u32
    }

    /// The commit tail, and sources that hold all versions it needs. W5: the LSN first, the sources
    /// second; W7: both again if a compaction has dropped versions in between.
    pub(crate) fn newest(&self) -> (Lsn, Current) {
        loop {
            let tail = self.watermarks.tail();
            let sources = self.store.current();
            if sources.drop_horizon() <= tail {
                return (tail, sources);
            }
        }
    }

    /// Sources that hold all versions that a snapshot sees.
    pub(crate) fn sources_at(&self, pin: &Pin) -> Current {
        let sources = self.store.current();
        assert!(
            sources.drop_horizon() <= pin.lsn(),
            "W7: nothing that a registered snapshot sees is dropped"
        );
        sources
    }

    /// What a new snapshot reads at (W6).
    pub(crate) fn snapshot_lsn(&self) -> Lsn {
        self.watermarks.snapshot(self.log.durable())
    }
}

/// The number behind `state` in the sequence of SplitMix64.
fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(GAMMA);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
