//! Library code reaches the machine through the ports of base alone, so that a simulated machine sees
//! everything; and the lock table reaches nothing at all.

use super::imports::Paths;
use super::layers::Package;
use super::module_tree::modules;
use super::tree::{Finding, Tree};

/// What no crate of the library but base may name.
const MACHINE: [&str; 8] = [
    "std::fs",
    "std::net",
    "std::os",
    "std::time::Instant::now",
    "std::time::SystemTime",
    "std::thread::sleep",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
];

/// What the lock table may not name besides: it decides, others wait and measure.
const WAITING: [&str; 2] = ["std::thread", "std::time"];

/// The crates that run on a simulated machine as well.
const ABOVE_THE_PORTS: [&str; 5] = [
    "lockstone",
    "lockstone-recovery",
    "lockstone-storage",
    "lockstone-wal",
    "lockstone-locks",
];

/// No file, clock or random number behind the back of the ports.
pub(crate) fn ports(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        if !ABOVE_THE_PORTS.contains(&name) {
            continue;
        }
        let waiting = if name == "lockstone-locks" {
            &WAITING[..]
        } else {
            &[]
        };
        let banned: Vec<_> = MACHINE.iter().chain(waiting).collect();
        for module in package
            .roots(tree)
            .into_iter()
            .flat_map(|root| modules(tree, root))
        {
            let paths = Paths::of(&module.live);
            let imported = paths.imports.iter().map(|import| &import.path);
            for path in imported.chain(&paths.written) {
                let shown = path.segments.join("::");
                let reaches = |banned: &str| {
                    let rest = shown.strip_prefix(banned);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                };
                if banned.iter().any(|banned| reaches(banned)) {
                    findings.push(Finding::new(
                        &module.file.path,
                        path.line,
                        format!("names `{shown}`"),
                        "go through a port of base (disk, clock, entropy), or let the caller do it",
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::packages;

    #[test]
    fn ways_around_the_ports_are_found() {
        let tree = Tree::of(&[
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"base\", \"wal\", \"locks\"]\n",
            ),
            ("base/Cargo.toml", "[package]\nname = \"lockstone-base\"\n"),
            ("base/src/lib.rs", "use std::fs;\n"),
            ("wal/Cargo.toml", "[package]\nname = \"lockstone-wal\"\n"),
            (
                "wal/src/lib.rs",
                "use std::{io, fs::File};\nuse std::thread;\nuse std::time::Duration;\n\
                fn f() { std::time::Instant::now(); std::fsx::g(); }\n\
                #[cfg(test)] mod tests { use std::fs; }",
            ),
            (
                "locks/Cargo.toml",
                "[package]\nname = \"lockstone-locks\"\n",
            ),
            (
                "locks/src/lib.rs",
                "use std::sync::Arc;\nuse std::time::Duration;\n",
            ),
        ]);
        let found: Vec<_> = ports(&tree, &packages(&tree))
            .into_iter()
            .map(|it| format!("{}:{}", it.path, it.line))
            .collect();
        assert_eq!(
            found,
            ["wal/src/lib.rs:1", "wal/src/lib.rs:4", "locks/src/lib.rs:2"]
        );
    }
}
