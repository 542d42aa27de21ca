//! The house keeps its own rules: what `CONTRIBUTING.md` asks of every change, checked.
//!
//! One test per rule, over the repository as it stands on the disk; a failure says where, what and how to
//! mend it. Each rule is a function from a tree of files to findings, beside self-tests that plant a
//! violation and see it found. Modules, lowest first: a file uses only what stands above it.

#[path = "tidy/tree.rs"]
mod tree;

#[path = "tidy/lexer.rs"]
mod lexer;

#[path = "tidy/items.rs"]
mod items;

#[path = "tidy/module_tree.rs"]
mod module_tree;

#[path = "tidy/imports.rs"]
mod imports;

#[path = "tidy/layers.rs"]
mod layers;

#[path = "tidy/order.rs"]
mod order;

#[path = "tidy/ports.rs"]
mod ports;

#[path = "tidy/files.rs"]
mod files;

#[path = "tidy/words.rs"]
mod words;

#[path = "tidy/markdown.rs"]
mod markdown;

#[path = "tidy/invariants.rs"]
mod invariants;

use std::path::Path;
use std::sync::LazyLock;

use layers::Package;
use tree::{Finding, Tree};

static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::read(Path::new(env!("CARGO_MANIFEST_DIR"))));

static PACKAGES: LazyLock<Vec<Package>> = LazyLock::new(|| layers::packages(&TREE));

fn none(findings: &[Finding]) {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let count = lines.len();
    assert!(lines.is_empty(), "{count} found:\n{}\n", lines.join("\n"));
}

#[test]
fn the_workspace_is_read() {
    assert!(PACKAGES.len() >= 8, "{:?}", *PACKAGES);
    assert!(TREE.with_extension("rs").count() > PACKAGES.len());
    for package in PACKAGES.iter() {
        assert!(!package.roots(&TREE).is_empty(), "{package:?}");
    }
}

#[test]
fn crates_depend_downwards_only() {
    none(&layers::layers(&PACKAGES));
}

#[test]
fn manifests_take_the_lints_and_give_reasons() {
    none(&layers::manifests(&PACKAGES));
}

#[test]
fn files_import_downwards_only() {
    none(&order::order(&TREE, &PACKAGES));
}

#[test]
fn the_machine_is_reached_through_ports_only() {
    none(&ports::ports(&TREE, &PACKAGES));
}

#[test]
fn unsafe_is_forbidden_in_every_crate_but_base() {
    none(&files::unsafe_is_forbidden(&TREE, &PACKAGES));
}

#[test]
fn files_and_functions_are_short() {
    none(&files::sizes(&TREE));
}

#[test]
fn every_source_file_opens_with_what_it_is() {
    none(&files::headers(&TREE));
}

#[test]
fn names_are_nouns_of_the_domain() {
    none(&files::names(&TREE));
}

#[test]
fn nothing_is_unfinished_or_from_elsewhere() {
    none(&words::words(&TREE));
}

#[test]
fn links_lead_somewhere() {
    none(&markdown::links(&TREE));
}

#[test]
fn invariants_are_kept_and_attacked_where_the_table_says() {
    none(&invariants::invariants(&TREE));
}

#[test]
fn each_decision_has_a_number_of_its_own() {
    none(&markdown::decisions(&TREE));
}

#[test]
fn golden_files_are_in_the_format_page() {
    none(&markdown::golden_files(&TREE));
}

#[test]
fn crates_explain_themselves() {
    none(&files::crates_explain_themselves(&TREE, &PACKAGES));
}

#[test]
fn the_front_page_is_short() {
    none(&files::readme_is_short(&TREE));
}
