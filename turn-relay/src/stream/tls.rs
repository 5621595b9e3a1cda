//! One TLS session: records in, records out, no socket.

use super::queue::Queue;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use std::fmt;
use std::sync::Arc;

/// Encrypted bytes that may be incomplete: a record of TLS is at most 18 KiB, a ClientHello some KiB in records.
const MAX_TAIL: usize = 48 << 10;
/// What a record of TLS takes beyond its content, at most (RFC 8446 section 5.2).
const RECORD_OVERHEAD: usize = 5 + 256;
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
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("is_established", &self.is_established)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            tail: Vec::new(),
            wire: Queue::default(),
            is_established: false,
        })
    }

    /// Whether the handshake is complete.
    pub(super) fn is_established(&self) -> bool {
        self.is_established
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
                (_, Err(error)) => break Err(error),
            }
        };
        if result.is_err() {
            // The alert that says why. Another error cannot say more.
            let _ = self.step(&mut [], plain);
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

    /// Encrypts, onto the wire, in as few records as possible.
    ///
    /// # Errors
    /// When the session is over.
    pub(super) fn encrypt(&mut self, plain: &[u8], scratch: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut nothing = Vec::new();
        // What it has to say itself comes first.
        self.settle(&mut nothing)?;
        let room = plain.len() + (plain.len() / RECORD + 1) * RECORD_OVERHEAD;
        if scratch.len() < room {
            scratch.resize(room, 0);
        }
        let status = self.connection.process_tls_records(&mut self.tail);
        let (discard, written) = match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let written = traffic
                    .encrypt(plain, scratch)
                    .map_err(|error| match error {
                        EncryptError::InsufficientSize(_) => TlsError::TooLong,
                        EncryptError::EncryptExhausted => TlsError::Exhausted,
                    });
                (status.discard, written?)
            }
            Ok(_) => return Err(TlsError::Exhausted),
            Err(error) => return Err(TlsError::Rustls(error)),
        };
        self.tail.drain(..discard);
        // An update of the keys that encrypting led to: what was encrypted needs it, and it was encrypted with the old.
        self.settle(&mut nothing)?;
        self.wire.push(&scratch[..written]);
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
