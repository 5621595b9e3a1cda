//! The sample configurations that `turnpike init` writes: complete, and commented where there is something to choose.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use model::NetworkName;

use crate::mesh_directory::{
    CA_CERTIFICATE, CA_KEY, DISCOVERY_CERTIFICATE, DISCOVERY_KEY, RELAY_CERTIFICATE, RELAY_KEY,
    RELAY_SECRET,
};

/// What all samples speak of.
pub(crate) struct Sample<'a> {
    /// The mesh directory, as it will be called.
    pub(crate) directory: &'a Path,
    /// `https://host:port`.
    pub(crate) discovery: &'a str,
    /// Where discovery listens.
    pub(crate) listen: SocketAddr,
    /// Networks and the URLs of their relays.
    pub(crate) networks: &'a [(NetworkName, String)],
}

/// `host:port` of a `turn:` URI with UDP (RFC 7065).
pub(crate) fn relay_address(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("turn:")?;
    let (address, query) = rest.split_once('?').unwrap_or((rest, "transport=udp"));
    let (host, port) = address.rsplit_once(':')?;
    let fits = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0);
    (fits && query == "transport=udp").then_some(address)
}

/// The host of such a URI, an IPv6 address without its brackets.
pub(crate) fn relay_host(url: &str) -> Option<&str> {
    let (host, _) = relay_address(url)?.rsplit_once(':')?;
    Some(host.trim_matches(['[', ']']))
}

/// The same relay over TCP, and over TLS on the port of HTTPS.
fn more_urls(url: &str) -> Option<[String; 2]> {
    let address = relay_address(url)?;
    let (host, _) = address.rsplit_once(':')?;
    Some([
        format!("turn:{address}?transport=tcp"),
        format!("turns:{host}:443"),
    ])
}

impl Sample<'_> {
    fn path(&self, name: &str) -> String {
        quoted(&self.directory.join(name).to_string_lossy())
    }

    pub(crate) fn discovery(&self) -> String {
        let mut text = format!(
            r#"# Discovery: the directory of the mesh. `discovery --config FILE`

# Where nodes connect (TCP, TLS).
listen = "{listen}"
# Health, readiness, metrics (plain HTTP): keep it private.
admin = "127.0.0.1:9100"
# The console, for a browser on this machine. It has no password; without this line there is none.
console = "127.0.0.1:9105"
# What must survive a restart. Without it, join tokens can be used again after one.
data-file = {data}

ca-certificate-file = {ca}
ca-key-file = {ca_key}
# Names the hosts given to `turnpike init` with --discovery and --server-name.
certificate-file = {certificate}
key-file = {key}

# How long a node's certificate lasts; it is renewed at two thirds.
certificate-lifetime = "24h"
# How long credentials for a relay last.
turn-credential-lifetime = "1h"
"#,
            listen = self.listen,
            data = self.path("discovery.redb"),
            ca = self.path(CA_CERTIFICATE),
            ca_key = self.path(CA_KEY),
            certificate = self.path(DISCOVERY_CERTIFICATE),
            key = self.path(DISCOVERY_KEY),
        );
        if self.networks.is_empty() {
            text += "\n# One for each relay:\n# [[relay]]\n# name = \"west\"\n# network = \"west\"\n\
                     # url = \"turn:203.0.113.12:3478?transport=udp\"\n\
                     # auth-secret-file = \"/etc/turnpike/relay-secret\"\n";
        }
        for (network, relay) in self.networks {
            let secret = self.path(&format!("{network}/{RELAY_SECRET}"));
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "\n[[relay]]\nname = \"{network}\"\nnetwork = \"{network}\"\nurl = {url}\n\
                 # For nodes whose network does not let UDP out.\nmore-urls = [{more}]\n\
                 # The same secret as on the relay.\nauth-secret-file = {secret}\n",
                url = quoted(relay),
                more = more_urls(relay)
                    .map(|urls| urls.map(|url| quoted(&url)).join(", "))
                    .unwrap_or_default(),
            );
        }
        text
    }

    pub(crate) fn turn_relay(&self, network: &NetworkName, relay: &str) -> String {
        let listen = relay_address(relay).unwrap_or("0.0.0.0:3478");
        let secret = self.path(&format!("{network}/{RELAY_SECRET}"));
        let certificate = self.path(&format!("{network}/{RELAY_CERTIFICATE}"));
        let key = self.path(&format!("{network}/{RELAY_KEY}"));
        let (host, _) = listen.rsplit_once(':').unwrap_or(("0.0.0.0", ""));
        format!(
            r#"# The relay at the edge of `{network}`: it listens outside and relays inside. `turn-relay --config FILE`

# Where the activators of other networks connect: over TCP and TLS those whose network does not let UDP out.
listen = ["udp://{listen}", "tcp://{listen}", "tls://{host}:443"]
# Names the host given to `turnpike init` with --relay; issued by the mesh's CA, which is whom nodes believe.
certificate-file = {certificate}
key-file = {key}
realm = "{network}"
# The same secret as in discovery.toml.
auth-secret-files = [{secret}]

# CHANGE: this machine's addresses inside `{network}`; allocations are made on them.
relay-addresses = ["10.0.0.2"]
# CHANGE: the hosts inside that may be reached through the relay. Everything else is denied.
allow-peers = ["10.0.0.0/24"]
port-range = "49152-65535"

# Health, readiness, metrics (plain HTTP): keep it private.
admin = "127.0.0.1:9101"
"#
        )
    }

    pub(crate) fn activator(&self, network: &NetworkName) -> String {
        format!(
            r#"# The gateway of `{network}`. `activator --config FILE`

network = "{network}"
discovery = "{discovery}"
# Key and certificate. Must survive restarts, or a new join token is needed.
state-directory = "/var/lib/turnpike/activator"
# From `turnpike token create --network {network} --role activator`; needed for the first start only.
join-token-file = "/etc/turnpike/activator.token"
# Its name; discovery chooses one if absent.
# node-name = "gateway-1"

# Health, readiness, metrics, status (plain HTTP): keep it private.
admin = "127.0.0.1:9102"

[tunnel]
interface = "turnpike0"
# Addresses that stand for remote sidecars on this machine; must be unused in `{network}`.
client-pool-ipv4 = "100.89.0.0/16"
client-pool-ipv6 = "fd89:7475:726e::/64"
# What carries packets: "auto", "datagram" or "data-channel".
carrier = "auto"

# Who may use exports without an `allow` of their own: networks, or workloads of one (network/name, network/beginning*).
# default-allow = ["{network}"]

# CHANGE: what others reach as orders.{network}.mesh.internal. One section for each service.
[[export]]
name = "orders"
addresses = ["10.0.0.20"]
tcp = [8080]
udp = []

# All names below prod.{network}.mesh.internal at once, as this network's own DNS knows them.
# [[export]]
# name = "*.prod"
# resolve = "*.prod.svc.cluster.local"
# within = ["10.96.0.0/12"]
# tcp = [80, 443]
"#,
            discovery = self.discovery,
        )
    }

    pub(crate) fn dns_signal(&self, network: &NetworkName) -> String {
        format!(
            r#"# Beside a workload in `{network}`, whose queries to port 53 it intercepts. `dns-signal --config FILE`

network = "{network}"
discovery = "{discovery}"
# Key, certificate and virtual IPs. Must survive restarts, or a new join token is needed.
state-directory = "/var/lib/turnpike/dns-signal"
# From `turnpike token create --network {network} --role workload`; needed for the first start only.
join-token-file = "/etc/turnpike/dns-signal.token"
# Its name; discovery chooses one if absent.
# node-name = "app-1"

# Health, readiness, metrics, status (plain HTTP): keep it private.
admin = "127.0.0.1:9103"

[dns]
listen = ["127.0.0.1:53"]
# CHANGE: the resolvers for all other names. Over TLS: "tls://9.9.9.9#dns.quad9.net"; over HTTPS:
# "https://9.9.9.9/dns-query#dns.quad9.net".
upstreams = ["10.0.0.1:53"]
suffix = "mesh.internal"
ttl = "5s"

[tunnel]
interface = "turnpike0"
# Virtual IPs of remote services; must be unused on this machine.
pool-ipv4 = "198.18.0.0/15"
pool-ipv6 = "fd74:7572:6e70::/64"

[link]
# A link without traffic is closed after this, and comes back with the next packet.
idle-timeout = "60s"
# What carries packets: "auto", "datagram" or "data-channel".
carrier = "auto"
"#,
            discovery = self.discovery,
        )
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
