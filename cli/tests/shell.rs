//! The shell, driven through a pipe: what each session sees, who waits for whom, what is refused.

mod program;

use program::{in_order, shell};

fn transcript(script: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    shell(dir.path(), script)
}

/// The page on explicit locking of YugabyteDB: session 2 fails while session 1 has the row locked.
#[test]
fn the_two_session_example_gives_what_its_page_says() {
    let said = transcript(
        "create t\nbegin s0\ns0 insert t k1 v1\ns0 commit\n\
         begin s1\ns1 get t k1 for update\n\
         begin s2 nowait\ns2 put t k1 v1.1\n\
         s1 put t k1 v1.2\ns1 commit\n\
         s2 get t k1\ns2 put t k1 v1.3\ns2 commit\n",
    );
    in_order(
        &said,
        &[
            "s0: inserted",
            "s0: committed at LSN",
            "> s1 get t k1 for update",
            "s1: v1",
            "> s2 put t k1 v1.1",
            "s2: error: row `k1` of table `t` is locked: transaction 1-2 `s1`",
            "> s1 put t k1 v1.2",
            "s1: ok",
            "s1: committed at LSN",
            "s2: v1.2",
            "s2: ok",
            "s2: committed at LSN",
        ],
    );
}

#[test]
fn a_session_that_waits_leaves_the_prompt_and_goes_on_when_granted() {
    let said = transcript(
        "create t\nbegin s1\ns1 put t k one\nbegin s2\ns2 get t k for update\ns2 get t k\n\
         begin s3\ns3 get t k\ns3 lock t k share\nlocks\ns1 commit\ns2 put t k two\ns2 commit\n\
         s3 get t k\nlocks\n",
    );
    in_order(
        &said,
        &[
            "> s2 get t k for update",
            "s2 waits for row `k` of table `t` in mode Update, held by 1-1 `s1` (NoKeyUpdate)",
            "> s2 get t k",
            "error: s2 is still waiting: refused",
            "> s3 get t k",
            "s3: (none)",
            "s3 waits for row `k` of table `t` in mode Share, held by 1-1 `s1` (NoKeyUpdate), behind 1-2 `s2` (Update)",
            "waiting   1-2",
            "> s1 commit",
            "s1: committed at LSN",
            "s2: one",
            "> s2 put t k two",
            "> s2 commit",
            "s2: committed at LSN",
            "s3: locked Share, token",
            "> s3 get t k",
            "s3: two",
            "1 open transaction aborted",
        ],
    );
}

#[test]
fn a_deadlock_ends_with_one_victim_and_the_other_goes_on() {
    let said = transcript(
        "create t\nbegin a\nbegin b\na lock t x update\nb lock t y update\n\
         a lock t y update\nb lock t x update\nb get t x\nb abort\na commit\n",
    );
    in_order(
        &said,
        &[
            "a waits for row `y` of table `t` in mode Update, held by 1-2 `b` (Update)",
            "b: error: deadlock: ",
            "a: locked Update, token",
            "> b get t x",
            "b: error: deadlock: ",
            "b: aborted",
            "a: committed at LSN",
        ],
    );
}

#[test]
fn a_wait_with_a_limit_ends_by_itself() {
    let said = transcript(
        "create t\nbegin s1\ns1 lock t k share\nbegin s2 wait 30\ns2 put t k v\nawait s2\n\
         begin s3 wait 0\ns3 put t k v\ns2 lock t k key share\n",
    );
    in_order(
        &said,
        &[
            "s2 waits for row `k`",
            "> await s2",
            "s2: error: row `k` of table `t` was not granted in mode NoKeyUpdate within 30 ms",
            "> s3 put t k v",
            "s3: error: row `k` of table `t` was not granted in mode NoKeyUpdate within 0 ms",
            "s2: locked KeyShare",
            "3 open transactions aborted",
        ],
    );
}

#[test]
fn savepoints_give_back_rows_and_locks() {
    let said = transcript(
        "create t\nbegin s1\ns1 put t a 1\ns1 savepoint before\ns1 put t a 2\ns1 put t b 2\ns1 scan t\n\
         s1 rollback before\ns1 scan t\nbegin s2 nowait\ns2 put t b 9\ns2 put t a 9\ns1 rollback nothing\n\
         s1 commit\ns2 commit\nbegin s3\ns3 scan t\ns3 scan t b c for update\ns3 delete t b\ns3 delete t b\n",
    );
    in_order(
        &said,
        &[
            "s1: a = 2",
            "s1: b = 2",
            "s1: 2 rows",
            "> s1 rollback before",
            "s1: ok",
            "s1: a = 1",
            "s1: 1 row",
            "> s2 put t b 9",
            "s2: ok",
            "> s2 put t a 9",
            "s2: error: row `a` of table `t` is locked",
            "s1: error: no savepoint `nothing`",
            "> s3 scan t",
            "s3: a = 1",
            "s3: b = 9",
            "s3: 2 rows",
            "> s3 scan t b c for update",
            "s3: b = 9",
            "s3: 1 row",
            "s3: deleted",
            "s3: (none)",
        ],
    );
}

#[test]
fn keys_and_values_may_hold_anything() {
    let said = transcript(
        "create t\nbegin s1\ns1 put t 'a key' \"a \\\"value\\\"\\n\\x00\"\ns1 get t \"a key\"\ns1 put t '' v\n\
         s1 put t for v\ns1 put t 'for' v\ns1 get t 'for'\n",
    );
    in_order(
        &said,
        &[
            "s1: ok",
            "s1: a \\\"value\\\"\\n\\x00",
            "s1: error: the key is empty",
            "error: `v` is no lock mode",
            "s1: ok",
            "s1: v",
        ],
    );
}

#[test]
fn what_makes_no_sense_is_refused_and_the_shell_goes_on() {
    let said = transcript(
        "fly\ns1 get t k\nbegin s1\nbegin s1\ns1 get t k\ns1 commit\ns1 get t k\nawait s9\ncreate ''\n\
         create t\ntables\nhelp\ncheck\nquit\nbegin s2\n",
    );
    in_order(
        &said,
        &[
            "error: `fly` is no command: see help",
            "error: there is no session s1: begin s1",
            "s1: transaction 1-1",
            "error: s1 has a transaction: commit or abort it first",
            "s1: error: there is no table `t`: create it with create_table",
            "s1: committed at LSN",
            "s1: error: no transaction: begin s1",
            "error: there is no session s9",
            "error: invalid argument: ",
            "ok",
            "> tables",
            "t",
            "await S",
            "0 findings",
            "> quit",
        ],
    );
    assert!(
        !said.contains("begin s2"),
        "nothing is read behind quit:\n{said}"
    );
}

#[test]
fn what_was_committed_is_there_in_the_next_shell() {
    let dir = tempfile::tempdir().expect("a directory");
    shell(
        dir.path(),
        "create t\nbegin s1\ns1 put t k v\ns1 commit\nbegin s2\ns2 put t k lost\n",
    );
    let said = shell(
        dir.path(),
        "begin s1\ns1 get t k\nlocks\ntransactions\ns1 commit\ntransactions\nreport\ninfo\nstats\n",
    );
    in_order(
        &said,
        &[
            "s1: transaction 2-1",
            "s1: v",
            "no locks",
            "2-1           s1",
            "no transactions",
            "the run before was closed in order; this is run 2",
            "boot_epoch",
            "commits",
        ],
    );
}
