//! The packet path: ChannelData and indications, both ways.

use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use model::PeerAddr;
use stun_types::attribute::AttributeStaticType;
use stun_types::message::MessageClass;
use turn_types::attribute::{Data, XorPeerAddress};
use turn_types::message::{DATA, SEND};
use wire::stream::{FrameError, Frames, MAX_FRAME};
use wire::stun::Message;
use wire::{Class, channel_data, classify};

use super::{Allocation, Phase};
use crate::output::{DropReason, Received};
use crate::peers::Route;
use wire::stun::write::{Writer, read_address};

/// Payloads of one peer that lie one after the other, of one length but for the last.
struct Run {
    peer: PeerAddr,
    start: usize,
    end: usize,
    segment: usize,
}

impl Run {
    fn takes(&self, peer: PeerAddr, len: usize) -> bool {
        let whole = self.segment > 0 && (self.end - self.start).is_multiple_of(self.segment);
        self.peer == peer && whole && (1..=self.segment).contains(&len)
    }
}

impl Allocation {
    /// Takes a datagram that the relay sent. The shell has checked that it came from the relay's address.
    pub fn handle_datagram<'a>(&mut self, now: Instant, datagram: &'a [u8]) -> Received<'a> {
        let received = match datagram.first().map(|first| classify(*first)) {
            Some(Class::ChannelData) => self.on_channel_data(now, datagram),
            Some(Class::Stun) => match Message::decode(datagram) {
                Ok(message) if message.class() == MessageClass::Indication => {
                    self.on_indication(now, &message)
                }
                Ok(message) => self.on_answer(now, &message),
                Err(_) => Received::Dropped(DropReason::Malformed),
            },
            _ => Received::Dropped(DropReason::Malformed),
        };
        match received {
            Received::FromPeer { .. } => self.stats.from_peers += 1,
            Received::Dropped(_) => self.stats.dropped += 1,
            Received::Handled => {}
        }
        received
    }

    /// As [`Self::handle_datagram`], for datagrams of `segment` bytes, the last may be shorter, that arrived together:
    /// calls `each` with what peers sent, as bursts again: who sent it, the payloads one after the other, and the
    /// bytes of each but the last.
    pub fn handle_datagrams(
        &mut self,
        now: Instant,
        burst: BytesMut,
        segment: usize,
        each: impl FnMut(PeerAddr, BytesMut, usize),
    ) {
        self.handle_messages(now, burst, |_| segment.max(1), each);
    }

    /// As [`Self::handle_datagrams`], for what a stream has brought: takes the whole messages out of `stream` and leaves
    /// the beginning of the next ([RFC 8656 section 12.5](https://www.rfc-editor.org/rfc/rfc8656#section-12.5)).
    ///
    /// # Errors
    /// When what follows is no message: the stream is of no more use.
    pub fn handle_stream(
        &mut self,
        now: Instant,
        stream: &mut BytesMut,
        each: impl FnMut(PeerAddr, BytesMut, usize),
    ) -> Result<(), FrameError> {
        let mut frames = Frames::new(stream, MAX_FRAME);
        while frames.next_run().is_some() {}
        let error = frames.error();
        let whole = stream.len() - frames.rest().len();
        if whole > 0 {
            let padded = |rest: &[u8]| {
                let frame = Frames::new(rest, MAX_FRAME).next();
                frame.map_or(rest.len(), |frame| frame.len().next_multiple_of(4))
            };
            self.handle_messages(now, stream.split_to(whole), padded, each);
        }
        error.map_or(Ok(()), Err)
    }

    /// `measure` says how long the first of some messages is, with what lies between it and the next.
    fn handle_messages(
        &mut self,
        now: Instant,
        mut burst: BytesMut,
        measure: impl Fn(&[u8]) -> usize,
        mut each: impl FnMut(PeerAddr, BytesMut, usize),
    ) {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < burst.len() {
            let end = at.saturating_add(measure(&burst[at..])).min(burst.len());
            let datagram = &burst[at..end];
            if let Received::FromPeer { peer, payload } = self.handle_datagram(now, datagram) {
                // Where it lies in the burst; never before what was moved already.
                let start = at + (payload.as_ptr() as usize - datagram.as_ptr() as usize);
                let len = payload.len();
                match runs.last_mut() {
                    Some(run) if Run::takes(run, peer, len) => {
                        burst.copy_within(start..start + len, run.end);
                        run.end += len;
                    }
                    _ => runs.push(Run {
                        peer,
                        start,
                        end: start + len,
                        segment: len,
                    }),
                }
            }
            at = end;
        }
        let mut before = 0;
        for run in runs {
            burst.advance(run.start - before);
            before = run.end;
            let payload = burst.split_to(run.end - run.start);
            each(run.peer, payload, run.segment.max(1));
        }
    }

    fn on_channel_data<'a>(&mut self, now: Instant, datagram: &'a [u8]) -> Received<'a> {
        if !matches!(self.phase, Phase::Active) {
            return Received::Dropped(DropReason::NoAllocation);
        }
        let Ok(message) = channel_data::decode(datagram) else {
            return Received::Dropped(DropReason::Malformed);
        };
        let Some(peer) = self.peers.of_channel(message.channel) else {
            return Received::Dropped(DropReason::UnboundChannel);
        };
        self.on_heard(now);
        Received::FromPeer {
            peer,
            payload: message.payload,
        }
    }

    fn on_indication<'a>(&mut self, now: Instant, message: &Message<'a>) -> Received<'a> {
        if message.method() != DATA {
            return Received::Dropped(DropReason::Unexpected);
        }
        if !matches!(self.phase, Phase::Active) {
            return Received::Dropped(DropReason::NoAllocation);
        }
        let peer = message
            .value(XorPeerAddress::TYPE)
            .and_then(|value| read_address(value, message.transaction_id()));
        match (peer, message.value(Data::TYPE)) {
            (Some(peer), Some(payload)) => {
                self.on_heard(now);
                Received::FromPeer {
                    peer: PeerAddr(peer),
                    payload,
                }
            }
            _ => Received::Dropped(DropReason::Malformed),
        }
    }

    pub(super) fn on_heard(&mut self, now: Instant) {
        self.liveness.quiet_since = now;
        self.liveness.probes = 0;
        self.liveness.used = false;
        self.liveness.asked = None;
    }

    /// The number of the channel that is bound for `peer`, for so many datagrams that are about to be sent in
    /// ChannelData; `None` as long as there is none.
    pub fn channel(&mut self, peer: PeerAddr, datagrams: usize) -> Option<u16> {
        if !matches!(self.phase, Phase::Active) {
            return None;
        }
        self.liveness.used = true;
        match self.peers.route(peer) {
            Route::Channel(number) => {
                self.stats.to_peers += datagrams as u64;
                Some(number)
            }
            _ => None,
        }
    }

    /// The four bytes to put in front of `len` bytes for `peer`; `None` as long as no channel is bound for it (then
    /// [`Self::encode_to_peer`] may still do) or when `len` exceeds 65 535.
    pub fn channel_header(&mut self, peer: PeerAddr, len: usize) -> Option<[u8; 4]> {
        if !matches!(self.phase, Phase::Active) {
            return None;
        }
        let len = u16::try_from(len).ok()?;
        match self.peers.route(peer) {
            Route::Channel(number) => {
                self.stats.to_peers += 1;
                Some(channel_data::header(number, len))
            }
            _ => None,
        }
    }

    /// Appends to `out` what to send to the relay for `payload` to reach `peer`: ChannelData, or a Send indication
    /// until the channel is bound (the relay drops ChannelData before that).
    ///
    /// An indication may be under way together with the request for its permission, not before it: whatever
    /// [`Self::poll_transmit`] has goes out first. What overtakes it all the same is lost, like any datagram.
    ///
    /// False when there is nothing to send: the packet is dropped and counted.
    pub fn encode_to_peer(&mut self, peer: PeerAddr, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let active = matches!(self.phase, Phase::Active);
        let Some(len) = u16::try_from(payload.len()).ok().filter(|_| active) else {
            self.stats.not_sent += 1;
            return false;
        };
        match self.peers.route(peer) {
            Route::Channel(number) => {
                out.extend_from_slice(&channel_data::header(number, len));
                out.extend_from_slice(payload);
            }
            Route::Indication => self.write_indication(peer, payload, out),
            Route::Nowhere => {
                self.stats.not_sent += 1;
                return false;
            }
        }
        self.liveness.used = true;
        self.stats.to_peers += 1;
        true
    }

    /// A Send indication (RFC 8656 section 11.1). Not signed: indications are not.
    pub(super) fn write_indication(&mut self, peer: PeerAddr, payload: &[u8], out: &mut Vec<u8>) {
        let id = self.random.transaction_id();
        let mut writer = Writer::new(out, MessageClass::Indication, SEND, id);
        writer.add_address(XorPeerAddress::TYPE, peer.0);
        writer.add(Data::TYPE, payload);
    }
}
