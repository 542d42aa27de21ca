//! Words that must not stand in the repository: what is unfinished, and what speaks of one machine.
//!
//! They are put together from pieces here, since this file is read as well.

use super::tree::{Finding, Tree};

/// Work that was put off.
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ign", "ore"),
];

/// Places and trades of one machine.
const ELSEWHERE: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
    concat!(".libr", "ary"),
    concat!("suba", "gent"),
];

/// No unfinished work, no test that does not run, no word about the machine it was written on.
pub(crate) fn words(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (at, line) in file.text.lines().enumerate() {
            let mut note = |word: &str, mend: &str| {
                let what = format!("says `{word}`");
                findings.push(Finding::new(&file.path, at + 1, what, mend));
            };
            for word in UNFINISHED.into_iter().filter(|word| stands_in(line, word)) {
                note(word, "finish it, or leave it out and say so in the limits");
            }
            for word in ELSEWHERE.into_iter().filter(|word| line.contains(word)) {
                note(word, "the repository speaks of itself alone");
            }
            if names_a_numbered_issue(line) {
                note("a number of some tracker", "say what the matter is instead");
            }
        }
    }
    findings
}

/// Whether `word` stands in `line` and is no part of a longer run of letters.
fn stands_in(line: &str, word: &str) -> bool {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let behind = rest.split_at(word.len()).1;
        !is_letter(before.chars().next_back())
            && (word.ends_with('(') || !is_letter(behind.chars().next()))
    })
}

/// Whether it refers to a numbered entry of some tracker that a reader cannot open.
fn names_a_numbered_issue(line: &str) -> bool {
    let word = concat!("iss", "ue ");
    let lower = line.to_ascii_lowercase();
    lower.match_indices(word).any(|(at, _)| {
        let number = lower.split_at(at + word.len()).1.trim_start_matches('#');
        number.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_banned_word_is_found() {
        for word in UNFINISHED.into_iter().chain(ELSEWHERE) {
            let text = format!("fine\n a {word}) b\n");
            let found = words(&Tree::of(&[("docs/a.md", &text)]));
            assert_eq!(found.len(), 1, "{word}");
            assert!(
                found
                    .iter()
                    .all(|it| it.line == 2 && it.what.contains(word))
            );
        }
        for number in ["7", "#12"] {
            let text = format!("as in I{} {number}", "ssue");
            assert_eq!(words(&Tree::of(&[("a.rs", &text)])).len(), 1, "{text}");
        }
    }

    #[test]
    fn harmless_neighbours_are_not_found() {
        for text in [
            &format!("mkstemp {}", "X".repeat(6)),
            "the todo list",
            "issues 5 commands",
            "an issue of order",
            "rocksdb#13731",
            "network/ and workspace/",
            "#[expect(unused)]",
        ] {
            assert_eq!(words(&Tree::of(&[("a.rs", text)])), [], "{text}");
        }
    }
}
