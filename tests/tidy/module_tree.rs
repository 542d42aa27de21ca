//! The modules of a crate: which file holds which, and in which order a file lists its children.
//!
//! What only tests see is left out.

use super::items::Live;
use super::tree::{File, Tree};

/// One module with a file of its own.
#[derive(Debug)]
pub(crate) struct Module<'a> {
    pub(crate) file: &'a File,
    /// Its names from the crate's root; empty for the root.
    pub(crate) path: Vec<&'a str>,
    pub(crate) live: Live<'a>,
    /// Its children with files of their own, in the order in which it lists them.
    pub(crate) children: Vec<&'a str>,
}

/// Where the files of the modules are that the file at `path` declares.
pub(crate) fn children_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_own_folder = matches!(name, "lib.rs" | "main.rs" | "mod.rs") || folder.ends_with("/bin");
    if is_own_folder {
        folder.to_owned()
    } else {
        format!("{folder}/{}", name.trim_end_matches(".rs"))
    }
}

/// The modules of the crate whose root is `root`, each before its children.
pub(crate) fn modules<'a>(tree: &'a Tree, root: &'a File) -> Vec<Module<'a>> {
    let mut found = Vec::new();
    let mut open: Vec<(&'a File, Vec<&'a str>)> = vec![(root, Vec::new())];
    while let Some((file, path)) = open.pop() {
        let live = Live::of(&file.text);
        let folder = children_folder(&file.path);
        let mut children = Vec::new();
        for name in declared(&live) {
            let places = [
                format!("{folder}/{name}.rs"),
                format!("{folder}/{name}/mod.rs"),
            ];
            if let Some(child) = places.iter().find_map(|place| tree.file(place)) {
                let path = path.iter().copied().chain([name]).collect();
                open.push((child, path));
                children.push(name);
            }
        }
        found.push(Module {
            file,
            path,
            live,
            children,
        });
    }
    found
}

/// The names behind `mod name;`, in order.
fn declared<'a>(live: &Live<'a>) -> Vec<&'a str> {
    let triples = live.tokens.windows(3);
    triples
        .filter_map(|triple| match triple {
            [keyword, name, end] if keyword.text == "mod" && end.text == ";" => Some(name.text),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_as_the_compiler_finds_them() {
        let tree = Tree::of(&[
            (
                "wal/src/lib.rs",
                "mod b; pub mod a; #[cfg(test)] mod tests; mod inline { }",
            ),
            ("wal/src/a.rs", "pub(crate) mod deep;"),
            ("wal/src/a/deep.rs", ""),
            ("wal/src/b/mod.rs", "mod leaf;"),
            ("wal/src/b/leaf.rs", ""),
            ("wal/src/tests.rs", ""),
        ]);
        let root = tree.file("wal/src/lib.rs").expect("planted");
        let mut found: Vec<_> = modules(&tree, root)
            .iter()
            .map(|module| {
                (
                    module.file.path.clone(),
                    module.path.join("::"),
                    module.children.join(" "),
                )
            })
            .collect();
        found.sort();
        let expected = [
            ("wal/src/a.rs", "a", "deep"),
            ("wal/src/a/deep.rs", "a::deep", ""),
            ("wal/src/b/leaf.rs", "b::leaf", ""),
            ("wal/src/b/mod.rs", "b", "leaf"),
            ("wal/src/lib.rs", "", "b a"),
        ];
        let expected = expected
            .map(|(file, path, children)| (file.to_owned(), path.to_owned(), children.to_owned()));
        assert_eq!(found, expected);
    }
}
