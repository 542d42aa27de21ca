//! What is in the demo's database: accounts, transfers, seats. Used by the child that works and by the
//! process that verifies.
//!
//! 1. Money is neither made nor lost: the balances add up to what the accounts were opened with.
//! 2. A transfer writes three rows, two accounts and itself, or none; so the balances are what the
//!    transfers say.
//! 3. A transfer's id holds the run's epoch, so it is never used twice.
//! 4. Seats are only ever reserved by transactions that do not commit: none has a value.

use std::fmt;
use std::str::FromStr;

use lockstone::{Database, Table, Transaction};

/// How many accounts there are.
pub(crate) const ACCOUNTS: u32 = 1_000;
/// What each account is opened with.
pub(crate) const OPENING_BALANCE: u64 = 1_000;
/// How many transactions are left open while others work.
pub(crate) const OPEN_TRANSACTIONS: u32 = 4;
/// How many seats each of these locks.
pub(crate) const SEATS_EACH: u32 = 2_500;

/// The tables of the demo.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    pub(crate) accounts: Table,
    pub(crate) transfers: Table,
    pub(crate) seats: Table,
}

/// One movement of money: what its row in `transfers` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) amount: u64,
}

impl Bank {
    /// The tables; created, and the accounts opened, if this is a new database.
    pub(crate) fn open(db: &Database) -> lockstone::Result<Self> {
        let bank = Self {
            accounts: db.create_table("accounts")?,
            transfers: db.create_table("transfers")?,
            seats: db.create_table("seats")?,
        };
        db.transact(|txn| bank.open_accounts(txn))?;
        Ok(bank)
    }

    fn open_accounts(&self, txn: &mut Transaction) -> lockstone::Result<()> {
        // All are opened in one transaction: whoever finds one finds all.
        if txn.get(&self.accounts, account(0))?.is_some() {
            return Ok(());
        }
        for number in 0..ACCOUNTS {
            txn.put(&self.accounts, account(number), OPENING_BALANCE.to_string())?;
        }
        Ok(())
    }
}

/// The key of an account.
pub(crate) fn account(number: u32) -> String {
    format!("account-{number:04}")
}

/// The number of the account with this key.
pub(crate) fn account_number(key: &[u8]) -> Option<u32> {
    let number = str::from_utf8(key)
        .ok()?
        .strip_prefix("account-")?
        .parse()
        .ok()?;
    (number < ACCOUNTS).then_some(number)
}

/// The key of a transfer: the run, the thread, and its number there.
pub(crate) fn transfer_id(boot_epoch: u32, thread: u32, number: u64) -> String {
    format!("{boot_epoch:06}-{thread:02}-{number:08}")
}

/// The key of a seat that open transaction `holder` locks.
pub(crate) fn seat(holder: u32, number: u32) -> String {
    format!("seat-{holder}-{number:05}")
}

/// What an open transaction is called in listings and reports.
pub(crate) fn holder_label(holder: u32) -> String {
    format!("reservation-{holder}")
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.from, self.to, self.amount)
    }
}

/// A text that is no transfer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoTransfer;

impl FromStr for Transfer {
    type Err = NoTransfer;

    fn from_str(text: &str) -> Result<Self, NoTransfer> {
        let mut words = text.split(' ');
        let mut number = || {
            words
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .ok_or(NoTransfer)
        };
        let (from, to, amount) = (number()?, number()?, number()?);
        let account = |number: u64| {
            u32::try_from(number)
                .ok()
                .filter(|it| *it < ACCOUNTS)
                .ok_or(NoTransfer)
        };
        let transfer = Self {
            from: account(from)?,
            to: account(to)?,
            amount,
        };
        if words.next().is_some() {
            Err(NoTransfer)
        } else {
            Ok(transfer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_reads_back_as_it_was_written() {
        let transfer = Transfer {
            from: 0,
            to: 999,
            amount: 17,
        };
        assert_eq!(transfer.to_string().parse(), Ok(transfer));
        for text in ["", "1", "1 2", "1 2 3 4", "1 1000 3", "a 2 3", "1 2 "] {
            assert_eq!(text.parse::<Transfer>(), Err(NoTransfer), "{text:?}");
        }
    }

    #[test]
    fn an_account_is_found_by_its_key() {
        assert_eq!(account_number(account(42).as_bytes()), Some(42));
        assert_eq!(account_number(b"account-1000"), None);
        assert_eq!(account_number(b"seat-1"), None);
    }
}
