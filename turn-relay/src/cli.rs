//! Flags. Each overrides its field of the config file; lists replace lists.

use clap::{Parser, Subcommand};
use service_kit::CommonArgs;
use std::path::PathBuf;

/// TURN server (RFC 8656) over UDP, TCP, TLS and DTLS: relays datagrams between its clients and the peers that --allow-peer names
#[derive(Parser, Debug, Default)]
#[command(version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Listen for clients here, over udp, tcp, tls or dtls; repeatable [default: udp://0.0.0.0:3478]
    #[arg(long, value_name = "udp://ADDR:PORT")]
    pub(crate) listen: Vec<String>,

    /// The certificate for tls:// and dtls:// and its chain, as PEM; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate_file: Option<PathBuf>,

    /// The certificate's key, as PEM, of mode 0600; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// What users log in to [default: turnpike]
    #[arg(long, value_name = "NAME")]
    pub(crate) realm: Option<String>,

    /// A user with a password that does not expire; repeatable. FOR TESTING ONLY: everyone on this machine can read it
    /// in the list of processes
    #[arg(long, value_name = "NAME:PASSWORD")]
    pub(crate) user: Vec<String>,

    /// A file with a secret from which expiring users are minted (TURN REST); repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_secret_file: Vec<PathBuf>,

    /// An address of this machine for relayed addresses, one or more per family; repeatable [default: the addresses
    /// listened on]
    #[arg(long, value_name = "ADDR")]
    pub(crate) relay_address: Vec<String>,

    /// What clients are told instead of the relay address of the same family and position, behind a one-to-one NAT;
    /// repeatable
    #[arg(long, value_name = "ADDR")]
    pub(crate) external_address: Vec<String>,

    /// Peers that may be reached, for example 10.0.0.0/24, or 10.0.0.0/24:53,8000-8999 at these ports; repeatable
    /// [default: none]
    #[arg(long, value_name = "CIDR[:PORTS]")]
    pub(crate) allow_peer: Vec<String>,

    /// Peers that may not be reached, whatever --allow-peer says, for example 10.0.0.53/32:53; repeatable [default: none]
    #[arg(long, value_name = "CIDR[:PORTS]")]
    pub(crate) deny_peer: Vec<String>,

    /// Ports for relayed addresses [default: 49152-65535]
    #[arg(long, value_name = "LO-HI")]
    pub(crate) port_range: Option<String>,

    /// Health, readiness and metrics over HTTP [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) admin: Option<String>,

    /// How long to go on after SIGTERM for the allocations that exist, while new ones are refused [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain_seconds: Option<u32>,

    /// per-allocation, or shared: relayed addresses are told apart by address, out of the networks in --relay-address, and
    /// share a port and a socket per event loop [default: per-allocation]
    #[arg(long, value_name = "WAY")]
    pub(crate) relay_sockets: Option<String>,

    /// How datagrams come and go: auto, uring, gso, mmsg or plain [default: auto, the first of the others that works]
    #[arg(long, value_name = "WAY")]
    pub(crate) io: Option<String>,
}

/// What it does instead of relaying.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Write lines of a users file
    #[command(subcommand)]
    User(UserCommand),

    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Look at configuration, machine and network, and say what works, what may not, and what to do; exit code 1 if
    /// something fails
    Doctor {
        /// A STUN server outside, for the address that it sees; repeatable
        #[arg(long, value_name = "HOST:PORT")]
        stun: Vec<String>,

        /// A web server, for the time
        #[arg(long, value_name = "HOST:PORT")]
        clock: Option<String>,

        /// The name that clients know the relay by, for the certificate
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum UserCommand {
    /// Print the line of a users file for a user whose password is read from standard input, with keys instead of the
    /// password
    Hash {
        name: String,

        /// What the user logs in to; the keys are worth nothing elsewhere
        #[arg(long, value_name = "NAME", default_value = "turnpike")]
        realm: String,
    },
}

/// See [`Command::Config`].
#[derive(Subcommand, Clone, Copy, Debug)]
pub(crate) enum ConfigCommand {
    /// Read the configuration and the files that it names, and say what is wrong: exit code 64, or 0 if nothing is
    Check,
    /// Print a configuration file with every field, its meaning and its default
    PrintDefault,
}
