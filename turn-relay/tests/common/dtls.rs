//! A client over DTLS 1.2, of few lines, on a blocking socket.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use crate::common::DEADLINE;
use dimpl::{Config, Dtls, Output};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MOMENT: Duration = Duration::from_millis(20);

/// Each write is a message, and each read.
pub struct DtlsClient {
    pub socket: UdpSocket,
    dtls: Dtls,
    is_connected: bool,
    pub is_closed: bool,
    messages: VecDeque<Vec<u8>>,
    /// What the server showed.
    pub certificate: Vec<u8>,
    /// Datagrams that were sent.
    pub sent: Vec<Vec<u8>>,
    /// Datagrams to lose, of those that arrive, by number.
    pub lose: Vec<usize>,
    arrived: usize,
}

impl DtlsClient {
    /// Has not sent its hello yet.
    pub fn new(socket: UdpSocket, server: SocketAddr) -> Self {
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(MOMENT)).unwrap();
        let config = Config::builder()
            .require_client_certificate(false)
            .build()
            .unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["client.example".into()]).unwrap();
        let certificate = dimpl::DtlsCertificate {
            certificate: made.cert.der().to_vec(),
            private_key: made.signing_key.serialize_der(),
        };
        let mut dtls = Dtls::new_12(Arc::new(config), certificate, Instant::now());
        dtls.set_active(true);
        Self {
            socket,
            dtls,
            is_connected: false,
            is_closed: false,
            messages: VecDeque::new(),
            certificate: Vec::new(),
            sent: Vec::new(),
            lose: Vec::new(),
            arrived: 0,
        }
    }

    /// With its handshake done.
    pub fn connect(server: SocketAddr) -> Self {
        let mut client = Self::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
        client.shake_hands();
        client
    }

    pub fn shake_hands(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.is_connected {
            assert!(Instant::now() < deadline, "no handshake in time");
            self.step();
        }
    }

    /// Handles what is due, and one datagram.
    pub fn step(&mut self) {
        self.dtls.handle_timeout(Instant::now()).unwrap();
        self.drain();
        let mut buffer = vec![0; 65_536];
        let Ok(length) = self.socket.recv(&mut buffer) else {
            return;
        };
        self.arrived += 1;
        if !self.lose.contains(&(self.arrived - 1)) {
            self.dtls.handle_packet(&buffer[..length]).unwrap();
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; 65_536];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => {
                    self.sent.push(datagram.to_vec());
                    let _ = self.socket.send(datagram);
                }
                Output::Connected => self.is_connected = true,
                Output::PeerCert(der) => self.certificate = der.to_vec(),
                Output::ApplicationData(message) => self.messages.push_back(message.to_vec()),
                Output::CloseNotify => self.is_closed = true,
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }

    pub fn message(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(message) = self.messages.pop_front() {
                return message;
            }
            assert!(Instant::now() < deadline, "no message in time");
            self.step();
        }
    }

    pub fn close(&mut self) {
        self.dtls.close().unwrap();
        self.drain();
    }
}

impl Read for DtlsClient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let message = self.message();
        buffer[..message.len()].copy_from_slice(&message);
        Ok(message.len())
    }
}

impl Write for DtlsClient {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.dtls.handle_timeout(Instant::now()).unwrap();
        self.dtls.send_application_data(message).unwrap();
        self.drain();
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
