//! The status for people: one table for each kind of thing.

use std::fmt::Write as _;

use serde_json::Value;

/// Tables of what is there.
pub(crate) fn table(all: &Value) -> String {
    let mut text = String::new();
    if let Some(mesh) = all.get("mesh") {
        mesh_tables(&mut text, mesh);
    }
    if let Some(services) = all.get("services").and_then(Value::as_object) {
        for (address, status) in services {
            service_tables(&mut text, address, status);
        }
    }
    text
}

fn mesh_tables(text: &mut String, mesh: &Value) {
    let line = format!(
        "discovery: revision {}, clock {}\n",
        cell(mesh, "revision"),
        cell(mesh, "time")
    );
    text.push_str(&line);
    let rows = |name: &str, columns: &[&str]| -> Vec<Vec<String>> {
        let items = mesh.get(name).and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .map(|item| columns.iter().map(|column| cell(item, column)).collect())
            .collect()
    };
    section(
        text,
        &["RELAY", "NETWORK", "URL"],
        &rows("relays", &["name", "network", "url"]),
    );
    let mut registrations = Vec::new();
    for item in mesh
        .get("registrations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let names = |list: &str, of: &dyn Fn(&Value) -> String| -> String {
            let items = item.get(list).and_then(Value::as_array);
            items
                .into_iter()
                .flatten()
                .map(of)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let footholds = names("footholds", &|foothold| {
            format!(
                "{}={}",
                cell(foothold, "network"),
                cell(foothold, "relayed")
            )
        });
        let services = names("services", &|service| cell(service, "name"));
        registrations.push(vec![
            cell(item, "node"),
            footholds,
            services,
            cell(item, "certificate"),
        ]);
    }
    section(
        text,
        &["ACTIVATOR", "FOOTHOLDS", "SERVICES", "CERTIFICATE"],
        &registrations,
    );
    let nodes = mesh
        .get("nodes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let nodes: Vec<_> = nodes.map(|node| vec![plain(node)]).collect();
    section(text, &["ENROLLED"], &nodes);
    for (name, header) in [
        ("rejected", ["NOT BELIEVED", "WHY"]),
        ("revoked", ["REVOKED", "REASON"]),
    ] {
        let items = mesh
            .get(name)
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let rows: Vec<_> = items
            .map(|(key, value)| vec![key.clone(), plain(value)])
            .collect();
        if !rows.is_empty() {
            section(text, &header, &rows);
        }
    }
}

fn service_tables(text: &mut String, address: &str, status: &Value) {
    let connected = match status.get("discovery_connected").and_then(Value::as_bool) {
        Some(true) => "connected to discovery",
        _ => "not connected to discovery",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n{} ({address}): {connected}", cell(status, "node"));
    for (name, first, columns) in [
        (
            "allocations",
            "ALLOCATION ON",
            &["relay", "relayed", "state"][..],
        ),
        (
            "links",
            "LINK WITH",
            &["peer", "state", "path", "carrier"][..],
        ),
    ] {
        let Some(items) = status.get(name).and_then(Value::as_array) else {
            continue;
        };
        let rows: Vec<Vec<_>> = items
            .iter()
            .map(|item| columns.iter().map(|c| cell(item, c)).collect())
            .collect();
        let upper: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
        let mut header: Vec<&str> = upper.iter().map(String::as_str).collect();
        header[0] = first;
        section(text, &header, &rows);
    }
}

/// A table, after an empty line: each column as wide as its longest cell.
pub(crate) fn section(text: &mut String, header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(&mut std::iter::once(""));
    line(&mut header.iter().copied());
    if rows.is_empty() {
        line(&mut std::iter::once("(none)"));
    }
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

pub(crate) fn cell(item: &Value, name: &str) -> String {
    item.get(name).map(plain).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}
