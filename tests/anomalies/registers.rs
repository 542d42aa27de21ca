//! Money moved between accounts, counters that only grow, and doctors on call: what must hold of all values together.

use lockstone::{Database, Error, Isolation, LockMode, Result, Table, Transaction};

use crate::machine::fresh;
use crate::work::{Draws, Mix, assert_lost, on_threads, share};

const ACCOUNTS: u8 = 6;
const EACH: i64 = 100;
const COUNTERS: u8 = 4;
const PAIRS: u8 = 3;

fn number(value: &[u8]) -> i64 {
    i64::from_be_bytes(value.try_into().unwrap())
}

/// Gives rows 0 to `rows` a value, in a table of their own.
fn table(db: &Database, name: &str, rows: u8, value: i64) -> Table {
    let t = db.create_table(name).unwrap();
    db.transact::<_, Error>(|txn| {
        txn.put_many(&t, (0..rows).map(|row| ([row], value.to_be_bytes())))
    })
    .unwrap();
    t
}

/// The value of a row; locked before it is read, where reads alone would be of different moments.
fn value(txn: &mut Transaction, t: &Table, mix: Mix, row: u8) -> Result<i64> {
    let value = if mix.level == Isolation::ReadCommitted {
        txn.get_for(t, [row], LockMode::NoKeyUpdate)?
    } else {
        txn.get(t, [row])?
    };
    Ok(number(&value.unwrap()))
}

/// All values: at `ReadCommitted` one call is of one moment, else all of them together.
fn values(txn: &Transaction, t: &Table, mix: Mix, rows: u8) -> Result<Vec<i64>> {
    if mix.level == Isolation::ReadCommitted {
        let values = txn.multi_get(t, (0..rows).map(|row| [row]))?;
        return Ok(values
            .into_iter()
            .map(|value| number(&value.unwrap()))
            .collect());
    }
    let one = |row| Ok(number(&txn.get(t, [row])?.unwrap()));
    (0..rows).map(one).collect()
}

/// Runs one transaction; what it gives if it has committed.
fn run<T>(db: &Database, mix: Mix, work: impl FnOnce(&mut Transaction) -> Result<T>) -> Option<T> {
    let mut txn = mix.begin(db);
    let done = work(&mut txn).and_then(|done| txn.commit().map(|_| done));
    done.inspect_err(assert_lost).ok()
}

fn transfer(txn: &mut Transaction, t: &Table, mix: Mix, draws: &mut Draws) -> Result<()> {
    let from = draws.below(ACCOUNTS.into()) as u8;
    let to = (from + 1 + draws.below(u64::from(ACCOUNTS) - 1) as u8) % ACCOUNTS;
    let amount = draws.below(20).cast_signed();
    let (had, has) = (value(txn, t, mix, from)?, value(txn, t, mix, to)?);
    txn.put(t, [from], (had - amount).to_be_bytes())?;
    txn.put(t, [to], (has + amount).to_be_bytes())
}

#[test]
fn money_is_neither_made_nor_lost() {
    let (_dir, db) = fresh();
    for mix in Mix::all() {
        let t = table(&db, &format!("{mix:?}"), ACCOUNTS, EACH);
        on_threads(share(6), |_, draws| {
            if draws.below(4) > 0 {
                run(&db, mix, |txn| transfer(txn, &t, mix, draws));
            } else if let Some(all) = run(&db, mix, |txn| values(txn, &t, mix, ACCOUNTS)) {
                assert_eq!(
                    all.iter().sum::<i64>(),
                    EACH * i64::from(ACCOUNTS),
                    "{mix:?}: {all:?}"
                );
            }
        });
        let end = values(&db.begin(), &t, mix, ACCOUNTS).unwrap();
        assert_eq!(
            end.iter().sum::<i64>(),
            EACH * i64::from(ACCOUNTS),
            "{mix:?}: {end:?}"
        );
    }
}

/// Two readings of which neither is the earlier one: a fork.
fn fork(readings: &mut [Vec<i64>]) -> Option<(&[i64], &[i64])> {
    readings.sort();
    let forks = |pair: &&[Vec<i64>]| {
        pair[0]
            .iter()
            .zip(&pair[1])
            .any(|(before, after)| before > after)
    };
    let pair = readings.windows(2).find(forks)?;
    Some((&pair[0], &pair[1]))
}

/// Writers that share nothing: everybody sees them in one order.
#[test]
fn readers_agree_on_the_order_of_writers() {
    let (_dir, db) = fresh();
    for mix in Mix::all() {
        let t = table(&db, &format!("{mix:?}"), COUNTERS, 0);
        let readings = on_threads(share(6), |_, draws| {
            let row = draws.below(COUNTERS.into()) as u8;
            if draws.below(2) > 0 {
                return run(&db, mix, |txn| values(txn, &t, mix, COUNTERS));
            }
            run(&db, mix, |txn| {
                let before = value(txn, &t, mix, row)?;
                txn.put(&t, [row], (before + 1).to_be_bytes())
            });
            None
        });
        let mut readings: Vec<_> = readings.into_iter().flatten().collect();
        assert!(readings.len() > 10, "{mix:?}");
        assert_eq!(fork(&mut readings), None, "{mix:?}");
    }
}

#[test]
fn a_fork_is_found() {
    let mut readings = vec![vec![0, 0], vec![1, 1], vec![0, 1], vec![1, 1]];
    assert_eq!(fork(&mut readings), None);
    readings.push(vec![1, 0]);
    assert_eq!(fork(&mut readings), Some((&[0, 1][..], &[1, 0][..])));
}

/// Who is on call goes home if the other one is too.
fn go_home(txn: &mut Transaction, t: &Table, mix: Mix, pair: u8, draws: &mut Draws) -> Result<()> {
    let one = 2 * pair + draws.below(2) as u8;
    // In one order: at `ReadCommitted` this locks.
    let both = [
        value(txn, t, mix, 2 * pair)?,
        value(txn, t, mix, 2 * pair + 1)?,
    ];
    let stays = both.iter().sum::<i64>() < 2;
    txn.put(t, [one], i64::from(stays).to_be_bytes())
}

/// Write skew: only `Snapshot` may leave nobody on call.
#[test]
fn somebody_is_on_call() {
    let (_dir, db) = fresh();
    for mix in Mix::all().filter(|mix| mix.level != Isolation::Snapshot) {
        let t = table(&db, &format!("{mix:?}"), 2 * PAIRS, 1);
        on_threads(share(6), |_, draws| {
            if draws.below(3) > 0 {
                let pair = draws.below(PAIRS.into()) as u8;
                run(&db, mix, |txn| go_home(txn, &t, mix, pair, draws));
            } else if let Some(all) = run(&db, mix, |txn| values(txn, &t, mix, 2 * PAIRS)) {
                assert!(
                    all.chunks(2).all(|pair| pair.iter().sum::<i64>() > 0),
                    "{mix:?}: {all:?}"
                );
            }
        });
        let end = values(&db.begin(), &t, mix, 2 * PAIRS).unwrap();
        assert!(
            end.chunks(2).all(|pair| pair.iter().sum::<i64>() > 0),
            "{mix:?}: {end:?}"
        );
    }
}
