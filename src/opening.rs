//! From a path to a running engine.
//!
//! 1. Nothing is created in a directory that holds other people's files, and nothing is changed in one
//!    that recovery refuses.
//! 2. The second opener is refused (F16).

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use lockstone_base::clock::MonotonicClock;
use lockstone_base::disk::{Disk, IoMode, OsDisk};
use lockstone_base::entropy::OsEntropy;
use lockstone_base::{Apart, TableId};
use lockstone_locks::{LockTable, OptimisticLocks};
use lockstone_recovery::directory::{self, Content, DirectoryLock};
use lockstone_recovery::{Config, Identity};
use lockstone_storage::{Shape, StoreConfig};
use parking_lot::{Mutex, RwLock};

use crate::alarm::Alarm;
use crate::background;
use crate::catalog::Catalog;
use crate::checkpoint;
use crate::closing;
use crate::counters::Counters;
use crate::engine::{Engine, Ports};
use crate::error::{Error, Result};
use crate::live::LiveTxns;
use crate::options::Options;
use crate::provisional_memory::Budget;
use crate::requests::Requests;
use crate::restore::{self, Restored};
use crate::retry_gate::RetryGate;
use crate::scrub_pace::Scrubbing;
use crate::snapshots::Snapshots;
use crate::watermarks::Watermarks;

/// Level 0 goes down when it has this many runs: each is asked by a read.
const LEVEL_0_RUNS: usize = 4;
/// The longest run that a compaction writes: what one takes down at a time.
const RUN_BYTES_MAX: u64 = 64 << 20;

/// The directory `path`.
pub(crate) fn real_disk(path: &Path, create: bool, io: IoMode) -> Result<Arc<dyn Disk>> {
    let disk = OsDisk::open(path, create).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !create => not_a_database(path, "there is nothing"),
        io::ErrorKind::NotFound => {
            not_a_database(path, "the directory it would lie in does not exist")
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            not_a_database(path, "it is a file")
        }
        _ => Error::Io(error),
    })?;
    Ok(Arc::new(disk.with_io(io)))
}

/// The real machine, with its disk at `path`.
pub(crate) fn real_ports(path: &Path, create: bool, io: IoMode) -> Result<Ports> {
    Ok(Ports {
        disk: real_disk(path, create, io)?,
        clock: Arc::new(MonotonicClock::new()),
        entropy: Arc::new(OsEntropy),
        background: true,
    })
}

fn not_a_database(path: &Path, why: &'static str) -> Error {
    Error::NotADatabase {
        path: path.to_owned(),
        why,
    }
}

/// What recovery is told; a fresh database gets its identity here.
fn config(options: &Options, ports: &Ports, fresh: bool) -> Config {
    let entropy = || ports.entropy.next_u64();
    let identity = Identity {
        uuid: u128::from(entropy()) << 64 | u128::from(entropy()),
        salt: entropy(),
    };
    Config {
        segment_bytes: options.segment_bytes,
        memory_bytes: options.memory_bytes as usize,
        store: StoreConfig {
            shape: shape(options.memory_bytes),
        },
        create: fresh.then_some(identity),
    }
}

/// How a store is kept in shape that fills memtables of a quarter of the budget.
fn shape(memory_bytes: u64) -> Shape {
    Shape {
        level_0_runs: LEVEL_0_RUNS,
        base_bytes: memory_bytes,
        run_bytes: (memory_bytes / 4).min(RUN_BYTES_MAX),
    }
}

/// Recovers what lies in the directory, or creates a database in an empty one, and starts the engine; with it, who is prepared.
pub(crate) fn start(options: Options, ports: Ports) -> Result<(Arc<Engine>, Restored)> {
    options.validate()?;
    if directory::content(&*ports.disk)? == Content::Empty && !options.create {
        return Err(not_a_database(
            &ports.disk.path(""),
            "the directory is empty",
        ));
    }
    let lock = DirectoryLock::exclusive(&*ports.disk, &*ports.clock)?;
    // Only whoever holds the lock may believe what it sees.
    let fresh = directory::content(&*ports.disk)? == Content::Empty;
    let config = config(&options, &ports, fresh);
    let recovered = lockstone_recovery::recover(&ports.disk, &*ports.clock, &config)?;
    let engine = Arc::new(Engine {
        locks: LockTable::new(ports.entropy.next_u64()),
        optimistic: OptimisticLocks::default(),
        retry_gate: RetryGate::new(),
        catalog: Catalog::new(
            &recovered.manifest.tables,
            &recovered.manifest.dropped,
            TableId(recovered.manifest.next_table),
        ),
        watermarks: Watermarks::new(recovered.commit_tail),
        uuid: recovered.manifest.uuid,
        manifest: Mutex::new(recovered.manifest),
        unpublished: AtomicBool::new(false),
        checkpointing: Mutex::new(()),
        compacting: RwLock::new(()),
        copying: RwLock::new(()),
        bell: Arc::default(),
        scrubbing: Scrubbing::default(),
        log: recovered.log,
        store: recovered.store,
        report: recovered.report,
        directory: Mutex::new(Some(lock)),
        live: LiveTxns::default(),
        provisional: Budget::new(options.provisional_budget()),
        alarm: Alarm::default(),
        handleless: OnceLock::new(),
        snapshots: Snapshots::default(),
        counters: Counters::default(),
        ddl: Mutex::new(()),
        checkpoints: Requests::default(),
        stopping: AtomicBool::new(false),
        unattended: AtomicBool::new(false),
        buffered: Apart(AtomicU64::new(0)),
        threads: Mutex::new(Vec::new()),
        closed: AtomicBool::new(false),
        poison_spread: AtomicBool::new(false),
        next_txn: Apart(AtomicU64::new(1)),
        draws: AtomicU64::new(ports.entropy.next_u64()),
        draw_seed: ports.entropy.next_u64(),
        options,
        ports,
    });
    // R2: before anybody is admitted.
    let restored = restore::restore(&engine, recovered.survivors)?;
    let bell = Arc::clone(&engine.bell);
    // S6: what only a reader has kept goes when that has gone.
    engine
        .store
        .tell_of_departures(Box::new(move || bell.ring()));
    if engine.ports.background {
        start_threads(&engine)?;
    }
    // A run of crashes leaves log behind that no checkpoint has freed.
    checkpoint::ask_if_due(&engine);
    engine.bell.ring();
    Ok((engine, restored))
}

fn start_threads(engine: &Arc<Engine>) -> Result<()> {
    background::start(engine).map_err(|source| {
        // One of the threads may run, and it holds the engine: it must end, and free the directory.
        let _ = closing::close(engine);
        let source = Arc::new(source);
        Error::NoThread { source }
    })
}
