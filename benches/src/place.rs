//! Where the files go: the directory, what filesystem it is on, and what its device has written.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::Error;

/// The directory that holds the databases and the control's file.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    filesystem: &'static str,
    /// Removes the directory in the end, if nobody named one.
    _temporary: Option<TempDir>,
}

/// The magic numbers of filesystems, from `statfs(2)`.
const FILESYSTEMS: [(u64, &str); 7] = [
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xF2F5_2010, "f2fs"),
    (0x794C_7630, "overlay"),
    (0x0102_1994, "tmpfs"),
    (0x2FC1_2FC1, "zfs"),
];

impl Place {
    /// The directory `dir`, or a temporary one under `./target`, or else under `$TMPDIR`.
    pub(crate) fn new(dir: Option<&Path>) -> Result<Self, Error> {
        let temporary = if dir.is_none() {
            Some(temporary()?)
        } else {
            None
        };
        let dir = dir
            .or(temporary.as_ref().map(TempDir::path))
            .expect("without a directory one was made");
        fs::create_dir_all(dir).map_err(Error::at(dir))?;
        let dir = fs::canonicalize(dir).map_err(Error::at(dir))?;
        let filesystem = filesystem(&dir)?;
        Ok(Self {
            dir,
            filesystem,
            _temporary: temporary,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name of the filesystem.
    pub(crate) fn filesystem(&self) -> &'static str {
        self.filesystem
    }

    /// Whether the files are in memory: then nothing here is durable, and no rate says anything of a disk.
    pub(crate) fn is_memory(&self) -> bool {
        self.filesystem == "tmpfs"
    }

    /// The directory of the database with `rows` rows.
    pub(crate) fn database(&self, rows: u64) -> PathBuf {
        self.dir.join(format!("lockstone-rows-{rows}"))
    }

    /// The directory of the database that is killed and recovered.
    pub(crate) fn recovered(&self) -> PathBuf {
        self.dir.join("lockstone-recover")
    }

    /// The directory of a log without a database.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("lockstone-log")
    }

    /// Bytes that the whole device has written so far; nothing where the kernel does not say.
    pub(crate) fn device_written_bytes(&self) -> Option<u64> {
        const SECTOR_BYTES: u64 = 512;
        /// The place of "sectors written" in `/sys/dev/block/*/stat`.
        const SECTORS_WRITTEN: usize = 6;
        let device = fs::metadata(&self.dir).ok()?.st_dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
        let sectors: u64 = stat.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
        Some(sectors * SECTOR_BYTES)
    }
}

fn temporary() -> Result<TempDir, Error> {
    let target = Path::new("target");
    let parent = if target.is_dir() {
        target.to_owned()
    } else {
        std::env::temp_dir()
    };
    let make = tempfile::Builder::new()
        .prefix("lockstone-bench-")
        .tempdir_in(&parent);
    make.map_err(Error::at(&parent))
}

/// Removes a database of the program's own, if it is there.
pub(crate) fn remove(database: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(database) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::at(database)(error))
        }
        _ => Ok(()),
    }
}

fn filesystem(dir: &Path) -> Result<&'static str, Error> {
    let stat = rustix::fs::statfs(dir).map_err(|errno| Error::at(dir)(errno.into()))?;
    // Some architectures have it signed, some in 32 bits.
    let magic = u64::from(stat.f_type.cast_unsigned() as u32);
    let known = FILESYSTEMS.iter().find(|(known, _)| *known == magic);
    Ok(known.map_or("unknown", |(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_place_goes_away_and_a_named_one_stays() {
        let outer = tempfile::tempdir().unwrap();
        let named = outer.path().join("a/b");
        drop(Place::new(Some(&named)).unwrap());
        assert!(named.is_dir());
        let place = Place::new(None).unwrap();
        let dir = place.dir().to_owned();
        assert!(dir.is_dir());
        drop(place);
        assert!(!dir.exists());
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        let place = Place::new(None).unwrap();
        assert!(!place.filesystem().is_empty());
        let memory = Path::new("/dev/shm");
        if memory.is_dir() && filesystem(memory).unwrap() == "tmpfs" {
            let outer = tempfile::tempdir_in(memory).unwrap();
            assert!(Place::new(Some(outer.path())).unwrap().is_memory());
        }
    }

    #[test]
    fn removing_what_is_not_there_is_fine() {
        let outer = tempfile::tempdir().unwrap();
        let database = outer.path().join("database");
        remove(&database).unwrap();
        fs::create_dir(&database).unwrap();
        remove(&database).unwrap();
        assert!(!database.exists());
    }
}
