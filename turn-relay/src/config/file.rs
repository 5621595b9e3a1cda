//! The config file as it is written.

use super::hook::HookFile;
use super::realm::RealmFile;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

/// `turn-relay.toml`. Every field may be left out; all lists may be empty. On SIGHUP the file is read again and applied,
/// but for `listen`, `relay-addresses`, `external-addresses`, `port-range`, `relay-sockets`, `admin`, `threads` and `io`,
/// which need a restart, and `realm`, which must not change meanwhile.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct File {
    /// Where clients are listened for: `udp://ADDR:PORT`, `tcp://ADDR:PORT`, `tls://ADDR:PORT` or
    /// `dtls://ADDR:PORT` (DTLS 1.2); `udp://[::]:3478` is
    /// IPv6 only, beside `udp://0.0.0.0:3478` for IPv4. Default: `udp://0.0.0.0:3478`.
    pub(super) listen: Vec<String>,
    /// For `tls://` and `dtls://`: a PEM file with the certificate first, then its chain, which `dtls://` leaves out. Read
    /// again when it changes.
    pub(super) certificate_file: Option<PathBuf>,
    /// For `tls://` and `dtls://`: a PEM file with the certificate's key, of mode 0600; ECDSA on P-256 or P-384 for
    /// `dtls://`. Read again when it changes.
    pub(super) key_file: Option<PathBuf>,
    /// Connections of TCP and TLS at a time, and as many sessions of DTLS; further ones are closed at once. Default: 65536.
    pub(super) connections: Option<NonZeroUsize>,
    /// Of them without an allocation; beyond it the oldest of these is closed. Default: 8192.
    pub(super) connections_without_allocation: Option<NonZeroUsize>,
    /// Of them from one /24 of IPv4 or /48 of IPv6; further ones are closed at once. Default: 1024.
    pub(super) connections_without_allocation_per_prefix: Option<NonZeroUsize>,
    /// How long a handshake of TLS or DTLS may take. Default: 10.
    pub(super) handshake_seconds: Option<NonZeroU32>,
    /// How long a connection may be without an allocation. Default: 30.
    pub(super) without_allocation_seconds: Option<NonZeroU32>,
    /// Bytes that wait for a client of TCP or TLS that reads slowly; what is beyond is dropped, in whole frames.
    /// Default: 262144.
    pub(super) connection_buffer_bytes: Option<NonZeroUsize>,
    /// Networks of load balancers: each connection from there, over TCP and TLS, has to begin with a header of the PROXY protocol,
    /// version 2, and counts as the client's that it names. Nobody else may send one. Default: none.
    pub(super) proxy_protocol_from: Vec<String>,
    /// TCP connections between the relay and peers (RFC 6062) at a time; with 0 nobody gets an allocation for them.
    /// Default: 16384.
    pub(super) peer_connections: Option<usize>,
    /// Of them, those of one allocation. Default: 64.
    pub(super) peer_connections_per_allocation: Option<NonZeroUsize>,
    /// What users log in to, at most 127 characters. Default: `turnpike`.
    pub(super) realm: Option<String>,
    /// Files with one secret each, from which expiring users are minted (TURN REST): the password of `EXPIRY:NAME` is base64 of
    /// its HMAC-SHA1 or HMAC-SHA256 under the secret. The first and the others are worth the same; two of them let one
    /// replace the other.
    pub(super) auth_secret_files: Vec<PathBuf>,
    /// A file of users that do not expire, of mode 0600, one per line: `NAME:PASSWORD`, or what `turn-relay user hash NAME` prints,
    /// which has keys instead of the password; `#` begins a comment.
    pub(super) users_file: Option<PathBuf>,
    /// Authorization servers whose tokens are taken (RFC 7635): for each the identifier of the key that is shared with it, which
    /// is its clients' user name, and a file of mode 0600 with the key in base64, 16 bytes for AES-128-GCM or 32 for
    /// AES-256-GCM. Default: none.
    pub(super) token_keys: BTreeMap<String, PathBuf>,
    /// What authorization servers call this relay in their tokens, at most 127 characters. Default: the realm.
    pub(super) server_name: Option<String>,
    /// A site's own HTTP server that is asked about users who are none of those known here: it gets `{"user": …, "realm": …}` by
    /// POST, and answers 200 with `{"password": …}` or `{"md5": …, "sha256": …}`, or 403. Default: none.
    pub(super) hook: Option<HookFile>,
    /// A file of names whose credentials are refused and whose allocations end at once, one per line: a user, what an
    /// expiring user name stands for (`alice` for `1900000000:alice`), one such user name as a whole, or the identifier of a
    /// token key; `#` begins a comment. Read again when it changes. Default: none.
    pub(super) revocations_file: Option<PathBuf>,
    /// Addresses of this machine that relayed addresses are on; networks with `relay-sockets = "shared"`. Default: those listened on, unless they are wildcards.
    pub(super) relay_addresses: Vec<String>,
    /// What clients are told instead, behind a one-to-one NAT: for each family none, or as many as relay addresses.
    pub(super) external_addresses: Vec<String>,
    /// Networks whose hosts may be reached as peers, in CIDR notation, and the ports if not all: `10.0.0.0/24`,
    /// `10.0.0.0/24:53,8000-8999`, `fd00:10::/64:443`. Loopback, link-local addresses and the metadata services of clouds
    /// only by an entry for them or a part of them (`127.0.0.0/8`), not by a larger network. Default: none, so that nobody
    /// can be reached.
    pub(super) allow_peers: Vec<String>,
    /// The same for those who may not be reached, whatever `allow-peers` says. Default: none.
    pub(super) deny_peers: Vec<String>,
    /// Prefixes that a NAT64 between this relay and its peers uses, beside `64:ff9b::/96` and `64:ff9b:1::/48`: an address
    /// in them stands for the IPv4 address in it, too. Of 32, 40, 48, 56, 64 or 96 bits. Default: none.
    pub(super) nat64_prefixes: Vec<String>,
    /// Ports for relayed addresses, both ends included. Default: `49152-65535`.
    pub(super) port_range: Option<String>,
    /// Other relays of the same users, to which a client is sent whose new allocation has no room here (300 and
    /// ALTERNATE-SERVER), or that comes while this one drains: `udp://ADDR:PORT`, `tcp://ADDR:PORT` or `tls://ADDR:PORT`. A
    /// client hears of one of its transport and family, chosen at random; over TLS it must have a certificate for the
    /// same name. Default: none, so that it hears 508.
    pub(super) alternate_servers: Vec<String>,
    /// A second address for NAT behavior discovery (RFC 5780), as `ADDR:PORT`: one for each family at most. It differs in
    /// address and port from the first `udp://` address of the family in `listen`, which must name an address and a port;
    /// clients are then listened for at all four combinations. Answers to Binding requests there are larger than the
    /// requests. Default: none.
    pub(super) alternate_addresses: Vec<String>,
    /// Whether a client that asks for it may take its allocation with it to another address, port or transport (RFC 8016). Not
    /// with `relay-sockets = "shared"` and more than one of `threads`. Default: true.
    pub(super) mobility: Option<bool>,
    /// Where `/healthz`, `/readyz` and `/metrics` are served over HTTP. Default: nowhere.
    pub(super) admin: Option<String>,
    /// The user to become at the start, where the relay is started as root. It must be able to read all files that are named
    /// here, also later. Ports below 1024 and large socket buffers remain possible. Default: none.
    pub(super) run_as: Option<String>,
    /// Whether the relay gives up, where the kernel knows how, to write files but beside `usage-file` (Landlock), and to make
    /// calls that it never makes (seccomp). Default: `true`.
    pub(super) confinement: Option<bool>,
    /// A file for usage records, as JSON lines: one for each finished allocation, and one per user and period. It is made with
    /// mode 0600, and opened again on SIGHUP. Default: none.
    pub(super) usage_file: Option<PathBuf>,
    /// How often a usage record of each user with allocations is written. Default: 60.
    pub(super) usage_seconds: Option<NonZeroU32>,
    /// How long the relay goes on after SIGTERM for the allocations that exist, while new ones are refused; it ends with
    /// the last of them, and at once with a second SIGTERM or SIGINT. With systemd, `TimeoutStopSec` must be longer.
    /// Default: 0, so that SIGTERM ends it at once.
    pub(super) drain_seconds: Option<u32>,
    /// Event loops. Default: one per core.
    pub(super) threads: Option<NonZeroUsize>,
    /// Allocations that one user may hold at a time. Default: 4096.
    pub(super) allocations_per_user: Option<u32>,
    /// Allocations at a time of all users of the realm; of those of all realms, `relay-allocations`. Default: as many as
    /// there are ports.
    pub(super) allocations: Option<u32>,
    /// Bytes of application data per second that are relayed for one user in each direction; what is beyond is dropped.
    /// Default: 0, for any number.
    pub(super) user_bytes_per_second: Option<u64>,
    /// The same for all users of the realm together. When they want more, each gets as much as the others, except those
    /// who want less. Default: 0, for any number.
    pub(super) total_bytes_per_second: Option<u64>,
    /// Allocations at a time of all realms together. Default: as many as there are ports.
    pub(super) relay_allocations: Option<u32>,
    /// Bytes of application data per second that are relayed for all realms together in each direction. When their users want
    /// more, each of them gets as much as the others, except those who want less. Default: 0, for any number.
    pub(super) relay_bytes_per_second: Option<u64>,
    /// The longest lifetime that an allocation is granted, from 600 to 86400. Default: 3600.
    pub(super) max_lifetime_seconds: Option<u32>,
    /// Further realms, each as a table `[[realms]]`: another tenant of the same relay, whose users are nobody in the others. What
    /// is at the top is the first realm, to which all clients are led that reach no other. Default: none.
    pub(super) realms: Vec<RealmFile>,
    /// Peers that a user may begin to reach within a minute, at most 16384: addresses of permissions, and addresses with
    /// ports. Who looks for hosts or open ports needs more. Default: 2048; 0 for any number.
    pub(super) new_peers_per_minute: Option<u32>,
    /// Answers per second over UDP to requests that are not authenticated, Binding among them; further ones are not
    /// answered. Default: 20000; 0 for any number.
    pub(super) unauthenticated_answers_per_second: Option<u32>,
    /// Of them to one /24 of IPv4 or /48 of IPv6. Default: 2000; 0 for any number.
    pub(super) unauthenticated_answers_per_second_per_prefix: Option<u32>,
    /// Of them those that are more than one and a half times as large as the request on the wire: whole challenges, with
    /// SHA-256 offered. Beyond it challenges are short, or not sent if even the shortest is larger: to requests without
    /// attributes, or with a `realm` of more than 8 characters. A sixteenth of it to one prefix. Default: 4096; 0 for none.
    pub(super) large_unauthenticated_answers_per_second: Option<u32>,
    /// `per-allocation`: each relayed address is a port of its own, with a socket of its own. `shared`: each is an address of
    /// its own out of the networks in `relay-addresses`, which must lead to this machine (`ip route add local NETWORK dev
    /// lo`), and all of an event loop share one socket and one port. Default: `per-allocation`.
    pub(super) relay_sockets: Option<String>,
    /// How datagrams come and go: `gso`, `mmsg` or `plain`, each with more system calls than the one before; `auto` for
    /// the first of them that works; `uring` is `gso`, and sends for many clients with one system call of io_uring.
    /// Default: `auto`.
    pub(super) io: Option<String>,
}
