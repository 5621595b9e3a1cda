//! What holds for every file by itself.
use super::{Files, Problem};
use crate::workspace::Package;

/// The habit is 300; above this there is no reason good enough.
const LINES_MAX: usize = 600;

/// Crates that talk to the kernel in ways the standard library does not know; all others forbid unsafe code.
const MAY_BE_UNSAFE: [&str; 3] = ["libs/net", "libs/tun", "turn-relay"];

pub(super) fn check(files: &Files, members: &[&Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    // Other people's code keeps their habits: a small difference to it is worth more.
    let ours = files
        .iter()
        .filter(|(path, _)| !path.starts_with("vendor/"));
    for (path, text) in ours {
        let is_rust = path.ends_with(".rs");
        let lines = text.lines().count();
        if is_rust && lines > LINES_MAX {
            problems.push(format!(
                "{path}: {lines} lines; at most {LINES_MAX}: split it"
            ));
        }
        for (index, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", index + 1);
            if let Some(prefix) = machine_path(line)
                && path != "Cargo.lock"
            {
                problems.push(format!("{place}: `{prefix}...` is a path of one machine"));
            }
            if is_rust && line.trim_start().starts_with(concat!("#[", "ignore")) {
                problems.push(format!("{place}: a test that is skipped shows nothing"));
            }
        }
    }
    for package in members {
        let directory = package.directory();
        if MAY_BE_UNSAFE.contains(&directory.as_str()) {
            continue;
        }
        for root in ["lib.rs", "main.rs"] {
            let path = format!("{directory}/src/{root}");
            let forbids = |text: &String| text.contains("#![forbid(unsafe_code)]");
            if files.get(&path).is_some_and(|text| !forbids(text)) {
                problems.push(format!("{path}: must have #![forbid(unsafe_code)]"));
            }
        }
    }
    problems
}

/// The beginning of an absolute path that means something on one machine only.
fn machine_path(line: &str) -> Option<&'static str> {
    const PREFIXES: [&str; 3] = [
        concat!("/ho", "me/"),
        concat!("/wo", "rk/"),
        concat!("/Us", "ers/"),
    ];
    PREFIXES.into_iter().find(|prefix| {
        line.match_indices(prefix).any(|(at, _)| {
            // `example.org/home/` and `a/work/` are not absolute paths.
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| c.is_whitespace() || "\"'`(=:<".contains(c))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_of_people_are_found_and_others_are_not() {
        assert!(machine_path(concat!("see `/ho", "me/someone/x`")).is_some());
        assert!(machine_path(concat!("PATH=/wo", "rk/bin")).is_some());
        assert!(machine_path(concat!("https://example.org/ho", "me/")).is_none());
        assert!(machine_path("/etc/turnpike/relay.toml").is_none());
    }
}
