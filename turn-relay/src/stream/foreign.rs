//! The sessions of DTLS without a socket, for `crate::foreign`.

use super::dtls::{DtlsSessions, DtlsSetup};
use super::{StreamKind, StreamLimits, StreamStats};
use crate::certificate::{Certificate, CertificateFiles};
use model::{ClientAddr, ServerAddr};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// A relay's end of all DTLS sessions at one address.
#[derive(Debug)]
pub struct DtlsEnd {
    sessions: DtlsSessions,
    stats: StreamStats,
    server: SocketAddr,
}

impl DtlsEnd {
    /// With the ECDSA certificate and key of two PEM files, and at most so many sessions at a time.
    ///
    /// # Errors
    /// One line: which file is wrong.
    pub fn new(
        [certificate, key]: [&Path; 2],
        server: SocketAddr,
        connections: usize,
        now: Instant,
    ) -> anyhow::Result<Self> {
        let limits = StreamLimits {
            connections,
            strangers: connections,
            strangers_of_prefix: connections,
            handshake: Duration::from_secs(10),
            stranger: Duration::from_secs(30),
            buffer: 1 << 16,
        };
        let certificate = Certificate::load(CertificateFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            for_dtls: true,
        })?;
        let setup = DtlsSetup {
            listeners: Vec::new(),
            certificate: Some(certificate),
            config: Some(DtlsSetup::config(&limits)?),
            cookie_key: [3; 32],
        };
        Ok(Self {
            sessions: DtlsSessions::new(setup, limits, now),
            stats: StreamStats::default(),
            server,
        })
    }

    /// What a datagram of a client leads to.
    pub fn handle_datagram(&mut self, now: Instant, client: SocketAddr, datagram: &[u8]) {
        let path = (ClientAddr(client), ServerAddr(self.server));
        let sessions = &mut self.sessions;
        sessions.handle_datagram(now, path, datagram, &mut self.stats);
        self.end_turn();
    }

    /// To be called when [`DtlsEnd::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sessions.handle_timeout(now);
        self.end_turn();
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sessions.poll_timeout()
    }

    fn end_turn(&mut self) {
        while self.sessions.poll_closed(&mut self.stats).is_some() {}
        self.sessions.room.end_turn();
    }

    /// Datagrams to clients since it was asked for the last time.
    pub fn poll_datagrams(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let datagrams = self.sessions.take_outgoing().into_iter();
        datagrams.map(|(path, d)| (path.client.0, d)).collect()
    }

    /// Messages of clients since it was asked for the last time.
    pub fn poll_messages(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let messages = self.sessions.take_messages();
        let each = messages.iter();
        each.map(|(path, m)| (path.client.0, m.to_vec())).collect()
    }

    /// Sessions now, and sessions that were ever begun.
    pub fn sessions(&self) -> (u64, u64) {
        let stats = self.stats.of(StreamKind::Dtls);
        (stats.connections, stats.accepted)
    }
}
