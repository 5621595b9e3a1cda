//! DTLS between exactly the two certificates that were signed: a thin face over `rtc-dtls`.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;
use zeroize::Zeroizing;

use crate::certificate::{DtlsCertificate, fingerprint, hex};
use crate::config::{DTLS_FLIGHT_INTERVAL, LinkRole};
use crate::lane::{EXPORTER_LABEL, SECRET_LEN};
use crate::output::{CloseReason, LinkError};

/// The path may change under a session, so the session itself knows its peer by this stand-in.
pub(crate) const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), 1);

/// Longer than any handshake may take.
const NEVER: Duration = Duration::from_secs(3_600);

/// What every browser offers (RFC 8827 section 6.5), whether or not there will be media. An answerer that knows none of
/// them would be refusing the handshake, instead of leaving the extension out (RFC 5764 section 4.1.1): one is agreed on
/// and never used.
const SRTP_PROFILES: [SrtpProtectionProfile; 2] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];

pub(crate) enum DtlsEvent {
    Connected,
    Data(BytesMut),
    PeerClosed,
}

pub(crate) struct Dtls {
    endpoint: Endpoint,
    config: Arc<HandshakeConfig>,
    role: LinkRole,
    started: bool,
    /// What the last datagram led to, repeated as it is until it is answered: the endpoint's own repetition ends for
    /// good as soon as a part of a flight, or a repeated one, comes in.
    flight: Vec<BytesMut>,
    repeat_at: Option<Instant>,
    repeats: u32,
    /// The handshake is over at both ends: nothing has to be repeated any more.
    answered: bool,
    outgoing: VecDeque<BytesMut>,
    expected: [u8; 32],
    seen: Arc<OnceLock<[u8; 32]>>,
    /// Datagrams that were no valid DTLS of this session.
    pub(crate) dropped: u64,
    /// The last complaint, for when the handshake does not end.
    pub(crate) last_error: Option<String>,
}

impl Dtls {
    pub(crate) fn new(
        role: LinkRole,
        certificate: &DtlsCertificate,
        expected: [u8; 32],
    ) -> Result<Self, LinkError> {
        let seen = Arc::new(OnceLock::new());
        let (record, provider) = (seen.clone(), certificate.provider.clone());
        let profiles: &[_] = match role {
            LinkRole::Offerer => &[],
            LinkRole::Answerer => &SRTP_PROFILES,
        };
        let config = ConfigBuilder::default()
            .with_crypto_provider(certificate.provider.clone())
            .with_certificates(vec![certificate.certificate.clone()])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_srtp_protection_profiles(profiles.to_vec())
            // Flights are repeated here, see `flight`.
            .with_flight_interval(NEVER)
            // No CA vouches for these certificates: the signed fingerprint does, right below.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(move |raw, _| {
                let der = raw.first().ok_or(Error::ErrClientCertificateRequired)?;
                let found =
                    fingerprint(&provider, der).map_err(|error| Error::Other(error.to_string()))?;
                let _ = record.set(found);
                if found == expected {
                    Ok(())
                } else {
                    Err(Error::ErrClientCertificateNotVerified)
                }
            })))
            .build(role == LinkRole::Offerer, None)
            .map_err(|error| LinkError::Setup(error.to_string()))?;
        let config = Arc::new(config);
        let server = (role == LinkRole::Answerer).then(|| config.clone());
        let endpoint = Endpoint::new(PEER, TransportProtocol::UDP, server);
        Ok(Self {
            endpoint,
            config,
            role,
            started: false,
            flight: Vec::new(),
            repeat_at: None,
            repeats: 0,
            answered: false,
            outgoing: VecDeque::new(),
            expected,
            seen,
            dropped: 0,
            last_error: None,
        })
    }

    /// Called when a path is there: the client says hello.
    pub(crate) fn start(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.started || self.role == LinkRole::Answerer {
            return Ok(());
        }
        self.started = true;
        self.endpoint
            .connect(now, PEER, self.config.clone(), None)
            .map_err(|error| self.failure(&error))?;
        self.take_flight(now);
        Ok(())
    }

    pub(crate) fn handle_datagram(
        &mut self,
        payload: BytesMut,
        now: Instant,
        mut on_event: impl FnMut(DtlsEvent),
    ) -> Result<(), CloseReason> {
        let events = match self.endpoint.read(now, PEER, None, payload) {
            Ok(events) => events,
            // Anybody on the path can send nonsense or forge an alert: only the wrong certificate ends the link.
            Err(error) => {
                self.dropped += 1;
                self.last_error = Some(error.to_string());
                return match self.seen.get() {
                    Some(seen) if seen != &self.expected => Err(self.mismatch()),
                    _ => Ok(()),
                };
            }
        };
        self.take_flight(now);
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    // The server's last flight is answered by the first data.
                    self.answered |= self.role == LinkRole::Offerer;
                    // The callback above ran, or the handshake could not have completed; asked again all the same.
                    if self.seen.get() != Some(&self.expected) {
                        return Err(self.mismatch());
                    }
                    on_event(DtlsEvent::Connected);
                }
                EndpointEvent::ApplicationData(data) => {
                    self.answered = true;
                    on_event(DtlsEvent::Data(data));
                }
                EndpointEvent::PeerClosed => on_event(DtlsEvent::PeerClosed),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, data: &[u8], now: Instant) -> Result<(), CloseReason> {
        self.endpoint
            .write(now, PEER, data)
            .map_err(|error| self.failure(&error))
    }

    /// Sends the last flight again when it was not answered in time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.outgoing.extend(self.flight.iter().cloned());
            self.repeats += 1;
            self.repeat_at = Some(now + DTLS_FLIGHT_INTERVAL * (1 << self.repeats.min(2)));
        }
    }

    /// The path is another: what may have been lost on the old one goes out again.
    pub(crate) fn on_path(&mut self, now: Instant) {
        if self.repeat_at.is_some() && !self.answered {
            self.repeat_at = Some(now);
            self.handle_timeout(now);
        }
    }

    /// What both ends of this session know and nobody else: the root of the lane's keys.
    /// [RFC 5705](https://www.rfc-editor.org/rfc/rfc5705)
    pub(crate) fn export(&self) -> Option<Zeroizing<[u8; SECRET_LEN]>> {
        let exported = self
            .endpoint
            .get_connection_state(PEER)?
            .export_keying_material(EXPORTER_LABEL, &[], SECRET_LEN)
            .ok()?;
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        secret.copy_from_slice(exported.as_ref().get(..SECRET_LEN)?);
        Some(secret)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.repeat_at.filter(|_| !self.answered)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.outgoing
            .pop_front()
            .or_else(|| self.endpoint.poll_transmit().map(|message| message.message))
    }

    /// Takes what the endpoint wants sent, and keeps it to be repeated.
    fn take_flight(&mut self, now: Instant) {
        let flight: Vec<BytesMut> =
            std::iter::from_fn(|| self.endpoint.poll_transmit().map(|message| message.message))
                .collect();
        if flight.is_empty() {
            return;
        }
        self.outgoing.extend(flight.iter().cloned());
        if !self.answered {
            self.flight = flight;
            self.repeats = 0;
            self.repeat_at = Some(now + DTLS_FLIGHT_INTERVAL);
        }
    }

    pub(crate) fn close(&mut self, now: Instant) {
        let _ = self.endpoint.close(now);
    }

    /// A fingerprint that differs, when that is what an error comes from.
    fn failure(&self, error: &Error) -> CloseReason {
        match self.seen.get() {
            Some(seen) if seen != &self.expected => self.mismatch(),
            _ => CloseReason::DtlsFailed(error.to_string()),
        }
    }

    fn mismatch(&self) -> CloseReason {
        CloseReason::FingerprintMismatch {
            expected: hex(&self.expected),
            seen: self
                .seen
                .get()
                .map_or_else(|| "none".to_owned(), |seen| hex(seen)),
        }
    }
}

impl fmt::Debug for Dtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls")
            .field("role", &self.role)
            .field("started", &self.started)
            .finish()
    }
}
