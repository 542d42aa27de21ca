//! A part of a run that is verified as a whole: at its first use, and again where a scrub has read it anew.
//!
//! Held by `reader`, for index and filter.
//! 1. F11: while it is distrusted it is given only to who has verified it anew.
//! 2. What was verified stays where it is, in the map: references to it outlive a change of trust.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::StorageError;

/// A part of a run.
#[derive(Debug)]
pub(super) struct Part<T> {
    verified: OnceLock<T>,
    distrusted: AtomicBool,
}

impl<T> Part<T> {
    /// A part that nobody has used.
    pub(super) fn new() -> Self {
        Self {
            verified: OnceLock::new(),
            distrusted: AtomicBool::new(false),
        }
    }

    /// The part, if it was verified and is trusted.
    #[inline]
    pub(super) fn trusted(&self) -> Option<&T> {
        // The bytes reached the device before the run was listed: there is nothing to order.
        let part = self.verified.get();
        part.filter(|_| !self.distrusted.load(Ordering::Relaxed))
    }

    /// Whether anybody has used it.
    pub(super) fn is_used(&self) -> bool {
        self.verified.get().is_some()
    }

    /// Whoever uses it next reads and verifies it anew.
    pub(super) fn distrust(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
    }

    /// The part, as it was just found for who uses it. What says nothing of its bytes changes no trust.
    ///
    /// # Errors
    /// What was found.
    pub(super) fn take(&self, found: Result<T, StorageError>) -> Result<&T, StorageError> {
        match found {
            Ok(part) => {
                self.distrusted.store(false, Ordering::Relaxed);
                Ok(self.verified.get_or_init(|| part))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Takes note of why it could not be read.
    pub(super) fn failed(&self, error: StorageError) -> StorageError {
        if error.unread().is_some() {
            self.distrust();
        }
        error
    }
}
