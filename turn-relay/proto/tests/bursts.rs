//! What the kernel joined is decided about in runs, and each datagram has the fate that it would have had alone.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, addr};
use proptest::prelude::*;
use std::net::SocketAddr;
use turn_relay_proto::Burst;

const PEERS: [&str; 3] = ["10.0.0.5:7", "10.0.0.5:8", "10.0.0.6:7"];

/// Two clients: one with two channels and a permission, one with a channel to the first; and a stranger.
struct World {
    relay: Relay,
    clients: [SocketAddr; 3],
    relayed: [SocketAddr; 2],
}

fn world() -> World {
    let mut relay = Relay::new();
    let mut ann = Client::new("192.0.2.1:5000");
    let mut bob = Client::named("192.0.2.2:6000", "bob", "builder");
    let relayed = [ann.allocate(&mut relay), bob.allocate(&mut relay)];
    assert_eq!(ann.bind(&mut relay, 0x4000, PEERS[0]), 0);
    assert_eq!(ann.bind(&mut relay, 0x4001, &relayed[1].to_string()), 0);
    assert_eq!(ann.permit(&mut relay, &[PEERS[2]]), 0);
    assert_eq!(bob.bind(&mut relay, 0x4002, &relayed[0].to_string()), 0);
    World {
        relay,
        clients: [ann.address, bob.address, addr("192.0.2.9:9")],
        relayed,
    }
}

/// Datagrams of one length as a client may send them: mostly ChannelData, some of it with other channels, lengths that
/// lie, Send indications that are cut, and noise.
fn datagram(len: usize) -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), len);
    let head = prop_oneof![
        6 => (0x4000u16..0x4004, Just(None)),
        1 => (0x4000u16..0x4004, (0u16..40).prop_map(Some)),
        1 => (any::<u16>(), any::<u16>().prop_map(Some)),
    ];
    (body, head).prop_map(move |(mut bytes, (channel, lies))| {
        let header =
            wire::channel_data::header(channel, lies.unwrap_or((len as u16).saturating_sub(4)));
        let n = len.min(4);
        bytes[..n].copy_from_slice(&header[..n]);
        bytes
    })
}

fn joined() -> impl Strategy<Value = (Vec<u8>, usize)> {
    (0usize..40).prop_flat_map(|len| {
        let run = (datagram(len), 1usize..6).prop_map(|(one, times)| vec![one; times]);
        let runs = prop::collection::vec(run, 1..5);
        // The last may be shorter, as GRO has it.
        (runs, 0..=len).prop_map(move |(runs, cut)| {
            let mut bytes: Vec<u8> = runs.concat().concat();
            bytes.truncate(bytes.len() - cut.min(len.saturating_sub(1)));
            (bytes, len)
        })
    })
}

fn one_by_one(bytes: &[u8], len: usize) -> Vec<&[u8]> {
    if bytes.is_empty() {
        return vec![bytes];
    }
    bytes.chunks(len).collect()
}

proptest! {
    #[test]
    fn each_datagram_of_a_burst_has_the_fate_it_would_have_alone(
        sends in prop::collection::vec((0usize..5, 0usize..4, joined()), 1..12),
    ) {
        // Made alike, down to the random numbers.
        let (mut joined, mut apart) = (world(), world());
        prop_assert_eq!(joined.relayed, apart.relayed);
        let peers = [addr(PEERS[0]), addr(PEERS[1]), addr(PEERS[2]), joined.relayed[1]];
        for (from, peer, (bytes, len)) in sends {
            let burst = Burst::new(&bytes, len);
            let datagrams = one_by_one(&bytes, len);
            let (ours, theirs): (Vec<Outcome>, Vec<Outcome>) = if let Some(client) = joined.clients.get(from) {
                let each = datagrams.iter().map(|one| apart.relay.client_sends(*client, one));
                (joined.relay.client_sends_burst(*client, burst), each.collect())
            } else {
                let relayed = joined.relayed[from - 3];
                let peer = peers[peer];
                let each = datagrams.iter().map(|one| apart.relay.peer_sends(&peer.to_string(), relayed, one));
                let theirs = each.collect();
                (joined.relay.peer_sends_burst(peer, relayed, burst), theirs)
            };
            prop_assert_eq!(ours, theirs);
            prop_assert_eq!(joined.relay.stats(), apart.relay.stats());
        }
    }
}
