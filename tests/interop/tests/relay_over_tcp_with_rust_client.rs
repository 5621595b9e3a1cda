//! `turn-client-proto` over TCP. It neither adds nor expects the padding of ChannelData that RFC 8656 section 12.5 demands,
//! so that all lengths here need none; `turn` 0.17 has no framing for streams at all.

use anyhow::{Context as _, Result, bail, ensure};
use interop::relay::{Relay, USER};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant as Clock};
use turn_client_proto::api::{TurnClientApi, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::{TransportType, TurnCredentials};
use turnpike_interop as interop;

const DEADLINE: Duration = Duration::from_secs(10);

struct Driver {
    client: TurnClientTcp,
    stream: TcpStream,
    local: SocketAddr,
    started: Clock,
}

impl Driver {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.started.elapsed().as_nanos() as i64)
    }

    fn transmit(&mut self) -> Result<()> {
        while let Some(transmit) = self.client.poll_transmit(self.now()) {
            self.stream.write_all(transmit.data.as_ref())?;
        }
        Ok(())
    }

    /// One turn; the payloads of peers that arrived.
    fn turn(&mut self) -> Result<Vec<Vec<u8>>> {
        if let TurnPollRet::Closed = self.client.poll(self.now()) {
            bail!("the client gave up");
        }
        self.transmit()?;
        let mut buffer = vec![0; 3_000];
        let Ok(length) = self.stream.read(&mut buffer) else {
            return Ok(Vec::new());
        };
        ensure!(length > 0, "the relay closed the connection");
        buffer.truncate(length);
        let server = self.client.remote_addr();
        let received = Transmit::new(buffer, TransportType::Tcp, server, self.local);
        let now = self.now();
        let mut payloads = Vec::new();
        if let TurnRecvRet::PeerData(data) = self.client.recv(received, now) {
            payloads.push(data.data().to_vec());
        }
        while let Some(data) = self.client.poll_recv(now) {
            payloads.push(data.data().to_vec());
        }
        self.transmit()?;
        Ok(payloads)
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&TurnEvent) -> bool) -> Result<()> {
        let begin = Clock::now();
        loop {
            while let Some(event) = self.client.poll_event() {
                if done(&event) {
                    return Ok(());
                }
            }
            ensure!(begin.elapsed() < DEADLINE, "waited in vain for {what}");
            self.turn()?;
        }
    }
}

#[test]
fn turn_client_proto_echoes_through_a_channel() -> Result<()> {
    let relay = Relay::start()?;
    let stream = TcpStream::connect(relay.tcp[0])?;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let config = TurnConfig::new(TurnCredentials::new(USER.0, USER.1));
    let mut driver = Driver {
        client: TurnClientTcp::allocate(local, relay.tcp[0], config),
        stream,
        local,
        started: Clock::now(),
    };
    let created = |event: &TurnEvent| matches!(event, TurnEvent::AllocationCreated(..));
    driver.until("the allocation", created)?;
    let peer = UdpSocket::bind("127.0.0.1:0")?;
    peer.set_read_timeout(Some(DEADLINE))?;
    let address = peer.local_addr()?;
    let now = driver.now();
    driver
        .client
        .bind_channel(TransportType::Udp, address, now)?;
    let bound = |event: &TurnEvent| matches!(event, TurnEvent::ChannelCreated(..));
    driver.until("the channel", bound)?;
    for number in 0..40u8 {
        let payload = vec![number; 1_000 + 4 * usize::from(number)];
        let now = driver.now();
        let sent = driver
            .client
            .send_to(TransportType::Udp, address, &payload, now)?
            .context("something to send")?;
        driver.stream.write_all(&sent.build().data)?;
        let mut buffer = [0; 2_000];
        let (length, from) = peer.recv_from(&mut buffer)?;
        ensure!(buffer[..length] == payload);
        // Twice, so that two frames come in one read.
        peer.send_to(&payload, from)?;
        peer.send_to(&payload, from)?;
        let begin = Clock::now();
        let mut back = Vec::new();
        while back.len() < 2 {
            back.extend(driver.turn()?);
            ensure!(begin.elapsed() < DEADLINE, "waited in vain for the echo");
        }
        ensure!(back == [payload.clone(), payload]);
    }
    let labels = "{transport=\"tcp\",direction=\"to_client\"}";
    relay.wait_for(&format!("client_packets_total{labels}"), |count| {
        count == 80
    })
}
