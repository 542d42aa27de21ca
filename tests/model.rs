//! Random lives of a database against ordinary maps: writes of every kind, savepoints, snapshots, tables that come and
//! go, backups, checkpoints, closing, power losses. One seed is one life; a failure names it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reaches for files and clocks itself"
)]

#[path = "model/dice.rs"]
mod dice;
mod machine;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use dice::Dice;
use lockstone::{
    Database, Durability, Error, LockMode, Range, Savepoint, Snapshot, Table, Transaction,
};
use lockstone_base::disk::Disk;
use lockstone_testkit::{SimDisk, Survivors};
use machine::{no_wait, open};

const SEEDS: u64 = 6;
const STEPS: usize = 2_500;
const NAMES: [&str; 3] = ["one", "two", "three"];
const OPEN_MAX: usize = 3;
const SNAPSHOTS_MAX: usize = 4;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
/// What each table holds.
type Model = BTreeMap<&'static str, Rows>;
/// What a transaction has made of rows; absent ones were deleted.
type Writes = BTreeMap<(&'static str, Vec<u8>), Option<Vec<u8>>>;
type Written = Vec<(Vec<u8>, Option<Vec<u8>>)>;
type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// An open transaction, and what it should see beside what is committed.
struct Open {
    txn: Transaction,
    buffered: bool,
    writes: Writes,
    savepoints: Vec<(Savepoint, Writes)>,
    /// Tables that it has locked or written in: they stay until it ends.
    tables: Vec<&'static str>,
}

impl Open {
    fn rows(&self, committed: &Model, name: &'static str) -> Rows {
        let mut rows = committed.get(name).cloned().unwrap_or_default();
        for ((table, key), value) in &self.writes {
            if *table == name {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        rows
    }
}

struct Life {
    dice: Dice,
    disk: Arc<SimDisk>,
    db: Database,
    /// What is committed; behind what is surely durable, what each commit since has made of it.
    states: Vec<Model>,
    open: Vec<Open>,
    snapshots: Vec<(Snapshot, Model, BTreeMap<&'static str, Table>)>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let db = open(&disk).unwrap();
        Self {
            dice: Dice(seed),
            disk,
            db,
            states: vec![Model::new()],
            open: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    fn committed(&self) -> &Model {
        self.states.last().unwrap()
    }

    /// Everything up to here is durable, and is this.
    fn settle(&mut self, change: impl FnOnce(&mut Model)) {
        let mut model = self.states.pop().unwrap();
        change(&mut model);
        self.states = vec![model];
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..45 => self.write(),
            45..60 => self.read(),
            60..66 => self.save_or_undo(),
            66..80 => self.end(),
            80..85 => self.take_or_drop_snapshot(),
            85..92 => self.look_back(),
            92..94 => self.create(),
            94..96 => self.drop_table(),
            96..97 => self.back_up(),
            97..98 => self.reopen(),
            98..99 => self.lose_power(),
            _ => self.compact(),
        }
    }

    fn begin(&mut self) {
        if self.open.len() < OPEN_MAX {
            let buffered = self.dice.below(3) == 0;
            let durability = if buffered {
                Durability::Buffered
            } else {
                Durability::Sync
            };
            self.open.push(Open {
                txn: self.db.begin_with(no_wait().durability(durability)),
                buffered,
                writes: BTreeMap::new(),
                savepoints: Vec::new(),
                tables: Vec::new(),
            });
        }
    }

    /// An open transaction and a table, if there are both.
    fn pick(&mut self) -> Option<(usize, &'static str, Table)> {
        if self.open.is_empty() {
            self.begin();
        }
        let at = self.dice.below(self.open.len());
        let name = NAMES[self.dice.below(NAMES.len())];
        Some((at, name, self.db.table(name)?))
    }

    fn write(&mut self) {
        let Some((at, name, table)) = self.pick() else {
            return self.create();
        };
        let (key, value) = (self.dice.key(), self.dice.value());
        let dice = &mut self.dice;
        let before = self.open[at].rows(self.states.last().unwrap(), name);
        let open = &mut self.open[at];
        open.tables.push(name);
        let txn = &mut open.txn;
        let exists = before.contains_key(&key);
        let written = match dice.below(6) {
            0 => txn
                .put(&table, &key, &value)
                .map(|()| vec![(key, Some(value))]),
            1 => txn.delete(&table, &key).map(|existed| {
                assert_eq!(existed, exists);
                if existed { vec![(key, None)] } else { vec![] }
            }),
            2 => txn.insert_new(&table, &key, &value).map(|inserted| {
                assert_eq!(inserted, !exists);
                if inserted {
                    vec![(key, Some(value))]
                } else {
                    vec![]
                }
            }),
            3 => {
                let rows: Vec<_> = (0..dice.below(40))
                    .map(|_| (dice.key(), dice.value()))
                    .collect();
                let result = txn.put_many(&table, rows.iter().map(|(key, value)| (key, value)));
                result.map(|()| {
                    rows.into_iter()
                        .map(|(key, value)| (key, Some(value)))
                        .collect()
                })
            }
            4 => txn.get_for(&table, &key, LockMode::Update).map(|found| {
                assert_eq!(found.as_deref(), before.get(&key).map(Vec::as_slice));
                vec![]
            }),
            _ => sweep(txn, &table, &before, dice.bounds()),
        };
        match written {
            Ok(rows) => open
                .writes
                .extend(rows.into_iter().map(|(key, value)| ((name, key), value))),
            Err(Error::WouldBlock { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self) {
        let Some((at, name, table)) = self.pick() else {
            return;
        };
        let expected = self.open[at].rows(self.committed(), name);
        let (key, bounds) = (self.dice.key(), self.dice.bounds());
        let txn = &self.open[at].txn;
        let found = txn.get(&table, &key).unwrap();
        assert_eq!(found.as_deref(), expected.get(&key).map(Vec::as_slice));
        let keys = [self.dice.key(), self.dice.key(), self.dice.key()];
        let many = txn.multi_get(&table, &keys).unwrap();
        for (key, found) in keys.iter().zip(many) {
            assert_eq!(found.as_deref(), expected.get(key).map(Vec::as_slice));
        }
        compare(
            txn.range(&table, bounds.clone()).unwrap(),
            &expected,
            bounds,
            &mut self.dice,
        );
    }

    fn save_or_undo(&mut self) {
        let Some((at, ..)) = self.pick() else { return };
        let choice = self.dice.below(3);
        let open = &mut self.open[at];
        if choice == 0 || open.savepoints.is_empty() {
            let savepoint = open.txn.savepoint();
            open.savepoints.push((savepoint, open.writes.clone()));
        } else {
            let keep = self.dice.below(open.savepoints.len()) + 1;
            open.savepoints.truncate(keep);
            let (savepoint, writes) = open.savepoints.last().unwrap().clone();
            open.txn.rollback_to(savepoint).unwrap();
            open.writes = writes;
        }
    }

    fn end(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.dice.below(self.open.len());
        let mut open = self.open.swap_remove(at);
        if self.dice.below(4) == 0 {
            return open.txn.abort();
        }
        let mut state = self.committed().clone();
        for name in NAMES {
            let rows = open.rows(&state, name);
            if let Some(table) = state.get_mut(name) {
                *table = rows;
            }
        }
        let wrote = !open.writes.is_empty();
        open.savepoints.clear();
        open.txn.commit().unwrap();
        if wrote && open.buffered {
            self.states.push(state);
        } else if wrote {
            self.settle(|model| *model = state);
        }
    }

    fn take_or_drop_snapshot(&mut self) {
        if self.snapshots.len() < SNAPSHOTS_MAX {
            let tables = self.db.tables();
            let named = |t: Table| (*NAMES.iter().find(|name| **name == t.name()).unwrap(), t);
            let tables = tables.into_iter().map(named).collect();
            let state = self.committed().clone();
            self.snapshots.push((self.db.snapshot(), state, tables));
        } else {
            let at = self.dice.below(self.snapshots.len());
            self.snapshots.swap_remove(at);
        }
    }

    /// A snapshot sees what it saw, be the table gone.
    fn look_back(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let at = self.dice.below(self.snapshots.len());
        let (snapshot, model, tables) = &self.snapshots[at];
        for (name, table) in tables {
            let (key, bounds) = (self.dice.key(), self.dice.bounds());
            let found = snapshot.get(table, &key).unwrap();
            assert_eq!(found.as_deref(), model[name].get(&key).map(Vec::as_slice));
            let rows = snapshot.range(table, bounds.clone()).unwrap();
            compare(rows, &model[name], bounds, &mut self.dice);
        }
    }

    fn create(&mut self) {
        let name = NAMES[self.dice.below(NAMES.len())];
        let is_new = self.db.table(name).is_none();
        self.db.create_table(name).unwrap();
        if is_new {
            self.settle(|model| drop(model.insert(name, Rows::new())));
        }
    }

    fn drop_table(&mut self) {
        let name = NAMES[self.dice.below(NAMES.len())];
        let Some(table) = self.db.table(name) else {
            return;
        };
        let is_used = self.open.iter().any(|open| open.tables.contains(&name));
        match self.db.drop_table(&table) {
            Ok(()) => {
                assert!(!is_used);
                self.settle(|model| drop(model.remove(name)));
                let error = self.db.begin().get(&table, "0").unwrap_err();
                assert!(matches!(error, Error::UnknownTable { .. }), "{error}");
            }
            Err(Error::TableInUse { .. }) => assert!(is_used),
            Err(error) => panic!("{error}"),
        }
    }

    fn back_up(&mut self) {
        let copy = SimDisk::new(self.dice.below(1_000) as u64);
        self.db.backup_to(&(copy.clone() as Arc<dyn Disk>)).unwrap();
        let committed = self.committed();
        assert_eq!(&all_rows(&open(&copy).unwrap()), committed);
        self.settle(|_| ());
    }

    fn compact(&mut self) {
        self.db.compact().unwrap();
        self.settle(|_| ());
    }

    fn reopen(&mut self) {
        self.open.clear();
        self.snapshots.clear();
        self.db.clone().close().unwrap();
        self.db = open(&self.disk).unwrap();
        assert_eq!(&all_rows(&self.db), self.committed());
        assert!(self.db.check().unwrap().is_clean());
        self.settle(|_| ());
    }

    /// What is found is the state of one of the commits that may have been lost, or of none of them.
    fn lose_power(&mut self) {
        let at = self.disk.io_count();
        let crashed = if self.dice.below(4) == 0 {
            self.disk.after_kill(at)
        } else {
            let seed = self.dice.below(1 << 20) as u64;
            let survivors = [
                Survivors::None,
                Survivors::All,
                Survivors::Random(seed),
                Survivors::Torn { seed },
            ];
            self.disk.after_crash(at, &survivors[self.dice.below(4)])
        };
        self.open.clear();
        self.snapshots.clear();
        self.disk = crashed;
        // The old handle goes on to write, to a disk that nobody reads any more.
        self.db = open(&self.disk).unwrap();
        let found = all_rows(&self.db);
        assert!(
            self.states.contains(&found),
            "a prefix of the commits survives"
        );
        assert_eq!(self.db.locks().count(), 0);
        self.states = vec![found];
    }
}

/// Walks a cursor that locks, and changes every other row.
fn sweep(
    txn: &mut Transaction,
    table: &Table,
    before: &Rows,
    bounds: Bounds,
) -> Result<Written, Error> {
    let mut written = Vec::new();
    let savepoint = txn.savepoint();
    let walk = || {
        let mut cursor = txn.range_for(table, bounds, LockMode::Update)?;
        while let Some(row) = cursor.next() {
            let (key, value) = row?;
            assert_eq!(Some(&value.to_vec()), before.get(&*key));
            match written.len() % 4 {
                0 => cursor
                    .delete()
                    .map(|()| written.push((key.to_vec(), None)))?,
                2 => cursor
                    .put("swept")
                    .map(|()| written.push((key.to_vec(), Some(b"swept".to_vec()))))?,
                _ => written.push((key.to_vec(), Some(value.to_vec()))),
            }
            if written.len() == 12 {
                break;
            }
        }
        Ok(())
    };
    let walked = walk();
    if walked.is_err() {
        txn.rollback_to(savepoint)?;
    }
    walked.map(|()| written)
}

/// A range is what a map gives, from both ends in any order.
fn compare(mut rows: Range<'_>, expected: &Rows, bounds: Bounds, dice: &mut Dice) {
    // A map panics at bounds behind each other: those are an empty range.
    let inside = |key: &&Vec<u8>| {
        let above = match &bounds.0 {
            Bound::Included(low) => *key >= low,
            Bound::Excluded(low) => *key > low,
            Bound::Unbounded => true,
        };
        above
            && match &bounds.1 {
                Bound::Included(high) => *key <= high,
                Bound::Excluded(high) => *key < high,
                Bound::Unbounded => true,
            }
    };
    let mut expected = expected.iter().filter(|(key, _)| inside(key));
    let habit = dice.below(3);
    loop {
        let from_front = habit == 0 || (habit == 1 && dice.below(2) == 0);
        let (found, expected) = if from_front {
            (rows.next(), expected.next())
        } else {
            (rows.next_back(), expected.next_back())
        };
        let found = found.map(|row| row.unwrap());
        let found = found.as_ref().map(|(key, value)| (&**key, &**value));
        assert_eq!(
            found,
            expected.map(|(key, value)| (key.as_slice(), value.as_slice()))
        );
        if found.is_none() {
            return;
        }
    }
}

fn all_rows(db: &Database) -> Model {
    let snapshot = db.snapshot();
    let rows = |t: &Table| {
        let rows = snapshot.range(t, ..).unwrap().map(Result::unwrap);
        rows.map(|(key, value)| (key.into(), value.into()))
            .collect()
    };
    let named = |t: &Table| {
        (
            *NAMES.iter().find(|name| **name == t.name()).unwrap(),
            rows(t),
        )
    };
    db.tables().iter().map(named).collect()
}

#[test]
fn random_lives_agree_with_ordinary_maps() {
    let base = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = base.map_or(1..=SEEDS, |seed| seed..=seed);
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || {
                let mut life = Life::new(seed);
                for step in 0..STEPS {
                    let stepped =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.step()));
                    assert!(stepped.is_ok(), "SEED={seed}: step {step} failed");
                }
                life.reopen();
            });
        }
    });
}
