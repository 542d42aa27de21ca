//! Inside a crate, too, a file knows only what stands below it.
//!
//! `lib.rs` and every `mod.rs` list their modules lowest first. A file may use
//! - modules that stand above it in the list that both are in, or above its parent in the parent's list;
//! - its own children (a `mod.rs` is the front of its folder);
//! - what its parent defines itself, as long as the parent does not use it in turn.
//!
//! So no two files need each other, however long the way round. A `pub use` is a table of contents: it
//! counts as a use only if the file needs the name itself.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Path, Paths};
use super::layers::Package;
use super::module_tree::{Module, modules};
use super::tree::{Finding, Tree};

/// A crate with all that its files say about each other.
struct Crate<'a> {
    modules: Vec<Module<'a>>,
    /// Of each module, in the same order.
    paths: Vec<Paths<'a>>,
}

/// One file needs another: indices into the modules, and the line that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edge {
    from: usize,
    to: usize,
    line: usize,
}

/// How many re-exports are followed from one name before it counts as found.
const REEXPORTS_MAX: usize = 8;

impl<'a> Crate<'a> {
    fn of(modules: Vec<Module<'a>>) -> Self {
        let paths = modules
            .iter()
            .map(|module| Paths::of(&module.live))
            .collect();
        Self { modules, paths }
    }

    fn find(&self, path: &[&str]) -> Option<usize> {
        self.modules.iter().position(|module| module.path == path)
    }

    /// The module whose file holds what `path`, standing in module `from`, leads to; `None` if that
    /// is not of this crate.
    fn resolve(&self, from: usize, path: &Path<'a>, follows: usize) -> Option<usize> {
        let mut here = self.modules.get(from)?.path.clone();
        here.extend(&path.inside);
        let mut segments = path.segments.iter().copied().peekable();
        let is_relative = matches!(path.segments.first(), Some(&("crate" | "self" | "super")));
        while let Some(segment) = segments.next_if(|it| matches!(*it, "crate" | "self" | "super")) {
            match segment {
                "crate" => here.clear(),
                "super" => drop(here.pop()),
                _ => {}
            }
        }
        let mut at = self.find(&here);
        let mut is_inside = false;
        while let Some(segment) = segments.peek() {
            let deeper: Vec<_> = here.iter().copied().chain([*segment]).collect();
            let Some(found) = self.find(&deeper) else {
                break;
            };
            (at, here, is_inside) = (Some(found), deeper, true);
            segments.next();
        }
        if !is_relative && !is_inside {
            return None;
        }
        // A module inside a file belongs to that file.
        let at = at.or_else(|| {
            (0..here.len())
                .rev()
                .find_map(|end| self.find(here.get(..end)?))
        })?;
        match segments.next() {
            Some(name) if follows > 0 => Some(self.through(at, name, follows - 1)),
            _ => Some(at),
        }
    }

    /// Where module `at` has `name` from: itself, or the module from which it takes it.
    fn through(&self, at: usize, name: &str, follows: usize) -> usize {
        let imports = self.paths.get(at).map(|paths| paths.imports.as_slice());
        let import = imports
            .unwrap_or_default()
            .iter()
            .find(|import| import.name == name && import.path.inside.is_empty());
        import
            .and_then(|import| self.resolve(at, &import.path, follows))
            .unwrap_or(at)
    }

    fn edges(&self) -> Vec<Edge> {
        let mut edges: Vec<Edge> = Vec::new();
        for (from, paths) in self.paths.iter().enumerate() {
            let needed = paths
                .imports
                .iter()
                .filter(|import| !import.is_public || paths.words.contains(import.name))
                .map(|import| &import.path);
            for path in needed.chain(&paths.written) {
                if let Some(to) = self.resolve(from, path, REEXPORTS_MAX)
                    && to != from
                    && !edges
                        .iter()
                        .any(|known| (known.from, known.to) == (from, to))
                {
                    let line = path.line;
                    edges.push(Edge { from, to, line });
                }
            }
        }
        edges
    }

    /// A finding if the edge leads to a module that its list names below the one it comes from.
    fn against_order(&self, edge: Edge) -> Option<Finding> {
        let from = self.modules.get(edge.from)?;
        let to = self.modules.get(edge.to)?;
        let shared = from
            .path
            .iter()
            .zip(&to.path)
            .take_while(|(a, b)| a == b)
            .count();
        let (own, other) = (from.path.get(shared)?, to.path.get(shared)?);
        let parent = self.modules.get(self.find(from.path.get(..shared)?)?)?;
        let place = |name| parent.children.iter().position(|child| child == name);
        if place(other) < place(own) {
            return None;
        }
        let list = &parent.file.path;
        Some(Finding::new(
            &from.file.path,
            edge.line,
            format!(
                "uses `{}`, which {list} lists below `{own}`",
                to.path.join("::")
            ),
            format!(
                "list `{other}` above `{own}` if it needs nothing of it, else move what both need into a module of its own below them"
            ),
        ))
    }

    /// The files that need each other in a ring, each ring once.
    fn cycles(&self, edges: &[Edge]) -> Vec<Finding> {
        let mut next: BTreeMap<usize, Vec<Edge>> = BTreeMap::new();
        for edge in edges {
            next.entry(edge.from).or_default().push(*edge);
        }
        let mut findings = Vec::new();
        let mut known = BTreeSet::new();
        for start in 0..self.modules.len() {
            let Some(ring) = ring_through(start, &next) else {
                continue;
            };
            let members: BTreeSet<_> = ring.iter().map(|edge| edge.from).collect();
            if !known.insert(members) {
                continue;
            }
            let file = |at: usize| self.modules.get(at).map_or("", |module| &module.file.path);
            let steps: Vec<_> = ring
                .iter()
                .map(|edge| format!("{}:{} -> {}", file(edge.from), edge.line, file(edge.to)))
                .collect();
            let line = ring.first().map_or(1, |edge| edge.line);
            findings.push(Finding::new(
                file(start),
                line,
                format!("needs itself by way of others ({})", steps.join(", ")),
                "move what the lower one needs into a module of its own, listed above both",
            ));
        }
        findings
    }
}

/// The shortest ring of edges from `start` back to it.
fn ring_through(start: usize, next: &BTreeMap<usize, Vec<Edge>>) -> Option<Vec<Edge>> {
    let mut seen = BTreeSet::new();
    let mut ways: Vec<Vec<Edge>> = vec![Vec::new()];
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let end = way.last().map_or(start, |edge| edge.to);
            for edge in next.get(&end).map(Vec::as_slice).unwrap_or_default() {
                let further: Vec<_> = way.iter().copied().chain([*edge]).collect();
                if edge.to == start {
                    return Some(further);
                }
                if seen.insert(edge.to) {
                    longer.push(further);
                }
            }
        }
        ways = longer;
    }
    None
}

/// Files import downwards only, in every crate.
pub(crate) fn order(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for root in packages.iter().flat_map(|package| package.roots(tree)) {
        let modules = modules(tree, root);
        let lists_more = modules.first().is_some_and(|root| root.children.len() > 1);
        if lists_more && !root.text.contains("lowest first") {
            findings.push(Finding::new(
                &root.path,
                1,
                "does not say in which order it lists its modules",
                "write in its header: modules, lowest first: a file uses only what stands above it",
            ));
        }
        let whole = Crate::of(modules);
        let edges = whole.edges();
        let backwards: Vec<_> = edges
            .iter()
            .filter_map(|edge| whole.against_order(*edge))
            .collect();
        // A ring among siblings has an edge against the order, which says more.
        if backwards.is_empty() {
            findings.extend(whole.cycles(&edges));
        }
        findings.extend(backwards);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::packages;

    /// What is found in a crate with these files besides its root, whose list is `a`, `b`, `c`.
    fn found(root: &str, files: &[(&str, &str)]) -> Vec<String> {
        let root = format!("//! Modules, lowest first.\nmod a; pub mod b; mod c;\n{root}");
        let manifest = "[workspace]\nmembers = [\"wal\"]\n";
        let mut all = vec![
            ("Cargo.toml", manifest),
            ("wal/Cargo.toml", "[package]\nname = \"lockstone-wal\"\n"),
            ("wal/src/lib.rs", &root),
        ];
        for name in ["wal/src/a.rs", "wal/src/b.rs", "wal/src/c.rs"] {
            let folder = name.replace(".rs", "/mod.rs");
            if !files
                .iter()
                .any(|(path, _)| *path == name || *path == folder)
            {
                all.push((name, ""));
            }
        }
        all.extend(files);
        let tree = Tree::of(&all);
        let findings = order(&tree, &packages(&tree));
        findings
            .iter()
            .map(|it| format!("{}:{} {}", it.path, it.line, it.what))
            .collect()
    }

    #[test]
    fn downward_uses_are_fine() {
        let files = [
            (
                "wal/src/b/mod.rs",
                "mod d; mod e; use d::D; pub use e::E; fn f() { crate::a::g(); }",
            ),
            ("wal/src/b/d.rs", "use crate::a::A; use super::super::a;"),
            ("wal/src/b/e.rs", "use super::{d::D, Defined}; struct E;"),
            (
                "wal/src/c.rs",
                "use crate::{a, b::{E, d::D}}; use std::c; use lockstone_base::c; #[cfg(test)] mod tests { use super::*; }",
            ),
        ];
        assert_eq!(found("pub use c::C;", &files), [""; 0]);
    }

    #[test]
    fn upward_uses_are_found_in_every_spelling() {
        for source in [
            "use crate::c::C;",
            "use super::{a::A, c};",
            "use crate::{a, c::{self, C}};",
            "fn f() { crate::c::g() }",
            "fn f() { super::c::g::<u8>() }",
            "struct F { c: self::super::c::C }",
            "use crate::C;",
            "mod inner { use super::super::c::C; }",
            "macro_rules! m { () => { $crate::c::g() } }",
        ] {
            let files = [("wal/src/b.rs", source)];
            assert_eq!(
                found("pub use c::C;", &files),
                ["wal/src/b.rs:1 uses `c`, which wal/src/lib.rs lists below `b`"],
                "{source}"
            );
        }
    }

    #[test]
    fn a_child_may_not_use_what_stands_below_its_parent_nor_below_itself() {
        let files = [
            ("wal/src/b/mod.rs", "mod d; mod e; pub use e::E;"),
            ("wal/src/b/d.rs", "use crate::c::C;\nuse super::E;"),
            ("wal/src/b/e.rs", ""),
        ];
        assert_eq!(
            found("", &files),
            [
                "wal/src/b/d.rs:1 uses `c`, which wal/src/lib.rs lists below `b`",
                "wal/src/b/d.rs:2 uses `b::e`, which wal/src/b/mod.rs lists below `d`",
            ]
        );
    }

    #[test]
    fn a_parent_and_a_child_that_need_each_other_are_found() {
        let child = ("wal/src/b/d.rs", "use super::Defined; pub struct D;");
        for parent in [
            "mod d; use d::D;",
            "mod d; fn f() { d::g() }",
            "mod d; pub use d::D; fn f(d: D) {}",
        ] {
            let found = found("", &[("wal/src/b/mod.rs", parent), child]);
            assert_eq!(found.len(), 1, "{parent}: {found:?}");
            assert!(
                found.iter().all(|it| it.contains("needs itself")),
                "{found:?}"
            );
        }
        // A table of contents is no need.
        let parent = (
            "wal/src/b/mod.rs",
            "mod d; pub use d::D; pub struct Defined;",
        );
        assert_eq!(found("", &[parent, child]), [""; 0]);
    }

    #[test]
    fn a_ring_by_way_of_a_sibling_is_found() {
        let files = [
            ("wal/src/b/mod.rs", "mod d; mod e; use e::E;"),
            ("wal/src/b/d.rs", "use super::Defined;"),
            ("wal/src/b/e.rs", "use super::d::D;"),
        ];
        let found = found("", &files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found.iter().all(|it| it.matches("->").count() == 3),
            "{found:?}"
        );
    }

    #[test]
    fn a_root_that_does_not_tell_its_order_is_found() {
        let tree = Tree::of(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"wal\"]\n"),
            ("wal/Cargo.toml", "[package]\nname = \"lockstone-wal\"\n"),
            ("wal/src/lib.rs", "//! The log.\nmod a; mod b;\n"),
            ("wal/src/a.rs", ""),
            ("wal/src/b.rs", ""),
        ]);
        assert_eq!(order(&tree, &packages(&tree)).len(), 1);
    }
}
