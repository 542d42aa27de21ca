//! The ways to the device: each can be asked for, says what it became, and reads what the others wrote.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use lockstone::{Backend, Database, Error, IoMode, Options};

fn open(path: &Path, io: IoMode) -> Result<Database, Error> {
    Options::new()
        .segment_bytes(1 << 20)
        .log_bytes(4 << 20)
        .io(io)
        .open(path)
}

/// Whether this kernel gives this process a ring, and the reason if not.
fn ring(path: &Path) -> Result<(), String> {
    match open(path, IoMode::Uring) {
        Ok(db) => {
            assert_eq!(db.info().log_writes.backend, Backend::Uring);
            Ok(())
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("IoMode::Blocking"), "what to do: {text}");
            Err(text)
        }
    }
}

#[test]
fn every_mode_opens_says_what_it_became_and_reads_what_others_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let ring = ring(&path);
    let modes = [IoMode::Auto, IoMode::Blocking, IoMode::Uring, IoMode::Auto];
    let mut written = 0_u32;
    for (life, io) in modes.into_iter().cycle().take(8).enumerate() {
        if io == IoMode::Uring && ring.is_err() {
            continue;
        }
        let db = open(&path, io).unwrap();
        let ways = db.info().log_writes;
        match (io, &ring) {
            (IoMode::Auto | IoMode::Uring, Ok(())) => {
                assert_eq!((ways.backend, &ways.refused), (Backend::Uring, &None));
            }
            (IoMode::Auto, Err(_)) => {
                assert_eq!(ways.backend, Backend::Blocking);
                assert!(ways.refused.is_some(), "it says why");
            }
            _ => assert_eq!((ways.backend, &ways.refused), (Backend::Blocking, &None)),
        }
        let t = db.create_table("t").unwrap();
        assert_eq!(db.snapshot().range(&t, ..).unwrap().count() as u32, written);
        for _ in 0..20 {
            let mut txn = db.begin();
            txn.put(&t, written.to_be_bytes(), vec![life as u8; 5000])
                .unwrap();
            txn.commit().unwrap();
            written += 1;
        }
        // Every other life ends in order.
        if life % 2 == 0 {
            db.close().unwrap();
        }
    }
    if let Err(why) = ring {
        println!("no io_uring here: {why}");
    }
}
