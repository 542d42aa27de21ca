//! Every interleaving of three transactions and a few calls, up to some depth; and random ones beyond, of more.
//!
//! The model is what LOCKING says, read as plainly as can be: a list of requests, scanned from end to end (`naive.rs`). After
//! every step the table must agree with it:
//! 1. K1, L1, L2, L3: what is granted at once, queued or refused; and who runs when somebody ends, gives up or rolls back.
//! 2. Who waits for whom, every edge of it, holders and those ahead told apart (L4, K9).
//! 3. L4: no ring of waits is left; nobody dies without one, nor while a reordering would do; and the victim is the right one.
//! 4. L5: who wounds and who dies.
//! 5. L6: whoever was decided was woken.
//! 6. At the end nothing is held.
//! 7. K5: the state of one that ends is swapped, and others may do anything before its release pass: they are decided as if it were
//!    gone, but may wait for that.
//!
//! Where a ring runs through a place in a queue LOCKING leaves open who goes ahead of whom: there the model takes the new order
//! from the table, and holds it to the rest.
//!
//! `LOCKSTONE_LOCK_DEPTH=1` makes every interleaving one step longer, which takes some twenty times as long;
//! `LOCKSTONE_LOCK_CASES=1000000` plays so many random ones.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected fails, and reads its own variables"
)]

mod asking;
mod spilling;
mod written;

#[path = "interleavings/naive.rs"]
mod naive;

#[path = "interleavings/play.rs"]
mod play;

use lockstone_base::LockMode::{self, KeyShare, NoKeyUpdate, Share, Update};
use play::{Call, Play, Step};
use written::{Dice, What};

const A: u8 = 1;
const B: u8 = 2;

fn row(key: u8, mode: LockMode) -> What {
    What::Row(key, mode, false)
}

/// Both rows.
fn range(mode: LockMode) -> What {
    What::Range(A, B + 1, mode)
}

fn from_environment(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

/// What three transactions may do in a scene, in any order.
struct Scene<'a> {
    calls: &'a [What],
    /// Each interleaving is played with one of these, and with one order of age.
    ranks: &'a [[u32; 3]],
    depth: usize,
    also: Also,
    played: usize,
    rings: usize,
}

/// What else they may do.
#[derive(Clone, Copy, Default)]
struct Also {
    rollbacks: bool,
    spills: bool,
    /// End in two parts, which others come between.
    dies: bool,
}

const SPILLS: Also = Also {
    rollbacks: false,
    spills: true,
    dies: false,
};

const DIES: Also = Also {
    rollbacks: false,
    spills: false,
    dies: true,
};

const EQUAL: &[[u32; 3]] = &[[0; 3]];
const RANKED: &[[u32; 3]] = &[
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
    [1, 0, 2],
    [0, 1, 1],
    [1, 0, 0],
];
/// The transactions from the oldest to the youngest.
const AGES: [[usize; 3]; 6] = [
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
    [0, 2, 1],
    [1, 0, 2],
    [2, 0, 1],
];

impl Scene<'_> {
    fn explore(&mut self) {
        self.depth += from_environment("LOCKSTONE_LOCK_DEPTH", 0);
        self.extend(&mut Vec::new());
        println!(
            "{} interleavings, {} of them with a ring",
            self.played, self.rings
        );
    }

    /// Plays the steps, and all that begin with them.
    fn extend(&mut self, steps: &mut Vec<Step>) {
        let number = self.played;
        self.played += 1;
        let ranks = self.ranks[number % self.ranks.len()];
        let mut play = Play::new(&ranks, &AGES[number % AGES.len()]);
        for step in steps.iter() {
            play.step(*step);
        }
        play.check();
        if let Some(what) = self.calls.get(number % self.calls.len()) {
            play.probe(number % 3, *what);
        }
        self.rings += usize::from(play.has_met_a_ring());
        let next = if steps.len() < self.depth {
            self.next(&play, steps)
        } else {
            Vec::new()
        };
        play.finish();
        for step in next {
            steps.push(step);
            self.extend(steps);
            steps.pop();
        }
    }

    /// What may follow. The first to come are called 0, 1 and 2 in this order; who has ended does not come back.
    fn next(&self, play: &Play, steps: &[Step]) -> Vec<Step> {
        let begun = steps.iter().map(|step| step.txn + 1).max().unwrap_or(0);
        let mut next = Vec::new();
        for txn in 0..3.min(begun + 1) {
            let mut add = |call| next.push(Step { txn, call });
            if play.has_ended(txn) {
                if play.is_to_pass(txn) {
                    add(Call::Passes);
                }
                continue;
            }
            if play.waits(txn) {
                add(Call::Cancel);
            } else {
                let calls = steps.iter().filter(|step| step.txn == txn);
                if calls.count() < 4 {
                    self.calls.iter().for_each(|what| add(Call::Wait(*what)));
                }
                if self.also.rollbacks && txn < begun {
                    add(Call::Savepoint);
                    add(Call::Rollback(play.sub(txn)));
                }
            }
            if txn < begun {
                add(Call::End);
                if self.also.dies {
                    add(Call::Dies);
                }
                if self.also.spills
                    && !matches!(
                        steps.last(),
                        Some(Step {
                            call: Call::Spill,
                            ..
                        })
                    )
                {
                    add(Call::Spill);
                }
            }
        }
        next
    }
}

fn explore(calls: &[What], ranks: &[[u32; 3]], depth: usize, rollbacks: bool) {
    let also = Also {
        rollbacks,
        ..Also::default()
    };
    explore_all(calls, ranks, depth, also);
}

fn explore_all(calls: &[What], ranks: &[[u32; 3]], depth: usize, also: Also) {
    let mut scene = Scene {
        calls,
        ranks,
        depth,
        also,
        played: 0,
        rings: 0,
    };
    scene.explore();
    assert!(scene.rings > 0, "no interleaving closes a ring");
}

#[test]
fn one_row_in_every_mode() {
    let calls = [
        row(A, KeyShare),
        row(A, Share),
        row(A, NoKeyUpdate),
        row(A, Update),
    ];
    explore(&calls, EQUAL, 5, false);
    explore(&calls, RANKED, 5, false);
}

#[test]
fn one_row_with_savepoints() {
    explore(
        &[row(A, Share), row(A, NoKeyUpdate), row(A, Update)],
        EQUAL,
        5,
        true,
    );
}

#[test]
fn two_rows_shared_and_alone() {
    let calls = [row(A, Share), row(A, Update), row(B, Update)];
    explore(&calls, EQUAL, 6, false);
    explore(&calls, RANKED, 5, false);
}

#[test]
fn rows_and_a_range_around_them() {
    let calls = [
        row(A, Share),
        What::put(A),
        row(B, KeyShare),
        range(Share),
        range(Update),
    ];
    explore(&calls, EQUAL, 5, false);
}

#[test]
fn rows_a_range_and_a_table() {
    explore(
        &[
            row(A, Update),
            row(B, Update),
            range(Update),
            What::EXCLUSIVE,
        ],
        EQUAL,
        5,
        false,
    );
}

/// K2, K3, V1: whoever spills what he holds, and whenever he does, nobody notices.
#[test]
fn one_row_that_is_spilled() {
    let calls = [row(A, Share), row(A, NoKeyUpdate), row(A, Update)];
    explore_all(&calls, EQUAL, 5, SPILLS);
    explore_all(&calls, RANKED, 5, SPILLS);
}

#[test]
fn one_row_that_is_spilled_and_rolled_back() {
    let calls = [row(A, Share), row(A, Update)];
    let also = Also {
        rollbacks: true,
        ..SPILLS
    };
    explore_all(&calls, EQUAL, 6, also);
}

#[test]
fn two_rows_that_are_spilled() {
    let calls = [row(A, Share), row(A, Update), row(B, Update)];
    explore_all(&calls, EQUAL, 5, SPILLS);
}

#[test]
fn spilled_rows_and_a_range_around_them() {
    let calls = [row(A, Share), What::put(A), range(Share), range(Update)];
    explore_all(&calls, EQUAL, 5, SPILLS);
}

/// K5, L6: between an owner's end and its release pass anything may happen; by then its locks are void, and nobody who waited for
/// them is forgotten.
#[test]
fn rows_whose_holders_have_ended_and_not_given_them_back() {
    let calls = [row(A, Share), row(A, NoKeyUpdate), row(A, Update)];
    explore_all(&calls, EQUAL, 5, DIES);
    explore_all(&calls, RANKED, 5, DIES);
    let calls = [row(A, Share), row(A, Update), row(B, Update)];
    explore_all(&calls, EQUAL, 5, DIES);
}

#[test]
fn a_table_whose_holders_have_ended_and_not_given_it_back() {
    let calls = [row(A, Update), What::EXCLUSIVE];
    explore_all(&calls, EQUAL, 6, DIES);
}

#[test]
fn ranges_whose_holders_have_ended_and_not_given_them_back() {
    // None strengthens another: an upgrade goes past a range that waits, if only for one who has ended.
    let calls = [What::put(A), row(B, Update), range(Update)];
    explore_all(&calls, EQUAL, 5, DIES);
}

/// All kinds and modes, ranks and policies, for as long as it lasts.
#[test]
fn random_ones_of_three_to_five() {
    let cases = from_environment("LOCKSTONE_LOCK_CASES", 20_000);
    let mut rings = 0;
    for case in 0..cases {
        let mut dice = Dice(0x9E37_79B9 + case as u64 * 7919);
        let count = 3 + dice.below(3) as usize;
        let is_ranked = dice.below(2) == 0;
        let spills = dice.below(2) == 0;
        let ranks: Vec<u32> = (0..count)
            .map(|_| if is_ranked { dice.below(3) as u32 } else { 0 })
            .collect();
        let ages: Vec<usize> = (0..count).collect();
        // Who waits for a range or a table hands its priority on to some of those in its way, and LOCKING does not say to which.
        let kinds = if is_ranked { 6 } else { 15 };
        let mut play = Play::new(&ranks, &ages);
        for _ in 0..dice.below(24) {
            let txn = dice.below(count as u64) as usize;
            if let Some(call) = random(&play, txn, (kinds, spills), &mut dice) {
                play.step(Step { txn, call });
                play.check();
            }
        }
        rings += usize::from(play.has_met_a_ring());
        play.finish();
    }
    println!("{cases} interleavings, {rings} of them with a ring");
    assert!(rings > cases / 100, "{rings}");
}

fn random(play: &Play, txn: usize, (kinds, spills): (u64, bool), dice: &mut Dice) -> Option<Call> {
    if play.has_ended(txn) {
        return None;
    }
    if play.waits(txn) {
        return match dice.below(12) {
            0 => Some(Call::Cancel),
            1 => Some(Call::End),
            2 if spills => Some(Call::CopyForOthers),
            3 if spills => Some(Call::Mix),
            _ => None,
        };
    }
    let mode = LockMode::ALL[dice.below(4) as usize];
    let key = A + dice.below(2) as u8;
    let what = match dice.below(kinds) {
        0..5 => row(key, mode),
        5 => What::put(key),
        6..12 => What::Range(key, key + 1 + dice.below(2) as u8, mode),
        _ => What::EXCLUSIVE,
    };
    if spills && dice.below(3) == 0 {
        let calls = [
            Call::Spill,
            Call::Copy,
            Call::Publish,
            Call::Drop,
            Call::Merge,
            Call::CopyForOthers,
            Call::CopyForOthers,
            Call::Mix,
            Call::Mix,
        ];
        return Some(calls[dice.below(9) as usize]);
    }
    Some(match dice.below(12) {
        0 => Call::End,
        1 => Call::Savepoint,
        2 => Call::Rollback(dice.below(u64::from(play.sub(txn)) + 1) as u32),
        3 => Call::NoWait(what),
        4 => Call::Wound(what),
        _ => Call::Wait(what),
    })
}
