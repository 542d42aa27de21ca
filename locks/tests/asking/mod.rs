//! How the tests ask the table for what is written down in `written`.
#![allow(dead_code, reason = "each test uses its part")]

use std::ops::Bound;
use std::sync::Arc;

use lockstone_base::RowKey;
use lockstone_locks::{
    Decision, LockTable, Owner, Policy, RangeRequest, Request, RowRange, TableLock, Wakes,
};

use crate::written::What;

/// One table of rows, and the locks over it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) locks: &'a LockTable,
    pub(crate) table: &'a Arc<TableLock>,
}

impl Asking<'_> {
    /// Asks for it, for sub-transaction `sub`, and wakes whom that concerns.
    pub(crate) fn ask(self, owner: &Arc<Owner>, what: What, sub: u32, policy: Policy) -> Decision {
        let wakes = &mut Wakes::new();
        let id = self.table.id();
        let row = |key: u8| RowKey::new(id, &[key]);
        match what {
            What::Row(key, mode, writes) => {
                let request = Request {
                    row: &row(key),
                    mode,
                    writes,
                    sub,
                    policy,
                };
                self.locks.request(owner, request, wakes)
            }
            What::Range(from, to, mode) => {
                let (start, end) = (Bound::Included(row(from)), Bound::Excluded(row(to)));
                let request = RangeRequest {
                    range: &Arc::new(RowRange::new(id, start, end)),
                    mode,
                    sub,
                    policy,
                };
                self.locks.request_range(owner, request, wakes)
            }
            What::Table(mode) => {
                let table = (self.table, mode);
                self.locks.request_table(owner, table, policy, wakes)
            }
        }
    }

    /// [`Asking::ask`]; `None` if the table is to be shared first, and is not free for that.
    pub(crate) fn ask_within(
        self,
        owner: &Arc<Owner>,
        what: What,
        sub: u32,
        policy: Policy,
    ) -> Option<Decision> {
        let shared = matches!(what, What::Table(_)) || self.locks.share(owner, self.table);
        shared.then(|| self.ask(owner, what, sub, policy))
    }
}
