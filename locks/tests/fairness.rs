//! Who is served when many want one row: in turn, one wake-up for each release, and nobody for ever behind others. Counted
//! in grants, not in time.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lockstone_base::{LockMode, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    Decision, LockTable, Notify, Outcome, Owner, Policy, Request, Ticket, Wakes,
};

#[derive(Default)]
struct Counted(AtomicU32);

impl Notify for Counted {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Scene {
    table: LockTable,
    row: RowKey,
    begun: u64,
    notices: Arc<Counted>,
}

impl Scene {
    fn new() -> Self {
        Self {
            table: LockTable::new(7),
            row: RowKey::new(TableId(1), b"hot"),
            begun: 0,
            notices: Arc::default(),
        }
    }

    fn begin(&mut self, priority: Priority) -> Arc<Owner> {
        self.begun += 1;
        let owner = self
            .table
            .begin(TxnId::new(1, self.begun), None, self.notices.clone());
        // A draw that differs with each: it must not count in the queue.
        let draw = (self.begun.wrapping_mul(0x9e37_79b9) % 1000) as u32;
        owner.settle(priority.settle(draw, false));
        owner
    }

    /// `None` if it is granted at once.
    fn ask(&self, owner: &Arc<Owner>, mode: LockMode) -> Option<Arc<Ticket>> {
        let request = Request {
            row: &self.row,
            mode,
            writes: false,
            sub: 0,
            policy: Policy::Wait,
        };
        match self.table.request(owner, request, &mut Wakes::new()) {
            Decision::Granted(_) => None,
            Decision::Queued(ticket) => Some(ticket),
            Decision::Refused(why) => panic!("{why:?}"),
        }
    }

    fn holds(&self, owner: &Arc<Owner>, ticket: &Arc<Ticket>) -> bool {
        matches!(self.table.outcome(owner, ticket), Some(Outcome::Granted(_)))
    }

    /// Ends the transaction; how many were woken.
    fn end(&self, owner: &Arc<Owner>) -> u32 {
        let before = self.notices.0.load(Ordering::Relaxed);
        assert!(owner.try_commit());
        owner.released();
        self.table.end(owner, &mut Wakes::new());
        self.notices.0.load(Ordering::Relaxed) - before
    }
}

/// Each client wants the row again as soon as it has had it.
#[test]
fn many_clients_of_default_priority_are_served_in_turn() {
    const CLIENTS: usize = 128;
    let mut row = Scene::new();
    let mut queue = VecDeque::new();
    for client in 0..CLIENTS {
        let owner = row.begin(Priority::auto());
        let ticket = row.ask(&owner, LockMode::Update);
        assert_eq!(ticket.is_none(), client == 0);
        queue.push_back((client, owner, ticket));
    }
    let mut served_at = [0_usize; CLIENTS];
    for grant in 1..=CLIENTS * 20 {
        let (client, owner, ticket) = queue.pop_front().unwrap();
        assert!(ticket.is_none_or(|ticket| row.holds(&owner, &ticket)));
        let turns = grant - served_at[client];
        assert!(
            turns <= CLIENTS,
            "client {client} waited for {turns} grants"
        );
        served_at[client] = grant;
        row.end(&owner);
        let again = row.begin(Priority::auto());
        let ticket = row.ask(&again, LockMode::Update);
        assert!(ticket.is_some());
        queue.push_back((client, again, ticket));
    }
}

#[test]
fn each_release_of_a_row_wakes_one_of_ten_thousand() {
    const WAITERS: usize = 10_000;
    let mut row = Scene::new();
    let mut holder = row.begin(Priority::auto());
    assert!(row.ask(&holder, LockMode::Update).is_none());
    let waiters: Vec<_> = (0..WAITERS)
        .map(|_| {
            let owner = row.begin(Priority::auto());
            let ticket = row.ask(&owner, LockMode::Update).unwrap();
            (owner, ticket)
        })
        .collect();
    assert_eq!(row.notices.0.load(Ordering::Relaxed), 0);
    for (owner, ticket) in waiters {
        assert_eq!(row.end(&holder), 1);
        assert!(row.holds(&owner, &ticket));
        holder = owner;
    }
    assert_eq!(row.end(&holder), 0);
}

/// The sharers outrank the writer, and one of them always holds the row.
#[test]
fn a_writer_under_a_stream_of_sharers_has_its_turn_within_ten_grants() {
    for sharers_rank in [Priority::auto(), Priority::high(9)] {
        let mut row = Scene::new();
        let mut sharers = VecDeque::new();
        for _ in 0..3 {
            let sharer = row.begin(sharers_rank);
            assert!(row.ask(&sharer, LockMode::Share).is_none());
            sharers.push_back(sharer);
        }
        let writer = row.begin(Priority::normal(0));
        let ticket = row.ask(&writer, LockMode::Update).unwrap();
        let (mut grants, mut behind) = (0, 0);
        while !row.holds(&writer, &ticket) {
            let sharer = row.begin(sharers_rank);
            match row.ask(&sharer, LockMode::Share) {
                None => {
                    grants += 1;
                    sharers.push_back(sharer);
                }
                Some(_) => behind += 1,
            }
            row.end(&sharers.pop_front().unwrap());
            assert!(grants <= 10, "{sharers_rank:?}");
        }
        assert!(behind > 0);
        assert_eq!(
            grants,
            if sharers_rank == Priority::auto() {
                0
            } else {
                10
            }
        );
        // All of those behind share the row at once when the writer has had it.
        assert_eq!(row.end(&writer), behind);
    }
}
