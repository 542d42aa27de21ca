//! The repository as the checks see it: paths and texts, read once, and what a check says about them.
//!
//! Checks take a [`Tree`] and return [`Finding`]s, so that a self-test can plant a violation in a tree
//! that was never on a disk.

use std::fmt;
use std::fs;
use std::path::Path;

/// One file: its path from the repository's root with `/` between the parts, and its text.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    /// Empty for a file that is not text.
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            bytes: text.as_bytes().to_vec(),
        }
    }

    /// The folder that holds it, without a `/` at the end; empty for the root.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    pub(crate) fn name(&self) -> &str {
        self.path
            .rsplit_once('/')
            .map_or(&self.path, |(_, name)| name)
    }

    pub(crate) fn is(&self, extension: &str) -> bool {
        self.name()
            .rsplit_once('.')
            .is_some_and(|(_, found)| found == extension)
    }

    /// Whether all of it is test code by its place: a `tests` folder, or a file `tests.rs`.
    pub(crate) fn is_test_by_place(&self) -> bool {
        self.path
            .split('/')
            .any(|part| part == "tests" || part == "tests.rs")
    }
}

/// Every file of the repository, sorted by path.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// What is no part of the house: build output, the version control's own, lock files, databases.
fn is_foreign(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    matches!(name, ".git" | "target") || matches!(extension, Some("lock" | "lockstone"))
}

impl Tree {
    /// A tree of (path, text), for self-tests.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| File::new(path, text))
            .collect();
        Self { files }
    }

    /// Reads the repository at `root`.
    #[expect(
        clippy::disallowed_methods,
        reason = "this test reads the sources themselves; no engine code runs here"
    )]
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the repository is readable") {
                let entry = entry.expect("the repository is readable");
                let path = entry.path();
                if is_foreign(&entry.file_name().to_string_lossy()) || path.is_symlink() {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let shown = path.strip_prefix(root).expect("found below the root");
                let bytes = fs::read(&path).expect("the repository is readable");
                tree.files.push(File {
                    path: shown.to_string_lossy().into_owned(),
                    text: String::from_utf8(bytes.clone()).unwrap_or_default(),
                    bytes,
                });
            }
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether `path` is a file or a folder with a file in it.
    pub(crate) fn has(&self, path: &str) -> bool {
        path.is_empty()
            || self.files.iter().any(|file| {
                file.path == path
                    || file
                        .path
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.starts_with('/'))
            })
    }

    pub(crate) fn with_extension(&self, extension: &str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| file.is(extension))
    }
}

/// One breach of a rule of the house.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) what: String,
    /// How to mend it.
    pub(crate) mend: String,
}

impl Finding {
    pub(crate) fn new(
        path: &str,
        line: usize,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
            mend: mend.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            what,
            mend,
        } = self;
        write!(f, "{path}:{line}: {what}: {mend}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_read_with_its_own_sources() {
        let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
        let own = tree
            .file("tests/tidy/tree.rs")
            .expect("this file is in the tree");
        assert!(own.text.contains("this file is in the tree"));
        assert!(tree.has("tests/tidy") && !tree.has("tests/tid"));
        assert!(!tree.has(".git") && !tree.has("Cargo.lock") && !tree.has("target"));
    }

    #[test]
    fn places_make_tests() {
        for path in ["tests/tidy.rs", "wal/src/scan/tests.rs", "wal/tests/a/b.rs"] {
            assert!(File::new(path, "").is_test_by_place(), "{path}");
        }
        for path in ["testkit/src/lib.rs", "wal/src/tests_of_time.rs"] {
            assert!(!File::new(path, "").is_test_by_place(), "{path}");
        }
    }
}
