//! RFC 8656 section 21: what an attacker must not get.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, REALM, Relay, addr};
use proptest::prelude::*;
use turn_relay_proto::{DropReason, max_unauthenticated_answer};

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
