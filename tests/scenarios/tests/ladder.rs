//! Where UDP is blocked, relays are reached over TCP, and over TLS where only its port is open; and over UDP again as soon as that
//! works. Every row of the first test is a network as there are some.
use std::process::Stdio;
use std::time::Duration;

use lab::Firewall::{NoUdp, OnlyTcp443, Open};
use lab::{Firewall, Lab, LabOptions, Network, ScopedLab, wait};
use scenarios::{ORDERS, RECOVERY, lab, options, page, page_within, service};

const MIB: u64 = 1 << 20;

fn walled_lab(name: &str, firewalls: [Firewall; 2]) -> ScopedLab {
    let options = LabOptions {
        firewalls,
        ..options(name)
    };
    ScopedLab::up(&options).expect("the lab comes up")
}

/// What the sidecar and the activator call the path of their only link.
fn paths(lab: &Lab) -> [String; 2] {
    ["west/dns-signal", "east/activator"].map(|node| {
        let status = lab.node_status(node).expect("a status");
        status["links"][0]["path"]
            .as_str()
            .unwrap_or("none")
            .to_owned()
    })
}

fn both_say(lab: &Lab, path: &str) {
    wait::until_true(&format!("both ends to say {path}"), RECOVERY, || {
        Ok(paths(lab).iter().all(|said| said == path))
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", paths(lab)));
}

/// A page and a download, over that path, counted by west's relay.
fn west_relay_carries(lab: &Lab, path: &str) {
    let before = lab.relay_bytes(Network::West).expect("a count");
    page_within(lab, "west/app", ORDERS, RECOVERY).expect("a page");
    let url = format!("{ORDERS}/bytes/{}", 2 * MIB);
    page(lab, "west/app", &url, &["-o", "/dev/null"]).expect("a download");
    both_say(lab, path);
    wait::until_true("west's relay to have counted it", RECOVERY, || {
        Ok(lab.relay_bytes(Network::West)? - before > 2 * MIB)
    })
    .expect("the relay carried it");
}

#[test]
fn a_request_works_whatever_is_blocked_and_the_status_says_how() {
    // West's router, east's router, how east's activator gets to west's relay.
    let rows = [
        ("ladder1", [Open, NoUdp], "relay/tcp"),
        ("ladder2", [NoUdp, NoUdp], "relay/tcp"),
        ("ladder3", [Open, OnlyTcp443], "relay/tls"),
        ("ladder4", [NoUdp, Open], "relay/udp"),
    ];
    for (name, firewalls, path) in rows {
        let lab = walled_lab(name, firewalls);
        west_relay_carries(&lab, path);
    }
}

#[test]
fn a_sidecar_that_may_not_send_udp_gets_an_allocation_of_its_own() {
    // West's workload host, east's router, the path: nothing but west's relay's TCP and TLS ports is left to the sidecar.
    let rows = [
        ("ladder6", NoUdp, Open, "relay/tcp"),
        ("ladder7", NoUdp, NoUdp, "relay/tcp"),
        ("ladder8", OnlyTcp443, Open, "relay/tls"),
        ("ladder9", OnlyTcp443, OnlyTcp443, "relay/tls"),
    ];
    for (name, host, router, path) in rows {
        let lab = walled_lab(name, [Open, router]);
        lab.set_host_firewall("west/app", host).expect("a firewall");
        west_relay_carries(&lab, path);
        let turnpike = lab.binaries().join("turnpike").display().to_string();
        let command = [&turnpike, "explain", "orders.east"];
        let said = lab.output("west/app", &command).expect("it works");
        let first = said.lines().next().unwrap_or_default();
        assert!(first.contains(" works: ") && first.contains(path), "{said}");
    }
}

#[test]
fn a_link_outlives_udp_at_its_sidecar_and_climbs_when_it_is_back() {
    let lab = lab("ladder10");
    page(&lab, "west/app", ORDERS, &[]).expect("the link opens");
    both_say(&lab, "relay/udp");
    let link = |lab: &Lab| lab.node_status("west/dns-signal").expect("a status")["links"].clone();
    let opened = link(&lab)[0]["link"].clone();
    let port = lab::plan::TCP_ECHO_PORT.to_string();
    let name = Network::East.service_name();
    let mut transfer = lab
        .spawn(
            "west/app",
            &[&service(&lab), "sequence", &name, &port, "--seconds", "20"],
        )
        .expect("a transfer");
    let before = lab.relay_bytes(Network::West).expect("a count");
    wait::until_true("the transfer to run", RECOVERY, || {
        Ok(lab.relay_bytes(Network::West)? - before > 20_000)
    })
    .expect("it runs");
    lab.set_host_firewall("west/app", NoUdp)
        .expect("a firewall");
    both_say(&lab, "relay/tcp");
    lab.set_host_firewall("west/app", Open).expect("a firewall");
    both_say(&lab, "relay/udp");
    let running = transfer.try_wait().expect("a process").is_none();
    assert!(running, "it saw all of that");
    let output = transfer.wait_with_output().expect("the transfer ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "a record was lost or repeated: {output:?}"
    );
    eprintln!("{said}");
    let links = link(&lab);
    assert_eq!(links.as_array().map(Vec::len), Some(1), "{links}");
    assert_eq!(links[0]["link"], opened, "no link was opened anew");
}

#[test]
fn a_transfer_outlives_udp_and_climbs_when_it_is_back() {
    let lab = lab("ladder5");
    page(&lab, "west/app", ORDERS, &[]).expect("the link opens");
    both_say(&lab, "relay/udp");
    let length = 60 * MIB;
    let url = format!("{ORDERS}/bytes/{length}");
    let script = format!("curl -sS --fail --limit-rate 3M -D /dev/stderr {url} | sha256sum");
    let mut command = lab.command("west/app", "sh").expect("a command");
    let transfer = command
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl starts");
    let moved = |least: u64| {
        let start = lab.relay_bytes(Network::West).expect("a count");
        wait::until_true("the transfer to go on", RECOVERY, || {
            Ok(lab.relay_bytes(Network::West)? - start > least)
        })
        .expect("it goes on");
    };
    moved(3 * MIB);
    lab.set_firewall(Network::East, NoUdp).expect("a firewall");
    moved(3 * MIB);
    both_say(&lab, "relay/tcp");
    lab.set_firewall(Network::East, OnlyTcp443)
        .expect("a firewall");
    moved(3 * MIB);
    both_say(&lab, "relay/tls");
    lab.set_firewall(Network::East, Open).expect("a firewall");
    wait::until_true("the allocation to climb", Duration::from_secs(45), || {
        Ok(paths(&lab).iter().all(|said| said == "relay/udp"))
    })
    .expect("it climbs");
    moved(3 * MIB);
    let output = transfer.wait_with_output().expect("curl ends");
    let [seen, said] =
        [output.stdout, output.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
    let wanted = said
        .lines()
        .find_map(|line| line.strip_prefix("X-Sha256: "));
    assert_eq!(
        seen.split(' ').next(),
        wanted.map(str::trim),
        "a byte was lost or changed: {said}"
    );
    // It was one allocation all the time: no link was opened anew.
    let status = lab.node_status("east/activator").expect("a status");
    assert_eq!(
        status["links"].as_array().map(Vec::len),
        Some(1),
        "{status}"
    );
}
