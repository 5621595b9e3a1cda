//! `turnpike capture`: what `tcpdump -r` makes of it.
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use std::{fs, thread};

use lab::wait;
use scenarios::{ORDERS, lab, page};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn packets_of_a_name_are_captured_inside_the_tunnel() {
    let lab = lab("capture");
    page(&lab, "west/app", ORDERS, &[]).expect("a page by name");
    let turnpike = lab.binaries().join("turnpike").display().to_string();
    let file = lab.files().root().join("orders.pcap");
    let shown = file.display().to_string();
    let capture = [
        &turnpike,
        "capture",
        "orders.east",
        "-w",
        &shown,
        "--packets",
        "12",
        "--time",
        "30s",
    ];
    let mut capturing = lab.spawn("west/app", &capture).expect("it starts");
    // Requests until it has enough.
    let ended = wait::until_true("the capture to end", SOON, || {
        page(&lab, "west/app", ORDERS, &[])?;
        Ok(capturing.try_wait()?.is_some())
    });
    if ended.is_err() {
        let _ = capturing.kill();
    }
    let output = capturing.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stderr);
    ended.unwrap_or_else(|error| panic!("{error:#}: {said}"));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("12 packets"), "{said}");
    let mode = fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let listed = lab
        .output("west/app", &["tcpdump", "-n", "-r", &shown])
        .expect("tcpdump");
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 12, "{listed}");
    let virtual_ip = lab
        .output(
            "west/app",
            &["getent", "ahostsv4", "orders.east.mesh.internal"],
        )
        .expect("the name");
    let virtual_ip = virtual_ip
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned();
    for line in &lines {
        assert!(line.contains(" IP ") || line.contains(" IP6 "), "{line}");
        assert!(
            line.contains(&virtual_ip) || line.contains("fd74:"),
            "{line}"
        );
    }
    assert!(listed.contains(".8080: Flags [S]"), "{listed}");
    // Inside the tunnel: what nobody outside may read.
    let text = lab
        .output("west/app", &["tcpdump", "-n", "-A", "-r", &shown])
        .expect("tcpdump");
    assert!(text.contains("GET / HTTP/1.1"), "{text}");
}

#[test]
fn only_root_captures_and_only_known_names() {
    let lab = lab("capture2");
    let turnpike = lab.binaries().join("turnpike").display().to_string();
    let file = lab.files().root().join("no.pcap").display().to_string();
    let refused = |command: &[&str], reason: &str| {
        let output = lab.exec("west/app", command).expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(reason), "{said}");
    };
    // The name has its virtual IP, so that it is not for want of one.
    page(&lab, "west/app", ORDERS, &[]).expect("a page by name");
    let drop = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--clear-groups",
        "--reuid=65534",
        "--regid=65534",
    ];
    let capture = [turnpike.as_str(), "capture", "orders.east"];
    let piped = format!("{} {} | cat", drop.join(" "), capture.join(" "));
    refused(
        &["bash", "-o", "pipefail", "-c", &piped],
        "only root may look at packets",
    );
    refused(
        &[&turnpike, "capture", "nothing.east", "-w", &file],
        "has no virtual IP here",
    );
    refused(
        &[&turnpike, "capture", "--interface", "nosuch0", "-w", &file],
        "there is no interface `nosuch0`",
    );
    // Whoever reads it may stop at any time.
    let head = format!("{turnpike} capture orders.east --time 20s | head -c 24 | wc -c");
    thread::scope(|scope| {
        let reader = scope.spawn(|| lab.output("west/app", &["bash", "-c", &head]));
        let header = wait::until("a header", SOON, || {
            page(&lab, "west/app", ORDERS, &[])?;
            Ok(reader.is_finished().then_some(()))
        });
        header.expect("it ends with its reader");
        let count = reader.join().expect("no panic").expect("it runs");
        assert_eq!(count.trim(), "24");
    });
}
