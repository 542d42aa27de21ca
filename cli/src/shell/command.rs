//! What a line of the shell asks for.

use std::time::Duration;

use lockstone::{Durability, LockMode, OnConflict, Priority, TxnOptions};

use super::words::{Word, words};

/// What `help` prints.
pub(crate) const HELP: &str = "\
begin S [nowait | wait [MS]] [high N | normal N] [label X] [buffered]
                               a transaction in session S; it waits for locks unless told otherwise
S get T K [for MODE]           a value; with a lock: for update, no key update, share, key share
S lock T K MODE                a lock alone; the row need not exist
S put T K V                    S insert T K V                 S delete T K
S scan T [FROM [TO]] [for MODE]
                               the rows from FROM up to, not including, TO
S savepoint NAME               S rollback NAME                S commit        S abort
await S                        waits until session S has its answer
create T                       a table                        tables
locks [T]    waits             who holds which lock; who waits for whom
transactions                   who is there                   stats    info
report   check                 what recovery found; every block read
help     quit
Words with spaces stand in '…' or \"…\"; the latter knows \\n \\t \\\\ \\\" \\xHH. A line with # is a comment.";

/// Words that no session may be called, since lines begin with them.
const COMMANDS: [&str; 14] = [
    "begin",
    "await",
    "create",
    "tables",
    "locks",
    "waits",
    "transactions",
    "stats",
    "info",
    "report",
    "check",
    "help",
    "quit",
    "exit",
];

/// One line.
#[derive(Debug)]
pub(crate) enum Command {
    Nothing,
    Begin {
        session: String,
        options: TxnOptions,
    },
    Call {
        session: String,
        call: Call,
    },
    Await {
        session: String,
    },
    CreateTable {
        name: String,
    },
    Tables,
    Locks {
        table: Option<String>,
    },
    Waits,
    Transactions,
    Stats,
    Info,
    Report,
    Check,
    Help,
    Quit,
}

/// What a session is asked to do.
#[derive(Debug)]
pub(crate) enum Call {
    Get {
        table: String,
        key: Vec<u8>,
        mode: Option<LockMode>,
    },
    Lock {
        table: String,
        key: Vec<u8>,
        mode: LockMode,
    },
    Put {
        table: String,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Insert {
        table: String,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        table: String,
        key: Vec<u8>,
    },
    Scan {
        table: String,
        from: Option<Vec<u8>>,
        to: Option<Vec<u8>>,
        mode: Option<LockMode>,
    },
    Savepoint {
        name: String,
    },
    Rollback {
        name: String,
    },
    Commit,
    Abort,
}

impl Command {
    /// What a line asks for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        if line.trim_start().starts_with('#') {
            return Ok(Self::Nothing);
        }
        let words = words(line)?;
        let Some((first, rest)) = words.split_first() else {
            return Ok(Self::Nothing);
        };
        let alone = |command| none_left(rest).map(|()| command);
        match (first.text().as_str(), rest) {
            ("begin", [session, options @ ..]) => begin(session, options),
            ("begin", []) => Err("begin which session? begin S".to_owned()),
            ("await", [session]) => Ok(Self::Await {
                session: session.text(),
            }),
            ("create", [name]) => Ok(Self::CreateTable { name: name.text() }),
            ("await" | "create", _) => Err(format!("{} takes one name", first.text())),
            ("tables", _) => alone(Self::Tables),
            ("locks", []) => Ok(Self::Locks { table: None }),
            ("locks", [table]) => Ok(Self::Locks {
                table: Some(table.text()),
            }),
            ("locks", _) => Err("locks takes a table, or none".to_owned()),
            ("waits", _) => alone(Self::Waits),
            ("transactions", _) => alone(Self::Transactions),
            ("stats", _) => alone(Self::Stats),
            ("info", _) => alone(Self::Info),
            ("report", _) => alone(Self::Report),
            ("check", _) => alone(Self::Check),
            ("help", _) => alone(Self::Help),
            ("quit" | "exit", _) => alone(Self::Quit),
            (session, [verb, rest @ ..]) => {
                let call = Call::parse(&verb.text(), rest)?;
                Ok(Self::Call {
                    session: session.to_owned(),
                    call,
                })
            }
            (other, []) => Err(format!("`{other}` is no command: see help")),
        }
    }
}

fn begin(session: &Word, mut options: &[Word]) -> Result<Command, String> {
    let session = session.text();
    if session.is_empty() || COMMANDS.contains(&session.as_str()) {
        return Err(format!("a session cannot be called `{session}`"));
    }
    let mut chosen = TxnOptions::new().label(&session);
    while let Some((first, rest)) = options.split_first() {
        let (key, argument) = (first.text(), rest.first());
        let number = argument.and_then(|word| word.text().parse::<u32>().ok());
        let mut takes = 1;
        chosen = match (key.as_str(), argument, number) {
            ("nowait", ..) => {
                takes = 0;
                chosen.on_conflict(OnConflict::NoWait)
            }
            ("wait", _, Some(ms)) => {
                let timeout = Some(Duration::from_millis(ms.into()));
                chosen.on_conflict(OnConflict::Wait { timeout })
            }
            ("wait", ..) => {
                takes = 0;
                chosen.on_conflict(OnConflict::Wait { timeout: None })
            }
            ("high", _, Some(number)) => chosen.priority(Priority::high(number)),
            ("normal", _, Some(number)) => chosen.priority(Priority::normal(number)),
            ("high" | "normal", ..) => {
                return Err(format!("{key} takes a number from 0 to {}", u32::MAX));
            }
            ("label", Some(label), _) => chosen.label(label.text()),
            ("label", None, _) => return Err("label takes a text".to_owned()),
            ("buffered", ..) => {
                takes = 0;
                chosen.durability(Durability::Buffered)
            }
            _ => return Err(format!("begin does not know `{key}`: see help")),
        };
        options = rest.get(takes..).unwrap_or_default();
    }
    Ok(Command::Begin {
        session,
        options: chosen,
    })
}

impl Call {
    fn parse(verb: &str, words: &[Word]) -> Result<Self, String> {
        let (plain, mode) = split_mode(words)?;
        let bytes = |word: &Word| word.bytes.clone();
        let locks = matches!(verb, "get" | "scan");
        if mode.is_some() && !locks {
            return Err(format!("{verb} takes no `for`"));
        }
        match (verb, plain) {
            ("get", [table, key]) => Ok(Self::Get {
                table: table.text(),
                key: bytes(key),
                mode,
            }),
            ("lock", [table, key, mode @ ..]) if !mode.is_empty() => Ok(Self::Lock {
                table: table.text(),
                key: bytes(key),
                mode: lock_mode(mode)?,
            }),
            ("put", [table, key, value]) => Ok(Self::Put {
                table: table.text(),
                key: bytes(key),
                value: bytes(value),
            }),
            ("insert", [table, key, value]) => Ok(Self::Insert {
                table: table.text(),
                key: bytes(key),
                value: bytes(value),
            }),
            ("delete", [table, key]) => Ok(Self::Delete {
                table: table.text(),
                key: bytes(key),
            }),
            ("scan", [table, bounds @ ..]) if bounds.len() <= 2 => {
                let mut bounds = bounds.iter().map(bytes);
                Ok(Self::Scan {
                    table: table.text(),
                    from: bounds.next(),
                    to: bounds.next(),
                    mode,
                })
            }
            ("savepoint", [name]) => Ok(Self::Savepoint { name: name.text() }),
            ("rollback", [name]) => Ok(Self::Rollback { name: name.text() }),
            ("commit", []) => Ok(Self::Commit),
            ("abort", []) => Ok(Self::Abort),
            _ => Err(usage(verb)),
        }
    }
}

fn usage(verb: &str) -> String {
    let takes = match verb {
        "get" => "S get T K [for MODE]",
        "lock" => "S lock T K MODE",
        "put" => "S put T K V",
        "insert" => "S insert T K V",
        "delete" => "S delete T K",
        "scan" => "S scan T [FROM [TO]] [for MODE]",
        "savepoint" => "S savepoint NAME",
        "rollback" => "S rollback NAME",
        "commit" => "S commit",
        "abort" => "S abort",
        _ => return format!("a session does not know `{verb}`: see help"),
    };
    format!("usage: {takes}")
}

/// The words before `for`, and the mode behind it.
fn split_mode(words: &[Word]) -> Result<(&[Word], Option<LockMode>), String> {
    let Some(at) = words.iter().position(|word| word.is("for")) else {
        return Ok((words, None));
    };
    let (plain, behind) = words.split_at(at);
    let mode = behind
        .split_first()
        .map(|(_, mode)| lock_mode(mode))
        .transpose()?;
    Ok((plain, mode))
}

fn lock_mode(words: &[Word]) -> Result<LockMode, String> {
    let text: Vec<_> = words.iter().map(Word::text).collect();
    let name = text.join(" ").to_ascii_lowercase();
    match name.as_str() {
        "update" => Ok(LockMode::Update),
        "no key update" | "nokeyupdate" => Ok(LockMode::NoKeyUpdate),
        "share" => Ok(LockMode::Share),
        "key share" | "keyshare" => Ok(LockMode::KeyShare),
        _ => Err(format!(
            "`{name}` is no lock mode: update, no key update, share, key share"
        )),
    }
}

fn none_left(rest: &[Word]) -> Result<(), String> {
    match rest {
        [] => Ok(()),
        [word, ..] => Err(format!("`{}` is too much here", word.text())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        match Command::parse(line) {
            Ok(command) => format!("{command:?}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn every_mode_can_be_named() {
        let modes = [
            ("update", LockMode::Update),
            ("no key update", LockMode::NoKeyUpdate),
            ("NoKeyUpdate", LockMode::NoKeyUpdate),
            ("share", LockMode::Share),
            ("key share", LockMode::KeyShare),
        ];
        for (name, mode) in modes {
            let Ok(Command::Call {
                call: Call::Lock { mode: parsed, .. },
                ..
            }) = Command::parse(&format!("s1 lock t k {name}"))
            else {
                panic!("{name}")
            };
            assert_eq!(parsed, mode, "{name}");
            assert!(shown(&format!("s1 get t k for {name}")).contains(&format!("Some({mode:?})")));
        }
    }

    #[test]
    fn a_quoted_for_is_a_key() {
        assert!(
            shown("s1 scan t 'for' for share")
                .contains("from: Some([102, 111, 114]), to: None, mode: Some(Share)")
        );
    }

    #[test]
    fn options_of_begin_stand_in_any_order() {
        let line = shown("begin s1 high 7 label 'a b' wait 50 buffered");
        assert!(line.contains("high") || line.contains("High(7)"), "{line}");
        assert!(
            line.contains("50ms") && line.contains("a b") && line.contains("Buffered"),
            "{line}"
        );
        assert!(shown("begin s1 wait nowait").contains("NoWait"));
    }

    #[test]
    fn lines_that_make_no_sense_say_why() {
        let lines = [
            ("begin", "which session"),
            ("begin locks", "cannot be called"),
            ("begin s1 high", "number"),
            ("begin s1 fast", "does not know `fast`"),
            ("s1", "no command"),
            ("s1 fly", "does not know `fly`"),
            ("s1 get t", "usage: S get"),
            ("s1 lock t k", "usage: S lock"),
            ("s1 lock t k exclusive", "no lock mode"),
            ("s1 put t k v for update", "takes no `for`"),
            ("locks t k", "takes a table"),
            ("waits now", "too much"),
            ("s1 put t 'k", "not closed"),
        ];
        for (line, why) in lines {
            let shown = shown(line);
            assert!(
                shown.starts_with("error") && shown.contains(why),
                "{line}: {shown}"
            );
        }
        assert!(matches!(Command::parse(" # s1 get"), Ok(Command::Nothing)));
    }
}
