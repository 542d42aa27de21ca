//! A record of the log, for people and programs: tables by name where one is known, keys and values cut to
//! what a line holds, and lines that break before they leave the screen.
//!
//! 1. Bytes of users are escaped (`output`).
//! 2. JSON has keys in full; of a value its length and beginning.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use lockstone::Lsn;
use lockstone::inspect::{Body, Context, Effect, Provisional, Spill, Tag, Tokens};
use lockstone_base::{RowKey, TableId};
use serde_json::{Map, Value, json};

use crate::output::{count, shown};

/// How many bytes of a key or value people are shown.
const SHOWN_MAX: usize = 32;
/// How many bytes of a value programs are shown.
const VALUE_JSON_MAX: usize = 256;
/// Lines are broken before this column.
const COLUMNS: usize = 100;

/// The names of tables, as far as manifest and log have said them.
#[derive(Debug, Default)]
pub(crate) struct TableNames(BTreeMap<TableId, String>);

impl TableNames {
    pub(crate) fn new<'a>(tables: impl Iterator<Item = (TableId, &'a str)>) -> Self {
        Self(tables.map(|(id, name)| (id, name.to_owned())).collect())
    }

    /// Notes the name that a record gives.
    pub(crate) fn learn(&mut self, body: &Body<'_>) {
        if let Body::CreateTable { id, name } = body {
            self.0.insert(*id, (*name).to_owned());
        }
    }

    fn shown(&self, id: TableId) -> String {
        self.0
            .get(&id)
            .map_or_else(|| format!("#{}", id.0), |name| shown(name.as_bytes()))
    }
}

/// Words on as many lines as they need, the later ones further in.
pub(crate) fn wrapped(indent: usize, words: &[String]) -> String {
    let mut text = " ".repeat(indent);
    let mut column = indent;
    for (at, word) in words.iter().enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > COLUMNS {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 4));
            column = indent + 4;
        } else if at > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text
}

/// The words of a record.
pub(crate) fn words(
    lsn: Lsn,
    context: Option<Context>,
    body: &Body<'_>,
    names: &TableNames,
) -> Vec<String> {
    let mut words = vec![lsn.to_string()];
    words.push(context.map_or_else(|| "engine".to_owned(), |it| it.txn.to_string()));
    match body {
        Body::Begin { label } => {
            words.push("begin".to_owned());
            if !label.is_empty() {
                words.push(quoted(label.as_bytes()));
            }
        }
        Body::Provisional(provisional) => words.extend(provisional_words(provisional, names)),
        Body::ProvisionalMany(many) => {
            words.push(format!("put-many {}", count(many.len(), "row")));
            let rows = many.rows().flat_map(|row| provisional_words(&row, names));
            words.extend(rows);
        }
        Body::LockMany(many) => {
            words.push(format!("lock-many {}", count(u64::from(many.count), "row")));
            words.extend(many.rows().flat_map(|row| provisional_words(&row, names)));
        }
        Body::ValuePart(part) => words.push(format!("value-part {}", count(part.len(), "byte"))),
        Body::RollbackTo { from, through } => {
            words.push(format!("rollback of parts {from} to {through}"));
        }
        Body::Commit { rows, adopts } => {
            words.push(format!("commit {}", count(*rows, "row")));
            if *adopts > 0 {
                words.push(format!("adopts {}", count(u64::from(*adopts), "file")));
            }
        }
        Body::Spill(spill) => {
            words.push(format!("spill {} through {}", spill.number, spill.through));
            words.extend(spilled_files(spill));
            let files = spill.files().unwrap_or_default();
            if !files.replaces.is_empty() {
                let replaced = count(files.replaces.len() as u64, "file");
                words.push(format!("in the place of {replaced}"));
            }
        }
        Body::Prepare(prepare) => {
            words.extend(["prepare".to_owned(), quoted(prepare.gid.as_bytes())]);
            words.push(count(prepare.rows, "row lock"));
        }
        Body::Lease(lease) => words.push(format!("lease {} ms", lease.lasts_ms())),
        Body::CallOpens { sub } => words.push(format!("call of part {sub} on")),
        Body::CallCloses => words.push("call done".to_owned()),
        Body::Abort => words.push("abort".to_owned()),
        Body::CreateTable { id, name } => {
            words.push(format!("create-table {}", id.0));
            words.push(quoted(name.as_bytes()));
        }
        Body::CleanShutdown => words.push("clean-shutdown".to_owned()),
        Body::DropTable { id } => {
            words.push(format!("drop-table {}", id.0));
            words.push(names.shown(*id));
        }
        Body::RangeLock(_)
        | Body::TableLock { .. }
        | Body::TableShared { .. }
        | Body::Tokens(_) => {
            words.extend(wide_words(body, names));
        }
    }
    words
}

/// What is locked that is wider than a row, or taken of a semaphore.
fn wide_words(body: &Body<'_>, names: &TableNames) -> Vec<String> {
    let mut words = Vec::new();
    match body {
        Body::RangeLock(lock) => {
            words.extend(["lock-range".to_owned(), names.shown(lock.table)]);
            words.push(format!("from {}", bound_words(lock.start)));
            words.push(format!("to {}", bound_words(lock.end)));
            words.push(lock.mode.to_string());
            if lock.sub > 0 {
                words.push(format!("part {}", lock.sub));
            }
        }
        Body::TableLock { table } => {
            words.extend(["lock-table".to_owned(), names.shown(*table)]);
        }
        Body::TableShared { table } => {
            words.extend(["share-table".to_owned(), names.shown(*table)]);
        }
        Body::Tokens(taken) => {
            words.push(format!(
                "take {} of {} tokens of",
                taken.tokens, taken.limit
            ));
            words.push(quoted(taken.semaphore));
            if taken.sub > 0 {
                words.push(format!("part {}", taken.sub));
            }
        }
        _ => {}
    }
    words
}

/// The names of a spill's files.
fn spilled_files(spill: &Spill<'_>) -> Vec<String> {
    let files = spill.files().map(|files| files.files).unwrap_or_default();
    let names = files.iter().map(|(_, entry)| entry.file_name());
    names.collect()
}

fn bound_words(bound: Bound<&[u8]>) -> String {
    match bound {
        Bound::Included(key) => quoted(key),
        Bound::Excluded(key) => format!("{} excluded", quoted(key)),
        Bound::Unbounded => "the table's bound".to_owned(),
    }
}

fn provisional_words(provisional: &Provisional<'_>, names: &TableNames) -> Vec<String> {
    let mut words = Vec::new();
    words.push(match provisional.effect {
        Effect::Lock => "lock".to_owned(),
        Effect::Put(_) => "put".to_owned(),
        Effect::Delete => "delete".to_owned(),
    });
    match RowKey::from_encoded(Bytes::copy_from_slice(provisional.row)) {
        Some(row) => words.extend([names.shown(row.table()), quoted(row.key())]),
        None => words.push(quoted(provisional.row)),
    }
    if let Effect::Put(value) = provisional.effect {
        words.push(format!(
            "= {} ({})",
            quoted(value),
            count(value.len(), "byte")
        ));
    }
    words.push(provisional.mode.to_string());
    if provisional.fresh {
        words.push("new".to_owned());
    }
    if provisional.sub > 0 {
        words.push(format!("part {}", provisional.sub));
    }
    words
}

/// At most so many bytes of a user, between marks.
fn quoted(bytes: &[u8]) -> String {
    let (head, rest) = cut(bytes, SHOWN_MAX);
    let more = if rest.is_empty() { "" } else { "…" };
    format!("`{}{more}`", shown(head))
}

/// Cuts where a character ends, if it is text.
fn cut(bytes: &[u8], most: usize) -> (&[u8], &[u8]) {
    let is_inside = |at: &usize| bytes.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let most = most.min(bytes.len());
    let at = (most.saturating_sub(3)..=most)
        .rfind(|at| !is_inside(at))
        .unwrap_or(most);
    bytes.split_at(at)
}

/// The record as JSON shows it.
pub(crate) fn object(
    lsn: Lsn,
    context: Option<Context>,
    tag: Tag,
    body: &Body<'_>,
    names: &TableNames,
) -> Value {
    let mut object = Map::new();
    object.insert("lsn".to_owned(), json!(lsn));
    object.insert("kind".to_owned(), json!(format!("{tag:?}")));
    if let Some(Context { txn, rank }) = context {
        object.insert("txn".to_owned(), json!(txn));
        object.insert("priority".to_owned(), json!(rank.to_string()));
    }
    let details = match body {
        Body::Begin { label } => json!({ "label": label }),
        Body::Provisional(provisional) => provisional_object(provisional, names),
        Body::ProvisionalMany(many) => {
            let rows: Vec<_> = many
                .rows()
                .map(|row| provisional_object(&row, names))
                .collect();
            json!({ "rows": rows })
        }
        Body::LockMany(many) => {
            let rows = many.rows().map(|row| provisional_object(&row, names));
            json!({ "rows": rows.collect::<Vec<_>>() })
        }
        Body::ValuePart(part) => json!({ "bytes": part.len() }),
        Body::RollbackTo { from, through } => json!({ "from": from, "through": through }),
        Body::Commit { rows, adopts } => json!({ "rows": rows, "adopts": adopts }),
        Body::Spill(spill) => json!({
            "number": spill.number,
            "through": spill.through,
            "locks": spill.held.0,
            "writes": spill.held.1,
            "files": spilled_files(spill),
            "replaces": spill.files().map(|files| files.replaces).unwrap_or_default(),
        }),
        Body::Prepare(prepare) => json!({
            "gid": prepare.gid,
            "locks": prepare.rows,
            "digest": format!("{:032x}", prepare.digest.get()),
        }),
        Body::CreateTable { id, name } => json!({ "table_id": id.0, "table": name }),
        Body::DropTable { id } => json!({ "table_id": id.0 }),
        Body::RangeLock(lock) => json!({
            "table_id": lock.table.0,
            "table": names.0.get(&lock.table),
            "start": bound_object(lock.start),
            "end": bound_object(lock.end),
            "mode": lock.mode,
            "sub": lock.sub,
        }),
        Body::TableLock { table } | Body::TableShared { table } => {
            json!({ "table_id": table.0, "table": names.0.get(table) })
        }
        Body::Tokens(taken) => tokens_object(taken),
        Body::Lease(it) => json!({ "lease_ms": it.lasts_ms() }),
        Body::CallOpens { sub } => json!({ "sub": sub }),
        Body::Abort | Body::CallCloses | Body::CleanShutdown => json!({}),
    };
    if let Value::Object(details) = details {
        object.extend(details);
    }
    Value::Object(object)
}

fn tokens_object(taken: &Tokens<'_>) -> Value {
    json!({
        "semaphore": taken.semaphore.escape_ascii().to_string(),
        "limit": taken.limit,
        "tokens": taken.tokens,
        "sub": taken.sub,
    })
}

fn bound_object(bound: Bound<&[u8]>) -> Value {
    match bound {
        Bound::Included(key) => json!({ "included": key.escape_ascii().to_string() }),
        Bound::Excluded(key) => json!({ "excluded": key.escape_ascii().to_string() }),
        Bound::Unbounded => Value::Null,
    }
}

fn provisional_object(provisional: &Provisional<'_>, names: &TableNames) -> Value {
    let row = RowKey::from_encoded(Bytes::copy_from_slice(provisional.row));
    let table = row.as_ref().and_then(|row| names.0.get(&row.table()));
    let (effect, value) = match provisional.effect {
        Effect::Lock => ("lock", None),
        Effect::Put(value) => ("put", Some(value)),
        Effect::Delete => ("delete", None),
    };
    json!({
        "effect": effect,
        "table": table,
        "table_id": row.as_ref().map(|row| row.table().0),
        "key": row.as_ref().map(|row| row.key().escape_ascii().to_string()),
        "bytes": value.map(<[u8]>::len),
        "value": value.map(|value| cut(value, VALUE_JSON_MAX).0.escape_ascii().to_string()),
        "mode": provisional.mode,
        "new": provisional.fresh,
        "part": provisional.sub,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        let words: Vec<_> = (0..40).map(|n| format!("word-{n:02}")).collect();
        let text = wrapped(2, &words);
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
        let squeezed: Vec<_> = text.split_whitespace().collect();
        assert_eq!(squeezed, words);
    }

    #[test]
    fn what_is_cut_ends_with_a_character() {
        let text = "ä".repeat(40);
        for most in 0..8 {
            let (head, rest) = cut(text.as_bytes(), most);
            assert!(str::from_utf8(head).is_ok() && head.len() <= most);
            assert_eq!([head, rest].concat(), text.as_bytes());
        }
        assert_eq!(cut(b"short", 32), (b"short".as_slice(), b"".as_slice()));
        assert!(quoted(&[0x80; 99]).ends_with("…`"));
    }
}
