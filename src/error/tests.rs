//! Errors: what they show of a row, and what their text and their kind say.

use lockstone_base::{Rank, TxnId};

use super::*;

#[test]
fn keys_are_shown_only_when_short_printable_and_not_redacted() {
    let name = |key: &[u8], redact| RowName::new("t".into(), key, redact).to_string();
    assert_eq!(name(b"alice", false), "row `alice` of table `t`");
    assert_eq!(name(b"alice", true), "a row of table `t`");
    assert_eq!(name(b"\x00", false), "a row of table `t`");
    assert_eq!(name(&[b'a'; 65], false), "a row of table `t`");
}

#[test]
fn what_is_retryable_is_unchanged_or_rolled_back() {
    let holder = Box::new(Holder {
        txn: TxnId::new(1, 2),
        label: None,
        priority: None,
    });
    let row = RowName::new("t".into(), b"k", false);
    let (held, asked) = (LockMode::Update, LockMode::Share);
    let cycle = Arc::new(Cycle {
        waits: vec![],
        victim: TxnId::new(1, 2),
    });
    let retryable = [
        Error::WouldBlock {
            row: row.clone(),
            holder: holder.clone(),
            held,
            asked,
        },
        Error::LockTimeout {
            row,
            holder,
            held,
            asked,
            waited_ms: 5,
        },
        Error::Deadlock { cycle },
        Error::WriteConflict {
            row: RowName::new("t".into(), b"k", false),
        },
        Error::LocksInvalidated { table: "t".into() },
    ];
    for error in retryable {
        assert!(error.is_retryable());
        assert!(
            matches!(error.outcome(), Outcome::Unchanged | Outcome::RolledBack),
            "{error}"
        );
    }
    for error in [
        Error::Closed,
        Error::KeyEmpty,
        Error::LogFull { max: 1 },
        Error::TransactionEnded,
    ] {
        assert!(!error.is_retryable(), "{error}");
    }
}

#[test]
fn a_refusal_names_row_holder_label_and_priority() {
    let holder = Holder {
        txn: TxnId::new(1, 7),
        label: Some("nightly".into()),
        priority: Rank::from_bits((1 << 32) | 3),
    };
    let error = Error::WouldBlock {
        row: RowName::new("accounts".into(), b"alice", false),
        holder: Box::new(holder),
        held: LockMode::Update,
        asked: LockMode::NoKeyUpdate,
    };
    assert_eq!(
        error.to_string(),
        "row `alice` of table `accounts` is locked: transaction 1-7 `nightly` (priority high 3) holds \
         Update, which conflicts with NoKeyUpdate"
    );
}
