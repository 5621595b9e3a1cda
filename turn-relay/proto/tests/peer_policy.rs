//! Who may be reached, however an address is written (RFC 8656 section 21.1).

#![allow(clippy::unwrap_used)]

mod common;

use common::{addr, server_addr};
use ipnet::IpNet;
use model::{PeerAddr, ServerAddr};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use turn_relay_proto::{Denied, PeerPolicy, PeerRule, PeerRules, RuleError};

fn rules(texts: &[&str]) -> Vec<PeerRule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy(allow: &[&str], deny: &[&str]) -> PeerPolicy {
    PeerPolicy::from(PeerRules {
        allow: rules(allow),
        deny: rules(deny),
        own: vec![server_addr()],
        ..PeerRules::default()
    })
}

fn host(policy: &PeerPolicy, ip: &str) -> Result<(), Denied> {
    policy.check_host(ip.parse().unwrap())
}

fn peer(policy: &PeerPolicy, peer: &str) -> Result<(), Denied> {
    policy.check(PeerAddr(addr(peer)))
}

const NAT64: &str = "2001:db8:64::/96";

/// All the ways to write an IPv4 address in IPv6.
fn spellings(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    vec![
        v4.to_ipv6_mapped(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0, 0, 0, 0, 0xFFFF, 0, high, low),
        Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xFF9B, 1, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xFF9B, 1, high, low >> 8, low << 8, 0, 0),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0x1234, 0x5678),
        Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low),
        Ipv6Addr::new(0xFD00, 0x10, 0, 0, 0, 0x5EFE, high, low),
        Ipv6Addr::new(0x2001, 0xDB8, 0x64, 0, 0, 0, high, low),
    ]
}

#[test]
fn nobody_is_reachable_unless_allowed() {
    let none = policy(&[], &[]);
    let some = policy(&["10.0.0.0/24", "fd00:10::/64"], &[]);
    assert!(none.is_empty() && !some.is_empty());
    for ip in ["10.0.0.5", "fd00:10::5"] {
        assert_eq!(host(&none, ip), Err(Denied::NotAllowed));
        assert_eq!(host(&some, ip), Ok(()));
    }
    for ip in [
        "10.0.1.5",
        "127.0.0.1",
        "169.254.169.254",
        "8.8.8.8",
        "::1",
        "fe80::1",
        "fd00:11::5",
        "2001:db8::1",
    ] {
        assert_eq!(host(&some, ip), Err(Denied::NotAllowed), "{ip}");
    }
}

#[test]
fn what_is_no_single_host_is_not_reachable_even_if_it_is_allowed() {
    let all = policy(
        &["0.0.0.0/0", "::/0", "0.0.0.0/8", "224.0.0.0/4", "ff00::/8"],
        &[],
    );
    for ip in [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::ffff:0.0.0.0",
        "64:ff9b::e000:1",
    ] {
        assert_eq!(host(&all, ip), Err(Denied::NoHost), "{ip}");
    }
    assert_eq!(peer(&all, "10.0.0.5:0"), Err(Denied::NoHost));
}

#[test]
fn loopback_link_local_and_metadata_services_have_to_be_meant() {
    let everything = policy(&["0.0.0.0/0", "::/0"], &[]);
    let guarded = [
        ("127.0.0.1", "127.0.0.0/8"),
        ("127.8.9.10", "127.8.0.0/16"),
        ("::1", "::1/128"),
        ("169.254.169.254", "169.254.169.254/32"),
        ("169.254.1.1", "169.254.0.0/16"),
        ("fe80::1", "fe80::/10"),
        ("fec0::1", "fec0::/10"),
        ("fd00:ec2::254", "fd00:ec2::254/128"),
        ("100.100.100.200", "100.100.100.200/32"),
        ("192.0.0.192", "192.0.0.192/32"),
        ("168.63.129.16", "168.63.129.16/32"),
    ];
    for (ip, rule) in guarded {
        assert_eq!(host(&everything, ip), Err(Denied::Guarded), "{ip}");
        assert_eq!(host(&policy(&[rule], &[]), ip), Ok(()), "{ip}");
    }
    // Allowing a larger private network is not meaning what is in it.
    let ula = policy(&["fd00::/8", "100.64.0.0/10"], &[]);
    assert_eq!(host(&ula, "fd00:ec2::254"), Err(Denied::Guarded));
    assert_eq!(host(&ula, "100.100.100.200"), Err(Denied::Guarded));
    assert_eq!(host(&ula, "100.100.100.201"), Ok(()));
}

#[test]
fn a_deny_rule_beats_every_allow_rule() {
    let policy = policy(
        &["10.0.0.0/8", "10.0.0.5/32", "::/0"],
        &["10.0.0.0/24", "fd00:5::/32"],
    );
    assert_eq!(host(&policy, "10.0.0.5"), Err(Denied::Listed));
    assert_eq!(host(&policy, "10.0.1.5"), Ok(()));
    assert_eq!(host(&policy, "fd00:5::1"), Err(Denied::Listed));
    assert_eq!(host(&policy, "::ffff:10.0.0.5"), Err(Denied::Listed));
}

#[test]
fn a_rule_may_be_about_some_ports() {
    let policy = policy(
        &[
            "10.0.0.0/24:53,8000-8999",
            "10.0.1.0/24",
            "fd00:10::/64:443",
        ],
        &["10.0.0.0/16:8080", "10.0.1.9/32:1-1024"],
    );
    for (address, expected) in [
        ("10.0.0.5:53", Ok(())),
        ("10.0.0.5:8000", Ok(())),
        ("10.0.0.5:8999", Ok(())),
        ("10.0.0.5:54", Err(Denied::NotAllowed)),
        ("10.0.0.5:9000", Err(Denied::NotAllowed)),
        ("10.0.0.5:8080", Err(Denied::Listed)),
        ("10.0.1.5:8080", Err(Denied::Listed)),
        ("10.0.1.5:22", Ok(())),
        ("10.0.1.9:22", Err(Denied::Listed)),
        ("10.0.1.9:2222", Ok(())),
        ("[fd00:10::1]:443", Ok(())),
        ("[fd00:10::1]:80", Err(Denied::NotAllowed)),
    ] {
        assert_eq!(peer(&policy, address), expected, "{address}");
    }
    // A permission is for all ports: it may be given where some port may be reached.
    assert_eq!(host(&policy, "10.0.0.5"), Ok(()));
    assert_eq!(host(&policy, "10.0.1.9"), Ok(()));
    assert_eq!(host(&policy, "10.0.2.1"), Err(Denied::NotAllowed));
}

#[test]
fn a_rule_reads_as_it_is_written_and_says_what_is_wrong() {
    for text in [
        "10.0.0.0/24",
        "10.0.0.5/32:53",
        "fd00:10::/64:443,8000-8999",
        "::/0",
    ] {
        assert_eq!(text.parse::<PeerRule>().unwrap().to_string(), text);
    }
    let wrong = |text: &str| text.parse::<PeerRule>().unwrap_err();
    let meant: IpNet = "10.0.0.5/24".parse().unwrap();
    assert_eq!(wrong("10.0.0.5/24"), RuleError::HostBits(meant));
    assert_eq!(wrong("10.0.0.5/24:53"), RuleError::HostBits(meant));
    for text in [
        "ten",
        "10.0.0.5",
        "10.0.0.0/33",
        "fe80::%eth0/64",
        "/24",
        "",
    ] {
        assert_eq!(wrong(text), RuleError::Network, "{text}");
    }
    for ports in ["", "0", "x", "53-", "90-80", "65536", "53,,54", "1-2-3"] {
        let text = format!("10.0.0.0/24:{ports}");
        assert_eq!(wrong(&text), RuleError::Ports, "{text}");
    }
    let many: Vec<String> = (1..=65).map(|port| port.to_string()).collect();
    assert_eq!(
        wrong(&format!("10.0.0.0/24:{}", many.join(","))),
        RuleError::Ports
    );
}

#[test]
fn the_server_itself_is_no_peer() {
    let policy = policy(&["0.0.0.0/0", "::/0"], &[]);
    assert_eq!(peer(&policy, "203.0.113.12:3478"), Err(Denied::Own));
    assert_eq!(
        peer(&policy, "[::ffff:203.0.113.12]:3478"),
        Err(Denied::Own)
    );
    assert_eq!(
        peer(&policy, "[64:ff9b::203.0.113.12]:3478"),
        Err(Denied::Own)
    );
    assert_eq!(peer(&policy, "203.0.113.12:3479"), Ok(()));
    assert_eq!(peer(&policy, "10.0.0.5:3478"), Ok(()));
}

#[test]
fn a_wildcard_is_every_address_of_this_machine_and_not_that_of_others() {
    let wildcard = |hosts: &[&str]| {
        PeerPolicy::from(PeerRules {
            allow: rules(&["0.0.0.0/0", "127.0.0.0/8", "::/0", "::1/128"]),
            own: vec![addr("0.0.0.0:3478"), addr("[::]:3478"), addr("[::]:9101")],
            hosts: hosts.iter().map(|net| net.parse().unwrap()).collect(),
            ..PeerRules::default()
        })
    };
    let known = wildcard(&["203.0.113.12/32", "10.0.64.0/20", "2001:db8::12/128"]);
    for own in [
        "203.0.113.12:3478",
        "203.0.113.12:9101",
        "[2001:db8::12]:9101",
        "10.0.64.77:3478",
        "127.0.0.1:3478",
        "127.3.2.1:9101",
        "[::1]:3478",
        "[2002:cb00:710c::1]:3478",
    ] {
        assert_eq!(peer(&known, own), Err(Denied::Own), "{own}");
    }
    for other in ["198.51.100.1:3478", "203.0.113.12:3479", "10.0.80.1:3478"] {
        assert_eq!(peer(&known, other), Ok(()), "{other}");
    }
    let unknown = wildcard(&[]);
    assert_eq!(peer(&unknown, "198.51.100.1:3478"), Err(Denied::Own));
}

/// What an IPv6 address in a NAT64 prefix of this length leads to, bit by bit as RFC 6052 section 2.2 draws it.
fn translated(prefix: &str, v4: Ipv4Addr) -> Ipv6Addr {
    let prefix: ipnet::Ipv6Net = prefix.parse().unwrap();
    let mut bytes = prefix.addr().octets();
    let mut at = usize::from(prefix.prefix_len() / 8);
    for octet in v4.octets() {
        if at == 8 {
            at += 1;
        }
        bytes[at] = octet;
        at += 1;
    }
    bytes.into()
}

#[test]
fn configured_nat64_prefixes_of_every_length_hide_nothing() {
    let v4 = Ipv4Addr::new(192, 0, 2, 33);
    // The examples of RFC 6052 section 2.4.
    for (prefix, text) in [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ] {
        let ip: Ipv6Addr = text.parse().unwrap();
        assert_eq!(translated(prefix, v4), ip, "{prefix}");
        let with = |allow: &[&str]| {
            PeerPolicy::from(PeerRules {
                allow: rules(allow),
                nat64: vec![prefix.parse().unwrap()],
                ..PeerRules::default()
            })
        };
        let v6_only = with(&["2001:db8::/32"]);
        assert_eq!(v6_only.check_host(ip.into()), Err(Denied::NotAllowed));
        let both = with(&["2001:db8::/32", "192.0.2.33/32"]);
        assert_eq!(both.check_host(ip.into()), Ok(()));
    }
}

proptest! {
    #[test]
    fn a_denied_address_is_denied_in_every_spelling(bits: u32, port in 1u16..) {
        let v4 = Ipv4Addr::from_bits(bits);
        // All of IPv6 is allowed, so only what is hidden in it can deny.
        let policy = PeerPolicy::from(PeerRules {
            allow: rules(&["10.0.0.0/8", "8.8.8.8/32", "18.52.86.120/32", "::/0"]),
            deny: rules(&["10.1.0.0/16"]),
            nat64: vec![NAT64.parse().unwrap()],
            ..PeerRules::default()
        });
        prop_assume!(policy.check_host(v4.into()).is_err());
        for spelling in spellings(v4) {
            prop_assert!(policy.check_host(spelling.into()).is_err(), "{}", spelling);
            let peer = PeerAddr(SocketAddr::new(spelling.into(), port));
            prop_assert!(policy.check(peer).is_err(), "{}", spelling);
        }
    }

    #[test]
    fn an_address_of_a_denied_network_is_denied_in_every_spelling(low: u16, guarded: bool) {
        let base = if guarded { 0xA9FE_0000 } else { 0x0A01_0000 };
        let v4 = Ipv4Addr::from_bits(base | u32::from(low));
        let policy = PeerPolicy::from(PeerRules {
            allow: rules(&["0.0.0.0/0", "::/0"]),
            deny: rules(&["10.1.0.0/16"]),
            nat64: vec![NAT64.parse().unwrap()],
            ..PeerRules::default()
        });
        prop_assert!(policy.check_host(v4.into()).is_err());
        for spelling in spellings(v4) {
            prop_assert!(policy.check_host(spelling.into()).is_err(), "{}", spelling);
        }
    }

    #[test]
    fn an_allowed_address_in_a_spelling_needs_that_spelling_allowed_too(low in 1u32..0xFF_FFFF) {
        let v4 = Ipv4Addr::from_bits(0x0A00_0000 | low);
        let only_v4 = policy(&["10.0.0.0/8"], &[]);
        prop_assert!(only_v4.check_host(v4.into()).is_ok());
        for spelling in spellings(v4) {
            prop_assert!(only_v4.check_host(spelling.into()).is_err(), "{}", spelling);
        }
    }

    #[test]
    fn zone_and_flow_label_change_nothing(bits: u128, port: u16, flow: u32, zone: u32) {
        let policy = policy(&["::/0", "fe80::/10"], &["fd00::/8"]);
        let ip = Ipv6Addr::from_bits(bits);
        let plain = PeerAddr(SocketAddr::new(ip.into(), port));
        let zoned = PeerAddr(SocketAddrV6::new(ip, port, flow, zone).into());
        prop_assert_eq!(policy.check(plain), policy.check(zoned));
    }

    /// Against the plainest way to say it: ranges of numbers.
    #[test]
    fn a_network_is_all_numbers_from_its_first_to_its_last(
        bits: u128, len in 0u8..=128, probe: u128, near in -2i8..=2,
    ) {
        let network = ipnet::Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap().trunc();
        let first = network.network().to_bits();
        let last = network.broadcast().to_bits();
        let policy = PeerPolicy::from(PeerRules {
            allow: rules(&["::/0", "0.0.0.0/0"]),
            deny: vec![IpNet::V6(network).into()],
            ..PeerRules::default()
        });
        for probe in [probe, first.wrapping_add_signed(near.into()), last.wrapping_add_signed(near.into())] {
            let ip = IpAddr::V6(Ipv6Addr::from_bits(probe));
            let denied = policy.check_host(ip) == Err(Denied::Listed);
            // What is no host is found before.
            if policy.check_host(ip) != Err(Denied::NoHost) && (first..=last).contains(&probe) {
                prop_assert!(denied, "{}", ip);
            }
            if !(first..=last).contains(&probe) {
                prop_assert!(!denied, "{}", ip);
            }
        }
    }
}

#[test]
fn a_policy_of_networks_alone_is_the_short_form() {
    let policy = PeerPolicy::new(
        vec!["10.0.0.0/24".parse().unwrap()],
        &[ServerAddr(server_addr())],
    );
    assert_eq!(peer(&policy, "10.0.0.5:7"), Ok(()));
    assert_eq!(peer(&policy, "10.0.1.5:7"), Err(Denied::NotAllowed));
}
