//! From a place in a TOML text to a field's path, and back.

use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The 1-based line of byte `offset`.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The 1-based line of `field` (`dns.listen`, `export[1].name`), or of the nearest enclosing table when it is absent.
pub(crate) fn line_of_field(text: &str, field: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut line = None;
    for part in field.split('.') {
        let (name, indexes) = split_indexes(part);
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else {
            return line;
        };
        line = Some(line_at(text, key.span().start));
        let mut value = value;
        for index in indexes {
            let DeValue::Array(items) = value.get_ref() else {
                return line;
            };
            let Some(item) = items.get(index) else {
                return line;
            };
            line = Some(line_at(text, item.span().start));
            value = item;
        }
        let DeValue::Table(inner) = value.get_ref() else {
            return line;
        };
        table = inner;
    }
    line
}

/// `listen[1]` is `listen` and `1`.
fn split_indexes(part: &str) -> (&str, Vec<usize>) {
    let mut pieces = part.split('[');
    let name = pieces.next().unwrap_or_default();
    let indexes = pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok());
    (name, indexes.collect())
}

/// The path of the innermost field whose key or value lies at `span`; empty for the document itself.
pub(crate) fn field_at(text: &str, span: &Range<usize>) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut path = String::new();
    // `toml` gives the document the empty place at its start.
    if !span.is_empty() {
        in_table(document.get_ref(), span, &mut path);
    }
    Some(path)
}

fn in_table(table: &DeTable<'_>, span: &Range<usize>, path: &mut String) -> bool {
    for (key, value) in table {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        // A key may have any character, in quotes; the path is for people, on one line.
        path.extend(key.get_ref().escape_debug());
        // A `[table]`'s span is its header, so a place in its body is found by looking at its fields.
        if in_value(value, span, path) || contains(&key.span(), span) {
            return true;
        }
        path.truncate(length);
    }
    false
}

fn in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut String) -> bool {
    let found = match value.get_ref() {
        DeValue::Table(table) => in_table(table, span, path),
        DeValue::Array(items) => items.iter().enumerate().any(|(index, item)| {
            let length = path.len();
            path.push_str(&format!("[{index}]"));
            let found = in_value(item, span, path);
            if !found {
                path.truncate(length);
            }
            found
        }),
        _ => false,
    };
    found || contains(&value.span(), span)
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\n[dns]\nlisten = [\"x\",\n  \"y\"]\n\n[[export]]\nname = \"o\"\n\n[[export]]\nname = \"p\"\n";

    #[test]
    fn a_field_is_found_by_its_path() {
        assert_eq!(line_of_field(TEXT, "a"), Some(1));
        assert_eq!(line_of_field(TEXT, "dns.listen"), Some(3));
        assert_eq!(line_of_field(TEXT, "dns.listen[1]"), Some(4));
        assert_eq!(line_of_field(TEXT, "export[1].name"), Some(10));
        assert_eq!(line_of_field(TEXT, "dns.absent"), Some(2));
        assert_eq!(line_of_field(TEXT, "absent"), None);
    }

    #[test]
    fn a_path_is_found_by_its_place() {
        let place = |what: &str| {
            let start = TEXT.find(what).unwrap();
            field_at(TEXT, &(start..start + what.len())).unwrap()
        };
        assert_eq!(place("\"y\""), "dns.listen[1]");
        assert_eq!(place("listen"), "dns.listen");
        assert_eq!(place("\"p\""), "export[1].name");
        assert_eq!(place("1"), "a");
    }
}
