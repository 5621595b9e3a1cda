//! The configuration file as it is written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use model::{NetworkName, NodeName, ServiceName};
use serde::Deserialize;
use traces::TracesConfig;

/// `dns-signal.toml`. Fields without a default must be given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// The network this sidecar is in.
    pub network: NetworkName,
    /// Where discovery is: `https://HOST:PORT`.
    pub discovery: String,
    /// Directory for key, certificate and assigned virtual IPs; created if absent, readable by its owner only.
    /// Default `/var/lib/turnpike/dns-signal`.
    #[serde(default = "default_state_directory")]
    pub state_directory: PathBuf,
    /// File with the join token; needed for the first start only, while the state directory holds no identity.
    pub join_token_file: Option<PathBuf>,
    /// This node's name, unique among the network's workloads. Default: the token's, else discovery chooses.
    pub node_name: Option<NodeName>,
    /// Address of the admin port (HTTP: `/healthz`, `/readyz`, `/metrics`, `/status`). Default `127.0.0.1:9103`.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
    /// PEM file with CA certificates. A relay that is reached over TLS has to show a certificate for its host from the mesh's CA,
    /// or from one of these. Default: none.
    pub relay_trust_file: Option<PathBuf>,
    /// Name resolution.
    pub dns: DnsFile,
    /// The tunnel's local end.
    #[serde(default)]
    pub tunnel: TunnelFile,
    /// Links to activators.
    #[serde(default)]
    pub link: LinkFile,
    /// Traces of links' opening, for an OpenTelemetry collector.
    #[serde(default)]
    pub traces: TracesConfig,
}

/// Section `[dns]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DnsFile {
    /// Addresses to answer on, UDP and TCP; without a port: 53. At most 16. Default `["127.0.0.1:53"]`.
    #[serde(default = "default_listen")]
    pub listen: Vec<String>,
    /// Resolvers for all names that are not the mesh's, tried in this order; 1 to 8. `192.0.2.53` or `192.0.2.53:53`, over UDP and
    /// TCP; `tls://9.9.9.9#dns.quad9.net`, DNS over TLS; `https://9.9.9.9/dns-query#dns.quad9.net` or
    /// `https://dns.quad9.net/dns-query#9.9.9.9`, DNS over HTTPS.
    pub upstreams: Vec<String>,
    /// PEM file with CA certificates: upstreams over TLS and HTTPS have to show a certificate for their name from one of these.
    /// Default: those that this machine believes.
    pub upstream_trust_file: Option<PathBuf>,
    /// Answers of upstreams that are kept as long as they say, 0 to 65536; 0: none. Default 4096.
    #[serde(default = "default_cache_answers")]
    pub cache_answers: usize,
    /// The domain of the mesh: services are `<service>.<network>.<suffix>`. Default `mesh.internal`.
    #[serde(default = "default_suffix")]
    pub suffix: String,
    /// How long a workload may remember an answer, positive or negative; whole seconds, 0 s to 1 h. Default `5s`.
    #[serde(default = "default_ttl")]
    pub ttl: String,
    /// How the workload's queries come here: `auto`, the first of these that works: a resolv.conf that names dns-signal
    /// already, `resolved`, `redirect`, `dnsmasq`, `resolv-conf`; `resolved`, systemd-resolved asks here for our names; `redirect`,
    /// port 53 turned here by nftables; `dnsmasq`, the host's dnsmasq asks here for our names; `resolv-conf`, the file replaced;
    /// `none`, nothing is done. What is done is undone at the end, also after a crash. Default `auto`.
    #[serde(default = "default_interception")]
    pub interception: String,
    /// The file that tells dnsmasq to ask here. Default: `turnpike.conf` in the directory that a running dnsmasq was told by
    /// `--conf-dir`.
    pub dnsmasq_file: Option<PathBuf>,
    /// What makes dnsmasq read that file: program and arguments. Default `["nmcli", "general", "reload", "dns-full"]` when the
    /// file is in `/etc/NetworkManager/dnsmasq.d`, else `["systemctl", "restart", "dnsmasq"]`.
    pub dnsmasq_reload: Option<Vec<String>>,
    /// Further names for services. At most 256.
    #[serde(default)]
    pub alias: Vec<AliasFile>,
}

/// One `[[dns.alias]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AliasFile {
    /// `api.example.com`, or `*.prod.svc.clusterset.local`, in which `*` is one label. While it stands for nothing, the
    /// upstreams are asked.
    pub name: String,
    /// The service. Default, only with `*`: the label in its place.
    pub service: Option<ServiceName>,
    /// Networks in which the service is looked for, in this order. Default: all, this one first, then by name.
    #[serde(default)]
    pub networks: Vec<NetworkName>,
    /// Which of the networks that export it: `failover`, the first; `round-robin`, all, and each answer begins with another.
    /// Default `failover`.
    #[serde(default = "default_choose")]
    pub choose: String,
}

/// Section `[tunnel]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TunnelFile {
    /// Name of the TUN interface, 1 to 15 characters. Default `turnpike0`.
    pub interface: String,
    /// Range of virtual IPv4 addresses, /30 or larger, which nothing else here uses; its first host address is the
    /// interface's own. Default `198.18.0.0/15`.
    pub pool_ipv4: String,
    /// Range of virtual IPv6 addresses, /126 or larger. Default `fd74:7572:6e70::/64`.
    pub pool_ipv6: String,
}

/// Section `[link]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkFile {
    /// A link without traffic for this long is closed; the next packet opens it again. 1 s to 1 d. Default `60s`.
    pub idle_timeout: String,
    /// What carries packets: `auto`, the datagram lane where the activator has it too and it gets through, else the data
    /// channel; `datagram`, the same but a lane that fell silent is not given up; `data-channel`, never the lane.
    /// Default `auto`.
    pub carrier: String,
    /// Which ways packets may take: `auto`, the best there is; `relay-only`; `direct-only`, never through a relay. Each end
    /// sees to it for itself, so that contradicting ends have no path. Default `auto`.
    pub path: String,
    /// The same for single networks, by name, in place of `path`.
    pub paths: BTreeMap<NetworkName, String>,
    /// Whether a second link, to another activator of the network, is kept open beside one that is used: it takes over at
    /// once when the first falls silent. Without it, one is opened then. Default `false`.
    pub standby: bool,
}

impl Default for TunnelFile {
    fn default() -> Self {
        Self {
            interface: "turnpike0".into(),
            pool_ipv4: "198.18.0.0/15".into(),
            pool_ipv6: "fd74:7572:6e70::/64".into(),
        }
    }
}

impl Default for LinkFile {
    fn default() -> Self {
        Self {
            idle_timeout: "60s".into(),
            carrier: "auto".into(),
            path: "auto".into(),
            paths: BTreeMap::new(),
            standby: false,
        }
    }
}

fn default_state_directory() -> PathBuf {
    "/var/lib/turnpike/dns-signal".into()
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9103))
}

fn default_listen() -> Vec<String> {
    vec!["127.0.0.1:53".into()]
}

const fn default_cache_answers() -> usize {
    4_096
}

fn default_suffix() -> String {
    "mesh.internal".into()
}

fn default_interception() -> String {
    "auto".into()
}

fn default_choose() -> String {
    "failover".into()
}

fn default_ttl() -> String {
    "5s".into()
}
