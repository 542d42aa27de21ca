//! What each file must be like by itself: its first line, its size, its name, its promises.

use super::items::{Live, functions};
use super::layers::Package;
use super::tree::{File, Finding, Tree};

const CODE_LINES_MAX: usize = 500;
const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 5;
const README_LINES_MAX: usize = 150;

/// Names that say nothing about what is inside.
const NAMES_BANNED: [&str; 7] = [
    "util", "utils", "helpers", "common", "misc", "types", "manager",
];

/// The one crate that may say `unsafe`.
const UNSAFE_CRATE: &str = "lockstone-base";

/// Every source file opens with what it is.
pub(crate) fn headers(tree: &Tree) -> Vec<Finding> {
    tree.with_extension("rs")
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| {
            Finding::new(
                &file.path,
                1,
                "opens without `//!`",
                "say what the file is, who calls it, what always holds and what a crash leaves",
            )
        })
        .collect()
}

/// The source files that are test code as a whole, by place or because their parent declares them so.
fn test_files(tree: &Tree) -> Vec<&str> {
    let mut found: Vec<_> = tree
        .with_extension("rs")
        .filter(|file| file.is_test_by_place())
        .map(|file| file.path.as_str())
        .collect();
    for file in tree.with_extension("rs") {
        for module in Live::of(&file.text).test_modules {
            let folder = super::module_tree::children_folder(&file.path);
            let places = [
                format!("{folder}/{module}.rs"),
                format!("{folder}/{module}/mod.rs"),
            ];
            let declared = tree.files.iter().filter(|file| places.contains(&file.path));
            found.extend(declared.map(|file| file.path.as_str()));
        }
    }
    found
}

/// No file is too long to read, no function too long to hold in the head.
pub(crate) fn sizes(tree: &Tree) -> Vec<Finding> {
    let tests = test_files(tree);
    let mut findings = Vec::new();
    for file in tree.with_extension("rs") {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(Finding::new(
                &file.path,
                lines,
                format!("has {lines} lines, the limit with tests is {FILE_LINES_MAX}"),
                "split it by what it is about",
            ));
        }
        if !tests.contains(&file.path.as_str()) {
            findings.extend(code_sizes(file, lines));
        }
    }
    findings
}

fn code_sizes(file: &File, lines: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let live = Live::of(&file.text);
    let code_lines = lines.saturating_sub(live.test_lines);
    if code_lines > CODE_LINES_MAX {
        findings.push(Finding::new(
            &file.path,
            lines,
            format!("has {code_lines} lines without tests, the limit is {CODE_LINES_MAX}"),
            "split it by what it is about",
        ));
    }
    for function in functions(&live.tokens) {
        let name = function.name;
        if function.lines > FUNCTION_LINES_MAX {
            let found = function.lines;
            findings.push(Finding::new(
                &file.path,
                function.line,
                format!("`{name}` has {found} lines, the limit is {FUNCTION_LINES_MAX}"),
                "give its steps names of their own",
            ));
        }
        if function.parameters > PARAMETERS_MAX {
            let found = function.parameters;
            findings.push(Finding::new(
                &file.path,
                function.line,
                format!("`{name}` has {found} parameters, the limit is {PARAMETERS_MAX}"),
                "pass an options struct",
            ));
        }
    }
    findings
}

/// Files and folders are nouns of the domain.
pub(crate) fn names(tree: &Tree) -> Vec<Finding> {
    let is_banned = |part: &str| {
        let stem = part.split('.').next().unwrap_or(part);
        NAMES_BANNED.contains(&stem.to_ascii_lowercase().as_str())
    };
    tree.files
        .iter()
        .filter(|file| file.path.split('/').any(is_banned))
        .map(|file| {
            Finding::new(
                &file.path,
                1,
                "is named after nothing",
                "name it after the thing of the domain that it holds",
            )
        })
        .collect()
}

/// Every crate but one forbids `unsafe`.
pub(crate) fn unsafe_is_forbidden(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let others = packages.iter().filter(|it| it.name != UNSAFE_CRATE);
    for root in others.flat_map(|package| package.roots(tree)) {
        let live = Live::of(&root.text);
        let texts: Vec<_> = live.tokens.iter().map(|token| token.text).collect();
        let promise = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
        if !texts.windows(promise.len()).any(|window| window == promise) {
            findings.push(Finding::new(
                &root.path,
                1,
                "does not forbid `unsafe`",
                "add `#![forbid(unsafe_code)]`; what needs `unsafe` belongs to base",
            ));
        }
    }
    findings
}

/// The front page stays a page.
pub(crate) fn readme_is_short(tree: &Tree) -> Vec<Finding> {
    let Some(readme) = tree.file("README.md") else {
        return Vec::new();
    };
    let lines = readme.text.lines().count();
    if lines <= README_LINES_MAX {
        return Vec::new();
    }
    vec![Finding::new(
        "README.md",
        lines,
        format!("has {lines} lines, the limit is {README_LINES_MAX}"),
        "move detail to docs/ or to the README of the crate concerned",
    )]
}

/// Every crate explains itself beside its code.
pub(crate) fn crates_explain_themselves(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    packages
        .iter()
        .filter(|package| !package.folder.is_empty())
        .map(|package| format!("{}/README.md", package.folder))
        .filter(|path| tree.file(path).is_none())
        .map(|path| {
            Finding::new(
                &path,
                1,
                "is missing",
                "write down the problem, why the naive way fails, the protocol, the limits",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::packages;

    fn lines(count: usize) -> String {
        "//! x\n".repeat(count)
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        let tree = Tree::of(&[
            ("a.rs", "//! A.\n"),
            ("b.rs", "use c;\n"),
            ("wal/build.rs", "\n//! Late.\n"),
            ("d.md", "# D\n"),
        ]);
        let found: Vec<_> = headers(&tree).into_iter().map(|it| it.path).collect();
        assert_eq!(found, ["b.rs", "wal/build.rs"]);
    }

    #[test]
    fn long_files_are_found_tests_aside() {
        let with_tests = format!(
            "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            lines(500),
            lines(200)
        );
        let tree = Tree::of(&[
            ("a/src/fits.rs", &lines(500)),
            ("a/src/long.rs", &lines(501)),
            ("a/src/with_tests.rs", &with_tests),
            ("a/src/parent.rs", "//! P\n#[cfg(test)]\nmod probe;\n"),
            ("a/src/parent/probe.rs", &lines(700)),
            ("a/src/scan/tests.rs", &lines(800)),
            ("a/tests/huge.rs", &lines(801)),
        ]);
        let found: Vec<_> = sizes(&tree)
            .into_iter()
            .map(|it| (it.path, it.line))
            .collect();
        assert_eq!(
            found,
            [
                ("a/src/long.rs".to_owned(), 501),
                ("a/tests/huge.rs".to_owned(), 801)
            ]
        );
    }

    #[test]
    fn long_functions_and_long_parameter_lists_are_found() {
        let body = "x();\n".repeat(68);
        let long = format!("//! x\nfn fits() {{\n{body}}}\nfn long() {{\nx();\n{body}}}\n");
        let wide = "//! x\nfn fits(&self, a: A, b: B, c: C, d: D, e: E) {}\nfn wide(a: A, b: B, c: C, d: D, e: E, f: F) {}\n\
            #[cfg(test)]\nfn probe(a: A, b: B, c: C, d: D, e: E, f: F) {}\n";
        let tree = Tree::of(&[
            ("long.rs", &long),
            ("wide.rs", wide),
            ("tests/wide.rs", wide),
        ]);
        let found: Vec<_> = sizes(&tree).into_iter().map(|it| it.to_string()).collect();
        assert_eq!(
            found,
            [
                "long.rs:72: `long` has 71 lines, the limit is 70: give its steps names of their own",
                "wide.rs:3: `wide` has 6 parameters, the limit is 5: pass an options struct",
            ]
        );
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        let tree = Tree::of(&[
            ("wal/src/util.rs", ""),
            ("wal/src/common/mod.rs", ""),
            ("wal/src/lock_manager.rs", ""),
            ("docs/types.md", ""),
        ]);
        let found: Vec<_> = names(&tree).into_iter().map(|it| it.path).collect();
        assert_eq!(
            found,
            ["wal/src/util.rs", "wal/src/common/mod.rs", "docs/types.md"]
        );
    }

    #[test]
    fn a_crate_that_allows_unsafe_is_found() {
        let workspace = "[workspace]\nmembers = [\".\", \"base\", \"wal\", \"cli\"]\n[package]\nname = \"lockstone\"\n";
        let tree = Tree::of(&[
            ("Cargo.toml", workspace),
            ("src/lib.rs", "//! L\n#![forbid(unsafe_code)]\n"),
            ("base/Cargo.toml", "[package]\nname = \"lockstone-base\"\n"),
            ("base/src/lib.rs", "//! B\n"),
            ("wal/Cargo.toml", "[package]\nname = \"lockstone-wal\"\n"),
            ("wal/src/lib.rs", "//! W\n// #![forbid(unsafe_code)]\n"),
            ("cli/Cargo.toml", "[package]\nname = \"lockstone-cli\"\n"),
            ("cli/src/main.rs", "//! C\n#![deny(unsafe_code)]\n"),
        ]);
        let packages = packages(&tree);
        let found: Vec<_> = unsafe_is_forbidden(&tree, &packages)
            .into_iter()
            .map(|it| it.path)
            .collect();
        assert_eq!(found, ["wal/src/lib.rs", "cli/src/main.rs"]);
        assert_eq!(crates_explain_themselves(&tree, &packages).len(), 3);
    }

    #[test]
    fn a_long_front_page_is_found() {
        assert_eq!(
            readme_is_short(&Tree::of(&[("README.md", &lines(150))])),
            []
        );
        assert_eq!(
            readme_is_short(&Tree::of(&[("README.md", &lines(151))])).len(),
            1
        );
        assert_eq!(
            readme_is_short(&Tree::of(&[("wal/README.md", &lines(151))])),
            []
        );
    }
}
