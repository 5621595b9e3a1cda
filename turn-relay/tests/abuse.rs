//! What was once a hole in some TURN server, as far as it needs sockets and a process: each row of
//! `turn-relay/proto/tests/abuse.rs` that the mind alone cannot show.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Service, command, until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use turn_types::AddressFamily::IPV4;

const LOOPBACK: [&str; 6] = [
    "--listen",
    "udp://127.0.0.1:0",
    "--relay-address",
    "127.0.0.1",
    "--allow-peer",
    "127.0.0.0/8",
];

/// With a configuration beside [`LOOPBACK`].
fn start(config: &str, args: &[&str]) -> Service {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    Service::start(&[&LOOPBACK[..], &["--config", path], args].concat())
}

fn http(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn own_listeners_and_the_admin_port_are_no_peers_even_on_wildcards() {
    let service = Service::start(&[
        "--listen",
        "udp://0.0.0.0:0",
        "--listen",
        "tcp://127.0.0.1:0",
        "--relay-address",
        "127.0.0.1",
        "--allow-peer",
        "127.0.0.0/8",
    ]);
    let udp = service.listen[0].port();
    let server = SocketAddr::from(([127, 0, 0, 1], udp));
    let client = Client::connect(server);
    client.allocate(IPV4).unwrap();
    let tcp = service.listening("tcp")[0];
    for own in [
        server,
        SocketAddr::from(([127, 0, 0, 99], udp)),
        tcp,
        service.admin,
    ] {
        assert_eq!(client.bind(0x4000, own), Err(403), "{own}");
    }
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(client.bind(0x4000, other.local_addr().unwrap()), Ok(()));
    until("the counter", || {
        (service.metric("denied_peers_total{reason=\"own\"}") == 4).then_some(())
    });
}

#[test]
fn a_larger_network_does_not_open_loopback_and_deny_beats_allow() {
    let service = Service::start(&[
        "--listen",
        "udp://127.0.0.1:0",
        "--relay-address",
        "127.0.0.1",
        "--allow-peer",
        "0.0.0.0/0",
        "--allow-peer",
        "127.1.0.0/16:7000-7999",
        "--deny-peer",
        "127.1.2.0/24",
    ]);
    let client = Client::connect(service.listen[0]);
    client.allocate(IPV4).unwrap();
    let cases = [
        ("127.0.0.1:7000", Err(403)),
        ("169.254.169.254:80", Err(403)),
        ("127.1.0.1:6999", Err(403)),
        ("127.1.2.1:7000", Err(403)),
        ("127.1.0.1:7000", Ok(())),
        ("198.51.100.1:80", Ok(())),
    ];
    for (channel, (peer, expected)) in (0x4000..).zip(cases) {
        let bound = client.bind(channel, peer.parse().unwrap());
        assert_eq!(bound, expected, "{peer}");
    }
}

#[test]
fn the_turn_port_speaks_no_http_and_the_admin_port_changes_nothing() {
    let service = Service::start(&[&LOOPBACK[..], &["--listen", "tcp://127.0.0.1:0"]].concat());
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(http(service.listening("tcp")[0], get), "");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in [
            "/metrics",
            "/healthz",
            "/psd?file=/tmp/x",
            "/../../etc/passwd",
            "/",
        ] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = http(service.admin, &request);
            let refused = answer.starts_with("HTTP/1.1 405") || answer.starts_with("HTTP/1.1 404");
            assert!(refused, "{method} {path}: {answer}");
        }
    }
}

#[test]
fn without_being_told_there_is_no_admin_port() {
    let mut child = command(&[&LOOPBACK[..], &["--user", "alice:wonderland"]].concat())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("relaying") {
        let mut line = String::new();
        assert!(
            std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0,
            "{text}"
        );
        text += &line;
    }
    // Nothing at all listens over TCP.
    let process = format!("/proc/{}", child.id());
    let links: Vec<_> = std::fs::read_dir(format!("{process}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let listening = ["tcp", "tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(format!("{process}/net/{table}")).unwrap();
        table.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields[3] == "0A" && links.contains(&format!("socket:[{}]", fields[9]))
        })
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!listening && !text.contains("admin port"), "{text}");
}

#[test]
fn many_users_and_peers_do_not_make_more_metrics() {
    let service = start("", &[]);
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<_> = lines
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect();
        names.sort();
        names
    };
    let before = names(&service.metrics());
    // Kept, so that none gets the port of one before it, whose allocation lives on.
    let clients: Vec<_> = (1..=40)
        .map(|_| Client::connect(service.listen[0]))
        .collect();
    for (port, client) in (1..=40).zip(&clients) {
        client.allocate(IPV4).unwrap();
        client
            .permit(SocketAddr::from(([127, 0, 0, port], 7)))
            .unwrap();
    }
    until("40 allocations", || {
        (service.metric("allocations") == 40).then_some(())
    });
    assert_eq!(names(&service.metrics()), before);
    assert!(!service.log().contains("wonderland"));
}

#[test]
fn answers_to_strangers_are_limited_and_those_who_hold_a_nonce_are_not_disturbed() {
    let service = start(
        "threads = 1\nunauthenticated-answers-per-second = 1000\n\
         unauthenticated-answers-per-second-per-prefix = 50\n\
         large-unauthenticated-answers-per-second = 16\n",
        &[],
    );
    // Of another prefix, so that it can log in beside the flood.
    let local = UdpSocket::bind("127.7.7.7:0").unwrap();
    local.connect(service.listen[0]).unwrap();
    local.set_read_timeout(Some(common::DEADLINE)).unwrap();
    let client = Client::over(local, common::ALICE);
    client.allocate(IPV4).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(service.listen[0]).unwrap();
    let binding = [
        0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    let name = "dropped_packets_total{reason=\"unauthenticated_rate\"}";
    until("unanswered requests", || {
        for _ in 0..100 {
            stranger.send(&binding).unwrap();
        }
        client.permit(([127, 0, 0, 9], 7).into()).unwrap();
        (service.metric(name) > 500).then_some(())
    });
    // A bare Allocate is answered now and then, for those whose request cannot be larger.
    let mut bare = binding;
    bare[1] = 3;
    let other = UdpSocket::bind("127.8.8.8:0").unwrap();
    other.connect(service.listen[0]).unwrap();
    other.set_nonblocking(true).unwrap();
    for _ in 0..100 {
        other.send(&bare).unwrap();
    }
    let name = "dropped_packets_total{reason=\"unauthenticated_size\"}";
    // 48 within the prefix's limit and beyond its part of large answers.
    until("what is too small", || {
        (service.metric(name) >= 40).then_some(())
    });
    let mut answer = [0; 2_000];
    while let Ok(length) = other.recv(&mut answer) {
        assert!(length <= 100, "{length}");
    }
}

#[test]
fn a_user_has_its_bandwidth_in_both_directions() {
    let service = start("threads = 1\nuser-bytes-per-second = 1000000\n", &[]);
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(IPV4).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.bind(0x4000, peer.local_addr().unwrap()).unwrap();
    let packet = common::channel_data(0x4000, &[7; 1_000]);
    let over = "dropped_packets_total{reason=\"over_bandwidth\"}";
    let to_peer = "relayed_packets_total{direction=\"to_peer\"}";
    let to_client = "relayed_packets_total{direction=\"to_client\"}";
    until("packets beyond the rate to peers", || {
        for _ in 0..100 {
            client.socket.send(&packet).unwrap();
        }
        (service.metric(over) > 200).then_some(())
    });
    assert!(service.metric(to_peer) >= 100);
    let before = service.metric(over);
    until("packets beyond the rate to the client", || {
        for _ in 0..100 {
            peer.send_to(&[7; 1_000], relayed).unwrap();
        }
        (service.metric(over) > before + 200).then_some(())
    });
    assert!(service.metric(to_client) >= 100);
}

#[test]
fn a_wrong_limit_is_named() {
    for (config, expected) in [
        ("new-peers-per-minute = 20000", "16384"),
        ("deny-peers = ['10.0.0.0/24:0']", "not a list of ports"),
        ("deny-peers = ['10.0.0.5/24:53']", "10.0.0.0/24"),
        (
            "nat64-prefixes = ['2001:db8::/33']",
            "32, 40, 48, 56, 64 or 96",
        ),
        ("user-bytes-per-second = -1", "user-bytes-per-second"),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let args = [&LOOPBACK[..], &["--user", "a:b", "--config", path]].concat();
        let output = command(&args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert!(error.contains(expected), "{config}: {error}");
    }
}
