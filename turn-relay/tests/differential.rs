//! The same random traffic, valid and hostile, through a relay on each rung of the ladder: every receiver gets the same
//! bytes in the same order from each. The lowest rung has neither joined datagrams nor the short cut between two clients.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/random.rs"]
mod random;

use common::{Client, Service, channel_data, until};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use random::Random;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use stun_types::attribute::AttributeWrite;
use stun_types::message::{Message, MessageWrite, MessageWriteExt, MessageWriteVec};
use turn_types::AddressFamily;
use turn_types::attribute::{Data, XorPeerAddress};

const CLIENTS: usize = 6;
const PEERS: usize = 4;
const ROUNDS: usize = 60;

/// Who sends to whom, in terms that are the same in every world.
#[derive(Clone, Debug)]
enum Send {
    /// From a client's socket, as it is. `None`: from a socket without allocation.
    FromClient(Option<usize>, Vec<Vec<u8>>),
    /// A Send indication of a client to a peer.
    Indication(usize, usize, Vec<u8>),
    /// From a peer to a client's relayed address. The last peer has no permission anywhere.
    FromPeer(usize, usize, Vec<Vec<u8>>),
}

impl Send {
    /// How many fates this leads to: what goes to a relayed address has two, one on each side.
    fn fates(&self) -> u64 {
        let all = |datagrams: &[Vec<u8>]| datagrams.len() as u64;
        match self {
            Self::FromClient(None, datagrams) | Self::FromPeer(_, _, datagrams) => all(datagrams),
            Self::Indication(..) => 1,
            Self::FromClient(Some(_), datagrams) => {
                let to_neighbor = |bytes: &&Vec<u8>| match bytes[..] {
                    [0x40, 0x02, high, low, ref rest @ ..] => {
                        usize::from(u16::from_be_bytes([high, low])) <= rest.len()
                    }
                    _ => false,
                };
                all(datagrams) + datagrams.iter().filter(to_neighbor).count() as u64
            }
        }
    }

    fn random(random: &mut Random) -> Self {
        let client = random.below(CLIENTS);
        match random.below(10) {
            0 => Self::FromClient(None, datagrams(random, true)),
            1 => {
                let len = random.below(200);
                Self::Indication(client, random.below(PEERS), random.bytes(len))
            }
            2..=5 => Self::FromPeer(random.below(PEERS), client, datagrams(random, false)),
            _ => Self::FromClient(Some(client), datagrams(random, true)),
        }
    }
}

/// Runs of equal lengths and, from clients, mostly of one channel; with hostile ones between.
fn datagrams(random: &mut Random, from_client: bool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..1 + random.below(3) {
        let len = [0, 1, 7, 100, 100, 300, 1_200][random.below(7)];
        let channel = 0x4000 + random.below(4) as u16;
        for _ in 0..1 + random.below(8) {
            let payload = random.bytes(len);
            if !from_client {
                all.push(payload);
                continue;
            }
            let mut framed = channel_data(channel, &payload);
            match random.below(20) {
                // More than there is, less than there is, another channel, noise, and what is cut off.
                0 => framed[3] = framed[3].wrapping_add(1),
                1 => framed[3] = framed[3].saturating_sub(1),
                2 => framed[1] ^= random.below(4) as u8,
                3 => framed[0] = 4 + random.below(60) as u8,
                4 => framed.truncate(random.below(4)),
                5 => framed[0] = 0,
                _ => {}
            }
            all.push(framed);
        }
    }
    all
}

/// One relay and its clients. Peers are the same for all.
struct World {
    service: Service,
    clients: Vec<(Client, SocketAddr)>,
    stranger: UdpSocket,
    fates: u64,
}

impl World {
    fn new(io: &str, peers: &[UdpSocket]) -> Self {
        let args = [
            "--listen",
            "udp://127.0.0.1:0",
            "--allow-peer",
            "127.0.0.0/8",
        ];
        let service = Service::start(&[&args[..], &["--io", io]].concat());
        let server = service.listen[0];
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let client = Client::connect(server);
                let relayed = client.allocate(AddressFamily::IPV4).unwrap();
                (client, relayed)
            })
            .collect();
        let address = |peer: usize| peers[peer].local_addr().unwrap();
        for (number, (client, _)) in clients.iter().enumerate() {
            // Channels to two peers and to the neighbor among the clients, and a permission. The last peer has none.
            client.bind(0x4000, address(number % 2)).unwrap();
            client.bind(0x4001, address(2)).unwrap();
            client.bind(0x4002, clients[number ^ 1].1).unwrap();
            client.permit(address((number + 1) % 2)).unwrap();
            client.socket.set_nonblocking(true).unwrap();
        }
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.connect(server).unwrap();
        Self {
            service,
            clients,
            stranger,
            fates: 0,
        }
    }

    fn send(&mut self, send: &Send, peers: &[UdpSocket]) {
        self.fates += send.fates();
        match send {
            Send::FromClient(client, datagrams) => {
                let client = client.map(|client| &self.clients[client].0.socket);
                transmit(client.unwrap_or(&self.stranger), None, datagrams);
            }
            Send::Indication(client, peer, data) => {
                let mut writer =
                    Message::builder_indication(turn_types::message::SEND, MessageWriteVec::new());
                let id = writer.transaction_id();
                let address = peers[*peer].local_addr().unwrap();
                let parts: [&dyn AttributeWrite; 2] =
                    [&XorPeerAddress::new(address, id), &Data::new(data)];
                for part in parts {
                    writer.add_attribute(part).unwrap();
                }
                let socket = &self.clients[*client].0.socket;
                socket.send(&writer.finish()).unwrap();
            }
            Send::FromPeer(peer, client, datagrams) => {
                transmit(&peers[*peer], Some(self.clients[*client].1), datagrams);
            }
        }
    }

    /// Waits until every datagram has met its fates: what was sent on is then with its receiver.
    fn settle(&self) {
        let mut fates = 0;
        until("every datagram's fate", || {
            let text = self.service.metrics();
            let lines = text.lines().filter(|line| {
                line.starts_with("turn_relay_relayed_packets_total")
                    || line.starts_with("turn_relay_dropped_packets_total")
            });
            let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
            fates = values.sum();
            assert!(fates <= self.fates, "{fates} of {}", self.fates);
            (fates == self.fates).then_some(())
        });
    }
}

/// Runs of equal length joined, others one by one.
fn transmit(socket: &UdpSocket, to: Option<SocketAddr>, datagrams: &[Vec<u8>]) {
    let name = to.map(SockaddrStorage::from);
    let send = |bytes: &[u8], control: &[ControlMessage<'_>]| {
        let (parts, flags) = ([IoSlice::new(bytes)], MsgFlags::empty());
        sendmsg(socket.as_raw_fd(), &parts, control, flags, name.as_ref()).unwrap();
    };
    for run in datagrams.chunk_by(|a, b| a.len() == b.len()) {
        let size = run[0].len() as u16;
        if run.len() > 1 && size > 0 {
            send(&run.concat(), &[ControlMessage::UdpGsoSegments(&size)]);
        } else {
            run.iter().for_each(|bytes| send(bytes, &[]));
        }
    }
}

/// All that has arrived on a socket.
fn arrived(socket: &UdpSocket) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 65_536];
    std::iter::from_fn(|| {
        let (len, from) = socket.recv_from(&mut buffer).ok()?;
        Some((buffer[..len].to_vec(), from))
    })
    .collect()
}

/// What each receiver got of each flow, in order. Flows to a client are told apart by channel or peer.
type Seen = BTreeMap<String, Vec<Vec<u8>>>;

fn seen_by_clients(world: &World) -> Seen {
    let mut seen = Seen::new();
    for (number, (client, _)) in world.clients.iter().enumerate() {
        for (mut bytes, _) in arrived(&client.socket) {
            let flow = if bytes[0] >= 0x40 {
                format!("client {number}, channel {:02x}{:02x}", bytes[0], bytes[1])
            } else {
                let message = Message::from_bytes(&bytes).unwrap();
                let peer: XorPeerAddress = message.attribute().unwrap();
                let peer = peer.addr(message.transaction_id());
                // The transaction is random.
                bytes[8..20].fill(0);
                format!("client {number}, data from {peer}")
            };
            seen.entry(flow).or_default().push(bytes);
        }
    }
    seen
}

/// Flow by flow, so that what differs can be read.
fn compare(expected: &Seen, seen: &Seen, what: &str) {
    for (flow, expected) in expected {
        let none = Vec::new();
        let seen = seen.get(flow).unwrap_or(&none);
        let differs =
            (0..expected.len().max(seen.len())).find(|at| expected.get(*at) != seen.get(*at));
        if let Some(at) = differs {
            let lengths = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
            let (expected, seen) = (lengths(expected), lengths(seen));
            panic!("{what}, {flow}, from datagram {at} on: lengths {seen:?}, not {expected:?}");
        }
    }
    assert_eq!(
        expected.len(),
        seen.len(),
        "{what}: flows that should not be"
    );
}

#[test]
fn all_rungs_of_the_ladder_put_out_the_same_bytes_in_the_same_order() {
    // Told apart by their addresses: permissions know no ports.
    let peers: Vec<_> = (0..PEERS)
        .map(|n| {
            let peer = UdpSocket::bind(SocketAddr::from(([127, 0, 7, 1 + n as u8], 0))).unwrap();
            peer.set_nonblocking(true).unwrap();
            peer
        })
        .collect();
    let mut worlds = ["plain", "mmsg", "gso", "uring"].map(|io| World::new(io, &peers));
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut relayed, mut indicated) = (0, 0);
    for round in 0..ROUNDS {
        let sends: Vec<_> = (0..6).map(|_| Send::random(&mut random)).collect();
        for world in &mut worlds {
            for send in &sends {
                world.send(send, &peers);
            }
            world.settle();
        }
        let mut seen: Vec<_> = worlds.iter().map(seen_by_clients).collect();
        for (number, peer) in peers.iter().enumerate() {
            for (bytes, from) in arrived(peer) {
                let sender = worlds.iter().enumerate().find_map(|(world, one)| {
                    let client = one.clients.iter().position(|(_, at)| *at == from)?;
                    Some((world, client))
                });
                let (world, client) = sender.unwrap();
                let flow = format!("peer {number} from client {client}");
                seen[world].entry(flow).or_default().push(bytes);
            }
        }
        compare(&seen[0], &seen[1], &format!("round {round}, mmsg"));
        compare(&seen[0], &seen[2], &format!("round {round}, gso"));
        compare(&seen[0], &seen[3], &format!("round {round}, uring"));
        relayed += seen[0].values().map(Vec::len).sum::<usize>();
        indicated += seen[0].keys().filter(|flow| flow.contains("data")).count();
    }
    // That it was about something.
    assert!(
        relayed > ROUNDS * 20 && indicated > 10,
        "{relayed}, {indicated}"
    );
}
