//! RFC 8656 section 11: Send and Data indications.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, addr};
use stun_types::attribute::{AttributeType, AttributeWrite, RawAttribute};
use stun_types::message::Message;
use turn_relay_proto::DropReason;
use turn_types::AddressFamily;
use turn_types::attribute::{AdditionalAddressFamily, Data, DontFragment, XorPeerAddress};
use turn_types::message::DATA;

#[test]
fn a_send_indication_reaches_the_peer_from_the_relayed_address() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    for payload in [&b"hello"[..], b"", &[7; 8_000]] {
        assert_eq!(
            client.sends_indication(&mut relay, "10.0.0.5:7", payload),
            Outcome::ToPeer {
                from: relayed,
                peer: addr("10.0.0.5:7"),
                payload: payload.to_vec(),
            }
        );
    }
    assert_eq!(relay.stats().to_peer.packets, 3);
    assert_eq!(relay.stats().to_peer.bytes, 8_005);
}

#[test]
fn a_peers_datagram_reaches_the_client_as_a_data_indication() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let relayed = client.try_allocate(&mut relay, &[&both]).relayed();
    let peers = ["10.0.0.5:1234", "[fd00:10::5]:1234"];
    assert_eq!(client.permit(&mut relay, &peers), 0);
    for (peer, relayed) in peers.into_iter().zip(relayed) {
        for length in 0..9 {
            let payload = vec![b'x'; length];
            let Outcome::ToClient { client: to, bytes } = relay.peer_sends(peer, relayed, &payload)
            else {
                panic!("not relayed");
            };
            assert_eq!(to, client.address);
            let message = Message::from_bytes(&bytes).unwrap();
            assert_eq!(message.method(), DATA);
            assert!(!message.is_response());
            let from: XorPeerAddress = message.attribute().unwrap();
            assert_eq!(from.addr(message.transaction_id()), addr(peer));
            let data: Data<'_> = message.attribute().unwrap();
            assert_eq!(data.data(), payload);
        }
    }
    assert_eq!(relay.stats().to_client.packets, 18);
    assert_eq!(relay.stats().to_client.bytes, 72);
}

#[test]
fn dont_fragment_holds_for_its_datagram_alone() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let from = client.allocate(&mut relay);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    let (peer, payload) = (addr("10.0.0.5:7"), b"x".to_vec());
    let whole = client.indication("10.0.0.5:7", b"x", &[&DontFragment::new()]);
    assert_eq!(
        relay.client_sends(client.address, &whole),
        Outcome::ToPeerWhole {
            from,
            peer,
            payload: payload.clone()
        }
    );
    assert_eq!(
        client.sends_indication(&mut relay, "10.0.0.5:7", b"x"),
        Outcome::ToPeer {
            from,
            peer,
            payload
        }
    );
}

#[test]
fn a_send_indication_that_is_not_whole_is_ignored() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    let unknown = RawAttribute::new(AttributeType::new(0x0033), b"");
    let with = |more: &[&dyn AttributeWrite]| client.indication("10.0.0.5:7", b"x", more);
    let malformed = Outcome::Dropped(DropReason::MalformedSend);
    assert_eq!(
        relay.client_sends(client.address, &with(&[&unknown])),
        malformed
    );
    // Without DATA: the last attribute, of 8 bytes, cut off.
    let mut bytes = with(&[]);
    bytes.truncate(bytes.len() - 8);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(relay.client_sends(client.address, &bytes), malformed);
}

#[test]
fn without_allocation_or_relayed_address_of_the_family_it_is_ignored() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    assert_eq!(
        client.sends_indication(&mut relay, "10.0.0.5:7", b"x"),
        Outcome::Dropped(DropReason::NoAllocation)
    );
    client.allocate(&mut relay);
    assert_eq!(
        client.sends_indication(&mut relay, "[fd00:10::5]:7", b"x"),
        Outcome::Dropped(DropReason::FamilyMismatch)
    );
}

#[test]
fn a_datagram_too_large_to_be_wrapped_is_dropped() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    assert_eq!(
        relay.peer_sends("10.0.0.5:7", relayed, &[0; 65_535]),
        Outcome::Dropped(DropReason::TooLarge)
    );
    assert!(matches!(
        relay.peer_sends("10.0.0.5:7", relayed, &[0; 65_000]),
        Outcome::ToClient { .. }
    ));
}
