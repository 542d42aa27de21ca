//! The moments of a lease's end that no test from outside can stop at.

use lockstone_base::LockMode;
use lockstone_testkit::{SeededEntropy, SimClock, SimDisk, Survivors};

use super::*;
use crate::closing::EngineRef;
use crate::engine::Ports;
use crate::holdings::restate_lease;
use crate::log_step::begin_lease;
use crate::options::{Options, TxnOptions};
use crate::table::Table;
use crate::transaction::Transaction;
use crate::{opening, schema};

fn start(disk: &Arc<SimDisk>, background: bool) -> Arc<EngineRef> {
    let options = Options::new()
        .segment_bytes(256 << 10)
        .log_bytes(4 << 20)
        .provisional_bytes(256 << 10);
    let ports = Ports {
        disk: disk.clone(),
        clock: Arc::new(SimClock::new()),
        entropy: Arc::new(SeededEntropy::new(7)),
        background,
    };
    let (engine, restored) = opening::start(options, ports).expect("a disk without faults");
    Arc::new(EngineRef::new(engine, restored))
}

fn leased(engine: &Arc<EngineRef>, lasts: Duration) -> Transaction {
    Transaction::begin(Arc::clone(engine), TxnOptions::new().lease(lasts), None)
}

fn crashed(disk: &SimDisk) -> Arc<SimDisk> {
    disk.after_crash(disk.io_count(), &Survivors::None)
}

/// W9: somebody else ends it just when it is about to say that it outlives a crash, or says it anew.
#[test]
fn what_says_that_it_outlives_a_crash_is_not_behind_its_end() {
    for anew in [false, true] {
        let disk = SimDisk::new(1);
        let engine = start(&disk, false);
        let t = Table::new(&engine, schema::create(&engine, "t").expect("a table"));
        let mut txn = leased(&engine, Duration::from_secs(30));
        if anew {
            txn.put(&t, "k", "v").expect("a write");
        }
        let state = txn.state_mut();
        let mut wakes = Wakes::default();
        assert!(
            engine
                .locks
                .kill(&state.owner, AbortCause::LeaseExpired, &mut wakes)
        );
        wakes.fire();
        assert_eq!(state.owner.state(), OwnerState::Aborted);
        let said = if anew {
            restate_lease(&engine, state, engine.log.end())
        } else {
            begin_lease(&engine, state)
        };
        assert!(matches!(said, Err(Error::LeaseExpired { .. })), "{said:?}");
        engine.log.wait_durable(engine.log.end()).expect("a log");
        assert_eq!(start(&crashed(&disk), false).live.len(), 0);
    }
}

/// S6: it is Ending, and its end not in the log yet, when its user lets go of it: till then its files are needed.
#[test]
fn no_file_goes_before_the_end_is_logged() {
    let disk = SimDisk::new(1);
    let engine = start(&disk, false);
    let t = Table::new(&engine, schema::create(&engine, "t").expect("a table"));
    let mut txn = leased(&engine, Duration::from_secs(30));
    let mut row = 0_u32;
    while engine.counters.spills.load(Ordering::Relaxed) < 2 {
        txn.put(&t, row.to_be_bytes(), [1; 4 << 10])
            .expect("a write");
        row += 1;
    }
    let owner = Arc::clone(&txn.state_mut().owner);
    assert!(owner.try_abort(AbortCause::LeaseExpired));
    drop(txn);
    engine.store.reclaim().expect("a disk without faults");
    assert_eq!(owner.state(), OwnerState::Aborted);
    assert_eq!(start(&crashed(&disk), false).live.len(), 0);
}

/// However long a lease may last, nothing is left of who has ended.
#[test]
fn the_alarm_forgets_who_has_ended() {
    let engine = start(&SimDisk::new(1), true);
    let t = Table::new(&engine, schema::create(&engine, "t").expect("a table"));
    for ends in 0..4 {
        let mut txn = leased(&engine, Duration::MAX);
        txn.lock(&t, "k", LockMode::Update).expect("it is free");
        assert!(format!("{:?}", engine.alarm).contains("dues: 1"));
        match ends {
            0 => drop(txn.commit().expect("committed")),
            1 => drop(txn),
            2 => {
                txn.prepare("gid").expect("prepared");
                drop(txn);
                engine.prepared.commit(&engine, "gid").expect("committed");
            }
            _ => {
                let id = txn.detach();
                drop(engine.detached.take(&engine, id).map(|txn| {
                    Transaction::resumed(Arc::clone(&engine), txn);
                }));
            }
        }
        assert!(format!("{:?}", engine.alarm).contains("dues: 0"), "{ends}");
    }
}
