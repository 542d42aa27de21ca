//! What `transact` makes of losses: ages and draws that are kept, and a wait in line for who has lost often.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts threads itself"
)]

mod machine;

use lockstone::{Database, Error, LockMode, OnConflict, Priority, Result, Transaction, TxnOptions};
use machine::{fresh, wound};

/// Whoever writes first draws, so these wound each other; who has lost three times waits in line, and all get there.
#[test]
fn who_wounds_and_is_wounded_gets_there_by_retries() {
    const THREADS: u8 = 4;
    const ROUNDS: u32 = 50;
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    db.transact::<_, Error>(|txn| txn.put(&t, "n", 0_u32.to_be_bytes()))
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, t) = (&db, &t);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let add = |txn: &mut Transaction| -> Result<()> {
                        txn.put(t, [thread], "")?;
                        let n = txn.get_for(t, "n", LockMode::Update)?.unwrap();
                        let n = u32::from_be_bytes(n[..].try_into().unwrap());
                        // The others come by.
                        std::thread::yield_now();
                        txn.put(t, "n", (n + 1).to_be_bytes())
                    };
                    let options = TxnOptions::new().on_conflict(OnConflict::Wound);
                    db.transact_with(options, add).unwrap();
                }
            });
        }
    });
    let n = db.snapshot().get(&t, "n").unwrap().unwrap();
    assert_eq!(n[..], (u32::from(THREADS) * ROUNDS).to_be_bytes());
    assert!(db.stats().wounds > 0, "nobody was wounded");
}

/// Runs `attempt` again and again, each time with its number, until it wants no more.
fn retry(
    db: &Database,
    options: TxnOptions,
    mut attempt: impl FnMut(&mut Transaction, u32) -> Result<()>,
) -> u32 {
    let mut attempts = 0;
    let done: Result<()> = db.transact_with(options, |txn| {
        attempts += 1;
        attempt(txn, attempts)
    });
    done.unwrap();
    attempts
}

/// A priority that was drawn never falls: who has lost with a small number does not lose with a smaller one.
#[test]
fn a_retry_keeps_the_largest_of_its_draws() {
    const ATTEMPTS: u32 = 20;
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let mut holder = db.begin();
    holder.lock(&t, "held", LockMode::Update).unwrap();
    let mut risen = 0;
    for round in 0..10 {
        let priority = [Priority::auto(), Priority::random()][round % 2];
        let options = TxnOptions::new().on_conflict(OnConflict::NoWait);
        let mut numbers = Vec::new();
        retry(&db, options.priority(priority), |txn, attempt| {
            txn.put(&t, "own", "1")?;
            let all = db.transactions();
            let own = all.iter().find(|other| other.txn == txn.id()).unwrap();
            numbers.push(own.priority.unwrap().number());
            if attempt == ATTEMPTS {
                Ok(())
            } else {
                txn.put(&t, "held", "1")
            }
        });
        assert_eq!(numbers.len(), ATTEMPTS as usize);
        assert!(numbers.is_sorted(), "{numbers:?}");
        risen += usize::from(numbers.first() < numbers.last());
    }
    assert!(risen > 0, "it draws anew, and keeps the larger");
}

/// The victim of a deadlock is who began last, and that is not the retry of one who began before.
#[test]
fn a_retry_keeps_its_age() {
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let (mut begun_between, mut outcome) = (None, None);
    let attempts = retry(&db, TxnOptions::new(), |txn, attempt| {
        if attempt == 1 {
            let mut other = db.begin();
            other.lock(&t, "b", LockMode::Update)?;
            begun_between = Some(other);
            return txn
                .on_conflict(OnConflict::NoWait)
                .lock(&t, "b", LockMode::Update)
                .map(drop);
        }
        let mut other = begun_between
            .take()
            .expect("it dies, and the retry does not");
        assert!(other.id() < txn.id());
        txn.lock(&t, "a", LockMode::Update)?;
        let waits = db.stats().lock_waits;
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| other.lock(&t, "a", LockMode::Update).map(drop));
            while db.stats().lock_waits == waits {
                std::thread::yield_now();
            }
            let locked = txn.lock(&t, "b", LockMode::Update);
            outcome = Some(waiter.join().unwrap());
            locked.map(drop)
        })
    });
    let outcome = outcome.unwrap();
    assert!(
        matches!(outcome, Err(Error::Deadlock { .. })),
        "{outcome:?}"
    );
    assert_eq!(attempts, 2);
}

/// After three losses, be they deaths, wounds, or wounds that a commit is told of, it waits in line before it judges.
#[test]
fn after_three_losses_it_waits_before_it_wounds() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Loss {
        Dies,
        IsWounded,
        IsWoundedAtItsCommit,
    }
    let (_dir, db) = fresh();
    let t = db.create_table("t").unwrap();
    let strong = || wound(Priority::high(1));
    for loss in [Loss::Dies, Loss::IsWounded, Loss::IsWoundedAtItsCommit] {
        let mut holder = None;
        let attempts = retry(&db, wound(Priority::normal(1)), |txn, attempt| {
            drop(holder.take());
            let mut other = db.begin_with(strong());
            if attempt > 3 {
                // Whoever has the row ends when somebody waits for it; under `Wound` nobody does.
                other.lock(&t, "k", LockMode::Update)?;
                let waits = db.stats().lock_waits;
                return std::thread::scope(|scope| {
                    let locks = scope.spawn(|| txn.lock(&t, "k", LockMode::Update).map(drop));
                    while db.stats().lock_waits == waits && !locks.is_finished() {
                        std::thread::yield_now();
                    }
                    other.commit()?;
                    locks.join().unwrap()
                });
            }
            if loss == Loss::Dies {
                other.lock(&t, "k", LockMode::Update)?;
                holder = Some(other);
                let waits = db.stats().lock_waits;
                let dies = txn.lock(&t, "k", LockMode::Update).map(drop);
                assert_eq!(db.stats().lock_waits, waits, "it waits after {attempt}");
                return dies;
            }
            txn.lock(&t, "k", LockMode::Update)?;
            other.lock(&t, "k", LockMode::Update)?;
            if loss == Loss::IsWounded {
                txn.put(&t, "k", "1")
            } else {
                Ok(())
            }
        });
        assert_eq!(attempts, 4, "{loss:?}");
        drop(holder);
    }
}
