//! When a part of a run is verified, how long it is trusted, and what a scrub makes of that.

use super::*;

#[test]
fn index_and_filter_are_verified_when_they_are_first_used() {
    let (disk, entry) = written(&varied());
    let footer = opened(&disk, &entry).unwrap().footer;
    for (section, at) in [
        (Section::Filter, footer.filter_at.get()),
        (Section::Index, footer.index_at.get() + 3),
    ] {
        disk.flip_byte(NAME, at);
        let run = opened(&disk, &entry).expect("opening reads neither");
        let is_told = |error: StorageError| {
            let want = Damage::Checksum(section);
            assert!(
                matches!(error, StorageError::Corrupt { what, .. } if what == want),
                "F11: {error}"
            );
        };
        for _ in 0..2 {
            is_told(get(&run, b"\0\0\0\x01row0001", u64::MAX).unwrap_err());
        }
        if section == Section::Index {
            let (rows, mut errors) = walk(&run, &whole(u64::MAX, Direction::Forward));
            assert!(rows.is_empty() && errors.len() == 1);
            is_told(errors.remove(0));
            is_told(collect(run.walk()).unwrap_err());
        }
        is_told(run.check().findings.remove(0));
        disk.flip_byte(NAME, at);
        let run = opened(&disk, &entry).unwrap();
        assert!(get(&run, b"\0\0\0\x01row0001", u64::MAX).unwrap().is_some());
    }
}

#[test]
fn a_scrub_takes_trust_back_and_gives_it_again() {
    let (disk, entry) = written(&varied());
    let run = opened(&disk, &entry).unwrap();
    let (before, _) = walk(&run, &whole(u64::MAX, Direction::Forward));
    let blocks = run.index().unwrap().blocks() as u64;
    let (start, _) = run.index().unwrap().bounds(0);
    disk.flip_byte(NAME, start + 40);
    // Trusted: the map has it as it was.
    assert_eq!(walk(&run, &whole(u64::MAX, Direction::Forward)).0, before);
    let (mut next, mut findings, mut calls) = (Some(0), Vec::new(), 0);
    while let Some(block) = next {
        let (go_on, read) = run.scrub(block, 1, &mut |error| {
            findings.push(error);
            true
        });
        assert!(read > 0 && go_on.is_none_or(|next| next == block + 1));
        (next, calls) = (go_on, calls + 1);
    }
    assert_eq!(
        (calls, findings.len()),
        (blocks, 1),
        "a block for each byte of leave"
    );
    let (after, errors) = walk(&run, &whole(u64::MAX, Direction::Forward));
    assert!(
        errors.len() == 1 && after.len() < before.len(),
        "F11: the block is lost, and said to be"
    );
    disk.flip_byte(NAME, start + 40);
    let mut none = |error| panic!("{error}");
    assert_eq!(run.scrub(0, u64::MAX, &mut none).0, None);
    assert_eq!(walk(&run, &whole(u64::MAX, Direction::Forward)).0, before);
}

/// F11: index and filter were verified once and trusted for good; a scrub that found one rotten, under the map as well,
/// left it in use, and every block unread behind it.
#[test]
fn a_scrub_takes_trust_from_index_and_filter_and_the_next_use_looks_again() {
    let versions = varied();
    let (disk, entry) = written(&versions);
    let run = opened(&disk, &entry).unwrap();
    let (before, _) = walk(&run, &whole(u64::MAX, Direction::Forward));
    let found = |row: &[u8]| get(&run, row, u64::MAX).map(|found| found.is_some());
    assert!(found(b"\0\0\0\x01row0001").unwrap());
    let scrubbed = || {
        let mut findings = Vec::new();
        let mut call = |error| {
            findings.push(error);
            true
        };
        assert_eq!(run.scrub(0, u64::MAX, &mut call).0, None);
        let sections = findings.into_iter().map(|error| match error {
            StorageError::Corrupt {
                what: Damage::Checksum(section),
                ..
            } => section,
            other => panic!("{other}"),
        });
        sections.collect::<Vec<_>>()
    };
    let block_at = run.index().unwrap().bounds(0).0 + 40;
    let flip_both = || {
        disk.flip_byte(NAME, run.footer.filter_at.get() + 5);
        disk.flip_byte(NAME, block_at);
    };
    flip_both();
    assert_eq!(
        scrubbed(),
        [Section::Filter, Section::Block],
        "behind the filter"
    );
    assert!(found(b"\0\0\0\x01row0001").is_err(), "F11");
    assert_eq!(walk(&run, &whole(u64::MAX, Direction::Forward)).1.len(), 1);
    // The device has it again.
    flip_both();
    assert!(found(b"\0\0\0\x01row0001").unwrap());

    let mut cursors = [Direction::Forward, Direction::Backward].map(|direction| {
        let mut cursor = run.cursor(&whole(u64::MAX, direction)).unwrap();
        assert!(matches!(cursor.step(), Step::Row));
        cursor
    });
    let index_at = run.footer.index_at.get() + 3;
    disk.flip_byte(NAME, index_at);
    assert_eq!(scrubbed(), [Section::Index]);
    assert!(found(b"\0\0\0\x01row0001").is_err(), "F11");
    for cursor in &mut cursors {
        // On its way already: it says that it cannot go on.
        let told = std::iter::repeat_with(|| cursor.step()).find(|step| !matches!(step, Step::Row));
        let Some(Step::Damaged(hidden)) = told else {
            panic!("F11: {told:?}");
        };
        assert_eq!((hidden.block, hidden.first), (None, entry.smallest.clone()));
        assert!(matches!(cursor.step(), Step::End));
    }
    disk.flip_byte(NAME, index_at);
    assert_eq!(walk(&run, &whole(u64::MAX, Direction::Forward)).0, before);
    assert_eq!(scrubbed(), []);
}

/// F11: a walk came to a block that had been trusted a moment before and could not be read any more; nobody heard
/// of it, and older runs showed what they had of its rows.
#[test]
fn a_block_that_fails_between_its_trust_and_its_reading_is_told_by_the_next_step() {
    let versions: Vec<_> = (0..600_u32)
        .map(|n| version(format!("\0\0\0\x01{n:06}").as_bytes(), 1, Some(&[1; 50])))
        .collect();
    let (disk, entry) = written(&versions);
    let (start, end) = {
        let run = opened(&disk, &entry).unwrap();
        run.index().unwrap().bounds(1)
    };
    // The map has it like that, too.
    (start..start + BLOCK_HEAD_BYTES as u64).for_each(|at| disk.flip_byte(NAME, at));
    let run = opened(&disk, &entry).unwrap();
    (0..3).for_each(|block| run.trust(block));
    let mut cursor = run.cursor(&whole(1, Direction::Forward)).unwrap();
    let mut shown = Vec::new();
    let (mut told, mut steps) = (Vec::new(), 0);
    loop {
        match cursor.step() {
            Step::Row => shown.push(cursor.version().row.to_vec()),
            Step::Damaged(hidden) => {
                told.push((hidden.block, hidden.last));
                continue;
            }
            Step::End => break,
        }
        let _ = cursor.sweep(None, &mut |row, _| {
            shown.push(row.to_vec());
            ControlFlow::Continue(())
        });
        // It stands at the row that was shown last, for whoever compares it with others'.
        assert_eq!(cursor.version().row, shown.last().unwrap());
        steps += 1;
    }
    let last = run.index().unwrap().last(1).unwrap();
    assert_eq!(told, [(Some(1), Bytes::copy_from_slice(last.0))], "F11");
    let lost = versions.len() - shown.len();
    assert!(
        steps > 1 && end > start && (1..100).contains(&lost),
        "{lost}"
    );
    assert!(shown.is_sorted());
}

/// The cache had a page as it was written, and a scrub was content with that.
#[test]
fn a_scrub_sees_what_has_gone_bad_below_the_cache() {
    let (disk, entry) = written(&varied());
    let run = opened(&disk, &entry).unwrap();
    let last = run
        .index()
        .unwrap()
        .bounds(run.index().unwrap().blocks() - 1);
    for at in [
        40,
        last.1 - 1,
        run.footer.filter_at.get(),
        entry.bytes - 140,
    ] {
        disk.flip_byte_below_cache(NAME, at);
        let found = get(&run, b"\0\0\0\x01row0001", u64::MAX);
        assert!(found.is_ok(), "only the device has it");
        let (mut next, mut found) = (Some(0), 0);
        while let Some(block) = next {
            let mut count = |_| {
                found += 1;
                true
            };
            next = run.scrub(block, 1, &mut count).0;
        }
        assert!(found > 0, "byte {at}");
        disk.flip_byte(NAME, at);
    }
    let mut none = |error| panic!("{error}");
    assert_eq!(run.scrub(0, u64::MAX, &mut none).0, None);
}

#[test]
fn a_block_is_trusted_after_its_first_touch_only() {
    let (disk, entry) = written(&varied());
    let run = opened(&disk, &entry).unwrap();
    get(&run, b"\0\0\0\x01row0001", u64::MAX).unwrap().unwrap();
    // The map of an open run is the file as it was; only what is read anew shows the change.
    for offset in (24..run.footer.filter_at.get()).step_by(97) {
        disk.flip_byte(NAME, offset);
    }
    assert!(get(&run, b"\0\0\0\x01row0001", u64::MAX).unwrap().is_some());
    assert!(get(&run, b"\0\0\0\x01row0039", u64::MAX).is_err());
    assert_eq!(
        run.check().findings.len(),
        run.index().unwrap().blocks(),
        "a check reads every block anew"
    );
}
