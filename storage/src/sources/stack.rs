//! What lies between the memtable that takes commits and the tree, newest first: sealed memtables, and runs that commits
//! have adopted.
//!
//! Part of a list of sources; grown by rotations and adoptions, cut off at its old end by the flush.
//! 1. W5: of a row, what a layer has is newer than what the layers below it have.
//! 2. W2: a layer for which a place was made comes on top without an allocation, however many there are: the layers below
//!    are shared with the stacks that came before.
//! 3. A layer never changes once it is in a stack.

use std::iter::successors;
use std::sync::Arc;

use lockstone_base::Lsn;

use crate::error::StorageError;
use crate::memtable::Memtable;
use crate::question::Question;
use crate::tree::Group;
use crate::version::Version;

/// Layers, the newest one first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stack {
    top: Option<Arc<Node>>,
}

#[derive(Debug)]
struct Node {
    layer: Layer,
    below: Stack,
}

/// A source that takes no commits and is not in the tree.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    /// A sealed memtable.
    Memtable(Arc<Memtable>),
    /// What one commit has adopted.
    Adopted(Arc<Group>),
    /// What the reader itself has spilled: it sees that whatever it reads at.
    Own(Arc<Group>),
}

/// The place of a layer, in no stack yet.
#[derive(Debug)]
pub(crate) struct Place(Arc<Node>);

impl Place {
    /// A place for `layer`.
    pub(crate) fn new(layer: Layer) -> Self {
        let below = Stack::default();
        Self(Arc::new(Node { layer, below }))
    }

    /// The same place, of another layer. Allocates nothing.
    pub(crate) fn with(mut self, layer: Layer) -> Self {
        self.node().layer = layer;
        self
    }

    fn node(&mut self) -> &mut Node {
        Arc::get_mut(&mut self.0).expect("a place that is in no stack has one owner")
    }
}

impl Stack {
    /// Puts a layer on top. Allocates nothing, and frees nothing.
    pub(crate) fn put(&mut self, mut place: Place) {
        place.node().below.top = self.top.take();
        self.top = Some(place.0);
    }

    /// The layers, the newest one first.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        let nodes = successors(self.top.as_deref(), |node| node.below.top.as_deref());
        nodes.map(|node| &node.layer)
    }

    /// The newest layers, so many of them.
    pub(crate) fn newest(&self, count: usize) -> Self {
        let layers: Vec<_> = self.layers().take(count).cloned().collect();
        layers.into_iter().rev().collect()
    }
}

/// Of layers that come oldest first.
impl FromIterator<Layer> for Stack {
    fn from_iter<L: IntoIterator<Item = Layer>>(layers: L) -> Self {
        let mut stack = Self::default();
        for layer in layers {
            stack.put(Place::new(layer));
        }
        stack
    }
}

/// One by one: a stack may be deeper than a thread's stack is.
impl Drop for Node {
    fn drop(&mut self) {
        let mut below = self.below.top.take();
        while let Some(mut node) = below.and_then(Arc::into_inner) {
            below = node.below.top.take();
        }
    }
}

impl Layer {
    /// Whether it is this memtable.
    pub(crate) fn is(&self, memtable: &Arc<Memtable>) -> bool {
        matches!(self, Self::Memtable(this) if Arc::ptr_eq(this, memtable))
    }

    /// The newest stamp in it, or one below which it has none.
    pub(crate) fn newest(&self) -> Lsn {
        match self {
            Self::Memtable(memtable) => memtable.newest(),
            Self::Adopted(group) | Self::Own(group) => group.stamp(),
        }
    }

    /// As [`Sources::get`](super::Sources::get), of a row that has this hash.
    pub(crate) fn get(
        &self,
        row: &[u8],
        hash: u64,
        at: Lsn,
    ) -> Result<Option<Version>, StorageError> {
        match self {
            Self::Memtable(memtable) => Ok(memtable.get(row, hash, at)),
            Self::Adopted(group) => group.tree().get(row, hash, at),
            Self::Own(group) => group.tree().get(row, hash, Lsn::MAX),
        }
    }

    /// Answers those of the questions, which are sorted by row, that it can.
    pub(crate) fn get_many(&self, questions: &mut [Question<'_>], at: Lsn) {
        match self {
            Self::Memtable(memtable) => memtable.get_many(questions, at),
            Self::Adopted(group) => group.tree().get_many(questions, at),
            Self::Own(group) => group.tree().get_many(questions, Lsn::MAX),
        }
    }
}
