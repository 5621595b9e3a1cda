//! Who used which service is in the activator's flow log, and who was refused.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use lab::process::FileKind;
use lab::{Lab, wait};
use nix::sys::signal::Signal;
use scenarios::{ORDERS, RECOVERY, page, page_within};
use serde_json::Value;

fn flow_file(lab: &Lab) -> PathBuf {
    let state = lab.files().of_process("east/activator", FileKind::State);
    state.join("flows.jsonl")
}

fn change(lab: &Lab, edit: impl FnOnce(&str) -> String) {
    lab.stop("east/activator").expect("it stops");
    lab.edit_config("east/activator", edit).expect("edited");
    lab.start("east/activator").expect("it starts");
}

/// The first record of which this is true.
fn record(lab: &Lab, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, RECOVERY, || {
        let text = fs::read_to_string(flow_file(lab))?;
        let mut records = Vec::new();
        for line in text.lines() {
            records.push(serde_json::from_str::<Value>(line)?);
        }
        Ok(records.into_iter().find(&is))
    })
    .expect("a record")
}

fn number(record: &Value, field: &str) -> u64 {
    record[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {record}"))
}

#[test]
fn the_flow_log_says_who_used_a_service_how_much_and_who_was_refused() {
    let lab = scenarios::lab("flow1");
    let file = flow_file(&lab);
    change(&lab, |text| {
        format!("flow-file = \"{}\"\n{text}", file.display())
    });
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page");
    let page = page(&lab, "west/app", ORDERS, &[]).expect("another one");
    // Nothing is left of the link: its use is over.
    lab.stop("west/dns-signal").expect("it stops");
    let used = record(&lab, "the use to be told", |record| {
        record["verdict"] == "accepted" && record["end"] == "closed"
    });
    assert_eq!(used["record"], "flow");
    assert_eq!(used["service"], "orders");
    let peer = used["peer"].as_str().expect("a peer");
    assert!(peer.starts_with("west/workload/"), "{used}");
    assert!(
        used["path"].as_str().is_some_and(|path| !path.is_empty()),
        "{used}"
    );
    assert!(number(&used, "connections") >= 2, "{used}");
    assert!(
        number(&used, "bytes_from_service") > 2 * page.len() as u64,
        "{used}"
    );
    assert!(number(&used, "bytes_to_service") > 100, "{used}");
    let mode = fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner reads it");

    // The same activator, after a rotation: who is refused is told, too.
    change(&lab, |text| {
        text.replace("udp = [", "allow = [\"north\"]\nudp = [")
    });
    fs::rename(&file, file.with_extension("1")).expect("rotated");
    let activator = lab.process("east/activator").expect("known");
    let pid = activator.running().expect("it runs");
    lab::process::send(pid, Signal::SIGHUP).expect("sent");
    lab.start("west/dns-signal").expect("it starts");
    let name = "orders.east.mesh.internal";
    lab.wait_for_name(lab::Network::West, name, RECOVERY)
        .expect("it knows the name");
    let _ = scenarios::page(&lab, "west/app", ORDERS, &["-m", "3"]);
    let refused = record(&lab, "the refusal to be told", |record| {
        record["verdict"] == "refused"
    });
    assert_eq!(
        (&refused["peer"], &refused["service"]),
        (&used["peer"], &used["service"])
    );
    let reason = refused["reason"].as_str().expect("a reason");
    assert!(reason.contains("`orders` is not open to"), "{refused}");
    assert_eq!(activator.running(), Some(pid), "SIGHUP did not end it");
    let written = lab.metric_by_labels("east/activator", "activator_flow_records_total");
    let written = written.expect("the metric");
    eprintln!("{written:?}");
    assert!(
        written
            .iter()
            .any(|(labels, count)| labels.contains("written") && *count >= 1.0)
    );
    assert!(
        written
            .iter()
            .all(|(labels, count)| !labels.contains("lost") || *count == 0.0)
    );
}
