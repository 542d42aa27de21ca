//! Real files through blocking system calls.

/// A directory of real files.
#[derive(Debug)]
pub struct BlockingDisk;
