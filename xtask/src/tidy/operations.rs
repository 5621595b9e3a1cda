//! docs/operations.md says everything there is to configure, to see and to go wrong.
//!
//! What the code has is read from the sources: the fields of configuration files, the names, labels and values of metrics,
//! and the texts of errors. Each must occur in the document, as a code span or, an error, as its longest fixed part.
use super::{Files, Problem};

const DOCUMENT: &str = "docs/operations.md";

/// Structs with the fields of configuration files.
const CONFIGURATIONS: [&str; 4] = [
    "activator/src/config.rs",
    "discovery/src/config.rs",
    "dns-signal/src/config_file.rs",
    "libs/traces/src/config.rs",
];

/// Where metrics and their labels are given names, and the prefix of those names.
pub(super) const METRICS: [(&str, &str); 5] = [
    ("activator/src/metrics.rs", "activator_"),
    ("activator/proto/src/stats.rs", "activator_"),
    ("discovery/src/metrics.rs", "discovery_"),
    ("dns-signal/src/dns_metrics.rs", "dns_signal_"),
    ("dns-signal/src/metrics.rs", "dns_signal_"),
];

/// Errors that an operator can meet.
const ERRORS: [&str; 11] = [
    "activator/proto/src/answer.rs",
    "activator/proto/src/forward/nat.rs",
    "activator/proto/src/policy.rs",
    "libs/model/src/relay_uri.rs",
    "discovery/src/authorize.rs",
    "discovery/src/enroll.rs",
    "discovery/src/mailbox.rs",
    "discovery/src/store/types.rs",
    "dns-signal/proto/src/agent/output.rs",
    "libs/discovery-client/src/error.rs",
    "libs/identity/src/token.rs",
];
/// As above, when a signed document of somebody else is not believed.
const DISBELIEF: &str = "libs/identity/src/verifier.rs";

pub(super) fn check(files: &Files) -> Vec<Problem> {
    let Some(document) = files.get(DOCUMENT) else {
        return vec![format!("{DOCUMENT} is missing")];
    };
    let document = &one_space(document);
    let mut problems = Vec::new();
    let mut require = |path: &str,
                       what: &str,
                       names: Vec<String>,
                       is_there: &dyn Fn(&str) -> bool| {
        if names.is_empty() {
            problems.push(format!(
                "{path}: no {what} is found there: correct this check"
            ));
        }
        let absent = names.iter().filter(|name| !is_there(name));
        problems.extend(
            absent.map(|name| format!("{DOCUMENT} does not mention the {what} `{name}` of {path}")),
        );
    };
    let source = |path: &str| files.get(path).map_or("", |text| without_tests(text));
    for path in CONFIGURATIONS {
        let is_there = |name: &str| document.contains(&format!("`{name}`"));
        require(path, "field", fields(source(path)), &is_there);
    }
    for (path, prefix) in METRICS {
        let is_there = |name: &str| {
            [format!("`{name}`"), format!("`{prefix}{name}")]
                .iter()
                .any(|name| document.contains(name))
        };
        require(path, "metric or label", names(source(path)), &is_there);
    }
    for path in ERRORS.into_iter().chain([DISBELIEF]) {
        let is_there = |text: &str| document.contains(text);
        require(path, "error", errors(source(path)), &is_there);
    }
    problems
}

pub(super) fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

/// With any white space as one space.
fn one_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Fields of the structs that a file is read into, as they are written in it.
fn fields(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_file = false;
    for line in source.lines() {
        if line.starts_with("#[derive(") {
            is_file = line.contains("Deserialize");
        }
        let field = line
            .trim()
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ");
        let Some((name, _)) = field.split_once(": ") else {
            continue;
        };
        let is_public = line.starts_with("    pub");
        if is_file
            && is_public
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            found.push(name.replace('_', "-"));
        }
    }
    found
}

/// String literals that are names: lower case letters, digits, `_` and `-`.
pub(super) fn names(source: &str) -> Vec<String> {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let literals = code.flat_map(|line| line.split('"').skip(1).step_by(2));
    let is_name = |text: &&str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
    };
    literals.filter(is_name).map(str::to_owned).collect()
}

/// Of each `#[error("…")]` its longest part without values. Those that only pass on what another says are left out.
fn errors(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for attribute in source.split("#[error(").skip(1) {
        let Some(literal) = attribute.trim_start().strip_prefix('"') else {
            continue;
        };
        let Some(end) = literal.find('"') else {
            continue;
        };
        // A backslash at a line's end joins it with the next.
        let text = one_space(&literal[..end].replace("\\\n", " "));
        let parts = text.split(['{', '}']).step_by(2);
        let longest = parts
            .map(|part| part.trim_matches([' ', '`']))
            .max_by_key(|part| part.len());
        found.extend(longest.filter(|part| part.len() > 3).map(str::to_owned));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_code_has_is_found_in_its_sources() {
        let source = r#"
            #[derive(Debug, Deserialize)]
            pub(crate) struct Config {
    /// What.
    pub(crate) state_directory: PathBuf,
    #[serde(default)]
    pub relay: Vec<RelayConfig>,
}
#[derive(Debug)]
struct Other {
    pub not_this: u8,
}
"#;
        let source = source.replace("            ", "");
        assert_eq!(fields(&source), ["state-directory", "relay"]);
        let source = r#"("links_open", "Links that are open"), // "comment" is code here
            // "not-this"
            Self::Malformed => "spoofed-source","#;
        assert_eq!(names(source), ["links_open", "comment", "spoofed-source"]);
        let source = "#[error(\"there is no node {0}\")]\n#[error(transparent)]\n#[error(\"{0}\")]\n\
                      #[error(\n    \"`{a}` is {b}: \\\n     make another\"\n)]";
        assert_eq!(errors(source), ["there is no node", ": make another"]);
    }

    #[test]
    fn what_is_missing_in_the_document_is_a_problem() {
        let mut files: Files = CONFIGURATIONS
            .into_iter()
            .map(|path| {
                (
                    path.to_owned(),
                    "#[derive(Deserialize)]\n    pub a_b: u8,".to_owned(),
                )
            })
            .collect();
        files.extend(METRICS.map(|(path, _)| (path.to_owned(), "\"count\"".to_owned())));
        let error = "#[error(\"went wrong: {0}\")]".to_owned();
        files.extend(ERRORS.map(|path| (path.to_owned(), error.clone())));
        files.insert(DISBELIEF.to_owned(), error);
        files.insert(
            DOCUMENT.to_owned(),
            "`a-b`, `count`, went\nwrong: x".to_owned(),
        );
        assert_eq!(check(&files), Vec::<Problem>::new());
        files.insert(DOCUMENT.to_owned(), "`a-c`, `counts`".to_owned());
        assert_eq!(
            check(&files).len(),
            CONFIGURATIONS.len() + METRICS.len() + ERRORS.len() + 1
        );
    }
}
