//! Histories with a known anomaly: the checker finds each, and nothing in those that have none.

use lockstone::Isolation::{ReadCommitted, Serializable, Snapshot};

use crate::checker::{Anomaly, anomalies};
use crate::history::{Key, Step, Txn};

const X: Key = 1;
const Y: Key = 2;

fn read(key: Key, list: &[u32]) -> Step {
    Step::Read(key, list.to_vec())
}

fn append(key: Key, element: u32) -> Step {
    Step::Append(key, element)
}

/// Transactions that commit one behind the other, and a reader of the end at last.
fn history(txns: &[&[Step]], x: &[u32], y: &[u32]) -> Vec<Txn> {
    let last: &[Step] = &[read(X, x), read(Y, y)];
    let all = txns.iter().copied().chain([last]);
    let txn = |(lsn, steps): (u64, &[Step])| Txn {
        steps: steps.to_vec(),
        lsn: Some(lsn),
    };
    (1..).zip(all).map(txn).collect()
}

#[test]
fn a_history_without_anomalies_has_none() {
    let all = history(
        &[
            &[read(X, &[]), append(X, 1), append(X, 2), read(X, &[1, 2])],
            &[read(X, &[1, 2]), append(Y, 3)],
            &[append(X, 4), read(Y, &[3])],
        ],
        &[1, 2, 4],
        &[3],
    );
    for level in [ReadCommitted, Snapshot, Serializable] {
        assert_eq!(anomalies(&all, level), []);
    }
}

#[test]
fn a_lost_update_is_found() {
    let all = history(
        &[&[read(X, &[]), append(X, 1)], &[read(X, &[]), append(X, 2)]],
        &[2],
        &[],
    );
    assert_eq!(anomalies(&all, ReadCommitted), [Anomaly::Lost(X, 1)]);
}

#[test]
fn write_skew_is_found_where_it_is_forbidden() {
    let all = history(
        &[&[read(X, &[]), append(Y, 1)], &[read(Y, &[]), append(X, 2)]],
        &[2],
        &[1],
    );
    assert_eq!(anomalies(&all, Snapshot), []);
    let found = anomalies(&all, Serializable);
    assert!(
        found.contains(&Anomaly::SerialCycle(vec![0, 1])),
        "{found:?}"
    );
}

#[test]
fn a_long_fork_is_found() {
    let all = history(
        &[
            &[append(X, 1)],
            &[append(Y, 2)],
            &[read(X, &[1]), read(Y, &[])],
            &[read(X, &[]), read(Y, &[2])],
        ],
        &[1],
        &[2],
    );
    assert_eq!(anomalies(&all, ReadCommitted), []);
    let found = anomalies(&all, Snapshot);
    assert!(
        matches!(&found[..], [Anomaly::SnapshotCycle(ring)] if ring.len() == 4),
        "{found:?}"
    );
}

#[test]
fn read_skew_is_found() {
    let all = history(
        &[
            &[append(X, 1), append(Y, 2)],
            &[read(X, &[]), read(Y, &[2])],
        ],
        &[1],
        &[2],
    );
    assert_eq!(anomalies(&all, ReadCommitted), []);
    assert!(matches!(
        anomalies(&all, Snapshot)[..],
        [Anomaly::SnapshotCycle(_)]
    ));
}

#[test]
fn mixed_writes_and_mutual_reads_are_found() {
    let mixed = history(
        &[&[append(X, 1), append(Y, 2)], &[append(X, 3), append(Y, 4)]],
        &[1, 3],
        &[4, 2],
    );
    let mutual = history(
        &[
            &[append(X, 1), read(Y, &[2])],
            &[append(Y, 2), read(X, &[1])],
        ],
        &[1],
        &[2],
    );
    for all in [mixed, mutual] {
        assert!(matches!(
            anomalies(&all, ReadCommitted)[..],
            [Anomaly::InformationCycle(_)]
        ));
    }
}

#[test]
fn reads_of_what_never_was_are_found() {
    let mut aborted = history(&[&[append(X, 1)], &[read(X, &[1])]], &[], &[]);
    aborted[0].lsn = None;
    let found = anomalies(&aborted, ReadCommitted);
    assert_eq!(found, [Anomaly::AbortedRead(X, 1)]);

    let intermediate = history(
        &[&[append(X, 1), append(X, 2)], &[read(X, &[1])]],
        &[1, 2],
        &[],
    );
    assert_eq!(
        anomalies(&intermediate, ReadCommitted),
        [Anomaly::IntermediateRead(X, 1)]
    );

    let garbage = history(&[&[append(X, 1)]], &[1, 1], &[7]);
    assert_eq!(
        anomalies(&garbage, ReadCommitted),
        [Anomaly::Garbage(X), Anomaly::Garbage(Y)]
    );

    let incompatible = history(
        &[&[append(X, 1)], &[append(X, 2)], &[read(X, &[2])]],
        &[1, 2],
        &[],
    );
    assert_eq!(
        anomalies(&incompatible, ReadCommitted),
        [Anomaly::Incompatible(X)]
    );
}

/// Serializable in another order than that of the commits: strict it is not.
#[test]
fn an_order_against_the_commits_is_found() {
    let all = history(&[&[read(X, &[2])], &[append(X, 2)]], &[2], &[]);
    assert_eq!(anomalies(&all, Snapshot), []);
    assert_eq!(anomalies(&all, Serializable), [Anomaly::CommitOrder(1, 0)]);
}
