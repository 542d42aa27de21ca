//! The table of invariants in `ARCHITECTURE.md` is true: files and tests that it names are there, and
//! every rule that the code cites has its row.
//!
//! A row is `| G6 | what | [path](path), … | `test_name`, … |`. A cell without links or names is allowed:
//! it says in words what is missing.

use super::lexer::tokens;
use super::tree::{Finding, Tree};

const PAGE: &str = "ARCHITECTURE.md";
/// Provisional runs, write path, log, store, lock table, locks, recovery, faults.
const LETTERS: [char; 8] = ['V', 'W', 'G', 'S', 'K', 'L', 'R', 'F'];

/// A row of the table.
struct Row<'a> {
    line: usize,
    rule: &'a str,
    files: Vec<&'a str>,
    tests: Vec<&'a str>,
}

/// The rules cited in `text`: a letter and at most two digits, standing alone.
fn rules(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| {
        let mut letters = word.chars();
        let is_letter = letters.next().is_some_and(|c| LETTERS.contains(&c));
        let number = letters.as_str();
        is_letter
            && (1..=2).contains(&number.len())
            && number.bytes().all(|digit| digit.is_ascii_digit())
            && !number.starts_with('0')
    })
}

fn rows(page: &str) -> Vec<Row<'_>> {
    let mut found = Vec::new();
    for (at, line) in page.lines().enumerate() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let Some(rule) = cells
            .next()
            .filter(|cell| rules(cell).any(|rule| rule == *cell))
        else {
            continue;
        };
        let (files, tests) = (
            cells.nth(1).unwrap_or_default(),
            cells.next().unwrap_or_default(),
        );
        let links = files
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        found.push(Row {
            line: at + 1,
            rule,
            files: links.map(|(target, _)| target).collect(),
            tests: tests.split('`').skip(1).step_by(2).collect(),
        });
    }
    found
}

/// Every row is true, and no rule of the code is without one.
pub(crate) fn invariants(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.file(PAGE) else {
        return vec![Finding::new(PAGE, 1, "is missing", "write it")];
    };
    let rows = rows(&page.text);
    let functions = function_names(tree);
    let mut findings = Vec::new();
    for row in &rows {
        let mut note = |what: String, mend: &str| {
            findings.push(Finding::new(PAGE, row.line, what, mend));
        };
        for path in &row.files {
            let cites = tree
                .file(path)
                .is_some_and(|file| rules(&file.text).any(|it| it == row.rule));
            if !cites {
                let what = format!(
                    "{} is said to be kept in `{path}`, which does not cite it",
                    row.rule
                );
                note(what, "name the rule where it is kept, or mend the row");
            }
        }
        for name in &row.tests {
            if functions.binary_search(name).is_err() && tree.file(name).is_none() {
                let what = format!(
                    "{} is said to be attacked by `{name}`, which is not there",
                    row.rule
                );
                note(what, "name the test that attacks it");
            }
        }
    }
    findings.extend(rules_without_row(tree, &rows));
    findings
}

/// The names of all functions of the tree, sorted: tests have long ones.
fn function_names(tree: &Tree) -> Vec<&str> {
    let mut names = Vec::new();
    for file in tree.with_extension("rs") {
        let tokens = tokens(&file.text);
        let pairs = tokens.windows(2).filter_map(|pair| match pair {
            [keyword, name] if keyword.text == "fn" => Some(name.text),
            _ => None,
        });
        names.extend(pairs);
    }
    names.sort_unstable();
    names
}

fn rules_without_row(tree: &Tree, rows: &[Row<'_>]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    // This test speaks of rules in general, with examples of its own.
    let sources = tree
        .with_extension("rs")
        .filter(|file| !file.path.starts_with("tests/tidy"));
    for file in sources {
        for (at, line) in file.text.lines().enumerate() {
            let unknown = rules(line).filter(|rule| rows.iter().all(|row| row.rule != *rule));
            for rule in unknown {
                let what = format!("cites {rule}, which has no row in {PAGE}");
                let mend = "add the row: what holds, where it is kept, which test attacks it";
                findings.push(Finding::new(&file.path, at + 1, what, mend));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| rule | what | kept in | attacked by |\n| --- | --- | --- | --- |\n\
        | G6 | torn or corrupt | [tail](wal/src/tail.rs), [scan](wal/src/scan.rs) | `every_row`, `locks/testdata/a.txt` |\n\
        | K9 | no single moment | not built yet | |\n";

    fn found(page: &str, scan: &str) -> Vec<String> {
        let tree = Tree::of(&[
            (PAGE, page),
            ("wal/src/tail.rs", "//! G6\n#[test]\nfn every_row() {}"),
            ("wal/src/scan.rs", scan),
            ("locks/testdata/a.txt", ""),
        ]);
        invariants(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_true_table_is_not_found() {
        assert_eq!(
            found(TABLE, "// G6, (K9)\nconst G600: u8; x(\"G6x V_1 G0 G\")"),
            [""; 0]
        );
    }

    #[test]
    fn untrue_rows_and_rules_without_one_are_found() {
        assert!(
            found(TABLE, "// G600")
                .iter()
                .any(|it| it.contains("does not cite it"))
        );
        let page = TABLE.replace("every_row", "no_row");
        assert!(
            found(&page, "// G6")
                .iter()
                .all(|it| it.contains("ARCHITECTURE.md:3: G6 is said to be attacked"))
        );
        assert_eq!(found(&page, "// G6").len(), 1);
        let found = found(TABLE, "// G6\n// W11: x");
        assert_eq!(found.len(), 1);
        assert!(
            found
                .iter()
                .all(|it| it.starts_with("wal/src/scan.rs:2: cites W11"))
        );
    }

    #[test]
    fn a_missing_page_is_found() {
        assert_eq!(invariants(&Tree::of(&[])).len(), 1);
    }
}
