//! Lock scripts: `testdata/*.txt`, each a situation with the table's state after every command.
//!
//! `UPDATE=1 cargo test -p lockstone-locks --test scripts` rewrites what the commands print; the
//! difference is then for a human to judge. A line `> command` is run, the lines below it are what
//! it prints; other lines, up to the first command or behind a blank line, are kept.
//!
//! ```text
//! > begin NAME [normal | high | auto N] > NAME lock ROW MODE [nowait | wound] > NAME cancel
//! > NAME savepoint                     > NAME rollback NUMBER
//! > NAME savepoints NUMBER             so many, with a lock in each
//! > NAME commit | abort | committing   > NAME held                        > sweep NUMBER
//! > NAME preparing | prepared | abort-prepared
//! > NAME dies        its state alone   > NAME passes   its release pass   > NAME locks-many ROWS
//! > NAME wounds      has waited enough > waits          who, and for whom
//! > NAME range A..B MODE [nowait | wound] all rows from A up to B  > NAME put ROW  as a write does
//! > NAME table T exclusive [nowait | wound]  > NAME share T  as whoever locks rows in it does
//! ```
//!
//! A state line is `row: holder mode #token, ... | waiter mode, ...`; ranges `A..B` and `table T` are shown like rows.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lockstone_base::{FencingToken, LockMode, Lsn, Priority, RowKey, TableId, TxnId};
use lockstone_locks::{
    AbortCause, Cycle, Decision, Grant, LockEntry, LockStatus, LockTable, Notify, Outcome, Owner,
    OwnerState, Policy, RangeRequest, Refusal, Request, RowRange, TableLock, TableMode, Target,
    Ticket, Wakes,
};

struct Bell {
    name: String,
    rung: Arc<Mutex<Vec<String>>>,
}

impl Notify for Bell {
    fn notify(&self) {
        let mut rung = self.rung.lock().unwrap();
        if !rung.contains(&self.name) {
            rung.push(self.name.clone());
        }
    }
}

struct Txn {
    owner: Arc<Owner>,
    sub: u32,
    wait: Option<Arc<Ticket>>,
}

struct Stage {
    table: LockTable,
    tables: BTreeMap<String, Arc<TableLock>>,
    txns: BTreeMap<String, Txn>,
    names: BTreeMap<TxnId, String>,
    rung: Arc<Mutex<Vec<String>>>,
    lsn: u64,
}

impl Stage {
    fn new() -> Self {
        Self {
            table: LockTable::new(11),
            tables: BTreeMap::new(),
            txns: BTreeMap::new(),
            names: BTreeMap::new(),
            rung: Arc::default(),
            lsn: 0,
        }
    }

    /// Runs a command; what it prints, with the state behind it.
    fn run(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let mut said = match words.as_slice() {
            ["begin", name, rank @ ..] => return self.begin(name, rank),
            ["sweep", steps] => {
                let steps = steps.parse().unwrap();
                format!("swept {}\n", self.table.sweep(steps))
            }
            ["waits"] => return self.waits(),
            [name, "lock", row, mode, how @ ..] => self.lock(name, row, (mode, false), policy(how)),
            [name, "put", row, how @ ..] => {
                self.lock(name, row, ("NoKeyUpdate", true), policy(how))
            }
            [name, "range", range, mode, how @ ..] => self.range(name, range, mode, policy(how)),
            [name, "table", table, "exclusive", how @ ..] => {
                self.table(name, table, TableMode::Exclusive, policy(how))
            }
            [name, "share", table, how @ ..] => self.share(name, table, policy(how)),
            [name, verb, rest @ ..] => self.act(name, verb, rest),
            _ => panic!("no command: {command}"),
        };
        self.tell_the_woken(&mut said);
        self.show(&mut said);
        said
    }

    fn begin(&mut self, name: &str, rank: &[&str]) -> String {
        let id = TxnId::new(1, self.names.len() as u64 + 1);
        let bell = Bell {
            name: name.to_owned(),
            rung: Arc::clone(&self.rung),
        };
        let owner = self.table.begin(id, Some(name.into()), Arc::new(bell));
        let priority = match rank {
            ["normal", number] => Priority::normal(number.parse().unwrap()),
            ["high", number] => Priority::high(number.parse().unwrap()),
            [] | ["auto", _] => Priority::auto(),
            _ => panic!("no priority: {rank:?}"),
        };
        let draw = match rank {
            ["auto", draw] => draw.parse().unwrap(),
            _ => 7,
        };
        owner.settle(priority.settle(draw, false));
        self.names.insert(id, name.to_owned());
        let txn = Txn {
            owner,
            sub: 0,
            wait: None,
        };
        assert!(self.txns.insert(name.to_owned(), txn).is_none(), "{name}");
        String::new()
    }

    fn range(&mut self, name: &str, range: &str, mode: &str, policy: Policy) -> String {
        let txn = self.txns.get_mut(name).unwrap();
        let (start, end) = range.split_once("..").unwrap();
        let row = |key: &str| RowKey::new(TableId(1), key.as_bytes());
        let (start, end) = (Bound::Included(row(start)), Bound::Excluded(row(end)));
        let request = RangeRequest {
            range: &Arc::new(RowRange::new(TableId(1), start, end)),
            mode: mode_called(mode),
            sub: txn.sub,
            policy,
        };
        let decision = self
            .table
            .request_range(&txn.owner, request, &mut Wakes::new());
        self.decided(name, decision)
    }

    fn table_called(&mut self, table: &str) -> Arc<TableLock> {
        let id = TableId(u32::from(table.as_bytes()[0]));
        let lock = self.tables.entry(table.to_owned());
        Arc::clone(lock.or_insert_with(|| Arc::new(TableLock::new(id))))
    }

    fn share(&mut self, name: &str, table: &str, policy: Policy) -> String {
        let lock = self.table_called(table);
        if self.table.share(&self.txns[name].owner, &lock) {
            return "shared\n".to_owned();
        }
        self.table(name, table, TableMode::Shared, policy)
    }

    fn table(&mut self, name: &str, table: &str, mode: TableMode, policy: Policy) -> String {
        let lock = self.table_called(table);
        let owner = &self.txns[name].owner;
        let decision = self
            .table
            .request_table(owner, (&lock, mode), policy, &mut Wakes::new());
        self.decided(name, decision)
    }

    fn lock(
        &mut self,
        name: &str,
        row: &str,
        (mode, writes): (&str, bool),
        policy: Policy,
    ) -> String {
        let txn = self.txns.get_mut(name).unwrap();
        let row = RowKey::new(TableId(1), row.as_bytes());
        let mode = mode_called(mode);
        let request = Request {
            row: &row,
            mode,
            writes,
            sub: txn.sub,
            policy,
        };
        let decision = self.table.request(&txn.owner, request, &mut Wakes::new());
        self.decided(name, decision)
    }

    fn decided(&mut self, name: &str, decision: Decision) -> String {
        let txn = self.txns.get_mut(name).unwrap();
        match decision {
            Decision::Granted(grant) if grant.strengthened => {
                self.lsn += 1;
                let token = FencingToken::new(Lsn::new(self.lsn));
                let owner = Arc::clone(&txn.owner);
                self.stamp(&owner, grant, token);
                let how = if grant.fresh {
                    "granted"
                } else {
                    "strengthened"
                };
                format!("{how}\n")
            }
            Decision::Granted(grant) => format!("held already in {}\n", grant.mode),
            Decision::Queued(ticket) => {
                txn.wait = Some(ticket);
                "waits\n".to_owned()
            }
            Decision::Refused(Refusal::WouldBlock(blocker)) => {
                let blocked_by = &self.names[&blocker.txn];
                format!("would block: {blocked_by} {}\n", blocker.mode)
            }
            Decision::Refused(Refusal::Conflict(blocker)) => {
                let blocked_by = &self.names[&blocker.txn];
                format!("dies: {blocked_by} {} {}\n", blocker.mode, blocker.rank)
            }
            Decision::Refused(Refusal::Deadlock(cycle)) => self.describe(&cycle),
            Decision::Refused(refusal) => format!("{refusal:?}\n"),
        }
    }

    /// As the kind of what was granted asks.
    fn stamp(&self, owner: &Arc<Owner>, grant: Grant, token: FencingToken) {
        let unstamped = |entry: &LockEntry| {
            entry.txn == owner.id() && entry.status == LockStatus::Granted && entry.token.is_none()
        };
        match self.table.list().into_iter().find(unstamped) {
            Some(LockEntry {
                target: Target::Range(_),
                ..
            }) => self.table.stamp_range(owner, token),
            Some(LockEntry {
                target: Target::Table(table),
                mode: LockMode::Update,
                ..
            }) => self.table.stamp_table(owner, table, token),
            Some(LockEntry {
                target: Target::Row(_),
                ..
            }) => self.table.stamp(owner, grant.place, token),
            _ => {}
        }
    }

    fn waits(&self) -> String {
        let mut said = String::new();
        for wait in self.table.waits() {
            let (name, mode, row) = (&self.names[&wait.txn], wait.mode, called(&wait.target));
            write!(said, "  {name} waits for {mode} of {row}:").unwrap();
            for other in &wait.waits_for {
                let how = if other.soft { "queued" } else { "held" };
                write!(said, " {} {} {how},", self.names[&other.txn], other.mode).unwrap();
            }
            said.pop();
            said.push('\n');
        }
        said
    }

    fn act(&mut self, name: &str, verb: &str, rest: &[&str]) -> String {
        let txn = self.txns.get_mut(name).unwrap();
        let mut wakes = Wakes::new();
        match (verb, rest) {
            ("savepoint", []) => {
                txn.sub += 1;
                return format!("savepoint {}\n", txn.sub);
            }
            ("savepoints", [count]) => {
                for _ in 0..count.parse().unwrap() {
                    txn.sub += 1;
                    let row = RowKey::new(TableId(2), &txn.sub.to_be_bytes());
                    let request = Request {
                        row: &row,
                        mode: LockMode::Update,
                        writes: false,
                        sub: txn.sub,
                        policy: Policy::Wait,
                    };
                    let decision = self.table.request(&txn.owner, request, &mut wakes);
                    assert!(matches!(decision, Decision::Granted(_)));
                }
                return format!("savepoint {}\n", txn.sub);
            }
            ("rollback", [sub]) => {
                self.table
                    .rollback_to(&txn.owner, sub.parse().unwrap(), &mut wakes);
                txn.sub += 1;
            }
            ("cancel", []) => {
                let ticket = txn.wait.take().unwrap();
                let outcome = self.table.cancel(&txn.owner, &ticket, &mut wakes);
                return format!("{outcome:?}\n");
            }
            ("wounds", []) => {
                let ticket = txn.wait.take().unwrap();
                let decision = self.table.wound(&txn.owner, &ticket, &mut wakes);
                drop(wakes);
                return self.decided(name, decision);
            }
            ("committing", []) if txn.owner.state() == OwnerState::Prepared => {
                txn.owner.commit_prepared();
            }
            ("committing", []) => assert!(txn.owner.try_commit()),
            ("preparing", []) => assert!(txn.owner.try_prepare()),
            ("prepared", []) => txn.owner.prepared(),
            ("abort-prepared", []) => {
                txn.owner.abort_prepared(AbortCause::Requested);
                self.table.end(&txn.owner, &mut wakes);
            }
            ("commit", []) => {
                let state = txn.owner.state();
                if state != OwnerState::Committing && !txn.owner.try_commit() {
                    return format!("is {state:?}\n");
                }
                txn.owner.released();
                self.table.end(&txn.owner, &mut wakes);
            }
            ("abort", []) => {
                let killed = self
                    .table
                    .kill(&txn.owner, AbortCause::Requested, &mut wakes);
                return format!("aborted: {killed}\n");
            }
            // The state changes and nobody has yet run the release pass.
            ("dies", []) => assert!(txn.owner.try_abort(AbortCause::Closed)),
            ("passes", []) => self.table.end(&txn.owner, &mut wakes),
            ("locks-many", [rows]) => {
                for row in 0..rows.parse().unwrap() {
                    let row: u32 = row;
                    let request = Request {
                        row: &RowKey::new(TableId(2), &row.to_be_bytes()),
                        mode: LockMode::Update,
                        writes: false,
                        sub: txn.sub,
                        policy: Policy::Wait,
                    };
                    let decision = self.table.request(&txn.owner, request, &mut wakes);
                    assert!(matches!(decision, Decision::Granted(_)));
                }
            }
            ("held", []) => {
                let held = self.table.held_by(&txn.owner);
                return format!("{held} of {} live\n", self.table.live_locks());
            }
            _ => panic!("no verb: {verb} {rest:?}"),
        }
        String::new()
    }

    /// The tickets of whoever was woken; nobody else's may have been decided (L6).
    fn tell_the_woken(&mut self, said: &mut String) {
        let rung: Vec<String> = std::mem::take(&mut *self.rung.lock().unwrap());
        for name in &rung {
            let txn = self.txns.get_mut(name).unwrap();
            let Some(ticket) = txn.wait.clone() else {
                continue;
            };
            let Some(outcome) = self.table.outcome(&txn.owner, &ticket) else {
                continue;
            };
            txn.wait = None;
            let cause = txn.owner.cause();
            match (outcome, cause) {
                (Outcome::Granted(grant), _) => {
                    self.lsn += 1;
                    let token = FencingToken::new(Lsn::new(self.lsn));
                    let owner = Arc::clone(&txn.owner);
                    self.stamp(&owner, grant, token);
                    writeln!(said, "{name}: granted {}", grant.mode).unwrap();
                }
                (Outcome::Ended, Some(AbortCause::Deadlock(cycle))) => {
                    write!(said, "{name}: {}", self.describe(&cycle)).unwrap();
                }
                (Outcome::Ended, Some(AbortCause::Wounded { by })) => {
                    writeln!(said, "{name}: wounded by {}", self.names[&by]).unwrap();
                }
                (outcome, _) => writeln!(said, "{name}: {outcome:?}").unwrap(),
            }
        }
        for (name, txn) in &self.txns {
            let decided = txn.wait.as_ref().filter(|ticket| !ticket.is_waiting());
            assert!(decided.is_none(), "L6: {name} was decided and not woken");
        }
    }

    fn describe(&self, cycle: &Cycle) -> String {
        let mut said = "deadlock: ".to_owned();
        for edge in &cycle.edges {
            let name = &self.names[&edge.txn];
            assert_eq!(edge.label.as_deref(), Some(name.as_str()));
            let (row, wanted, met) = (called(&edge.target), edge.requested, edge.blocked_by);
            let soft = if edge.soft { ", queued" } else { "" };
            write!(said, "{name} waits for {wanted} of {row} ({met}{soft}) -> ").unwrap();
        }
        let first = &self.names[&cycle.edges[0].txn];
        writeln!(said, "{first}; victim {}", self.names[&cycle.victim]).unwrap();
        said
    }

    fn show(&self, said: &mut String) {
        let mut rows: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for entry in self.table.list() {
            if entry.target.table() == TableId(2) {
                continue;
            }
            let LockEntry {
                target,
                mode,
                txn,
                token,
                ..
            } = entry;
            let token = token.map_or(String::new(), |token| format!(" #{token}"));
            let shown = format!("{} {mode}{token}", self.names[&txn]);
            let (held, waiting) = rows.entry(called(&target)).or_default();
            match entry.status {
                LockStatus::Granted => held.push(shown),
                LockStatus::Waiting => waiting.push(shown),
            }
        }
        for (row, (held, waiting)) in rows {
            write!(said, "  {row}: {}", held.join(", ")).unwrap();
            if !waiting.is_empty() {
                write!(said, " | {}", waiting.join(", ")).unwrap();
            }
            said.push('\n');
        }
    }
}

fn policy(how: &[&str]) -> Policy {
    match how {
        [] => Policy::Wait,
        ["nowait"] => Policy::NoWait,
        ["wound"] => Policy::Wound,
        _ => panic!("no policy: {how:?}"),
    }
}

fn mode_called(name: &str) -> LockMode {
    let mut modes = LockMode::ALL.into_iter();
    modes.find(|known| known.to_string() == name).unwrap()
}

fn called(target: &Target) -> String {
    let key = |row: &RowKey| String::from_utf8_lossy(row.key()).into_owned();
    let bound = |bound: Bound<&RowKey>| match bound {
        Bound::Included(row) | Bound::Excluded(row) => key(row),
        Bound::Unbounded => String::new(),
    };
    match target {
        Target::Row(row) => key(row),
        Target::Range(range) => format!("{}..{}", bound(range.start()), bound(range.end())),
        Target::Table(table) => format!("table {}", char::from(table.0 as u8)),
        Target::Tokens(_) => panic!("no script asks for tokens"),
    }
}

/// The script with what its commands print now.
fn replay(script: &str) -> String {
    let mut stage = Stage::new();
    let mut said = String::new();
    let mut printing = false;
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            printing = true;
            writeln!(said, "{line}").unwrap();
            said.push_str(&stage.run(command));
        } else if !printing || line.is_empty() || line.starts_with('#') {
            printing = false;
            writeln!(said, "{line}").unwrap();
        }
    }
    said
}

#[expect(clippy::disallowed_methods, reason = "a test reads its own scripts")]
fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// `# SYSTEM, CASE: what`, or the rules or the part of LOCKING that it plays: `# K4, L1: what`, `# LOCKING, Wound: what`.
fn has_origin(script: &str) -> bool {
    const ORIGINS: [&str; 8] = [
        "PostgreSQL isolation",
        "RocksDB",
        "CockroachDB lock table",
        "YugabyteDB",
        "NuoDB",
        "YDB",
        "YTsaurus",
        "LOCKING",
    ];
    let is_rule = |word: &str| {
        let (letter, number) = word.split_at(word.len().min(1));
        matches!(letter, "K" | "L" | "W") && number.parse::<u8>().is_ok()
    };
    let opening = script
        .strip_prefix("# ")
        .and_then(|rest| rest.split_once(": "));
    opening.is_some_and(|(origin, what)| {
        let known = ORIGINS.contains(&origin.split(", ").next().unwrap_or_default());
        !what.is_empty() && (known || origin.split(", ").all(is_rule))
    })
}

#[test]
fn a_script_without_its_origin_is_refused() {
    assert!(has_origin("# K6, L3: a range"));
    assert!(has_origin("# RocksDB, Catch22: a holder"));
    for script in [
        "> begin a",
        "# a range: waits",
        "# K: it",
        "# RocksDBs: it",
        "# L2 and: it",
        "# L4: ",
    ] {
        assert!(!has_origin(script), "{script}");
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test rewrites its own scripts when told to"
)]
fn every_script_prints_what_it_says() {
    let mut wrong = String::new();
    let paths = scripts();
    for path in &paths {
        let script = std::fs::read_to_string(path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(has_origin(&script), "{name} opens without its origin");
        let printed = replay(&script);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &printed).unwrap();
        } else if printed != script {
            let differs = script.lines().zip(printed.lines());
            let at = differs.take_while(|(said, now)| said == now).count();
            let [said, now] = [&script, &printed].map(|text| text.lines().nth(at).unwrap_or("-"));
            writeln!(wrong, "{name}:{}: says {said:?}, prints {now:?}", at + 1).unwrap();
        }
    }
    assert!(paths.len() >= 70, "only {} scripts", paths.len());
    assert!(wrong.is_empty(), "\n{wrong}");
}
