//! The whole mind of the server, with clients of every kind at once: the bytes say who does what, and when.

mod model;
pub(crate) mod request;
mod world;

use arbitrary::{Result, Unstructured};
use request::{Signature, Writer};
use std::net::SocketAddr;
use std::time::Duration;
use turn_relay_proto::OpenError;
use world::{CLIENTS, REALM};
pub(crate) use world::{SERVER, World, config, server};

/// Peers: allowed, own, denied, and denied ones in other spellings.
const PEERS: [&str; 14] = [
    "10.0.0.5:7",
    "10.0.0.5:8",
    "10.0.0.6:7",
    "10.0.0.2:50000",
    "10.0.0.2:50002",
    "[fd00:10::5]:7",
    "[fd00:10::2]:50001",
    "10.0.0.5:0",
    "127.0.0.1:80",
    "169.254.169.254:80",
    "203.0.113.12:3478",
    "[::ffff:10.0.0.5]:7",
    "[64:ff9b::a00:5]:7",
    "[::]:53",
];
/// More would be slow, and find nothing that fewer do not.
const EVENTS: usize = 60;

pub(crate) fn run(data: &[u8]) {
    let mut world = World::new();
    let mut input = Unstructured::new(data);
    play(&mut world, &mut input, EVENTS);
    world.finish();
}

/// So many events, or as many as the input has.
pub(crate) fn play(world: &mut World, input: &mut Unstructured<'_>, events: usize) {
    for _ in 0..events {
        if input.is_empty() || step(world, input).is_err() {
            break;
        }
    }
}

fn step(world: &mut World, input: &mut Unstructured<'_>) -> Result<()> {
    let client = input.int_in_range(0..=CLIENTS - 1)?;
    match input.int_in_range(0..=15_u8)? {
        0..=6 => {
            let (bytes, signed) = request(world, client, input)?;
            world.client_sends(client, &bytes, bytes.len(), signed);
        }
        7 => {
            let bytes = input.arbitrary::<&[u8]>()?;
            let segment = input.int_in_range(1..=64)?;
            world.client_sends(client, bytes, segment, true);
        }
        8 | 9 => {
            let channel = 0x4000 + input.int_in_range(0..=5_u16)?;
            let (bytes, segment) = channel_data(channel, input)?;
            world.client_sends(client, &bytes, segment, true);
        }
        10 => {
            let bytes = send(input)?;
            world.client_sends(client, &bytes, bytes.len(), true);
        }
        11 | 12 => {
            let open: Vec<SocketAddr> = world.open.keys().copied().collect();
            if !open.is_empty() {
                let relayed = *input.choose(&open)?;
                let peer = peer(input)?;
                let segment = input.int_in_range(1..=40)?;
                let count = input.int_in_range(0..=5)?;
                let bytes = vec![0x5A; segment * count + usize::from(input.arbitrary::<bool>()?)];
                world.peer_sends(relayed, peer, &bytes, segment);
            }
        }
        13 => world.pass(Duration::from_millis(
            u64::from(input.arbitrary::<u16>()?) * 50,
        )),
        14 => world.next_sockets(match input.int_in_range(0..=3_u8)? {
            0 => Err(OpenError::PortInUse),
            1 => Err(OpenError::Other),
            _ => Ok(()),
        }),
        _ => world.disconnect(client),
    }
    Ok(())
}

fn peer(input: &mut Unstructured<'_>) -> Result<SocketAddr> {
    Ok(input.choose(&PEERS)?.parse().expect("an address"))
}

/// A run of ChannelData, perhaps with a length that is not that of the data.
fn channel_data(channel: u16, input: &mut Unstructured<'_>) -> Result<(Vec<u8>, usize)> {
    let length = input.int_in_range(0..=20_usize)?;
    let said = if input.ratio(1, 8)? {
        input.arbitrary::<u16>()?
    } else {
        length as u16
    };
    let count = input.int_in_range(1..=4)?;
    let one = [
        &channel.to_be_bytes()[..],
        &said.to_be_bytes(),
        &vec![0xA5; length],
    ];
    Ok((one.concat().repeat(count), length + 4))
}

fn send(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut writer = Writer::new(request::SEND, 1, input.arbitrary()?);
    writer.add_address(request::XOR_PEER_ADDRESS, peer(input)?);
    writer.add(request::DATA, input.bytes_up_to(20)?);
    if input.ratio(1, 8)? {
        attribute(&mut writer, &[0; 8], input)?;
    }
    Ok(writer.0)
}

/// A request as a client would send it, or nearly. Whether it is signed with what may be a right password.
fn request(world: &World, index: usize, input: &mut Unstructured<'_>) -> Result<(Vec<u8>, bool)> {
    const METHODS: [u16; 6] = [
        request::ALLOCATE,
        request::REFRESH,
        request::CREATE_PERMISSION,
        request::CHANNEL_BIND,
        request::BINDING,
        request::CONNECT,
    ];
    let client = &world.clients[index];
    let method = match input.int_in_range(0..=12_usize)? {
        12 => input.int_in_range(0..=0x7F)?,
        known => METHODS[known % METHODS.len()],
    };
    let mut writer = Writer::new(method, 0, input.arbitrary()?);
    if !input.ratio(1, 10)? {
        match method {
            request::ALLOCATE => {
                let protocol = if input.ratio(1, 6)? { 6 } else { 17 };
                writer.add(request::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0]);
            }
            request::CONNECT => writer.add_address(request::XOR_PEER_ADDRESS, peer(input)?),
            request::CREATE_PERMISSION => {
                for _ in 0..input.int_in_range(1..=3)? {
                    writer.add_address(request::XOR_PEER_ADDRESS, peer(input)?);
                }
            }
            request::CHANNEL_BIND => {
                let number = 0x4000 + input.int_in_range(0..=5_u16)?;
                let [high, low] = number.to_be_bytes();
                writer.add(request::CHANNEL_NUMBER, &[high, low, 0, 0]);
                writer.add_address(request::XOR_PEER_ADDRESS, peer(input)?);
            }
            _ => {}
        }
    }
    for _ in 0..input.int_in_range(0..=6_usize)?.saturating_sub(3) {
        attribute(&mut writer, &client.token, input)?;
    }
    let signature = match input.int_in_range(0..=7_u8)? {
        0 => Signature::None,
        1 | 2 => Signature::Sha256,
        _ => Signature::Sha1,
    };
    if signature != Signature::None {
        // Now and then as somebody else.
        let who = match input.ratio(1, 10)? {
            true => &world.clients[input.int_in_range(0..=CLIENTS - 1)?],
            false => client,
        };
        if input.ratio(1, 10)? {
            writer.add(request::USERHASH, &hash(&who.user));
        } else {
            writer.add(request::USERNAME, who.user.as_bytes());
        }
        writer.add(request::REALM, REALM.as_bytes());
        writer.add(request::NONCE, &client.nonce);
        if signature == Signature::Sha256 || input.ratio(1, 4)? {
            // Both that there are, SHA-256 first, and the one that is used.
            writer.add(request::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            let chosen = if signature == Signature::Sha256 { 2 } else { 1 };
            writer.add(request::PASSWORD_ALGORITHM, &[0, chosen, 0, 0]);
        }
        writer.sign(signature, &who.user, REALM, &who.password);
        if input.ratio(1, 10)? {
            // What follows the integrity is nobody's.
            attribute(&mut writer, &client.token, input)?;
        }
    }
    if input.ratio(1, 3)? {
        writer.fingerprint();
    }
    let mut bytes = writer.0;
    if input.ratio(1, 10)? {
        let at = input.choose_index(bytes.len())?;
        bytes[at] ^= input.arbitrary::<u8>()?;
    }
    Ok((bytes, signature != Signature::None))
}

fn hash(user: &str) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(format!("{user}:{REALM}")).into()
}

fn attribute(writer: &mut Writer, token: &[u8], input: &mut Unstructured<'_>) -> Result<()> {
    match input.int_in_range(0..=13_u8)? {
        0 => writer.add(request::REQUESTED_TRANSPORT, &input.arbitrary::<[u8; 4]>()?),
        1 => writer.add(request::LIFETIME, &[0; 4]),
        2 => writer.add(request::LIFETIME, &input.arbitrary::<[u8; 4]>()?),
        3 => writer.add_address(request::XOR_PEER_ADDRESS, peer(input)?),
        4 | 5 => {
            let family = input.int_in_range(0..=3_u8)?;
            writer.add(request::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        }
        6 | 7 => {
            let family = input.int_in_range(1..=2_u8)?;
            writer.add(request::ADDITIONAL_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        }
        8 => writer.add(request::EVEN_PORT, &[input.arbitrary::<u8>()?]),
        9 => writer.add(request::RESERVATION_TOKEN, token),
        10 => writer.add(request::DONT_FRAGMENT, &[]),
        11 => writer.add(request::CHANNEL_NUMBER, &input.arbitrary::<[u8; 4]>()?),
        _ => {
            let kind = input.arbitrary()?;
            let value = input.bytes_up_to(12)?;
            writer.add(kind, value);
        }
    }
    Ok(())
}

/// A few bytes of the input.
trait UpTo<'a> {
    fn bytes_up_to(&mut self, most: usize) -> Result<&'a [u8]>;
}

impl<'a> UpTo<'a> for Unstructured<'a> {
    fn bytes_up_to(&mut self, most: usize) -> Result<&'a [u8]> {
        let length = self.int_in_range(0..=most)?.min(self.len());
        self.bytes(length)
    }
}
