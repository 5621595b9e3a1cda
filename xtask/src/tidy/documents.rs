//! What the documents name exists, and what exists is named.
//!
//! In ARCHITECTURE.md and in docs/journeys, a code span `path/to/file.rs::symbol` is a promise: the file is there and
//! defines the symbol. `Type::method` promises both. Without a path, something in the workspace is called so.
use std::path::{Component, Path};

use super::{Files, Problem};
use crate::workspace::Package;

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const REQUIRED: [&str; 8] = [
    "README.md",
    ARCHITECTURE,
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "deny.toml",
];

pub(super) fn check(files: &Files, members: &[&Package]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = REQUIRED
        .iter()
        .filter(|path| !files.contains_key(**path))
        .map(|path| format!("{path} is missing"))
        .collect();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".md")) {
        problems.extend(broken_links(files, path, text));
        if path == ARCHITECTURE || path.starts_with("docs/journeys/") {
            problems.extend(broken_promises(files, path, text));
        }
    }
    if let Some(architecture) = files.get(ARCHITECTURE) {
        let unnamed = members
            .iter()
            .map(|member| member.directory())
            .filter(|directory| {
                let named = [format!("`{directory}`"), format!("`{directory}/`")];
                !named.iter().any(|name| architecture.contains(name))
            });
        problems.extend(unnamed.map(|name| format!("{ARCHITECTURE} does not mention `{name}`")));
    }
    problems
}

/// The code spans of a text, with their line numbers; fenced blocks are left out.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(
                line.split('`')
                    .skip(1)
                    .step_by(2)
                    .map(|span| (index + 1, span)),
            );
        }
    }
    spans
}

fn broken_promises(files: &Files, document: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, span) in code_spans(text) {
        let Some((path, symbol)) = span.split_once("::") else {
            continue;
        };
        if !path.ends_with(".rs") && !path.ends_with(".proto") {
            let unknown = unknown_name(files, span);
            problems.extend(
                unknown.map(|name| {
                    format!("{document}:{line}: nothing is called `{name}`, of `{span}`")
                }),
            );
            continue;
        }
        let Some(source) = files.get(path) else {
            problems.push(format!("{document}:{line}: there is no file {path}"));
            continue;
        };
        for name in symbol.trim_end_matches("()").split("::") {
            if !defines(source, name) {
                problems.push(format!(
                    "{document}:{line}: {path} does not define `{name}`"
                ));
            }
        }
    }
    problems
}

/// Of `module::Type::method`, written without a path, the first part that nothing in the workspace is called.
fn unknown_name<'a>(files: &Files, span: &'a str) -> Option<&'a str> {
    const FOREIGN: [&str; 4] = ["std", "core", "tokio", "rtc"];
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let names = || span.trim_end_matches("()").split("::");
    if !names().all(is_name) || names().next().is_some_and(|first| FOREIGN.contains(&first)) {
        return None;
    }
    names().find(|name| {
        let directory = name.replace('_', "-");
        let mind = directory
            .strip_suffix("-proto")
            .map(|service| format!("{service}/proto/"));
        !files
            .iter()
            .filter(|(path, _)| path.ends_with(".rs"))
            .any(|(path, source)| {
                let is_module = path.split('/').any(|part| {
                    part == *name || part == directory || part.strip_suffix(".rs") == Some(*name)
                });
                let is_mind = mind.as_ref().is_some_and(|mind| path.starts_with(mind));
                is_module || is_mind || defines(source, name)
            })
    })
}

/// Whether a source file defines a name: an item, or a variant or field at the beginning of a line.
fn defines(source: &str, name: &str) -> bool {
    const KEYWORDS: [&str; 13] = [
        "fn",
        "struct",
        "enum",
        "trait",
        "mod",
        "const",
        "static",
        "type",
        "macro_rules!",
        "message",
        "service",
        "rpc",
        "union",
    ];
    source.lines().any(|line| {
        let words: Vec<&str> = line
            .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '!'))
            .filter(|word| !word.is_empty())
            .collect();
        let item = words
            .windows(2)
            .any(|pair| KEYWORDS.contains(&pair[0]) && pair[1] == name);
        let rest = line
            .trim_start()
            .strip_prefix("pub ")
            .unwrap_or(line.trim_start());
        let member = rest.strip_prefix(name).is_some_and(|rest| {
            matches!(
                rest.trim_start().chars().next(),
                Some(',' | '{' | '(' | ':')
            )
        });
        item || (member && !line.trim_start().starts_with("//"))
    })
}

fn broken_links(files: &Files, document: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for part in line.split("](").skip(1) {
            let Some((target, _)) = part.split_once(')') else {
                continue;
            };
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains(':') {
                continue;
            }
            let directory = Path::new(document).parent().unwrap_or(Path::new(""));
            let path = normalized(&directory.join(target));
            let as_directory = format!("{}/", path.trim_end_matches('/'));
            let exists = files.contains_key(&path)
                || files.keys().any(|file| file.starts_with(&as_directory));
            if !exists {
                problems.push(format!("{document}:{}: nothing is at {target}", index + 1));
            }
        }
    }
    problems
}

fn normalized(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs
            .iter()
            .map(|&(path, text)| (path.to_owned(), text.to_owned()))
            .collect()
    }

    #[test]
    fn a_symbol_that_is_gone_is_found() {
        let source = "pub enum Verdict {\n    ToPeer(u8),\n}\nimpl Relay {\n    pub(crate) fn handle(&mut self) {}\n}\nstruct Relay;\n";
        let files = files(&[("a/src/b.rs", source)]);
        let check = |text: &str| broken_promises(&files, "ARCHITECTURE.md", text).len();
        assert_eq!(check("`a/src/b.rs::Relay::handle`"), 0);
        assert_eq!(check("| `a/src/b.rs::Verdict::ToPeer` | x |"), 0);
        assert_eq!(check("`a/src/b.rs::Relay::gone`"), 1);
        assert_eq!(check("`a/src/gone.rs::Relay`"), 1);
        assert_eq!(check("`std::net::IpAddr` and `b::Relay::handle`"), 0);
        assert_eq!(check("`Relay::gone`"), 1);
        assert_eq!(check("```\n`a/src/b.rs::gone`\n```"), 0);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let files = files(&[("docs/a.md", ""), ("README.md", "")]);
        let check = |text: &str| broken_links(&files, "docs/a.md", text).len();
        assert_eq!(
            check("[x](../README.md#part) [y](https://example.org) [z](#here) [d](../docs)"),
            0
        );
        assert_eq!(check("[x](README.md)"), 1);
    }
}
