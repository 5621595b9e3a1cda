//! RFC 8656 section 21: what an attacker must not get.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, REALM, Relay, addr, server_addr};
use model::{PeerAddr, ServerAddr};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use turn_relay_proto::{DropReason, PeerPolicy, max_unauthenticated_answer};

fn policy(allow: &[&str]) -> PeerPolicy {
    let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
    PeerPolicy::new(allow, &[ServerAddr(server_addr())])
}

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
    ]
}

#[test]
fn nobody_is_reachable_unless_allowed() {
    let none = policy(&[]);
    let some = policy(&["10.0.0.0/24", "fd00:10::/64"]);
    for ip in ["10.0.0.5", "fd00:10::5"] {
        let ip: IpAddr = ip.parse().unwrap();
        assert!(!none.allows(ip));
        assert!(some.allows(ip));
    }
    for ip in [
        "10.0.1.5",
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "8.8.8.8",
        "::",
        "::1",
        "fe80::1",
        "fd00:11::5",
        "2001:db8::1",
    ] {
        assert!(!some.allows(ip.parse().unwrap()), "{ip}");
    }
}

#[test]
fn what_is_no_host_is_not_reachable_even_if_everything_is_allowed() {
    let all = policy(&["0.0.0.0/0", "::/0"]);
    for ip in [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
    ] {
        assert!(!all.allows(ip.parse().unwrap()), "{ip}");
    }
    assert!(all.allows("127.0.0.1".parse().unwrap()));
    assert!(all.allows("::1".parse().unwrap()));
}

#[test]
fn the_server_itself_is_no_peer() {
    let policy = policy(&["0.0.0.0/0"]);
    let peer = |text| PeerAddr(addr(text));
    assert!(!policy.allows_port(peer("203.0.113.12:3478")));
    assert!(policy.allows_port(peer("203.0.113.12:3479")));
    assert!(policy.allows_port(peer("10.0.0.5:3478")));
    assert!(!policy.allows_port(peer("10.0.0.5:0")));
    let wildcard = PeerPolicy::new(vec![], &[ServerAddr(addr("0.0.0.0:3478"))]);
    assert!(!wildcard.allows_port(peer("10.0.0.5:3478")));
}

#[test]
fn a_permission_does_not_open_port_zero() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    assert_eq!(
        client.sends_indication(&mut relay, "10.0.0.5:0", b"x"),
        Outcome::Dropped(DropReason::DeniedPeer)
    );
}

proptest! {
    #[test]
    fn a_denied_address_is_denied_in_every_spelling(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let allowed = "10.0.0.0/8".parse::<ipnet::Ipv4Net>().unwrap();
        prop_assume!(!allowed.contains(&v4));
        // All of IPv6 is allowed, so only what is hidden in it can deny.
        let policy = policy(&["10.0.0.0/8", "8.8.8.8/32", "18.52.86.120/32", "::/0"]);
        prop_assume!(!policy.allows(v4.into()));
        for spelling in spellings(v4) {
            prop_assert!(!policy.allows(spelling.into()), "{}", spelling);
        }
    }

    #[test]
    fn an_allowed_address_in_a_spelling_needs_that_spelling_allowed_too(low in 1u32..0xFF_FFFF) {
        let v4 = Ipv4Addr::from_bits(0x0A00_0000 | low);
        let only_v4 = policy(&["10.0.0.0/8"]);
        prop_assert!(only_v4.allows(v4.into()));
        for spelling in spellings(v4) {
            prop_assert!(!only_v4.allows(spelling.into()), "{}", spelling);
        }
    }

    #[test]
    fn random_bytes_never_panic_store_nothing_and_get_a_small_answer(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        shape in 0u8..4,
        method in prop::sample::select(vec![1u8, 3, 4, 6, 8, 9]),
    ) {
        // Most random bytes are no STUN: help some of them.
        if shape > 0 && bytes.len() >= 20 {
            bytes.truncate(bytes.len() / 4 * 4);
            let length = (bytes.len() - 20) as u16;
            bytes[0] = if shape == 3 { bytes[0] & 3 } else { 0 };
            bytes[1] = if shape == 3 { bytes[1] } else { method };
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
            if shape == 2 {
                // Short attributes, so that many are well-formed.
                let mut at = 20;
                while at + 4 <= bytes.len() {
                    bytes[at] &= 0x80;
                    bytes[at + 1] %= 0x30;
                    bytes[at + 2] = 0;
                    bytes[at + 3] %= 24;
                    at += 4 + usize::from(bytes[at + 3]).next_multiple_of(4);
                }
            }
        }
        let mut relay = Relay::new();
        let client = addr("192.0.2.1:4000");
        if let Outcome::Answer(answer) = relay.client_sends(client, &bytes) {
            prop_assert!(answer.len() <= max_unauthenticated_answer(REALM.len()), "{}", answer.len());
        }
        prop_assert_eq!(relay.stats().allocations, 0);
        prop_assert!(relay.server.poll_timeout().is_none());
        prop_assert!(relay.open.is_empty());
    }

    #[test]
    fn a_request_with_a_flipped_bit_is_never_obeyed(at in 0usize..400, bit in 0u8..8) {
        let mut relay = Relay::new();
        let mut client = Client::new("192.0.2.1:4000");
        client.allocate(&mut relay);
        let lifetime = turn_types::attribute::Lifetime::new(0);
        let mut bytes = client.signed(turn_types::message::REFRESH, &[&lifetime]);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let outcome = relay.client_sends(client.address, &bytes);
        prop_assert_eq!(relay.stats().allocations, 1, "{:?}", outcome);
    }

    #[test]
    fn random_bytes_from_an_allocated_client_and_from_peers_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        first in 0u8..0x80,
    ) {
        let mut relay = Relay::new();
        let mut client = Client::new("192.0.2.1:4000");
        let relayed = client.allocate(&mut relay);
        client.bind(&mut relay, 0x4000, "10.0.0.5:7");
        relay.peer_sends("10.0.0.5:7", relayed, &bytes);
        relay.peer_sends("10.0.0.5:8", relayed, &bytes);
        relay.peer_sends("10.0.0.6:7", relayed, &bytes);
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        relay.client_sends(client.address, &bytes);
        prop_assert_eq!(relay.stats().allocations, 1);
    }
}
