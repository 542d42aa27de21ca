//! Scrubs of a store: what is damage, what may pass, and where the next call goes on.

use super::*;
use crate::error::Section;

const ENOUGH: u64 = u64::MAX;

impl Rig {
    fn newest_answers(&self) -> bool {
        let found = self.store.sources().get(row(5).as_bytes(), Lsn::MAX);
        found.is_ok_and(|found| found.is_some())
    }

    fn damaged(&self) -> usize {
        self.store.stats().damaged_runs
    }

    fn last_run(&self) -> String {
        let numbers = self.store.runs().into_iter().map(|run| run.number);
        file_name::run(numbers.max().unwrap())
    }
}

/// F6: too many open files marked one run after the other, until nothing could be compacted any more.
#[test]
fn a_scrub_that_cannot_open_a_file_marks_nothing_and_goes_on_there() {
    let rig = rig_with_runs();
    assert!(rig.newest_answers());
    rig.disk
        .fail_matching(DiskOp::Open, "run-", ErrorKind::Other);
    for _ in 0..9 {
        let scrub = rig.store.scrub(ENOUGH);
        assert!(scrub.failure.is_some() && scrub.findings.is_empty() && !scrub.round_done);
        assert_eq!(rig.damaged(), 0);
        assert!(rig.newest_answers(), "what is trusted stays so");
    }
    rig.disk.clear_faults();
    let scrub = rig.store.scrub(ENOUGH);
    assert!(scrub.failure.is_none() && scrub.findings.is_empty() && scrub.round_done);
    let bytes: u64 = rig.store.runs().iter().map(|run| run.bytes).sum();
    assert!(scrub.bytes > bytes * 9 / 10, "{} of {bytes}", scrub.bytes);
    assert!(rig.compact(rig.model.tail).unwrap());
}

#[test]
fn a_read_that_is_refused_is_tried_again_before_it_is_damage() {
    let rig = rig_with_runs();
    let last = rig.last_run();
    rig.disk
        .fail_matching(DiskOp::Read, &last, ErrorKind::Other);
    let first = rig.store.scrub(ENOUGH);
    assert!(first.failure.is_some() && first.findings.is_empty() && !first.round_done);
    assert_eq!(rig.damaged(), 0, "F6: it may pass");
    let again = rig.store.scrub(ENOUGH);
    assert!(again.failure.is_none() && again.round_done);
    assert!(again.bytes < first.bytes / 2, "it goes on where it was");
    assert_eq!((again.findings.len(), rig.damaged()), (1, 1));
    rig.disk.clear_faults();
    assert!(rig.store.scrub(ENOUGH).findings.is_empty());
    assert_eq!(rig.damaged(), 0);
    // What a refusal once was counts for nothing any more.
    rig.disk
        .fail_matching(DiskOp::Read, &last, ErrorKind::Other);
    assert!(rig.store.scrub(ENOUGH).findings.is_empty());
    assert_eq!(rig.damaged(), 0);
    // It counts for compactions, and theirs for scrubs.
    assert!(rig.compact(0).is_err());
    assert_eq!(rig.damaged(), 1);
}

#[test]
fn a_flipped_byte_of_each_section_is_found_and_marks_its_run_alone() {
    let rig = rig_with_runs();
    assert!(rig.newest_answers());
    let last = rig.last_run();
    let footer_at = rig.disk.read_file(&last).len() - 136;
    let mut sections = BTreeMap::new();
    for at in (24..footer_at as u64).rev().step_by(29) {
        rig.disk.flip_byte(&last, at);
        let scrub = rig.store.scrub(ENOUGH);
        assert!(scrub.failure.is_none() && scrub.round_done);
        let [
            StorageError::Corrupt {
                file,
                what: Damage::Checksum(section),
                ..
            },
        ] = scrub.findings.as_slice()
        else {
            panic!("byte {at}: {scrub:?}");
        };
        assert_eq!((file, rig.damaged()), (&rig.disk.path(&last), 1));
        let readable = rig.newest_answers();
        assert!(*section == Section::Block || !readable, "F11: byte {at}");
        *sections.entry(section.to_string()).or_insert(0) += 1;
        rig.disk.flip_byte(&last, at);
        assert!(rig.newest_answers(), "the device has it again");
        let scrub = rig.store.scrub(ENOUGH);
        assert!(scrub.findings.is_empty() && rig.damaged() == 0);
    }
    assert_eq!(sections.len(), 3, "{sections:?}");
    rig.assert_readable();
}

/// F6: a scrub trusted what it had read and had the page cache forget it; from a device that had gone bad meanwhile the
/// first reader got a signal.
#[test]
fn what_a_scrub_or_a_check_has_read_is_read_again_by_who_uses_it() {
    for is_used in [false, true] {
        let scrub = |rig: &Rig| assert!(rig.store.scrub(ENOUGH).round_done);
        let check =
            |rig: &Rig| assert!(rig.store.check(&mut |_, _| ()).unwrap().findings.is_empty());
        for read in [&scrub as &dyn Fn(&Rig), &check] {
            let rig = rig_with_runs();
            assert!(!is_used || rig.newest_answers());
            read(&rig);
            rig.disk
                .fail_matching(DiskOp::Read, "run-", ErrorKind::Other);
            assert!(!rig.newest_answers(), "it was read past the map");
            rig.disk.clear_faults();
            rig.assert_readable();
        }
    }
}

/// Who had no right to open a run kept the scrubber from all later ones for good.
#[test]
fn a_run_that_cannot_be_opened_is_left_out_of_the_round() {
    let rig = rig_with_runs();
    let (last, mut runs) = (rig.last_run(), rig.store.runs());
    runs.sort_by_key(|run| run.number);
    assert!(runs.len() > 1);
    let first = file_name::run(runs[0].number);
    for _ in 0..2 {
        rig.disk
            .fail_matching(DiskOp::Open, &first, ErrorKind::PermissionDenied);
        for call in 1..=10 {
            let scrub = rig.store.scrub(ENOUGH);
            assert!(scrub.failure.is_some() && scrub.bytes == 0 && !scrub.round_done);
            assert_eq!(scrub.left_out, call == 10);
        }
        rig.disk.flip_byte(&last, 40);
        let rest = rig.store.scrub(ENOUGH);
        assert!(rest.round_done && rest.failure.is_none() && !rest.left_out);
        assert_eq!(
            (rest.findings.len(), rig.damaged()),
            (1, 1),
            "the others are read"
        );
        rig.disk.clear_faults();
        rig.disk.flip_byte(&last, 40);
        let whole = rig.store.scrub(ENOUGH);
        assert!(
            whole.round_done && whole.bytes > rest.bytes,
            "the next round tries again"
        );
        assert_eq!(rig.damaged(), 0);
    }
}

/// F11: a scrub that had passed the place took the mark of who found the damage meanwhile.
#[test]
fn what_others_find_while_a_run_is_scrubbed_stays_marked() {
    let rig = rig_with_runs();
    let mut runs = rig.store.runs();
    runs.sort_by_key(|run| run.number);
    let first = file_name::run(runs[0].number);
    let slice = rig.store.scrub(1);
    assert!(!slice.round_done && slice.findings.is_empty());
    assert!(slice.bytes < runs[0].bytes, "it goes on in the first run");
    rig.disk.flip_byte(&first, 40);
    assert!(rig.compact(rig.model.tail).is_err());
    assert_eq!(rig.damaged(), 1);
    while !rig.store.scrub(ENOUGH).round_done {}
    assert_eq!(rig.damaged(), 1, "behind the place that it had come to");
    assert_eq!(rig.store.scrub(ENOUGH).findings.len(), 1);
    rig.disk.flip_byte(&first, 40);
    assert!(rig.store.scrub(ENOUGH).round_done);
    assert_eq!(rig.damaged(), 0);
}
