//! Every bound of the engine that two crates share, each with its reason.

/// The unit of log writes, alignment and torn-write reasoning, in bytes. Devices and filesystems
/// that take `O_DIRECT` accept it everywhere.
pub const BLOCK_BYTES: usize = 4096;

/// The longest key, in bytes. A block index entry and a lock table entry each hold a whole key, so a
/// key must stay small beside a block.
pub const KEY_BYTES_MAX: usize = 4096;

/// The longest value, in bytes. It must fit the memory budget a few times over.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// The longest table name, in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 255;

/// How many tables a database may have: every manifest lists them all, and must stay small enough to be
/// written at each checkpoint.
pub const TABLES_MAX: usize = 100_000;

/// How long dropping a table waits for the transactions that use it, in milliseconds: long enough for any that
/// works, and an end for one that was forgotten, be it the caller's own.
pub const TABLE_DRAIN_MS_MAX: u64 = 10_000;

/// The longest label of a transaction, in bytes: it is written to the log.
pub const LABEL_BYTES_MAX: usize = 255;

/// The longest name that a prepared transaction is known by, in bytes: it is written to the log.
pub const GID_BYTES_MAX: usize = 255;

/// How many rows and ranges a serializable transaction remembers that it has read, unless the options say otherwise:
/// past that it remembers whole tables. Half a megabyte with short keys, and a look at each when it commits.
pub const OPTIMISTIC_LOCKS_MAX: usize = 10_000;

/// How long a `Buffered` commit may stay off the device, in milliseconds.
pub const BUFFERED_MS_MAX: u64 = 100;

/// The log writes an empty frame when it has been idle this long, in milliseconds, so that the last
/// acknowledged frame is covered by a later header (G7).
pub const LOG_IDLE_MS: u64 = 50;

/// How long an opener waits for the locks of a process that is dead, in milliseconds: the kernel gives them back when it has
/// torn the process down, within milliseconds on an idle machine, and on a loaded one when its turn comes (F17).
pub const UNLOCK_MS_MAX: u64 = 30_000;
