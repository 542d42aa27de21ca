//! What a store must do to be compared, and the stores. To add one: a file here, a feature, a line in `open`.
//!
//! Each store does each thing the fastest way that its interface has: borrowed values where it lends them, one read
//! transaction for a batch, its own bulk insertion. Nobody compresses. Caches are as large as the data.

mod lockstone;

#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "surrealkv")]
mod surrealkv;

use std::error::Error;
use std::path::Path;

use crate::rows::{Key, Value};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A store that is open.
pub trait Store: Sync {
    /// One thread's way to it.
    fn session(&self) -> Result<Box<dyn Session + '_>>;
    /// Moves to its place what the store would move there soon, and waits for that.
    fn settle(&self) -> Result<()>;
    fn close(self: Box<Self>) -> Result<()>;
}

/// What one thread asks of a store.
pub trait Session {
    /// Inserts the rows in one transaction.
    fn insert(&mut self, rows: &[(Key, Value)]) -> Result<()>;
    /// Reads the rows as of one moment; how many there are.
    fn get(&mut self, keys: &[Key]) -> Result<u64>;
    /// Walks all rows in order; how many there are, and their bytes.
    fn scan(&mut self) -> Result<(u64, u64)>;
    /// Reads one row for update, writes it, commits. False: a conflict, nothing was written.
    fn update(&mut self, key: &Key, value: &Value) -> Result<bool>;
}

/// How a store is opened.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub directory: &'a Path,
    /// Whether a commit is on the device when it returns.
    pub sync: bool,
    /// For stores that have a cache of their own.
    pub cache_bytes: u64,
}

/// The names of all stores that were built in.
pub const NAMES: &[&str] = &[
    "lockstone",
    #[cfg(feature = "lmdb")]
    "lmdb",
    #[cfg(feature = "redb")]
    "redb",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "fjall")]
    "fjall",
    #[cfg(feature = "surrealkv")]
    "surrealkv",
];

/// Opens the store called `name`, which it creates if there is none.
pub fn open(name: &str, setting: Setting<'_>) -> Result<Box<dyn Store>> {
    match name {
        "lockstone" => lockstone::open(setting),
        #[cfg(feature = "lmdb")]
        "lmdb" => lmdb::open(setting),
        #[cfg(feature = "redb")]
        "redb" => redb::open(setting),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => rocksdb::open(setting),
        #[cfg(feature = "fjall")]
        "fjall" => fjall::open(setting),
        #[cfg(feature = "surrealkv")]
        "surrealkv" => surrealkv::open(setting),
        _ => Err(format!("no store is called {name:?}; built in are {NAMES:?}").into()),
    }
}
