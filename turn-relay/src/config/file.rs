//! The config file as it is written.

use serde::Deserialize;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

/// `turn-relay.toml`. Every field may be left out; all lists may be empty. On SIGHUP the file is read again and applied,
/// but for `listen`, `relay-addresses`, `external-addresses`, `port-range`, `relay-sockets`, `admin`, `threads` and `io`,
/// which need a restart, and `realm`, which must not change meanwhile.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct File {
    /// Where clients are listened for: `udp://ADDR:PORT`, `tcp://ADDR:PORT` or `tls://ADDR:PORT`; `udp://[::]:3478` is
    /// IPv6 only, beside `udp://0.0.0.0:3478` for IPv4. Default: `udp://0.0.0.0:3478`.
    pub(super) listen: Vec<String>,
    /// For `tls://`: a PEM file with the certificate first, then its chain. Read again when it changes.
    pub(super) certificate_file: Option<PathBuf>,
    /// For `tls://`: a PEM file with the certificate's key, of mode 0600. Read again when it changes.
    pub(super) key_file: Option<PathBuf>,
    /// Connections of TCP and TLS at a time; further ones are closed at once. Default: 65536.
    pub(super) connections: Option<NonZeroUsize>,
    /// Of them without an allocation; beyond it the oldest of these is closed. Default: 8192.
    pub(super) connections_without_allocation: Option<NonZeroUsize>,
    /// Of them from one /24 of IPv4 or /48 of IPv6; further ones are closed at once. Default: 1024.
    pub(super) connections_without_allocation_per_prefix: Option<NonZeroUsize>,
    /// How long a TLS handshake may take. Default: 10.
    pub(super) handshake_seconds: Option<NonZeroU32>,
    /// How long a connection may be without an allocation. Default: 30.
    pub(super) without_allocation_seconds: Option<NonZeroU32>,
    /// Bytes that wait for a client of TCP or TLS that reads slowly; what is beyond is dropped, in whole frames.
    /// Default: 262144.
    pub(super) connection_buffer_bytes: Option<NonZeroUsize>,
    /// What users log in to, at most 127 characters. Default: `turnpike`.
    pub(super) realm: Option<String>,
    /// Files with one secret each, from which expiring users are minted (TURN REST). The first and the others are worth
    /// the same; two of them let one replace the other.
    pub(super) auth_secret_files: Vec<PathBuf>,
    /// A file of users that do not expire, one `NAME:PASSWORD` per line; `#` begins a comment.
    pub(super) users_file: Option<PathBuf>,
    /// A file of names whose credentials are refused and whose allocations end at once, one per line: a user, what an
    /// expiring user name stands for (`alice` for `1900000000:alice`), or one such user name as a whole; `#` begins a
    /// comment. Read again when it changes. Default: none.
    pub(super) revocations_file: Option<PathBuf>,
    /// Addresses of this machine that relayed addresses are on; networks with `relay-sockets = "shared"`. Default: those listened on, unless they are wildcards.
    pub(super) relay_addresses: Vec<String>,
    /// What clients are told instead, behind a one-to-one NAT: for each family none, or as many as relay addresses.
    pub(super) external_addresses: Vec<String>,
    /// Networks whose hosts may be reached as peers, in CIDR notation. Default: none, so that nobody can be reached.
    pub(super) allow_peers: Vec<String>,
    /// Ports for relayed addresses, both ends included. Default: `49152-65535`.
    pub(super) port_range: Option<String>,
    /// Other relays of the same users, to which a client is sent whose new allocation has no room here (300 and
    /// ALTERNATE-SERVER), or that comes while this one drains: `udp://ADDR:PORT`, `tcp://ADDR:PORT` or `tls://ADDR:PORT`. A
    /// client hears of one of its transport and family, chosen at random; over TLS it must have a certificate for the
    /// same name. Default: none, so that it hears 508.
    pub(super) alternate_servers: Vec<String>,
    /// Where `/healthz`, `/readyz` and `/metrics` are served over HTTP. Default: nowhere.
    pub(super) admin: Option<String>,
    /// Event loops. Default: one per core.
    pub(super) threads: Option<NonZeroUsize>,
    /// Allocations that one user may hold at a time. Default: 4096.
    pub(super) allocations_per_user: Option<u32>,
    /// `per-allocation`: each relayed address is a port of its own, with a socket of its own. `shared`: each is an address of
    /// its own out of the networks in `relay-addresses`, which must lead to this machine (`ip route add local NETWORK dev
    /// lo`), and all of an event loop share one socket and one port. Default: `per-allocation`.
    pub(super) relay_sockets: Option<String>,
    /// How datagrams come and go: `gso`, `mmsg` or `plain`, each with more system calls than the one before; `auto` for
    /// the first of them that works. Default: `auto`.
    pub(super) io: Option<String>,
}
