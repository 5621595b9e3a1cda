//! The link itself: a switchboard between path, session and channels.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use protocol::document::{Bye, Candidate, Control, SessionDescription, control::Body};

use crate::candidate::LocalCandidate;
use crate::certificate::DtlsCertificate;
use crate::channels::{ChannelEvent, Channels};
use crate::config::{LINK_VERSION, LinkConfig, LinkRole, MAX_REMOTE_CANDIDATES, PathChoice};
use crate::dtls::{Dtls, DtlsEvent};
use crate::ice::{Ice, IceEvent};
use crate::lane::Lane;
use crate::output::{
    CloseReason, LinkError, LinkEvent, PairStatus, Path, SendRefused, Step, Transmit,
};
use crate::stats::LinkStats;

mod carriers;
mod way;

/// One WebRTC session, without I/O. See the crate's documentation for the drain law.
pub struct Link {
    role: LinkRole,
    config: LinkConfig,
    certificate: Arc<DtlsCertificate>,
    ice: Ice,
    /// There once the remote description is: only then is it known whom to expect.
    dtls: Option<Dtls>,
    channels: Channels,
    lane: Lane,
    /// Where packets go: the nominated pair, or before that the pair DTLS came in on.
    pair: Option<(SocketAddr, SocketAddr)>,
    path: Option<Path>,
    /// How the relay is reached, if one is used: by this end and by the peer.
    legs: [Path; 2],
    /// The peer was told of the first once.
    said_leg: bool,
    open_deadline: Option<Instant>,
    /// Frames can be sent: the lane has keys, or the data channels are open.
    open: bool,
    early: carriers::Early,
    kept: carriers::Kept,
    /// When a sender was last told that the path takes less.
    told_too_big: Option<Instant>,
    last_traffic: Instant,
    closed: bool,
    events: VecDeque<LinkEvent>,
    transmits: VecDeque<Transmit>,
    /// Bytes in `transmits` that are the lane's.
    queued: usize,
    stats: LinkStats,
}

impl Link {
    /// A link that has not met its peer yet.
    ///
    /// # Errors
    /// When the session cannot be set up locally.
    pub fn new(
        role: LinkRole,
        certificate: Arc<DtlsCertificate>,
        config: &LinkConfig,
        now: Instant,
    ) -> Result<Self, LinkError> {
        Ok(Self {
            role,
            config: config.clone(),
            ice: Ice::new(role, &certificate, config, now)?,
            certificate,
            dtls: None,
            channels: Channels::new(role, config),
            lane: Lane::new(role, config),
            pair: None,
            path: None,
            legs: [Path::RelayUdp; 2],
            said_leg: false,
            open_deadline: None,
            open: false,
            early: carriers::Early::default(),
            kept: carriers::Kept::default(),
            told_too_big: None,
            last_traffic: now,
            closed: false,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            queued: 0,
            stats: LinkStats::default(),
        })
    }

    /// The ICE username fragment by which incoming checks name this link.
    #[must_use]
    pub fn local_ufrag(&self) -> &str {
        self.ice.ufrag()
    }

    /// Adds an address this end can be reached at. One that comes after the description was taken has to be told to
    /// the peer by [`LocalCandidate::to_wire`], or is learned from the checks that go out from it. `false`: it is known
    /// already, or one too many.
    ///
    /// # Errors
    /// When the address is not usable as a candidate.
    pub fn add_local_candidate(
        &mut self,
        candidate: LocalCandidate,
        now: Instant,
    ) -> Result<bool, LinkError> {
        if candidate.base.port() == 0 {
            return Err(LinkError::BadCandidate(candidate.base.to_string()));
        }
        let added = self.ice.add_local(candidate);
        self.drive(now);
        Ok(added)
    }

    /// What the peer must know of this end.
    #[must_use]
    pub fn local_description(&self) -> SessionDescription {
        let mut description = SessionDescription {
            dtls_fingerprint: self.certificate.fingerprint().to_vec(),
            link_version: LINK_VERSION,
            lane: self.lane.offer(),
            ..SessionDescription::default()
        };
        self.ice.describe(&mut description);
        description
    }

    /// Takes in the peer's (verified) description and starts looking for a path.
    ///
    /// # Errors
    /// When the description is unusable; unusable candidates in it are left out.
    pub fn set_remote_description(
        &mut self,
        description: &SessionDescription,
        now: Instant,
    ) -> Result<(), LinkError> {
        if self.dtls.is_some() {
            return Err(LinkError::BadDescription("there is one already"));
        }
        if description.link_version == 0 {
            return Err(LinkError::BadDescription("no link version"));
        }
        let fingerprint = <[u8; 32]>::try_from(description.dtls_fingerprint.as_slice())
            .map_err(|_| LinkError::BadDescription("the DTLS fingerprint is not 32 bytes"))?;
        self.dtls = Some(Dtls::new(self.role, &self.certificate, fingerprint)?);
        self.lane.set_remote_offer(description.lane.as_ref());
        for candidate in description.candidates.iter().take(MAX_REMOTE_CANDIDATES) {
            let _ = self.ice.add_remote(candidate);
        }
        self.ice
            .start(&description.ice_ufrag, &description.ice_pwd, now)?;
        self.drive(now);
        Ok(())
    }

    /// Takes in a candidate that trickled in later.
    ///
    /// # Errors
    /// When its address is unusable.
    pub fn add_remote_candidate(
        &mut self,
        candidate: &Candidate,
        now: Instant,
    ) -> Result<(), LinkError> {
        self.ice.add_remote(candidate)?;
        self.drive(now);
        Ok(())
    }

    /// The remote candidates' addresses known so far (a standing allocation must permit each).
    #[must_use]
    pub fn remote_candidates(&self) -> Vec<SocketAddr> {
        self.ice.remotes()
    }

    fn on_datagram(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
        now: Instant,
    ) {
        // RFC 7983 §7: STUN is 0 to 3, DTLS is 20 to 63.
        match payload.first() {
            Some(0..=3) if self.ice.handle_stun(local, remote, &payload, now) => {}
            Some(20..=63) if self.dtls.is_some() && self.ice.accepts(local, remote) => {
                self.pair.get_or_insert((local, remote));
                if self.on_dtls(payload, now) {
                    self.ice.heard(local, remote, now);
                }
            }
            _ => self.stats.datagrams_dropped += 1,
        }
        self.drive(now);
        self.send_kept();
    }

    /// Lets timers run that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        if self.open_deadline.is_some_and(|deadline| deadline <= now) && !self.channels.is_open() {
            let complaint = self.dtls.as_ref().and_then(|dtls| dtls.last_error.clone());
            self.on_closed(complaint.map_or(CloseReason::OpenTimeout, CloseReason::DtlsFailed));
            return;
        }
        self.ice.handle_timeout(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
        }
        self.channels.handle_timeout(now);
        self.lane.handle_timeout(now);
        self.drive(now);
    }

    /// When [`Link::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let dtls = self.dtls.as_ref().and_then(Dtls::poll_timeout);
        let opening = self.open_deadline.filter(|_| !self.channels.is_open());
        [
            self.ice.poll_timeout(),
            dtls,
            self.channels.poll_timeout(),
            self.lane.poll_timeout(),
            opening,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Sends a control message; as soon as the data channels are there, when the link is open by its lane only.
    ///
    /// # Errors
    /// When the link is not open, the message is longer than 16 KiB, or 64 messages wait already.
    pub fn send_control(&mut self, message: &Control, now: Instant) -> Result<(), SendRefused> {
        if self.is_open() && !self.channels.is_open() {
            return self.keep_control(message);
        }
        self.channels.send_control(message, now)?;
        self.drive(now);
        Ok(())
    }

    /// Ends the link: tells the peer as far as the session reaches, then goes silent.
    pub fn close(&mut self, reason: &str, now: Instant) {
        if self.closed {
            return;
        }
        let bye = Bye {
            link: 0,
            reason: reason.to_owned(),
        };
        if self
            .channels
            .send_control(
                &Control {
                    body: Some(Body::Bye(bye)),
                },
                now,
            )
            .is_ok()
        {
            self.drive(now);
        }
        self.channels.close();
        self.drive(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
        self.flush_dtls();
        self.on_closed(CloseReason::LocalClosed(reason.to_owned()));
    }

    /// Whether frames can be sent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open && !self.closed
    }

    /// Whether the link is over.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether what is sent is not answered, on no path: see [`LinkEvent::Silent`].
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.path.is_some() && self.ice.is_silent()
    }

    /// The base and the peer's address of the nominated pair.
    #[must_use]
    pub const fn pair(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.pair
    }

    /// Every pair of candidates and what became of it, for people.
    #[must_use]
    pub fn pairs(&self) -> Vec<PairStatus> {
        self.ice.pairs()
    }

    /// Whether the lane should carry frames and nothing of it gets through: the path drops its datagrams, for their
    /// length most likely.
    #[must_use]
    pub fn lane_is_silent(&self) -> bool {
        self.open && self.lane.is_silent()
    }

    /// When a frame last went in or out (at first: when the link was made).
    #[must_use]
    pub const fn last_traffic(&self) -> Instant {
        self.last_traffic
    }

    /// Round trip of the session, once measured.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.channels.rtt().or_else(|| self.ice.rtt())
    }

    /// The link's counters.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        let inside = self.dtls.as_ref().map_or(0, |dtls| dtls.dropped) + self.channels.dropped;
        LinkStats {
            datagrams_dropped: self.stats.datagrams_dropped + inside + self.lane.stats.dropped(),
            queue_dropped: self.channels.told().dropped,
            queue_marked: self.channels.told().marked,
            lane: self.lane.stats,
            ..self.stats
        }
    }

    /// Whether the datagram was the peer's beyond doubt.
    fn on_dtls(&mut self, payload: BytesMut, now: Instant) -> bool {
        let Some(dtls) = &mut self.dtls else {
            return false;
        };
        let mut connected = false;
        let mut peer_closed = false;
        let mut packets = Vec::new();
        let read = dtls.handle_datagram(payload, now, |event| match event {
            DtlsEvent::Connected => connected = true,
            DtlsEvent::Data(data) => packets.push(data),
            DtlsEvent::PeerClosed => peer_closed = true,
        });
        if let Err(reason) = read {
            self.flush_dtls();
            self.on_closed(reason);
            return false;
        }
        let authentic = connected || !packets.is_empty();
        if connected {
            self.events.push_back(LinkEvent::Step(Step::DtlsConnected));
            self.start_lane(now);
            if let Err(reason) = self.channels.start(now) {
                self.on_closed(reason);
            }
        }
        for packet in packets {
            self.channels.handle_packet(packet.freeze(), now);
        }
        if peer_closed {
            self.drain_channels(now);
            self.on_closed(CloseReason::PeerClosed("without a word".to_owned()));
        }
        authentic
    }

    /// Moves what one layer has for the next, until nothing is left to move.
    fn drive(&mut self, now: Instant) {
        while let Some(event) = self.ice.poll_event() {
            match event {
                IceEvent::Promising { local, remote } => {
                    self.pair.get_or_insert((local, remote));
                    self.start_dtls(now);
                }
                IceEvent::Selected {
                    local,
                    remote,
                    path,
                } => {
                    self.on_selected((local, remote), path, now);
                }
                IceEvent::Silent => self.events.push_back(LinkEvent::Silent),
                IceEvent::Failed => self.on_closed(match self.config.path {
                    PathChoice::Auto => CloseReason::IceTimeout,
                    choice => CloseReason::NoAllowedPath(choice),
                }),
            }
        }
        self.drain_channels(now);
        // Checks first: what they show of a path, what comes after them may rely on.
        while let Some(transmit) = self.ice.poll_transmit() {
            self.transmits.push_back(transmit);
        }
        self.flush_sctp(now);
        self.flush_dtls();
        self.flush_lane(now);
    }

    fn on_selected(&mut self, pair: (SocketAddr, SocketAddr), path: Path, now: Instant) {
        let first = self.path.is_none();
        let elsewhere = self.pair.replace(pair) != Some(pair);
        if elsewhere {
            self.lane.on_path_change(now);
            if let Some(dtls) = &mut self.dtls {
                dtls.on_path(now);
            }
        }
        // Another relay may be reached another way.
        if self.path.replace(path) != Some(path) || elsewhere && path.is_relayed() {
            let path = self.path().unwrap_or(path);
            self.events.push_back(LinkEvent::Path(path));
        }
        if first {
            self.events.push_back(LinkEvent::Step(Step::IceConnected));
            self.open_deadline = Some(now + self.config.open_timeout);
            self.start_dtls(now);
        }
    }

    fn start_dtls(&mut self, now: Instant) {
        if let Some(dtls) = &mut self.dtls
            && let Err(reason) = dtls.start(now)
        {
            self.on_closed(reason);
        }
    }

    fn drain_channels(&mut self, now: Instant) {
        while let Some(event) = self.channels.poll_event() {
            match event {
                ChannelEvent::Open => self.on_channels(now),
                ChannelEvent::Frame(frame) => {
                    self.last_traffic = now;
                    self.on_frame(frame);
                }
                ChannelEvent::Control(control) => self.on_control(control, now),
                ChannelEvent::Lost(why) => self.on_closed(CloseReason::Protocol(why)),
            }
        }
    }

    fn on_control(&mut self, control: Control, now: Instant) {
        match control.body {
            Some(Body::Hello(hello)) if hello.version == 0 => {
                self.on_closed(CloseReason::Protocol(
                    "the peer speaks no known version".to_owned(),
                ));
            }
            Some(Body::Hello(_)) => {}
            Some(Body::Ping(ping)) => {
                let pong = Control {
                    body: Some(Body::Pong(ping)),
                };
                let _ = self.channels.send_control(&pong, now);
            }
            Some(Body::Leg(leg)) => self.on_leg(&leg),
            Some(Body::Leaving(leaving)) => self.on_leaving(&leaving, now),
            Some(Body::Bye(bye)) => {
                let reason = bye.reason.chars().take(256).collect();
                self.on_closed(CloseReason::PeerClosed(reason));
            }
            Some(_) => self.events.push_back(LinkEvent::Control(control)),
            None => self.stats.datagrams_dropped += 1,
        }
    }

    fn flush_sctp(&mut self, now: Instant) {
        let Some(dtls) = &mut self.dtls else { return };
        while let Some(packets) = self.channels.poll_packets(now) {
            self.ice.sent(now);
            for packet in packets {
                if dtls.send(&packet, now).is_err() {
                    self.stats.datagrams_dropped += 1;
                }
            }
        }
    }

    fn flush_dtls(&mut self) {
        let (Some(dtls), Some((local, remote))) = (&mut self.dtls, self.pair) else {
            return;
        };
        while let Some(payload) = dtls.poll_transmit() {
            self.transmits
                .push_back(Transmit::one(local, remote, payload));
        }
    }

    fn on_closed(&mut self, reason: CloseReason) {
        if !self.closed {
            self.closed = true;
            while let Some(frame) = self.lane.finish() {
                self.on_frame(frame);
            }
            // And with it, its keys.
            self.lane.close();
            self.events.push_back(LinkEvent::Closed(reason));
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("role", &self.role)
            .field("path", &self.path)
            .field("open", &self.open)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
