//! Random transactions at all levels, interleaved on one thread, against a model in which each runs alone.
//!
//! 1. Every read gives what a plain map says: at `Snapshot` and `Serializable` the one of the begin, at `ReadCommitted` the newest.
//! 2. A row is refused exactly when it was changed since the begin.
//! 3. W8: a serializable transaction that has written and commits has done and seen what it would have done and seen alone, at
//!    its place in the order of commits; and one fails only if another has written into what it has read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod machine;

use std::collections::{BTreeMap, BTreeSet};

use lockstone::{
    Database, Error, Isolation, LockMode, OnConflict, Result, Savepoint, Table, Transaction,
    TxnOptions,
};
use lockstone_testkit::SimDisk;
use machine::open;
use proptest::prelude::*;

const KEYS: u8 = 10;
const SLOTS: usize = 3;

type Rows = BTreeMap<u8, u8>;

#[derive(Debug, Clone)]
enum Call {
    Get(u8),
    MultiGet(u8, u8),
    /// Between two keys, so many rows, from behind.
    Range(u8, u8, usize, bool),
    RangeFor(u8, u8, usize, bool),
    GetFor(u8, LockMode),
    Lock(u8, LockMode),
    Put(u8, u8),
    PutMany(u8, u8, u8),
    InsertNew(u8, u8),
    Delete(u8),
    Savepoint,
    Rollback(usize),
}

#[derive(Debug, Clone)]
enum Step {
    Begin(Isolation),
    Call(Call),
    Commit,
    Abort,
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Values(Vec<Option<u8>>),
    Rows(Vec<(u8, u8)>),
    Told(bool),
    Nothing,
}

fn mode() -> impl Strategy<Value = LockMode> {
    prop_oneof![
        Just(LockMode::KeyShare),
        Just(LockMode::Share),
        Just(LockMode::NoKeyUpdate),
        Just(LockMode::Update)
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let key = || 0..KEYS;
    let range = || (key(), key(), 0..5_usize, any::<bool>());
    prop_oneof![
        4 => key().prop_map(Call::Get),
        1 => (key(), key()).prop_map(|(a, b)| Call::MultiGet(a, b)),
        3 => range().prop_map(|(low, high, rows, back)| Call::Range(low, high, rows, back)),
        2 => range().prop_map(|(low, high, rows, back)| Call::RangeFor(low, high, rows, back)),
        2 => (key(), mode()).prop_map(|(key, mode)| Call::GetFor(key, mode)),
        1 => (key(), mode()).prop_map(|(key, mode)| Call::Lock(key, mode)),
        5 => (key(), any::<u8>()).prop_map(|(key, value)| Call::Put(key, value)),
        1 => (key(), key(), any::<u8>()).prop_map(|(a, b, value)| Call::PutMany(a, b, value)),
        2 => (key(), any::<u8>()).prop_map(|(key, value)| Call::InsertNew(key, value)),
        3 => key().prop_map(Call::Delete),
        1 => Just(Call::Savepoint),
        1 => (0..3_usize).prop_map(Call::Rollback),
    ]
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let level = prop_oneof![
        1 => Just(Isolation::ReadCommitted),
        2 => Just(Isolation::Snapshot),
        4 => Just(Isolation::Serializable)
    ];
    let step = prop_oneof![
        4 => level.prop_map(Step::Begin),
        12 => call().prop_map(Step::Call),
        3 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ];
    (0..SLOTS, step)
}

/// What a transaction has written, and what it had at its savepoints.
#[derive(Debug, Clone, Default)]
struct Own {
    writes: BTreeMap<u8, Option<u8>>,
    savepoints: Vec<BTreeMap<u8, Option<u8>>>,
}

impl Own {
    fn over(&self, base: &Rows) -> Rows {
        let mut rows = base.clone();
        for (key, value) in &self.writes {
            match value {
                Some(value) => drop(rows.insert(*key, *value)),
                None => drop(rows.remove(key)),
            }
        }
        rows
    }

    /// What the call gives when everybody else has left `base`.
    fn perform(&mut self, base: &Rows, call: &Call) -> Seen {
        let rows = self.over(base);
        match *call {
            Call::Get(key) | Call::GetFor(key, _) => Seen::Values(vec![rows.get(&key).copied()]),
            Call::MultiGet(a, b) => {
                Seen::Values(vec![rows.get(&a).copied(), rows.get(&b).copied()])
            }
            Call::Range(low, high, count, back) | Call::RangeFor(low, high, count, back) => {
                let within = rows
                    .into_iter()
                    .filter(|(key, _)| (low..high).contains(key));
                Seen::Rows(if back {
                    within.rev().take(count).collect()
                } else {
                    within.take(count).collect()
                })
            }
            Call::Lock(..) => Seen::Nothing,
            Call::Put(key, value) => {
                self.writes.insert(key, Some(value));
                Seen::Nothing
            }
            Call::PutMany(a, b, value) => {
                self.writes.extend([(a, Some(value)), (b, Some(value))]);
                Seen::Nothing
            }
            Call::InsertNew(key, value) => {
                let absent = !rows.contains_key(&key);
                if absent {
                    self.writes.insert(key, Some(value));
                }
                Seen::Told(absent)
            }
            Call::Delete(key) => {
                let exists = rows.contains_key(&key);
                if exists {
                    self.writes.insert(key, None);
                }
                Seen::Told(exists)
            }
            Call::Savepoint => {
                self.savepoints.push(self.writes.clone());
                Seen::Nothing
            }
            Call::Rollback(number) => {
                self.savepoints.truncate(number + 1);
                self.writes.clone_from(&self.savepoints[number]);
                Seen::Nothing
            }
        }
    }
}

/// A transaction that is open.
struct Open {
    txn: Transaction,
    level: Isolation,
    /// What was there when it began, and how many commits had been.
    begun: Rows,
    commits: usize,
    own: Own,
    savepoints: Vec<Savepoint>,
    /// What it has done, and what it has seen.
    done: Vec<(Call, Seen)>,
    reads: BTreeSet<u8>,
}

struct World {
    db: Database,
    t: Table,
    now: Rows,
    /// By which commit each key was last changed.
    changed: BTreeMap<u8, usize>,
    commits: usize,
    open: Vec<Option<Open>>,
    serial: usize,
    invalidated: usize,
}

fn value_of(value: &[u8]) -> u8 {
    value[0]
}

/// Runs a cursor for so many rows; also when it is refused on the way.
fn walk(
    rows: &mut impl DoubleEndedIterator<Item = Result<(lockstone::Key, lockstone::Value)>>,
    (count, back): (usize, bool),
    seen: &mut Vec<(u8, u8)>,
) -> Result<()> {
    for _ in 0..count {
        let row = if back { rows.next_back() } else { rows.next() };
        let Some(row) = row else { break };
        let (key, value) = row?;
        seen.push((key[0], value_of(&value)));
    }
    Ok(())
}

impl Open {
    /// The call itself.
    fn call(&mut self, t: &Table, call: &Call, rows: &mut Vec<(u8, u8)>) -> Result<Seen> {
        let txn = &mut self.txn;
        let values = |values: Vec<Option<lockstone::Value>>| {
            Seen::Values(
                values
                    .iter()
                    .map(|value| value.as_deref().map(value_of))
                    .collect(),
            )
        };
        Ok(match *call {
            Call::Get(key) => values(vec![txn.get(t, [key])?]),
            Call::MultiGet(a, b) => values(txn.multi_get(t, [[a], [b]])?),
            Call::GetFor(key, mode) => values(vec![txn.get_for(t, [key], mode)?]),
            Call::Range(low, high, count, back) => {
                walk(&mut txn.range(t, [low]..[high])?, (count, back), rows)?;
                Seen::Rows(rows.clone())
            }
            Call::RangeFor(low, high, count, back) => {
                let mut cursor = txn.range_for(t, [low]..[high], LockMode::Share)?;
                walk(&mut cursor, (count, back), rows)?;
                Seen::Rows(rows.clone())
            }
            Call::Lock(key, mode) => txn.lock(t, [key], mode).map(|_| Seen::Nothing)?,
            Call::Put(key, value) => txn.put(t, [key], [value]).map(|()| Seen::Nothing)?,
            Call::PutMany(a, b, value) => {
                txn.put_many(t, [([a], [value]), ([b], [value])])?;
                Seen::Nothing
            }
            Call::InsertNew(key, value) => Seen::Told(txn.insert_new(t, [key], [value])?),
            Call::Delete(key) => Seen::Told(txn.delete(t, [key])?),
            Call::Savepoint => {
                self.savepoints.push(txn.savepoint());
                Seen::Nothing
            }
            Call::Rollback(number) => {
                txn.rollback_to(self.savepoints[number])?;
                self.savepoints.truncate(number + 1);
                Seen::Nothing
            }
        })
    }

    /// The keys of which the call locks one by one and says something, or writes what it should not.
    fn refused_for(&self, call: &Call) -> Vec<u8> {
        let blind = self.level != Isolation::Snapshot;
        match *call {
            Call::Lock(key, _) | Call::GetFor(key, _) | Call::InsertNew(key, _) => vec![key],
            Call::Put(key, _) | Call::Delete(key) if !blind => vec![key],
            Call::PutMany(a, b, _) if !blind => vec![a, b],
            _ => Vec::new(),
        }
    }

    /// Notes which keys of others it has read, when a call has given `seen`.
    fn note_reads(&mut self, call: &Call, seen: &Seen) {
        let keys: Vec<u8> = match (call, seen) {
            (
                Call::Get(key) | Call::GetFor(key, _) | Call::InsertNew(key, _) | Call::Delete(key),
                _,
            ) => vec![*key],
            (Call::MultiGet(a, b), _) => vec![*a, *b],
            (
                Call::Range(low, high, count, back) | Call::RangeFor(low, high, count, back),
                Seen::Rows(rows),
            ) => {
                // A cursor that was asked once more than there are rows has seen the end.
                let ended = rows.len() < *count;
                match rows.last() {
                    _ if ended => (*low..*high).collect(),
                    Some((last, _)) if *back => (*last..*high).collect(),
                    Some((last, _)) => (*low..=*last).collect(),
                    None => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        let walks = matches!(call, Call::Range(..) | Call::RangeFor(..));
        let others = keys
            .into_iter()
            .filter(|key| walks || !self.own.writes.contains_key(key));
        self.reads.extend(others);
    }
}

impl World {
    fn new() -> Self {
        let db = open(&SimDisk::new(1)).unwrap();
        let t = db.create_table("t").unwrap();
        Self {
            db,
            t,
            now: Rows::new(),
            changed: BTreeMap::new(),
            commits: 0,
            open: (0..SLOTS).map(|_| None).collect(),
            serial: 0,
            invalidated: 0,
        }
    }

    fn step(&mut self, slot: usize, step: &Step) {
        match (step, self.open[slot].take()) {
            (Step::Begin(level), None) => {
                let options = TxnOptions::new().isolation(*level);
                self.open[slot] = Some(Open {
                    txn: self.db.begin_with(options.on_conflict(OnConflict::NoWait)),
                    level: *level,
                    begun: self.now.clone(),
                    commits: self.commits,
                    own: Own::default(),
                    savepoints: Vec::new(),
                    done: Vec::new(),
                    reads: BTreeSet::new(),
                });
            }
            (Step::Call(call), Some(mut open)) => {
                let possible =
                    !matches!(call, Call::Rollback(number) if *number >= open.savepoints.len());
                if !possible || self.call(&mut open, call) {
                    self.open[slot] = Some(open);
                }
            }
            (Step::Commit, Some(open)) => self.commit(open),
            (Step::Begin(_), open) => self.open[slot] = open,
            (Step::Call(_) | Step::Commit, None) | (Step::Abort, _) => {}
        }
    }

    /// Whether the transaction goes on.
    fn call(&self, open: &mut Open, call: &Call) -> bool {
        let (newest, commits) = (open.level == Isolation::ReadCommitted, open.commits);
        let base = if newest { &self.now } else { &open.begun }.clone();
        let is_stale = |key: &u8| !newest && self.changed.get(key).is_some_and(|at| *at > commits);
        let stale = open.refused_for(call).iter().any(is_stale);
        let mut rows = Vec::new();
        let result = open.call(&self.t, call, &mut rows);
        match result {
            Ok(seen) => {
                assert!(!stale, "{call:?} at {:?}", open.level);
                if let (Call::RangeFor(..), Seen::Rows(rows)) = (call, &seen) {
                    assert!(!rows.iter().any(|(key, _)| is_stale(key)), "{call:?}");
                }
                open.note_reads(call, &seen);
                assert_eq!(
                    seen,
                    open.own.perform(&base, call),
                    "{call:?} at {:?}",
                    open.level
                );
                open.done.push((call.clone(), seen));
                true
            }
            Err(Error::WouldBlock { .. }) => {
                if let Call::RangeFor(low, high, _, back) = *call {
                    // What it has yielded is seen and stays locked; it knows of one more row.
                    let seen = Seen::Rows(rows.clone());
                    let call = Call::RangeFor(low, high, rows.len(), back);
                    assert_eq!(seen, open.own.perform(&base, &call), "{call:?}");
                    let all = open
                        .own
                        .perform(&base, &Call::Range(low, high, rows.len() + 1, back));
                    open.note_reads(&Call::RangeFor(low, high, rows.len() + 1, back), &all);
                    open.done.push((call, seen));
                }
                true
            }
            Err(Error::WriteConflict { .. }) => {
                assert!(
                    stale || matches!(call, Call::RangeFor(..)),
                    "{call:?} at {:?}",
                    open.level
                );
                false
            }
            Err(error) => panic!("{call:?}: {error}"),
        }
    }

    fn commit(&mut self, open: Open) {
        let writes = open.own.writes;
        let is_broken = |key: &u8| self.changed.get(key).is_some_and(|at| *at > open.commits);
        let serializable = open.level == Isolation::Serializable && !writes.is_empty();
        let broken = serializable && open.reads.iter().any(is_broken);
        match open.txn.commit() {
            Ok(_) => assert!(!broken, "{:?}", open.done),
            Err(Error::LocksInvalidated { .. }) => {
                assert!(broken, "{:?}", open.done);
                self.invalidated += 1;
                return;
            }
            Err(error) => panic!("{error}"),
        }
        if serializable {
            self.serial += 1;
            let mut alone = Own::default();
            for (call, seen) in &open.done {
                assert_eq!(
                    *seen,
                    alone.perform(&self.now, call),
                    "{call:?} in {:?}",
                    open.done
                );
            }
        }
        if !writes.is_empty() {
            self.commits += 1;
            for key in writes.keys() {
                self.changed.insert(*key, self.commits);
            }
            self.now = Own {
                writes,
                ..Own::default()
            }
            .over(&self.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_transaction_is_as_if_alone(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for (slot, step) in &steps {
            world.step(*slot, step);
        }
        let end = world.db.snapshot();
        let rows = end.range(&world.t, ..).unwrap();
        let rows: Rows = rows.map(|row| row.map(|(key, value)| (key[0], value_of(&value))).unwrap()).collect();
        prop_assert_eq!(rows, world.now);
    }
}

/// The property says something: in one long run transactions commit, and are broken.
#[test]
fn the_random_transactions_meet() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut world = World::new();
    let steps = prop::collection::vec(step(), 20_000);
    for (slot, step) in steps.new_tree(&mut runner).unwrap().current() {
        world.step(slot, &step);
    }
    assert!(world.serial > 50, "{} have committed", world.serial);
    assert!(world.invalidated > 20, "{} were broken", world.invalidated);
}
