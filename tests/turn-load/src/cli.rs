//! Flags.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::payload;

/// Load for a TURN server over UDP, with ChannelData: what arrives, how late, and what the server spends on it
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Packets through the relay, as many as it takes or at a rate; or past it, to know what the machine itself takes
    Load(Load),
    /// Allocations made and given back, as many as the relay takes
    Churn(Churn),
    /// Allocations that are held and not used: the memory of each
    Idle(Idle),
    /// Forward what `load --forwarder` sends, with GRO and GSO and without a protocol: the machine's limit
    Forward(Forward),
}

/// Whom to talk to, and as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Server {
    /// The TURN server (or the forwarder)
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) server: SocketAddr,
    /// Its user, with a long-term credential
    #[arg(long, default_value = "load")]
    pub(crate) user: String,
    /// The user's password
    #[arg(long, default_value = "load")]
    pub(crate) password: String,
    /// An address of this machine for the clients' sockets [default: what the system chooses]
    #[arg(long, value_name = "ADDR")]
    pub(crate) client: Option<IpAddr>,
}

/// What to observe, and where to run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Observation {
    /// The server's process, if it runs on this machine: its CPU time and memory are read from /proc
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Stay on this core
    #[arg(long, value_name = "CORE")]
    pub(crate) cpu: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The way of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// From the clients, in ChannelData, to the peers
    ClientToPeer,
    /// From the peers to the clients
    PeerToClient,
}

/// How packets are given to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sender {
    /// A burst is one buffer that the kernel cuts (`UDP_SEGMENT`)
    Gso,
    /// A burst is one `sendmmsg` of single packets
    Plain,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) server: Server,
    /// An address of this machine that the server reaches peers on [default: the address that this machine has towards
    /// the server]
    #[arg(long, value_name = "ADDR")]
    pub(crate) peer: Option<IpAddr>,
    /// Allocations, each with one peer of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) flows: u32,
    /// Bytes of each packet's payload
    #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u32).range(payload::MIN_LEN as i64..=9000))]
    pub(crate) size: u32,
    #[arg(long, value_enum, default_value_t = Direction::ClientToPeer)]
    pub(crate) direction: Direction,
    #[arg(long, value_enum, default_value_t = Sender::Gso)]
    pub(crate) sender: Sender,
    /// Packets of one flow that are sent in a row [default: what fits into 64 KB, at most 64, when there is one flow; 16
    /// when there are more]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) burst: Option<u32>,
    /// Packets per second, over all flows, evenly spaced bursts [default: as many as can be sent]
    #[arg(long, value_name = "PACKETS")]
    pub(crate) rate: Option<u64>,
    /// Seconds that are measured; at most 200, because allocations are not refreshed
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Seconds before that
    #[arg(long, default_value = "0.2", value_parser = seconds)]
    pub(crate) warmup: Duration,
    /// Say how long packets took, one way
    #[arg(long)]
    pub(crate) latency: bool,
    /// Hold so many further allocations, unused
    #[arg(long, default_value_t = 0)]
    pub(crate) idle: u32,
    /// Send so many Allocate requests per second without credentials beside it, from many addresses of 127.0.0.0/8
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) flood: Option<u64>,
    /// The server is `turn-load forward`
    #[arg(long, conflicts_with = "direct")]
    pub(crate) forwarder: bool,
    /// Send to the receiver itself: what this program and the machine add
    #[arg(long)]
    pub(crate) direct: bool,
    #[command(flatten)]
    pub(crate) observation: Observation,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Churn {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Client sockets, used in turns: a server may go on having an allocation for a while after it was given back
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) sockets: u32,
    /// Allocations under way at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) in_flight: u32,
    /// Seconds that are measured
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) seconds: Duration,
    #[command(flatten)]
    pub(crate) observation: Observation,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Allocations
    #[arg(long, default_value_t = 5000)]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) observation: Observation,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Forward {
    /// Where `load --forwarder` asks for flows
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
}

impl Load {
    /// Packets of one flow in a row. The relay's side must fit, too: with its header.
    pub(crate) fn burst(&self) -> u32 {
        const MOST_BYTES: u32 = 65_507;
        let fits = MOST_BYTES / (self.size + wire::channel_data::HEADER_LEN as u32);
        let wanted = self.burst.unwrap_or(if self.flows == 1 { 64 } else { 16 });
        match self.sender {
            Sender::Gso => wanted.min(fits).max(1),
            Sender::Plain => wanted,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientToPeer => "client-to-peer",
            Self::PeerToClient => "peer-to-client",
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.0..=200.0).contains(&seconds) {
        return Err("from 0 to 200".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}
