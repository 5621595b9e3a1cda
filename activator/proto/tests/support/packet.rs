//! Packets made and checked by hand, so that the code under test does not check itself.

use std::net::IpAddr;

use super::ip;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A frame without offload: the tunnel's header, then the packet.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = wire::frame::Header::PLAIN.encode().to_vec();
    frame.extend_from_slice(packet);
    frame
}

pub fn tcp(source: (&str, u16), destination: (&str, u16), flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[0..2].copy_from_slice(&source.1.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.1.to_be_bytes());
    segment[4..8].copy_from_slice(&1000_u32.to_be_bytes());
    segment[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
    segment[13] = flags;
    segment.extend_from_slice(options);
    ip_packet(source.0, destination.0, TCP, segment, Some(16))
}

pub fn udp(source: (&str, u16), destination: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source.1.to_be_bytes());
    datagram.extend(destination.1.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend_from_slice(payload);
    ip_packet(source.0, destination.0, UDP, datagram, Some(6))
}

/// An ICMP or ICMPv6 message by the family of its addresses.
pub fn icmp(source: &str, destination: &str, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let protocol = if ip(source).is_ipv4() { 1 } else { 58 };
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(rest);
    ip_packet(source, destination, protocol, message, Some(2))
}

pub fn ip_packet(
    source: &str,
    destination: &str,
    protocol: u8,
    mut payload: Vec<u8>,
    checksum_at: Option<usize>,
) -> Vec<u8> {
    let (source, destination) = (ip(source), ip(destination));
    if let Some(at) = checksum_at {
        let sum = transport_sum(source, destination, protocol, &payload);
        payload[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
    }
    let length = u16::try_from(payload.len()).unwrap();
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + length).to_be_bytes());
            packet.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let sum = sum(0, &packet);
            packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    packet.extend(payload);
    packet
}

/// Source and destination, after checking every checksum of the packet.
pub fn checked(packet: &[u8]) -> (String, String) {
    let (source, destination, header, protocol) = match packet[0] >> 4 {
        4 => {
            assert_eq!(sum(0, &packet[..20]), 0xffff, "IPv4 header checksum");
            let address =
                |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            (address(12), address(16), 20, packet[9])
        }
        _ => {
            let address =
                |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
            (address(8), address(24), 40, packet[6])
        }
    };
    let sum = transport_sum(source, destination, protocol, &packet[header..]);
    assert_eq!(sum, 0xffff, "transport checksum of protocol {protocol}");
    (source.to_string(), destination.to_string())
}

pub fn transport(packet: &[u8]) -> &[u8] {
    &packet[if packet[0] >> 4 == 4 { 20 } else { 40 }..]
}

/// Turns the packet into a fragment: of IPv4 only, offset in units of 8 bytes.
pub fn fragment(mut packet: Vec<u8>, offset: u16, more: bool) -> Vec<u8> {
    let field = offset | if more { 0x2000 } else { 0 };
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet[10..12].fill(0);
    let sum = sum(0, &packet[..20]);
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    packet
}

fn transport_sum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let mut pseudo = Vec::new();
    if protocol != 1 {
        for address in [source, destination] {
            match address {
                IpAddr::V4(ipv4) => pseudo.extend(ipv4.octets()),
                IpAddr::V6(ipv6) => pseudo.extend(ipv6.octets()),
            }
        }
        pseudo.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
    }
    sum(u32::from(sum(0, &pseudo)), payload)
}

fn sum(start: u32, bytes: &[u8]) -> u16 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap()
}
