//! One version in memory, and the links between the versions of a row.
//!
//! Called by `singles` and `order`; made by `prepared`, before the append latch.
//!
//! ```text
//! index ──► root (the row's first version here) ──newest──► version ──older──► … ──older──► root
//! ```
//!
//! 1. Row and value share one piece of memory, made before the append latch; large ones keep their own.
//! 2. Along the links `older` and `jump` stamps only fall. Every sixteenth version of a row is an anchor;
//!    anchors jump to each other as in Myers, "An applicative random-access stack" (1983), and the
//!    versions between jump to the anchor before them: a version at or below an LSN is found in
//!    logarithmic time, however often the row was written, and linking one seldom looks at others.
//! 3. With the word of its slot, an entry fills one cache line.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use lockstone_base::Lsn;

use crate::version::{Version, VersionRef};

/// How many versions of a row lie between two anchors.
const ANCHOR_DISTANCE: u32 = 16;

const _: () = assert!(size_of::<std::sync::OnceLock<Entry>>() == 64);

/// A version and its links.
#[derive(Debug)]
pub(super) struct Entry {
    content: Content,
    stamp: Lsn,
    /// The version before it. A root: itself.
    older: u32,
    /// The version that it jumps to. A root: the row's newest version.
    link: AtomicU32,
    /// How many versions of the row stand before it.
    depth: u32,
    row_bytes: u16,
    deleted: bool,
}

/// A row and its value.
#[derive(Debug)]
pub(super) enum Content {
    /// The row, the value behind it.
    Packed(Bytes),
    Apart(Box<(Bytes, Bytes)>),
}

impl Entry {
    /// A version that is not yet linked; its row has `row_bytes` bytes.
    pub(super) fn new(content: Content, row_bytes: usize, deleted: bool) -> Self {
        Self {
            content,
            stamp: Lsn::ZERO,
            older: 0,
            link: AtomicU32::new(0),
            depth: 0,
            row_bytes: row_bytes as u16,
            deleted,
        }
    }

    /// Makes it the first version of its row, under `number`.
    pub(super) fn into_root(mut self, stamp: Lsn, number: u32) -> Self {
        self.stamp = stamp;
        self.older = number;
        *self.link.get_mut() = number;
        self
    }

    /// Makes it the version after `before`, whose number is `older`, with a jump to `jump`.
    pub(super) fn into_newer(mut self, stamp: Lsn, before: &Self, links: (u32, u32)) -> Self {
        assert!(before.stamp < stamp, "W2: a row's stamps only grow");
        let (older, jump) = links;
        self.stamp = stamp;
        self.older = older;
        *self.link.get_mut() = jump;
        self.depth = before.depth + 1;
        self
    }

    /// The encoded row.
    pub(super) fn row(&self) -> &[u8] {
        match &self.content {
            Content::Packed(bytes) => bytes.get(..self.row_bytes.into()).unwrap_or_default(),
            Content::Apart(both) => &both.0,
        }
    }

    /// The encoded row, sharing the entry's memory.
    pub(super) fn row_shared(&self) -> Bytes {
        match &self.content {
            Content::Packed(bytes) => bytes.slice(..usize::from(self.row_bytes)),
            Content::Apart(both) => both.0.clone(),
        }
    }

    /// The version, where it lies.
    pub(super) fn version_ref(&self) -> VersionRef<'_> {
        let value = match &self.content {
            Content::Packed(bytes) => bytes.get(self.row_bytes.into()..).unwrap_or_default(),
            Content::Apart(both) => &both.1,
        };
        VersionRef {
            row: self.row(),
            stamp: self.stamp,
            value: (!self.deleted).then_some(value),
        }
    }

    /// The version, its value sharing the entry's memory.
    pub(super) fn version(&self) -> Version {
        let value = || match &self.content {
            Content::Packed(bytes) => bytes.slice(usize::from(self.row_bytes)..),
            Content::Apart(both) => both.1.clone(),
        };
        Version {
            stamp: self.stamp,
            value: (!self.deleted).then(value),
        }
    }

    pub(super) fn stamp(&self) -> Lsn {
        self.stamp
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether it is the first version of its row.
    pub(super) fn is_root(&self) -> bool {
        self.depth == 0
    }

    /// Whether anchors jump to it. A root is one.
    pub(super) fn is_anchor(&self) -> bool {
        self.depth.is_multiple_of(ANCHOR_DISTANCE)
    }

    /// Whether the version after it is an anchor.
    pub(super) fn is_before_anchor(&self) -> bool {
        (self.depth + 1).is_multiple_of(ANCHOR_DISTANCE)
    }

    pub(super) fn older(&self) -> u32 {
        self.older
    }

    /// The version that it jumps to.
    pub(super) fn jump(&self) -> u32 {
        if self.is_root() {
            self.older
        } else {
            self.link.load(Ordering::Relaxed)
        }
    }

    /// Of a root: the row's newest version. Whoever learns it finds it.
    pub(super) fn newest(&self) -> u32 {
        self.link.load(Ordering::Acquire)
    }

    /// Of a root: sets the row's newest version. One writer at a time.
    pub(super) fn set_newest(&self, number: u32) {
        self.link.store(number, Ordering::Release);
    }
}
