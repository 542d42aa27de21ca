//! The database's directory as a whole: whose it is, and whether it is a database at all.
//!
//! 1. F16: one opener at a time, by `flock` on the lock file: another process, another handle of this
//!    one, a symbolic link or a hard link to the directory all meet the same lock.
//! 2. F17: a dead process's locks may be released late, and the log's later than the directory's, so each is
//!    retried: for a quarter of a second if their holder may be alive, else for half a minute. Whoever has the
//!    directory's lock knows that holders of the log's are dead.
//! 3. A directory that holds other people's files is refused before anything is created in it.
//!
//! Crash: the kernel releases the lock; the file stays, and its content means nothing without the lock.

use std::sync::Arc;
use std::time::Duration;

use lockstone_base::clock::Clock;
use lockstone_base::disk::{Disk, DiskFile, FileLock, OpenMode};
use lockstone_base::limits::UNLOCK_MS_MAX;
use lockstone_base::process;
use lockstone_wal::{Access, Segments, WalError};

use crate::error::RecoveryError;

/// The lock file's name.
pub const LOCK_FILE: &str = "lock";

/// Behind the name of a file that is still being written.
const UNFINISHED: &str = ".tmp";
/// How long the lock of one who may be alive is waited for: another opener is told soon.
const RETRY_FOR: Duration = Duration::from_millis(250);
/// How long that of one who is dead.
const RETRY_DEAD_FOR: Duration = Duration::from_millis(UNLOCK_MS_MAX);
const RETRY_EVERY: Duration = Duration::from_millis(5);
/// A process id in decimal, and a line end.
const LOCK_FILE_BYTES_MAX: usize = 16;

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing of weight: a database may be created here.
    Empty,
    /// A database.
    Database,
}

/// Decides what the directory holds, from its names alone.
///
/// # Errors
/// [`RecoveryError::NotADatabase`] for other people's files; [`RecoveryError::Missing`] if log or runs
/// are there without a manifest.
pub fn content(disk: &dyn Disk) -> Result<Content, RecoveryError> {
    let names = disk.list()?;
    let unfinished = |name: &str| name.strip_suffix(UNFINISHED).is_some();
    let any = |prefix: &str| {
        names
            .iter()
            .any(|name| name.starts_with(prefix) && !unfinished(name))
    };
    if any("manifest-") {
        return Ok(Content::Database);
    }
    if any("wal-") || any("run-") {
        let why = "there are log or run files, and every database has a manifest";
        return Err(RecoveryError::Missing {
            file: disk.path("manifest-*"),
            why,
        });
    }
    if names
        .iter()
        .all(|name| name == LOCK_FILE || unfinished(name))
    {
        return Ok(Content::Empty);
    }
    Err(RecoveryError::NotADatabase {
        path: disk.path(""),
        why: "the directory holds other files and no manifest",
    })
}

/// The right to a directory, until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held for its lock")] Arc<dyn DiskFile>);

impl DirectoryLock {
    /// Takes the directory for this opener alone, and writes down who it is.
    ///
    /// # Errors
    /// [`RecoveryError::Locked`] after a quarter of a second if someone else has it, after half a minute if that one
    /// is dead.
    pub fn exclusive(disk: &dyn Disk, clock: &dyn Clock) -> Result<Self, RecoveryError> {
        let file = match disk.open(LOCK_FILE, OpenMode::ReadWrite) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                disk.open(LOCK_FILE, OpenMode::CreateNew)?
            }
            opened => opened?,
        };
        acquire(disk, clock, &*file, FileLock::Exclusive)?;
        file.set_len(0)?;
        file.write_at(0, format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Self(file))
    }

    /// Keeps writers out while the directory is inspected; changes nothing.
    ///
    /// # Errors
    /// [`RecoveryError::Locked`], with the owner's process id, if the database is open.
    pub fn shared(disk: &dyn Disk, clock: &dyn Clock) -> Result<Self, RecoveryError> {
        let file = disk.open(LOCK_FILE, OpenMode::Read)?;
        acquire(disk, clock, &*file, FileLock::Shared)?;
        Ok(Self(file))
    }
}

fn acquire(
    disk: &dyn Disk,
    clock: &dyn Clock,
    file: &dyn DiskFile,
    lock: FileLock,
) -> Result<(), RecoveryError> {
    let begun = clock.now();
    while !file.try_lock(lock)? {
        let waited = clock.now().saturating_sub(begun);
        let pid = owner_pid(file);
        let is_dead = pid.is_some_and(|pid| !process::is_alive(pid));
        let waits_for_dead = is_dead && is_held_alone(file)?;
        if waited
            >= if waits_for_dead {
                RETRY_DEAD_FOR
            } else {
                RETRY_FOR
            }
        {
            return Err(RecoveryError::Locked {
                path: disk.path(""),
                pid,
            });
        }
        clock.sleep(RETRY_EVERY);
    }
    Ok(())
}

/// Whether somebody has the lock alone, and so has written down who it is: who inspects shares it, and does not.
fn is_held_alone(file: &dyn DiskFile) -> Result<bool, RecoveryError> {
    let is_shared = file.try_lock(FileLock::Shared)?;
    if is_shared {
        file.unlock()?;
    }
    Ok(!is_shared)
}

/// Opens and locks the log of a directory that this opener has locked.
///
/// # Errors
/// [`WalError::Locked`] after half a minute; else the disk's.
pub fn open_log(
    disk: &Arc<dyn Disk>,
    clock: &dyn Clock,
    access: Access,
) -> Result<Segments, WalError> {
    let give_up = clock.now() + RETRY_DEAD_FOR;
    loop {
        match Segments::open(disk.clone(), access) {
            Err(WalError::Locked { .. }) if clock.now() < give_up => clock.sleep(RETRY_EVERY),
            opened => return opened,
        }
    }
}

fn owner_pid(file: &dyn DiskFile) -> Option<u32> {
    let mut text = [0; LOCK_FILE_BYTES_MAX];
    let count = file.read_at(0, &mut text).ok()?;
    str::from_utf8(text.get(..count)?).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use lockstone_testkit::{SimClock, SimDisk};

    use super::*;

    /// F17: on a loaded machine the kernel tears a killed process down later than after a quarter of a second.
    #[test]
    fn a_dead_owner_is_waited_for_longer_than_one_that_lives() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        for (pid, wait) in [
            (std::process::id(), RETRY_FOR),
            (child.id(), RETRY_DEAD_FOR),
        ] {
            let (disk, clock) = (SimDisk::new(1), SimClock::new());
            disk.write_file(LOCK_FILE, format!("{pid}\n").as_bytes());
            let owner = disk.open(LOCK_FILE, OpenMode::Read).unwrap();
            assert!(owner.try_lock(FileLock::Exclusive).unwrap());
            for open in [DirectoryLock::exclusive, DirectoryLock::shared] {
                let begun = clock.now();
                let refused = open(&*disk, &clock).unwrap_err();
                assert!(
                    matches!(refused, RecoveryError::Locked { pid: Some(of), .. } if of == pid),
                    "{refused}"
                );
                assert_eq!(clock.now().saturating_sub(begun), wait, "F17");
            }
            assert!(owner.try_lock(FileLock::Shared).unwrap());
            let begun = clock.now();
            DirectoryLock::exclusive(&*disk, &clock).unwrap_err();
            assert_eq!(
                clock.now().saturating_sub(begun),
                RETRY_FOR,
                "one who inspects is told of soon"
            );
            DirectoryLock::shared(&*disk, &clock).unwrap();
            drop(owner);
            DirectoryLock::exclusive(&*disk, &clock).unwrap();
        }
    }
}
