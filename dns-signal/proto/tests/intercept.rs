//! Which question is whose: a table of cases.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use dns_signal_proto::intercept::{Decision, Suffix, SuffixError, decide};
use dns_signal_proto::service::ServiceId;
use dns_signal_proto::services::{Families, Services};
use dns_signal_proto::virtual_ip::Pools;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use protocol::document::{Registration, Service};

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn services() -> Services {
    let mut services = Services::new(7);
    services.insert_with_ports(
        id("orders.east"),
        Families {
            ipv4: true,
            ipv6: true,
        },
        &[8080, 443, 70_000],
        &[9000],
    );
    services.insert(
        id("legacy.east"),
        Families {
            ipv4: true,
            ipv6: false,
        },
    );
    services.insert(
        id("modern.east"),
        Families {
            ipv4: false,
            ipv6: true,
        },
    );
    services.insert(
        id("billing.west"),
        Families {
            ipv4: true,
            ipv6: true,
        },
    );
    services
}

fn pools() -> Pools {
    Pools::new(
        "198.18.0.0/15".parse().unwrap(),
        "fd74:7572:6e70::/64".parse().unwrap(),
    )
    .unwrap()
}

fn decide_with(
    services: Option<&Services>,
    name: &str,
    record_type: RecordType,
    class: DNSClass,
) -> Decision {
    let suffix: Suffix = "mesh.internal".parse().unwrap();
    decide(
        &Name::from_ascii(name).unwrap(),
        record_type,
        class,
        services,
        &suffix,
        &pools(),
    )
}

/// The decision, in a word.
fn word(decision: &Decision) -> String {
    let trim = |name: &Name| name.to_ascii();
    match decision {
        Decision::Remote { id, ipv4, ipv6 } => {
            format!(
                "{id}{}{}",
                if *ipv4 { " 4" } else { "" },
                if *ipv6 { " 6" } else { "" }
            )
        }
        Decision::Ports { id, ports } => format!("{id} at {ports:?}"),
        Decision::Text { texts, .. } => texts.join(" "),
        Decision::Pointer { address, zone } => format!("{address} in {}", trim(zone)),
        Decision::Authority => "soa".into(),
        Decision::NoData { zone } => format!("nodata {}", trim(zone)),
        Decision::NoSuchName { zone } => format!("nxdomain {}", trim(zone)),
        Decision::Unknown => "unknown".into(),
        Decision::Forward => "forward".into(),
        Decision::Refuse => "refuse".into(),
    }
}

#[test]
fn every_question_has_its_decision() {
    use RecordType::{A, AAAA, ANY, AXFR, HTTPS, MX, NS, PTR, SOA, SRV, SVCB, TXT};
    let table = [
        // Services, by family.
        ("orders.east.mesh.internal.", A, "orders.east 4"),
        ("orders.east.mesh.internal.", AAAA, "orders.east 6"),
        ("orders.east.mesh.internal.", ANY, "orders.east 4 6"),
        ("oRdErS.EAST.Mesh.iNTERNAL.", A, "orders.east 4"),
        ("legacy.east.mesh.internal.", A, "legacy.east 4"),
        ("legacy.east.mesh.internal.", AAAA, "nodata mesh.internal."),
        ("modern.east.mesh.internal.", A, "nodata mesh.internal."),
        ("modern.east.mesh.internal.", AAAA, "modern.east 6"),
        // Our own network's services are reached in the same way.
        ("billing.west.mesh.internal.", A, "billing.west 4"),
        // Types that we do not serve: HTTPS above all, or browsers would go elsewhere.
        ("orders.east.mesh.internal.", HTTPS, "nodata mesh.internal."),
        ("orders.east.mesh.internal.", SVCB, "nodata mesh.internal."),
        ("orders.east.mesh.internal.", MX, "nodata mesh.internal."),
        ("orders.east.mesh.internal.", SRV, "nodata mesh.internal."),
        // What the directory says in words, and where the ports are.
        (
            "orders.east.mesh.internal.",
            TXT,
            "service=orders network=east tcp=443,8080 udp=9000",
        ),
        (
            "legacy.east.mesh.internal.",
            TXT,
            "service=legacy network=east",
        ),
        (
            "nothing.east.mesh.internal.",
            TXT,
            "nxdomain mesh.internal.",
        ),
        (
            "_443._tcp.orders.east.mesh.internal.",
            SRV,
            "orders.east at [443]",
        ),
        (
            "_444._tcp.orders.east.mesh.internal.",
            SRV,
            "nxdomain mesh.internal.",
        ),
        // A name, where there is only one port it can mean.
        (
            "_ECHO._UDP.orders.east.mesh.internal.",
            SRV,
            "orders.east at [9000]",
        ),
        (
            "_http._tcp.orders.east.mesh.internal.",
            SRV,
            "nxdomain mesh.internal.",
        ),
        (
            "_443._tcp.orders.east.mesh.internal.",
            A,
            "nodata mesh.internal.",
        ),
        (
            "_tcp.orders.east.mesh.internal.",
            SRV,
            "nodata mesh.internal.",
        ),
        (
            "_tcp.legacy.east.mesh.internal.",
            SRV,
            "nxdomain mesh.internal.",
        ),
        (
            "_443._sctp.orders.east.mesh.internal.",
            SRV,
            "nxdomain mesh.internal.",
        ),
        (
            "443._tcp.orders.east.mesh.internal.",
            SRV,
            "nxdomain mesh.internal.",
        ),
        // Ours, but absent.
        ("nothing.east.mesh.internal.", A, "nxdomain mesh.internal."),
        (
            "nothing.east.mesh.internal.",
            HTTPS,
            "nxdomain mesh.internal.",
        ),
        ("orders.north.mesh.internal.", A, "nxdomain mesh.internal."),
        ("orders.west.mesh.internal.", A, "nxdomain mesh.internal."),
        (
            "deep.orders.east.mesh.internal.",
            A,
            "nxdomain mesh.internal.",
        ),
        ("north.mesh.internal.", A, "nxdomain mesh.internal."),
        (
            "under_score.east.mesh.internal.",
            A,
            "nxdomain mesh.internal.",
        ),
        ("*.east.mesh.internal.", A, "nxdomain mesh.internal."),
        // Empty non-terminals and the apex exist.
        ("east.mesh.internal.", A, "nodata mesh.internal."),
        ("mesh.internal.", A, "nodata mesh.internal."),
        ("mesh.internal.", NS, "nodata mesh.internal."),
        ("MESH.internal.", SOA, "soa"),
        ("mesh.internal.", AXFR, "refuse"),
        ("orders.east.mesh.internal.", AXFR, "refuse"),
        // Somebody else's.
        ("example.com.", A, "forward"),
        ("internal.", A, "forward"),
        ("xmesh.internal.", A, "forward"),
        ("orders.east.mesh.internal.example.com.", A, "forward"),
        ("mesh.internal.com.", HTTPS, "forward"),
        (".", NS, "forward"),
        // Virtual IPs in reverse.
        (
            "5.0.18.198.in-addr.arpa.",
            PTR,
            "198.18.0.5 in 18.198.in-addr.arpa.",
        ),
        (
            "5.0.19.198.IN-ADDR.arpa.",
            PTR,
            "198.19.0.5 in 19.198.in-addr.arpa.",
        ),
        ("5.0.18.198.in-addr.arpa.", A, "nodata 18.198.in-addr.arpa."),
        ("5.0.20.198.in-addr.arpa.", PTR, "forward"),
        // All of the zones is ours: a resolver that asks us for them would be asked again.
        ("0.18.198.in-addr.arpa.", PTR, "nodata 18.198.in-addr.arpa."),
        ("19.198.in-addr.arpa.", SOA, "nodata 19.198.in-addr.arpa."),
        ("198.in-addr.arpa.", SOA, "forward"),
        (
            "x.5.0.18.198.in-addr.arpa.",
            TXT,
            "nxdomain 18.198.in-addr.arpa.",
        ),
        (
            "x.y.18.198.in-addr.arpa.",
            TXT,
            "nxdomain 18.198.in-addr.arpa.",
        ),
        ("home.arpa.", A, "forward"),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.e.6.2.7.5.7.4.7.d.f.ip6.arpa.",
            PTR,
            "fd74:7572:6e70::7 in 0.0.0.0.0.7.e.6.2.7.5.7.4.7.d.f.ip6.arpa.",
        ),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.7.e.6.2.7.5.7.4.7.d.f.ip6.arpa.",
            PTR,
            "forward",
        ),
    ];
    let services = services();
    for (name, record_type, expected) in table {
        let decision = decide_with(Some(&services), name, record_type, DNSClass::IN);
        assert_eq!(word(&decision), expected, "{name} {record_type}");
    }
}

#[test]
fn labels_may_hold_any_byte_but_then_name_nothing() {
    let suffix: Suffix = "mesh.internal".parse().unwrap();
    let services = services();
    for label in [
        &b"orders.east"[..],
        b"orders\0",
        b"\xff\xfe",
        b"orders ",
        "orders\u{212a}".as_bytes(),
    ] {
        for before in [vec![label], vec![label, b"east"], vec![b"orders", label]] {
            let labels = before.into_iter().chain([&b"mesh"[..], b"internal"]);
            let mut name = Name::from_labels(labels).unwrap();
            name.set_fqdn(true);
            let decision = decide(
                &name,
                RecordType::A,
                DNSClass::IN,
                Some(&services),
                &suffix,
                &pools(),
            );
            assert_eq!(word(&decision), "nxdomain mesh.internal.", "{label:x?}");
        }
    }
}

#[test]
fn another_class_than_in_is_refused() {
    for name in ["orders.east.mesh.internal.", "version.bind."] {
        for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY] {
            let decision = decide_with(Some(&services()), name, RecordType::TXT, class);
            assert_eq!(decision, Decision::Refuse, "{name}");
        }
    }
}

#[test]
fn before_the_directory_is_seen_nothing_is_said_about_its_names() {
    let ask = |name| word(&decide_with(None, name, RecordType::A, DNSClass::IN));
    assert_eq!(ask("orders.east.mesh.internal."), "unknown");
    assert_eq!(ask("east.mesh.internal."), "unknown");
    assert_eq!(ask("mesh.internal."), "nodata mesh.internal.");
    assert_eq!(ask("example.com."), "forward");
}

#[test]
fn a_suffix_is_a_host_name_with_room_before_it() {
    let suffix = |text: &str| text.parse::<Suffix>();
    assert_eq!(
        suffix("Mesh.Internal.").unwrap(),
        suffix("mesh.internal").unwrap()
    );
    assert_eq!(
        suffix("mesh.internal").unwrap().to_string(),
        "mesh.internal"
    );
    assert_eq!(suffix(""), Err(SuffixError::Empty));
    assert_eq!(suffix("."), Err(SuffixError::Empty));
    assert_eq!(suffix("a..b"), Err(SuffixError::NotAName));
    assert_eq!(suffix("under_score"), Err(SuffixError::NotAName));
    let longest = format!("{0}.{0}", "a".repeat(62));
    assert!(suffix(&longest).is_ok());
    assert_eq!(suffix(&format!("{longest}.a")), Err(SuffixError::TooLong));

    let label = "s".repeat(63);
    let id = id(&format!("{label}.{}", "n".repeat(63)));
    let name = suffix(&longest).unwrap().name_of(&id);
    assert_eq!(name.to_ascii(), format!("{id}.{longest}."));
}

#[test]
fn a_service_of_several_activators_has_the_families_of_all() {
    let registration = |ipv4, ipv6| Registration {
        network: "east".into(),
        services: vec![
            Service {
                name: "orders".into(),
                ipv4,
                ipv6,
                ..Default::default()
            },
            Service {
                name: "Not a name".into(),
                ipv4,
                ipv6,
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    let mut services = Services::new(1);
    assert_eq!(services.add_registration(&registration(true, false)), 1);
    assert_eq!(services.add_registration(&registration(false, true)), 1);
    assert_eq!(
        services.families(&id("orders.east")),
        Some(Families {
            ipv4: true,
            ipv6: true
        })
    );
    assert_eq!(services.len(), 1);
    let nowhere = Registration {
        network: "No network".into(),
        ..registration(true, true)
    };
    assert_eq!(services.add_registration(&nowhere), 2);
}

#[test]
fn a_reverse_zone_covers_the_address_and_lies_in_the_pool() {
    let pools = Pools::new(
        "10.64.0.0/10".parse().unwrap(),
        "fd00::/61".parse().unwrap(),
    )
    .unwrap();
    let suffix: Suffix = "mesh.internal".parse().unwrap();
    for address in ["10.64.0.9", "10.127.1.2", "fd00::7:0:0:0:9"] {
        let name = Name::from(address.parse::<IpAddr>().unwrap());
        let decision = decide(&name, RecordType::PTR, DNSClass::IN, None, &suffix, &pools);
        let Decision::Pointer {
            address: found,
            zone,
        } = decision
        else {
            panic!("{address}: {decision:?}");
        };
        assert_eq!(found, address.parse::<IpAddr>().unwrap());
        assert!(zone.zone_of(&name), "{zone} does not cover {name}");
    }
}
