//! The crates of the workspace and which of them may know which.
//!
//! Read from the manifests: a dependency that is not in [`LAYERS`] is a finding, and so is a crate that
//! is not. Dev-dependencies are free: tests may reach everywhere.

use super::tree::{File, Finding, Tree};

/// Every crate with the crates of this workspace that it may depend on: those in the rows below its own.
/// The picture is in `ARCHITECTURE.md`.
const LAYERS: [(&str, &[&str]); 10] = [
    (
        "lockstone-cli",
        &[
            "lockstone",
            "lockstone-recovery",
            "lockstone-storage",
            "lockstone-wal",
            "lockstone-locks",
            "lockstone-base",
        ],
    ),
    (
        "lockstone-benches",
        &[
            "lockstone",
            "lockstone-recovery",
            "lockstone-storage",
            "lockstone-wal",
            "lockstone-locks",
            "lockstone-base",
        ],
    ),
    (
        "lockstone-harness",
        &[
            "lockstone",
            "lockstone-recovery",
            "lockstone-storage",
            "lockstone-wal",
            "lockstone-locks",
            "lockstone-base",
            "lockstone-testkit",
        ],
    ),
    (
        "lockstone",
        &[
            "lockstone-recovery",
            "lockstone-storage",
            "lockstone-wal",
            "lockstone-locks",
            "lockstone-base",
        ],
    ),
    (
        "lockstone-recovery",
        &[
            "lockstone-storage",
            "lockstone-wal",
            "lockstone-locks",
            "lockstone-base",
        ],
    ),
    ("lockstone-storage", &["lockstone-base"]),
    ("lockstone-wal", &["lockstone-base"]),
    ("lockstone-locks", &["lockstone-base"]),
    ("lockstone-testkit", &["lockstone-base"]),
    ("lockstone-base", &[]),
];

/// The crates that a user's program links: each outside crate that they pull in has its reason.
const LIBRARY: [&str; 6] = [
    "lockstone",
    "lockstone-recovery",
    "lockstone-storage",
    "lockstone-wal",
    "lockstone-locks",
    "lockstone-base",
];

/// What talks to the kernel, and so belongs to base alone among the library's crates.
const KERNEL: [&str; 5] = ["rustix", "libc", "nix", "memmap2", "io-uring"];

/// A dependency as a manifest names it.
#[derive(Debug)]
pub(crate) struct Dependency {
    name: String,
    line: usize,
    has_reason: bool,
}

/// A crate of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Empty for the root.
    pub(crate) folder: String,
    takes_lints: bool,
    dependencies: Vec<Dependency>,
}

impl Package {
    fn manifest(&self) -> String {
        self.path("Cargo.toml")
    }

    pub(crate) fn path(&self, inner: &str) -> String {
        if self.folder.is_empty() {
            inner.to_owned()
        } else {
            format!("{}/{inner}", self.folder)
        }
    }

    /// The files from which its library and its programs are compiled.
    pub(crate) fn roots<'a>(&self, tree: &'a Tree) -> Vec<&'a File> {
        let (library, program) = (self.path("src/lib.rs"), self.path("src/main.rs"));
        let programs = self.path("src/bin");
        let is_root = |file: &&File| {
            file.path == library
                || file.path == program
                || (file.folder() == programs && file.is("rs"))
        };
        tree.files.iter().filter(is_root).collect()
    }
}

/// The crates that the root manifest counts as members.
pub(crate) fn packages(tree: &Tree) -> Vec<Package> {
    let Some(root) = tree.file("Cargo.toml") else {
        return Vec::new();
    };
    members(&root.text)
        .iter()
        .map(|member| if member == "." { "" } else { member.as_str() })
        .filter_map(|folder| {
            let path = [folder, "Cargo.toml"].join("/");
            let manifest = tree.file(path.trim_start_matches('/'))?;
            Some(package(folder, &manifest.text))
        })
        .collect()
}

/// The quoted names of the list `members = [...]`.
fn members(manifest: &str) -> Vec<String> {
    let list = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    let quoted = list.split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

fn package(folder: &str, manifest: &str) -> Package {
    let mut package = Package {
        name: String::new(),
        folder: folder.to_owned(),
        takes_lints: false,
        dependencies: Vec::new(),
    };
    let mut section = String::new();
    for (at, line) in manifest.lines().enumerate() {
        let (code, comment) = line.split_once('#').unwrap_or((line, ""));
        let code = code.trim();
        if let Some(header) = code.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut section);
            if let Some((kind, name)) = section.rsplit_once('.')
                && is_dependency_section(kind)
            {
                package.dependencies.push(Dependency {
                    name: name.trim_matches('"').to_owned(),
                    line: at + 1,
                    has_reason: !comment.trim().is_empty(),
                });
            }
            continue;
        }
        let Some((key, value)) = code.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        if section == "package" && key == "name" {
            value.trim_matches('"').clone_into(&mut package.name);
        } else if section == "lints" && key == "workspace" {
            package.takes_lints = value == "true";
        } else if is_dependency_section(&section) {
            package.dependencies.push(Dependency {
                name: dependency_name(key, value),
                line: at + 1,
                has_reason: !comment.trim().is_empty(),
            });
        }
    }
    package
}

/// Whether what a section lists is compiled into the crate, on any platform.
fn is_dependency_section(section: &str) -> bool {
    let section = section.rsplit_once('.').map_or(section, |(target, kind)| {
        if target.starts_with("target.") {
            kind
        } else {
            section
        }
    });
    section == "dependencies" || section == "build-dependencies"
}

/// `name = {...}`, `name.workspace = true`, or `alias = { package = "name" }`.
fn dependency_name(key: &str, value: &str) -> String {
    let renamed = value
        .split_once("package")
        .and_then(|(_, rest)| rest.split('"').nth(1));
    let name = renamed.unwrap_or_else(|| key.split('.').next().unwrap_or(key));
    name.trim_matches('"').to_owned()
}

/// Every crate knows only what stands below it.
pub(crate) fn layers(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == package.name) else {
            findings.push(Finding::new(
                &package.manifest(),
                1,
                format!("`{}` has no place in the house", package.name),
                "give it a row in LAYERS of tests/tidy/layers.rs and in ARCHITECTURE.md",
            ));
            continue;
        };
        let ours = |name: &str| LAYERS.iter().any(|(known, _)| *known == name);
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if ours(name) && !allowed.contains(&name) {
                findings.push(Finding::new(
                    &package.manifest(),
                    dependency.line,
                    format!("`{}` must not know `{name}`", package.name),
                    "move what is shared to a lower crate, or join the two in a higher one",
                ));
            }
        }
    }
    findings
}

/// Lints hold everywhere, each outside crate of the library has its reason, and the kernel is base's.
pub(crate) fn manifests(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let manifest = package.manifest();
        if !package.takes_lints {
            findings.push(Finding::new(
                &manifest,
                1,
                "does not take the workspace's lints",
                "add `[lints]` with `workspace = true`",
            ));
        }
        if !LIBRARY.contains(&package.name.as_str()) {
            continue;
        }
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let is_outside = !name.starts_with("lockstone");
            if is_outside && !dependency.has_reason {
                findings.push(Finding::new(
                    &manifest,
                    dependency.line,
                    format!("`{name}` has no reason"),
                    "say behind a `#` on its line what it is for",
                ));
            }
            if KERNEL.contains(&name) && package.name != "lockstone-base" {
                findings.push(Finding::new(
                    &manifest,
                    dependency.line,
                    format!("`{name}` reaches the kernel"),
                    "add what is missing to a port of base and use that",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(findings: &[Finding]) -> Vec<String> {
        findings
            .iter()
            .map(|it| format!("{}:{} {}", it.path, it.line, it.what))
            .collect()
    }

    #[test]
    fn an_edge_between_siblings_is_found_in_every_spelling() {
        for line in [
            "[dependencies]\nlockstone-wal = { workspace = true }",
            "[dependencies]\nlockstone-wal.workspace = true",
            "[dependencies]\nlog = { package = \"lockstone-wal\", path = \"../wal\" }",
            "[build-dependencies]\nlockstone-wal = \"1\"",
            "[target.'cfg(unix)'.dependencies]\nlockstone-wal = \"1\"",
            "[dev-dependencies]\nx = \"1\"\n[dependencies.lockstone-wal]\npath = \"../wal\"",
        ] {
            let manifest = format!("[package]\nname = \"lockstone-storage\"\n{line}\n");
            let found = layers(&[package("storage", &manifest)]);
            assert_eq!(found.len(), 1, "{line}: {found:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        let manifest = "[package]\nname = \"lockstone-recovery\"\n[dependencies]\nlockstone-wal = \"1\"\nserde = \"1\"\n\
            [dev-dependencies]\nlockstone-testkit = \"1\"\nlockstone = \"1\"\n";
        assert_eq!(shown(&layers(&[package("recovery", manifest)])), [""; 0]);
    }

    #[test]
    fn a_product_that_links_the_testkit_is_found() {
        let manifest =
            "[package]\nname = \"lockstone\"\n[dependencies]\nlockstone-testkit = \"1\"\n";
        assert_eq!(
            shown(&layers(&[package("", manifest)])),
            ["Cargo.toml:4 `lockstone` must not know `lockstone-testkit`"]
        );
    }

    #[test]
    fn a_stranger_in_the_workspace_is_found() {
        let tree = Tree::of(&[
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\".\", \"extra\"]\n[package]\nname = \"lockstone\"\n",
            ),
            (
                "extra/Cargo.toml",
                "[package]\nname = \"lockstone-extra\"\n",
            ),
        ]);
        assert_eq!(
            shown(&layers(&packages(&tree))),
            ["extra/Cargo.toml:1 `lockstone-extra` has no place in the house"]
        );
    }

    #[test]
    fn the_layers_have_no_cycle_and_name_each_other() {
        for (place, (name, allowed)) in LAYERS.iter().enumerate() {
            for lower in *allowed {
                let below = LAYERS.iter().position(|(known, _)| known == lower);
                assert!(
                    below > Some(place) || *lower == "lockstone",
                    "{name} -> {lower}"
                );
            }
        }
    }

    #[test]
    fn missing_lints_reasons_and_ports_are_found() {
        let manifest = "[package]\nname = \"lockstone-wal\"\n[dependencies]\nbytes = \"1\"\nlibc = \"1\" # sync\n";
        assert_eq!(
            shown(&manifests(&[package("wal", manifest)])),
            [
                "wal/Cargo.toml:1 does not take the workspace's lints",
                "wal/Cargo.toml:4 `bytes` has no reason",
                "wal/Cargo.toml:5 `libc` reaches the kernel",
            ]
        );
        let manifest = "[package]\nname = \"lockstone-cli\"\n[lints]\nworkspace = true\n[dependencies]\nclap = \"1\"\n";
        assert_eq!(shown(&manifests(&[package("cli", manifest)])), [""; 0]);
    }
}
