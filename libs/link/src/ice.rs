//! Finding a path: a thin face over `rtc-ice`'s agent, without its fixed timers on the way.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use protocol::document::{Candidate as WireCandidate, SessionDescription};
use rtc_ice::agent::agent_config::AgentConfig;
use rtc_ice::agent::{Agent, Event};
use rtc_ice::candidate::CandidateType;
use rtc_ice::mdns::MulticastDnsMode;
use rtc_ice::state::ConnectionState;
use rtc_shared::{TransportContext, TransportMessage, TransportProtocol};
use sansio::Protocol as _;

use crate::candidate::{CandidateKind, LocalCandidate, from_wire};
use crate::certificate::DtlsCertificate;
use crate::config::{CHECK_INTERVAL, LinkConfig, LinkRole, MAX_CHECKS, MAX_REMOTE_CANDIDATES};
use crate::output::{LinkError, Path, Transmit};
use crate::stun::{BINDING_REQUEST, BINDING_SUCCESS, attributes};

/// [RFC 8445 §16.1](https://www.rfc-editor.org/rfc/rfc8445#section-16.1)
const USE_CANDIDATE: u16 = 0x0025;

pub(crate) enum IceEvent {
    Selected {
        local: SocketAddr,
        remote: SocketAddr,
        path: Path,
    },
    Failed,
}

pub(crate) struct Ice {
    agent: Agent,
    controlling: bool,
    locals: Vec<LocalCandidate>,
    remotes: Vec<SocketAddr>,
    connected: bool,
    /// A nomination that came before our own check on its pair succeeded.
    nomination: Option<(SocketAddr, SocketAddr, BytesMut)>,
    /// The pair last told to the agent as alive, and when: it is told again only after a while.
    seen: Option<(SocketAddr, SocketAddr, Instant)>,
}

impl Ice {
    pub(crate) fn new(
        role: LinkRole,
        certificate: &DtlsCertificate,
        config: &LinkConfig,
        now: Instant,
    ) -> Result<Self, LinkError> {
        let half = Some(config.ice_timeout / 2);
        let controlling = role == LinkRole::Offerer;
        let agent_config = AgentConfig {
            multicast_dns_mode: MulticastDnsMode::Disabled,
            disconnected_timeout: half,
            failed_timeout: half,
            keepalive_interval: Some(config.keepalive),
            check_interval: CHECK_INTERVAL,
            max_binding_requests: Some(MAX_CHECKS),
            is_controlling: controlling,
            host_acceptance_min_wait: Some(Duration::ZERO),
            srflx_acceptance_min_wait: Some(Duration::ZERO),
            prflx_acceptance_min_wait: Some(Duration::ZERO),
            relay_acceptance_min_wait: Some(Duration::ZERO),
            ..AgentConfig::default()
        };
        let agent = Agent::new(now, Arc::new(agent_config), certificate.provider.clone())
            .map_err(|error| LinkError::Setup(error.to_string()))?;
        Ok(Self {
            agent,
            controlling,
            locals: Vec::new(),
            remotes: Vec::new(),
            connected: false,
            nomination: None,
            seen: None,
        })
    }

    pub(crate) fn ufrag(&self) -> &str {
        &self.agent.get_local_credentials().ufrag
    }

    pub(crate) fn describe(&self, description: &mut SessionDescription) {
        let credentials = self.agent.get_local_credentials();
        description.ice_ufrag.clone_from(&credentials.ufrag);
        description.ice_pwd.clone_from(&credentials.pwd);
        description.candidates = self.locals.iter().map(|local| local.to_wire()).collect();
    }

    pub(crate) fn add_local(&mut self, candidate: LocalCandidate) -> Result<(), LinkError> {
        if self.locals.contains(&candidate) {
            return Ok(());
        }
        // A reflexive address is for the peer to know; checks go out from its base, which is a host
        // candidate already (RFC 8445 §6.1.2.4 prunes the pair).
        if candidate.kind != CandidateKind::ServerReflexive {
            self.agent
                .add_local_candidate(candidate.to_ice()?)
                .map_err(|error| LinkError::Setup(error.to_string()))?;
        }
        self.locals.push(candidate);
        Ok(())
    }

    /// Takes in a remote candidate; one too many is ignored.
    pub(crate) fn add_remote(&mut self, wire: &WireCandidate) -> Result<(), LinkError> {
        let (candidate, address) = from_wire(wire)?;
        if self.remotes.len() >= MAX_REMOTE_CANDIDATES || self.remotes.contains(&address) {
            return Ok(());
        }
        self.agent
            .add_remote_candidate(candidate)
            .map_err(|_| LinkError::BadCandidate(address.to_string()))?;
        self.remotes.push(address);
        Ok(())
    }

    pub(crate) fn remotes(&self) -> &[SocketAddr] {
        &self.remotes
    }

    pub(crate) fn start(&mut self, ufrag: &str, pwd: &str, now: Instant) -> Result<(), LinkError> {
        self.agent
            .start_connectivity_checks(now, self.controlling, ufrag.to_owned(), pwd.to_owned())
            .map_err(|_| LinkError::BadDescription("ICE credentials are missing"))?;
        self.handle_timeout(now);
        Ok(())
    }

    pub(crate) fn handle_stun(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
        now: Instant,
    ) {
        let succeeded = payload.starts_with(&BINDING_SUCCESS);
        let nomination = !self.controlling && !self.connected && is_nomination(&payload);
        let kept = nomination.then(|| payload.clone());
        self.read(local, remote, payload, now);
        if self.connected || self.agent.get_selected_candidate_pair().is_some() {
            self.nomination = None;
        } else if let Some(payload) = kept {
            // The pair is nominated once our own check on it succeeds (RFC 8445 section 7.3.1.5); the agent forgets
            // that it was asked to.
            self.nomination = Some((local, remote, payload));
        } else if succeeded && self.controlling {
            // A check succeeded: nominate now, not when the check interval comes round.
            let _ = self.agent.handle_timeout(now + CHECK_INTERVAL);
        } else if succeeded && let Some((local, remote, payload)) = self.nomination.take() {
            self.read(local, remote, payload, now);
        }
    }

    fn read(&mut self, local: SocketAddr, remote: SocketAddr, payload: BytesMut, now: Instant) {
        let message = TransportMessage {
            now,
            transport: context(local, remote),
            message: payload,
        };
        // What does not fit this session (stray, forged, late) is dropped by the agent; nothing is to be done.
        let _ = self.agent.handle_read(message);
    }

    /// Whether a datagram that is not STUN came over a path that passed a check; it then counts as a sign of life.
    pub(crate) fn accepts(&mut self, local: SocketAddr, remote: SocketAddr, now: Instant) -> bool {
        if let Some((seen_local, seen_remote, at)) = self.seen
            && (seen_local, seen_remote) == (local, remote)
            && now.saturating_duration_since(at) < CHECK_INTERVAL
        {
            return true;
        }
        let valid = self
            .agent
            .is_valid_non_stun_traffic(now, context(local, remote));
        if valid {
            self.seen = Some((local, remote, now));
        }
        valid
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let _ = self.agent.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.agent.poll_timeout()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        let message = self.agent.poll_write()?;
        Some(Transmit::one(
            message.transport.local_addr,
            message.transport.peer_addr,
            message.message,
        ))
    }

    pub(crate) fn poll_event(&mut self) -> Option<IceEvent> {
        loop {
            match self.agent.poll_event()?.event {
                Event::SelectedCandidatePairChange(local, remote) => {
                    self.connected = true;
                    let relayed = local.candidate_type() == CandidateType::Relay
                        || remote.candidate_type() == CandidateType::Relay;
                    let path = if relayed {
                        Path::RelayUdp
                    } else {
                        Path::Direct
                    };
                    return Some(IceEvent::Selected {
                        local: local.addr(),
                        remote: remote.addr(),
                        path,
                    });
                }
                Event::ConnectionStateChange(ConnectionState::Failed) => {
                    return Some(IceEvent::Failed);
                }
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Ice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ice")
            .field("locals", &self.locals)
            .field("remotes", &self.remotes)
            .finish()
    }
}

/// Whether a message is a Binding request with USE-CANDIDATE.
fn is_nomination(message: &[u8]) -> bool {
    message.starts_with(&BINDING_REQUEST)
        && attributes(message).any(|(kind, _)| kind == USE_CANDIDATE)
}

fn context(local: SocketAddr, remote: SocketAddr) -> TransportContext {
    TransportContext {
        local_addr: local,
        peer_addr: remote,
        transport_protocol: TransportProtocol::UDP,
        ecn: None,
    }
}
