//! What the device and the filesystem say about a directory.

use std::os::linux::fs::MetadataExt;
use std::path::Path;

use crate::stores::Result;

/// Bytes that the device below `directory` has written since it was there, whoever wrote them; `None` where the kernel
/// does not tell.
pub fn written_bytes(directory: &Path) -> Option<u64> {
    const SECTORS_WRITTEN: usize = 6;
    const SECTOR_BYTES: u64 = 512;
    let device = std::fs::metadata(directory).ok()?.st_dev();
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & !0xff),
    );
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = stat.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

/// Bytes that the files of `directory` take on the disk.
pub fn used_bytes(directory: &Path) -> Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            used_bytes(&entry.path())?
        } else {
            entry.metadata()?.st_blocks() * BLOCK_BYTES
        };
    }
    Ok(bytes)
}
