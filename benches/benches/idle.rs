//! Ten thousand idle transactions with a thousand locks each, where memory has room for a sixteenth of them: how long they take, how much
//! memory, and that each commits. `-- TRANSACTIONS LOCKS` for others.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement ends at the first error, and reads the clock and the process's state"
)]

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use lockstone::{Durability, LockMode, OnConflict, Options, TxnOptions};

/// Resident bytes without mapped files.
fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.map_or(0, |kib| kib.parse::<u64>().unwrap() >> 10)
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u64> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let (count, each) = match numbers.as_slice() {
        [count, each] => (*count, *each),
        _ => (10_000, 1_000),
    };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("db");
    let db = Options::new().open(&path)?;
    let t = db.create_table("t")?;
    let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let (began, before) = (Instant::now(), resident_mib());
    let (mut most, mut counted, mut longest) = (0, 0, Duration::ZERO);
    let mut idle = Vec::new();
    for txn in 0..count {
        let mut open = db.begin_with(TxnOptions::new().durability(Durability::Buffered));
        for number in txn * each..(txn + 1) * each {
            let call = Instant::now();
            open.lock(&t, key(number), LockMode::Update)?;
            longest = longest.max(call.elapsed());
        }
        most = most.max(resident_mib());
        counted = counted.max(db.stats().provisional_bytes);
        idle.push(open);
    }
    let locked = began.elapsed();
    let (mut files, mut bytes) = (0, 0);
    for file in fs::read_dir(&path)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with("spill-") {
            (files, bytes) = (files + 1, bytes + file.metadata()?.len());
        }
    }
    let asked = Instant::now();
    let (mut refused, mut sample) = (0, 0);
    for number in (0..count * each).step_by(9_973) {
        let mut other = db.begin_with(TxnOptions::new().on_conflict(OnConflict::NoWait));
        sample += 1;
        refused += u64::from(other.lock(&t, key(number), LockMode::KeyShare).is_err());
    }
    let asked = asked.elapsed();
    let began = Instant::now();
    for (mut txn, number) in idle.into_iter().zip((0..).step_by(each as usize)) {
        txn.put(&t, key(number), "written")?;
        txn.commit()?;
    }
    let committed = began.elapsed();
    println!(
        "{count} transactions with {each} locks each: locked in {locked:.1?}, the longest call {longest:.1?}; at most {most} MiB \
         resident beside mapped files, {before} before, {} MiB counted; {files} files of {} MiB",
        counted >> 20,
        bytes >> 20
    );
    println!(
        "of {sample} locks {refused} were refused to others, in {:.1?} each; all committed a row each in {committed:.1?}; {} locks are left",
        asked / sample,
        db.locks().count()
    );
    Ok(db.close()?)
}
