//! What is known about a name, as it travels between a sidecar and who asks. No secret is among it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Everything a verdict is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The name, as it was asked for.
    pub name: String,
    /// What the sidecar says; absent when it could not be asked.
    pub sidecar: Option<Sidecar>,
    /// Why the sidecar could not be asked.
    pub unasked: Option<String>,
    /// What is wrong with this machine's identity, by its configuration: found when the sidecar could not be asked.
    pub identity: Option<IdentityProblem>,
    /// Ports that were tried through the tunnel.
    pub probes: Vec<Probe>,
    /// Whether a packet as long as the interface takes came back, when that was tried.
    pub full_size: Option<FullSize>,
}

/// Why a node cannot be who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityProblem {
    /// What kind.
    pub kind: IdentityProblemKind,
    /// One line.
    pub problem: String,
}

/// See [`IdentityProblem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityProblemKind {
    /// Its certificate has ended.
    Expired,
    /// Its clock is not the mesh's.
    ClockSkew,
    /// It has never enrolled.
    NotEnrolled,
    /// Discovery refuses it: revoked, or of another mesh.
    Refused,
    /// The configuration or the state directory cannot be used.
    Unusable,
}

/// What a sidecar knows about a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// `network/role/name`; empty before it is enrolled.
    pub node: String,
    /// The network it stands in.
    pub network: String,
    /// Where discovery is.
    pub discovery: String,
    /// Why discovery cannot be reached now; absent while it can.
    pub discovery_problem: Option<String>,
    /// Below which names are the mesh's.
    pub suffix: String,
    /// What the name stands for.
    pub known: Known,
    /// Why there is nothing behind it, if it is [`Known::Absent`].
    #[serde(default)]
    pub absent: Option<String>,
    /// The service's name, when the name has the form of one.
    pub service: String,
    /// The network's name, when the name has the form of one.
    pub target: String,
    /// What the target network exports, at most 64.
    pub services: Vec<String>,
    /// Networks of which something is known, at most 64.
    pub networks: Vec<String>,
    /// The relays of the two networks.
    pub relays: Vec<Relay>,
    /// The activators of the target network.
    pub activators: Vec<Activator>,
    /// What was said in the name of the target network's nodes lately and not believed.
    pub rejected: Vec<Rejected>,
    /// The addresses that stand for the service here.
    pub virtual_ips: Vec<IpAddr>,
    /// Other routes of this machine that have addresses in common with the pools of virtual IPs.
    pub collisions: Vec<Collision>,
    /// The resolvers that are asked for all other names.
    pub upstreams: Vec<Upstream>,
    /// Attempts to open a link to the target network that ended without one, since the sidecar's start.
    pub failures: u64,
    /// The last of them, unless a link opened since.
    pub last_failure: Option<Failure>,
    /// The link, opening or open.
    pub link: Option<Link>,
}

/// What a sidecar makes of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// It has not seen the directory yet.
    #[default]
    NothingYet,
    /// Not below the suffix, or not of the form `service.network`.
    NotOurs,
    /// No activator is registered for the network.
    NoSuchNetwork,
    /// The network's activators do not export it.
    NoSuchService,
    /// It is below a wildcard that is exported, and its activator says that there is nothing behind it.
    Absent,
    /// Exported.
    Exported,
}

/// A relay of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Its name.
    pub name: String,
    /// The network at whose edge it stands.
    pub network: String,
    /// Where it listens.
    pub url: String,
}

/// An activator, as it registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activator {
    /// `network/role/name`.
    pub node: String,
    /// Whether it exports the service.
    pub exports: bool,
    /// TCP ports of the service.
    pub tcp: Vec<u16>,
    /// UDP ports of the service.
    pub udp: Vec<u16>,
    /// The relayed addresses it holds.
    pub footholds: Vec<Foothold>,
    /// Relays on which it holds none, and why.
    pub troubles: Vec<Trouble>,
    /// Until when its registration is believed without being signed anew.
    pub expires: String,
}

/// Where an activator can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foothold {
    /// The relay.
    pub relay: String,
    /// The network in which the addresses can be reached.
    pub network: String,
    /// `ip:port`.
    pub relayed: Vec<String>,
}

/// Why an activator holds nothing on a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The relay.
    pub relay: String,
    /// The network at whose edge it stands.
    pub network: String,
    /// What kind.
    pub kind: TroubleKind,
}

/// See [`Trouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleKind {
    /// It does not answer.
    Silent,
    /// It does not accept fresh credentials.
    CredentialRefused,
    /// It answers and does not allocate.
    Refused,
    /// Discovery gave no credential, or its name has no address.
    NoAccess,
    /// Its URL cannot be used.
    Unusable,
    /// Said by a newer activator.
    Unknown,
}

/// A document that was not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The node in whose name it was said.
    pub from: String,
    /// Why.
    pub reason: String,
}

/// A route that has addresses in common with a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collision {
    /// The pool.
    pub pool: String,
    /// The route.
    pub route: String,
    /// The route's interface.
    pub interface: String,
    /// Whether packets to virtual IPs go that way instead; otherwise the pool hides a part of the route.
    pub takes_over: bool,
}

/// A resolver for names that are not the mesh's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// As the configuration names it.
    pub upstream: String,
    /// Whether there is an encrypted connection to it now; absent where it is asked in clear text.
    pub connected: Option<bool>,
    /// Why it cannot be used, as far as is known.
    pub problem: Option<String>,
}

/// How an attempt to open a link ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The activator that was asked; absent when there was none.
    pub node: Option<String>,
    /// One line.
    pub reason: String,
    /// How long ago it ended, seconds.
    pub seconds_ago: f64,
    /// The steps it got to, with milliseconds since the link was wanted.
    pub steps: Vec<(String, f64)>,
    /// What ICE tried.
    pub pairs: Vec<Pair>,
}

/// See [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// No activator to ask.
    NoActivator,
    /// The offer could not be delivered.
    NotDelivered,
    /// The offer was not answered in time.
    NoAnswer,
    /// The activator refused the offer.
    Refused,
    /// The answer was not believed, or could not be used.
    NotBelieved,
    /// No pair of candidates worked.
    NoPath,
    /// A path was found, and the session did not open over it.
    NoSession,
    /// The other end gave it up.
    Ended,
    /// This end could not begin.
    Local,
}

/// A pair of candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// This end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// Whether a relay is on it.
    pub relayed: bool,
    /// `selected`, `answered`, `unanswered`, `checking`, `unchecked`.
    pub state: String,
    /// Round trip in milliseconds, once measured.
    pub rtt_ms: Option<f64>,
}

/// A link to the target network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its number here.
    pub link: u64,
    /// The activator.
    pub node: String,
    /// Whether packets can cross.
    pub open: bool,
    /// `direct`, `relay/udp`, ...
    pub path: Option<String>,
    /// `datagram`, `data-channel`.
    pub carrier: Option<String>,
    /// Round trip in milliseconds, once measured.
    pub rtt_ms: Option<f64>,
    /// The steps of opening, with milliseconds since the link was wanted.
    pub steps: Vec<(String, f64)>,
    /// What ICE tried.
    pub pairs: Vec<Pair>,
    /// What the activator said of the service.
    pub binding: Binding,
    /// The longest IP packet that crosses in one piece, bytes, as far as is known.
    pub mtu: usize,
    /// Whether the datagram lane should be up and does not get through.
    pub lane_silent: bool,
}

/// What the activator said of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// It was not asked yet.
    #[default]
    NotAsked,
    /// It was asked.
    Asked,
    /// It lets this node use it.
    Accepted,
    /// It does not, for this reason.
    Refused(String),
}

/// A TCP port that was tried through the tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The virtual IP.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, milliseconds.
    pub ms: f64,
}

/// See [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It accepted.
    Open,
    /// It answered with a reset.
    Closed,
    /// An ICMP error came back.
    Unreachable,
    /// Nothing came back.
    Silent,
    /// This machine did not even send.
    NotSent(String),
}

/// What came of long echo requests through the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullSize {
    /// Whether a short one came back.
    pub short: bool,
    /// Whether a long one came back.
    pub long: bool,
    /// How long, bytes of IP packet.
    pub bytes: usize,
}
