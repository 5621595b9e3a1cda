//! Networks behind NATs of every kind: the NATs are what they say, and links find the shortest way through them.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::plan::{DISCOVERY, DISCOVERY_IPV6, Segment};
use lab::{Dependent, Firewall, Lab, NatKind, Network, netns, wait};
use scenarios::{ORDERS, RECOVERY, bare_lab, lab, page, page_within, service};

const MIB: u64 = 1 << 20;
const SIDECAR: &str = "west/dns-signal";
const ACTIVATOR: &str = "east/activator";

/// A socket in a host, which stays there.
fn socket(lab: &Lab, host: &str, address: &str) -> UdpSocket {
    netns::inside(&lab.namespace(host), || {
        let socket = UdpSocket::bind(address).expect("a socket");
        let patience = Duration::from_millis(300);
        socket.set_read_timeout(Some(patience)).expect("a timeout");
        socket
    })
    .expect("the host")
}

/// Who is next to have sent something here.
fn heard(socket: &UdpSocket) -> Option<SocketAddr> {
    socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
}

/// Two addresses outside, with two ports each.
fn outside(lab: &Lab) -> [UdpSocket; 3] {
    [
        "203.0.113.53:7001",
        "203.0.113.53:7002",
        "203.0.113.54:7001",
    ]
    .map(|address| socket(lab, "upstream", address))
}

fn send(from: &UdpSocket, to: SocketAddr) {
    from.send_to(b"hello", to).expect("sent");
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("an address")
}

/// What the NAT before a host depends on, found out as in RFC 5780: mapping and filtering.
fn behavior(lab: &Lab, host: &str, others: &[UdpSocket; 3]) -> (Dependent, Dependent) {
    let inside = socket(lab, host, "0.0.0.0:0");
    let seen = others.each_ref().map(|other| {
        send(&inside, address(other));
        heard(other).expect("what is sent outside arrives")
    });
    let mapping = match seen {
        [first, port, ip] if first == port && first == ip => Dependent::Nothing,
        [first, port, _] if first == port => Dependent::Address,
        _ => Dependent::AddressAndPort,
    };
    let inside = socket(lab, host, "0.0.0.0:0");
    send(&inside, address(&others[0]));
    let mapped = heard(&others[0]).expect("what is sent outside arrives");
    others.iter().for_each(|other| send(other, mapped));
    let let_in: BTreeSet<SocketAddr> = std::iter::from_fn(|| heard(&inside)).collect();
    assert!(
        let_in.contains(&address(&others[0])),
        "an answer: {let_in:?}"
    );
    let passes = |other: &UdpSocket| let_in.contains(&address(other));
    let filtering = match (passes(&others[1]), passes(&others[2])) {
        (true, true) => Dependent::Nothing,
        (true, false) => Dependent::Address,
        (false, _) => Dependent::AddressAndPort,
    };
    (mapping, filtering)
}

#[test]
fn every_nat_maps_and_filters_as_its_kind_says() {
    let lab = bare_lab("nat1");
    let others = outside(&lab);
    for kind in NatKind::ALL {
        for network in Network::PAIR {
            lab.set_nat(network, kind).expect("a NAT");
            // A port that comes again must not find what an earlier kind let in.
            lab.forget_mappings(network).expect("it dials in anew");
            for host in ["app", "activator"] {
                let found = behavior(&lab, &format!("{network}/{host}"), &others);
                assert_eq!(
                    found,
                    (kind.mapping(), kind.filtering()),
                    "{kind} in {network}"
                );
            }
        }
    }
}

#[test]
fn what_was_never_sent_from_is_not_let_in_and_what_is_forgotten_neither() {
    let lab = bare_lab("nat2");
    let others = outside(&lab);
    lab.set_nat(Network::West, NatKind::FullCone)
        .expect("a NAT");
    let inside = socket(&lab, "west/app", "0.0.0.0:0");
    let port = address(&inside).port();
    let router = SocketAddr::from(([203, 0, 113, 11], port));
    send(&others[0], router);
    assert_eq!(heard(&inside), None, "nothing was sent from there yet");
    send(&inside, address(&others[0]));
    assert_eq!(heard(&others[0]), Some(router), "the port is kept");
    send(&others[2], router);
    assert_eq!(heard(&inside), Some(address(&others[2])));
    lab.set_nat(Network::West, NatKind::Symmetric)
        .expect("a NAT");
    lab.forget_mappings(Network::West)
        .expect("it dials in anew");
    others.iter().for_each(|other| send(other, router));
    assert_eq!(heard(&inside), None, "the mapping is gone");
    send(&inside, address(&others[0]));
    let anew = heard(&others[0]).expect("a new mapping");
    assert_ne!(anew, router);
}

#[test]
fn a_nat_with_hairpinning_turns_what_is_sent_to_its_own_outside() {
    let lab = bare_lab("nat3");
    let others = outside(&lab);
    for (hairpin, kind) in [
        (false, NatKind::FullCone),
        (true, NatKind::FullCone),
        (true, NatKind::PortRestricted),
    ] {
        if hairpin {
            lab.set_hairpin_nat(Network::West, kind).expect("a NAT");
        } else {
            lab.set_nat(Network::West, kind).expect("a NAT");
        }
        let seen = ["west/app", "west/billing"].map(|host| {
            let inside = socket(&lab, host, "0.0.0.0:0");
            send(&inside, address(&others[0]));
            let seen = heard(&others[0]).expect("what is sent outside arrives");
            (inside, seen)
        });
        let [(app, app_seen), (billing, billing_seen)] = seen;
        send(&app, billing_seen);
        let from = hairpin.then_some(app_seen);
        assert_eq!(heard(&billing), from, "from the sender's outside address");
    }
}

#[test]
fn behind_a_carriers_nat_the_stricter_of_the_two_decides() {
    let lab = bare_lab("nat4");
    let others = outside(&lab);
    lab.put_behind_carrier(Network::West, NatKind::PortRestricted)
        .expect("a carrier");
    lab.set_nat(Network::West, NatKind::FullCone)
        .expect("a NAT");
    let strict = (Dependent::Nothing, Dependent::AddressAndPort);
    assert_eq!(behavior(&lab, "west/app", &others), strict);
    lab.set_nat(Network::West, NatKind::Symmetric)
        .expect("a NAT");
    let symmetric = (Dependent::AddressAndPort, Dependent::AddressAndPort);
    assert_eq!(behavior(&lab, "west/app", &others), symmetric);
}

fn link(lab: &Lab) -> anyhow::Result<serde_json::Value> {
    Ok(lab.node_status(SIDECAR)?["links"][0].take())
}

fn path(lab: &Lab) -> String {
    let link = link(lab).expect("a status");
    link["path"].as_str().unwrap_or_default().to_owned()
}

/// Both ends know how they look from outside.
fn wait_for_reflexive(lab: &Lab) {
    for node in [SIDECAR, ACTIVATOR] {
        wait::until_true(&format!("{node} to see itself"), RECOVERY, || {
            let status = lab.node_status(node)?;
            Ok(status["reflexive"]
                .as_array()
                .is_some_and(|seen| !seen.is_empty()))
        })
        .expect("a relay says so");
    }
}

/// A new link from west's workload to east, with both ends started anew behind these NATs.
fn connect(lab: &Lab, ours: NatKind, theirs: NatKind) {
    lab.stop(SIDECAR).expect("it ends");
    lab.stop(ACTIVATOR).expect("it ends");
    lab.set_nat(Network::West, ours).expect("a NAT");
    lab.set_nat(Network::East, theirs).expect("a NAT");
    lab.start(ACTIVATOR).expect("it starts");
    lab.start(SIDECAR).expect("it starts");
    lab.wait_for_name(Network::West, &Network::East.service_name(), RECOVERY)
        .expect("the name");
    wait_for_reflexive(lab);
    page_within(lab, "west/app", ORDERS, RECOVERY).expect("a page");
}

fn wait_until_direct(lab: &Lab) {
    let direct = || Ok(link(lab)?["path"] == "direct");
    wait::until_true("a direct path", RECOVERY, direct).expect("punched");
}

/// How long after it was open a link was direct; 0 when it was from the beginning.
fn direct_after(lab: &Lab) -> f64 {
    let link = link(lab).expect("a status");
    let steps = link["steps"].as_array().expect("steps");
    let at = |name: &str| {
        let step = steps.iter().find(|step| step["step"] == name);
        step.and_then(|step| step["ms"].as_f64())
            .unwrap_or_else(|| panic!("no step {name}: {link}"))
    };
    (at("direct") - at("open")).max(0.0)
}

/// What is printed, and kept in docs/nat.md.
fn table(paths: &[[String; 4]; 4]) -> String {
    let mut text = String::from("| sidecar's NAT ↓, activator's → |");
    for kind in NatKind::ALL {
        let _ = write!(text, " {kind} |");
    }
    text += "\n|---|---|---|---|---|\n";
    for (kind, row) in NatKind::ALL.into_iter().zip(paths) {
        let _ = writeln!(text, "| {kind} | {} |", row.join(" | "));
    }
    text
}

/// Compares the table with the one that is kept; `TURNPIKE_WRITE_DOCS=1` writes it instead.
fn keep(table: &str) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/nat.md");
    let kept = fs::read_to_string(file).expect("docs/nat.md");
    let (begin, end) = ("<!-- grid -->\n", "<!-- end of grid -->");
    let (head, rest) = kept.split_once(begin).expect("where the table begins");
    let (_, tail) = rest.split_once(end).expect("where the table ends");
    let wanted = format!("{head}{begin}\n{table}\n{end}{tail}");
    if std::env::var_os("TURNPIKE_WRITE_DOCS").is_some() {
        fs::write(file, &wanted).expect("written");
    }
    let kept = fs::read_to_string(file).expect("docs/nat.md");
    assert_eq!(kept, wanted, "docs/nat.md: TURNPIKE_WRITE_DOCS=1 writes it");
}

#[test]
fn all_sixteen_pairs_of_nats_connect_and_those_that_can_be_punched_are_direct_within_a_second() {
    let lab = lab("nat5");
    let mut slowest = 0.0_f64;
    let paths = NatKind::ALL.map(|ours| {
        NatKind::ALL.map(|theirs| {
            connect(&lab, ours, theirs);
            let expected = ours.punches_through(theirs);
            if expected {
                wait_until_direct(&lab);
                let after = direct_after(&lab);
                slowest = slowest.max(after);
                assert!(after <= 1000.0, "{ours} and {theirs}: {after} ms");
            }
            let before = lab.relay_bytes(Network::West).expect("a count");
            let url = format!("{ORDERS}/bytes/{}", 4 * MIB);
            page(&lab, "west/app", &url, &["-o", "/dev/null"]).expect("a download");
            if !expected {
                wait::until_true("west's relay to have counted it", RECOVERY, || {
                    Ok(lab.relay_bytes(Network::West)? - before > 4 * MIB)
                })
                .expect("the bytes crossed the relay");
            }
            let relayed = lab.relay_bytes(Network::West).expect("a count") - before;
            let path = path(&lab);
            println!("{ours} and {theirs}: {path}, {relayed} bytes over the relay");
            assert_eq!(path == "direct", expected, "{ours} and {theirs}: {path}");
            assert!(
                !expected || relayed < MIB,
                "{ours} and {theirs}: {relayed} bytes over the relay"
            );
            path
        })
    });
    let table = table(&paths);
    println!("{table}\nthe slowest was direct {slowest} ms after the link was open");
    keep(&table);
}

/// A download of bytes that are all different, slowly; its digest is printed in the end.
fn download(lab: &Lab, length: u64) -> std::process::Child {
    let script = format!(
        "set -o pipefail; curl -sS --fail --limit-rate 4M -m 120 {ORDERS}/bytes/{length} | sha256sum"
    );
    lab.spawn("west/app", &["bash", "-c", &script])
        .expect("it starts")
}

/// Waits until the tunnel brought `more` bytes, by whatever link; how long that took.
fn wait_for_bytes(lab: &Lab, more: u64) -> Duration {
    let counter = "/sys/class/net/turnpike0/statistics/rx_bytes";
    let received = || -> anyhow::Result<u64> {
        Ok(lab.output("west/app", &["cat", counter])?.trim().parse()?)
    };
    let (before, began) = (received().expect("a count"), Instant::now());
    wait::until_true("the transfer to go on", RECOVERY, || {
        Ok(received()? > before + more)
    })
    .expect("it goes on");
    began.elapsed()
}

fn assert_whole(lab: &Lab, download: std::process::Child, length: u64) {
    let output = download.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let digest = lab.output("upstream", &[&service(lab), "digest", &length.to_string()]);
    let digest = digest.expect("the digest");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed.split(' ').next(), Some(digest.trim()));
}

#[test]
fn a_nat_that_forgets_its_ports_does_not_end_a_transfer() {
    let lab = lab("nat6");
    connect(&lab, NatKind::Symmetric, NatKind::FullCone);
    wait_until_direct(&lab);
    let before = link(&lab).expect("a status");
    let length = 40 * MIB;
    let transfer = download(&lab, length);
    wait_for_bytes(&lab, 2 * MIB);
    for _ in 0..2 {
        lab.forget_mappings(Network::West)
            .expect("it dials in anew");
        let stall = wait_for_bytes(&lab, MIB);
        println!("{} ms until another MiB was there", stall.as_millis());
    }
    assert_whole(&lab, transfer, length);
    let after = link(&lab).expect("a status");
    assert_eq!(after["link"], before["link"], "the link is the same");
}

#[test]
fn a_link_that_came_from_many_ports_falls_back_to_a_relay_that_was_restarted() {
    let lab = lab("nat11");
    connect(&lab, NatKind::Symmetric, NatKind::FullCone);
    wait_until_direct(&lab);
    let before = link(&lab).expect("a status");
    for _ in 0..24 {
        lab.forget_mappings(Network::West)
            .expect("it dials in anew");
        page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page");
        wait_until_direct(&lab);
    }
    // The new allocation has to let through where the sidecar is now, and not where it was.
    let relayed = || -> anyhow::Result<Option<serde_json::Value>> {
        let status = lab.node_status(ACTIVATOR)?;
        let all = status["allocations"].as_array().cloned();
        let of_west = all.unwrap_or_default().into_iter();
        let mut of_west = of_west.filter(|one| one["relay"] == "west");
        let there = of_west.find(|one| one["state"] == "allocated");
        Ok(there.map(|one| one["relayed"].clone()))
    };
    let first = relayed().expect("a status").expect("an allocation");
    lab.stop("west/relay").expect("it ends");
    lab.start("west/relay").expect("it starts");
    wait::until_true("the activator's new allocation", RECOVERY, || {
        Ok(relayed()?.is_some_and(|again| again != first))
    })
    .expect("an allocation");
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page");
    lab.set_firewall(Network::West, Firewall::NoUdp)
        .expect("a firewall");
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page");
    let after = link(&lab).expect("a status");
    assert_eq!(after["link"], before["link"], "the link is the same");
    assert!(path(&lab).starts_with("relay/"), "{}", path(&lab));
}

#[test]
fn a_sidecar_whose_address_changes_goes_on_with_its_transfers() {
    let lab = lab("nat9");
    for kind in [NatKind::Symmetric, NatKind::PortRestricted] {
        connect(&lab, kind, kind);
        let length = 40 * MIB;
        let transfer = download(&lab, length);
        wait_for_bytes(&lab, 2 * MIB);
        for (from, to) in [(10, 11), (11, 10)] {
            lab.readdress("west/app", from, to)
                .expect("another address");
            let stall = wait_for_bytes(&lab, MIB);
            println!(
                "{} ms until another MiB was there, by {}",
                stall.as_millis(),
                path(&lab)
            );
        }
        assert_whole(&lab, transfer, length);
    }
}

#[test]
fn a_workload_without_ipv4_reaches_a_service_of_either_family() {
    let lab = lab("nat10");
    lab.stop(SIDECAR).expect("it ends");
    let (ipv4, ipv6) = (DISCOVERY.to_string(), DISCOVERY_IPV6.to_string());
    lab.edit_config(SIDECAR, |text| text.replace(&ipv4, &ipv6))
        .expect("discovery over IPv6");
    lab.output("west/app", &["ip", "-4", "address", "flush", "dev", "lan"])
        .expect("no IPv4");
    lab.start(SIDECAR).expect("it starts");
    lab.wait_for_name(Network::West, &Network::East.service_name(), RECOVERY)
        .expect("the name");
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page");
    let before = lab.relay_bytes(Network::West).expect("a count");
    let url = format!("{ORDERS}/bytes/{}", 2 * MIB);
    for family in ["-4", "-6"] {
        page(&lab, "west/app", &url, &[family, "-o", "/dev/null"]).expect("a download");
    }
    wait::until_true("west's relay to have counted it", RECOVERY, || {
        Ok(lab.relay_bytes(Network::West)? - before > 4 * MIB)
    })
    .expect("the bytes crossed the relay");
    assert_eq!(path(&lab), "relay/udp");
}

#[test]
fn behind_a_carriers_nat_links_are_direct_all_the_same() {
    let lab = lab("nat7");
    lab.put_behind_carrier(Network::West, NatKind::PortRestricted)
        .expect("a carrier");
    connect(&lab, NatKind::AddressRestricted, NatKind::PortRestricted);
    wait_until_direct(&lab);
}

#[test]
fn a_cable_that_comes_and_goes_moves_the_link_and_loses_nothing() {
    let lab = lab("nat8");
    connect(&lab, NatKind::PortRestricted, NatKind::PortRestricted);
    wait_until_direct(&lab);
    let length = 40 * MIB;
    let transfer = download(&lab, length);
    wait_for_bytes(&lab, 2 * MIB);
    for _ in 0..2 {
        lab.plug("west/router", Segment::Public, false)
            .expect("out");
        let stall = wait_for_bytes(&lab, MIB);
        println!(
            "{} ms until another MiB was there, by {}",
            stall.as_millis(),
            path(&lab)
        );
        lab.plug("west/router", Segment::Public, true).expect("in");
        wait_until_direct(&lab);
    }
    assert_whole(&lab, transfer, length);
}
