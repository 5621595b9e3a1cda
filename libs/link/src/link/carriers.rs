//! Frames in and out: the datagram lane where it is up and the frame fits, else the data channel.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use prost::Message as _;
use protocol::document::{Control, Hello, control::Body};
use wire::frame::{Frame, HEADER_LEN, Header};
use wire::ip::answer::too_big;

use super::Link;
use crate::config::{MAX_CONTROL, MAX_FRAME};
use crate::lane::{Burst, Carried, is_lane};
use crate::output::{Carrier, CloseReason, LinkEvent, SendRefused, Step, Transmit};

/// What waits for the data channels of a link that is open by its lane alone, for two round trips: messages, frames
/// that do not fit the lane, and the bytes of these.
const MAX_EARLY: usize = 64;
const MAX_EARLY_BYTES: usize = 256 << 10;

/// ICMP errors are sent no more often: [RFC 1812 §4.3.2.8](https://www.rfc-editor.org/rfc/rfc1812#section-4.3.2.8).
const TOO_BIG_INTERVAL: Duration = Duration::from_millis(10);

/// Of a silent link: the latest frames and bursts that are kept, and the bytes of each.
const MAX_KEPT: usize = 64;
const MAX_KEPT_BYTES: usize = 256 << 10;

/// What the lane sent while nothing answered: lost, most likely. It is sent again when a path is found, so that nobody
/// inside has to wait for a timer of his own that may have backed off by then. What waits for the data channels is not
/// here: it is not lost.
#[derive(Default)]
pub(super) struct Kept {
    /// For another link.
    frames: Latest<Vec<u8>>,
    /// For this one: as they were sealed, so that what arrived after all is not delivered twice.
    bursts: Latest<Burst>,
}

struct Latest<T> {
    all: VecDeque<(usize, T)>,
    bytes: usize,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self {
            all: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Latest<T> {
    fn push(&mut self, bytes: usize, one: T) {
        self.bytes += bytes;
        self.all.push_back((bytes, one));
        while self.all.len() > MAX_KEPT || self.bytes > MAX_KEPT_BYTES {
            let dropped = self.all.pop_front();
            self.bytes -= dropped.map_or(0, |(bytes, _)| bytes);
        }
    }
}

/// What waits for the data channels.
#[derive(Default)]
pub(super) struct Early {
    controls: Vec<Control>,
    frames: Vec<Vec<u8>>,
}

impl Link {
    /// A datagram that arrived on `local`, a host socket's address or a relayed address, from `remote`.
    pub fn handle_datagram(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
        now: Instant,
    ) {
        let segment = payload.len();
        self.handle_datagrams(local, remote, payload, segment, now);
    }

    /// Datagrams that arrived together from one peer, of `segment` bytes each, the last may be shorter: what
    /// UDP_GRO gives. The same as [`Link::handle_datagram`] for each, but for less; and what was one frame at the
    /// peer is joined to one again, also over several calls before the next [`Link::poll_event`].
    pub fn handle_datagrams(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
        segment: usize,
        now: Instant,
    ) {
        if self.closed {
            return;
        }
        let survived = catch_unwind(AssertUnwindSafe(|| {
            self.on_burst((local, remote), payload, segment.max(1), now);
        }));
        if survived.is_err() {
            // A parser below panicked: one link is lost to it, not the process.
            self.stats.datagrams_dropped += 1;
            self.on_closed(CloseReason::Protocol(
                "a datagram cannot be processed".to_owned(),
            ));
        }
    }

    fn on_burst(
        &mut self,
        pair: (SocketAddr, SocketAddr),
        mut payload: BytesMut,
        segment: usize,
        now: Instant,
    ) {
        let mut heard = false;
        while !payload.is_empty() && !self.closed {
            // Mostly all of them are the lane's: these are opened where they are.
            let lane = payload
                .chunks(segment)
                .take_while(|datagram| is_lane(datagram[0]))
                .count();
            if lane == 0 {
                let one = payload.split_to(segment.min(payload.len()));
                self.on_datagram(pair.0, pair.1, one, now);
                continue;
            }
            let mut datagrams = payload.split_to((lane * segment).min(payload.len()));
            if !self.ice.accepts(pair.0, pair.1) {
                self.stats.datagrams_dropped += lane as u64;
                continue;
            }
            for datagram in datagrams.chunks_mut(segment) {
                heard |= self.lane.handle_datagram(datagram, now);
            }
        }
        if heard && !self.closed {
            self.ice.heard(pair.0, pair.1, now);
            self.lane.on_heard(now);
            self.flush_lane(now);
            self.send_kept();
        }
    }

    /// Sends again what was sent into silence, if there is a path now.
    pub(super) fn send_kept(&mut self) {
        if self.kept.bursts.all.is_empty() || self.ice.is_silent() || !self.is_open() {
            return;
        }
        for (_, burst) in std::mem::take(&mut self.kept).bursts.all {
            self.transmit(burst);
        }
    }

    /// What was sent while nothing answered ([`LinkEvent::Silent`]), oldest first, at most 64 frames: for another link
    /// that takes the place of this one.
    pub fn take_kept(&mut self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let frames = std::mem::take(&mut self.kept).frames.all;
        frames.into_iter().map(|(_, frame)| frame)
    }

    /// Sends one tunnel frame: by the lane, or as one message on the `ip` channel. When it does not fit the lane and its
    /// sender forbids fragments, [`Link::poll_event`] gives the ICMP error that tells the sender what fits, at most one
    /// in 10 ms.
    ///
    /// # Errors
    /// When the link is not open, the queue is full (the frame is dropped, as a full interface would), or the
    /// frame is longer than 64 KiB and its header.
    pub fn send_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), SendRefused> {
        let sent = if self.is_open() {
            self.carry(frame, now)
        } else {
            Err(SendRefused::NotOpen)
        };
        match sent {
            Ok(()) => {
                self.stats.frames_sent += 1;
                self.stats.bytes_sent += frame.len() as u64;
                self.last_traffic = now;
            }
            Err(_) => self.stats.frames_refused += 1,
        }
        sent
    }

    fn carry(&mut self, frame: &[u8], now: Instant) -> Result<(), SendRefused> {
        if self.queued > self.config.send_limit {
            return Err(SendRefused::QueueFull);
        }
        match self.lane.send_frame(frame, now) {
            Carried::Yes => {
                self.ice.sent(now);
                if self.ice.is_silent() {
                    self.kept.frames.push(frame.len(), frame.to_vec());
                }
                self.flush_lane(now);
            }
            Carried::Refused(reason) => return Err(reason),
            Carried::No => {
                self.tell_if_too_big(frame, now);
                if !self.channels.is_open() {
                    return self.keep_frame(frame);
                }
                self.channels.send_frame(frame, now)?;
                self.drive(now);
            }
        }
        Ok(())
    }

    /// The lane did not take a frame: if for its length, and the sender forbids to cut it, the sender is told what would
    /// fit ([`wire::ip::answer::too_big`]), as if the peer had said so. The frame itself is not lost by that.
    fn tell_if_too_big(&mut self, frame: &[u8], now: Instant) {
        let told = |told: Instant| now.saturating_duration_since(told) < TOO_BIG_INTERVAL;
        if self.lane.carrier() != Carrier::Datagram || self.told_too_big.is_some_and(told) {
            return;
        }
        let Ok(frame) = Frame::decode(frame) else {
            return;
        };
        if let Some(answer) = too_big(&frame, self.lane.packet_limit()) {
            self.told_too_big = Some(now);
            self.stats.too_big_told += 1;
            let mut told = BytesMut::with_capacity(HEADER_LEN + answer.len());
            told.extend_from_slice(&Header::PLAIN.encode());
            told.extend_from_slice(&answer);
            self.events.push_back(LinkEvent::Frame(told));
        }
    }

    /// The next datagrams to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.queued = self.queued.saturating_sub(transmit.payload.len());
        Some(transmit)
    }

    /// The next thing that happened.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        // Whoever asks has handed over what arrived together.
        let frame = self.lane.finish().or_else(|| self.channels.finish())?;
        self.on_frame(frame);
        self.events.pop_front()
    }

    /// What carries the frames that are sent now: `Datagram` or `DataChannel`.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.lane.carrier()
    }

    /// The longest IP packet, in bytes, that the lane carries in one datagram on this path, or is expected to. What is
    /// longer goes over the data channel, and slower on a long path: TCP should be told to keep its segments, IP and
    /// TCP header included, at or below it (`wire::ip::mss`). Changes as the path is probed.
    #[must_use]
    pub fn frame_mtu(&self) -> usize {
        self.lane.packet_limit()
    }

    /// The path is known to take no UDP payload longer than `bytes` (EMSGSIZE, or a route's MTU). Probing goes on
    /// below; values under 1200 count as that.
    pub fn set_datagram_limit(&mut self, bytes: usize) {
        self.lane.lower(bytes);
        self.channels.set_datagram_limit(self.lane.datagram_limit());
    }

    /// A frame came in, by either carrier.
    pub(super) fn on_frame(&mut self, frame: BytesMut) {
        self.stats.frames_received += 1;
        self.stats.bytes_received += frame.len() as u64;
        self.events.push_back(LinkEvent::Frame(frame));
    }

    /// DTLS is up: with a lane the link is open, the data channels follow.
    pub(super) fn start_lane(&mut self, now: Instant) {
        let dtls = self.dtls.as_ref();
        self.lane.start(|| dtls?.export(), now);
        if self.lane.is_open() {
            self.on_open(now);
        }
    }

    /// The data channels are open: what had to wait for them goes out.
    pub(super) fn on_channels(&mut self, now: Instant) {
        self.lane.on_fallback();
        let hello = Control {
            body: Some(Body::Hello(Hello {
                version: crate::config::LINK_VERSION,
                mtu: 0,
            })),
        };
        let _ = self.channels.send_control(&hello, now);
        let early = std::mem::take(&mut self.early);
        for message in early.controls {
            let _ = self.channels.send_control(&message, now);
        }
        self.say_ways(now);
        for frame in early.frames {
            let _ = self.carry(&frame, now);
        }
        self.on_open(now);
    }

    fn on_open(&mut self, now: Instant) {
        if !self.open {
            self.open = true;
            self.last_traffic = now;
            self.events.push_back(LinkEvent::Step(Step::Open));
        }
    }

    /// Keeps a message until the data channels are there.
    pub(super) fn keep_control(&mut self, message: &Control) -> Result<(), SendRefused> {
        if message.encoded_len() > MAX_CONTROL {
            return Err(SendRefused::TooLong);
        }
        if self.early.controls.len() >= MAX_EARLY {
            return Err(SendRefused::QueueFull);
        }
        self.early.controls.push(message.clone());
        Ok(())
    }

    fn keep_frame(&mut self, frame: &[u8]) -> Result<(), SendRefused> {
        if frame.len() > MAX_FRAME {
            return Err(SendRefused::TooLong);
        }
        let kept: usize = self.early.frames.iter().map(Vec::len).sum();
        if self.early.frames.len() >= MAX_EARLY || kept + frame.len() > MAX_EARLY_BYTES {
            return Err(SendRefused::QueueFull);
        }
        self.early.frames.push(frame.to_vec());
        Ok(())
    }

    /// Takes what the lane has for the others.
    pub(super) fn flush_lane(&mut self, now: Instant) {
        self.channels.set_datagram_limit(self.lane.datagram_limit());
        while let Some(frame) = self.lane.poll_frame() {
            self.last_traffic = now;
            self.on_frame(frame);
        }
        if self.pair.is_some() {
            while let Some(burst) = self.lane.poll_burst() {
                if self.ice.is_silent() {
                    self.kept.bursts.push(burst.payload.len(), burst.clone());
                }
                self.transmit(burst);
            }
        }
        if let Some(carrier) = self.lane.poll_change() {
            self.events.push_back(LinkEvent::Carrier(carrier));
        }
    }

    /// By the pair that is used.
    fn transmit(&mut self, burst: Burst) {
        let Some((local, remote)) = self.pair else {
            return;
        };
        self.queued += burst.payload.len();
        self.transmits.push_back(Transmit {
            local,
            remote,
            payload: burst.payload,
            segment: burst.segment,
        });
    }
}
