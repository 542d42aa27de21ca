//! Tests of what the filesystem demands of transfers past the cache, and of what is said before it was asked.

use tempfile::TempDir;

use super::*;

#[test]
fn only_blocks_that_fit_go_past_the_cache() {
    for (memory, offset, fits) in [
        (4, 512, true),
        (512, 512, true),
        (4096, 4096, true),
        (1, 1, true),
        (4096, 8192, false),
        (8192, 512, false),
        (65536, 65536, false),
        (0, 512, false),
        (512, 0, false),
        (0, 0, false),
    ] {
        assert_eq!(fits_blocks(memory, offset), fits, "{memory}, {offset}");
    }
}

#[test]
fn before_a_writer_was_made_the_wish_is_told() {
    let directory = TempDir::new().unwrap();
    for (io, backend) in [
        (IoMode::Auto, Backend::Uring),
        (IoMode::Uring, Backend::Uring),
        (IoMode::Blocking, Backend::Blocking),
    ] {
        let disk = OsDisk::open(directory.path(), false).unwrap().with_io(io);
        let told = disk.write_path();
        assert_eq!((told.backend, told.refused), (backend, None), "{io:?}");
    }
}
