//! The anomalies of the Hermitage (Martin Kleppmann, <https://github.com/ept/hermitage>), each played at each isolation level.
//!
//! The table that they make is the one of `docs/isolation.md`; a difference is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts threads itself"
)]

mod machine;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstone::{
    Database, Isolation, LockInfoState, LockMode, Result, Table, Transaction, TxnOptions,
};
use machine::fresh;

const LEVELS: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::Snapshot,
    Isolation::Serializable,
];

/// Plays an anomaly at a level; whether it came about.
type Anomaly = fn(&Play) -> bool;

/// Each with its name in the page, and what happens.
const ANOMALIES: [(&str, &str, Anomaly); 15] = [
    ("G0", "two writers mix their writes", dirty_write),
    ("G1a", "a read of what is rolled back", aborted_read),
    (
        "G1b",
        "a read of what is overwritten before the commit",
        intermediate_read,
    ),
    (
        "G1c",
        "two transactions read each other's writes",
        circular_flow,
    ),
    (
        "OTV",
        "what a transaction has written is seen, then no more",
        vanishing,
    ),
    ("PMP", "a range read twice has a new row", phantom),
    (
        "PMP-write",
        "a write by predicate mixes two moments",
        phantom_write,
    ),
    ("P4", "an update is lost", lost_update),
    ("G-single", "two reads of two moments", read_skew),
    (
        "G-single, predicate",
        "two range reads of two moments",
        read_skew_by_predicate,
    ),
    (
        "G-single, write 1",
        "a read and a write by predicate of two moments",
        read_skew_write,
    ),
    (
        "G-single, write 2",
        "the same, rolled back",
        read_skew_rolled_back,
    ),
    ("G2-item", "write skew on two rows", write_skew),
    ("G2", "write skew on a range", write_skew_by_predicate),
    (
        "G2, two edges",
        "a reader makes two writers' order impossible",
        two_edges,
    ),
];

/// A fresh table with row 1 = 10 and row 2 = 20.
struct Play {
    db: Database,
    t: Table,
    level: Isolation,
}

impl Play {
    fn begin(&self) -> Transaction {
        self.db.begin_with(TxnOptions::new().isolation(self.level))
    }

    fn get(&self, txn: &Transaction, row: u8) -> Option<i64> {
        txn.get(&self.t, [row]).unwrap().map(|value| number(&value))
    }

    fn put(&self, txn: &mut Transaction, row: u8, value: i64) -> Result<()> {
        txn.put(&self.t, [row], value.to_be_bytes())
    }

    /// The rows whose value the predicate holds for.
    fn select(&self, txn: &Transaction, holds: impl Fn(i64) -> bool) -> Vec<(u8, i64)> {
        let rows = txn.range(&self.t, ..).unwrap();
        rows.map(Result::unwrap)
            .map(|(key, value)| (key[0], number(&value)))
            .filter(|(_, value)| holds(*value))
            .collect()
    }

    /// Changes or deletes the rows as `change` says for their values; how many it has.
    fn update(&self, txn: &mut Transaction, change: impl Fn(i64) -> Change) -> Result<usize> {
        let mut changed = 0;
        let mut rows = txn.range_for(&self.t, .., LockMode::Update)?;
        while let Some(row) = rows.next() {
            let (_, value) = row?;
            match change(number(&value)) {
                Change::Leave => continue,
                Change::Set(value) => rows.put(value.to_be_bytes())?,
                Change::Delete => rows.delete()?,
            }
            changed += 1;
        }
        Ok(changed)
    }

    /// Runs `call` on a thread of its own; once it waits for a lock or has returned, `then`. What both give.
    fn while_waiting<T: Send, U>(
        &self,
        call: impl FnOnce() -> T + Send,
        then: impl FnOnce() -> U,
    ) -> (T, U) {
        let returned = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                let result = call();
                returned.store(true, Ordering::Release);
                result
            });
            let waits = || {
                let mut locks = self.db.locks();
                locks.any(|lock| lock.unwrap().state == LockInfoState::Waiting)
            };
            while !returned.load(Ordering::Acquire) && !waits() {
                std::thread::yield_now();
            }
            let then = then();
            (caller.join().unwrap(), then)
        })
    }

    /// What everybody sees in the end.
    fn rows(&self) -> Vec<(u8, i64)> {
        let txn = self.db.begin();
        self.select(&txn, |_| true)
    }
}

/// What an update by predicate does to a row.
enum Change {
    Leave,
    Set(i64),
    Delete,
}

fn number(value: &[u8]) -> i64 {
    i64::from_be_bytes(value.try_into().unwrap())
}

/// Whether the transaction did its step and has committed.
fn committed(txn: Transaction, step: &Result<()>) -> bool {
    step.is_ok() && txn.commit().is_ok()
}

fn dirty_write(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    play.put(&mut one, 1, 11).unwrap();
    let (step, ()) = play.while_waiting(
        || play.put(&mut two, 1, 12),
        || {
            play.put(&mut one, 2, 21).unwrap();
            one.commit().unwrap();
        },
    );
    let step = step.and_then(|()| play.put(&mut two, 2, 22));
    let both = committed(two, &step);
    let rows = if both {
        [(1, 12), (2, 22)]
    } else {
        [(1, 11), (2, 21)]
    };
    play.rows() != rows
}

fn aborted_read(play: &Play) -> bool {
    let (mut one, two) = (play.begin(), play.begin());
    play.put(&mut one, 1, 101).unwrap();
    let before = play.get(&two, 1);
    one.abort();
    before == Some(101) || play.get(&two, 1) == Some(101)
}

fn intermediate_read(play: &Play) -> bool {
    let (mut one, two) = (play.begin(), play.begin());
    play.put(&mut one, 1, 101).unwrap();
    let before = play.get(&two, 1);
    play.put(&mut one, 1, 11).unwrap();
    one.commit().unwrap();
    before == Some(101) || play.get(&two, 1) == Some(101)
}

fn circular_flow(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    play.put(&mut one, 1, 11).unwrap();
    play.put(&mut two, 2, 22).unwrap();
    let seen = (play.get(&one, 2), play.get(&two, 1));
    let both = one.commit().is_ok() & two.commit().is_ok();
    both && seen == (Some(22), Some(11))
}

/// Once anything of the second writer is seen, nothing older may be.
fn vanishing(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    play.put(&mut one, 1, 11).unwrap();
    play.put(&mut one, 2, 19).unwrap();
    let (step, ()) = play.while_waiting(|| play.put(&mut two, 1, 12), || _ = one.commit().unwrap());
    let three = play.begin();
    let mut seen = vec![play.get(&three, 1)];
    let step = step.and_then(|()| play.put(&mut two, 2, 18));
    seen.push(play.get(&three, 2));
    committed(two, &step);
    seen.extend([play.get(&three, 2), play.get(&three, 1)]);
    let of_two = |value: &Option<i64>| matches!(value, Some(12 | 18));
    let first = seen.iter().position(of_two).unwrap_or(seen.len());
    !seen[first..].iter().all(of_two)
}

fn phantom(play: &Play) -> bool {
    let one = play.begin();
    assert!(play.select(&one, |value| value == 30).is_empty());
    let mut two = play.begin();
    play.put(&mut two, 3, 30).unwrap();
    two.commit().unwrap();
    let found = play.select(&one, |value| value % 3 == 0);
    one.commit().is_ok() && !found.is_empty()
}

/// Ten is added to all values, and who has 20 is deleted, before or behind that.
fn phantom_write(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    play.update(&mut one, |value| Change::Set(value + 10))
        .unwrap();
    let twenty = |value| {
        if value == 20 {
            Change::Delete
        } else {
            Change::Leave
        }
    };
    let (step, ()) = play.while_waiting(
        || play.update(&mut two, twenty),
        || _ = one.commit().unwrap(),
    );
    let deleted = committed(two, &step.map(drop));
    let rows = if deleted {
        vec![(2, 30)]
    } else {
        vec![(1, 20), (2, 30)]
    };
    play.rows() != rows
}

fn lost_update(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    let added = [&one, &two].map(|txn| play.get(txn, 1).unwrap() + 1);
    play.put(&mut one, 1, added[0]).unwrap();
    let (step, ()) = play.while_waiting(
        || play.put(&mut two, 1, added[1]),
        || _ = one.commit().unwrap(),
    );
    committed(two, &step)
}

fn read_skew(play: &Play) -> bool {
    let (one, mut two) = (play.begin(), play.begin());
    assert_eq!(play.get(&one, 1), Some(10));
    play.put(&mut two, 1, 12).unwrap();
    play.put(&mut two, 2, 18).unwrap();
    two.commit().unwrap();
    let second = play.get(&one, 2);
    one.commit().is_ok() && second == Some(18)
}

fn read_skew_by_predicate(play: &Play) -> bool {
    let (one, mut two) = (play.begin(), play.begin());
    assert_eq!(play.select(&one, |value| value % 5 == 0).len(), 2);
    let ten = |value| {
        if value == 10 {
            Change::Set(12)
        } else {
            Change::Leave
        }
    };
    play.update(&mut two, ten).unwrap();
    two.commit().unwrap();
    let found = play.select(&one, |value| value % 3 == 0);
    one.commit().is_ok() && !found.is_empty()
}

/// It has seen row 1 as it was, and finds row 2 as it is.
fn read_skew_write(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    assert_eq!(play.get(&one, 1), Some(10));
    play.put(&mut two, 1, 12).unwrap();
    play.put(&mut two, 2, 18).unwrap();
    two.commit().unwrap();
    let twenty = |value| {
        if value == 20 {
            Change::Delete
        } else {
            Change::Leave
        }
    };
    let step = play.update(&mut one, twenty).map(drop);
    committed(one, &step)
}

fn read_skew_rolled_back(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    assert_eq!(play.get(&one, 1), Some(10));
    assert_eq!(play.select(&two, |_| true).len(), 2);
    play.put(&mut two, 1, 12).unwrap();
    for (row, _) in play.select(&one, |value| value == 20) {
        one.delete(&play.t, [row]).unwrap();
    }
    let (step, ()) = play.while_waiting(|| play.put(&mut two, 2, 18), || one.abort());
    assert!(committed(two, &step));
    play.rows() != [(1, 12), (2, 18)]
}

fn write_skew(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    for txn in [&one, &two] {
        assert_eq!((play.get(txn, 1), play.get(txn, 2)), (Some(10), Some(20)));
    }
    play.put(&mut one, 1, 11).unwrap();
    play.put(&mut two, 2, 21).unwrap();
    one.commit().is_ok() & two.commit().is_ok()
}

fn write_skew_by_predicate(play: &Play) -> bool {
    let (mut one, mut two) = (play.begin(), play.begin());
    for txn in [&one, &two] {
        assert!(play.select(txn, |value| value % 3 == 0).is_empty());
    }
    play.put(&mut one, 3, 30).unwrap();
    play.put(&mut two, 4, 42).unwrap();
    one.commit().is_ok() & two.commit().is_ok()
}

/// The third has seen the second and not the first, and the first has not seen the second.
fn two_edges(play: &Play) -> bool {
    let mut one = play.begin();
    assert_eq!(play.select(&one, |_| true), [(1, 10), (2, 20)]);
    let mut two = play.begin();
    let value = play.get(&two, 2).unwrap();
    play.put(&mut two, 2, value + 5).unwrap();
    two.commit().unwrap();
    let three = play.begin();
    assert_eq!(play.select(&three, |_| true), [(1, 10), (2, 25)]);
    three.commit().unwrap();
    let step = play.put(&mut one, 1, 0);
    committed(one, &step)
}

/// The table, as the page has it.
fn table() -> String {
    let mut table = String::from(
        "| anomaly | what happens | ReadCommitted | Snapshot | Serializable |\n| --- | --- | --- | --- | --- |\n",
    );
    let (_dir, db) = fresh();
    for (name, what, anomaly) in ANOMALIES {
        let cells = LEVELS.map(|level| {
            let t = db.create_table(&format!("{name} {level:?}")).unwrap();
            let play = Play {
                db: db.clone(),
                t,
                level,
            };
            let mut setup = db.begin();
            play.put(&mut setup, 1, 10).unwrap();
            play.put(&mut setup, 2, 20).unwrap();
            setup.commit().unwrap();
            if anomaly(&play) { "possible" } else { "never" }
        });
        writeln!(table, "| {name} | {what} | {} |", cells.join(" | ")).unwrap();
    }
    table
}

#[test]
fn the_page_says_which_anomalies_there_are() {
    let table = table();
    let page = include_str!("../docs/isolation.md");
    assert!(
        page.contains(&table),
        "docs/isolation.md should have:\n\n{table}"
    );
    // And whatever the page says: none at the highest level, and those of the lower ones are known.
    let row = |line: &str| line.split(" | ").map(str::to_owned).collect::<Vec<_>>();
    let possible = |level: usize| -> Vec<String> {
        let rows = table.lines().skip(2).map(row);
        let rows = rows.filter(|cells| cells[2 + level].starts_with("possible"));
        rows.map(|cells| cells[0].trim_start_matches("| ").to_owned())
            .collect()
    };
    assert_eq!(
        possible(0),
        [
            "PMP",
            "P4",
            "G-single",
            "G-single, predicate",
            "G-single, write 1",
            "G2-item",
            "G2",
            "G2, two edges"
        ]
    );
    assert_eq!(possible(1), ["G2-item", "G2", "G2, two edges"]);
    assert!(possible(2).is_empty());
}
