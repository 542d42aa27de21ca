//! The handle of an open database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockstone_base::Lsn;
use lockstone_base::TxnId;
use lockstone_base::disk::Disk;
use lockstone_recovery::RecoveryReport;

use crate::backup;
use crate::checkpoint;
use crate::closing::{self, EngineRef};
use crate::compaction;
use crate::engine::Ports;
use crate::error::{Error, Result};
use crate::listing;
use crate::listing::{CheckReport, Info, Stats};
use crate::lock_listing::{self, LockFilter, LockInfo, TransactionInfo, Waits};
use crate::opening;
use crate::options::{OnConflict, Options, TxnOptions};
use crate::prepared::PreparedInfo;
use crate::schema;
use crate::snapshot::Snapshot;
use crate::table::Table;
use crate::transaction::{Attempts, Transaction};
use crate::typed::{TableKey, TableValue, TypedTable};

/// So many conflicts are lost before a retry under `Wound` waits in line.
const LOSSES_MAX: u32 = 3;
/// How long it does.
const WOUND_AFTER: Duration = Duration::from_millis(100);

/// An open database: a directory that this process owns until it is closed. A cheap handle, shared freely
/// between threads.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("db");
/// use lockstone::Options;
///
/// let db = Options::new().segment_bytes(1 << 20).log_bytes(4 << 20).open(&path)?;
/// let accounts = db.create_table("accounts")?;
/// let moved: lockstone::Result<()> = db.transact(|txn| {
///     txn.put(&accounts, "alice", "90")?;
///     txn.put(&accounts, "bob", "10")
/// });
/// moved?;
/// assert_eq!(db.snapshot().get(&accounts, "bob")?.as_deref(), Some(b"10".as_slice()));
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Database {
    engine: Arc<EngineRef>,
}

impl Options {
    /// Opens the database in the directory `path`, creating it if that is allowed; recovers what a crash
    /// left.
    ///
    /// # Errors
    /// [`Error::NotADatabase`], [`Error::NewerVersion`], [`Error::Locked`], [`Error::Corrupt`] (nothing was
    /// changed), [`Error::InvalidArgument`], [`Error::DiskFull`], [`Error::Io`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Database> {
        self.validate()?;
        let ports = opening::real_ports(path.as_ref(), self.create, self.io)?;
        self.open_with(ports)
    }

    /// Opens the database that the ports lead to: for harnesses that simulate the machine.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_with(self, ports: Ports) -> Result<Database> {
        let (engine, restored) = opening::start(self, ports)?;
        Ok(Database {
            engine: Arc::new(EngineRef::new(engine, restored)),
        })
    }
}

impl Database {
    /// Opens the database in the directory `path` with the default options; creates it if it is absent.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// The table `name`; created if it is absent, and then durable and visible at once, outside any
    /// transaction.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that no table may have. [`Error::DiskFull`],
    /// [`Error::Poisoned`]: whether the table exists is known after a reopen.
    pub fn create_table(&self, name: &str) -> Result<Table> {
        let entry = schema::create(&self.engine, name)?;
        Ok(Table::new(&self.engine, entry))
    }

    /// The table `name` with keys of type `K` and values of type `V`; created if it is absent, as
    /// [`Database::create_table`] does.
    ///
    /// # Errors
    /// As there.
    pub fn typed_table<K: TableKey, V: TableValue>(&self, name: &str) -> Result<TypedTable<K, V>> {
        Ok(self.create_table(name)?.typed())
    }

    /// A handle to a leased transaction that has none: one that was detached, or that a crash or the closing of the database has left
    /// without. It is as it was then, all its locks and writes included; its lease lasts anew since the open.
    ///
    /// # Errors
    /// [`Error::InUse`]: another handle has it. [`Error::UnknownTransaction`]: it has ended, or never had a lease.
    pub fn resume(&self, txn: TxnId) -> Result<Transaction> {
        let state = self.engine.detached.take(&self.engine, txn)?;
        Ok(Transaction::resumed(self.engine.clone(), state))
    }

    /// A semaphore of so many tokens, which [`Transaction::acquire`] takes and the end of the transaction gives back; durable
    /// when the call returns. Nothing, if there is one of that name with as many.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: no token, or there is one of that name with another number. [`Error::KeyEmpty`],
    /// [`Error::KeyTooLong`] for the name. [`Error::DiskFull`]; [`Error::Poisoned`]: whether it exists is known after a reopen.
    pub fn create_semaphore(&self, name: impl AsRef<[u8]>, limit: u64) -> Result<()> {
        let options = TxnOptions::new().label("create_semaphore");
        let name = name.as_ref();
        self.transact_with(options, |txn| txn.make_semaphore(name, limit))
    }

    /// Drops a table with all its rows: waits until every transaction that has locked or written in it has
    /// ended, and returns when the drop is durable. Transactions that come later are refused with
    /// [`Error::UnknownTable`]; snapshots taken before still read the rows; the name is free for a new table,
    /// which has nothing of the old one. Space comes back as rows are compacted
    /// once no snapshot lies below.
    ///
    /// # Errors
    /// The table is as it was after [`Error::TableInUse`]: a transaction has used it for ten seconds without
    /// end, be it the caller's own; after [`Error::DiskFull`]; and after [`Error::Closed`].
    /// [`Error::UnknownTable`] if it was dropped before, [`Error::ForeignTable`] if it is another database's.
    /// [`Error::Poisoned`]: whether the table exists is known after a reopen.
    pub fn drop_table(&self, table: &Table) -> Result<()> {
        schema::drop_table(&self.engine, table.entry_in(&self.engine)?)
    }

    /// The table `name`, if there is one.
    pub fn table(&self, name: &str) -> Option<Table> {
        self.engine
            .catalog
            .get(name)
            .map(|entry| Table::new(&self.engine, entry))
    }

    /// All tables, by name.
    pub fn tables(&self) -> Vec<Table> {
        let tables = self.engine.catalog.all().into_iter();
        tables
            .map(|entry| Table::new(&self.engine, entry))
            .collect()
    }

    /// Begins a transaction with the default options. Never fails: the first call reports what is wrong.
    pub fn begin(&self) -> Transaction {
        self.begin_with(TxnOptions::new())
    }

    /// Begins a transaction. Never fails: the first call reports what is wrong, the options included.
    pub fn begin_with(&self, options: TxnOptions) -> Transaction {
        Transaction::begin(self.engine.clone(), options, None)
    }

    /// Runs `work` in a transaction and commits it; runs it again while its last failing call may succeed then. As many are
    /// run again at a time as there are processors: the others wait in line, without locks, for up to 100 ms. Whoever was
    /// refused at once ([`Error::WouldBlock`]) waits a while before, longer with every attempt.
    ///
    /// # Errors
    /// What `work` returned, or the commit; when it was run again [`Options::retries_max`] times, the last error.
    pub fn transact<T, E: From<Error>>(
        &self,
        work: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact_with(TxnOptions::new(), work)
    }

    /// As [`Database::transact`], with options. A transaction that is run again keeps its age and the largest of its
    /// draws, so that it does not stay the youngest, which dies in deadlocks, or the weakest. After three losses under
    /// [`OnConflict::Wound`] it waits 100 ms in line before it judges.
    ///
    /// # Errors
    /// As [`Database::transact`].
    pub fn transact_with<T, E: From<Error>>(
        &self,
        options: TxnOptions,
        mut work: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let (mut earlier, mut options, mut losses) = (None, options, 0);
        for attempt in 0.. {
            let again = attempt > 0;
            let permit = again.then(|| self.engine.retry_gate.enter()).flatten();
            let mut txn = Transaction::begin(self.engine.clone(), options.clone(), earlier);
            let (id, draw) = (txn.id(), self.engine.draw_of(txn.id()));
            earlier = Some(Attempts {
                first: earlier.map_or(id, |earlier| earlier.first),
                draw: earlier.map_or(draw, |earlier| earlier.draw.max(draw)),
            });
            let (error, retryable, refused) = match work(&mut txn) {
                Ok(value) => match txn.commit_then(|| drop(permit)) {
                    Ok(_) => return Ok(value),
                    Err(error) => {
                        losses += u32::from(matches!(error, Error::Wounded { .. }));
                        (E::from(error.clone()), error.is_retryable(), false)
                    }
                },
                Err(error) => {
                    let (retryable, refused) = (txn.is_retryable(), txn.was_refused());
                    losses += u32::from(txn.has_lost());
                    // Its locks are free before this waits for the next attempt, and its place is another's.
                    drop(txn);
                    drop(permit);
                    (error, retryable, refused)
                }
            };
            if losses == LOSSES_MAX && options.on_conflict == OnConflict::Wound {
                options.on_conflict = OnConflict::WoundAfter(WOUND_AFTER);
            }
            if !retryable || attempt >= self.engine.options.retries_max {
                return Err(error);
            }
            if refused {
                self.back_off(attempt);
            }
        }
        unreachable!("the loop returns at the last attempt")
    }

    /// Waits a random time, longer with every attempt: whoever was refused at once would else be refused again at once.
    fn back_off(&self, attempt: u32) {
        const FIRST_US: u64 = 50;
        const DOUBLINGS_MAX: u32 = 8;
        let ceiling = FIRST_US << attempt.min(DOUBLINGS_MAX);
        let jitter = self.engine.draw() % ceiling;
        self.engine.ports.clock.sleep(Duration::from_micros(jitter));
    }

    /// Every transaction that is prepared ([`Transaction::prepare`]), by global id.
    pub fn prepared(&self) -> Vec<PreparedInfo> {
        self.engine.prepared.list()
    }

    /// Commits the transaction that is prepared as `gid`, whichever process has prepared it; durable when the call returns. The
    /// commit's position in the log. The global id can be used again.
    ///
    /// # Errors
    /// [`Error::UnknownPrepared`]. [`Error::Poisoned`]: the outcome is unknown, reopen and look. After any other error it is
    /// prepared still, and the call can be made again.
    pub fn commit_prepared(&self, gid: impl AsRef<str>) -> Result<Lsn> {
        self.engine.prepared.commit(&self.engine, gid.as_ref())
    }

    /// Undoes the transaction that is prepared as `gid`, whichever process has prepared it. That is durable when the call returns,
    /// and its locks are free. The global id can be used again.
    ///
    /// # Errors
    /// As [`Database::commit_prepared`].
    pub fn abort_prepared(&self, gid: impl AsRef<str>) -> Result<()> {
        self.engine.prepared.abort(&self.engine, gid.as_ref())
    }

    /// A read-only view of this moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.engine.clone())
    }

    /// Every lock that is held or waited for, without stopping anyone; it promises no single moment.
    pub fn locks(&self) -> impl Iterator<Item = Result<LockInfo>> + use<> {
        self.locks_of(LockFilter::new())
    }

    /// [`Database::locks`], but only those that fit. The table is looked into whenever what was found before is shown, so
    /// only some thousands are in memory, each of these batches in order of its rows. Like a handle it keeps the database
    /// open.
    pub fn locks_of(&self, filter: LockFilter) -> impl Iterator<Item = Result<LockInfo>> + use<> {
        lock_listing::locks(&self.engine, filter)
    }

    /// Everyone who waits for a lock, and for whom; and the deadlocks of late.
    pub fn waits(&self) -> Waits {
        lock_listing::waits(&self.engine)
    }

    /// Every transaction that has begun and not ended, the oldest first.
    pub fn transactions(&self) -> Vec<TransactionInfo> {
        lock_listing::transactions(&self.engine)
    }

    /// Counts and sizes.
    pub fn stats(&self) -> Stats {
        listing::stats(&self.engine)
    }

    /// What and where this database is.
    pub fn info(&self) -> Info {
        listing::info(&self.engine)
    }

    /// Brings everything that is committed into the deepest level of the store, without tombstones and old versions
    /// that nobody sees any more; returns when that is done. Others go on beside it. What is written meanwhile may
    /// stay above.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Poisoned`]; [`Error::DiskFull`] and [`Error::Io`]: what was not compacted is as it
    /// was. [`Error::Corrupt`]: all else is compacted, but the runs that it names could not be read, each tried in
    /// this call; they and what must stay above them are as they were, and their intact rows can be read.
    pub fn compact(&self) -> Result<()> {
        self.engine.check_serving()?;
        checkpoint::take(&self.engine)?;
        compaction::everything(&self.engine)
    }

    /// Reads every block of every run: checksums, order, filters, indexes, counts; compares the levels with each
    /// other and the manifest with the directory. Changes nothing, and nobody waits for it.
    ///
    /// # Errors
    /// [`Error::Closed`], or what the disk refused; damage is among the report's findings.
    pub fn check(&self) -> Result<CheckReport> {
        self.check_with(|_, _| {})
    }

    /// [`Database::check`], which tells `progress` behind each run how many bytes of how many it has read.
    ///
    /// # Errors
    /// As [`Database::check`].
    pub fn check_with(&self, mut progress: impl FnMut(u64, u64)) -> Result<CheckReport> {
        listing::check(&self.engine, &mut progress)
    }

    /// Copies everything that is committed into the directory `dir`, as a database of its own, while writers go on.
    /// Files are shared by hard links where both directories lie on one filesystem, else copied. What was
    /// acknowledged before the call is in the copy, which is durable when the call returns, and which has nothing
    /// of the transactions that are open. Nothing is verified: what is damaged here is damaged there, so
    /// [`Database::check`] one of the two.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let small = || lockstone::Options::new().segment_bytes(1 << 20).log_bytes(4 << 20);
    /// # let db = small().open(dir.path().join("db"))?;
    /// let accounts = db.create_table("accounts")?;
    /// let mut txn = db.begin();
    /// txn.put(&accounts, "alice", "100")?;
    /// txn.commit()?;
    ///
    /// let copy = dir.path().join("backup");
    /// db.backup(&copy)?;
    /// let copy = small().open(&copy)?;
    /// let accounts = copy.table("accounts").expect("it was there");
    /// assert_eq!(copy.begin().get(&accounts, "alice")?.as_deref(), Some(b"100".as_slice()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::DirectoryNotEmpty`]; the directory is made if it is missing, its parent is not.
    /// [`Error::DiskFull`], [`Error::Io`], [`Error::Closed`] (also when it is closed meanwhile: that ends a backup),
    /// [`Error::Poisoned`]: the directory is no database. A crash in between leaves none either, and opening it says so.
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<()> {
        backup::into_directory(&self.engine, dir.as_ref())
    }

    /// [`Database::backup`] into the directory that `disk` leads to: for harnesses that simulate the machine.
    ///
    /// # Errors
    /// As [`Database::backup`].
    pub fn backup_to(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        backup::into_disk(&self.engine, disk)
    }

    /// What this open found in the log, and what became of it.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.engine.report
    }

    /// Ends the engine for all handles (dropping the last of them, be it a `Table` or a `CommitTicket`, does the
    /// same): rolls back live transactions, but for those that are prepared, which the next open has again; makes buffered commits durable,
    /// takes a checkpoint, and frees the directory before it returns.
    ///
    /// # Errors
    /// [`Error::Closed`] if that was done before; else what the disk refused. The directory is free.
    pub fn close(self) -> Result<()> {
        closing::close(&self.engine)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{OnceLock, Weak};

    use lockstone_base::clock::Clock;
    use lockstone_base::{LockMode, Priority};
    use lockstone_testkit::{SeededEntropy, SimDisk};

    use super::*;

    /// Counts the sleeps, and the permits that are out in them.
    #[derive(Debug, Default)]
    struct Watching {
        engine: OnceLock<Weak<EngineRef>>,
        sleeps: AtomicUsize,
        permits: AtomicUsize,
    }

    impl Clock for Watching {
        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep(&self, _: Duration) {
            let engine = self.engine.get().and_then(Weak::upgrade);
            let permits = engine.map_or(0, |engine| engine.retry_gate.running());
            self.permits.fetch_add(permits, Ordering::Relaxed);
            self.sleeps.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those who were refused slept with their permits, and others who could have run waited for these.
    #[test]
    fn who_sleeps_before_the_next_attempt_keeps_no_permit() {
        let clock = Arc::new(Watching::default());
        let ports = Ports {
            disk: SimDisk::new(1),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            background: false,
        };
        let db = Options::new().retries_max(5).open_with(ports).unwrap();
        clock.engine.set(Arc::downgrade(&db.engine)).unwrap();
        let t = db.create_table("t").unwrap();
        let mut holder = db.begin_with(TxnOptions::new().priority(Priority::high(1)));
        holder.lock(&t, "a", LockMode::Update).unwrap();
        let options = TxnOptions::new().on_conflict(OnConflict::NoWait);
        let refused: Result<()> = db.transact_with(options, |txn| txn.put(&t, "a", "1"));
        assert!(matches!(refused, Err(Error::WouldBlock { .. })));
        assert_eq!(clock.sleeps.load(Ordering::Relaxed), 5);
        assert_eq!(clock.permits.load(Ordering::Relaxed), 0);
        assert_eq!(db.engine.retry_gate.running(), 0);
    }
}
