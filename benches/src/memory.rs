//! How much memory the process takes, without the files that it maps.
//!
//! The kernel keeps a peak (`VmHWM`) only of all resident pages, mapped files included, so a thread looks
//! every few milliseconds instead: `RssAnon` plus `RssShmem` of `/proc/self/status`. A peak that is over
//! faster is missed. What is counted includes this program's own histograms.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs `work` and watches the process meanwhile: its result, and the peak in bytes.
pub(crate) fn watched<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let (over, peak) = (AtomicBool::new(false), AtomicU64::new(resident_bytes()));
    let result = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            // Opened once and read with one call: looking must not cost a lone client anything.
            let status = File::open(STATUS);
            while !over.load(Ordering::Acquire) {
                peak.fetch_max(status.as_ref().map_or(0, look), Ordering::Relaxed);
                thread::park_timeout(LOOK_EVERY);
            }
        });
        // Also when the work panics: the scope waits for the watcher.
        let _stop = OnDrop(|| {
            over.store(true, Ordering::Release);
            watcher.thread().unpark();
        });
        let result = work();
        peak.fetch_max(resident_bytes(), Ordering::Relaxed);
        result
    });
    (result, peak.into_inner())
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Resident bytes without mapped files; zero where the kernel does not say.
pub(crate) fn resident_bytes() -> u64 {
    File::open(STATUS).map_or(0, |status| look(&status))
}

const STATUS: &str = "/proc/self/status";

fn look(status: &File) -> u64 {
    let mut text = [0; 4096];
    let read = status.read_at(&mut text, 0).unwrap_or_default();
    let text = text
        .get(..read)
        .and_then(|text| std::str::from_utf8(text).ok())
        .unwrap_or_default();
    field_bytes(text, "RssAnon:") + field_bytes(text, "RssShmem:")
}

fn field_bytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let status =
            "VmHWM:\t  900 kB\nRssAnon:\t     128 kB\nRssFile:\t 5 kB\nRssShmem:\t       0 kB\n";
        assert_eq!(
            (
                field_bytes(status, "RssAnon:"),
                field_bytes(status, "RssShmem:")
            ),
            (131_072, 0)
        );
        assert_eq!(field_bytes(status, "Missing:"), 0);
    }

    /// The watcher went on watching, and the program hung instead of telling what had gone wrong.
    #[test]
    fn work_that_panics_ends_the_watch() {
        let work = || -> () { panic!("the work went wrong") };
        assert!(thread::spawn(move || watched(work)).join().is_err());
    }

    #[test]
    fn a_peak_that_is_over_is_remembered() {
        const BYTES: usize = 256 << 20;
        let before = resident_bytes();
        let ((), peak) = watched(|| {
            let block = std::hint::black_box(vec![1_u8; BYTES]);
            thread::sleep(LOOK_EVERY * 5);
            drop(block);
        });
        assert!(peak > before + BYTES as u64 / 2, "{before} {peak}");
        assert!(resident_bytes() < peak);
    }
}
