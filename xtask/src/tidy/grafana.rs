//! The dashboards of `deploy/grafana` ask for metrics that there are.
use std::collections::BTreeSet;

use serde_json::Value;

use super::operations::{METRICS, names, without_tests};
use super::{Files, Problem};

const DIRECTORY: &str = "deploy/grafana/";
/// Its metrics are documented elsewhere, and are shown, too.
const RELAY: (&str, &str) = ("turn-relay/src/metrics.rs", "turn_relay_");
/// What the format adds to a name: counters, and units.
const SUFFIXES: [&str; 4] = ["", "_total", "_bytes", "_bytes_total"];

pub(super) fn check(files: &Files) -> Vec<Problem> {
    let sources: Vec<_> = METRICS.into_iter().chain([RELAY]).collect();
    let mut known = BTreeSet::new();
    for (path, prefix) in &sources {
        let source = files.get(*path).map_or("", |text| without_tests(text));
        for name in names(source) {
            known.extend(SUFFIXES.map(|suffix| format!("{prefix}{name}{suffix}")));
        }
    }
    let mut problems = Vec::new();
    for (path, text) in files.range(DIRECTORY.to_owned()..) {
        if !path.starts_with(DIRECTORY) || !path.ends_with(".json") {
            continue;
        }
        let Ok(dashboard) = serde_json::from_str::<Value>(text) else {
            problems.push(format!("{path} is not JSON"));
            continue;
        };
        let mut asked = BTreeSet::new();
        expressions(&dashboard, &mut |expression| {
            asked.extend(metrics(expression, &sources));
        });
        if asked.is_empty() {
            problems.push(format!("{path} asks for no metric: correct this check"));
        }
        let unknown = asked.difference(&known);
        problems.extend(unknown.map(|name| format!("{path} asks for `{name}`, which nobody has")));
    }
    problems
}

/// Whatever stands under a key `expr`.
fn expressions(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => found(text),
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The words of an expression that begin as our metrics do.
fn metrics(expression: &str, sources: &[(&str, &str)]) -> Vec<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| sources.iter().any(|(_, prefix)| word.starts_with(prefix)));
    ours.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_nobody_has_is_a_problem() {
        let mut files = Files::new();
        for (path, _) in METRICS.into_iter().chain([RELAY]) {
            files.insert(path.to_owned(), "(\"links\", \"Links\")".to_owned());
        }
        let dashboard = |metric: &str| {
            let expression = format!("sum by (instance) (rate({metric}{{a=~\"b\"}}[5m]))");
            serde_json::json!({"panels": [{"targets": [{"expr": expression}]}]}).to_string()
        };
        let path = format!("{DIRECTORY}mesh.json");
        files.insert(path.clone(), dashboard("activator_links_total"));
        assert_eq!(check(&files), Vec::<Problem>::new());
        files.insert(path.clone(), dashboard("activator_lynx_total"));
        assert_eq!(check(&files).len(), 1);
        files.insert(path, dashboard("up"));
        assert_eq!(check(&files).len(), 1);
    }
}
