//! The paths of a source file: its `use` trees, flattened, and the paths written out in its code.

use std::collections::HashSet;

use super::items::{Live, group_tokens};
use super::lexer::Token;

/// A path as written, with where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    pub(crate) segments: Vec<&'a str>,
    pub(crate) line: usize,
    /// The modules inside the file in which it stands.
    pub(crate) inside: Vec<&'a str>,
}

/// One leaf of a `use` tree. A glob's last segment is `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import<'a> {
    pub(crate) path: Path<'a>,
    /// The name that it brings in.
    pub(crate) name: &'a str,
    /// Whether it is passed on (`pub use`, `pub(crate) use`).
    pub(crate) is_public: bool,
}

/// Everything that a file says about other modules.
#[derive(Debug, Default)]
pub(crate) struct Paths<'a> {
    pub(crate) imports: Vec<Import<'a>>,
    /// Paths of two segments or more outside `use`.
    pub(crate) written: Vec<Path<'a>>,
    /// Every word outside `use`.
    pub(crate) words: HashSet<&'a str>,
}

impl<'a> Paths<'a> {
    pub(crate) fn of(live: &Live<'a>) -> Self {
        let tokens = live.tokens.as_slice();
        let mut paths = Self::default();
        // Modules inside the file that are open, each with the index of its closing brace.
        let mut inside: Vec<(&'a str, usize)> = Vec::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            inside.retain(|(_, end)| at < *end);
            let rest = tokens.split_at(at).1;
            let names: Vec<_> = inside.iter().map(|(name, _)| *name).collect();
            if let [keyword, name, brace, ..] = rest
                && keyword.text == "mod"
                && brace.text == "{"
            {
                inside.push((name.text, at + 1 + group_tokens(rest.split_at(2).1)));
                at += 3;
            } else if let Some(count) = use_tokens(rest) {
                let is_public = at.checked_sub(1).is_some_and(|before| {
                    let before = tokens.get(before).map_or("", |token| token.text);
                    before == "pub" || before == ")"
                });
                let tree = rest.get(1..count - 1).unwrap_or_default();
                paths.flatten(
                    tree,
                    &Path {
                        segments: Vec::new(),
                        line: token.line,
                        inside: names,
                    },
                    is_public,
                );
                at += count;
            } else {
                at += paths.path_or_word(rest, names, tokens.split_at(at).0.last());
            }
        }
        paths
    }

    /// Takes in the path or the token that `rest` begins with; how many tokens it is.
    fn path_or_word(
        &mut self,
        rest: &[Token<'a>],
        inside: Vec<&'a str>,
        before: Option<&Token<'_>>,
    ) -> usize {
        let Some(first) = rest.first().filter(|first| first.is_word()) else {
            return 1;
        };
        self.words.insert(first.text);
        let mut segments = vec![first.text];
        let mut count = 1;
        while let [colons, word, ..] = rest.split_at(count).1
            && colons.text == "::"
            && word.is_word()
        {
            segments.push(word.text);
            count += 2;
        }
        let starts_here = before.is_none_or(|token| token.text != "." && token.text != "::");
        if segments.len() > 1 && starts_here {
            let line = first.line;
            self.written.push(Path {
                segments,
                line,
                inside,
            });
        }
        count
    }

    /// Takes in every leaf of the `use` tree `tree`, whose segments so far are in `stem`.
    fn flatten(&mut self, tree: &[Token<'a>], stem: &Path<'a>, is_public: bool) {
        let mut path = stem.clone();
        let mut rest = tree;
        while let [first, tail @ ..] = rest {
            match first.text {
                "::" => {}
                "{" => {
                    let inner = tail.split_at(group_tokens(rest).saturating_sub(2)).0;
                    for branch in branches(inner) {
                        self.flatten(branch, &path, is_public);
                    }
                    return;
                }
                "as" => break,
                // `{self, ...}` names the stem itself.
                "self" if !path.segments.is_empty() => {}
                segment => {
                    path.line = first.line;
                    path.segments.push(segment);
                }
            }
            rest = tail;
        }
        let name = match rest {
            [_as, alias, ..] => alias.text,
            _ => path.segments.last().copied().unwrap_or_default(),
        };
        if !path.segments.is_empty() {
            self.imports.push(Import {
                path,
                name,
                is_public,
            });
        }
    }
}

/// How many tokens the `use` declaration has that `rest` begins with, its `;` counted.
fn use_tokens(rest: &[Token<'_>]) -> Option<usize> {
    let [keyword, next, ..] = rest else {
        return None;
    };
    // `impl Trait + use<'a>` is no import.
    if keyword.text != "use" || next.text == "<" {
        return None;
    }
    rest.iter()
        .position(|token| token.text == ";")
        .map(|end| end + 1)
}

/// The parts of `list` between the commas that stand in no inner brace.
fn branches<'t, 'a>(list: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut depth = 0_usize;
    list.split(|token| {
        match token.text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        token.text == "," && depth == 0
    })
    .filter(|branch| !branch.is_empty())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(source: &str) -> Vec<String> {
        let live = Live::of(source);
        let shown = |import: &Import<'_>| {
            let public = if import.is_public { "pub " } else { "" };
            let path = import.path.segments.join("::");
            format!("{}{public}{path} as {}", import.path.line, import.name)
        };
        Paths::of(&live).imports.iter().map(shown).collect()
    }

    #[test]
    fn use_trees_are_flattened() {
        assert_eq!(
            imports(
                "use a::b;\nuse a::{self, c::{d, e as f},\n g::*};\npub(crate) use super::h as _;\npub use i::j;"
            ),
            [
                "1a::b as b",
                "2a as a",
                "2a::c::d as d",
                "2a::c::e as f",
                "3a::g::* as *",
                "4pub super::h as _",
                "5pub i::j as j",
            ]
        );
    }

    #[test]
    fn written_paths_are_found_where_they_start() {
        let live = Live::of(
            "use x::y;\nfn f() -> impl A + use<'_> { crate::a::B::c(); self.d::<u8>(); e::f!(); Vec::<g::H>::new() }",
        );
        let paths = Paths::of(&live);
        let written: Vec<_> = paths
            .written
            .iter()
            .map(|path| path.segments.join("::"))
            .collect();
        assert_eq!(written, ["crate::a::B::c", "e::f", "g::H"]);
        assert!(paths.words.contains("A") && !paths.words.contains("y"));
    }

    #[test]
    fn modules_inside_the_file_are_known() {
        let live = Live::of("mod a { mod b { use super::x; } use super::y; } use super::z;");
        let paths = Paths::of(&live);
        let inside: Vec<_> = paths
            .imports
            .iter()
            .map(|import| import.path.inside.join("::"))
            .collect();
        assert_eq!(inside, ["a::b", "a", ""]);
    }
}
