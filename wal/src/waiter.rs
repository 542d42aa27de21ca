//! Who waits for durability, and how it is woken: a thread that sleeps, or a task of some executor.
//!
//! `progress` keeps them in line.
//! 1. A wake-up that comes before the sleep is not lost.
//! 2. A task is polled from any thread and may be given another waker each time: the newest is woken.
//! 3. A task's waker is somebody else's code. It is called with nothing held, a panic in it ends with it, and
//!    what it calls can ask [`is_waking`] whether it runs inside the log's own work.
//!
//! Crash: memory only.

use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::thread::{self, Thread};

use lockstone_base::Lsn;
use parking_lot::Mutex;

/// Where one thread sleeps.
#[derive(Debug)]
pub(crate) struct Bed {
    thread: Thread,
    woken: AtomicBool,
}

thread_local! {
    static BED: OnceCell<Arc<Bed>> = const { OnceCell::new() };
    static IS_WAKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling code runs inside a task's waker that the log has called: it must neither wait for the
/// log nor close it.
pub fn is_waking() -> bool {
    IS_WAKING.try_with(Cell::get).unwrap_or_default()
}

impl Bed {
    /// The calling thread's own.
    pub(crate) fn own() -> Arc<Self> {
        let make = || {
            Arc::new(Self {
                thread: thread::current(),
                woken: AtomicBool::new(false),
            })
        };
        // In a thread that is ending there is no place to keep one.
        BED.try_with(|bed| Arc::clone(bed.get_or_init(make)))
            .unwrap_or_else(|_| make())
    }

    /// Sleeps until woken. Others may unpark the thread for reasons of their own.
    pub(crate) fn sleep(&self) {
        while !self.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// A task's interest in a position of the log: empty until it was polled and had to wait.
#[derive(Debug, Default)]
pub struct Watch(Option<Arc<Mutex<Option<Waker>>>>);

impl Watch {
    /// Makes `waker` the one to be woken; the place to wake it through if it is not in line yet.
    pub(crate) fn renew(&mut self, waker: &Waker) -> Option<Wake> {
        if let Some(place) = &self.0 {
            *place.lock() = Some(waker.clone());
            return None;
        }
        let place = Arc::new(Mutex::new(Some(waker.clone())));
        self.0 = Some(Arc::clone(&place));
        Some(Wake::Task(place))
    }
}

/// How a waiter is woken.
#[derive(Debug)]
pub(crate) enum Wake {
    Thread(Arc<Bed>),
    Task(Arc<Mutex<Option<Waker>>>),
}

/// One who waits for `end` to become durable.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) end: Lsn,
    pub(crate) wake: Wake,
}

impl Waiter {
    /// Whether it is a thread, which can lead a flush: a task must not block its executor's thread.
    pub(crate) fn is_thread(&self) -> bool {
        matches!(self.wake, Wake::Thread(_))
    }

    pub(crate) fn wake(&self) {
        match &self.wake {
            Wake::Thread(bed) => bed.wake(),
            Wake::Task(place) => {
                let waker = place.lock().take();
                if let Some(waker) = waker {
                    wake_task(waker);
                }
            }
        }
    }
}

/// Calls a task's waker for the log, or for whoever else wakes tasks in the middle of the engine's work: a panic in it ends
/// with it, and [`is_waking`] says so to what it calls.
pub fn wake_task(waker: Waker) {
    let was_waking = IS_WAKING.replace(true);
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("the waker of a task that waits has panicked");
    }
    IS_WAKING.set(was_waking);
}
