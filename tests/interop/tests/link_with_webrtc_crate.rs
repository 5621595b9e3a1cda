//! A link between a peer connection of the `webrtc` crate and our activator.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use interop::echo::Echo;
use interop::workload::{self, HOST_ADDRESS, Workload};
use interop::{control, sdp};
use lab::Lab;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use turnpike_interop as interop;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCSessionDescription,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at what was lost.
const TICK: Duration = Duration::from_millis(100);
const MOVED_WITHIN: Duration = Duration::from_secs(50);

struct Gathering(Notify);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Gathering {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.0.notify_one();
        }
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.with_context(|| format!("waited in vain for {what}"))
}

async fn opened(channel: &dyn DataChannel) -> Result<()> {
    match soon("a channel to open", channel.poll()).await? {
        Some(DataChannelEvent::OnOpen) => Ok(()),
        other => bail!("the channel did not open: {other:?}"),
    }
}

async fn message(channel: &dyn DataChannel) -> Result<BytesMut> {
    loop {
        match channel.poll().await {
            Some(DataChannelEvent::OnMessage(message)) => return Ok(message.data),
            None | Some(DataChannelEvent::OnClose | DataChannelEvent::OnError) => {
                bail!("the channel is closed")
            }
            Some(_) => {}
        }
    }
}

/// The `control` channel, waited for.
struct Control {
    channel: Arc<dyn DataChannel>,
    runtime: Handle,
}

impl control::Peer for Control {
    fn say(&mut self, message: Vec<u8>) -> Result<()> {
        let sent = self.channel.send(BytesMut::from(&message[..]));
        Ok(self.runtime.block_on(sent)?)
    }

    fn hear(&mut self) -> Result<Vec<u8>> {
        let heard = soon("a word", message(&*self.channel));
        Ok(self.runtime.block_on(heard)??.to_vec())
    }
}

async fn channel(
    connection: &impl PeerConnection,
    label: &str,
    (ordered, max_retransmits): (bool, Option<u16>),
) -> Result<Arc<dyn DataChannel>> {
    let init = RTCDataChannelInit {
        ordered,
        max_retransmits,
        protocol: "turnpike".to_owned(),
        ..RTCDataChannelInit::default()
    };
    Ok(connection.create_data_channel(label, Some(init)).await?)
}

async fn echo(ip: &dyn DataChannel) -> Result<Echo> {
    let mut echo = Echo::default();
    let deadline = Instant::now() + MOVED_WITHIN;
    while !echo.is_done() {
        ensure!(Instant::now() < deadline, "{} came back", echo.returned());
        while let Some(frame) = echo.frame(Instant::now()) {
            ip.send(BytesMut::from(&frame[..])).await?;
        }
        if let Ok(message) = tokio::time::timeout(TICK, message(ip)).await {
            echo.handle_frame(&message?)?;
        }
    }
    Ok(echo)
}

fn moves_100_megabytes(lab: &Lab) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut workload = runtime.block_on(Workload::enroll(lab))?;
    let gathering = Arc::new(Gathering(Notify::new()));
    let address = SocketAddr::new(IpAddr::from(HOST_ADDRESS), 0);
    let (connection, control, ip) = runtime.block_on(async {
        let building = PeerConnectionBuilder::new()
            .with_handler(gathering.clone())
            .with_udp_addrs(vec![address])
            .build();
        let connection = Box::pin(building).await?;
        let control = channel(&connection, "control", (true, None)).await?;
        let ip = channel(&connection, "ip", (false, Some(0))).await?;
        let offer = connection.create_offer(None).await?;
        connection.set_local_description(offer).await?;
        soon("the candidates", gathering.0.notified()).await?;
        let offer = connection.local_description().await.context("an offer")?;
        let answer = workload.offer(sdp::description_of(&offer.sdp)?).await?;
        let answer = RTCSessionDescription::answer(sdp::answer(&offer.sdp, &answer)?)?;
        connection.set_remote_description(answer).await?;
        opened(&*control).await?;
        opened(&*ip).await?;
        anyhow::Ok((connection, control, ip))
    })?;
    control::converse(&mut Control {
        channel: control,
        runtime: runtime.handle().clone(),
    })?;

    let begin = Instant::now();
    let echo = runtime.block_on(echo(&*ip))?;
    println!(
        "100 MB there and back in {:.1} s, {} datagrams sent again",
        begin.elapsed().as_secs_f64(),
        echo.repeated
    );
    workload::check_counts(lab)?;
    runtime.block_on(connection.close())?;
    Ok(())
}

#[test]
fn the_webrtc_crate_opens_a_link_and_moves_100_megabytes_there_and_back() {
    workload::in_its_place("interoprs", moves_100_megabytes);
}
