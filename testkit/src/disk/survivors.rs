//! What a power loss, or a kill, leaves: which units of change survive, whole or torn, and the disk that is
//! built from them.
//!
//! Called by `machine`, for every state of a crash enumeration.
//!
//! 1. What was durable is there, whatever the survivors are.
//! 2. Every unit's fate is its own (F2); a rename is one unit, so a name is old or new, never torn (F15).
//! 3. Growth and data of one write are two units: a file may have grown without its bytes, and then
//!    holds zeros, or garbage where the fates are drawn (F4).
//! 4. A torn write keeps any subset of its sectors of 512 bytes, or of 4 KiB; the others are old or
//!    garbage (F3). Bytes outside the write are never touched.
//! 5. A kill loses nothing that was written. Of the log writes in flight each completes, or never began, or
//!    ends at a block.
//! 6. The same seed gives the same disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;

use super::PAGE_BYTES;
use super::call::{Change, FileId, Stage, Unit};
use super::content::Content;
use super::payload::Payload;
use super::state::{Inode, State, change_content, change_names};

/// Which of the units that were not durable a power loss leaves, or which of the log writes in flight a
/// kill. They count from 0 in the order in which they were made; those of the call in flight come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Survivors {
    /// None of them.
    None,
    /// All of them, with the call in flight as if it had just been carried out.
    All,
    /// The first so many.
    Prefix(usize),
    /// All but the one of this number.
    Without(usize),
    /// Any subset, as the seed draws it.
    Random(u64),
    /// Any subset, some of its writes torn; the last write torn in any case.
    Torn {
        /// Draws the subset, the sectors, and what takes the place of lost ones.
        seed: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Kept,
    Torn,
}

impl Survivors {
    /// Every choice that is worth a look when `units` are at stake: none, all, every prefix, each one
    /// missing, and `seeds` random and torn ones each.
    pub fn enumerate(units: usize, seeds: u64) -> Vec<Self> {
        if units == 0 {
            return vec![Self::None];
        }
        let mut all = vec![Self::None, Self::All];
        all.extend((1..units).map(Self::Prefix));
        // Without the last is a prefix; without the only one is none.
        all.extend((0..units - 1).map(Self::Without));
        all.extend((0..seeds).map(Self::Random));
        all.extend((0..seeds).map(|seed| Self::Torn { seed }));
        all
    }

    fn fates(self, units: &[Unit], rng: &mut Rng) -> Vec<Fate> {
        let kept_if = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
        if let Self::Torn { .. } = self {
            return torn_fates(units, rng);
        }
        (0..units.len())
            .map(|i| match self {
                Self::None | Self::Torn { .. } => Fate::Lost,
                Self::All => Fate::Kept,
                Self::Prefix(count) => kept_if(i < count),
                Self::Without(missing) => kept_if(i != missing),
                Self::Random(_) => kept_if(rng.bool()),
            })
            .collect()
    }

    /// The random numbers of this choice; `None` where nothing is drawn.
    fn seed(self) -> Option<u64> {
        match self {
            Self::Random(seed) => Some(seed),
            Self::Torn { seed } => Some(!seed),
            _ => None,
        }
    }
}

fn torn_fates(units: &[Unit], rng: &mut Rng) -> Vec<Fate> {
    let is_data = |unit: &Unit| matches!(unit.change, Change::Data { .. });
    let last = units.iter().rposition(is_data);
    let mut fates = Vec::with_capacity(units.len());
    for (i, unit) in units.iter().enumerate() {
        fates.push(match rng.u8(..3) {
            _ if Some(i) == last => Fate::Torn,
            0 => Fate::Lost,
            1 if is_data(unit) => Fate::Torn,
            _ => Fate::Kept,
        });
    }
    fates
}

/// The disk after a power loss: what is durable in `state`, and what `survivors` leaves of `units`.
pub(super) fn after_power_loss(state: &State, units: &[Unit], survivors: Survivors) -> State {
    let mut rng = Rng::with_seed(survivors.seed().unwrap_or_default());
    let fates = survivors.fates(units, &mut rng);
    let garbage = survivors.seed().is_some() && rng.bool();
    let mut names = state.durable_names.clone();
    let mut contents: BTreeMap<FileId, Content> = BTreeMap::new();
    for (unit, fate) in units.iter().zip(fates) {
        let Some(file) = unit.change.content_of() else {
            if fate == Fate::Kept {
                change_names(Arc::make_mut(&mut names), &unit.change);
            }
            continue;
        };
        let durable = || state.inodes.get(&file).map(|inode| inode.durable.clone());
        let content = contents
            .entry(file)
            .or_insert_with(|| durable().unwrap_or_default());
        match fate {
            Fate::Kept => change_content(content, &unit.change),
            Fate::Torn => tear(content, &unit.change, garbage, &mut rng),
            Fate::Lost if garbage => spoil_growth(state, content, &unit.change, &mut rng),
            Fate::Lost => {}
        }
    }
    rebuild(state, names, contents)
}

/// The state after the process died: the cache lives on, with those of the log writes in flight that
/// survive; what was stranded in it never reaches the device any more.
pub(super) fn after_kill(state: &State, survivors: Survivors) -> State {
    let mut rng = Rng::with_seed(survivors.seed().unwrap_or_default());
    let writes = writes_in_flight(state);
    let fates = survivors.fates(&writes, &mut rng);
    let ends: BTreeMap<u64, u64> = writes
        .iter()
        .zip(fates)
        .filter_map(|(write, fate)| Some((write.number, end_after_kill(write, fate, &mut rng)?)))
        .collect();
    let (mut units, mut changed) = (Vec::new(), BTreeSet::new());
    for unit in &state.units {
        if unit.stage != Stage::Aloft {
            units.push(unit.clone());
            continue;
        }
        let mut unit = unit.clone();
        unit.stage = Stage::Cached;
        match ends.get(&unit.number) {
            None => units.push(unit),
            Some(end) => {
                changed.extend(unit.change.content_of());
                units.extend(unit.before(*end));
            }
        }
    }
    let mut after = state.clone();
    for file in changed {
        if let Some(inode) = after.inodes.get_mut(&file) {
            let of_file = units
                .iter()
                .filter(|it| it.change.content_of() == Some(file));
            inode.forget(of_file.map(|unit| &unit.change));
        }
    }
    units.retain(|unit| unit.stage != Stage::Stranded);
    after.units = units;
    after
}

/// One unit of each log write in flight: its data.
pub(super) fn writes_in_flight(state: &State) -> Vec<Unit> {
    let is_data = |unit: &&Unit| matches!(unit.change, Change::Data { .. });
    let aloft = state.units.iter().filter(|it| it.stage == Stage::Aloft);
    let mut writes: Vec<Unit> = aloft.filter(is_data).cloned().collect();
    writes.dedup_by_key(|unit| unit.number);
    writes
}

/// Where in the file the write ends, if it does not complete: a whole number of blocks is there.
fn end_after_kill(write: &Unit, fate: Fate, rng: &mut Rng) -> Option<u64> {
    let Change::Data {
        offset, payload, ..
    } = &write.change
    else {
        return None;
    };
    match fate {
        Fate::Kept => None,
        Fate::Lost => Some(0),
        Fate::Torn => Some(offset + (rng.usize(..=payload.len() / PAGE_BYTES) * PAGE_BYTES) as u64),
    }
}

fn rebuild(
    state: &State,
    names: Arc<super::state::Names>,
    mut contents: BTreeMap<FileId, Content>,
) -> State {
    let mut inodes = BTreeMap::new();
    for file in names.values() {
        let content = contents.remove(file).or_else(|| {
            let inode = state.inodes.get(file);
            inode.map(|inode| inode.durable.clone())
        });
        let mut content = content.unwrap_or_default();
        // What lies behind the end, as its growth was lost, must not come back when the file grows.
        content.cut(content.len());
        inodes.insert(*file, Inode::settled(content));
    }
    State {
        durable_names: names.clone(),
        names,
        inodes,
        units: Vec::new(),
    }
}

/// Applies any subset of the write's sectors.
fn tear(content: &mut Content, change: &Change, garbage: bool, rng: &mut Rng) {
    let Change::Data {
        offset, payload, ..
    } = change
    else {
        return;
    };
    let sector: u64 = if rng.u8(..4) == 0 { 4096 } else { 512 };
    let end = offset + payload.len() as u64;
    let mut at = *offset;
    while at < end {
        let next = ((at / sector + 1) * sector).min(end);
        match rng.u8(..4) {
            0 | 1 => {
                let range = (at - offset) as usize..(next - offset) as usize;
                content.put(at, &payload.slice(range));
            }
            2 if garbage => content.put(at, &noise((next - at) as usize, rng)),
            _ => {}
        }
        at = next;
    }
}

/// Where a lost write would have made the file longer, its blocks may hold what was on the device
/// before.
fn spoil_growth(state: &State, content: &mut Content, change: &Change, rng: &mut Rng) {
    let Change::Data {
        file,
        offset,
        payload,
    } = change
    else {
        return;
    };
    let durable = state
        .inodes
        .get(file)
        .map_or(0, |inode| inode.durable.len());
    let start = durable.max(*offset);
    let end = offset + payload.len() as u64;
    if start < end && rng.bool() {
        content.put(start, &noise((end - start) as usize, rng));
    }
}

fn noise(len: usize, rng: &mut Rng) -> Payload {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    Payload::Bytes(Bytes::from(bytes))
}
