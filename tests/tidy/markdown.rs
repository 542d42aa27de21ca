//! The documents: their links lead somewhere, and the format page knows every golden file.

use super::tree::{File, Finding, Tree};

const FORMAT_PAGE: &str = "docs/format.md";

/// Every relative link names a file or folder of the repository, every anchor a heading.
pub(crate) fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("md") {
        for (line, target) in targets(&file.text) {
            if let Some(what) = broken(tree, file, target) {
                let mend = "mend the target, or drop the link";
                findings.push(Finding::new(&file.path, line, what, mend));
            }
        }
    }
    findings
}

/// The lines of prose: without fenced blocks, and with code spans blanked.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fence: Option<&str> = None;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|it| start.starts_with(it));
        match (fence, marker) {
            (None, Some(marker)) => fence = Some(marker),
            (Some(open), Some(marker)) if open == marker => fence = None,
            (None, None) => lines.push((at + 1, without_code_spans(line))),
            _ => {}
        }
    }
    lines
}

fn without_code_spans(line: &str) -> String {
    let pieces = line.split('`').enumerate();
    let outside = pieces.map(|(at, piece)| if at % 2 == 0 { piece } else { "" });
    outside.collect()
}

/// The targets of inline links, images and reference definitions, each with its line.
fn targets(text: &str) -> Vec<(usize, &str)> {
    // Code spans are cut out of the copy that is searched; the target itself is looked up in the text.
    let mut found = Vec::new();
    let lines: Vec<_> = text.lines().collect();
    for (line, prose) in prose(text) {
        let original = line
            .checked_sub(1)
            .and_then(|at| lines.get(at))
            .copied()
            .unwrap_or_default();
        let inline = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        let inline = inline.map(|(target, _)| target);
        let reference = prose
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]:"))
            .map(|(_, target)| target.trim());
        for target in inline.chain(reference) {
            let target = target.split_whitespace().next().unwrap_or_default();
            let target = target.trim_matches(['<', '>']);
            if let Some(at) = original.find(target) {
                let (target, _) = original.split_at(at).1.split_at(target.len());
                found.push((line, target));
            }
        }
    }
    found
}

/// What is wrong with `target`, if it is a link into the repository that leads nowhere.
fn broken(tree: &Tree, file: &File, target: &str) -> Option<String> {
    let is_outside = ["http://", "https://", "mailto:"];
    if is_outside.iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = match path {
        "" => Some(file.path.clone()),
        path => joined(file.folder(), path),
    };
    let Some(path) = path.filter(|path| tree.has(path)) else {
        return Some(format!("links to `{target}`, which is not there"));
    };
    let page = tree.file(&path).filter(|page| page.is("md"))?;
    let is_known = anchor.is_empty() || anchors(&page.text).iter().any(|known| known == anchor);
    (!is_known).then(|| format!("links to `{target}`, a heading that `{path}` does not have"))
}

/// `relative` seen from `folder`; `None` if it leaves the repository.
fn joined(folder: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if relative.starts_with('/') {
        return None;
    }
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The anchors that the headings of a page get, as forges make them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if is_code || !(1..=6).contains(&level) || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| {
                if c == ' ' {
                    '-'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect();
        let same = found.iter().filter(|known| {
            known.strip_prefix(slug.as_str()).is_some_and(|rest| {
                rest.is_empty()
                    || rest
                        .strip_prefix('-')
                        .is_some_and(|n| n.parse::<u32>().is_ok())
            })
        });
        let slug = match same.count() {
            0 => slug,
            count => format!("{slug}-{count}"),
        };
        found.push(slug);
    }
    found
}

/// The decisions are numbered, each by itself, and say so in their titles.
pub(crate) fn decisions(tree: &Tree) -> Vec<Finding> {
    let named = |file: &File| {
        let name = file.path.strip_prefix("docs/adr/")?;
        Some(name.split('-').next().unwrap_or_default().to_owned())
    };
    let mut numbers = Vec::new();
    let mut findings = Vec::new();
    for file in tree.with_extension("md") {
        let Some(number) = named(file) else { continue };
        let mend = "take the next number, in the file's name and in its title";
        if numbers.contains(&number) {
            let what = format!("is the second decision that is number {number}");
            findings.push(Finding::new(&file.path, 1, what, mend));
        } else if !file.text.starts_with(&format!("# {number}: ")) {
            let what = format!("does not begin with `# {number}: `");
            findings.push(Finding::new(&file.path, 1, what, mend));
        }
        numbers.push(number);
    }
    findings
}

/// Every golden file stands in the format page with its checksum, so neither changes alone.
pub(crate) fn golden_files(tree: &Tree) -> Vec<Finding> {
    let page = tree.file(FORMAT_PAGE).map_or("", |page| page.text.as_str());
    let is_golden = |file: &&File| {
        let inner = file.path.split_once("/testdata/");
        inner.is_some_and(|(_, name)| name.contains("golden"))
    };
    tree.files
        .iter()
        .filter(is_golden)
        .filter_map(|file| {
            let checksum = format!("{:08x}", crc32(&file.bytes));
            let is_listed = page
                .lines()
                .any(|line| line.contains(&file.path) && line.contains(&checksum));
            let mend = format!(
                "bytes on disk are forever: describe the change in {FORMAT_PAGE} and list `{}` with CRC-32 `{checksum}`",
                file.path
            );
            let what = format!("is not in {FORMAT_PAGE} with these bytes");
            (!is_listed).then(|| Finding::new(&file.path, 1, what, mend))
        })
        .collect()
}

/// The common CRC-32, as `gzip` and `crc32` show it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let page = "# A page\n\
            [a](../README.md) [b](#a-page) [c](other.md#top-1) [d](https://x.y/z.md) [e](../wal/src) ![f](p.png \"title\")\n\
            [g](gone.md)\n\
            [h](#nowhere), [i](other.md#nowhere)\n\
            `[j](gone.md)` and [`k`](gone.md)\n\
            ```\n[l](gone.md)\n```\n\
            [m]: gone.md\n\
            [n](/etc/passwd) [o](../../out.md)\n";
        let tree = Tree::of(&[
            ("docs/page.md", page),
            ("docs/other.md", "# Top\n## Top\n```\n# no heading\n```\n"),
            ("docs/p.png", ""),
            ("README.md", ""),
            ("wal/src/lib.rs", ""),
        ]);
        let lines: Vec<_> = links(&tree).iter().map(|it| it.line).collect();
        assert_eq!(lines, [3, 4, 4, 5, 9, 10, 10]);
    }

    #[test]
    fn anchors_are_made_as_forges_make_them() {
        assert_eq!(
            anchors("# The `frame`, at 0x10: V_1\n## A-b\n### Same\n### Same\n#no\n"),
            ["the-frame-at-0x10-v_1", "a-b", "same", "same-1"]
        );
    }

    #[test]
    fn decisions_with_the_number_of_another_are_found() {
        let tree = Tree::of(&[
            ("docs/adr/0001-one.md", "# 0001: one\n"),
            ("docs/adr/0002-two.md", "# 0001: two\n"),
            ("docs/adr/0003-three.md", "# 0003: three\n"),
            ("docs/adr/0003-too.md", "# 0003: too\n"),
        ]);
        let found: Vec<_> = decisions(&tree).into_iter().map(|it| it.path).collect();
        assert_eq!(found, ["docs/adr/0002-two.md", "docs/adr/0003-too.md"]);
    }

    #[test]
    fn golden_files_that_the_format_page_does_not_know_are_found() {
        let page = "| `wal/testdata/golden/frame.bin` | `cbf43926` |\n| `wal/testdata/golden-v1.bin` | `00000000` |\n";
        let tree = Tree::of(&[
            ("docs/format.md", page),
            ("wal/testdata/golden/frame.bin", "123456789"),
            ("wal/testdata/golden-v1.bin", "changed"),
            ("storage/testdata/run.golden", "new"),
            ("storage/testdata/other.bin", "free"),
        ]);
        let found: Vec<_> = golden_files(&tree).into_iter().map(|it| it.path).collect();
        assert_eq!(
            found,
            ["wal/testdata/golden-v1.bin", "storage/testdata/run.golden"]
        );
    }
}
