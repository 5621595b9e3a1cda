//! UDP through the tunnel, made by hand: 100 MB in datagrams to east's echo service, each of which has to come back as it
//! went. The page that Chromium runs does the same.

use crate::workload::{SOURCE, VIRTUAL_IP};
use anyhow::{Result, ensure};
use lab::plan::UDP_ECHO_PORT;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use wire::frame::{Frame, Gso, GsoKind, HEADER_LEN, Header, PartialChecksum};
use wire::ip::complete_partial;

/// Datagrams and the bytes of each: 100 MB.
pub const DATAGRAMS: u32 = 100_000;
pub const LENGTH: usize = 1_000;
/// How many are under way at most: what a socket holds, while its owner waits for a processor, with Linux's default of
/// 208 KiB.
pub const WINDOW: usize = 72;
/// How many go in one frame, in turns.
pub const JOINED: [usize; 3] = [1, 7, 60];
/// One that is not back by then is sent again: UDP may lose it.
pub const AGAIN: Duration = Duration::from_millis(500);

const PORT: u16 = 40_000;
const IPV4: usize = 20;
const HEADERS: usize = IPV4 + 8;

/// The sending and receiving end of it all.
#[derive(Debug, Default)]
pub struct Echo {
    next: u32,
    frames: usize,
    under_way: BTreeMap<u32, Instant>,
    returned: u32,
    /// Datagrams that were sent again.
    pub repeated: u32,
}

impl Echo {
    /// How many datagrams came back.
    #[must_use]
    pub const fn returned(&self) -> u32 {
        self.returned
    }

    /// Whether each datagram came back.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.returned == DATAGRAMS
    }

    /// The next frame to send, if it is time for one.
    pub fn frame(&mut self, now: Instant) -> Option<Vec<u8>> {
        let late = |(_, sent): &(&u32, &Instant)| now.duration_since(**sent) > AGAIN;
        let late = self.under_way.iter().find(late).map(|(id, _)| *id);
        if let Some(id) = late {
            self.under_way.insert(id, now);
            self.repeated += 1;
            return Some(frame(id..id + 1));
        }
        let count = JOINED[self.frames % JOINED.len()];
        let end = DATAGRAMS.min(self.next + count as u32);
        if self.next == end || self.under_way.len() + count > WINDOW {
            return None;
        }
        self.frames += 1;
        let ids = self.next..end;
        self.next = end;
        self.under_way.extend(ids.clone().map(|id| (id, now)));
        Some(frame(ids))
    }

    /// Takes a frame that came back and compares every byte of it.
    pub fn handle_frame(&mut self, frame: &[u8]) -> Result<()> {
        let Frame { header, packet } = Frame::decode(frame)?;
        let layout = packet.layout();
        ensure!(
            layout.source == Ipv4Addr::from(VIRTUAL_IP)
                && layout.destination == Ipv4Addr::from(SOURCE),
            "from {} to {}",
            layout.source,
            layout.destination
        );
        ensure!(
            packet.ports() == Some((UDP_ECHO_PORT, PORT)),
            "ports {:?}",
            packet.ports()
        );
        if header.partial_checksum.is_none() {
            ensure!(
                sum(
                    udp_pseudo_header(packet.bytes().len()),
                    &packet.bytes()[IPV4..]
                ) == 0xffff,
                "a wrong UDP checksum"
            );
        }
        for piece in packet.bytes()[HEADERS..].chunks(LENGTH) {
            let id = piece
                .first_chunk()
                .map_or(u32::MAX, |id| u32::from_le_bytes(*id));
            ensure!(piece == payload(id), "datagram {id} came back changed");
            // One that was sent again may come twice.
            self.returned += u32::from(self.under_way.remove(&id).is_some());
        }
        Ok(())
    }
}

/// The payload of a datagram: its number, and what a xorshift generator makes of it.
fn payload(id: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend(id.to_le_bytes());
    let mut x = id ^ 0x9e37_79b9;
    while bytes.len() < LENGTH {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        bytes.extend(x.to_le_bytes());
    }
    bytes
}

fn frame(ids: std::ops::Range<u32>) -> Vec<u8> {
    let joined = ids.len() > 1;
    let payload: Vec<u8> = ids.flat_map(payload).collect();
    let total = HEADERS + payload.len();
    let mut packet = Vec::with_capacity(total);
    packet.extend([0x45, 0]);
    packet.extend((total as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(SOURCE);
    packet.extend(VIRTUAL_IP);
    let checksum = !sum(0, &packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(UDP_ECHO_PORT.to_be_bytes());
    packet.extend(((total - IPV4) as u16).to_be_bytes());
    packet.extend(sum(udp_pseudo_header(total), &[]).to_be_bytes());
    packet.extend(payload);
    let partial = PartialChecksum {
        start: IPV4 as u16,
        offset: 6,
    };
    let header = if joined {
        Header {
            gso: Some(Gso {
                kind: GsoKind::UdpL4,
                ecn: false,
                size: LENGTH as u16,
            }),
            partial_checksum: Some(partial),
            headers_len: HEADERS as u16,
        }
    } else {
        complete_partial(&mut packet, IPV4, 6);
        Header::PLAIN
    };
    let mut frame = Vec::with_capacity(HEADER_LEN + total);
    frame.extend(header.encode());
    frame.extend(packet);
    frame
}

fn udp_pseudo_header(total: usize) -> u32 {
    let sum = sum(0, &[SOURCE, VIRTUAL_IP].concat());
    u32::from(sum) + 17 + (total - IPV4) as u32
}

/// The Internet checksum's sum, carries folded in, not complemented.
fn sum(begin: u32, bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from));
    let mut sum = words.fold(begin, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the echo service does: addresses and ports are exchanged.
    fn reflected(frame: &[u8]) -> Vec<u8> {
        let mut back = frame.to_vec();
        let packet = &mut back[HEADER_LEN..];
        packet[12..16].copy_from_slice(&VIRTUAL_IP);
        packet[16..20].copy_from_slice(&SOURCE);
        packet[20..22].copy_from_slice(&UDP_ECHO_PORT.to_be_bytes());
        packet[22..24].copy_from_slice(&PORT.to_be_bytes());
        back
    }

    #[test]
    fn what_comes_back_as_it_went_is_counted_and_nothing_else() -> Result<()> {
        let mut echo = Echo::default();
        let now = Instant::now();
        let frames: Vec<_> = std::iter::from_fn(|| echo.frame(now)).collect();
        assert_eq!(frames.len(), 4, "1 + 7 + 60 + 1, and no room for 7 more");
        for frame in &frames {
            let mut altered = reflected(frame);
            *altered.last_mut().expect("bytes") ^= 1;
            assert!(echo.handle_frame(&altered).is_err());
            echo.handle_frame(&reflected(frame))?;
            echo.handle_frame(&reflected(frame))?;
        }
        assert_eq!((echo.returned, echo.under_way.len()), (69, 0));
        Ok(())
    }

    #[test]
    fn what_does_not_come_back_is_sent_again() {
        let mut echo = Echo::default();
        let now = Instant::now();
        while echo.frame(now).is_some() {}
        let later = now + AGAIN * 2;
        let again = std::iter::from_fn(|| echo.frame(later)).count();
        assert_eq!((again, echo.repeated), (69, 69));
    }
}
