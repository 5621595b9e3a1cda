//! What was sent and may arrive, at most once. TCP may be cut smaller on its way, where the path takes less: then other
//! packets arrive than a kernel would have made of the frame, but the same bytes under the same headers, and each once.

use std::collections::HashMap;

use wire::frame::Frame;
use wire::ip::{Fragment, Protocol, Version, segment::segment};

use crate::traffic;

const FIN_PSH: u8 = 1 | 8;
const CWR: u8 = 128;

/// Of one receiver.
#[derive(Default)]
pub(crate) struct Expected {
    /// Packets that nobody cuts: how many are still to come, and how many of these must.
    packets: HashMap<Vec<u8>, [usize; 2]>,
    streams: Vec<Stream>,
    /// The streams from here on must arrive.
    fresh: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Expected,
    Twice,
    Unknown,
}

impl Expected {
    pub(crate) fn send(&mut self, frame: &[u8]) {
        if let Some(stream) = Stream::of(frame) {
            self.streams.push(stream);
            return;
        }
        for packet in traffic::packets(frame) {
            for count in self.packets.entry(packet).or_default() {
                *count += 1;
            }
        }
    }

    /// What was sent so far need not arrive any more.
    pub(crate) fn forget(&mut self) {
        self.fresh = self.streams.len();
        for [_, fresh] in self.packets.values_mut() {
            *fresh = 0;
        }
    }

    pub(crate) fn arrive(&mut self, packet: &[u8]) -> Arrival {
        if let Some([count, fresh]) = self.packets.get_mut(packet) {
            if *count == 0 {
                return Arrival::Twice;
            }
            *count -= 1;
            *fresh = fresh.saturating_sub(1);
            return Arrival::Expected;
        }
        let arrivals = self.streams.iter_mut().map(|stream| stream.arrive(packet));
        let arrival = arrivals.into_iter().find(|of| *of != Arrival::Unknown);
        arrival.unwrap_or(Arrival::Unknown)
    }

    /// Lengths of packets, and of what is left of streams, that must arrive and have not.
    pub(crate) fn missing(&self) -> Vec<usize> {
        let packets = self.packets.iter().filter(|(_, [_, fresh])| *fresh > 0);
        let streams = self.streams[self.fresh..].iter().map(Stream::missing);
        let all = packets.map(|(packet, _)| packet.len()).chain(streams);
        all.filter(|length| *length > 0).collect()
    }
}

/// The payload of a TCP frame that may be cut.
struct Stream {
    headers: Vec<u8>,
    version: Version,
    l4: usize,
    payload: Vec<u8>,
    /// The most that is in a segment.
    size: usize,
    arrived: Vec<bool>,
}

impl Stream {
    fn of(frame: &[u8]) -> Option<Self> {
        let frame = Frame::decode(frame).expect("a frame");
        let layout = frame.packet.layout();
        frame.header.partial_checksum?;
        let (packet, headers) = (
            frame.packet.bytes(),
            layout.headers_len(frame.packet.bytes())?,
        );
        let (headers, payload) = packet.split_at(headers);
        let is_tcp = layout.protocol == Protocol::Tcp && layout.fragment == Fragment::Whole;
        (is_tcp && !payload.is_empty()).then(|| Self {
            headers: headers.to_vec(),
            version: layout.version,
            l4: layout.l4,
            payload: payload.to_vec(),
            size: frame
                .header
                .gso
                .map_or(usize::MAX, |gso| usize::from(gso.size)),
            arrived: vec![false; payload.len()],
        })
    }

    fn arrive(&mut self, packet: &[u8]) -> Arrival {
        let Some((headers, payload)) = packet.split_at_checked(self.headers.len()) else {
            return Arrival::Unknown;
        };
        let from = sequence(&headers[self.l4..]).wrapping_sub(sequence(&self.headers[self.l4..]));
        let range = from as usize..from as usize + payload.len();
        let is_ours = !payload.is_empty()
            && payload.len() <= self.size
            && self.payload.get(range.clone()) == Some(payload)
            && self.piece(range.clone(), packet) == packet;
        if !is_ours {
            return Arrival::Unknown;
        }
        let arrived = &mut self.arrived[range];
        if arrived.contains(&true) {
            return Arrival::Twice;
        }
        arrived.fill(true);
        Arrival::Expected
    }

    /// The packet that carries a part of the payload; only which one it is in a row is taken from what arrived.
    fn piece(&self, part: std::ops::Range<usize>, arrived: &[u8]) -> Vec<u8> {
        let mut piece = self.headers.clone();
        piece.extend_from_slice(&self.payload[part.clone()]);
        let length = piece.len();
        match self.version {
            Version::V4 => {
                piece[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                piece[4..6].copy_from_slice(&arrived[4..6]);
            }
            Version::V6 => piece[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes()),
        }
        let transport = &mut piece[self.l4..];
        let at = sequence(transport).wrapping_add(part.start as u32);
        transport[4..8].copy_from_slice(&at.to_be_bytes());
        if part.start > 0 {
            transport[13] &= !CWR;
        }
        if part.end < self.payload.len() {
            transport[13] &= !FIN_PSH;
        }
        let mut whole = Vec::new();
        // For the checksums alone.
        segment(&piece, usize::MAX, &mut Vec::new(), |one| {
            whole = one.to_vec()
        });
        whole
    }

    fn missing(&self) -> usize {
        self.arrived.iter().filter(|arrived| !**arrived).count()
    }
}

fn sequence(transport: &[u8]) -> u32 {
    u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]])
}
