//! A directory of files in memory, which tests crash, tear, fill and fail.
//!
//! Made by tests; used through [`Disk`] by everything that is tested.
//!
//! 1. Every mutating call is numbered from 1 and recorded: create, rename, remove, set_len, write_at,
//!    write_durable, sync, sync_dir; a write of a log writer is two calls, its start and its end. Opening,
//!    reading, listing, mapping and locking are not counted. A call that is refused before it does anything
//!    (a name that is taken, or missing) is no call.
//! 2. *Moment* `n`, from 0 to [`SimDisk::io_count`], is when call `n` has returned and call `n + 1`, if
//!    there was one, is in flight. So every boundary, and every state within a call, is a crash at
//!    some moment.
//! 3. A crashed disk is a new one: nothing of the old one's handles, locks, faults and recording is
//!    there. The old one lives on, to be crashed elsewhere.
//!
//! What is durable when: `state`. What a power loss leaves: `survivors`.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use lockstone_base::disk::{
    AlignedBuf, Backend, Disk, DiskError, DiskFile, DiskOp, DiskResult, LogWrite, LogWriter,
    OpenMode, WritePath,
};
use parking_lot::Mutex;

use super::call::Action;
use super::content::Content;
use super::machine::{FinishOrder, Machine};
use super::sim_file::SimFile;
use super::sim_writer::SimWriter;
use super::state::State;
use super::survivors::Survivors;

/// A simulated disk.
#[derive(Debug)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    seed: u64,
}

impl SimDisk {
    /// An empty disk. The seed decides what failing writes leave behind.
    pub fn new(seed: u64) -> Arc<Self> {
        Self::holding(State::default(), seed, None)
    }

    fn holding(state: State, seed: u64, capacity: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            machine: Arc::new(Mutex::new(Machine::new(state, seed, capacity))),
            seed,
        })
    }

    /// How many mutating calls there were.
    pub fn io_count(&self) -> u64 {
        self.machine.lock().io_count()
    }

    /// What call `number` was, for messages.
    pub fn describe(&self, number: u64) -> String {
        let machine = self.machine.lock();
        match machine.call(number) {
            Some(call) => format!("{number}: {call}"),
            None => format!("{number}: no call"),
        }
    }

    /// How many units of change are at stake at moment `at`: those of calls up to `at` that are not
    /// durable, and then those of call `at + 1`, in flight.
    ///
    /// A write is one unit, and one more before it if it makes the file longer; `set_len`, `create`,
    /// `rename` and `remove` are one each; syncs are none.
    ///
    /// # Panics
    /// If there were fewer than `at` calls.
    pub fn unsynced(&self, at: u64) -> usize {
        self.machine.lock().unsynced(at)
    }

    /// The disk that a machine finds which lost power at moment `at`: what was durable, and of the
    /// units at stake those that survive. All of it is durable on the new disk.
    ///
    /// # Panics
    /// If there were fewer than `at` calls.
    pub fn after_crash(&self, at: u64, survivors: &Survivors) -> Arc<Self> {
        let mut machine = self.machine.lock();
        let state = machine.after_crash(at, *survivors);
        Self::holding(state, self.seed, machine.capacity)
    }

    /// The disk that a new process finds after the old one was killed at moment `at`, with call `at + 1`
    /// not made: the cache is whole, and what was not durable still is not. What a failed sync stranded
    /// is seen through the cache, and will never be durable (F17). Log writes in flight have completed.
    ///
    /// # Panics
    /// If there were fewer than `at` calls.
    pub fn after_kill(&self, at: u64) -> Arc<Self> {
        self.after_kill_leaving(at, &Survivors::All)
    }

    /// As [`SimDisk::after_kill`]; of the log writes in flight, `survivors` have completed, and the others
    /// never began, or ended at a block where they are torn.
    ///
    /// # Panics
    /// If there were fewer than `at` calls.
    pub fn after_kill_leaving(&self, at: u64, survivors: &Survivors) -> Arc<Self> {
        let mut machine = self.machine.lock();
        let state = machine.after_kill(at, *survivors);
        let after = Self::holding(state, self.seed, machine.capacity);
        after.machine.lock().below_cache = machine.below_cache_at(at);
        after
    }

    /// How many log writes are in flight at moment `at`: begun by a call up to `at`, and not ended.
    ///
    /// # Panics
    /// If there were fewer than `at` calls.
    pub fn in_flight(&self, at: u64) -> usize {
        self.machine.lock().in_flight(at)
    }

    /// Decides which of several log writes in flight ends next.
    pub fn finish_order(&self, order: FinishOrder) {
        self.machine.lock().set_finish_order(order);
    }

    /// Lets mutating call `number` fail. See [`SimDisk::fail_matching`] for what a failure leaves.
    pub fn fail_once(&self, number: u64, kind: ErrorKind) {
        self.machine.lock().faults.at(number, kind);
    }

    /// Lets mutating call `number` and all after it fail.
    pub fn fail_from(&self, number: u64, kind: ErrorKind) {
        self.machine.lock().faults.from(number, kind);
    }

    /// Lets every call of this kind fail on names that begin with `prefix` (`SyncDir` and `List` have
    /// the empty name), counted or not.
    ///
    /// A failed sync strands what it should have made durable: the cache shows it, no later sync
    /// writes it, and a crash may keep it (F8, F9). A failed durable write leaves all of its bytes in
    /// doubt in that way. A failed plain write has written some first bytes. Any other failed call
    /// has done nothing. The start of a log write cannot tell an error: a fault that has its number
    /// strikes at its end, as one of this kind does.
    pub fn fail_matching(&self, op: DiskOp, prefix: &str, kind: ErrorKind) {
        self.machine.lock().faults.matching(op, prefix, kind);
    }

    /// Lets no further call fail.
    pub fn clear_faults(&self) {
        self.machine.lock().faults.clear();
    }

    /// How many calls failed because a test said so.
    pub fn faults_fired(&self) -> u64 {
        self.machine.lock().faults.fired
    }

    /// Gives the disk room for this many bytes, in pages of 4096; `None` for no bound. Pages are taken
    /// when they are first written, holes take none, and removing a file's last name frees its pages
    /// at once. A write that does not fit writes what fits, and fails (F10).
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine.lock().capacity = bytes;
    }

    /// How many bytes, in whole pages, the files take.
    pub fn room_taken(&self) -> u64 {
        self.machine.lock().state.room()
    }

    /// The names there are, sorted.
    pub fn names(&self) -> Vec<String> {
        let machine = self.machine.lock();
        machine
            .state
            .names
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    /// The content of the file, as the cache has it.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn read_file(&self, name: &str) -> Vec<u8> {
        let machine = self.machine.lock();
        let inode = machine
            .file_named(name)
            .and_then(|file| machine.state.inodes.get(&file));
        inode
            .unwrap_or_else(|| panic!("there is no file {name}"))
            .cached
            .to_vec()
    }

    /// Gives the file this content, or makes it, durably; counted as a call.
    pub fn write_file(&self, name: &str, bytes: &[u8]) {
        let mut machine = self.machine.lock();
        let next = machine.state.next_file();
        let file = machine.file_named(name).unwrap_or(next);
        let content = Some(Content::from_bytes(bytes));
        machine.tamper(&Arc::from(name), Action::Tamper { file, content });
    }

    /// Removes the file, durably; counted as a call.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn remove_file(&self, name: &str) {
        let mut machine = self.machine.lock();
        let file = machine.file_named(name);
        let file = file.unwrap_or_else(|| panic!("there is no file {name}"));
        let content = None;
        machine.tamper(&Arc::from(name), Action::Tamper { file, content });
    }

    /// Inverts every bit of one byte of the file, durably (F11).
    ///
    /// # Panics
    /// If the file, or the byte, is not there.
    pub fn flip_byte(&self, name: &str, offset: u64) {
        self.change_file(name, |bytes| {
            let byte = bytes.get_mut(offset as usize);
            let byte = byte.unwrap_or_else(|| panic!("{name} has no byte {offset}"));
            *byte = !*byte;
        });
    }

    /// As [`SimDisk::flip_byte`], but below the page cache, of a file that is written no more: reads see it once the
    /// cache has been asked to forget the place, reads past the cache and the disk after a power loss at once.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn flip_byte_below_cache(&self, name: &str, offset: u64) {
        let mut machine = self.machine.lock();
        let file = machine.file_named(name);
        let file = file.unwrap_or_else(|| panic!("there is no file {name}"));
        machine.flip_below_cache(file, offset);
    }

    /// Cuts the file, durably (F14).
    ///
    /// # Panics
    /// If there is no such file.
    pub fn truncate(&self, name: &str, len: u64) {
        self.change_file(name, |bytes| bytes.truncate(len as usize));
    }

    fn change_file(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read_file(name);
        change(&mut bytes);
        self.write_file(name, &bytes);
    }

    fn error(&self, op: DiskOp, name: &str, kind: ErrorKind) -> DiskError {
        DiskError::new(op, &self.path(name), kind)
    }

    /// Carries out an action on a file that has a name.
    fn perform_on(
        &self,
        op: DiskOp,
        name: &str,
        action: impl FnOnce(u64) -> Action,
    ) -> DiskResult<()> {
        let mut machine = self.machine.lock();
        let file = machine.file_named(name);
        let file = file.ok_or_else(|| self.error(op, name, ErrorKind::NotFound))?;
        let done = machine.perform(op, &Arc::from(name), action(file));
        done.map_err(|kind| self.error(op, name, kind))
    }

    fn create(&self, machine: &mut Machine, name: &Arc<str>) -> DiskResult<u64> {
        let failed = |kind| self.error(DiskOp::Create, name, kind);
        if machine.file_named(name).is_some() {
            return Err(failed(ErrorKind::AlreadyExists));
        }
        let file = machine.state.next_file();
        machine
            .perform(DiskOp::Create, name, Action::Create { file })
            .map_err(failed)?;
        Ok(file)
    }

    fn find(&self, machine: &mut Machine, name: &str) -> DiskResult<u64> {
        let failed = |kind| self.error(DiskOp::Open, name, kind);
        if let Some(kind) = machine.faults.strike(DiskOp::Open, name, None) {
            return Err(failed(kind));
        }
        machine
            .file_named(name)
            .ok_or_else(|| failed(ErrorKind::NotFound))
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        check_name(name);
        let name: Arc<str> = Arc::from(name);
        let mut machine = self.machine.lock();
        let file = match mode {
            OpenMode::CreateNew => self.create(&mut machine, &name)?,
            _ => self.find(&mut machine, &name)?,
        };
        Ok(Arc::new(SimFile {
            machine: self.machine.clone(),
            file,
            handle: machine.new_handle(),
            path: self.path(&name),
            name,
            mode,
        }))
    }

    fn list(&self) -> DiskResult<Vec<String>> {
        if let Some(kind) = self.machine.lock().faults.strike(DiskOp::List, "", None) {
            return Err(self.error(DiskOp::List, "", kind));
        }
        Ok(self.names())
    }

    fn rename(&self, from: &str, to: &str) -> DiskResult<()> {
        check_name(from);
        check_name(to);
        let to = Arc::from(to);
        self.perform_on(DiskOp::Rename, from, |file| Action::Rename { to, file })
    }

    fn remove(&self, name: &str) -> DiskResult<()> {
        check_name(name);
        self.perform_on(DiskOp::Remove, name, |file| Action::Remove { file })
    }

    fn sync_dir(&self) -> DiskResult<()> {
        let mut machine = self.machine.lock();
        let synced = machine.perform(DiskOp::SyncDir, &Arc::from(""), Action::SyncDir);
        synced.map_err(|kind| self.error(DiskOp::SyncDir, "", kind))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }

    fn log_writer(
        &self,
        depth: usize,
        _buffers: &[AlignedBuf],
        probe: LogWrite,
    ) -> DiskResult<Box<dyn LogWriter>> {
        let mut writer = SimWriter::new(self.machine.clone(), depth);
        writer.start(probe);
        writer.finish()?;
        Ok(Box::new(writer))
    }

    fn write_path(&self) -> WritePath {
        WritePath {
            direct: true,
            dsync: true,
            backend: Backend::Blocking,
            refused: None,
        }
    }
}

fn check_name(name: &str) {
    assert!(
        !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']),
        "disk 1: {name:?} is no plain file name"
    );
}
