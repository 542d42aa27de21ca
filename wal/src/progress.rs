//! How far the log is durable, who drives the flush, and who waits for it (W3, W11, G9).
//!
//! A thread that waits for durability leads a flush when nobody does, else it waits for the leader. A lone
//! committer always leads and is never handed over. For what nobody waits for in a thread (tickets, a
//! frame that fills) there is a driver, a background thread that is nudged.
//! 1. One leader at a time. A leader that leaves wakes one waiter that it did not serve, the oldest, to
//!    lead next, or nudges the driver if only tasks are left; and after that exactly those that it served.
//! 2. No lost wake-up: a waiter joins the queue under the same mutex under which a leader leaves; who
//!    asks looks for a leader after it asked, who leaves looks for what was asked after it left.
//! 3. Durable only grows. Once poisoned, nobody is told that anything is durable any more.
//! 4. A waiter yields a few times before it sleeps: a flush takes about as long as going to sleep and
//!    waking up.
//!
//! Crash: memory only; waiters vanish with the process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use lockstone_base::Lsn;
use parking_lot::Mutex;

use crate::error::WalError;
use crate::nudge::Nudge;
use crate::waiter::{Bed, Waiter, Wake, Watch};

/// How often a waiter yields before it sleeps.
const YIELDS_MAX: u32 = 20;

#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Progress {
    durable: AtomicU64,
    poisoned: AtomicBool,
    closed: AtomicBool,
    /// Changed only with `waiters` held; read without it as a hint.
    is_led: AtomicBool,
    /// By arrival.
    waiters: Mutex<Vec<Waiter>>,
    /// The highest end that somebody wants durable without waiting for it in a thread.
    asked: AtomicU64,
    driver: Nudge,
}

/// What a waiter is to do.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// Drive the flush.
    Lead(Lead<'a>),
    /// Look again.
    Look,
}

/// The lead; dropping it hands it on.
#[derive(Debug)]
#[must_use = "dropping it hands the lead on"]
pub(crate) struct Lead<'a> {
    progress: &'a Progress,
    /// The thread was unwinding already when it took the lead.
    was_panicking: bool,
}

impl Progress {
    pub(crate) fn new(durable: Lsn) -> Self {
        Self {
            durable: AtomicU64::new(durable.get()),
            poisoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            is_led: AtomicBool::new(false),
            waiters: Mutex::new(Vec::new()),
            asked: AtomicU64::new(0),
            driver: Nudge::default(),
        }
    }

    /// The end of the last frame on the device, in order (W3).
    pub(crate) fn durable(&self) -> Lsn {
        Lsn::new(self.durable.load(Ordering::Acquire))
    }

    /// All frames up to `end` are on the device; the leader's to say.
    pub(crate) fn advance(&self, end: Lsn) {
        let before = self.durable.swap(end.get(), Ordering::AcqRel);
        assert!(before < end.get(), "W3: the durable LSN grows");
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self) -> Result<(), WalError> {
        if self.is_poisoned() {
            return Err(WalError::Poisoned);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(WalError::Closed);
        }
        Ok(())
    }

    /// For good; who waits is woken by the leader that hands on, or by [`Progress::wake_all`] (W11).
    pub(crate) fn mark_poisoned(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// For good: nothing more is written. Who waits is woken when the lead is let go.
    pub(crate) fn close(&self, _lead: &Lead<'_>) {
        self.closed.store(true, Ordering::Release);
    }

    /// Wakes everybody to look. Wakes tasks too: nothing may be held.
    pub(crate) fn wake_all(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        self.driver.nudge();
        wake_threads_first(waiters);
    }

    /// Whether `end` has become durable.
    pub(crate) fn has_reached(&self, end: Lsn) -> Result<bool, WalError> {
        // In this order: whoever closes makes all durable first.
        let checked = self.check();
        let reached = self.durable() >= end;
        match checked {
            // What is on the device stays there, whoever has closed the log meanwhile.
            Err(WalError::Closed) if reached => Ok(true),
            checked => checked.map(|()| reached),
        }
    }

    /// The lead, if nobody has it.
    pub(crate) fn try_lead(&self) -> Option<Lead<'_>> {
        if self.is_led.load(Ordering::Relaxed) {
            return None;
        }
        let _waiters = self.waiters.lock();
        self.take_lead()
    }

    /// Waits until there is something to do about `end`: it is durable, the log is poisoned, or
    /// nobody leads.
    pub(crate) fn wait(&self, end: Lsn) -> Turn<'_> {
        for _ in 0..YIELDS_MAX {
            if let Some(lead) = self.try_lead() {
                return Turn::Lead(lead);
            }
            thread::yield_now();
            if self.is_done(end) {
                return Turn::Look;
            }
        }
        let bed = Bed::own();
        let mut waiters = self.waiters.lock();
        if let Some(lead) = self.take_lead() {
            return Turn::Lead(lead);
        }
        if !self.is_done(end) {
            let wake = Wake::Thread(bed.clone());
            waiters.push(Waiter { end, wake });
            drop(waiters);
            bed.sleep();
        }
        Turn::Look
    }

    /// Whether `end` has become durable; if not, `waker` is woken when there is something to see, and
    /// the driver sees to it.
    pub(crate) fn poll(
        &self,
        end: Lsn,
        watch: &mut Watch,
        waker: &Waker,
    ) -> Poll<Result<(), WalError>> {
        let in_line = watch.renew(waker);
        {
            let mut waiters = self.waiters.lock();
            match self.has_reached(end) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => waiters.extend(in_line.map(|wake| Waiter { end, wake })),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.ask(end);
        Poll::Pending
    }

    /// Sees to it that `end` becomes durable though nobody waits for it: the leader's successor does it,
    /// or the driver.
    pub(crate) fn ask(&self, end: Lsn) {
        self.asked.fetch_max(end.get(), Ordering::SeqCst);
        if !self.is_led.load(Ordering::SeqCst) {
            self.driver.nudge();
        }
    }

    /// [`Progress::ask`] for what can wait if there is no driver, and need not be said twice.
    pub(crate) fn ask_driver(&self, end: Lsn) {
        if self.driver.is_served() && !self.is_led.load(Ordering::Relaxed) {
            self.ask(end);
        }
    }

    /// What was asked for and is not yet durable.
    pub(crate) fn asked(&self) -> Option<Lsn> {
        let asked = Lsn::new(self.asked.load(Ordering::SeqCst));
        (asked > self.durable()).then_some(asked)
    }

    /// The driver's sleep: until it is nudged, or for `at_most`.
    pub(crate) fn wait_for_nudge(&self, at_most: Option<Duration>) {
        self.driver.wait(at_most);
    }

    /// Wakes the driver.
    pub(crate) fn nudge(&self) {
        self.driver.nudge();
    }

    /// For whoever waited for something else than an end and has it: it may have been woken to lead, and
    /// must not take that with it while others sleep.
    pub(crate) fn leave(&self) {
        drop(self.try_lead());
    }

    /// Wakes the threads that the frames so far have served, while the leader goes on. Tasks wait until it
    /// hands on: their wakers must not run while it holds the lead.
    pub(crate) fn serve(&self) {
        let durable = self.durable();
        let is_served = |waiter: &mut Waiter| waiter.is_thread() && waiter.end <= durable;
        let served: Vec<_> = self.waiters.lock().extract_if(.., is_served).collect();
        for waiter in served {
            waiter.wake();
        }
    }

    fn is_done(&self, end: Lsn) -> bool {
        self.durable() >= end || self.check().is_err()
    }

    /// With `waiters` held.
    fn take_lead(&self) -> Option<Lead<'_>> {
        let was_led = self.is_led.swap(true, Ordering::AcqRel);
        (!was_led).then(|| Lead {
            progress: self,
            was_panicking: thread::panicking(),
        })
    }

    fn hand_on(&self) {
        let durable = self.durable();
        let mut waiters = self.waiters.lock();
        // Once poisoned or closed, everybody is to look.
        let is_over = self.check().is_err();
        let is_served = |waiter: &mut Waiter| is_over || waiter.end <= durable;
        let served: Vec<_> = waiters.extract_if(.., is_served).collect();
        let oldest = waiters.iter().position(Waiter::is_thread);
        let heir = oldest.map(|at| waiters.remove(at));
        self.is_led.store(false, Ordering::SeqCst);
        drop(waiters);
        if is_over || (heir.is_none() && self.asked().is_some()) {
            self.driver.nudge();
        }
        wake_threads_first(heir.into_iter().chain(served).collect());
    }
}

/// Threads first: a task's waker may take its time.
fn wake_threads_first(waiters: Vec<Waiter>) {
    let (threads, tasks): (Vec<_>, Vec<_>) = waiters.into_iter().partition(Waiter::is_thread);
    for waiter in threads.into_iter().chain(tasks) {
        waiter.wake();
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.was_panicking {
            self.progress.mark_poisoned();
        }
        self.progress.hand_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One who waited to be covered was woken to lead, found itself covered and went: those behind it
    /// slept with nobody leading.
    #[test]
    fn who_was_woken_to_lead_and_has_what_it_waits_for_hands_on() {
        let progress = Progress::new(Lsn::ZERO);
        let covered = AtomicBool::new(false);
        let lead = progress.try_lead().unwrap();
        let sleepers = |count: usize| {
            while progress.waiters.lock().len() < count {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                while !covered.load(Ordering::SeqCst) {
                    let _ = progress.wait(Lsn::MAX);
                }
                progress.leave();
            });
            sleepers(1);
            let committer = scope.spawn(|| {
                let end = Lsn::new(8192);
                while !progress.has_reached(end).unwrap() {
                    if let Turn::Lead(_lead) = progress.wait(end) {
                        progress.advance(end);
                    }
                }
            });
            sleepers(2);
            progress.advance(Lsn::new(4096));
            covered.store(true, Ordering::SeqCst);
            drop(lead);
            committer.join().unwrap();
        });
    }

    #[test]
    fn a_lone_waiter_leads_at_once() {
        let progress = Progress::new(Lsn::new(4096));
        assert!(matches!(progress.wait(Lsn::new(8192)), Turn::Lead(_)));
        assert!(progress.has_reached(Lsn::new(4096)).unwrap());
        assert!(!progress.has_reached(Lsn::new(4097)).unwrap());
    }

    #[test]
    fn a_leaving_leader_wakes_whom_it_served_and_one_to_lead_next() {
        let progress = Progress::new(Lsn::ZERO);
        let lead = progress.try_lead().unwrap();
        thread::scope(|scope| {
            let wait = |end: u64| {
                let progress = &progress;
                move || {
                    let end = Lsn::new(end);
                    while !progress.has_reached(end).unwrap() {
                        if let Turn::Lead(lead) = progress.wait(end) {
                            if progress.durable() < end {
                                progress.advance(end);
                            }
                            drop(lead);
                        }
                    }
                }
            };
            let all: Vec<_> = (1..=6).map(|end| scope.spawn(wait(end * 4096))).collect();
            while progress.waiters.lock().len() < 6 {
                thread::yield_now();
            }
            progress.advance(Lsn::new(3 * 4096));
            drop(lead);
            for waiter in all {
                waiter.join().unwrap();
            }
        });
        assert_eq!(progress.durable(), Lsn::new(6 * 4096));
    }

    #[test]
    fn poison_wakes_every_waiter_and_stays() {
        let progress = Progress::new(Lsn::ZERO);
        let lead = progress.try_lead().unwrap();
        thread::scope(|scope| {
            let waiters: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        while !progress.has_reached(Lsn::new(4096))? {
                            let _ = progress.wait(Lsn::new(4096));
                        }
                        Ok::<_, WalError>(())
                    })
                })
                .collect();
            while progress.waiters.lock().len() < 4 {
                thread::yield_now();
            }
            progress.mark_poisoned();
            progress.wake_all();
            for waiter in waiters {
                assert!(matches!(waiter.join().unwrap(), Err(WalError::Poisoned)));
            }
        });
        drop(lead);
        assert!(matches!(
            progress.has_reached(Lsn::ZERO),
            Err(WalError::Poisoned)
        ));
    }
}
