//! One TLS session: records in, records out, no socket.

use super::queue::Queue;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Encrypted bytes that may be incomplete: a record of TLS is at most 18 KiB, a ClientHello some KiB in records.
const MAX_TAIL: usize = 48 << 10;
/// What a record of TLS takes beyond its content, at most (RFC 8446 section 5.2).
const RECORD_OVERHEAD: usize = 5 + 256;
/// What a session that failed may still want to send: a flight, and an alert.
const LAST_WORDS: usize = 8;
/// Content of one record.
const RECORD: usize = 16 << 10;

/// Why a session is over.
#[derive(Debug)]
pub(super) enum TlsError {
    Rustls(rustls::Error),
    /// More than any record or handshake takes.
    TooLong,
    /// The keys have encrypted all that they may.
    Exhausted,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustls(error) => error.fmt(f),
            Self::TooLong => f.write_str("a record or handshake is too long"),
            Self::Exhausted => f.write_str("the keys are worn out"),
        }
    }
}

/// The server's side of a session.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
    /// What was received and is no whole record.
    tail: Vec<u8>,
    /// What is to be sent next, encrypted.
    pub(super) wire: Queue,
    is_established: bool,
    /// Until it was asked for.
    asked: Option<Arc<Asked>>,
}

/// Gives the certificate, and keeps the name that the client asked for (RFC 6066 section 3): the library tells it in no
/// other way.
#[derive(Debug)]
struct Asked {
    certificate: Arc<dyn ResolvesServerCert>,
    name: OnceLock<Box<str>>,
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            // A client that has to say hello twice asks for the same.
            let _ = self.name.set(name.into());
        }
        self.certificate.resolve(hello)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("is_established", &self.is_established)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(config: &ServerConfig) -> Result<Self, rustls::Error> {
        let asked = Arc::new(Asked {
            certificate: config.cert_resolver.clone(),
            name: OnceLock::new(),
        });
        // All in it is shared, but for what is added here.
        let mut config = config.clone();
        config.cert_resolver = asked.clone();
        Ok(Self {
            asked: Some(asked),
            connection: UnbufferedServerConnection::new(Arc::new(config))?,
            tail: Vec::new(),
            wire: Queue::default(),
            is_established: false,
        })
    }

    /// Whether the handshake is complete.
    pub(super) fn is_established(&self) -> bool {
        self.is_established
    }

    /// The name that the client asked for in the handshake, if there is one: once, when it is complete.
    pub(super) fn take_server_name(&mut self) -> Option<Box<str>> {
        if !self.is_established {
            return None;
        }
        self.asked.take()?.name.get().cloned()
    }

    /// Bytes to put before what is received next, for [`Session::decrypt`].
    pub(super) fn take_tail(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail)
    }

    /// Reads records. Their content is appended to `plain`; what there is to answer, to the wire.
    ///
    /// # Errors
    /// When the session is over. An alert may be on the wire then.
    pub(super) fn decrypt(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Ended, TlsError> {
        let mut at = 0;
        let result = loop {
            match self.step(&mut received[at..], plain) {
                (discard, Ok(None)) => at += discard,
                (discard, Ok(Some(ended))) => {
                    at += discard;
                    break Ok(ended);
                }
                (discard, Err(error)) => {
                    at += discard;
                    break Err(error);
                }
            }
        };
        if result.is_err() {
            // The alert that says why, after what else it had to say; beyond it would be another error. The bytes have to
            // be those that it knows.
            for _ in 0..LAST_WORDS {
                let said = self.wire.len();
                let rest = received.get_mut(at..).unwrap_or_default();
                let more = matches!(self.step(rest, plain), (0, Ok(None)));
                if !more || is_alert(&self.wire.as_slice()[said..]) {
                    break;
                }
            }
            return result;
        }
        let rest = received.get(at..).unwrap_or_default();
        if rest.len() > MAX_TAIL {
            return Err(TlsError::TooLong);
        }
        self.tail.extend_from_slice(rest);
        result
    }

    /// Handles one state of the session: how much of `received` is done with, and whether nothing more can be done.
    fn step(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> (usize, Result<Option<Ended>, TlsError>) {
        let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(received);
        let result = match state {
            Err(error) => Err(TlsError::Rustls(error)),
            Ok(ConnectionState::ReadTraffic(mut records)) => loop {
                match records.next_record() {
                    Some(Ok(record)) => {
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    Some(Err(error)) => break Err(TlsError::Rustls(error)),
                    None => break Ok(None),
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let wire = &mut self.wire;
                encode(wire, |buffer| match data.encode(buffer) {
                    Err(EncodeError::InsufficientSize(error)) => Err(error),
                    // There is nothing of it, then.
                    Err(EncodeError::AlreadyEncoded) => Ok(0),
                    Ok(written) => Ok(written),
                });
                Ok(None)
            }
            // It is on the wire: as good as transmitted.
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(None)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Some(Ended(false))),
            Ok(ConnectionState::WriteTraffic(_)) => {
                self.is_established = true;
                Ok(Some(Ended(false)))
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Some(Ended(true))),
            // Early data is not accepted, and nothing else is known.
            Ok(_) => Err(TlsError::TooLong),
        };
        (discard, result)
    }

    /// Encrypts, onto the wire: each of the messages in records of its own, as few as possible.
    ///
    /// # Errors
    /// When the session is over.
    pub(super) fn encrypt<'m>(
        &mut self,
        messages: impl Iterator<Item = &'m [u8]>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let mut nothing = Vec::new();
        // What it has to say itself comes first.
        self.settle(&mut nothing)?;
        let status = self.connection.process_tls_records(&mut self.tail);
        let mut traffic = match status.state {
            Ok(ConnectionState::WriteTraffic(traffic)) => traffic,
            Ok(_) => return Err(TlsError::Exhausted),
            Err(error) => return Err(TlsError::Rustls(error)),
        };
        for message in messages {
            let room = message.len() + (message.len() / RECORD + 1) * RECORD_OVERHEAD;
            if scratch.len() < room {
                scratch.resize(room, 0);
            }
            let written = loop {
                match traffic.encrypt(message, scratch) {
                    Ok(written) => break written,
                    Err(EncryptError::EncryptExhausted) => return Err(TlsError::Exhausted),
                    // It had something to say before that.
                    Err(EncryptError::InsufficientSize(error)) => {
                        scratch.resize(error.required_size, 0);
                    }
                }
            };
            self.wire.push(&scratch[..written]);
        }
        let discard = status.discard;
        self.tail.drain(..discard);
        Ok(())
    }

    /// Puts on the wire that nothing more will be sent (RFC 8446 section 6.1).
    ///
    /// # Errors
    /// When the session is over.
    pub(super) fn close_notify(&mut self) -> Result<(), TlsError> {
        let mut nothing = Vec::new();
        self.settle(&mut nothing)?;
        let status = self.connection.process_tls_records(&mut self.tail);
        let mut traffic = match status.state {
            Ok(ConnectionState::WriteTraffic(traffic)) => traffic,
            Ok(_) => return Err(TlsError::Exhausted),
            Err(error) => return Err(TlsError::Rustls(error)),
        };
        let mut alert = [0; RECORD_OVERHEAD];
        let written = traffic
            .queue_close_notify(&mut alert)
            .map_err(|_| TlsError::Exhausted)?;
        self.wire.push(&alert[..written]);
        let discard = status.discard;
        self.tail.drain(..discard);
        Ok(())
    }

    /// Puts on the wire what the session has to say of itself.
    fn settle(&mut self, plain: &mut Vec<u8>) -> Result<(), TlsError> {
        // It may remember how far it has read: it has to be given the same bytes again.
        let mut tail = self.take_tail();
        let result = self.decrypt(&mut tail, plain);
        match result {
            Ok(Ended(false)) => Ok(()),
            Ok(Ended(true)) => Err(TlsError::Exhausted),
            Err(error) => Err(error),
        }
    }
}

/// Whether a record is an alert, encrypted or not (RFC 8446 sections 5.1 and 6): nothing else is encrypted so short.
fn is_alert(record: &[u8]) -> bool {
    match record.first() {
        Some(21) => true,
        Some(23) => record.len() <= 5 + 3 + 16,
        _ => false,
    }
}

/// Whether the client has closed the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended(pub(super) bool);

/// Lets something be written to the wire that says how much room it needs.
fn encode(
    wire: &mut Queue,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, InsufficientSizeError>,
) {
    let mut buffer = Vec::new();
    loop {
        match write(&mut buffer) {
            Ok(written) => {
                wire.push(&buffer[..written]);
                return;
            }
            Err(error) => buffer.resize(error.required_size, 0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
    use std::io::{Read, Write};

    fn pair(
        version: &'static SupportedProtocolVersion,
        alpn: &[u8],
    ) -> (ClientConnection, Session) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let made = rcgen::generate_simple_self_signed(vec!["relay.example".into()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        server.alpn_protocols = vec![b"stun.turn".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("relay.example").unwrap();
        (
            ClientConnection::new(Arc::new(client), name).unwrap(),
            Session::new(&server).unwrap(),
        )
    }

    /// What the client has to say, in pieces of this size; the content of it.
    fn to_server(
        client: &mut ClientConnection,
        server: &mut Session,
        piece: usize,
    ) -> Result<Vec<u8>, TlsError> {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut plain = Vec::new();
        for piece in wire.chunks(piece) {
            let mut received = server.take_tail();
            received.extend_from_slice(piece);
            server.decrypt(&mut received, &mut plain)?;
        }
        Ok(plain)
    }

    fn to_client(
        server: &mut Session,
        client: &mut ClientConnection,
    ) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        while !server.wire.is_empty() {
            let read = client.read_tls(&mut server.wire.as_slice()).unwrap();
            server.wire.consume(read);
            let state = client.process_new_packets()?;
            let mut some = vec![0; state.plaintext_bytes_to_read()];
            client.reader().read_exact(&mut some).unwrap();
            plain.extend(some);
        }
        Ok(plain)
    }

    fn established(
        version: &'static SupportedProtocolVersion,
        piece: usize,
    ) -> (ClientConnection, Session) {
        let (mut client, mut server) = pair(version, b"stun.turn");
        while client.is_handshaking() || !server.is_established() {
            to_server(&mut client, &mut server, piece).unwrap();
            to_client(&mut server, &mut client).unwrap();
        }
        (client, server)
    }

    #[test]
    fn content_arrives_however_the_records_are_cut() {
        for version in [&TLS12, &TLS13] {
            for piece in [1, 7, 1_000, 100_000] {
                let (mut client, mut server) = established(version, piece);
                let mut scratch = Vec::new();
                for size in [1, 1_000, 16_384, 16_385, 70_000] {
                    let content: Vec<u8> = (0..size).map(|at| (at * 7) as u8).collect();
                    server
                        .encrypt([&content[..]].into_iter(), &mut scratch)
                        .unwrap();
                    assert_eq!(to_client(&mut server, &mut client).unwrap(), content);
                    let mut arrived = Vec::new();
                    for some in content.chunks(10_000) {
                        client.writer().write_all(some).unwrap();
                        arrived.extend(to_server(&mut client, &mut server, piece).unwrap());
                    }
                    assert_eq!(arrived, content);
                }
            }
        }
    }

    #[test]
    fn an_update_of_keys_goes_before_what_is_encrypted_with_them() {
        let (mut client, mut server) = established(&TLS13, 100_000);
        let mut scratch = Vec::new();
        for round in 0..10 {
            client.refresh_traffic_keys().unwrap();
            client.writer().write_all(b"to the server").unwrap();
            // Sometimes the server encrypts while the client's update is there in part.
            let piece = if round % 2 == 0 { 100_000 } else { 3 };
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut plain = Vec::new();
            for some in wire.chunks(piece) {
                let mut received = server.take_tail();
                received.extend_from_slice(some);
                server.decrypt(&mut received, &mut plain).unwrap();
                server
                    .encrypt([&b"to the client"[..]].into_iter(), &mut scratch)
                    .unwrap();
                assert_eq!(
                    to_client(&mut server, &mut client).unwrap(),
                    b"to the client"
                );
            }
            assert_eq!(plain, b"to the server");
        }
    }

    #[test]
    fn whoever_is_refused_is_told_why() {
        let (mut client, mut server) = pair(&TLS13, b"http/1.1");
        to_server(&mut client, &mut server, 100_000).unwrap_err();
        let told = to_client(&mut server, &mut client).unwrap_err();
        let expected = rustls::AlertDescription::NoApplicationProtocol;
        assert_eq!(told, rustls::Error::AlertReceived(expected));
    }

    #[test]
    fn garbage_ends_a_session_and_a_record_that_never_ends_is_bounded() {
        let provider_free = || pair(&TLS13, b"stun.turn").1;
        let mut plain = Vec::new();
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0xFF; 5],
            &[22, 3, 1, 0xFF, 0xFF],
        ] {
            let mut server = provider_free();
            assert!(server.decrypt(&mut garbage.to_vec(), &mut plain).is_err());
        }
        // A handshake message of 16 MB in many records.
        let mut server = provider_free();
        let mut record = vec![22, 3, 1, 0x10, 0, 1, 0xFF, 0xFF, 0xFF];
        record.resize(5 + 0x1000, 0);
        let ended = (0..64).find(|_| {
            let mut received = server.take_tail();
            assert!(received.len() <= MAX_TAIL);
            received.extend_from_slice(&record);
            record[5..9].fill(0);
            server.decrypt(&mut received, &mut plain).is_err()
        });
        assert!(ended.is_some() && plain.is_empty());
    }
}
