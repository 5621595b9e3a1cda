//! Two TURN clients of other projects: `turn` 0.17 of webrtc-rs, which shares no code with our relay, and
//! `turn-client-proto`, which knows SHA-256 and both families at once.

use anyhow::{Context as _, Result, ensure};
use interop::relay::{REALM, Relay, USER};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};
use turn::client::{Client, ClientConfig};
use turn_client_proto::api::{TurnClientApi, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;
use turnpike_interop as interop;
use webrtc_util::Conn;

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn turn_of_webrtc_rs_echoes_a_hundred_datagrams() -> Result<()> {
    let relay = Relay::start()?;
    let server = relay.listen[0].to_string();
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.clone(),
        turn_serv_addr: server,
        username: USER.0.into(),
        password: USER.1.into(),
        realm: REALM.into(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await?),
        vnet: None,
    })
    .await?;
    client.listen().await?;
    let allocation = client.allocate().await?;
    let relayed = allocation.local_addr()?;
    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    let address = peer.local_addr()?;
    let mut buffer = [0; 2_000];
    for number in 0..100u8 {
        let payload = vec![number; 1_000];
        allocation.send_to(&payload, address).await?;
        let arrived = tokio::time::timeout(DEADLINE, peer.recv_from(&mut buffer));
        let (length, from) = arrived.await.context("waiting for the peer")??;
        ensure!(from == relayed && buffer[..length] == payload);
        peer.send_to(&payload, relayed).await?;
        let arrived = tokio::time::timeout(DEADLINE, allocation.recv_from(&mut buffer));
        let (length, from) = arrived.await.context("waiting for the client")??;
        ensure!(from == address && buffer[..length] == payload);
    }
    relay.wait_for_relayed(100, 100_000)?;
    allocation.close().await?;
    client.close().await?;
    let ended = "allocations_ended_total{reason=\"deleted\"}";
    relay.wait_for(ended, |count| count == 1)
}

/// `turn-client-proto` over a blocking socket.
struct Driver {
    client: TurnClientUdp,
    socket: UdpSocket,
    started: Clock,
}

impl Driver {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.started.elapsed().as_nanos() as i64)
    }

    fn transmit(&mut self) -> Result<()> {
        while let Some(transmit) = self.client.poll_transmit(self.now()) {
            self.socket.send(transmit.data.as_ref())?;
        }
        Ok(())
    }

    /// One turn; the payload, if a peer's datagram arrived.
    fn turn(&mut self) -> Result<Option<Vec<u8>>> {
        if let TurnPollRet::Closed = self.client.poll(self.now()) {
            anyhow::bail!("the client gave up");
        }
        self.transmit()?;
        let mut buffer = vec![0; 2_000];
        let Ok(length) = self.socket.recv(&mut buffer) else {
            return Ok(None);
        };
        buffer.truncate(length);
        let (server, local) = (self.client.remote_addr(), self.client.local_addr());
        let received = Transmit::new(buffer, TransportType::Udp, server, local);
        let now = self.now();
        let payload = match self.client.recv(received, now) {
            TurnRecvRet::PeerData(data) => Some(data.data().to_vec()),
            _ => None,
        };
        self.transmit()?;
        Ok(payload)
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

fn driver(relay: &Relay, configure: impl FnOnce(&mut TurnConfig)) -> Result<Driver> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(relay.listen[0])?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut config = TurnConfig::new(TurnCredentials::new(USER.0, USER.1));
    configure(&mut config);
    Ok(Driver {
        client: TurnClientUdp::allocate(socket.local_addr()?, relay.listen[0], config),
        socket,
        started: Clock::now(),
    })
}

fn echo(driver: &mut Driver, peer: &UdpSocket, count: u8) -> Result<()> {
    let address = peer.local_addr()?;
    peer.set_read_timeout(Some(DEADLINE))?;
    for number in 0..count {
        let payload = vec![number; 1_000];
        let now = driver.now();
        let sent = driver
            .client
            .send_to(TransportType::Udp, address, &payload, now)?
            .context("something to send")?;
        driver.socket.send(&sent.build().data)?;
        let mut buffer = [0; 2_000];
        let (length, from) = peer.recv_from(&mut buffer)?;
        ensure!(buffer[..length] == payload);
        peer.send_to(&payload, from)?;
        let begin = Clock::now();
        let back = loop {
            if let Some(back) = driver.turn()? {
                break back;
            }
            ensure!(begin.elapsed() < DEADLINE, "waited in vain for the echo");
        };
        ensure!(back == payload);
    }
    Ok(())
}

#[test]
fn turn_client_proto_with_sha256_through_a_channel() -> Result<()> {
    let relay = Relay::start()?;
    let mut driver = driver(&relay, |config| {
        config.set_supported_integrity(IntegrityAlgorithm::Sha256);
    })?;
    let created = |event: &TurnEvent| matches!(event, TurnEvent::AllocationCreated(..));
    driver.until("the allocation", created)?;
    let peer = UdpSocket::bind("127.0.0.1:0")?;
    let now = driver.now();
    let address = peer.local_addr()?;
    driver
        .client
        .bind_channel(TransportType::Udp, address, now)?;
    let bound = |event: &TurnEvent| matches!(event, TurnEvent::ChannelCreated(..));
    driver.until("the channel", bound)?;
    echo(&mut driver, &peer, 50)?;
    relay.wait_for_relayed(50, 50_000)?;
    relay.wait_for("channels", |count| count == 1)
}

#[test]
fn turn_client_proto_with_both_families_and_indications() -> Result<()> {
    let relay = Relay::start()?;
    let mut driver = driver(&relay, |config| {
        config.add_address_family(AddressFamily::IPV6);
    })?;
    let mut created = 0;
    driver.until("both relayed addresses", |event| {
        created += u32::from(matches!(event, TurnEvent::AllocationCreated(..)));
        created == 2
    })?;
    relay.wait_for("allocations_created_total", |count| count == 1)?;
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let peer = UdpSocket::bind(ip)?;
        let now = driver.now();
        let address = peer.local_addr()?.ip();
        driver
            .client
            .create_permission(TransportType::Udp, address, now)?;
        let permitted = |event: &TurnEvent| matches!(event, TurnEvent::PermissionCreated(..));
        driver.until("the permission", permitted)?;
        echo(&mut driver, &peer, 20)?;
    }
    relay.wait_for_relayed(40, 40_000)
}
