//! The datagram lane: frames as authenticated datagrams of their own, beside the data channels of the same session.
//! Its bytes, keys and rules are in `docs/protocol/datagram-lane.md`.
//!
//! Outward: a frame is cut at its segment borders, each piece sealed under the epoch's key ([`epoch`]), all of them one
//! after the other in one [`Burst`]. Inward: each datagram is opened where it lies, and what was cut is joined again
//! ([`arrival`]). [`crate::mtu`] says what fits and whether the lane is alive.
//!
//! Invariants: no counter is used twice under a key; nothing is believed that was not opened; each drop is counted by
//! its reason; nothing is held back that could be handed on.

mod arrival;
mod epoch;
mod keys;
mod replay;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use protocol::document::LaneOffer;
use wire::frame::Frame;
use wire::ip::Cutter;

pub(crate) use keys::{EXPORTER_LABEL, SECRET_LEN};

use crate::config::{DTLS_OVERHEAD, LinkConfig, LinkRole, MAX_DATAGRAM};
use crate::mtu::{Probe, Prober};
use crate::output::{Carrier, SendRefused};
use crate::stats::LaneStats;
pub(crate) use arrival::Arrival;
use epoch::{FIRST_BYTE, HEADER_LEN, Opener, Sealer, Unopened};
use keys::{Aead, Secret, TAG_LEN};

/// The version of the lane that this code speaks.
const VERSION: u32 = 1;

/// Kinds of text, its first byte.
const PACKET: u8 = 0;
const PACKET_PARTIAL: u8 = 1;
const PROBE: u8 = 2;
const ACKNOWLEDGEMENT: u8 = 3;

/// What a datagram has beside its packet: header, kind, tag.
pub(crate) const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;
/// A burst is sent by one system call, which takes 64 datagrams, and 65 507 bytes with what a relay's client adds.
const BURST_DATAGRAMS: usize = 64;
const BURST_BYTES: usize = 65_000;
/// Without a frame for this long, memory that waits for more is given back.
const IDLE: Duration = Duration::from_secs(5);

/// Whether a datagram that begins so is the lane's.
pub(crate) const fn is_lane(first: u8) -> bool {
    first & 0xf8 == FIRST_BYTE
}

/// Datagrams of `segment` bytes each, the last may be shorter.
#[derive(Clone)]
pub(crate) struct Burst {
    pub(crate) payload: BytesMut,
    pub(crate) segment: usize,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Yes,
    /// Not by this carrier: it does not fit, or the lane is not up.
    No,
    Refused(SendRefused),
}

pub(crate) struct Lane {
    role: LinkRole,
    carrier: Carrier,
    base: usize,
    ceiling: usize,
    send_limit: usize,
    aeads: [Aead; 2],
    session: Option<Session>,
    /// What the peer said it can do.
    theirs: Option<LaneOffer>,
    /// The data channels are there to fall back on.
    has_fallback: bool,
    /// What the link said last.
    reported: Carrier,
    pub(crate) stats: LaneStats,
}

struct Session {
    sealer: Sealer,
    opener: Opener,
    prober: Prober,
    arrival: Arrival,
    /// The lane was alive once: with `Carrier::Datagram` it is kept to from then on.
    was_alive: bool,
    memory: BytesMut,
    bursts: VecDeque<Burst>,
    queued: usize,
    last_used: Instant,
}

impl Lane {
    pub(crate) fn new(role: LinkRole, config: &LinkConfig) -> Self {
        let base = config.sctp_mtu as usize + DTLS_OVERHEAD;
        let ceiling = config.datagram_ceiling.clamp(base, MAX_DATAGRAM.max(base));
        Self {
            role,
            carrier: config.carrier,
            base,
            ceiling,
            send_limit: config.send_limit,
            aeads: Aead::by_preference(),
            session: None,
            theirs: None,
            has_fallback: false,
            reported: Carrier::DataChannel,
            stats: LaneStats::default(),
        }
    }

    /// Whether probes were sent for a while and none came back.
    pub(crate) fn is_silent(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| !session.prober.is_alive() && session.prober.has_waited())
    }

    /// What is said in the session description.
    pub(crate) fn offer(&self) -> Option<LaneOffer> {
        (self.carrier != Carrier::DataChannel).then(|| LaneOffer {
            version: VERSION,
            aeads: self.aeads.iter().map(|aead| *aead as u32).collect(),
        })
    }

    /// What the peer's signed description says of it.
    pub(crate) fn set_remote_offer(&mut self, offer: Option<&LaneOffer>) {
        self.theirs = offer.cloned();
    }

    /// DTLS is up, and `export` is what it gave both: if both want a lane, the keys are made, frames may go, and probes
    /// begin.
    pub(crate) fn start(
        &mut self,
        export: impl FnOnce() -> Option<zeroize::Zeroizing<[u8; SECRET_LEN]>>,
        now: Instant,
    ) {
        let (Some(offer), Some(_), None) = (&self.theirs, self.offer(), &self.session) else {
            return;
        };
        if offer.version < VERSION {
            return;
        }
        self.session = Aead::choose(&self.aeads, &offer.aeads)
            .and_then(|aead| self.session(aead, &*export()?, now));
        if let Some(session) = &mut self.session {
            session.send_probes(now, &mut self.stats);
        }
    }

    /// Whether there are keys: frames can be sent.
    pub(crate) const fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// The data channels are open.
    pub(crate) const fn on_fallback(&mut self) {
        self.has_fallback = true;
    }

    fn session(&self, aead: Aead, exported: &[u8; SECRET_LEN], now: Instant) -> Option<Session> {
        let peer = match self.role {
            LinkRole::Offerer => LinkRole::Answerer,
            LinkRole::Answerer => LinkRole::Offerer,
        };
        Some(Session {
            sealer: Sealer::new(&Secret::first(exported, aead, self.role)?, aead)?,
            opener: Opener::new(&Secret::first(exported, aead, peer)?, aead)?,
            prober: Prober::new(self.base, self.ceiling, now),
            arrival: Arrival::default(),
            was_alive: false,
            memory: BytesMut::new(),
            bursts: VecDeque::new(),
            queued: 0,
            last_used: now,
        })
    }

    /// The end: the keys are gone.
    pub(crate) fn close(&mut self) {
        self.session = None;
        self.carrier = Carrier::DataChannel;
    }

    /// What carries frames that are sent now.
    pub(crate) fn carrier(&self) -> Carrier {
        match &self.session {
            Some(session) if session.prober.is_alive() => Carrier::Datagram,
            // The handshake that was just heard came this way: as long as the first probe may still be answered, and
            // there is nothing better, the lane is taken to be alive.
            Some(session)
                if !(session.was_alive || self.has_fallback && session.prober.has_waited()) =>
            {
                Carrier::Datagram
            }
            Some(session) if session.was_alive && self.carrier == Carrier::Datagram => {
                Carrier::Datagram
            }
            _ => Carrier::DataChannel,
        }
    }

    /// The carrier, once, when it became another.
    pub(crate) fn poll_change(&mut self) -> Option<Carrier> {
        let carrier = self.carrier();
        (std::mem::replace(&mut self.reported, carrier) != carrier).then_some(carrier)
    }

    /// The longest packet that fits a datagram.
    pub(crate) fn packet_limit(&self) -> usize {
        self.datagram_limit() - OVERHEAD
    }

    /// The longest datagram that the path takes, or is expected to.
    pub(crate) fn datagram_limit(&self) -> usize {
        let limit = self.session.as_ref().map(|session| session.prober.limit());
        limit.unwrap_or(self.base)
    }

    pub(crate) fn lower(&mut self, most: usize) {
        self.ceiling = self.ceiling.min(most);
        self.base = self.base.min(most);
        if let Some(session) = &mut self.session {
            session.prober.lower(most);
        }
    }

    pub(crate) fn on_path_change(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.prober.on_path_change(now);
        }
    }

    /// Cuts a frame and seals its pieces into bursts.
    pub(crate) fn send_frame(&mut self, frame: &[u8], now: Instant) -> Carried {
        if self.carrier() != Carrier::Datagram {
            return Carried::No;
        }
        let Some(session) = &mut self.session else {
            return Carried::No;
        };
        if session.queued + frame.len() > self.send_limit {
            return Carried::Refused(SendRefused::QueueFull);
        }
        let Ok(frame) = Frame::decode(frame) else {
            return Carried::No;
        };
        let sent = match Cutter::new(&frame) {
            Some(cutter) => session.send_pieces(cutter, now),
            None if frame.header.gso.is_some() => None,
            None => session.send_packet(&frame, now),
        };
        let Some(datagrams) = sent else {
            return Carried::No;
        };
        self.stats.frames_sent += 1;
        self.stats.datagrams_sent += datagrams as u64;
        session.last_used = now;
        session.prober.on_traffic(now);
        session.send_probes(now, &mut self.stats);
        Carried::Yes
    }

    /// One datagram of the lane. Whether it was authentic and new.
    pub(crate) fn handle_datagram(&mut self, datagram: &mut [u8], now: Instant) -> bool {
        let stats = &mut self.stats;
        let Some(session) = &mut self.session else {
            stats.dropped_early += 1;
            return false;
        };
        let text = match session.opener.open(datagram, now) {
            Ok((_, text)) => text,
            Err(reason) => {
                *match reason {
                    Unopened::Short => &mut stats.dropped_malformed,
                    Unopened::Epoch => &mut stats.dropped_epoch,
                    Unopened::Replayed => &mut stats.dropped_replayed,
                    Unopened::Old => &mut stats.dropped_old,
                    Unopened::Forged => &mut stats.dropped_forged,
                } += 1;
                return false;
            }
        };
        stats.datagrams_received += 1;
        match &*text {
            [kind @ (PACKET | PACKET_PARTIAL), packet @ ..] => {
                session.last_used = now;
                if !session.arrival.push(packet, *kind == PACKET_PARTIAL) {
                    stats.dropped_malformed += 1;
                }
            }
            [PROBE, a, b, c, d, ..] => {
                let id = [*a, *b, *c, *d];
                session.acknowledge(id, now, stats);
            }
            [ACKNOWLEDGEMENT, a, b, c, d, e, f, g, h] => {
                let epoch = u32::from_be_bytes([*e, *f, *g, *h]);
                session.sealer.confirm(epoch);
                let id = u32::from_be_bytes([*a, *b, *c, *d]);
                session.prober.on_acknowledged(id, now);
                session.was_alive |= session.prober.is_alive();
                session.send_probes(now, stats);
            }
            _ => stats.dropped_malformed += 1,
        }
        true
    }

    /// To be told once per burst that something authentic was in it.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.prober.on_heard(now);
        }
    }

    /// The next frame that came in whole.
    pub(crate) fn poll_frame(&mut self) -> Option<BytesMut> {
        self.session.as_mut()?.arrival.pop()
    }

    /// Everything that arrived together was handed over: what is being joined is complete.
    pub(crate) fn finish(&mut self) -> Option<BytesMut> {
        let arrival = &mut self.session.as_mut()?.arrival;
        arrival.finish();
        self.stats.packets_joined = arrival.joined;
        arrival.pop()
    }

    /// The next burst to send.
    pub(crate) fn poll_burst(&mut self) -> Option<Burst> {
        let session = self.session.as_mut()?;
        let burst = session.bursts.pop_front()?;
        session.queued -= burst.payload.len();
        Some(burst)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.opener.handle_timeout(now);
        session.send_probes(now, &mut self.stats);
        if now.saturating_duration_since(session.last_used) >= IDLE {
            session.memory = BytesMut::new();
            session.arrival.trim();
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        [session.prober.poll_timeout(), session.opener.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Session {
    /// Cuts at the segment borders. `None`: a piece does not fit, or the keys do not allow it.
    fn send_pieces(&mut self, mut cutter: Cutter<'_>, now: Instant) -> Option<usize> {
        let (segment, pieces) = (cutter.longest() + OVERHEAD, cutter.pieces());
        if segment > self.prober.limit() || !self.sealer.prepare(pieces, now) {
            return None;
        }
        let per_burst = (BURST_BYTES / segment).clamp(1, BURST_DATAGRAMS);
        self.reserve(segment * pieces.min(per_burst));
        let mut count = 0;
        while let Some((headers, payload)) = cutter.next_piece() {
            let start = self.memory.len();
            Sealer::begin(&mut self.memory);
            self.memory.extend_from_slice(&[PACKET_PARTIAL]);
            self.memory.extend_from_slice(headers);
            self.memory.extend_from_slice(payload);
            self.sealer.seal(&mut self.memory, start);
            count += 1;
            if count % per_burst == 0 {
                self.finish_burst(segment);
                self.reserve(segment * (pieces - count).min(per_burst));
            }
        }
        self.finish_burst(segment);
        Some(count)
    }

    fn send_packet(&mut self, frame: &Frame<'_>, now: Instant) -> Option<usize> {
        let packet = frame.packet.bytes();
        let length = packet.len() + OVERHEAD;
        if length > self.prober.limit() || !self.sealer.prepare(1, now) {
            return None;
        }
        let kind = match frame.header.partial_checksum {
            Some(_) => PACKET_PARTIAL,
            None => PACKET,
        };
        self.send_text(&[&[kind], packet], length);
        Some(1)
    }

    /// Seals one datagram of `length` bytes: the text's parts, and zeros.
    fn send_text(&mut self, parts: &[&[u8]], length: usize) {
        self.reserve(length);
        let start = self.memory.len();
        Sealer::begin(&mut self.memory);
        for part in parts {
            self.memory.extend_from_slice(part);
        }
        self.memory.resize(
            (start + length.saturating_sub(TAG_LEN)).max(self.memory.len()),
            0,
        );
        self.sealer.seal(&mut self.memory, start);
        self.finish_burst(self.memory.len());
    }

    fn send_probes(&mut self, now: Instant, stats: &mut LaneStats) {
        while let Some(Probe { id, size }) = self.prober.poll_probe(now) {
            if self.sealer.prepare(1, now) {
                self.send_text(&[&[PROBE], &id.to_be_bytes()], size);
                stats.probes_sent += 1;
            }
        }
        stats.epoch = self.sealer.epoch();
    }

    fn acknowledge(&mut self, id: [u8; 4], now: Instant, stats: &mut LaneStats) {
        let epoch = self.opener.epoch().to_be_bytes();
        // Half of the queue is kept from a peer that asks faster than anybody sends.
        if self.bursts.len() < BURST_DATAGRAMS && self.sealer.prepare(1, now) {
            self.send_text(&[&[ACKNOWLEDGEMENT], &id, &epoch], 0);
            stats.probes_answered += 1;
        }
    }

    fn reserve(&mut self, length: usize) {
        if self.memory.capacity() - self.memory.len() < length {
            self.memory.reserve(length);
        }
    }

    fn finish_burst(&mut self, segment: usize) {
        let payload = self.memory.split();
        if !payload.is_empty() {
            self.queued += payload.len();
            self.bursts.push_back(Burst { payload, segment });
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("carrier", &self.carrier())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
