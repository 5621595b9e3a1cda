//! The relay cannot read: what crosses it does not contain what was said.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use lab::{Lab, Network, wait};
use nix::sys::signal::Signal;
use scenarios::{ORDERS, RECOVERY, lab, page};

const MARKER: &str = "turnpike-marker-9d1f0c7e5b";

/// Captures everything that crosses `interface` of `host`, whole, into a file.
fn capture(lab: &Lab, host: &str, interface: &str) -> (Child, PathBuf) {
    let file = lab
        .files()
        .root()
        .join(format!("{}-{interface}.pcap", host.replace('/', "-")));
    let path = file.display().to_string();
    // Each packet is in the file at once: otherwise the kernel keeps them for a while, and loses them when tcpdump ends.
    let command = [
        "tcpdump",
        "--immediate-mode",
        "-Z",
        "root",
        "-i",
        interface,
        "-s",
        "0",
        "-U",
        "-n",
        "-w",
        &path,
    ];
    let child = lab.spawn(host, &command).expect("tcpdump starts");
    // It writes the file's header once it listens.
    wait::until_true("tcpdump to listen", RECOVERY, || {
        Ok(fs::metadata(&file).is_ok_and(|metadata| metadata.len() >= 24))
    })
    .expect("tcpdump listens");
    (child, file)
}

fn finish(mut capture: Child) {
    lab::process::send(capture.id(), Signal::SIGINT).expect("a signal");
    capture.wait().expect("tcpdump ends");
}

fn contains(file: &Path, marker: &str) -> bool {
    let bytes = fs::read(file).expect("the capture");
    bytes
        .windows(marker.len())
        .any(|window| window == marker.as_bytes())
}

#[test]
fn what_crosses_the_relay_does_not_contain_what_was_said() {
    let lab = lab("secret1");
    let outside = capture(&lab, "west/relay", "wan");
    let inside = capture(&lab, "west/relay", "lan");
    let discovery = capture(&lab, "discovery", "wan");
    // The last stretch, from the activator to the service, is the service's own plain HTTP: it shows that a capture
    // would find the marker.
    let control = capture(&lab, "east/orders", "lan");
    let before = lab.relay_bytes(Network::West).expect("a count");

    let echoed = page(&lab, "west/app", &format!("{ORDERS}/echo"), &["-d", MARKER]);
    assert_eq!(echoed.expect("the service sends it back"), MARKER);

    wait::until_true("the relay to have counted it", RECOVERY, || {
        Ok(lab.relay_bytes(Network::West)? > before + 2 * MARKER.len() as u64)
    })
    .expect("the relay carried it");
    wait::until_true("the capture at the service to have it", RECOVERY, || {
        Ok(contains(&control.1, MARKER))
    })
    .expect("the marker, in the clear, at the service");
    for (child, file) in [outside, inside, discovery, control] {
        wait::until_true(
            &format!("{} to have packets", file.display()),
            RECOVERY,
            || Ok(fs::metadata(&file)?.len() > 24),
        )
        .expect("packets");
        finish(child);
        let at_service = file.ends_with("east-orders-lan.pcap");
        assert_eq!(contains(&file, MARKER), at_service, "{}", file.display());
    }
}
