//! A workload in one private network reaches a service in another, by name.
use std::thread;

use lab::{Lab, Network};
use scenarios::{BILLING, ORDERS, caller, lab, page, service};

const BIG: u64 = 200_000_000;

/// Downloads `BIG` bytes and gives back their digest as the client computes it.
fn download(lab: &Lab, host: &str, url: &str, family: &str) -> anyhow::Result<String> {
    let script =
        format!("set -o pipefail; curl {family} -sS --fail -m 120 {url}/bytes/{BIG} | sha256sum");
    let printed = lab.output(host, &["bash", "-c", &script])?;
    Ok(printed.split(' ').next().unwrap_or_default().to_owned())
}

fn expected_digest(lab: &Lab) -> String {
    let printed = lab.output("upstream", &[&service(lab), "digest", &BIG.to_string()]);
    printed.expect("the digest").trim().to_owned()
}

#[test]
fn a_page_by_name_from_both_sides_over_both_families() {
    let lab = lab("reach1");
    for network in Network::PAIR {
        let (host, url) = caller(network);
        for family in ["-4", "-6"] {
            let page = page(&lab, host, &format!("{url}/"), &[family]).expect("a page by name");
            let other = network.other();
            assert!(
                page.starts_with(&format!("{other}/{} greets ", other.service())),
                "{page}"
            );
        }
    }
}

#[test]
fn a_large_download_arrives_whole() {
    let lab = lab("reach2");
    let expected = expected_digest(&lab);
    for family in ["-4", "-6"] {
        let digest = download(&lab, "west/app", ORDERS, family).expect("a download");
        assert_eq!(digest, expected, "{family}");
    }
}

#[test]
fn a_large_upload_arrives_whole() {
    let lab = lab("reach3");
    let file = lab.files().root().join("upload").display().to_string();
    let local = format!("http://10.0.0.20:8080/bytes/{BIG}");
    lab.output("west/app", &["curl", "-sS", "-o", &file, &local])
        .expect("a file to send");
    for family in ["-4", "-6"] {
        let url = format!("{ORDERS}/upload");
        let command = [
            "curl", family, "-sS", "--fail", "-m", "120", "-T", &file, &url,
        ];
        let digest = lab.output("west/app", &command).expect("an upload");
        assert_eq!(digest.trim(), expected_digest(&lab), "{family}");
    }
}

#[test]
fn datagrams_of_every_size_come_back() {
    let lab = lab("reach4");
    let sizes = [
        "1", "2", "3", "100", "1199", "1200", "1372", "1400", "1472", "1473", "4000", "8000",
    ];
    for family in ["4", "6"] {
        let service = service(&lab);
        let fixed = [
            &service,
            "udp-echo",
            "orders.east.mesh.internal",
            "9000",
            "--family",
            family,
        ];
        lab.output("west/app", &[&fixed[..], &sizes].concat())
            .expect("UDP echo");
    }
}

#[test]
fn ping_reaches_the_services_host() {
    let lab = lab("reach5");
    for family in ["-4", "-6"] {
        let command = [
            "ping",
            family,
            "-c",
            "3",
            "-W",
            "3",
            "orders.east.mesh.internal",
        ];
        let printed = lab.output("west/app", &command).expect("ping");
        assert!(printed.contains("3 received, 0% packet loss"), "{printed}");
    }
}

#[test]
fn fifty_connections_at_once_all_get_their_bytes_back() {
    let lab = lab("reach6");
    for family in ["4", "6"] {
        let name = "orders.east.mesh.internal";
        let service = service(&lab);
        let command = [
            &service,
            "tcp-echo",
            name,
            "9001",
            "--connections",
            "50",
            "--family",
            family,
        ];
        lab.output("west/app", &command).expect("TCP echo");
    }
}

#[test]
fn both_directions_work_at_the_same_time() {
    let lab = lab("reach7");
    let expected = expected_digest(&lab);
    thread::scope(|scope| {
        for (host, url) in [("west/app", ORDERS), ("east/app", BILLING)] {
            let (lab, expected) = (&lab, &expected);
            scope.spawn(move || {
                assert_eq!(
                    &download(lab, host, url, "-4").expect("a download"),
                    expected,
                    "{host}"
                );
            });
            scope.spawn(move || {
                let name = url.trim_start_matches("http://").trim_end_matches(":8080");
                let service = service(lab);
                for family in ["4", "6"] {
                    let tcp = [&service, "tcp-echo", name, "9001", "--connections", "25"];
                    lab.output(host, &[&tcp[..], &["--family", family]].concat())
                        .expect("TCP echo");
                    let udp = [
                        &service, "udp-echo", name, "9000", "--family", family, "1", "8000",
                    ];
                    lab.output(host, &udp).expect("UDP echo");
                }
            });
        }
    });
}

#[test]
fn a_port_that_is_not_exported_is_not_reached() {
    let lab = lab("reach8");
    page(&lab, "west/app", ORDERS, &[]).expect("the exported port");
    let closed = page(
        &lab,
        "west/app",
        "http://orders.east.mesh.internal:8081/",
        &["-m", "3"],
    );
    assert!(closed.is_err(), "8081 is not exported");
}
