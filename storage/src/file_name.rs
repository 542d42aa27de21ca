//! The names of the store's files.
//!
//! Used by runs, manifests and the sweep after open.
//! 1. `run-`, `spill-` or `manifest-`, then 16 lower-case hexadecimal digits: names sort as their numbers do.
//! 2. A file under a temporary name (`.tmp`) was never finished; nothing refers to it.

const RUN: &str = "run-";
const SPILL: &str = "spill-";
const MANIFEST: &str = "manifest-";
/// What the names of unfinished files end with.
pub(crate) const TEMPORARY: &str = ".tmp";
const DIGITS: usize = 16;

/// The name of the run `number`.
pub(crate) fn run(number: u64) -> String {
    format!("{RUN}{number:0DIGITS$x}")
}

/// The name of the run `number` while it is provisional, and when it was adopted.
pub(crate) fn spill(number: u64) -> String {
    format!("{SPILL}{number:0DIGITS$x}")
}

/// The name of the manifest `generation`.
pub(crate) fn manifest(generation: u64) -> String {
    format!("{MANIFEST}{generation:0DIGITS$x}")
}

/// The number of the run called `name`, if it is one.
pub(crate) fn run_number(name: &str) -> Option<u64> {
    number(name.strip_prefix(RUN)?)
}

/// The number of the spill called `name`, if it is one.
pub(crate) fn spill_number(name: &str) -> Option<u64> {
    number(name.strip_prefix(SPILL)?)
}

/// The generation of the manifest called `name`, if it is one.
pub(crate) fn manifest_generation(name: &str) -> Option<u64> {
    number(name.strip_prefix(MANIFEST)?)
}

fn number(digits: &str) -> Option<u64> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != DIGITS || !digits.bytes().all(plain) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for n in [0, 1, 0xabc, u64::MAX] {
            assert_eq!(run_number(&run(n)), Some(n));
            assert_eq!(spill_number(&spill(n)), Some(n));
            assert_eq!(manifest_generation(&manifest(n)), Some(n));
        }
    }

    #[test]
    fn strange_names_are_nobodys() {
        for name in [
            "run-",
            "run-1",
            "run-000000000000000G",
            "run-00000000000000AB",
            "run-+000000000000001",
            "run-0000000000000001.tmp",
            "manifest-0000000000000001",
            "spill-0000000000000001",
            "Run-0000000000000001",
        ] {
            assert_eq!(run_number(name), None, "{name}");
        }
    }
}
