//! The config file that says everything: each field with what [`super::file`] says about it, and its default.

/// The same text that the compiler and the reader of the code see.
const SOURCE: &str = include_str!("file.rs");
const HOOK: &str = include_str!("hook.rs");
const REALM: &str = include_str!("realm.rs");
const WIDTH: usize = 100;

/// A field as it is written in [`SOURCE`].
#[derive(Debug)]
struct Field {
    name: String,
    documentation: String,
    kind: String,
}

/// A config file in which every field is a comment with its default, or with an example where it has none.
pub(crate) fn default_file() -> String {
    let mut text = String::from(
        "# turn-relay.toml: every field, with its default or an example. All may be left out.\n",
    );
    for field in fields(SOURCE, "struct File {") {
        text.push('\n');
        let mut say = |documentation: &str| {
            for line in wrapped(documentation) {
                text.push_str("# ");
                text.push_str(&line);
                text.push('\n');
            }
        };
        say(&field.documentation);
        for part in parts(&field) {
            say(&format!("{}: {}", part.name, part.documentation));
        }
        text.push_str(&format!("#{} = {}\n", field.name, value(&field)));
    }
    text
}

/// The fields of a field that is a table, or a list of tables.
fn parts(field: &Field) -> Vec<Field> {
    if field.kind.contains("HookFile") {
        fields(HOOK, "struct HookFile {")
    } else if field.kind.contains("RealmFile") {
        fields(REALM, "struct RealmFile {")
    } else {
        Vec::new()
    }
}

/// Those of a struct, in the source that it is in.
fn fields(source: &str, begin: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut documentation = Vec::new();
    let inside = source.split_once(begin).map_or("", |(_, rest)| rest);
    for line in inside
        .lines()
        .map(str::trim)
        .take_while(|line| *line != "}")
    {
        if let Some(text) = line.strip_prefix("///") {
            documentation.push(text.trim());
        } else if let Some((name, kind)) = line
            .strip_prefix("pub(super) ")
            .and_then(|field| field.split_once(": "))
        {
            fields.push(Field {
                name: name.replace('_', "-"),
                documentation: std::mem::take(&mut documentation).join(" "),
                kind: kind.trim_end_matches(',').to_owned(),
            });
        }
    }
    fields
}

/// The default, if the documentation names one that can be written down; otherwise something of the kind.
fn value(field: &Field) -> String {
    let named = field.documentation.rsplit_once("Default: ");
    let named = named.map(|(_, named)| match named.strip_prefix('`') {
        Some(quoted) => quoted.split('`').next().unwrap_or(quoted),
        None => named.split([',', '.']).next().unwrap_or(named),
    });
    let parts = parts(field);
    if !parts.is_empty() {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| format!("{} = {}", part.name, value(part)))
            .collect();
        let table = format!("{{ {} }}", parts.join(", "));
        return match field.kind.starts_with("Vec") {
            true => format!("[{table}]"),
            false => table,
        };
    }
    if field.kind.starts_with("Vec") {
        return match named.filter(|named| named.contains("://") && !named.contains(' ')) {
            Some(one) => format!("[\"{one}\"]"),
            None => "[]".to_owned(),
        };
    }
    if field.kind.contains("Map") {
        return "{}".to_owned();
    }
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if field.kind.contains("String") {
        let one_word =
            named.filter(|named| !named.contains(' ') && *named != "none" && *named != "nowhere");
        return format!("\"{}\"", one_word.unwrap_or("…"));
    }
    if field.kind.contains("Path") {
        return format!("\"/etc/turn-relay/{}\"", field.name);
    }
    if field.kind.contains("bool") {
        return named
            .filter(|named| *named == "true")
            .unwrap_or("false")
            .to_owned();
    }
    named.filter(is_number).unwrap_or("1").to_owned()
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::file::File;
    use super::*;
    use service_kit::parse_config;
    use std::path::Path;

    #[test]
    fn every_field_is_there_with_its_documentation_and_a_value_of_its_kind() {
        let printed = default_file();
        // As it is: nothing is set.
        parse_config::<File>(Path::new("printed"), &printed).unwrap();
        // serde names the fields that there are when it meets one that there is not.
        let error = parse_config::<File>(Path::new("x"), "nothing-like-it-at-all = 1").unwrap_err();
        let error = error.to_string();
        let known = error.split("known here: ").nth(1).unwrap();
        let known: Vec<_> = known
            .split(", ")
            .map(|name| name.trim_end_matches('.'))
            .collect();
        assert!(known.len() > 20);
        for name in known {
            let line = printed
                .lines()
                .find(|l| l.starts_with(&format!("#{name} = ")));
            let line = line.unwrap_or_else(|| panic!("{name} is not printed"));
            parse_config::<File>(Path::new(name), &line[1..]).unwrap();
            let before = printed.split(line).next().unwrap().lines().last().unwrap();
            assert!(before.starts_with("# "), "{name} has no documentation");
        }
        // And all of them together.
        let set = |line: &str| {
            line.strip_prefix('#')
                .filter(|l| !l.starts_with(' '))
                .map(str::to_owned)
        };
        let all: Vec<_> = printed.lines().filter_map(set).collect();
        parse_config::<File>(Path::new("all"), &all.join("\n")).unwrap();
    }

    #[test]
    fn defaults_are_those_that_the_documentation_names() {
        let printed = default_file();
        for line in [
            "#listen = [\"udp://0.0.0.0:3478\"]",
            "#port-range = \"49152-65535\"",
            "#realm = \"turnpike\"",
            "#allocations-per-user = 4096",
            "#allow-peers = []",
        ] {
            assert!(printed.contains(line), "{line}");
        }
    }
}
