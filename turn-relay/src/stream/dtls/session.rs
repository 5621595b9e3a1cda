//! One DTLS session, without socket: datagrams in, datagrams out. It begins where the stateless cookie ends.

use super::hello::{COOKIE, Hello};
use dimpl::crypto::aws_lc_rs::default_provider;
use dimpl::crypto::{CryptoProvider, HashAlgorithm, HmacProvider};
use dimpl::{Config, CryptoError, Dtls, DtlsCertificate, Error, Output, SecurityError};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

thread_local! {
    /// The cookie of the hello that a session is begun with.
    static SHOWN: Cell<Option<[u8; COOKIE]>> = const { Cell::new(None) };
}

/// A session makes its cookies by this, and by nothing else. It has to accept the one that the client was sent before there
/// was a session, and which was checked.
struct StatelessCookies(&'static dyn HmacProvider);

impl std::fmt::Debug for StatelessCookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatelessCookies")
    }
}

impl HmacProvider for StatelessCookies {
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; 32], CryptoError> {
        match SHOWN.get() {
            Some(cookie) => Ok(cookie),
            None => self.0.hmac_sha256(key, data),
        }
    }

    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        self.0.hmac(hash, key, data, out)
    }
}

/// For all sessions.
///
/// # Errors
/// When the cryptography does not pass its own tests.
pub(super) fn config(handshake: Duration) -> Result<Arc<Config>, Error> {
    static COOKIES: std::sync::OnceLock<StatelessCookies> = std::sync::OnceLock::new();
    let provider = default_provider();
    let cookies = COOKIES.get_or_init(|| StatelessCookies(provider.hmac_provider));
    let provider = CryptoProvider {
        hmac_provider: cookies,
        ..provider
    };
    let config = Config::builder()
        .with_crypto_provider(provider)
        .require_client_certificate(false)
        .use_server_cookie(true)
        .handshake_timeout(handshake)
        .build()?;
    Ok(Arc::new(config))
}

/// What a session has to say.
#[derive(Debug)]
pub(super) enum Event<'b> {
    Send(&'b [u8]),
    Data(&'b [u8]),
    Closed,
}

/// Whether the client has said that it is over.
pub(super) fn is_alert(error: &Error) -> bool {
    matches!(
        error,
        Error::SecurityError(SecurityError::FatalAlert { .. })
    )
}

pub(super) struct Session {
    dtls: Dtls,
    pub(super) is_established: bool,
    /// When [`Session::handle_timeout`] is due.
    pub(super) timeout: Option<Instant>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("is_established", &self.is_established)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Goes on from a hello whose cookie is right. The first hello, which this server has answered without keeping it, is
    /// said again here, so that the sequence numbers are where the client has them.
    ///
    /// # Errors
    /// When there is no session to be had: no common cipher suite, for one.
    pub(super) fn begin(
        config: Arc<Config>,
        certificate: DtlsCertificate,
        hello: &Hello<'_>,
        now: Instant,
        scratch: &mut Vec<u8>,
        on_event: impl FnMut(Event<'_>),
    ) -> Result<Self, Error> {
        let mut session = Self {
            dtls: Dtls::new_12(config, certificate, now),
            is_established: false,
            timeout: None,
        };
        session.dtls.handle_timeout(now)?;
        SHOWN.set(hello.cookie.try_into().ok());
        let first = session.dtls.handle_packet(&hello.without_cookie());
        // Its HelloVerifyRequest is what the client has answered.
        session.drain(scratch, |_| {});
        let second = first.and_then(|()| session.dtls.handle_packet(hello.datagram()));
        SHOWN.set(None);
        session.drain(scratch, on_event);
        second.map(|()| session)
    }

    pub(super) fn handle_datagram(
        &mut self,
        datagram: &[u8],
        now: Instant,
        scratch: &mut Vec<u8>,
        on_event: impl FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let timed = self.dtls.handle_timeout(now);
        let result = self.dtls.handle_packet(datagram);
        self.drain(scratch, on_event);
        timed.and(result)
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        scratch: &mut Vec<u8>,
        on_event: impl FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let result = self.dtls.handle_timeout(now);
        self.drain(scratch, on_event);
        result
    }

    /// One message, in one record and datagram.
    pub(super) fn send(
        &mut self,
        message: &[u8],
        scratch: &mut Vec<u8>,
        on_event: impl FnMut(Event<'_>),
    ) -> Result<(), Error> {
        if !self.is_established {
            // The library would keep it until then.
            return Err(Error::ConnectionClosed);
        }
        let result = self.dtls.send_application_data(message);
        self.drain(scratch, on_event);
        result.map(drop)
    }

    /// Tells the client that nothing more comes.
    pub(super) fn close(&mut self, scratch: &mut Vec<u8>, on_event: impl FnMut(Event<'_>)) {
        // It may be closed already.
        let _ = self.dtls.close();
        self.drain(scratch, on_event);
    }

    fn drain(&mut self, buffer: &mut Vec<u8>, mut on_event: impl FnMut(Event<'_>)) {
        loop {
            match self.dtls.poll_output(buffer) {
                Output::Packet(datagram) => on_event(Event::Send(datagram)),
                Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                Output::Connected => self.is_established = true,
                Output::ApplicationData(data) => on_event(Event::Data(data)),
                Output::CloseNotify => on_event(Event::Closed),
                Output::Timeout(at) => {
                    self.timeout = Some(at);
                    return;
                }
                _ => {}
            }
        }
    }
}
