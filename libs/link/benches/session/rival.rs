//! The same session by `rtc`'s own `PeerConnection`, with the settings that suit it best: SCTP packets of 1 400 bytes
//! and a window of 8 MiB.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext};

use crate::{RUN, cpu};

/// Bytes on the way at most, as for ours.
const WINDOW: u64 = 1 << 20;

pub(crate) fn run(frame: usize) -> f64 {
    let mut peers = [peer("10.0.0.10:4000"), peer("10.0.0.3:7000")];
    let init = RTCDataChannelInit {
        ordered: false,
        negotiated: Some(1),
        ..Default::default()
    };
    let channels = peers
        .each_mut()
        .map(|peer| open_channel(peer, init.clone()));
    signal(&mut peers);
    let mut open = [false; 2];
    while open != [true; 2] {
        exchange(&mut peers, &mut open);
    }
    let payload = vec![7; frame];
    let (start, started) = (Instant::now(), cpu());
    let (mut sent, mut received) = (0_u64, 0_u64);
    while start.elapsed() < RUN {
        if let Some(mut channel) = peers[0].data_channel(channels[0]) {
            while sent - received < WINDOW
                && channel
                    .send(Instant::now(), BytesMut::from(&payload[..]))
                    .is_ok()
            {
                sent += frame as u64;
            }
        }
        received += exchange(&mut peers, &mut open);
    }
    received as f64 * 8.0 / (cpu() - started).as_secs_f64() / 1e6
}

fn peer(address: &str) -> RTCPeerConnection {
    let address: SocketAddr = address.parse().expect("an address");
    let settings = SettingEngineBuilder::new()
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_sctp_mtu(1_400)
        .with_sctp_max_receive_buffer_size(8 << 20)
        .build();
    let mut peer = RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_setting_engine(settings)
        .build(Instant::now())
        .expect("a peer connection");
    let candidate = CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: address.ip().to_string(),
            port: address.port(),
            component: 1,
            ..CandidateConfig::default()
        },
        ..CandidateHostConfig::default()
    };
    let candidate = candidate.new_candidate_host().expect("a candidate");
    let candidate = RTCIceCandidate::from(&candidate)
        .to_json()
        .expect("a candidate");
    peer.add_local_candidate(candidate).expect("accepted");
    peer
}

fn open_channel(peer: &mut RTCPeerConnection, init: RTCDataChannelInit) -> RTCDataChannelId {
    peer.create_data_channel("ip", Some(init))
        .expect("a channel")
        .id()
}

fn signal(peers: &mut [RTCPeerConnection; 2]) {
    let now = Instant::now();
    let [offerer, answerer] = peers;
    let offer = offerer.create_offer(None).expect("an offer");
    offerer
        .set_local_description(now, offer.clone())
        .expect("set");
    answerer.set_remote_description(now, offer).expect("set");
    let answer = answerer.create_answer(None).expect("an answer");
    answerer
        .set_local_description(now, answer.clone())
        .expect("set");
    offerer.set_remote_description(now, answer).expect("set");
}

/// One round in both directions; gives the bytes of messages that arrived at the second peer.
fn exchange(peers: &mut [RTCPeerConnection; 2], open: &mut [bool; 2]) -> u64 {
    let mut received = 0;
    for from in [0, 1] {
        while let Some(sent) = peers[from].poll_write() {
            let transport = TransportContext {
                local_addr: sent.transport.peer_addr,
                peer_addr: sent.transport.local_addr,
                ..sent.transport
            };
            let arrived = TaggedBytesMut {
                now: Instant::now(),
                transport,
                message: sent.message,
            };
            let _ = peers[1 - from].handle_read(arrived);
        }
        while let Some(event) = peers[from].poll_event() {
            if let RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(_)) = event {
                open[from] = true;
            }
        }
        while let Some(read) = peers[from].poll_read() {
            if let RTCMessage::DataChannelMessage(_, message) = read.message {
                received += black_box(message).data.len() as u64;
            }
        }
        let now = Instant::now();
        if peers[from].poll_timeout().is_some_and(|due| due <= now) {
            let _ = peers[from].handle_timeout(now);
        }
    }
    received
}
