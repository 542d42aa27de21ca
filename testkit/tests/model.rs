//! Random use of the simulated disk against a naive model of what is seen and what is durable, crashed
//! at every moment.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use lockstone_base::disk::{AlignedBuf, Disk, OpenMode};
use lockstone_testkit::{SimDisk, Survivors};

const BLOCK: usize = 4096;
const CALLS: u64 = 150;

/// One file: what programs see, what is durable, and which bytes changed since, or lie behind the
/// durable end.
#[derive(Clone, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    at_stake: Vec<bool>,
    length_at_stake: bool,
    /// The shortest that it was since its length was last durable.
    shortest: usize,
}

impl File {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.length_at_stake |= end > self.seen.len();
        self.seen.resize(self.seen.len().max(end), 0);
        self.at_stake.resize(self.at_stake.len().max(end), false);
        self.seen[at..end].copy_from_slice(bytes);
        self.at_stake[at..end].fill(true);
    }

    fn set_len(&mut self, to: usize) {
        self.length_at_stake |= to != self.seen.len();
        // Bytes that a cut zeroes differ from the durable ones until it is durable.
        let from = to.min(self.seen.len());
        self.at_stake.resize(self.at_stake.len().max(to), false);
        self.at_stake[from..].fill(true);
        self.seen.resize(to, 0);
        self.shortest = self.shortest.min(to);
    }

    fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.at_stake = vec![false; self.seen.len()];
        self.length_at_stake = false;
        self.shortest = self.seen.len();
    }

    /// Within the length; takes the length along.
    fn write_durable(&mut self, at: usize, bytes: &[u8]) {
        self.write(at, bytes);
        let before = self.durable.len();
        self.durable.truncate(self.shortest);
        self.shortest = self.seen.len();
        self.durable.resize(self.seen.len(), 0);
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
        self.at_stake[at..at + bytes.len()].fill(false);
        // What a durable cut took away is settled, as far as it was not written again.
        self.at_stake.truncate(self.seen.len().max(before));
        self.length_at_stake = false;
    }
}

#[derive(Clone, Default)]
struct Model {
    files: BTreeMap<usize, File>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    names_at_stake: bool,
}

impl Model {
    fn named(&mut self, name: &str) -> &mut File {
        self.files.get_mut(&self.names[name]).unwrap()
    }
}

/// One random call, on both.
fn step(rng: &mut Rng, disk: &SimDisk, model: &mut Model) {
    let names: Vec<String> = model.names.keys().cloned().collect();
    let fresh = format!("file-{}", rng.u8(..5));
    let Some(name) = rng.choice(&names).cloned() else {
        return create(disk, model, fresh);
    };
    let file = disk.open(&name, OpenMode::ReadWrite).unwrap();
    let log = disk.open(&name, OpenMode::Log).unwrap();
    let bytes = vec![rng.u8(1..); rng.usize(1..6000)];
    let at = rng.usize(..12_000);
    let whole = model.named(&name).seen.len() / BLOCK;
    match rng.u8(..14) {
        0 if !model.names.contains_key(&fresh) => create(disk, model, fresh),
        1 => {
            disk.rename(&name, &fresh).unwrap();
            let id = model.names.remove(&name).unwrap();
            model.names_at_stake = true;
            model.names.insert(fresh, id);
        }
        2 if names.len() > 2 => {
            disk.remove(&name).unwrap();
            model.names.remove(&name);
            model.names_at_stake = true;
        }
        3 | 4 => {
            disk.sync_dir().unwrap();
            model.durable_names = model.names.clone();
            model.names_at_stake = false;
        }
        5 => {
            file.set_len(at as u64).unwrap();
            model.named(&name).set_len(at);
        }
        6 | 7 => {
            file.sync().unwrap();
            model.named(&name).sync();
        }
        8 | 9 if whole > 0 => {
            let count = rng.usize(1..=whole);
            let start = rng.usize(..=whole - count);
            let mut buffer = AlignedBuf::zeroed(count * BLOCK);
            buffer.as_mut_bytes().fill(bytes[0]);
            log.write_durable((start * BLOCK) as u64, buffer.as_bytes())
                .unwrap();
            model
                .named(&name)
                .write_durable(start * BLOCK, buffer.as_bytes());
        }
        _ => {
            file.write_at(at as u64, &bytes).unwrap();
            model.named(&name).write(at, &bytes);
        }
    }
}

fn create(disk: &SimDisk, model: &mut Model, name: String) {
    disk.open(&name, OpenMode::CreateNew).unwrap();
    let id = model.files.len();
    model.files.insert(id, File::default());
    model.names.insert(name, id);
    model.names_at_stake = true;
}

fn assert_holds(
    disk: &SimDisk,
    names: &BTreeMap<String, usize>,
    content: impl Fn(usize) -> Vec<u8>,
    context: &str,
) {
    assert_eq!(
        disk.names(),
        names.keys().cloned().collect::<Vec<_>>(),
        "{context}"
    );
    for (name, id) in names {
        assert!(
            disk.read_file(name) == content(*id),
            "{context}: {name} differs"
        );
    }
}

/// What the model says of moment `at` must hold for every choice of survivors.
fn check_moment(disk: &SimDisk, at: u64, model: &Model, last: bool) {
    let context = format!("moment {at}, after {}", disk.describe(at));
    let lost = disk.after_crash(at, &Survivors::None);
    assert_holds(
        &lost,
        &model.durable_names,
        |id| model.files[&id].durable.clone(),
        &context,
    );
    let killed = disk.after_kill(at);
    assert_holds(
        &killed,
        &model.names,
        |id| model.files[&id].seen.clone(),
        &context,
    );
    if last {
        let kept = disk.after_crash(at, &Survivors::All);
        assert_holds(
            &kept,
            &model.names,
            |id| model.files[&id].seen.clone(),
            &context,
        );
    } else {
        return;
    }
    for survivors in Survivors::enumerate(disk.unsynced(at), 6) {
        let after = disk.after_crash(at, &survivors);
        for (name, id) in &model.names {
            let file = &model.files[id];
            if !model.names_at_stake {
                check_safe_bytes(
                    &after.read_file(name),
                    file,
                    &format!("{context}, {survivors:?}"),
                );
            }
        }
    }
}

/// Bytes that nothing unsynced touched are what they were.
fn check_safe_bytes(bytes: &[u8], file: &File, context: &str) {
    if !file.length_at_stake {
        assert_eq!(bytes.len(), file.durable.len(), "{context}");
        for (i, byte) in bytes.iter().enumerate() {
            assert!(
                file.at_stake[i] || *byte == file.durable[i],
                "{context}: byte {i}"
            );
        }
    }
}

#[test]
fn every_moment_of_random_use_is_as_the_model_says() {
    let mut moments = 0;
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let disk = SimDisk::new(seed);
        let mut model = Model::default();
        let mut history = vec![model.clone()];
        while disk.io_count() < CALLS {
            step(&mut rng, &disk, &mut model);
            if disk.io_count() as usize == history.len() {
                history.push(model.clone());
                check_moment(&disk, disk.io_count(), &model, true);
            }
        }
        // And later, from the recording: forward, then in any order.
        for at in 0..=CALLS {
            check_moment(&disk, at, &history[at as usize], false);
        }
        for _ in 0..CALLS {
            let at = rng.u64(..=CALLS);
            check_moment(&disk, at, &history[at as usize], false);
            moments += 1;
        }
    }
    assert_eq!(moments, 12 * CALLS);
}

/// A moment within a recording is the same as the end of a recording that stops there.
#[test]
fn the_past_is_rebuilt_as_it_was() {
    let run = |calls: u64| -> Arc<SimDisk> {
        let mut rng = Rng::with_seed(7);
        let disk = SimDisk::new(7);
        let mut model = Model::default();
        while disk.io_count() < calls {
            step(&mut rng, &disk, &mut model);
        }
        disk
    };
    let whole = run(CALLS);
    for at in (0..CALLS).step_by(7) {
        let short = run(at);
        let units = short.unsynced(at);
        assert!(whole.unsynced(at) >= units, "the call in flight comes last");
        for count in 0..=units {
            let survivors = Survivors::Prefix(count);
            let (a, b) = (
                whole.after_crash(at, &survivors),
                short.after_crash(at, &survivors),
            );
            assert_eq!(a.names(), b.names(), "moment {at}, {survivors:?}");
            for name in a.names() {
                assert!(a.read_file(&name) == b.read_file(&name));
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let mut rng = Rng::with_seed(3);
    let disk = SimDisk::new(3);
    let mut model = Model::default();
    while disk.io_count() < CALLS {
        step(&mut rng, &disk, &mut model);
    }
    let mut differing = 0;
    for at in 0..=CALLS {
        for seed in 0..4 {
            for survivors in [Survivors::Random(seed), Survivors::Torn { seed }] {
                let image = || {
                    let after = disk.after_crash(at, &survivors);
                    let names = after.names();
                    let contents: Vec<_> = names.iter().map(|name| after.read_file(name)).collect();
                    (names, contents)
                };
                assert!(image() == image(), "moment {at}, {survivors:?}");
                let none = disk.after_crash(at, &Survivors::None);
                differing += usize::from(image().0 != none.names());
            }
        }
    }
    assert!(differing > 0);
}
