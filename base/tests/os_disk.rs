//! What only real files can do wrong: links, pipes, modes, moved directories, other processes.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the tests look behind the disk's back, and fail by panicking"
)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use lockstone_base::disk::{AlignedBuf, Disk, DiskOp, FileLock, OpenMode, OsDisk};
use rustix::fs::OFlags;
use tempfile::TempDir;

const MODES: [OpenMode; 4] = [
    OpenMode::Read,
    OpenMode::ReadWrite,
    OpenMode::Log,
    OpenMode::LogRead,
];

fn directory() -> (TempDir, OsDisk) {
    let parent = TempDir::new().unwrap();
    let disk = OsDisk::open(parent.path().join("db"), true).unwrap();
    (parent, disk)
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn directories_and_files_are_the_owners_alone() {
    let (parent, disk) = directory();
    let file = disk.open("file", OpenMode::CreateNew).unwrap();
    file.write_at(0, b"x").unwrap();
    assert_eq!(mode_of(&parent.path().join("db")), 0o700);
    assert_eq!(mode_of(&parent.path().join("db/file")), 0o600);
}

#[test]
fn opening_a_directory_tells_what_is_there_instead() {
    let parent = TempDir::new().unwrap();
    let path = |name| parent.path().join(name);
    let kind = |name, create| OsDisk::open(path(name), create).unwrap_err().kind();
    fs::write(path("file"), "").unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    assert_eq!(kind("missing", false), ErrorKind::NotFound);
    assert!(!path("missing").exists());
    assert_eq!(kind("missing/deeper", true), ErrorKind::NotFound);
    assert_eq!(kind("dangling", true), ErrorKind::NotFound);
    for create in [false, true] {
        assert_eq!(kind("file", create), ErrorKind::NotADirectory);
    }
    let error = OsDisk::open(path("missing/deeper"), true).unwrap_err();
    assert_eq!(error.op, DiskOp::CreateDir);
    OsDisk::open(path("made"), true).unwrap();
    OsDisk::open(path("made"), true).unwrap();
    OsDisk::open(path("made"), false).unwrap();
}

#[test]
fn a_relative_path_is_opened_and_created() {
    let parent = tempfile::Builder::new().tempdir_in(".").unwrap();
    let name = Path::new(parent.path().file_name().unwrap()).join("db");
    let disk = OsDisk::open(&name, true).unwrap();
    assert!(disk.path("x").is_absolute());
    assert_eq!(
        disk.path("x").parent().unwrap(),
        fs::canonicalize(name).unwrap()
    );
}

/// F16: whoever comes by a link meets the same files, hence the same locks.
#[test]
fn a_directory_reached_by_a_link_is_the_same_one() {
    let (parent, disk) = directory();
    symlink("db", parent.path().join("link")).unwrap();
    let other = OsDisk::open(parent.path().join("link"), true).unwrap();
    assert_eq!(other.path("lock"), disk.path("lock"));
    let file = disk.open("lock", OpenMode::CreateNew).unwrap();
    assert!(file.try_lock(FileLock::Exclusive).unwrap());
    let again = other.open("lock", OpenMode::ReadWrite).unwrap();
    assert!(!again.try_lock(FileLock::Exclusive).unwrap());
    fs::hard_link(disk.path("lock"), parent.path().join("hard")).unwrap();
    fs::rename(parent.path().join("hard"), disk.path("hard")).unwrap();
    let hard = other.open("hard", OpenMode::ReadWrite).unwrap();
    assert!(!hard.try_lock(FileLock::Shared).unwrap());
    drop(file);
    assert!(hard.try_lock(FileLock::Exclusive).unwrap());
}

#[test]
fn links_pipes_and_directories_are_no_files() {
    let (parent, disk) = directory();
    fs::write(parent.path().join("secret"), "secret").unwrap();
    symlink("../secret", disk.path("link")).unwrap();
    symlink("nowhere", disk.path("dangling")).unwrap();
    fs::create_dir(disk.path("directory")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        disk.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    disk.open("file", OpenMode::CreateNew).unwrap();
    for mode in MODES {
        for name in ["link", "dangling", "directory", "pipe"] {
            assert!(disk.open(name, mode).is_err(), "{name} as {mode:?}");
        }
        disk.open("file", mode).unwrap();
    }
    for name in ["link", "dangling", "pipe"] {
        let error = disk.open(name, OpenMode::CreateNew).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}");
    }
    assert_eq!(disk.list().unwrap(), ["file"]);
    assert_eq!(fs::read(parent.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn a_moved_directory_takes_its_files_along() {
    let (parent, disk) = directory();
    disk.open("before", OpenMode::CreateNew).unwrap();
    fs::rename(parent.path().join("db"), parent.path().join("moved")).unwrap();
    fs::create_dir(parent.path().join("db")).unwrap();
    disk.open("after", OpenMode::CreateNew).unwrap();
    disk.rename("before", "renamed").unwrap();
    disk.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), ["after", "renamed"]);
    assert!(parent.path().join("moved/after").exists());
    assert_eq!(
        fs::read_dir(parent.path().join("db")).unwrap().count(),
        0,
        "the stranger with the old path stays empty"
    );
}

#[test]
fn names_that_are_no_text_are_not_listed() {
    use std::os::unix::ffi::OsStrExt;
    let (_parent, disk) = directory();
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    fs::write(disk.path("x").with_file_name(name), "").unwrap();
    disk.open("plain", OpenMode::CreateNew).unwrap();
    assert_eq!(disk.list().unwrap(), ["plain"]);
}

/// The flags of every descriptor that this process has for the file.
fn descriptor_flags(path: &Path) -> Vec<OFlags> {
    let inode = fs::metadata(path).unwrap().ino();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        // Other tests close their descriptors meanwhile.
        if !fs::metadata(entry.path()).is_ok_and(|target| target.ino() == inode) {
            continue;
        }
        let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
        let info = fs::read_to_string(info).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        found.push(OFlags::from_bits_retain(flags));
    }
    found
}

#[test]
fn descriptors_close_when_another_program_starts() {
    let (_parent, disk) = directory();
    let _file = disk.open("file", OpenMode::CreateNew).unwrap();
    let _log = disk.open("file", OpenMode::Log).unwrap();
    let flags = descriptor_flags(&disk.path("file"));
    assert_eq!(flags.len(), 2);
    assert!(flags.iter().all(|flags| flags.contains(OFlags::CLOEXEC)));
    assert!(
        !flags.iter().any(|flags| flags.contains(OFlags::NONBLOCK)),
        "asynchronous reads and writes would fail with EAGAIN"
    );
}

/// The write path that is reported is the one that this filesystem was found to have.
#[test]
fn the_write_path_is_found_by_writing() {
    let (_parent, disk) = directory();
    let file = disk.open("log", OpenMode::CreateNew).unwrap();
    file.write_at(0, &vec![0; 65536]).unwrap();
    file.sync().unwrap();
    drop(file);
    let log = disk.open("log", OpenMode::Log).unwrap();
    let mut buffer = AlignedBuf::zeroed(65536);
    buffer.as_mut_bytes().fill(7);
    log.write_durable(0, buffer.as_bytes()).unwrap();
    let direct = descriptor_flags(&disk.path("log"))[0].contains(OFlags::DIRECT);
    assert_eq!(disk.write_path().direct, direct);
    println!("{:?}", disk.write_path());
}

#[test]
fn a_full_device_is_told_as_such() {
    let (_parent, disk) = directory();
    let file = disk.open("file", OpenMode::CreateNew).unwrap();
    let error = file.set_len(1 << 62).unwrap_err();
    assert_eq!(error.op, DiskOp::SetLen);
    assert!(error.is_full(), "{error}");
}

#[test]
fn a_linked_file_has_two_names_and_outlives_either() {
    let (parent, disk) = directory();
    let other = OsDisk::open(parent.path().join("other"), true).unwrap();
    let file = disk.open("run", OpenMode::CreateNew).unwrap();
    file.write_at(0, b"rows").unwrap();
    assert!(other.link_from(&disk, "run").unwrap());
    let links = fs::metadata(parent.path().join("other/run"))
        .unwrap()
        .nlink();
    assert_eq!(links, 2);
    let taken = other.link_from(&disk, "run").unwrap_err();
    assert_eq!(
        (taken.op, taken.kind()),
        (DiskOp::Link, ErrorKind::AlreadyExists)
    );
    let missing = other.link_from(&disk, "nothing").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    disk.remove("run").unwrap();
    assert_eq!(other.open("run", OpenMode::Read).unwrap().len().unwrap(), 4);
}

#[test]
fn directories_of_two_filesystems_share_no_file() {
    let (parent, disk) = directory();
    let elsewhere = Path::new("/dev/shm");
    let Ok(elsewhere) = tempfile::tempdir_in(elsewhere) else {
        return;
    };
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(parent.path()) == device(elsewhere.path()) {
        return;
    }
    let other = OsDisk::open(elsewhere.path().join("db"), true).unwrap();
    disk.open("run", OpenMode::CreateNew).unwrap();
    assert!(!other.link_from(&disk, "run").unwrap());
    assert!(other.list().unwrap().is_empty());
}
