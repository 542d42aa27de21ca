//! The entropy port: where random numbers come from, so that one seed can drive a whole simulation.

use std::fmt::Debug;

/// A source of random numbers.
pub trait Entropy: Debug + Send + Sync {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// The kernel's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // Every kernel that this engine runs on has the call, and it blocks only during early boot.
                Err(error) => unreachable!("getrandom failed: {error}"),
            }
        }
        u64::from_ne_bytes(bytes)
    }
}
