//! What outlives a crash: a transaction that is prepared or leased, with all that it holds, found in the log and in its files.
//!
//! Called by `recover`, and by `inspect` for a look at it, once the whole log was read.
//! 1. R2: it holds exactly what it held: the count and the digest that it has said of itself are compared with what was found, and a
//!    file that is not there is missed. If anything does not fit, the open is refused, and nothing was changed.
//! 2. R4: rows in files are vouched for by the sums in their footers; nobody visits them.
//! 3. What a record says of a row that an own lock, or an own range, had covered took no lock; nor is it one here.
//! 4. Others have nothing here (R3).
//! 5. One that is leased has said nothing of how much it holds: it could go on. Whatever was granted to it is in the log.
//!
//! Crash: nothing is written.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstone_base::disk::Disk;
use lockstone_base::{FencingToken, LockMode, Lsn, Rank, RowKey, TxnId};
use lockstone_storage::provisional::{Digest, ProvisionalRun};
use lockstone_storage::{DeadSubs, Identity, Manifest, RunEntry, StorageError};

use crate::error::RecoveryError;
use crate::open_lease::OpenLease;
use crate::open_txn::{LoggedLock, OpenTxn};
use crate::record::{Held, HeldRange, locked_row};

/// Why a transaction outlives a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Survives {
    /// It is prepared, and known by this.
    Prepared {
        /// The global id.
        gid: Arc<str>,
    },
    /// It has a lease.
    Leased {
        /// How long that lasts, from now on.
        lasts: Duration,
    },
}

/// A transaction that has outlived a crash.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survivor {
    /// Its id, of an earlier epoch.
    pub txn: TxnId,
    /// Its priority.
    pub rank: Rank,
    /// What its owner called it.
    pub label: Option<Arc<str>>,
    /// Why.
    pub survives: Survives,
    /// The sub-transactions of a call that the crash has cut off: they are undone, which the log is to be told.
    pub undone: Option<(u32, u32)>,
    /// From here on the log is needed for it.
    pub first: Lsn,
    /// What it holds besides the rows below; its files, opened below, and what of them is dead.
    pub held: Held,
    /// The rows that are not in files, as they were acquired.
    pub rows: Vec<HeldRow>,
    /// Its writes that are not in files, the oldest first.
    pub writes: Vec<HeldWrite>,
    /// Its files, each with the number of its spill, which ascend.
    pub files: Vec<(u64, ProvisionalRun)>,
}

/// A row that it has locked, or has locked more strongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    /// The row.
    pub row: RowKey,
    /// The mode from then on.
    pub mode: LockMode,
    /// Whether it was locked in order to be written.
    pub writes: bool,
    /// The sub-transaction that did.
    pub sub: u32,
    /// The fencing token from then on.
    pub token: FencingToken,
}

/// A row that it has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldWrite {
    /// The row.
    pub row: RowKey,
    /// The sub-transaction.
    pub sub: u32,
    /// The value; `None`: it has deleted the row.
    pub value: Option<Bytes>,
}

/// What is asked while survivors are looked for.
pub(crate) struct Scene<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) manifest: &'a Manifest,
    /// The file in which a position of the log lies.
    pub(crate) file_of: &'a dyn Fn(Lsn) -> PathBuf,
}

impl Survivor {
    /// S6: the numbers of its files, which are needed.
    pub(crate) fn files_needed(&self) -> impl Iterator<Item = u64> {
        self.files.iter().map(|(_, run)| run.entry().number)
    }
}

/// The transaction, if it outlives the crash; its locks were kept as the log was read.
///
/// # Errors
/// [`RecoveryError`]: what was found is not what it has said of itself.
pub(crate) fn of(
    scene: &Scene<'_>,
    txn: TxnId,
    open: &OpenTxn,
) -> Result<Option<Survivor>, RecoveryError> {
    let Some(prepared) = &open.prepared else {
        let leased = open.leased.as_ref();
        return leased
            .map(|lease| leased_one(scene, txn, open, lease))
            .transpose();
    };
    let salt = scene.manifest.salt;
    let rows = acquired(&open.locks, &prepared.held);
    let (mut count, mut digest) = (0, Digest::default());
    let mut newest: HashMap<&RowKey, Entry> = HashMap::new();
    for row in &rows {
        newest.entry(&row.row).or_default().take(row);
    }
    for (row, entry) in newest {
        let Some(mode) = entry.mode else { continue };
        let locked = (mode, entry.beside == Some(LockMode::Update));
        digest += locked_row(salt, txn, row.as_bytes(), locked, entry.token);
        count += 1;
    }
    let mut files = Vec::new();
    for (spill, entry) in open.files() {
        let run = open_file(scene, entry)?;
        let own = run.owners().iter().filter(|part| part.owner == txn);
        for part in own {
            count += part.records;
            digest += part.digest;
        }
        files.push((spill, run));
    }
    files.sort_by_key(|(spill, _)| *spill);
    if (count, digest) != (prepared.rows, prepared.digest) {
        return Err(RecoveryError::Unlike {
            file: (scene.file_of)(prepared.at),
            lsn: prepared.at,
            gid: prepared.gid.to_string(),
            said: prepared.rows,
            found: count,
        });
    }
    Ok(Some(Survivor {
        txn,
        rank: open.rank,
        label: open.label.clone(),
        survives: Survives::Prepared {
            gid: Arc::clone(&prepared.gid),
        },
        undone: None,
        first: if files.is_empty() {
            open.seen.unwrap_or(prepared.from)
        } else {
            prepared.from
        },
        held: prepared.held.clone(),
        rows,
        writes: writes(open),
        files,
    }))
}

/// One that has a lease: all that its records say. Each was on the device before it was told of what it was granted.
fn leased_one(
    scene: &Scene<'_>,
    txn: TxnId,
    open: &OpenTxn,
    lease: &OpenLease,
) -> Result<Survivor, RecoveryError> {
    let mut held = lease.held.clone();
    let (mut rows, mut writes) = (acquired(&open.locks, &held), writes(open));
    let mut files = Vec::new();
    for (spill, entry) in open.files() {
        files.push((spill, open_file(scene, entry)?));
    }
    let spilled = files.iter().flat_map(|(_, run)| run.owners());
    let subs = spilled.map(|part| part.subs.1);
    let subs = subs.chain(rows.iter().map(|row| row.sub));
    let subs = subs.chain(writes.iter().map(|write| write.sub));
    let subs = subs.chain(held.ranges.iter().map(|range| range.sub));
    let subs = subs.chain(held.tokens.iter().map(|taken| taken.sub));
    let subs = subs.chain(held.dead.iter().map(|(_, through)| *through));
    let newest = subs.chain(lease.open_call).max().unwrap_or(0).max(held.sub);
    // What it does from now on is another sub-transaction's.
    held.sub = newest.saturating_add(1);
    let undone = lease.open_call.map(|from| (from, newest));
    if let Some((from, through)) = undone {
        held.dead.push((from, through));
        held.ranges.retain(|range| range.sub < from);
        held.tokens.retain(|taken| taken.sub < from);
        rows.retain(|row| row.sub < from);
        writes.retain(|write| write.sub < from);
        let dead = DeadSubs::new(held.dead.iter().copied());
        files.retain(|(_, run)| !run.entry().is_dead(&dead));
    }
    Ok(Survivor {
        txn,
        rank: open.rank,
        label: open.label.clone(),
        survives: Survives::Leased {
            lasts: Duration::from_millis(lease.lasts_ms),
        },
        undone,
        first: lease.from,
        held,
        rows,
        writes,
        files,
    })
}

fn writes(open: &OpenTxn) -> Vec<HeldWrite> {
    let writes = open.writes().map(|(row, sub, value)| HeldWrite {
        row: row.clone(),
        sub,
        value: value.cloned(),
    });
    writes.collect()
}

/// What the lock table has of a row, as far as it was read.
#[derive(Debug, Clone, Copy)]
struct Entry {
    mode: Option<LockMode>,
    /// The mode as ranges meet it.
    beside: Option<LockMode>,
    token: FencingToken,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            mode: None,
            beside: None,
            token: FencingToken::new(Lsn::ZERO),
        }
    }
}

impl Entry {
    fn take(&mut self, row: &HeldRow) {
        self.mode = self.mode.max(Some(row.mode));
        self.beside = self.beside.max(Some(beside(row.mode, row.writes)));
        self.token = row.token;
    }
}

/// The mode that ranges meet: a write may insert.
fn beside(mode: LockMode, writes: bool) -> LockMode {
    if writes { LockMode::Update } else { mode }
}

/// Of what the records say of rows, what has taken or strengthened a lock.
fn acquired(logged: &[LoggedLock], held: &Held) -> Vec<HeldRow> {
    let mut rows = Vec::new();
    let mut entries: HashMap<&RowKey, Entry> = HashMap::new();
    for lock in logged.iter().filter(|lock| lock.lsn > held.through) {
        let wanted = beside(lock.mode, lock.writes);
        let covers = |range: &HeldRange| {
            range.token.lsn() < lock.lsn
                && range.mode >= wanted
                && range.contains(lock.row.as_bytes())
        };
        let entry = entries.entry(&lock.row).or_default();
        let is_covered = entry.mode >= Some(lock.mode) && entry.beside >= Some(wanted);
        if is_covered || !lock.fresh && held.ranges.iter().any(covers) {
            continue;
        }
        // Who held it so already, and writes now, keeps the token.
        let keeps = entry.mode >= Some(lock.mode);
        let row = HeldRow {
            row: lock.row.clone(),
            mode: lock.mode,
            writes: lock.writes,
            sub: lock.sub,
            token: if keeps { entry.token } else { lock.token },
        };
        entry.take(&row);
        rows.push(row);
    }
    rows
}

fn open_file(scene: &Scene<'_>, entry: &RunEntry) -> Result<ProvisionalRun, RecoveryError> {
    let identity = Identity {
        uuid: scene.manifest.uuid,
        salt: scene.manifest.salt,
    };
    match ProvisionalRun::open(scene.disk, identity, entry) {
        Err(StorageError::Disk(error)) if error.kind() == ErrorKind::NotFound => {
            Err(RecoveryError::Missing {
                file: scene.disk.path(&entry.file_name()),
                why: "a prepared transaction has locks or writes in it",
            })
        }
        opened => Ok(opened?),
    }
}
