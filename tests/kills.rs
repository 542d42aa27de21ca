//! Real kills: a child prepares, leases, commits and aborts on real files until SIGKILL; the oracle is outside. After each kill everyone
//! who was acknowledged as prepared, and everyone who has a lease, holds exactly its locks, found by asking for what conflicts with each
//! and for what just does not; nobody else holds any; what was acknowledged as committed is there, and what was aborted is not.
//!
//! `LOCKSTONE_KILL_ROUNDS` is how often; a few unless told.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, starts processes and has a clock"
)]

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use lockstone::{Database, Error, LockMode, Options, Table, Transaction, TxnId, TxnOptions};
use machine::{no_wait, small_and_real};

const THREADS: u64 = 3;
const LEASE: Duration = Duration::from_hours(1);
const DIR: &str = "LOCKSTONE_KILLS_DIR";
const FIRST: &str = "LOCKSTONE_KILLS_FIRST";

fn options() -> Options {
    small_and_real()
        .log_bytes(64 << 20)
        .provisional_bytes(256 << 10)
}

/// xorshift64*, from a number that may be small.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// What a transaction does, one call after the other.
#[derive(Debug, Clone)]
enum Step {
    Lock(u64, LockMode),
    Put(u64),
    /// So many rows from there on, at once.
    LockMany(u64, u64),
    PutMany(u64, u64),
    Savepoint,
    /// To the last savepoint, which stays.
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prepared,
    Leased,
    Plain,
}

/// All of one transaction, made of its number alone.
#[derive(Debug, Clone)]
struct Plan {
    number: u64,
    kind: Kind,
    steps: Vec<Step>,
    commits: bool,
    /// Whether the child ends it, or leaves it.
    ends: bool,
}

const ROWS: u64 = 4000;

impl Plan {
    fn of(number: u64) -> Self {
        let mut dice = Dice::new(number);
        let kind =
            [Kind::Prepared, Kind::Prepared, Kind::Leased, Kind::Plain][dice.below(4) as usize];
        let large = dice.below(6) == 0;
        let steps = (0..3 + dice.below(8)).map(|_| match dice.below(10) {
            0..4 => Step::Lock(dice.below(20), LockMode::ALL[dice.below(4) as usize]),
            4..6 => Step::Put(dice.below(20)),
            6 => Step::Savepoint,
            7 => Step::Rollback,
            8 if large => Step::LockMany(100 + dice.below(1000), 1500),
            8 => Step::LockMany(20 + dice.below(20), 30),
            _ if large => Step::PutMany(2000 + dice.below(500), 800),
            _ => Step::PutMany(60 + dice.below(20), 20),
        });
        Self {
            number,
            kind,
            steps: steps.collect(),
            commits: dice.below(2) == 0,
            ends: dice.below(3) > 0,
        }
    }

    fn key(&self, row: u64) -> String {
        format!("{:09}-{row:05}", self.number)
    }

    fn gid(&self) -> String {
        format!("gid-{}", self.number)
    }

    /// What it holds, and has written, after so many steps.
    fn state(&self, steps: usize) -> State {
        let mut state = State::default();
        let mut mark = None;
        for step in &self.steps[..steps] {
            match *step {
                Step::Lock(row, mode) => state.lock(row, mode),
                Step::Put(row) => state.put(row),
                Step::LockMany(from, rows) => {
                    (from..from + rows).for_each(|row| state.lock(row, LockMode::Update));
                }
                Step::PutMany(from, rows) => (from..from + rows).for_each(|row| state.put(row)),
                Step::Savepoint => mark = Some(state.clone()),
                Step::Rollback => {
                    if let Some(mark) = &mark {
                        state = mark.clone();
                    }
                }
            }
        }
        state
    }

    fn play(
        &self,
        txn: &mut Transaction,
        t: &Table,
        done: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        let mut mark = None;
        for (at, step) in self.steps.iter().enumerate() {
            let keys = |from: u64, rows: u64| (from..from + rows).map(|row| self.key(row));
            match *step {
                Step::Lock(row, mode) => drop(txn.lock(t, self.key(row), mode)?),
                Step::Put(row) => txn.put(t, self.key(row), self.key(row))?,
                Step::LockMany(from, rows) => {
                    txn.lock_many(t, keys(from, rows), LockMode::Update)?;
                }
                Step::PutMany(from, rows) => {
                    txn.put_many(t, keys(from, rows).map(|key| (key.clone(), key)))?;
                }
                Step::Savepoint => mark = Some(txn.savepoint()),
                Step::Rollback => {
                    if let Some(mark) = mark {
                        txn.rollback_to(mark)?;
                    }
                }
            }
            done(at + 1);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    locks: BTreeMap<u64, LockMode>,
    writes: BTreeSet<u64>,
}

impl State {
    fn lock(&mut self, row: u64, mode: LockMode) {
        let held = self.locks.entry(row).or_insert(mode);
        *held = (*held).max(mode);
    }

    fn put(&mut self, row: u64) {
        self.lock(row, LockMode::NoKeyUpdate);
        self.writes.insert(row);
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write: a kill cuts nothing that was told.
    out.write_all(format!("@{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What the killer starts; without it, nothing.
#[test]
fn child() {
    let (Ok(dir), Ok(first)) = (env::var(DIR), env::var(FIRST)) else {
        return;
    };
    let first: u64 = first.parse().unwrap();
    let db = options().open(dir).unwrap();
    let t = db.create_table("t").unwrap();
    say("open");
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (db, t) = (&db, &t);
            scope.spawn(move || {
                for at in 0_u64.. {
                    work(db, t, &Plan::of(first + at * THREADS + number));
                }
            });
        }
    });
}

fn work(db: &Database, t: &Table, plan: &Plan) {
    let n = plan.number;
    let options = match plan.kind {
        Kind::Leased => TxnOptions::new().lease(LEASE),
        _ => TxnOptions::new(),
    };
    let mut txn = db.begin_with(options);
    say(&format!("begin {n} {}", txn.id()));
    let tells = plan.kind == Kind::Leased;
    plan.play(&mut txn, t, &mut |steps| {
        if tells {
            say(&format!("step {n} {steps}"));
        }
    })
    .unwrap();
    match plan.kind {
        Kind::Prepared => {
            txn.prepare(plan.gid()).unwrap();
            say(&format!("step {n} {}", plan.steps.len()));
            if plan.ends {
                say(&format!("ending {n}"));
                if plan.commits {
                    db.commit_prepared(plan.gid()).unwrap();
                } else {
                    db.abort_prepared(plan.gid()).unwrap();
                }
                say(&format!("ended {n}"));
            }
        }
        Kind::Leased if !plan.ends => drop(txn.detach()),
        _ => {
            say(&format!("ending {n}"));
            if plan.commits {
                txn.commit().unwrap();
                say(&format!("ended {n}"));
            }
        }
    }
}

/// What was heard of a transaction.
#[derive(Debug, Clone, Default)]
struct Heard {
    id: Option<TxnId>,
    /// After so many steps it was acknowledged.
    steps: Option<usize>,
    ending: bool,
    ended: bool,
}

/// Starts the child, and kills it after a while; what it said is added to what was heard.
fn run_and_kill(dir: &Path, first: u64, after: Duration, heard: &mut BTreeMap<u64, Heard>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .envs([(DIR, dir.to_str().unwrap()), (FIRST, &first.to_string())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let killer = thread::spawn(move || {
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    for line in lines {
        let line = line.unwrap();
        let mut words = line.trim_start_matches(|c| c != '@').split(' ');
        let verb = words.next().unwrap_or_default();
        let number = words.next().and_then(|word| word.parse::<u64>().ok());
        let Some(number) = number else { continue };
        let one = heard.entry(number).or_default();
        let word = words.next();
        match verb {
            "@begin" => one.id = Some(word.unwrap().parse().unwrap()),
            "@step" => one.steps = Some(word.unwrap().parse().unwrap()),
            "@ending" => one.ending = true,
            "@ended" => one.ended = true,
            _ => panic!("{line}"),
        }
    }
    killer.join().unwrap();
}

/// Whether somebody else is granted the row in this mode.
fn is_free(db: &Database, t: &Table, key: &str, mode: LockMode) -> bool {
    match db.begin_with(no_wait()).lock(t, key, mode) {
        Ok(_) => true,
        Err(Error::WouldBlock { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// The mode in which a row is held, by asking for it.
fn held(db: &Database, t: &Table, key: &str) -> Option<LockMode> {
    use LockMode::{KeyShare, NoKeyUpdate, Share, Update};
    let free = |mode| is_free(db, t, key, mode);
    if free(Update) {
        None
    } else if free(NoKeyUpdate) {
        Some(KeyShare)
    } else if free(Share) {
        Some(Share)
    } else if free(KeyShare) {
        Some(NoKeyUpdate)
    } else {
        Some(Update)
    }
}

/// What is found of a transaction that lives: its rows, a part of those that are many.
fn found(db: &Database, t: &Table, plan: &Plan) -> BTreeMap<u64, LockMode> {
    let rows = (0..100).chain((100..ROWS).step_by(41));
    let rows = rows.filter_map(|row| Some((row, held(db, t, &plan.key(row))?)));
    rows.collect()
}

fn sampled(state: &State) -> BTreeMap<u64, LockMode> {
    let is_asked = |row: &u64| *row < 100 || (row - 100).is_multiple_of(41);
    let locks = state.locks.iter().filter(|(row, _)| is_asked(row));
    locks.map(|(row, mode)| (*row, *mode)).collect()
}

#[derive(Debug, Default)]
struct Counts {
    prepared: usize,
    leased: usize,
    committed: usize,
    in_doubt: usize,
}

/// Compares what a kill has left with what was heard, and ends some of it.
fn check(db: &Database, heard: &mut BTreeMap<u64, Heard>, dice: &mut Dice, counts: &mut Counts) {
    let Some(t) = db.table("t") else {
        return;
    };
    let prepared: BTreeSet<String> = db.prepared().into_iter().map(|one| one.gid).collect();
    let living: BTreeSet<TxnId> = db.transactions().into_iter().map(|one| one.txn).collect();
    let seen = db.snapshot();
    let mut known = BTreeSet::new();
    for (number, one) in &*heard {
        let plan = Plan::of(*number);
        let lives = one.id.is_some_and(|id| living.contains(&id));
        if lives {
            known.extend(one.id);
        }
        let all = plan.steps.len();
        let value = |row: &u64| seen.get(&t, plan.key(*row)).unwrap();
        let is_committed = |state: &State| state.writes.iter().all(|row| value(row).is_some());
        let is_absent = || {
            (0..ROWS)
                .step_by(7)
                .chain(0..100)
                .all(|row| value(&row).is_none())
        };
        assert_eq!(
            prepared.contains(&plan.gid()),
            lives && plan.kind == Kind::Prepared
        );
        if lives {
            assert!(!one.ended, "{plan:?} has ended");
            let least = one.steps.unwrap_or(0);
            let found = found(db, &t, &plan);
            let mut possible = match plan.kind {
                Kind::Plain => panic!("{plan:?} lives"),
                Kind::Prepared => all..=all,
                Kind::Leased => least..=all.min(least + 1),
            };
            let is_one = possible.any(|steps| sampled(&plan.state(steps)) == found);
            assert!(is_one, "{plan:?} {one:?}: {found:?}");
            assert!(is_absent());
            match plan.kind {
                Kind::Leased => counts.leased += 1,
                _ => counts.prepared += 1,
            }
            continue;
        }
        let could_end = one.ending || one.ended;
        // One that has locked nothing yet has said nothing to the log.
        let is_logged = |step: &Step| !matches!(step, Step::Savepoint | Step::Rollback);
        let done = &plan.steps[..one.steps.unwrap_or(0)];
        let is_told = plan.kind == Kind::Prepared && one.steps.is_some();
        let acknowledged = plan.kind != Kind::Plain && (is_told || done.iter().any(is_logged));
        let report = || {
            db.recovery_report()
                .in_flight
                .iter()
                .find(|it| Some(it.txn) == one.id)
        };
        assert!(
            could_end || !acknowledged,
            "{plan:?} {one:?} is gone; recovery has found {:?}",
            report()
        );
        assert!(found(db, &t, &plan).is_empty(), "{plan:?} has ended");
        if one.ended && plan.commits {
            assert!(is_committed(&plan.state(all)), "{plan:?} was committed");
            counts.committed += 1;
        } else if !one.ended && one.ending && plan.commits {
            assert!(
                is_absent() || is_committed(&plan.state(all)),
                "{plan:?} is there in part"
            );
            counts.in_doubt += 1;
        } else {
            assert!(is_absent(), "{plan:?} {one:?} was not committed");
        }
    }
    let others: Vec<_> = living.difference(&known).collect();
    assert!(
        others.is_empty(),
        "{others:?} live, and nobody heard of them"
    );
    for number in heard.keys().copied().collect::<Vec<_>>() {
        let plan = Plan::of(number);
        let one = &heard[&number];
        let lives = one.id.filter(|id| living.contains(id));
        if let Some(id) = lives.filter(|_| dice.below(3) > 0) {
            match (plan.kind, dice.below(2)) {
                (Kind::Prepared, 0) => drop(db.commit_prepared(plan.gid()).unwrap()),
                (Kind::Prepared, _) => db.abort_prepared(plan.gid()).unwrap(),
                (_, 0) => drop(db.resume(id).unwrap().commit().unwrap()),
                (_, _) => drop(db.resume(id).unwrap()),
            }
        } else if lives.is_some() {
            // It is there at the next kill as well, with no step under way.
            continue;
        }
        heard.remove(&number);
    }
}

#[test]
fn whoever_outlives_a_kill_has_exactly_its_locks() {
    let rounds = env::var("LOCKSTONE_KILL_ROUNDS").ok();
    let rounds: u64 = rounds.map_or(6, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (mut heard, mut counts) = (BTreeMap::new(), Counts::default());
    let mut dice =
        Dice::new(env::var("LOCKSTONE_KILL_SEED").map_or(1, |seed| seed.parse().unwrap()));
    for round in 0..rounds {
        let after = Duration::from_millis(60 + dice.below(240));
        run_and_kill(&path, round * 1_000_000, after, &mut heard);
        let db = options().open(&path).unwrap();
        check(&db, &mut heard, &mut dice, &mut counts);
        // The next child begins from a kill as well, or from a database that was closed.
        if dice.below(2) == 0 {
            db.close().unwrap();
        } else {
            drop(db);
        }
    }
    println!("{rounds} kills: {counts:?}");
    assert!(
        counts.prepared > 0 && counts.leased > 0 && counts.committed > 0,
        "{counts:?}"
    );
}
