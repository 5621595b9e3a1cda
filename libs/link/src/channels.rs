//! The two data channels: SCTP over what DTLS carries, opened by DCEP (RFC 8832).
//!
//! ```text
//! stream 0  `control`  reliable, ordered     Control messages
//! stream 2  `ip`       sent once, unordered  tunnel frames: the data-channel carrier
//! ```
//!
//! What is inside repairs its losses itself and slows itself down. So nothing on `ip` is sent twice, each message fits
//! one SCTP packet ([`frames`]), and the window is not narrowed by loss that does not persist: see
//! `vendor/rtc-sctp/src/association/recovery.rs`, and docs/protocol/link.md for why that is safe.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use frames::Joiner;
use prost::Message as _;
use protocol::document::Control;
use rtc_datachannel::data_channel::DataChannel;
use rtc_datachannel::message::Message as Dcep;
use rtc_datachannel::message::message_channel_ack::DataChannelAck;
use rtc_datachannel::message::message_channel_open::{
    CHANNEL_PRIORITY_NORMAL, ChannelType, DataChannelOpen,
};
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, RecoveryConfig, ReliabilityType, ServerConfig, StreamEvent,
    TimerConfig, TransportConfig, max_payload_size_for_mtu,
};
use rtc_shared::TransportProtocol;
use rtc_shared::marshal::{Marshal as _, Unmarshal as _};
pub(crate) use waiting::Told;
use waiting::Waiting;

use crate::config::{DTLS_OVERHEAD, LinkConfig, LinkRole, MAX_CONTROL, MAX_FRAME};
use crate::dtls::PEER;
use crate::mtu::FLOOR;
use crate::output::{CloseReason, SendRefused};

mod frames;
mod waiting;

/// An offerer is the DTLS client: its streams are even.
/// [RFC 8832 §6](https://www.rfc-editor.org/rfc/rfc8832#section-6)
const CONTROL_STREAM: u16 = 0;
const IP_STREAM: u16 = 2;
/// [RFC 8832 §8.2.1](https://www.rfc-editor.org/rfc/rfc8832#section-8.2.1)
const DATA_CHANNEL_ACK: u8 = 0x02;
const DATA_CHANNEL_OPEN: u8 = 0x03;
const CONTROL_LABEL: &str = "control";
const IP_LABEL: &str = "ip";
const SUBPROTOCOL: &str = "turnpike";
/// What may wait for room in the window: as much as the path takes in this time, but not less than `LEAST_QUEUE`.
const QUEUE_TIME: Duration = Duration::from_millis(50);
const LEAST_QUEUE: usize = 256 << 10;
/// Without a frame for this long, memory that waits for more is given back.
const IDLE: Duration = Duration::from_secs(5);

pub(crate) enum ChannelEvent {
    Open,
    Control(Control),
    Frame(BytesMut),
    Lost(String),
}

pub(crate) struct Channels {
    role: LinkRole,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    transport: TransportConfig,
    control: Option<u16>,
    ip: Option<u16>,
    open: bool,
    send_limit: usize,
    /// Longest SCTP packet: that may ever be, and on this path.
    mtu: [u32; 2],
    /// Longest message that is one chunk.
    most: usize,
    waiting: Waiting,
    joiner: Joiner,
    trim_at: Option<Instant>,
    events: VecDeque<ChannelEvent>,
    /// Messages that were not what the channel carries.
    pub(crate) dropped: u64,
}

impl Channels {
    pub(crate) fn new(role: LinkRole, config: &LinkConfig) -> Self {
        let timers = TimerConfig {
            max_t3_rtx_retrans: usize::MAX,
            ..TimerConfig::default()
        };
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(config.receive_window)
            .with_max_message_size(MAX_FRAME as u32)
            .with_max_num_inbound_streams(16)
            .with_max_num_outbound_streams(16)
            .with_timer_config(timers)
            .with_recovery(RecoveryConfig::default())
            .with_zero_checksum(true);
        let most = max_payload_size_for_mtu(config.sctp_mtu);
        let mut endpoint_config = EndpointConfig::new();
        endpoint_config.max_payload_size(most);
        let server =
            (role == LinkRole::Answerer).then(|| Arc::new(ServerConfig::new(transport.clone())));
        Self {
            role,
            endpoint: Endpoint::new(
                PEER,
                TransportProtocol::UDP,
                Arc::new(endpoint_config),
                server,
            ),
            association: None,
            transport,
            control: None,
            ip: None,
            open: false,
            send_limit: config.send_limit,
            mtu: [config.sctp_mtu; 2],
            most: most as usize,
            waiting: Waiting::default(),
            joiner: Joiner::default(),
            trim_at: None,
            events: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Called when DTLS is up: the client sends INIT.
    pub(crate) fn start(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.role == LinkRole::Offerer && self.association.is_none() {
            let association = self
                .endpoint
                .connect(now, ClientConfig::new(self.transport.clone()), PEER)
                .map_err(|error| CloseReason::Protocol(error.to_string()))?;
            self.association = Some(association);
        }
        Ok(())
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    /// One SCTP packet.
    pub(crate) fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        self.survive(|channels| channels.on_packet(packet, now));
    }

    /// The codec of SCTP panics on some chunks that a peer with a good certificate may send: such a peer loses its
    /// link, and nobody else anything.
    fn survive<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| act(&mut *self)));
        if done.is_err() {
            // Whatever state the association is in, nobody looks at it again.
            self.association = None;
            self.open = false;
            self.dropped += 1;
            self.events.clear();
            self.events.push_back(ChannelEvent::Lost(
                "the peer sent a packet that cannot be processed".to_owned(),
            ));
        }
        done.ok()
    }

    fn on_packet(&mut self, packet: Bytes, now: Instant) {
        match self.endpoint.handle(now, PEER, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association)))
                if self.association.is_none() =>
            {
                self.association = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => match &mut self.association {
                Some((ours, association)) if *ours == handle => association.handle_event(event),
                _ => self.dropped += 1,
            },
            _ => self.dropped += 1,
        }
        self.on_association_events(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.trim_at.take_if(|due| *due <= now).is_some() {
            self.joiner.trim();
            self.waiting.trim();
        }
        self.survive(|channels| {
            if let Some((_, association)) = &mut channels.association {
                association.handle_timeout(now);
                channels.on_association_events(now);
            }
        });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let association = self.association.as_ref();
        let timers = association.and_then(|(_, association)| association.poll_timeout());
        [timers, self.trim_at].into_iter().flatten().min()
    }

    pub(crate) fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// The longest datagram that the path takes: from now on no packet, sealed by DTLS, is longer.
    pub(crate) fn set_datagram_limit(&mut self, limit: usize) {
        let [ceiling, mtu] = self.mtu;
        let fits = ceiling.min(limit.saturating_sub(DTLS_OVERHEAD) as u32);
        if fits != mtu {
            self.mtu[1] = fits;
            self.most = max_payload_size_for_mtu(fits) as usize;
            self.fit();
        }
    }

    /// What is written to the streams from now on is cut to what fits the path. A control message is sent until it
    /// arrives, in the pieces it was cut into first: these fit any path.
    fn fit(&mut self) {
        let [ceiling, mtu] = self.mtu;
        let Some((_, association)) = &mut self.association else {
            return;
        };
        association.set_mtu(mtu);
        let least = ceiling.min((FLOOR - DTLS_OVERHEAD) as u32);
        for (id, mtu) in [(self.control, least), (self.ip, mtu)] {
            if let Some(mut stream) = id.and_then(|id| association.stream(id).ok()) {
                stream.set_max_payload_size(max_payload_size_for_mtu(mtu));
            }
        }
    }

    /// Everything that arrived together was handed over: gives the frame that is being joined.
    pub(crate) fn finish(&mut self) -> Option<BytesMut> {
        self.joiner.finish()
    }

    /// The SCTP packets that are due, each to be one DTLS record.
    pub(crate) fn poll_packets(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        self.survive(|channels| {
            channels.fill_window(now);
            let (_, association) = channels.association.as_mut()?;
            match association.poll_transmit(now)?.message {
                Payload::RawEncode(packets) => Some(packets),
                _ => None,
            }
        })?
    }

    /// Bytes that wait for room in the window, and how many may.
    fn queue(&self) -> (usize, usize) {
        let Some((_, association)) = &self.association else {
            return (0, 0);
        };
        let (flying, _) = association.flight().unwrap_or_default();
        let in_time = self.rtt().map_or(0.0, |rtt| {
            flying as f64 * QUEUE_TIME.as_secs_f64() / rtt.as_secs_f64()
        });
        let most = (in_time as usize).max(LEAST_QUEUE).min(self.send_limit);
        (association.pending_bytes() + self.waiting.bytes(), most)
    }

    /// Sends a frame, cut into messages of one chunk where that can be done.
    pub(crate) fn send_frame(&mut self, frame: &[u8], now: Instant) -> Result<(), SendRefused> {
        if frame.len() > MAX_FRAME {
            return Err(SendRefused::TooLong);
        }
        let (true, Some(ip)) = (self.open, self.ip) else {
            return Err(SendRefused::NotOpen);
        };
        let (waiting, most) = self.queue();
        let room = self.association.as_ref().map_or(0, |(_, of)| of.room());
        if self.waiting.is_empty() && waiting + frame.len() <= room.min(most) {
            return frames::cut(frame, self.most, |message| {
                self.write(ip, message, PayloadProtocolIdentifier::Binary, now)
            });
        }
        let flow = Waiting::flow(frame);
        let most = most.saturating_sub(waiting - self.waiting.bytes());
        if !self.waiting.make_room(flow, frame.len(), most) {
            return Err(SendRefused::QueueFull);
        }
        self.trim_at = Some(now + IDLE);
        frames::cut(frame, self.most, |message| {
            self.waiting.push(flow, message.clone(), now);
            Ok(())
        })
    }

    /// Moves what waits to where it goes out from, as far as there is room: what is there is overtaken by nothing.
    fn fill_window(&mut self, now: Instant) {
        let Some(ip) = self.ip else {
            return;
        };
        let round_trip = self.rtt().unwrap_or_default();
        while let Some((_, association)) = &self.association {
            // One more than there is room for: an association with nothing to send would not probe.
            let pending = association.pending_bytes();
            let is_full = pending > 0 && pending >= association.room();
            // What is ordered, control messages, would come after all that is not.
            if is_full || association.is_ordered_pending() {
                return;
            }
            let Some(message) = self.waiting.pop(round_trip, now) else {
                return;
            };
            let _ = self.write(ip, &message, PayloadProtocolIdentifier::Binary, now);
        }
    }

    /// What became of frames that waited.
    pub(crate) fn told(&self) -> Told {
        self.waiting.told
    }

    pub(crate) fn send_control(
        &mut self,
        message: &Control,
        now: Instant,
    ) -> Result<(), SendRefused> {
        let (true, Some(control)) = (self.open, self.control) else {
            return Err(SendRefused::NotOpen);
        };
        let encoded = message.encode_to_vec();
        if encoded.len() > MAX_CONTROL {
            return Err(SendRefused::TooLong);
        }
        self.write(
            control,
            &encoded.into(),
            PayloadProtocolIdentifier::Binary,
            now,
        )
    }

    pub(crate) fn close(&mut self) {
        if let Some((_, association)) = &mut self.association {
            let _ = association.abort();
        }
        self.open = false;
    }

    fn write(
        &mut self,
        stream: u16,
        data: &Bytes,
        ppi: PayloadProtocolIdentifier,
        now: Instant,
    ) -> Result<(), SendRefused> {
        let Some((_, association)) = &mut self.association else {
            return Err(SendRefused::NotOpen);
        };
        association
            .stream(stream)
            .and_then(|mut stream| stream.write_chunk_with_ppi(now, data, ppi))
            .map(|_| ())
            .map_err(|_| SendRefused::NotOpen)
    }

    fn on_association_events(&mut self, now: Instant) {
        while let Some((_, association)) = &mut self.association {
            let Some(event) = association.poll() else {
                break;
            };
            match event {
                Event::Connected if self.role == LinkRole::Offerer => self.open_channels(now),
                Event::HandshakeFailed { reason } | Event::AssociationLost { reason, .. } => {
                    self.open = false;
                    self.events
                        .push_back(ChannelEvent::Lost(reason.to_string()));
                }
                Event::Stream(StreamEvent::Readable { id }) => self.on_readable(id, now),
                Event::Stream(StreamEvent::Finished { id }) if self.is_ours(id) => {
                    self.events
                        .push_back(ChannelEvent::Lost("a data channel was closed".to_owned()));
                }
                _ => {}
            }
        }
        // Streams that the peer opened are known by their id from here on.
        if let Some((_, association)) = &mut self.association {
            while association.accept_stream().is_some() {}
        }
    }

    fn is_ours(&self, id: u16) -> bool {
        self.control == Some(id) || self.ip == Some(id)
    }

    /// The offerer opens both channels and may use them at once (RFC 8832 §6): unordered delivery waits for the
    /// acknowledgement, or a frame could overtake the opening of its channel.
    fn open_channels(&mut self, now: Instant) {
        for (id, label, kind) in [
            (CONTROL_STREAM, CONTROL_LABEL, ChannelType::Reliable),
            (
                IP_STREAM,
                IP_LABEL,
                ChannelType::PartialReliableRexmitUnordered,
            ),
        ] {
            let open = Dcep::DataChannelOpen(DataChannelOpen {
                channel_type: kind,
                priority: CHANNEL_PRIORITY_NORMAL,
                reliability_parameter: 0,
                label: label.as_bytes().to_vec(),
                protocol: SUBPROTOCOL.as_bytes().to_vec(),
            });
            let opened = self.association.as_mut().is_some_and(|(_, association)| {
                association
                    .open_stream(id, PayloadProtocolIdentifier::Binary)
                    .is_ok()
            });
            if !opened || !self.send_dcep(id, &open, now) {
                self.events
                    .push_back(ChannelEvent::Lost(format!("cannot open `{label}`")));
                return;
            }
        }
        self.control = Some(CONTROL_STREAM);
        self.ip = Some(IP_STREAM);
        self.fit();
        self.open = true;
        self.events.push_back(ChannelEvent::Open);
    }

    fn send_dcep(&mut self, stream: u16, message: &Dcep, now: Instant) -> bool {
        message.marshal().is_ok_and(|encoded| {
            self.write(
                stream,
                &encoded.freeze(),
                PayloadProtocolIdentifier::Dcep,
                now,
            )
            .is_ok()
        })
    }

    fn on_readable(&mut self, id: u16, now: Instant) {
        loop {
            let Some((_, association)) = &mut self.association else {
                return;
            };
            let Ok(mut stream) = association.stream(id) else {
                return;
            };
            let Ok(Some(chunks)) = stream.read_sctp() else {
                return;
            };
            let Ok(message) = chunks.to_payload(MAX_FRAME) else {
                self.dropped += 1;
                continue;
            };
            match chunks.ppi {
                PayloadProtocolIdentifier::Dcep => self.on_dcep(id, &message, now),
                _ if self.ip == Some(id) => self.on_message(message, now),
                _ if self.control == Some(id) => self.on_control(&message),
                // A channel that is none of ours: a browser may open more, nobody listens to them.
                _ => self.dropped += 1,
            }
        }
    }

    fn on_message(&mut self, message: BytesMut, now: Instant) {
        self.trim_at = Some(now + IDLE);
        let whole = self.joiner.push(message);
        while let Some(frame) = self.joiner.pop() {
            self.events.push_back(ChannelEvent::Frame(frame));
        }
        self.events.extend(whole.map(ChannelEvent::Frame));
    }

    fn on_control(&mut self, message: &[u8]) {
        match (message.len() <= MAX_CONTROL).then(|| Control::decode(message)) {
            Some(Ok(control)) => self.events.push_back(ChannelEvent::Control(control)),
            _ => self.dropped += 1,
        }
    }

    fn on_dcep(&mut self, id: u16, mut message: &[u8], now: Instant) {
        // The codec has messages of its own beside these two, and panics on short ones.
        if !matches!(
            message.first(),
            Some(&DATA_CHANNEL_ACK | &DATA_CHANNEL_OPEN)
        ) {
            self.dropped += 1;
            return;
        }
        match Dcep::unmarshal(&mut message) {
            Ok(Dcep::DataChannelOpen(open)) if self.role == LinkRole::Answerer => {
                self.on_channel_open(id, &open, now);
            }
            Ok(Dcep::DataChannelAck(_)) if self.is_ours(id) => {
                // Until now all was in order and sent again: a frame could have overtaken the opening of its channel.
                if self.ip == Some(id) {
                    self.set_reliability(id, true, ReliabilityType::Rexmit, 0);
                }
            }
            _ => self.dropped += 1,
        }
    }

    fn on_channel_open(&mut self, id: u16, open: &DataChannelOpen, now: Instant) {
        let (unordered, kind) = DataChannel::get_reliability_params(open.channel_type);
        self.set_reliability(id, unordered, kind, open.reliability_parameter);
        self.send_dcep(id, &Dcep::DataChannelAck(DataChannelAck {}), now);
        if open.label == CONTROL_LABEL.as_bytes() {
            self.control.get_or_insert(id);
        } else if open.label == IP_LABEL.as_bytes() {
            self.ip.get_or_insert(id);
        }
        if !self.open && self.control.is_some() && self.ip.is_some() {
            self.fit();
            self.open = true;
            self.events.push_back(ChannelEvent::Open);
        }
    }

    fn set_reliability(&mut self, id: u16, unordered: bool, kind: ReliabilityType, value: u32) {
        if let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
        {
            let _ = stream.set_reliability_params(unordered, kind, value);
        }
    }

    /// Smoothed round-trip time, once measured.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        let (_, association) = self.association.as_ref()?;
        Some(association.rtt()).filter(|rtt| !rtt.is_zero())
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("role", &self.role)
            .field("open", &self.open)
            .finish()
    }
}

#[cfg(test)]
mod tests;
