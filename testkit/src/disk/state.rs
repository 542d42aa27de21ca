//! What a simulated disk holds at one moment: what programs see, what is durable, and the units of
//! change between the two.
//!
//! Called by `machine` to carry calls out, and by `survivors` to rebuild the disk after a crash. Both
//! run the same code, so the recording is the truth.
//!
//! 1. What programs see is what is durable with all units on top, in order.
//! 2. A sync moves a file's units into what is durable; a durable write does so, at its end, with its own
//!    bytes and the file's length. Older units never cover what became durable after them.
//! 3. A failed sync strands its units: no later sync takes them (F8), and only a crash decides them.
//!    No sync takes a log write in flight either: the device may not have it yet.
//! 4. Names are made durable by a sync of the directory alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::call::{Action, Call, Change, FileId, Stage, Unit, Write};
use super::content::Content;

pub(super) type Names = BTreeMap<Arc<str>, FileId>;

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) cached: Content,
    pub(super) durable: Content,
    /// Units were stranded, so a sync cannot just take what the cache holds.
    diverged: bool,
}

impl Inode {
    /// A file whose content is durable.
    pub(super) fn settled(content: Content) -> Self {
        Self {
            cached: content.clone(),
            durable: content,
            diverged: false,
        }
    }

    /// Lets programs see what is durable with `changes` on top, and nothing else.
    pub(super) fn forget<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) {
        self.cached = self.durable.clone();
        for change in changes {
            change_content(&mut self.cached, change);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) names: Arc<Names>,
    pub(super) durable_names: Arc<Names>,
    pub(super) inodes: BTreeMap<FileId, Inode>,
    pub(super) units: Vec<Unit>,
}

impl State {
    /// A number that no file has.
    pub(super) fn next_file(&self) -> FileId {
        self.inodes.last_key_value().map_or(1, |(file, _)| file + 1)
    }

    /// The units that `action` makes, were it carried out now.
    pub(super) fn changes(&self, action: &Action, name: &Arc<str>) -> Vec<Change> {
        match action {
            Action::Nothing
            | Action::SyncDir
            | Action::Sync { .. }
            | Action::Finish { .. }
            | Action::Tamper { .. } => Vec::new(),
            Action::Create { file } => vec![Change::Link {
                name: name.clone(),
                file: *file,
            }],
            Action::Rename { to, file } => vec![Change::Move {
                from: name.clone(),
                to: to.clone(),
                file: *file,
            }],
            Action::Remove { file } => vec![Change::Unlink {
                name: name.clone(),
                file: *file,
            }],
            Action::SetLen { file, bytes } => {
                let (file, to, len) = (*file, *bytes, self.len(*file));
                match to.cmp(&len) {
                    std::cmp::Ordering::Less => vec![Change::Cut { file, to }],
                    std::cmp::Ordering::Equal => Vec::new(),
                    std::cmp::Ordering::Greater => vec![Change::Grow { file, to }],
                }
            }
            Action::Write(write) | Action::WriteDurable(write) | Action::Start(write) => {
                self.write_changes(write)
            }
        }
    }

    fn write_changes(&self, write: &Write) -> Vec<Change> {
        let (file, offset) = (write.file, write.offset);
        let payload = write.payload.clone();
        if payload.len() == 0 {
            return Vec::new();
        }
        let to = offset + payload.len() as u64;
        let grow = (to > self.len(file)).then_some(Change::Grow { file, to });
        let data = Change::Data {
            file,
            offset,
            payload,
        };
        grow.into_iter().chain([data]).collect()
    }

    fn len(&self, file: FileId) -> u64 {
        self.inodes.get(&file).map_or(0, |inode| inode.cached.len())
    }

    /// Carries out the call `number`.
    pub(super) fn apply(&mut self, number: u64, call: &Call) {
        match &call.action {
            Action::SyncDir => self.sync_names(call.failed.is_some()),
            Action::Sync { file } => self.sync_file(*file, call.failed.is_some()),
            Action::Tamper { file, content } => self.tamper(*file, &call.name, content.as_ref()),
            Action::Finish { started, write } => {
                self.finish(*started, write.file, call.failed.is_some());
            }
            action => {
                let changes = self.changes(action, &call.name);
                for change in &changes {
                    self.show(change);
                }
                let stage = match action {
                    Action::WriteDurable(_) | Action::Start(_) => Stage::Aloft,
                    _ => Stage::Cached,
                };
                self.note(number, changes, stage);
                if let Action::WriteDurable(write) = action {
                    self.finish(number, write.file, call.failed.is_some());
                }
            }
        }
    }

    /// Lets programs see the change.
    fn show(&mut self, change: &Change) {
        match change {
            Change::Link { name, file } => {
                self.inodes.entry(*file).or_default();
                Arc::make_mut(&mut self.names).insert(name.clone(), *file);
            }
            Change::Move { .. } | Change::Unlink { .. } => {
                change_names(Arc::make_mut(&mut self.names), change);
            }
            Change::Grow { file, .. } | Change::Cut { file, .. } | Change::Data { file, .. } => {
                change_content(&mut self.inodes.entry(*file).or_default().cached, change);
            }
        }
    }

    fn note(&mut self, number: u64, changes: Vec<Change>, stage: Stage) {
        self.units.extend(changes.into_iter().map(|change| Unit {
            number,
            change,
            stage,
        }));
    }

    fn sync_names(&mut self, failed: bool) {
        if failed {
            for unit in &mut self.units {
                if unit.change.content_of().is_none() {
                    unit.stage = Stage::Stranded;
                }
            }
            return;
        }
        let durable = Arc::make_mut(&mut self.durable_names);
        self.units.retain(|unit| {
            let takes = unit.change.content_of().is_none() && unit.stage == Stage::Cached;
            if takes {
                change_names(durable, &unit.change);
            }
            !takes
        });
    }

    fn sync_file(&mut self, file: FileId, failed: bool) {
        let Some(inode) = self.inodes.get_mut(&file) else {
            return;
        };
        let of_file = |unit: &Unit| unit.change.content_of() == Some(file);
        let is_cached = |unit: &Unit| of_file(unit) && unit.stage == Stage::Cached;
        let is_aloft = |unit: &Unit| of_file(unit) && unit.stage == Stage::Aloft;
        if failed {
            for unit in self.units.iter_mut().filter(|unit| is_cached(unit)) {
                unit.stage = Stage::Stranded;
                inode.diverged = true;
            }
        } else if inode.diverged || self.units.iter().any(is_aloft) {
            let taken = self.take_units(is_cached);
            self.settle(&taken);
        } else {
            inode.durable = inode.cached.clone();
            self.units.retain(|unit| !of_file(unit));
        }
    }

    fn take_units(&mut self, mut takes: impl FnMut(&Unit) -> bool) -> Vec<Unit> {
        self.units.extract_if(.., |unit| takes(unit)).collect()
    }

    /// The end of the durable write that call `started` began: its bytes, and everything about its file's
    /// length, are durable; or, if it failed, they are in doubt for good.
    fn finish(&mut self, started: u64, file: FileId, failed: bool) {
        let is_own = |unit: &Unit| unit.number == started && unit.stage == Stage::Aloft;
        if failed {
            for unit in self.units.iter_mut().filter(|unit| is_own(unit)) {
                unit.stage = Stage::Stranded;
                if let Some(inode) = self.inodes.get_mut(&file) {
                    inode.diverged = true;
                }
            }
            return;
        }
        if !self.units.iter().any(is_own) {
            // Nothing of it is left to decide: later changes have covered all of it.
            return;
        }
        let taken = self.take_units(|unit| {
            let is_length = unit.change.content_of() == Some(file)
                && unit.stage == Stage::Cached
                && !matches!(unit.change, Change::Data { .. });
            is_own(unit) || is_length
        });
        self.settle(&taken);
    }

    /// Makes units durable that were taken from the list, and takes back what older ones, still in the
    /// list, say about the same bytes.
    fn settle(&mut self, taken: &[Unit]) {
        for unit in taken {
            let Some(file) = unit.change.content_of() else {
                continue;
            };
            let Some(inode) = self.inodes.get_mut(&file) else {
                continue;
            };
            change_content(&mut inode.durable, &unit.change);
            let (from, to) = match &unit.change {
                Change::Data {
                    offset, payload, ..
                } => (*offset, offset + payload.len() as u64),
                Change::Cut { to, .. } => (*to, u64::MAX),
                _ => continue,
            };
            self.take_back(file, unit.number, from, to);
        }
        // A durable write lies within the file, whatever became of the growth that made room for it.
        let end = taken.iter().filter_map(|unit| match &unit.change {
            Change::Data {
                file,
                offset,
                payload,
            } => Some((*file, offset + payload.len() as u64)),
            _ => None,
        });
        for (file, end) in end {
            if let Some(inode) = self.inodes.get_mut(&file) {
                inode.durable.grow(end.min(inode.cached.len()));
            }
        }
    }

    /// Removes the bytes `from..to` of `file` from the units of calls before `number`.
    fn take_back(&mut self, file: FileId, number: u64, from: u64, to: u64) {
        let overlaps = |unit: &Unit| match &unit.change {
            Change::Data {
                file: of,
                offset,
                payload,
            } => {
                *of == file
                    && unit.number < number
                    && *offset < to
                    && from < offset + payload.len() as u64
            }
            _ => false,
        };
        if !self.units.iter().any(overlaps) {
            return;
        }
        let units = std::mem::take(&mut self.units);
        for unit in units {
            if overlaps(&unit) {
                self.units.extend(outside(unit, from, to));
            } else {
                self.units.push(unit);
            }
        }
    }

    fn tamper(&mut self, file: FileId, name: &Arc<str>, content: Option<&Content>) {
        self.units.retain(|unit| {
            unit.change.content_of() != Some(file)
                && !matches!(&unit.change,
                    Change::Link { name: of, .. } | Change::Unlink { name: of, .. } if of == name)
        });
        for names in [&mut self.names, &mut self.durable_names] {
            let names = Arc::make_mut(names);
            match content {
                Some(_) => names.insert(name.clone(), file),
                None => names.remove(name),
            };
        }
        if let Some(content) = content {
            self.inodes.insert(file, Inode::settled(content.clone()));
        }
    }

    /// What the device itself would give to a read past the cache: everything but what a failed sync
    /// left behind in the cache.
    pub(super) fn beyond_cache(&self, file: FileId) -> Content {
        let Some(inode) = self.inodes.get(&file) else {
            return Content::default();
        };
        if !inode.diverged {
            return inode.cached.clone();
        }
        let mut content = inode.durable.clone();
        for unit in &self.units {
            if unit.change.content_of() == Some(file) && unit.stage != Stage::Stranded {
                change_content(&mut content, &unit.change);
            }
        }
        // The length is the kernel's own and never stale.
        content.cut(inode.cached.len());
        content.grow(inode.cached.len());
        content
    }

    /// How much room the files that have names take.
    pub(super) fn room(&self) -> u64 {
        let named = self.names.values();
        named
            .filter_map(|file| self.inodes.get(file))
            .map(|inode| inode.cached.room())
            .sum()
    }
}

/// What is left of a unit of data without the bytes `from..to`.
fn outside(unit: Unit, from: u64, to: u64) -> Vec<Unit> {
    let Change::Data {
        file,
        offset,
        payload,
    } = &unit.change
    else {
        return vec![unit];
    };
    let len = payload.len();
    let before = 0..(from.saturating_sub(*offset) as usize).min(len);
    let behind = (to.saturating_sub(*offset)).min(len as u64) as usize..len;
    [before, behind]
        .into_iter()
        .filter(|range| !range.is_empty())
        .map(|range| Unit {
            change: Change::Data {
                file: *file,
                offset: offset + range.start as u64,
                payload: payload.slice(range),
            },
            ..unit.clone()
        })
        .collect()
}

pub(super) fn change_content(content: &mut Content, change: &Change) {
    match change {
        Change::Grow { to, .. } => content.grow(*to),
        Change::Cut { to, .. } => content.cut(*to),
        Change::Data {
            offset, payload, ..
        } => content.put(*offset, payload),
        Change::Link { .. } | Change::Move { .. } | Change::Unlink { .. } => {}
    }
}

pub(super) fn change_names(names: &mut Names, change: &Change) {
    match change {
        Change::Link { name, file } => {
            names.insert(name.clone(), *file);
        }
        Change::Move { from, to, file } => {
            if names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(to.clone(), *file);
        }
        Change::Unlink { name, file } => {
            if names.get(name) == Some(file) {
                names.remove(name);
            }
        }
        Change::Grow { .. } | Change::Cut { .. } | Change::Data { .. } => {}
    }
}
