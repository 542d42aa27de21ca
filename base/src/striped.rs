//! Copies of one thing, apart in memory, so that threads which change it often do not wait for each other's
//! cache lines.
//!
//! 1. A thread always gets the same copy; two threads may share one, so each copy must bear that.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Enough that a machine's cores seldom meet; few enough that looking at all stays cheap.
const STRIPES: usize = 16;

/// Something on cache lines of its own: neighbours are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Apart<T>(pub T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

/// A copy for each of some groups of threads.
#[derive(Debug)]
pub struct Striped<T>(Box<[Apart<T>]>);

impl<T: Default> Default for Striped<T> {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| Apart::default()).collect())
    }
}

impl<T> Striped<T> {
    /// The number of the calling thread's copy.
    pub fn own_number() -> usize {
        // A thread that is ending, and has lost its number, takes the first.
        NUMBER.try_with(|number| *number).unwrap_or(0)
    }

    /// The calling thread's copy.
    pub fn own(&self) -> &T {
        self.at(Self::own_number())
    }

    /// The copy with this number.
    ///
    /// # Panics
    /// If [`Striped::own_number`] never gave it.
    pub fn at(&self, number: usize) -> &T {
        self.0.get(number).expect("numbers are below the stripes'")
    }

    /// All copies.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|copy| &copy.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_all_threads_counted_is_in_all_copies_together() {
        let counts = Striped::<AtomicU64>::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        counts.own().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let all: u64 = counts
            .all()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        assert_eq!(all, 4000);
        assert_eq!(Striped::<u8>::own_number(), Striped::<u64>::own_number());
    }
}
