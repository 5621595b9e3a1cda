//! Frames as messages that each fit one SCTP packet: cut where they leave, joined again where they arrive.
//!
//! A message of many chunks is lost with any of them, or held up until the last of them was repaired; a segment is lost
//! alone, and TCP inside repairs it as it would without a tunnel. What is cut is cut at segment borders, TCP also
//! smaller; the pieces are frames themselves (docs/protocol/tunnel-frame.md), so a peer that does not join them loses
//! speed and nothing else.

use bytes::{Bytes, BytesMut};
use wire::frame::{Frame, Gso, GsoKind, HEADER_LEN, Header, PartialChecksum};
use wire::ip::{Cutter, Layout, Protocol, Version};

use crate::lane::Arrival;

/// Fewer bytes of payload than this in a piece are not worth its headers.
const LEAST_PAYLOAD: usize = 256;

/// Cuts `frame` into messages of at most `most` bytes where that can be done, and gives each to `send`; a frame that
/// cannot be cut is given as it is.
pub(super) fn cut<E>(
    frame: &[u8],
    most: usize,
    mut send: impl FnMut(&Bytes) -> Result<(), E>,
) -> Result<(), E> {
    let cutter = (frame.len() > most).then(|| cutter(frame, most)).flatten();
    let Some((mut cutter, header)) = cutter else {
        return send(&Bytes::copy_from_slice(frame));
    };
    let header = header.encode();
    let mut memory = BytesMut::with_capacity((HEADER_LEN + cutter.longest()) * cutter.pieces());
    while let Some((headers, payload)) = cutter.next_piece() {
        memory.extend_from_slice(&header);
        memory.extend_from_slice(headers);
        memory.extend_from_slice(payload);
        send(&memory.split().freeze())?;
    }
    Ok(())
}

/// What cuts `frame`, and the header of each piece. `None`: it goes as it is.
fn cutter(frame: &[u8], most: usize) -> Option<(Cutter<'_>, Header)> {
    let mut frame = Frame::decode(frame).ok()?;
    let layout = frame.packet.layout();
    let partial_checksum = frame.header.partial_checksum;
    let headers_len = layout.headers_len(frame.packet.bytes())?;
    let room = most.checked_sub(HEADER_LEN + headers_len)?;
    if layout.protocol == Protocol::Tcp && partial_checksum.is_some() && room >= LEAST_PAYLOAD {
        let gso = frame.header.gso.unwrap_or(Gso {
            kind: tcp(layout),
            ecn: false,
            size: u16::MAX,
        });
        frame.header.headers_len = headers_len as u16;
        frame.header.gso = Some(Gso {
            size: gso.size.min(room as u16),
            ..gso
        });
    }
    let header = Header {
        partial_checksum,
        ..Header::PLAIN
    };
    Cutter::new(&frame).map(|cutter| (cutter, header))
}

fn tcp(layout: &Layout) -> GsoKind {
    match layout.version {
        Version::V4 => GsoKind::TcpV4,
        Version::V6 => GsoKind::TcpV6,
    }
}

/// Whether a message is one packet with a partial checksum, wherever its header says that that is: what is joined gets
/// a header of its own.
fn is_piece(message: &[u8]) -> bool {
    let partial = PartialChecksum {
        start: 0,
        offset: 0,
    };
    let header = Header {
        partial_checksum: Some(partial),
        ..Header::PLAIN
    };
    let header = header.encode();
    message.len() > HEADER_LEN && message[..6] == header[..6] && message[10..12] == header[10..]
}

/// Joins neighbours of one flow among the messages that arrive together.
#[derive(Default)]
pub(super) struct Joiner {
    arrival: Arrival,
}

impl Joiner {
    /// Takes a message. Gives it back when it is not one to be joined: the receiver of frames says what is wrong with
    /// it, if anything is.
    pub(super) fn push(&mut self, message: BytesMut) -> Option<BytesMut> {
        if is_piece(&message) && self.arrival.push(&message[HEADER_LEN..], true) {
            return None;
        }
        self.arrival.finish();
        Some(message)
    }

    /// The next frame that is complete.
    pub(super) fn pop(&mut self) -> Option<BytesMut> {
        self.arrival.pop()
    }

    /// Nothing follows for now: gives what is being joined.
    pub(super) fn finish(&mut self) -> Option<BytesMut> {
        self.arrival.finish();
        self.arrival.pop()
    }

    pub(super) fn trim(&mut self) {
        self.arrival.trim();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A frame of a TCP packet over IPv4 of `length` bytes, to be cut at 1 348, with a partial checksum.
    pub(in super::super) fn tcp(length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 6, 0, 0]);
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        // Sequence number 1, 32 bytes of header, ACK.
        packet[27] = 1;
        packet[32..34].copy_from_slice(&[0x80, 0x10]);
        for (index, byte) in packet[52..].iter_mut().enumerate() {
            *byte = (index % 251) as u8;
        }
        let gso = (length > 1_400).then_some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1_348,
        });
        let header = Header {
            gso,
            partial_checksum: Some(PartialChecksum {
                start: 20,
                offset: 16,
            }),
            headers_len: if gso.is_some() { 52 } else { 0 },
        };
        [&header.encode()[..], &packet].concat()
    }

    /// What TCP carries in a frame.
    pub(in super::super) fn payload(frame: &[u8]) -> &[u8] {
        let frame = Frame::decode(frame).expect("a frame");
        &frame.packet.bytes()[52..]
    }

    #[test]
    fn what_cannot_be_cut_goes_as_it_is() {
        for frame in [vec![0; 2_000], vec![0x11; 5_000], Vec::new()] {
            let mut sent = Vec::new();
            let done: Result<(), ()> = cut(&frame, 1_372, |message| {
                sent.push(message.clone());
                Ok(())
            });
            assert!(done.is_ok());
            assert_eq!(sent, [frame]);
        }
    }
}
