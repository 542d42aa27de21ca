//! Crashes at every moment of a small life, with every fate of what was not durable, and again inside
//! the recovery: what was acknowledged is there, nothing is out of order, no position is given twice.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails loudly"
)]

mod fixture;

use std::io::ErrorKind;
use std::sync::Arc;

use fixture::{Known, NOTHING, Seen, append, body, commit, inspect, start};
use lockstone_base::Lsn;
use lockstone_base::disk::{AlignedBuf, Disk, OpenMode};
use lockstone_testkit::{FinishOrder, SimDisk, Survivors};
use lockstone_wal::{Log, WalError};

/// What a life did, and at which moment of its disk each thing was so.
#[derive(Default)]
struct Life {
    /// Record, and the moment at which it had its position.
    appended: Vec<(u64, Lsn, Vec<u8>)>,
    /// How many of `appended` were acknowledged, from the moment on.
    acked: Vec<(u64, usize)>,
    /// What the newest manifest said, from the moment on.
    manifests: Vec<(u64, Known)>,
}

impl Life {
    fn append(&mut self, disk: &SimDisk, log: &Log, body: Vec<u8>) -> Result<(), WalError> {
        let lsn = append(log, &body)?.lsn;
        self.appended.push((disk.io_count(), lsn, body));
        Ok(())
    }

    fn commit(&mut self, disk: &SimDisk, log: &Log, body: Vec<u8>) -> Result<(), WalError> {
        self.append(disk, log, body)?;
        log.wait_durable(log.end())?;
        self.acked.push((disk.io_count(), self.appended.len()));
        Ok(())
    }

    /// Several full frames, and then one wait for all of them: they are in flight together.
    fn pile(&mut self, disk: &SimDisk, log: &Log, first: usize) -> Result<(), WalError> {
        for number in first..first + 7 {
            self.append(disk, log, body(number, 30_000 + number))?;
        }
        log.wait_durable(log.end())?;
        self.acked.push((disk.io_count(), self.appended.len()));
        Ok(())
    }

    fn acked_at(&self, moment: u64) -> usize {
        let known = self.acked.iter().rfind(|(at, _)| *at <= moment);
        known.map_or(0, |(_, count)| *count)
    }

    fn known_at(&self, moment: u64) -> Known {
        let known = self.manifests.iter().rfind(|(at, _)| *at <= moment);
        known.map_or(NOTHING, |(_, known)| *known)
    }

    /// What a recovery at `moment` found is all that was acknowledged, and nothing out of order.
    fn check(&self, moment: u64, seen: &Seen, why: &str) {
        let from = self.known_at(moment).from.end;
        let before = self.appended.partition_point(|(_, lsn, _)| *lsn < from);
        let expected: Vec<_> = self.appended[before..]
            .iter()
            .map(|(_, lsn, body)| (*lsn, body.clone()))
            .collect();
        let found: Vec<_> = seen.records.iter().map(|it| (it.0, it.3.clone())).collect();
        assert!(expected.starts_with(&found), "{why}: a prefix, in place");
        let acked = self.acked_at(moment);
        assert!(
            before + found.len() >= acked,
            "{why}: {} of {acked} acknowledged are there",
            before + found.len()
        );
    }

    /// Behind every position that was given out by `moment`.
    fn handed_out(&self, moment: u64) -> Lsn {
        let given = self.appended.iter().filter(|(at, ..)| *at <= moment);
        given.map(|(_, lsn, _)| *lsn).max().unwrap_or_default()
    }
}

/// One life that meets everything: small and long records, a segment's end, a checkpoint, recycling,
/// idle covering. Ends at the first error.
fn live(disk: &Arc<SimDisk>, life: &mut Life) -> Result<(), WalError> {
    let (log, ..) = start(disk.clone(), NOTHING)?;
    // The manifest that ends each recovery.
    let known = Known {
        log_end: log.segments_end(),
        ..NOTHING
    };
    life.manifests.push((disk.io_count(), known));
    for round in 0..3 {
        for number in 0..6 {
            life.append(disk, &log, body(round * 100 + number, 200))?;
            life.commit(
                disk,
                &log,
                body(round * 100 + 50 + number, 30_000 + number * 3),
            )?;
        }
        life.pile(disk, &log, round * 100 + 70)?;
        log.cover()?;
        life.commit(disk, &log, body(round, 10))?;
        let from = log.chain_point_at(log.end());
        let known = Known {
            from,
            durable: log.durable(),
            generation: 2 + round as u64,
            log_end: log.segments_end(),
        };
        life.manifests.push((disk.io_count(), known));
        log.note_manifest(known.generation);
        log.recycle(from.end)?;
    }
    life.append(disk, &log, body(7, 100))?;
    Ok(())
}

/// Recovers, checks, goes on, and looks again.
fn recover(crashed: &Arc<SimDisk>, life: &Life, moment: u64, why: &str) -> Seen {
    let known = life.known_at(moment);
    let (log, scan, seen) =
        start(crashed.clone(), known).unwrap_or_else(|error| panic!("{why}: {error}"));
    life.check(moment, &seen, why);
    let next = commit(&log, b"the next life").unwrap();
    assert!(
        next.lsn > life.handed_out(moment),
        "{why}: G1, no position twice"
    );
    assert!(next.lsn >= scan.end.end, "{why}");
    drop(log);
    let (_, mut again) = inspect(crashed.clone(), known).unwrap();
    assert_eq!(again.records.pop().unwrap().0, next.lsn, "{why}");
    assert_eq!(
        again.records, seen.records,
        "{why}: recovery rewrites nothing"
    );
    seen
}

/// Recovers from a crash at every moment, with every choice of survivors; how often, and from how many
/// moments with several frames in flight.
fn crash_everywhere(disk: &Arc<SimDisk>, life: &Life) -> (u32, u32) {
    let (mut recoveries, mut with_several) = (0, 0);
    for moment in 0..=disk.io_count() {
        for survivors in Survivors::enumerate(disk.unsynced(moment), 3) {
            let why = format!("{survivors:?} after {}", disk.describe(moment));
            recover(&disk.after_crash(moment, &survivors), life, moment, &why);
            recoveries += 1;
        }
        let in_flight = disk.in_flight(moment);
        with_several += u32::from(in_flight > 1);
        for survivors in Survivors::enumerate(in_flight, 2) {
            let why = format!("killed with {survivors:?} after {}", disk.describe(moment));
            let killed = disk.after_kill_leaving(moment, &survivors);
            recover(&killed, life, moment, &why);
            recoveries += 1;
        }
    }
    (recoveries, with_several)
}

#[test]
fn every_crash_keeps_what_was_acknowledged() {
    let disk = SimDisk::new(1);
    let mut life = Life::default();
    live(&disk, &mut life).unwrap();
    let (recoveries, with_several) = crash_everywhere(&disk, &life);
    assert!(recoveries > 600, "{recoveries}");
    assert!(with_several > 8, "{with_several}");
}

/// G2, G5: whichever frame in flight is the first to be on the device, what is acknowledged is a prefix.
#[test]
fn frames_that_land_in_any_order_are_acknowledged_in_order() {
    let orders = [
        FinishOrder::Newest,
        FinishOrder::Drawn(1),
        FinishOrder::Drawn(2),
    ];
    for (seed, order) in orders.into_iter().enumerate() {
        let disk = SimDisk::new(seed as u64);
        disk.finish_order(order);
        let mut life = Life::default();
        live(&disk, &mut life).unwrap();
        let (_, with_several) = crash_everywhere(&disk, &life);
        assert!(with_several > 8, "{with_several}");
    }
}

/// Opens `disk` with each of its segments in turn removed or cut: it is refused, or nothing is lost.
/// How often it was refused.
fn without_each(disk: &Arc<SimDisk>, known: Known, whole: &Seen, why: &str) -> u64 {
    let mut refused = 0;
    let mut names = disk.names();
    names.retain(|name| name.starts_with("wal-0"));
    for name in names {
        let good = disk.read_file(&name);
        for cut in [None, Some(0), Some(1), Some(4096), Some(8192)] {
            match cut {
                None => disk.remove_file(&name),
                Some(bytes) => disk.truncate(&name, bytes),
            }
            match inspect(disk.clone(), known) {
                Ok((_, seen)) => {
                    assert_eq!(
                        &seen, whole,
                        "F14: {why}: {name} cut to {cut:?} goes unnoticed"
                    );
                }
                Err(WalError::Corrupt { file, .. }) => {
                    assert!(file.starts_with(disk.path("")));
                    refused += 1;
                }
                Err(error) => panic!("{why}: {name} cut to {cut:?}: {error}"),
            }
            disk.write_file(&name, &good);
        }
    }
    refused
}

/// The frames of a file that is gone testify to nothing any more: the highest one, and one behind which only
/// empty ones lie, were once missed.
#[test]
fn a_segment_that_goes_at_any_moment_is_missed() {
    let disk = SimDisk::new(5);
    let mut life = Life::default();
    live(&disk, &mut life).unwrap();
    let mut refused = 0;
    for moment in 0..=disk.io_count() {
        let crashed = disk.after_kill(moment);
        let known = life.known_at(moment);
        let why = format!("killed after {}", disk.describe(moment));
        let (_, whole) = inspect(crashed.clone(), known).unwrap();
        refused += without_each(&crashed, known, &whole, &why);
        if !moment.is_multiple_of(7) {
            continue;
        }
        // And in the next life, which has a segment of its own and readies further ones.
        let (log, ..) = start(crashed.clone(), known).unwrap();
        let known = Known {
            log_end: log.segments_end(),
            ..known
        };
        for number in 0..9 {
            commit(&log, &body(number, 30_000)).unwrap();
        }
        drop(log);
        let (_, whole) = inspect(crashed.clone(), known).unwrap();
        refused += without_each(&crashed, known, &whole, &why);
    }
    assert!(refused > 400, "{refused}");
}

#[test]
fn a_crash_inside_recovery_changes_nothing() {
    let disk = SimDisk::new(2);
    let mut life = Life::default();
    live(&disk, &mut life).unwrap();
    let mut recoveries = 0;
    for moment in (0..=disk.io_count()).step_by(3) {
        for survivors in Survivors::enumerate(disk.unsynced(moment), 1) {
            let crashed = disk.after_crash(moment, &survivors);
            let known = life.known_at(moment);
            let first = start(crashed.clone(), known).unwrap().2;
            for inner in 0..=crashed.io_count() {
                for survivors_too in Survivors::enumerate(crashed.unsynced(inner), 1) {
                    let why = format!(
                        "{survivors:?} at {moment}, then {survivors_too:?} after {}",
                        crashed.describe(inner)
                    );
                    let twice = crashed.after_crash(inner, &survivors_too);
                    let second = recover(&twice, &life, moment, &why);
                    assert_eq!(first, second, "{why}: R5");
                    recoveries += 1;
                }
            }
        }
    }
    assert!(recoveries > 500, "{recoveries}");
}

#[test]
fn what_a_kill_left_is_made_durable_before_it_is_believed() {
    // A process killed within a write that goes through the page cache leaves a frame that everybody
    // can read and the next power cut takes away. Believed without a sync, it took with it whatever was
    // acknowledged on top of it (z1).
    let name = "wal-0000000000000000";
    let twin = SimDisk::new(3);
    let (log, ..) = start(twin.clone(), NOTHING).unwrap();
    commit(&log, b"acknowledged").unwrap();
    commit(&log, b"in flight").unwrap();
    let disk = SimDisk::new(3);
    let (log, ..) = start(disk.clone(), NOTHING).unwrap();
    commit(&log, b"acknowledged").unwrap();
    let mut frame = AlignedBuf::zeroed(4096);
    let bytes = twin.read_file(name);
    frame.as_mut_bytes().copy_from_slice(&bytes[8192..12288]);
    let file = disk.open(name, OpenMode::Log).unwrap();
    file.write_at(8192, frame.as_bytes()).unwrap();
    drop((log, file));

    let (log, _, believed) = start(disk.clone(), NOTHING).unwrap();
    assert_eq!(believed.records.len(), 2, "it was visible");
    commit(&log, b"on top").unwrap();
    let cut = disk.after_crash(disk.io_count(), &Survivors::None);
    let (_, seen) = inspect(cut, NOTHING).unwrap();
    let bodies: [&[u8]; 3] = [b"acknowledged", b"in flight", b"on top"];
    assert_eq!(seen.bodies(), bodies);
}

#[test]
fn every_failing_call_fences_or_fails_cleanly() {
    let calls = {
        let disk = SimDisk::new(4);
        live(&disk, &mut Life::default()).unwrap();
        disk.io_count()
    };
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for forever in [false, true] {
            for call in 1..=calls {
                let disk = SimDisk::new(call);
                if forever {
                    disk.fail_from(call, kind);
                } else {
                    disk.fail_once(call, kind);
                }
                let mut life = Life::default();
                let lived = live(&disk, &mut life);
                disk.clear_faults();
                let why = format!("{kind:?} at {}: {lived:?}", disk.describe(call));
                let end = disk.io_count();
                // The power goes too: what a failed sync has stranded is lost (F8).
                recover(&disk.after_crash(end, &Survivors::None), &life, end, &why);
            }
        }
    }
}
