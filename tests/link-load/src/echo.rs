//! A packet to the service, and whether a frame is what came back.
use std::net::Ipv4Addr;

use wire::frame::{Frame, Header};
use wire::ip::{Protocol, complete_partial};

/// What a sidecar's TUN device has.
const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// What the service is called by; every link may use the same.
pub(crate) const VIRTUAL: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const OWN_PORT: u16 = 40_000;
const HEADERS: usize = 28;

/// A tunnel frame with one UDP datagram that carries `said`.
pub(crate) fn frame(port: u16, said: [u8; 8]) -> Vec<u8> {
    let total = (HEADERS + said.len()) as u16;
    let udp = (8 + said.len()) as u16;
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend([0x45, 0]);
    packet.extend(total.to_be_bytes());
    // Never a fragment; time to live, UDP, and room for the checksum.
    packet.extend([0, 0, 0x40, 0, 64, Protocol::Udp.number(), 0, 0]);
    packet.extend(OWN.octets());
    packet.extend(VIRTUAL.octets());
    complete_partial(&mut packet, 0, 10);
    packet.extend(OWN_PORT.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(udp.to_be_bytes());
    // No checksum, as UDP over IPv4 may be.
    packet.extend([0, 0]);
    packet.extend(said);
    [&Header::PLAIN.encode()[..], &packet].concat()
}

/// What an answer of the service carries.
pub(crate) fn said(frame: &[u8]) -> Option<[u8; 8]> {
    let packet = Frame::decode(frame).ok()?.packet;
    let ours = packet.source() == VIRTUAL
        && packet.destination() == OWN
        && packet.protocol() == Protocol::Udp
        && packet.ports().is_some_and(|(_, to)| to == OWN_PORT);
    packet.payload().filter(|_| ours)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_a_frame_of_the_tunnel_with_a_good_checksum() {
        let sent = frame(9_000, *b"number 7");
        let frame = Frame::decode(&sent).unwrap();
        assert_eq!(frame.packet.destination(), VIRTUAL);
        assert_eq!(frame.packet.ports(), Some((OWN_PORT, 9_000)));
        assert_eq!(frame.packet.payload(), Some(&b"number 7"[..]));
        let header = &frame.packet.bytes()[..20];
        let sum: u32 = header
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn only_what_the_service_says_counts_as_an_answer() {
        let mut answer = frame(OWN_PORT, *b"number 7");
        assert_eq!(said(&answer), None, "it comes from here");
        answer[12 + 12..12 + 16].copy_from_slice(&VIRTUAL.octets());
        answer[12 + 16..12 + 20].copy_from_slice(&OWN.octets());
        assert_eq!(said(&answer), Some(*b"number 7"));
    }
}
