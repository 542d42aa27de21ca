//! Appends to lists and reads of them, whose dependencies the checker knows.

use std::sync::atomic::{AtomicU32, Ordering};

use lockstone::{Database, Isolation, LockMode, Result, Table, Transaction};

use crate::checker::{Anomaly, anomalies};
use crate::history::{Element, Key, Step, Txn};
use crate::machine::fresh;
use crate::work::{Draws, Mix, assert_lost, on_threads, share};

/// So many lists are in use at a time, for so many transactions: then come new ones, so that none gets long.
const LISTS: u64 = 5;
const TXNS_PER_LIST: u64 = 100;
/// A history that is checked at once.
const ROUND: u64 = 5_000;

fn list_of(value: Option<&[u8]>) -> Vec<Element> {
    let (elements, rest) = value.unwrap_or_default().as_chunks();
    assert!(rest.is_empty());
    elements
        .iter()
        .copied()
        .map(Element::from_be_bytes)
        .collect()
}

fn read(txn: &Transaction, t: &Table, key: Key) -> Result<Vec<Element>> {
    let value = txn.get(t, key.to_be_bytes())?;
    Ok(list_of(value.as_deref()))
}

/// Appends to a list; locking it first is what `ReadCommitted` needs, and the others do without.
fn append(
    txn: &mut Transaction,
    t: &Table,
    (key, element): (Key, Element),
    locks: bool,
) -> Result<()> {
    let key = key.to_be_bytes();
    let value = if locks {
        txn.get_for(t, key, LockMode::NoKeyUpdate)?
    } else {
        txn.get(t, key)?
    };
    let value = value.as_deref().unwrap_or_default();
    txn.put(t, key, [value, &element.to_be_bytes()].concat())
}

/// Does some steps and commits; what was done, and where it stands.
fn run(mut txn: Transaction, t: &Table, steps: Vec<(Step, bool)>) -> Txn {
    let mut done = Txn::default();
    for (step, locks) in steps {
        let result = match step {
            Step::Append(key, element) => {
                done.steps.push(Step::Append(key, element));
                append(&mut txn, t, (key, element), locks)
            }
            Step::Read(key, _) => {
                read(&txn, t, key).map(|list| done.steps.push(Step::Read(key, list)))
            }
        };
        if let Err(error) = result {
            assert_lost(&error);
            return done;
        }
    }
    match txn.commit() {
        Ok(lsn) => done.lsn = Some(lsn.get()),
        Err(error) => assert_lost(&error),
    }
    done
}

/// Some steps on the lists that are in use when transaction `number` runs.
fn steps(mix: Mix, number: u64, draws: &mut Draws, elements: &AtomicU32) -> Vec<(Step, bool)> {
    let first = number / TXNS_PER_LIST * LISTS;
    let count = 1 + draws.below(4);
    let step = |_| {
        let key = (first + draws.below(LISTS)) as Key;
        let locks = mix.level == Isolation::ReadCommitted || draws.below(3) == 0;
        if draws.below(2) == 0 {
            return (Step::Read(key, Vec::new()), locks);
        }
        (
            Step::Append(key, elements.fetch_add(1, Ordering::Relaxed)),
            locks,
        )
    };
    (0..count).map(step).collect()
}

/// A history of `count` transactions in a table of its own; it ends with reads of all lists.
fn history(db: &Database, name: &str, mix: Mix, count: u64) -> Vec<Txn> {
    let t = db.create_table(name).unwrap();
    let elements = AtomicU32::new(1);
    let work =
        |number, draws: &mut Draws| run(mix.begin(db), &t, steps(mix, number, draws, &elements));
    let mut all = on_threads(count, work);
    let keys = (0..count.div_ceil(TXNS_PER_LIST) * LISTS)
        .map(|key| (Step::Read(key as Key, Vec::new()), false));
    all.push(run(mix.begin(db), &t, keys.collect()));
    db.drop_table(&t).unwrap();
    all
}

#[test]
fn lists_show_no_anomaly_that_the_level_forbids() {
    let (_dir, db) = fresh();
    for mix in Mix::all() {
        let (mut left, mut committed, mut round) = (share(2), 0, 0);
        while left > 0 {
            let count = left.min(ROUND);
            let history = history(&db, &format!("{mix:?} {round}"), mix, count);
            assert_eq!(anomalies(&history, mix.level), [], "{mix:?}");
            committed += history
                .iter()
                .filter(|txn| txn.lsn.is_some() && txn.writes())
                .count();
            left -= count;
            round += 1;
        }
        assert!(
            committed > 100,
            "{mix:?}: {committed} have written and committed"
        );
    }
}

/// What the engine itself does where it is allowed: the checker sees it in its history too.
#[test]
fn an_update_that_the_engine_may_lose_is_found() {
    let (_dir, db) = fresh();
    let t = db.create_table("lists").unwrap();
    let both = [1_u32, 2].map(|element| {
        let txn = db.begin();
        let steps = vec![
            Step::Read(1, read(&txn, &t, 1).unwrap()),
            Step::Append(1, element),
        ];
        (txn, Txn { steps, lsn: None }, element)
    });
    let mut all = Vec::new();
    for (mut txn, mut done, element) in both {
        txn.put(&t, 1_u32.to_be_bytes(), element.to_be_bytes())
            .unwrap();
        done.lsn = Some(txn.commit().unwrap().get());
        all.push(done);
    }
    all.push(run(
        db.begin(),
        &t,
        vec![(Step::Read(1, Vec::new()), false)],
    ));
    assert_eq!(
        anomalies(&all, Isolation::ReadCommitted),
        [Anomaly::Lost(1, 1)]
    );
}
