//! What crowds cost: newcomers, those who write on, those who give up, beside ranges and tables that somebody waits for.
//!
//! 1. Nothing is held to seconds: two sizes are compared, or what was looked at is counted.

use super::*;

/// The least time that `act` takes, of some rounds: other work on the machine makes it longer, never shorter.
fn least(rounds: usize, mut act: impl FnMut() -> Duration) -> Duration {
    (0..rounds).map(|_| act()).min().unwrap()
}

fn key(n: u32) -> Vec<u8> {
    [&[9][..], &n.to_be_bytes()].concat()
}

/// L7, K1: the first has ended, its release pass has not come by yet; `NoWait` queued behind it, and panicked the caller.
#[test]
fn nobody_queues_without_waiting_behind_one_who_is_void() {
    for policy in [Policy::NoWait, Policy::Wound] {
        let stage = Stage::new();
        let [sharer, first, second] = [stage.auto(), stage.auto(), stage.auto()];
        assert!(stage.locks.share(&sharer, &stage.table));
        queued(stage.table(&first, TableMode::Exclusive, Policy::Wait));
        let waits = queued(stage.table(&second, TableMode::Shared, Policy::Wait));
        assert!(first.try_abort(AbortCause::Requested));
        stage.cancel(&second, &waits);
        granted(stage.table(&second, TableMode::Shared, policy));
        stage.locks.end(&first, &mut Wakes::new());
    }
}

/// The same, behind one who waits for a holder that has ended.
#[test]
fn nobody_queues_without_waiting_for_a_holder_who_is_void() {
    for policy in [Policy::NoWait, Policy::Wound] {
        let stage = Stage::new();
        let [holder, first, second] = [stage.auto(), stage.auto(), stage.auto()];
        granted(stage.table(&holder, TableMode::Exclusive, Policy::Wait));
        let waits = queued(stage.table(&first, TableMode::Shared, Policy::Wait));
        assert!(holder.try_commit());
        holder.released();
        granted(stage.table(&second, TableMode::Shared, policy));
        assert!(waits.is_granted());
        stage.locks.end(&holder, &mut Wakes::new());
    }
}

/// L7: the one who waits for the table alone is not looked at again for each newcomer: he waits for all who share it.
#[test]
fn newcomers_at_a_table_do_not_count_those_who_share_it() {
    let newcomers = |sharers: usize| {
        let stage = Stage::new();
        let all: Vec<_> = (0..sharers).map(|_| stage.auto()).collect();
        let shared = all.iter().all(|it| stage.locks.share(it, &stage.table));
        assert!(shared);
        let wants = queued(stage.table(&stage.auto(), TableMode::Exclusive, Policy::Wait));
        let took = crowd(200, |_| {
            let owner = stage.auto();
            assert!(!stage.locks.share(&owner, &stage.table));
            queued(stage.table(&owner, TableMode::Shared, Policy::Wait));
        });
        let [last, others @ ..] = &all[..] else {
            panic!()
        };
        for other in others {
            stage.commit(other);
        }
        assert!(wants.is_waiting());
        stage.commit(last);
        assert!(wants.is_granted());
        took
    };
    let (few, many) = (least(3, || newcomers(10)), least(3, || newcomers(10_000)));
    assert!(many < few * 20, "{few:?}, {many:?}");
}

/// L4: whoever is raised past a crowd is searched from once: each cycle through those whom it went past goes through it.
#[test]
fn a_raise_past_a_crowd_searches_once() {
    let raise = |count: usize| {
        let stage = Stage::new();
        let [holder, middle] = [stage.auto(), stage.auto()];
        granted(stage.row(&holder, &key(1), Update, Policy::Wait));
        granted(stage.row(&middle, &key(2), Update, Policy::Wait));
        for _ in 0..count {
            queued(stage.row(&stage.auto(), &key(1), Update, Policy::Wait));
        }
        let waits = queued(stage.row(&middle, &key(1), Update, Policy::Wait));
        let (high, _) = stage.begin(Priority::high(5));
        let took = crowd(1, |_| {
            queued(stage.row(&high, &key(2), Update, Policy::Wait));
        });
        stage.commit(&holder);
        assert!(waits.is_granted(), "it has the high one's priority");
        took
    };
    let (few, many) = (least(5, || raise(100)), least(5, || raise(3_000)));
    assert!(many < few * 200, "{few:?}, {many:?}");
}

/// L4: nobody who holds rows here is waited for by a range of another table: he has nothing to search for.
#[test]
fn a_range_that_is_waited_for_elsewhere_makes_nobody_search() {
    let queue = |is_awaited: bool| {
        let stage = Stage::new();
        let beside = (BESIDE, &[0][..], &[255][..]);
        let [holder, waiter] = [stage.auto(), stage.auto()];
        granted(stage.range_in(&holder, beside, (Update, 0), Policy::Wait));
        if is_awaited {
            queued(stage.range_in(&waiter, beside, (Update, 0), Policy::Wait));
        }
        granted(stage.row(&holder, &key(0), Update, Policy::Wait));
        crowd(2_000, |at| {
            let owner = stage.auto();
            assert!(stage.locks.share(&owner, &stage.table));
            granted(stage.row(&owner, &key(1 + at as u32), Update, Policy::Wait));
            queued(stage.row(&owner, &key(0), Update, Policy::Wait));
        })
    };
    let (alone, beside) = (least(3, || queue(false)), least(3, || queue(true)));
    assert!(beside < alone * 10, "{alone:?}, {beside:?}");
}

/// How often `winner` was woken in a hundred judgements, which nobody else had a part in.
fn calls(stage: &Stage, (winner, bell): (&Arc<Owner>, &Bell), ticket: &Arc<Ticket>) -> usize {
    let before = bell.rung();
    for _ in 0..100 {
        let judged = stage.locks.wound(winner, ticket, &mut Wakes::new());
        assert!(matches!(judged, Decision::Queued(_)), "{judged:?}");
    }
    bell.rung() - before
}

/// L5: it has won, and one as strong as itself has come in between: it waits for him, and nothing calls it to judge for nothing.
#[test]
fn a_winner_is_not_woken_by_its_own_judgement() {
    let stage = Stage::new();
    let (commits, _) = stage.begin(Priority::normal(1));
    granted(stage.row(&commits, b"b", Share, Policy::Wait));
    let (equal, _) = stage.begin(Priority::high(9));
    granted(stage.row(&equal, b"b", KeyShare, Policy::Wait));
    assert!(commits.try_commit());
    let (winner, bell) = stage.begin(Priority::high(9));
    let ticket = queued(stage.row(&winner, b"b", NoKeyUpdate, Policy::Wound));
    queued(stage.row(&equal, b"b", NoKeyUpdate, Policy::Wait));
    assert_eq!(calls(&stage, (&winner, &bell), &ticket), 0);
}

/// The same of a range.
#[test]
fn a_winner_of_a_range_is_not_woken_by_its_own_judgement() {
    let stage = Stage::new();
    let (commits, _) = stage.begin(Priority::normal(1));
    granted(stage.row(&commits, b"b", Update, Policy::Wait));
    let (equal, _) = stage.begin(Priority::high(9));
    granted(stage.row(&equal, b"c", KeyShare, Policy::Wait));
    assert!(commits.try_commit());
    let (winner, bell) = stage.begin(Priority::high(9));
    let ticket = queued(stage.range(&winner, (b"a", b"z"), Share, Policy::Wound));
    granted(stage.row(&equal, b"c", Update, Policy::Wait));
    stage.released(&commits);
    assert_eq!(calls(&stage, (&winner, &bell), &ticket), 0);
}

/// A holder of `held` rows, and a range that waits for him.
fn awaited_by_a_range(stage: &Stage, held: u32) -> (Arc<Owner>, Arc<Ticket>) {
    let writer = stage.auto();
    for n in 0..held {
        granted(stage.row(&writer, &key(n), Update, Policy::Wait));
    }
    let waits = queued(stage.range(&stage.auto(), ALL, Update, Policy::Wait));
    (writer, waits)
}

/// L2: a range waits for the one who holds rows in it: what he takes there besides is no reason to look at all of them.
#[test]
fn who_writes_on_in_a_range_that_waits_for_him_pays_for_what_he_writes() {
    let writes = |held: u32| {
        let stage = Stage::new();
        let (writer, waits) = awaited_by_a_range(&stage, held);
        let took = crowd(100, |at| {
            let key = key(1_000_000 + at as u32);
            granted(stage.row(&writer, &key, Update, Policy::Wait));
        });
        stage.commit(&writer);
        assert!(waits.is_granted());
        took
    };
    let (few, many) = (least(5, || writes(10)), least(5, || writes(30_000)));
    assert!(many < few * 20, "{few:?}, {many:?}");
}

/// L2, L9: he has given all of it back, and goes past it no more.
#[test]
fn who_holds_nothing_in_a_range_any_more_waits_behind_it() {
    let stage = Stage::new();
    let [writer, other, ranged] = [stage.auto(), stage.auto(), stage.auto()];
    granted(stage.row_at(&writer, b"m", (Update, 1), Policy::Wait));
    granted(stage.row(&other, b"n", Update, Policy::Wait));
    let waits = queued(stage.range(&ranged, ALL, Update, Policy::Wait));
    granted(stage.row_at(&writer, b"o", (Update, 1), Policy::Wait));
    stage.locks.rollback_to(&writer, 1, &mut Wakes::new());
    let behind = queued(stage.row(&writer, b"p", Update, Policy::Wait));
    stage.commit(&other);
    assert!(waits.is_granted() && behind.is_waiting());
}

/// K6: a range that waits is told of what was given back in it, and of nothing else.
#[test]
fn what_is_given_back_elsewhere_makes_no_range_look() {
    let undo = |held: u32| {
        let stage = Stage::new();
        let (writer, waits) = awaited_by_a_range(&stage, held);
        let took = crowd(100, |at| {
            let sub = 1 + at as u32;
            stage.locks.rollback_to(&writer, sub, &mut Wakes::new());
            granted(stage.row_at(&writer, &[255, 1], (Update, sub), Policy::Wait));
            stage.locks.rollback_to(&writer, sub, &mut Wakes::new());
        });
        stage.commit(&writer);
        assert!(waits.is_granted());
        took
    };
    let (few, many) = (least(5, || undo(10)), least(5, || undo(30_000)));
    assert!(many < few * 20, "{few:?}, {many:?}");
}

/// K4: those who could share the row wait for the range around it: the first is registered with that, for all.
#[test]
fn sharers_who_wait_for_a_range_do_not_count_each_other() {
    let queue = |count: usize| {
        let stage = Stage::new();
        let ranged = stage.auto();
        granted(stage.range(&ranged, ALL, Update, Policy::Wait));
        let mut all = Vec::new();
        let took = crowd(count, |_| {
            let owner = stage.auto();
            all.push(queued(stage.row(&owner, &key(1), Share, Policy::Wait)));
        });
        stage.commit(&ranged);
        assert!(all.iter().all(|waits| waits.is_granted()));
        took
    };
    let (few, many) = (least(5, || queue(200)), least(3, || queue(4_000)));
    assert!(many < few * 120, "{few:?}, {many:?}");
}

/// K6: those who wait for one holder look once when he ends, together, and at none of the rows that he leaves.
#[test]
fn ranges_that_wait_for_one_look_together_when_he_ends() {
    let end = |ranges: u32| {
        let stage = Stage::new();
        let holder = stage.auto();
        for n in 0..20_000 {
            granted(stage.row(&holder, &key(n), Update, Policy::Wait));
        }
        let each = 20_000 / ranges;
        let waits: Vec<_> = (0..ranges)
            .map(|at| {
                let (from, to) = (key(at * each), key((at + 1) * each));
                queued(stage.range(&stage.auto(), (&from, &to), Update, Policy::Wait))
            })
            .collect();
        let took = crowd(1, |_| stage.commit(&holder));
        assert!(waits.iter().all(|waits| waits.is_granted()));
        took
    };
    let (few, many) = (least(3, || end(1)), least(3, || end(100)));
    println!("one range: {few:?}, 100: {many:?}");
    assert!(many < few * 20, "{few:?}, {many:?}");
}

/// K6: who has many ranges looks, for each further one, at those of them that meet it.
#[test]
fn who_has_many_ranges_pays_for_each_further_one_the_same() {
    let take = |count: u32| {
        let stage = Stage::new();
        let owner = stage.auto();
        let took = crowd(count as usize, |at| {
            let (from, to) = (key(2 * at as u32), key(2 * at as u32 + 1));
            granted(stage.range(&owner, (&from, &to), Update, Policy::Wait));
        });
        stage.commit(&owner);
        took
    };
    let (few, many) = (least(3, || take(250)), least(3, || take(4_000)));
    println!("250 ranges: {few:?}, 4,000: {many:?}");
    assert!(many < few * 160, "{few:?}, {many:?}");
}
